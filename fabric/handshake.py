"""How two nodes prove themselves to each other at the start of a session.

The listener is proved by TLS before any byte of ours is sent: the dialer has checked that its certificate
belongs to the node it wants. The dialer is proved by AUTH, an Ed25519 signature over

    PAE("application/vnd.rap.fabric.session.auth.v1+json", canonical JSON of
        {cluster_id, dialer, listener, dialer_hello_sha256, listener_hello_sha256,
         listener_certificate_sha256})

where the HELLO hashes cover the whole frames, header included: both nonces, both keys, all capabilities and
keys that this version does not know. The certificate hash ties the proof to this very TLS peer, so a proof
that one listener got is worth nothing at another. Source: docs/wire.md, "Handshake".
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from hashlib import sha256
from typing import Final, Protocol

from fabric.errors import SessionError
from fabric.identity import node_id_of
from fabric.wire import (
    Auth,
    Frame,
    FrameType,
    Hello,
    SessionReady,
    decode_frame,
    encode_frame,
    encode_map,
)
from statelog.canonical import encode
from statelog.signing import pae, verify

SESSION_VERSION: Final = 1
AUTH_TYPE: Final = "application/vnd.rap.fabric.session.auth.v1+json"


class Side(Enum):
    """Which end of the QUIC connection this node is."""

    DIALER = "dialer"
    LISTENER = "listener"


class Identity(Protocol):
    """What sessions and seals need of `fabric.identity.NodeIdentity`."""

    @property
    def public(self) -> bytes:
        """The 32 raw public bytes of the node's key."""
        ...

    @property
    def node_id(self) -> str:
        """SHA-256 of `public`, lower-case hex."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        ...


def auth_bytes(
    *,
    cluster_id: str,
    dialer: str,
    listener: str,
    dialer_hello: bytes,
    listener_hello: bytes,
    listener_certificate_sha256: str,
) -> bytes:
    """What the dialer signs. The HELLOs are whole frames; node ids and the certificate hash are hex."""
    return pae(
        AUTH_TYPE,
        encode(
            {
                "cluster_id": cluster_id,
                "dialer": dialer,
                "dialer_hello_sha256": sha256(dialer_hello).hexdigest(),
                "listener": listener,
                "listener_certificate_sha256": listener_certificate_sha256,
                "listener_hello_sha256": sha256(listener_hello).hexdigest(),
            }
        ),
    )


class Handshake:
    """HELLO, AUTH and SESSION_READY of one end. Feed it the control lane's frames until `complete`.

    Listener: HELLO at once; SESSION_READY once AUTH holds. Dialer: after the listener's HELLO, its own HELLO,
    AUTH and SESSION_READY in one flight. Each end is complete when it has the other's SESSION_READY.
    """

    def __init__(
        self,
        side: Side,
        identity: Identity,
        cluster_id: str,
        random_bytes: Callable[[int], bytes],
        ready: SessionReady,
        *,
        listener_certificate_sha256: str,
        expected_peer: str | None,
        capabilities: tuple[str, ...] = (),
        token: bytes = b"",
    ) -> None:
        if side is Side.DIALER and expected_peer is None:
            raise SessionError("unexpected_peer", "a dialer must know whom it dials")
        self._side = side
        self._identity = identity
        self._cluster_id = cluster_id
        self._certificate = listener_certificate_sha256
        self._expected_peer = expected_peer
        self._own_token = token
        self._ready_frame = encode_map(ready)
        self._own_hello = encode_map(
            Hello(
                public=identity.public,
                versions=[SESSION_VERSION],
                nonce=random_bytes(32),
                capabilities=list(capabilities),
            )
        )
        self._peer_hello = b""
        self.peer: Hello | None = None
        self.peer_node_id = ""
        self.peer_ready: SessionReady | None = None
        self.token = b""
        self.proved = False
        """Whether the peer's identity is certain: a dialer's from HELLO on, a listener's after AUTH."""

    @property
    def complete(self) -> bool:
        """Whether both ends are proved and have said SESSION_READY."""
        return self.proved and self.peer_ready is not None

    def start(self) -> list[bytes]:
        """Frames to send before anything came."""
        return [self._own_hello] if self._side is Side.LISTENER else []

    def receive(self, frame: Frame) -> list[bytes]:
        """Take a frame of a known type from the control lane; returns frames to send.

        Raises `SessionError` (`unexpected_frame`, `no_common_version`, `unexpected_peer`, `self_connect`,
        `wrong_cluster`, `auth_failed`) and `WireError`.
        """
        body = decode_frame(frame)
        if isinstance(body, Hello) and self.peer is None:
            return self._hello(body, frame)
        if isinstance(body, Auth) and self._side is Side.LISTENER and self.peer and not self.proved:
            return self._auth(body, self.peer)
        if isinstance(body, SessionReady) and self.proved and self.peer_ready is None:
            self.peer_ready = body
            return []
        raise SessionError("unexpected_frame", f"{FrameType(frame.type).name} during the handshake")

    def _hello(self, hello: Hello, frame: Frame) -> list[bytes]:
        if SESSION_VERSION not in hello.versions:
            raise SessionError("no_common_version", f"the peer speaks {hello.versions}")
        peer = node_id_of(hello.public)
        if peer == self._identity.node_id:
            raise SessionError("self_connect", "the peer is this node")
        if self._expected_peer is not None and peer != self._expected_peer:
            raise SessionError("unexpected_peer", f"the peer is {peer}, expected {self._expected_peer}")
        self.peer, self.peer_node_id = hello, peer
        self._peer_hello = encode_frame(frame.type, frame.stream_id, frame.body, frame.flags)
        if self._side is Side.LISTENER:
            return []
        self.proved = True
        signature = self._identity.sign(self._transcript())
        auth = Auth(cluster_id=self._cluster_id, signature=signature, token=self._own_token)
        return [self._own_hello, encode_map(auth), self._ready_frame]

    def _auth(self, auth: Auth, hello: Hello) -> list[bytes]:
        if auth.cluster_id != self._cluster_id:
            raise SessionError("wrong_cluster", f"the peer belongs to {auth.cluster_id}")
        if not verify(hello.public, auth.signature, self._transcript()):
            raise SessionError("auth_failed", f"{self.peer_node_id} did not prove its identity")
        self.proved, self.token = True, auth.token
        return [self._ready_frame]

    def _transcript(self) -> bytes:
        own, other = (self._identity.node_id, self._own_hello), (self.peer_node_id, self._peer_hello)
        dialer, listener = (own, other) if self._side is Side.DIALER else (other, own)
        return auth_bytes(
            cluster_id=self._cluster_id,
            dialer=dialer[0],
            listener=listener[0],
            dialer_hello=dialer[1],
            listener_hello=listener[1],
            listener_certificate_sha256=self._certificate,
        )
