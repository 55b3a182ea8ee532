"""Where keys come from: one way in for every command and daemon that names a key.

file:PATH      an encrypted key file (`statelog.io.keyfiles`)
env:NAME       a base64 seed of 32 bytes in an environment variable, for tests and supervisors
agent:[KEY]    a key that an ssh-agent holds (`statelog.io.agent`)
pkcs11:URI     a key in a hardware token, by RFC 7512 (`statelog.io.tokens`)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from statelog.errors import UsageError, refuse
from statelog.io import agent, keyfiles
from statelog.io.held import Ask, HeldKey, LocalKey
from statelog.signing import decode_base64

SCHEMES: Final = ("file", "env", "agent", "pkcs11")
SOURCES: Final = "file:PATH, env:NAME, agent:KEY or pkcs11:URI"


def is_source(text: str) -> bool:
    """Whether `text` is written like a key source."""
    return text.partition(":")[0] in SCHEMES and ":" in text


def load_signer(source: str, passphrase: bytes | str | None = None, *, ask: Ask | None = None) -> HeldKey:
    """Open the key at `source`.

    A key file's passphrase is `passphrase`, else STATELOG_PASSPHRASE, else the first line of the file that
    STATELOG_PASSPHRASE_FILE names, else what `ask` returns; a token's PIN is its `pin-source`, else
    STATELOG_PIN, else the first line of the file that STATELOG_PIN_FILE names, else what `ask` returns.
    Raises `UsageError` for a source that is not understood or not there, and `Refused` for one that does not
    open: SL-KEYFILE or SL-PASSPHRASE for a file's or variable's content, SL-KEYSOURCE for an agent or token.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "file" and rest:
        return keyfiles.open_key_file(Path(rest), passphrase, ask)
    if scheme == "env" and rest:
        return _from_environment(rest)
    if scheme == "agent" and ":" in source:
        return agent.open_agent_key(rest)
    if scheme == "pkcs11" and rest:
        from statelog.io import tokens  # noqa: PLC0415 - a native library that no other source needs

        return tokens.open_token_key(source, ask)
    raise UsageError(f"{source!r} is not a key source; write {SOURCES}")


def _from_environment(name: str) -> LocalKey:
    text = os.environ.get(name)
    if text is None:
        raise UsageError(f"environment variable {name} is not set; it must hold a base64 seed of 32 bytes")
    seed = decode_base64(text.strip())
    if seed is None or len(seed) != 32:
        raise refuse("SL-KEYFILE", f"environment variable {name} is not the base64 form of a 32-byte seed")
    return LocalKey(seed, name, "", "online")
