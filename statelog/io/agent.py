"""Keys that an ssh-agent holds, the key source `agent:KEY`.

KEY is a key id (64 hex digits), an OpenSSH fingerprint (`SHA256:…`) or a key's comment; without it the agent
must hold exactly one Ed25519 key. The messages are those of the SSH agent protocol
(draft-ietf-sshm-ssh-agent, sections 3.5 and 3.6) over the socket that SSH_AUTH_SOCK names; key and signature
blobs are those of RFC 8709. Each request has its own connection, so an agent that was restarted, locked or
emptied in between is noticed when it is asked.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from statelog.errors import Refused, UsageError, refuse
from statelog.io.held import KeyInfo, checked
from statelog.limits import AGENT_MAX_ANSWER_BYTES, AGENT_TIMEOUT_S, KEY_NAME_MAX_CHARS
from statelog.signing import key_id_of
from statelog.wording import plain

REQUEST_IDENTITIES: Final = 11
IDENTITIES_ANSWER: Final = 12
SIGN_REQUEST: Final = 13
SIGN_RESPONSE: Final = 14
ED25519: Final = b"ssh-ed25519"


@dataclass(frozen=True, slots=True)
class Identity:
    """A key that the agent offers: its public blob, and the comment that somebody gave it."""

    blob: bytes
    comment: str

    @property
    def type(self) -> bytes:
        """The SSH key type, such as ssh-ed25519."""
        return next(_strings(self.blob), b"")

    @property
    def public(self) -> bytes:
        """The raw public bytes of an Ed25519 key."""
        _, public = _strings(self.blob)
        return public

    @property
    def fingerprint(self) -> str:
        """As OpenSSH shows it."""
        return "SHA256:" + base64.b64encode(sha256(self.blob).digest()).decode().rstrip("=")

    def is_called(self, name: str) -> bool:
        """Whether `name` is this key's comment, fingerprint or key id."""
        return name in (self.comment, self.fingerprint) or (
            self.type == ED25519 and name == key_id_of(self.public)
        )


class AgentKey:
    """A key in the agent at the socket `path`; nothing of it is in this process."""

    __slots__ = ("_blob", "_path", "info")

    def __init__(self, path: str, identity: Identity) -> None:
        self._path, self._blob = path, identity.blob
        public = identity.public
        name = plain(identity.comment)[:KEY_NAME_MAX_CHARS] or identity.fingerprint
        self.info = KeyInfo(name, key_id_of(public), public, "", "")

    @property
    def public(self) -> bytes:
        """The 32 raw public bytes."""
        return self.info.public

    def sign(self, message: bytes) -> bytes:
        """The signature that the agent makes, verified. Raises `Refused` with SL-KEYSOURCE."""
        where = f"the ssh-agent at {self._path}"
        request = bytes([SIGN_REQUEST]) + _string(self._blob) + _string(message) + struct.pack(">I", 0)
        try:
            answer = _ask(self._path, request)
        except UsageError as error:  # it was there when the key was opened
            raise refuse("SL-KEYSOURCE", str(error), found=self.info.key_id) from error
        if answer[:1] != bytes([SIGN_RESPONSE]):
            raise refuse(
                "SL-KEYSOURCE",
                f"{where} does not sign with {self.info.name}: it is locked, the key was removed, or its"
                " owner said no",
                found=self.info.key_id,
            )
        try:
            (signature,) = _strings(answer[1:])
            kind, value = _strings(signature)
        except ValueError as error:
            raise _nonsense(where) from error
        if kind != ED25519:
            raise _nonsense(where)
        return checked(self.public, value, message, where)

    def __repr__(self) -> str:
        return f"AgentKey(name={self.info.name!r}, key_id={self.info.key_id!r})"


def open_agent_key(name: str) -> AgentKey:
    """The Ed25519 key called `name` in the agent, or the only one for an empty `name`.

    Raises `UsageError` when there is no agent, no such key, or more than one; `Refused` with SL-KEYSOURCE for
    a key of another type and for an agent that answers nonsense.
    """
    path = os.environ.get("SSH_AUTH_SOCK")
    if not path:
        raise UsageError("no ssh-agent is here: SSH_AUTH_SOCK is not set; start one with `eval $(ssh-agent)`")
    there = identities(path)
    if not there:
        raise UsageError(
            f"the ssh-agent at {path} offers no key: add one with ssh-add, or unlock it with ssh-add -X"
        )
    usable = [one for one in there if one.type == ED25519]
    found = [one for one in usable if one.is_called(name)] if name else usable
    if len(found) == 1:
        return AgentKey(path, found[0])
    if found:
        fingerprints = ", ".join(one.fingerprint for one in found)
        raise UsageError(f"more than one key of the ssh-agent fits; name one by fingerprint: {fingerprints}")
    if wrong := [one for one in there if not name or one.is_called(name)]:
        kind = plain(wrong[0].type.decode("ascii", "backslashreplace"))
        raise refuse(
            "SL-KEYSOURCE",
            f"{plain(name) or 'what the ssh-agent holds'} is of type {kind}, and records are signed with"
            " ssh-ed25519",
        )
    names = ", ".join(plain(one.comment) or one.fingerprint for one in usable)
    raise UsageError(
        f"the ssh-agent holds no key called {plain(name)!r}; it holds {names or 'no Ed25519 key'}"
    )


def identities(path: str) -> list[Identity]:
    """The keys that the agent at the socket `path` offers. Raises `UsageError`, `Refused`."""
    answer = _ask(path, bytes([REQUEST_IDENTITIES]))
    where = f"the ssh-agent at {path}"
    if len(answer) < 5 or answer[0] != IDENTITIES_ANSWER:
        raise _nonsense(where)
    try:
        parts = list(_strings(answer[5:]))
        found = [
            Identity(blob, comment.decode("utf-8", "replace"))
            for blob, comment in zip(parts[::2], parts[1::2], strict=True)
        ]
        for one in found:
            if one.type == ED25519 and len(one.public) != 32:
                raise _nonsense(where)
    except ValueError as error:
        raise _nonsense(where) from error
    if len(found) != struct.unpack(">I", answer[1:5])[0]:
        raise _nonsense(where)
    return found


def _ask(path: str, request: bytes) -> bytes:
    """The answer to one request, without its length. Raises `UsageError` when the agent cannot be reached."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            agent.settimeout(AGENT_TIMEOUT_S)
            agent.connect(path)
            agent.sendall(_string(request))
            length = struct.unpack(">I", _exactly(agent, 4))[0]
            if not 1 <= length <= AGENT_MAX_ANSWER_BYTES:
                raise _nonsense(f"the ssh-agent at {path}")
            return _exactly(agent, length)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"no ssh-agent answers at {path} (SSH_AUTH_SOCK): {why}") from error


def _exactly(agent: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        chunk = agent.recv(length - len(data))
        if not chunk:
            raise ConnectionResetError(None, "it hung up")
        data += chunk
    return bytes(data)


def _string(data: bytes) -> bytes:
    """A string of RFC 4251 section 5."""
    return struct.pack(">I", len(data)) + data


def _strings(data: bytes) -> Iterator[bytes]:
    """The strings (RFC 4251 section 5) that `data` consists of. Raises ValueError when it does not."""
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data) or at + 4 > len(data):
            raise ValueError(data)
        yield data[at + 4 : end]
        at = end


def _nonsense(where: str) -> Refused:
    return refuse("SL-KEYSOURCE", f"{where} does not keep to the agent protocol")
