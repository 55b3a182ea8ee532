"""A node's identity: one Ed25519 key, the node id hashed from it, and the certificate computed from it.

The certificate is a pure function of the key, so its SHA-256 (the *pin* that registry records carry as
`peer_cert_sha256`) never changes while the key lives, and two programs that know the key agree on the bytes.
It is written here from a constant DER template rather than by a certificate library: no library's choice of
string type or time encoding can move the pin, and a peer's certificate is recognised by comparing bytes,
without an ASN.1 parser between a stranger's input and us. Source of the rule: docs/wire.md, "Identity".
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fabric.errors import FabricError
from statelog.signing import verify

ALPN = "rap-fabric/1"
"""The only application protocol a listener accepts and a dialer offers."""

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
SEED_BYTES = 32

# DER of TBSCertificate up to the raw public key: version 3, serial 1, Ed25519, issuer CN=node,
# validity 2020-01-01 (UTCTime) to 2120-01-01 (GeneralizedTime), subject CN=node, SPKI header.
_TBS_PREFIX = bytes.fromhex(
    "307f"
    "a003020102"
    "020101"
    "300506032b6570"
    "300f310d300b06035504030c046e6f6465"
    "3020170d3230303130313030303030305a180f32313230303130313030303030305a"
    "300f310d300b06035504030c046e6f6465"
    "302a300506032b6570032100"
)
_CERTIFICATE_PREFIX = bytes.fromhex("3081cb") + _TBS_PREFIX
_SIGNATURE_HEADER = bytes.fromhex("300506032b6570034100")
_PUBLIC_END = len(_CERTIFICATE_PREFIX) + PUBLIC_KEY_BYTES
_SIGNATURE_START = _PUBLIC_END + len(_SIGNATURE_HEADER)
CERTIFICATE_BYTES = _SIGNATURE_START + SIGNATURE_BYTES

_HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_HOST_NAME = 253


class IdentityError(FabricError):
    """A certificate, key or pin that is not what it must be. Codes start with `identity_`."""


class AddressError(FabricError):
    """Text that is not a `quic://host:port` address. Code `bad_address`."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """This node's own key in the forms the fabric needs.

    `public` is 32 raw bytes, `node_id` and `certificate_sha256` are lower-case hex, `seed` the 32 secret
    bytes that the TLS engines sign with. `repr` never shows the seed.
    """

    public: bytes
    node_id: str
    certificate_der: bytes
    certificate_sha256: str
    seed: bytes = field(repr=False)

    @classmethod
    def from_seed(cls, seed: bytes) -> NodeIdentity:
        """Derive everything from the 32 secret bytes of an Ed25519 key (RFC 8032 section 5.1.5)."""
        if len(seed) != SEED_BYTES:
            raise IdentityError("identity_seed", f"an Ed25519 seed has {SEED_BYTES} bytes, got {len(seed)}")
        private = Ed25519PrivateKey.from_private_bytes(seed)
        public = private.public_key().public_bytes_raw()
        der = certificate_der(public, private.sign)
        return cls(
            public=public,
            node_id=node_id_of(public),
            certificate_der=der,
            certificate_sha256=certificate_sha256(der),
            seed=bytes(seed),
        )

    def sign(self, message: bytes) -> bytes:
        """Sign `message`; 64 bytes."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)


def node_id_of(public: bytes) -> str:
    """SHA-256 of the 32 raw public bytes, lower-case hex."""
    if len(public) != PUBLIC_KEY_BYTES:
        raise IdentityError(
            "identity_public_key", f"an Ed25519 public key has {PUBLIC_KEY_BYTES} bytes, got {len(public)}"
        )
    return hashlib.sha256(public).hexdigest()


def certificate_der(public: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """The node's certificate: the template around `public`, self-signed by `sign`.

    X.509 v3, serial 1, CN `node`, 2020-01-01 to 2120-01-01, no extensions; 206 bytes of DER.
    """
    node_id_of(public)
    tbs = _TBS_PREFIX + public
    signature = sign(tbs)
    if len(signature) != SIGNATURE_BYTES:
        raise IdentityError("identity_signature", f"an Ed25519 signature has {SIGNATURE_BYTES} bytes")
    return _CERTIFICATE_PREFIX + public + _SIGNATURE_HEADER + signature


def certificate_sha256(der: bytes) -> str:
    """The pin: SHA-256 of the certificate's DER, lower-case hex."""
    return hashlib.sha256(der).hexdigest()


def public_key_of_certificate(der: bytes) -> bytes:
    """The 32 public bytes of a node certificate.

    Anything but the template byte for byte, with a valid self-signature, is `identity_certificate`.
    """
    if (
        len(der) != CERTIFICATE_BYTES
        or not der.startswith(_CERTIFICATE_PREFIX)
        or der[_PUBLIC_END:_SIGNATURE_START] != _SIGNATURE_HEADER
    ):
        raise IdentityError("identity_certificate", "the certificate is not a node certificate")
    public = der[len(_CERTIFICATE_PREFIX) : _PUBLIC_END]
    if not verify(public, der[_SIGNATURE_START:], _TBS_PREFIX + public):
        raise IdentityError("identity_certificate", "the certificate's own signature is wrong")
    return public


def check_expected(pin: str | None, node_id: str | None) -> None:
    """What a dialer checks before its first packet: that there is a listener which could be the right one.

    Raises `identity_pin` without a pin and a node id, or for a pin that is no SHA-256 in lower-case hex, and
    `identity_node` for such a node id.
    """
    if pin is None and node_id is None:
        raise IdentityError("identity_pin", "a dialer must know the pin or the node id of its peer")
    if pin is not None and not _SHA256.fullmatch(pin):
        raise IdentityError("identity_pin", f"not the SHA-256 of a certificate: {pin[:100]!r}")
    if node_id is not None and not _SHA256.fullmatch(node_id):
        raise IdentityError("identity_node", f"not a node id: {node_id[:100]!r}")


def check_listener(der: bytes | None, *, pin: str | None, node_id: str | None) -> tuple[bytes, str]:
    """What a dialer checks of the certificate the listener proved possession of, before it sends anything.

    `pin` is the expected SHA-256 of the DER, `node_id` the expected node; at least one must be given.
    Returns (public, node id). Codes: `identity_missing`, `identity_pin`, `identity_certificate`,
    `identity_node`.
    """
    check_expected(pin, node_id)
    if der is None:
        raise IdentityError("identity_missing", "the listener presented no certificate")
    found = certificate_sha256(der)
    if pin is not None and found != pin:
        raise IdentityError("identity_pin", f"the listener's certificate is {found}, pinned was {pin}")
    public = public_key_of_certificate(der)
    peer = node_id_of(public)
    if node_id is not None and peer != node_id:
        raise IdentityError("identity_node", f"the listener is node {peer}, expected {node_id}")
    return public, peer


def parse_quic_address(text: str) -> tuple[str, int]:
    """Parse `quic://host:port` to (host, port); the host without brackets, as the socket calls want it.

    The host is a dotted IPv4 address, a bracketed IPv6 address without zone, or a lower-case host name; the
    port is 1 to 65535 without leading zeros. Addresses must be in their canonical text form, so that one
    endpoint has one spelling. Anything else is `bad_address`.
    """
    scheme = "quic://"
    host, colon, port_text = text.removeprefix(scheme).rpartition(":")
    if not text.startswith(scheme) or not colon:
        raise AddressError("bad_address", f"not a quic://host:port address: {text[:100]!r}")
    if not _PORT.fullmatch(port_text) or int(port_text) > 65535:
        raise AddressError("bad_address", f"the port must be 1 to 65535: {text[:100]!r}")
    if host.startswith("[") and host.endswith("]"):
        return _canonical_ip(host[1:-1], 6, text), int(port_text)
    if re.fullmatch(r"[0-9.]+", host):
        return _canonical_ip(host, 4, text), int(port_text)
    # A last label of digits only would be read as an IPv4 address by some resolvers (WHATWG URL section 3.5).
    if (
        len(host) > _MAX_HOST_NAME
        or not _HOST_NAME.fullmatch(host)
        or host.rpartition(".")[2].isdigit()
        or re.fullmatch(r"0x[0-9a-f]*", host.rpartition(".")[2])
    ):
        raise AddressError("bad_address", f"not a host name or address: {text[:100]!r}")
    return host, int(port_text)


def format_quic_address(host: str, port: int) -> str:
    """The inverse of `parse_quic_address`."""
    return f"quic://[{host}]:{port}" if ":" in host else f"quic://{host}:{port}"


def _canonical_ip(text: str, version: int, whole: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise AddressError("bad_address", f"not an IPv{version} address: {whole[:100]!r}") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise AddressError("bad_address", f"write the address as {address.ipv4_mapped}: {whole[:100]!r}")
    if address.version != version or str(address) != text or "%" in text:
        raise AddressError("bad_address", f"write the IPv{version} address as {address}: {whole[:100]!r}")
    return text
