"""Encrypted key files, the key source `file:PATH`.

A key file is a JSON envelope whose public part anyone may read; the seed is sealed with XSalsa20-Poly1305
(libsodium's secretbox) under a key that Argon2id (RFC 9106) derives from a passphrase. The sealed part
repeats the public one, so that an envelope whose name, issuer or custody was edited does not open.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nacl.exceptions
import nacl.pwhash.argon2id
import nacl.secret
import nacl.utils
import orjson

from statelog import limits
from statelog.errors import Refused, UsageError, refuse
from statelog.io.files import read_bounded, read_first_line, write_new
from statelog.io.held import CUSTODIES, Ask, KeyInfo, LocalKey
from statelog.signing import decode_base64, encode_base64, key_id_of

SCHEMA = "statelog.keyfile.v1"
_KDF = "argon2id13"
_CIPHER = "xsalsa20-poly1305"
_PUBLIC_FIELDS = ("name", "key_id", "public", "issuer_id", "custody")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess at a passphrase costs: Argon2id passes over so much memory."""

    passes: int
    memory_bytes: int


COSTS = {
    "interactive": Cost(2, 64 << 20),  # keys that a daemon opens at every start
    "moderate": Cost(3, 256 << 20),  # the default: most of a second on a small machine
    "sensitive": Cost(4, 1 << 30),  # keys that are opened a few times a year
}


def read_key_info(path: Path | str) -> KeyInfo:
    """The public part of a key file; needs no passphrase. Raises `Refused` with SL-KEYFILE."""
    return _parse(Path(path)).info


def create_key_file(
    path: Path | str,
    passphrase: bytes | str,
    *,
    name: str = "",
    issuer_id: str = "",
    custody: str = "offline",
    cost: Cost = COSTS["moderate"],
    seed: bytes | None = None,
) -> KeyInfo:
    """Make a key (or keep `seed`, 32 bytes) in a new file, mode 0600, whole or not at all.

    `name` defaults to the file's stem and `issuer_id` to the name. An existing file is never replaced.
    """
    path = Path(path)
    secret = _passphrase_bytes(passphrase)
    if not secret:
        raise UsageError("a key file needs a passphrase; set STATELOG_PASSPHRASE or type one")
    if custody not in CUSTODIES:
        raise UsageError(f"custody is one of {', '.join(CUSTODIES)}; not {custody!r}")
    _check_cost(cost, str(path))
    seed = nacl.utils.random(32) if seed is None else seed
    name = name or path.stem
    signer = LocalKey(seed, name, issuer_id or name, custody)
    salt = nacl.utils.random(nacl.pwhash.argon2id.SALTBYTES)
    public_part = _public_part(signer.info)
    inner = orjson.dumps({**public_part, "seed": encode_base64(seed)}, option=orjson.OPT_SORT_KEYS)
    box = nacl.secret.SecretBox(_derive(secret, salt, cost)).encrypt(inner)
    envelope = {
        "schema": SCHEMA,
        **public_part,
        "kdf": {
            "name": _KDF,
            "passes": cost.passes,
            "memory_bytes": cost.memory_bytes,
            "salt": encode_base64(salt),
        },
        "cipher": _CIPHER,
        "box": encode_base64(bytes(box)),
    }
    data = orjson.dumps(envelope, option=orjson.OPT_INDENT_2) + b"\n"
    _parse_bytes(data, str(path))  # never write what could not be read back
    write_new(path, data, 0o600)
    return signer.info


def passphrase_from_environment() -> str | None:
    """STATELOG_PASSPHRASE, or the first line of the file named by STATELOG_PASSPHRASE_FILE, or None."""
    if (value := os.environ.get("STATELOG_PASSPHRASE")) is not None:
        return value
    if (named := os.environ.get("STATELOG_PASSPHRASE_FILE")) is not None:
        return read_first_line(Path(named), limits.KEY_FILE_MAX_BYTES)
    return None


@dataclass(frozen=True, slots=True)
class _Envelope:
    info: KeyInfo
    cost: Cost
    salt: bytes
    box: bytes


def open_key_file(path: Path, passphrase: bytes | str | None, ask: Ask | None) -> LocalKey:
    """The key in a file, opened; see `statelog.io.signers.load_signer`."""
    envelope = _parse(path)
    if passphrase is None:
        passphrase = passphrase_from_environment()
    if passphrase is None and ask is not None:
        passphrase = ask(f"Passphrase of {envelope.info.name} ({path})")
    if passphrase is None:
        raise UsageError(f"{path} needs its passphrase; set STATELOG_PASSPHRASE or STATELOG_PASSPHRASE_FILE")
    key = _derive(_passphrase_bytes(passphrase), envelope.salt, envelope.cost)
    try:
        inner = orjson.loads(nacl.secret.SecretBox(key).decrypt(envelope.box))
        seed = _unb64(inner["seed"], 32)
    except nacl.exceptions.CryptoError as error:
        raise refuse(
            "SL-PASSPHRASE", f"{path} does not open: the passphrase is wrong, or the file was damaged"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _refused(path, "the sealed part is not a key") from error
    signer = LocalKey(seed, envelope.info.name, envelope.info.issuer_id, envelope.info.custody)
    if {field: inner.get(field) for field in _PUBLIC_FIELDS} != _public_part(signer.info):
        raise _refused(path, "the public part was edited after the key was made")
    return signer


def _parse(path: Path) -> _Envelope:
    return _parse_bytes(read_bounded(path, limits.KEY_FILE_MAX_BYTES, "SL-KEYFILE"), str(path))


def _parse_bytes(data: bytes, where: str) -> _Envelope:
    try:
        envelope = orjson.loads(data)
    except ValueError as error:
        raise _refused(where, "it is not JSON") from error
    if not isinstance(envelope, dict) or envelope.get("schema") != SCHEMA:
        raise _refused(where, f"its schema is not {SCHEMA}")
    try:
        if envelope["kdf"]["name"] != _KDF or envelope["cipher"] != _CIPHER:
            raise _refused(where, "it uses a cipher or key derivation that this version does not know")
        cost = Cost(_integer(envelope["kdf"]["passes"]), _integer(envelope["kdf"]["memory_bytes"]))
        salt = _unb64(envelope["kdf"]["salt"], nacl.pwhash.argon2id.SALTBYTES)
        public = _unb64(envelope["public"], 32)
        box = _unb64(envelope["box"], None)
        info = KeyInfo(
            _name(envelope["name"]),
            key_id_of(public),
            public,
            _name(envelope["issuer_id"]),
            _name(envelope["custody"]),
        )
        if envelope["key_id"] != info.key_id:
            raise _refused(where, "its key_id is not the SHA-256 of its public key")
    except (ValueError, KeyError, TypeError) as error:
        raise _refused(where, "a field is missing or malformed") from error
    if info.custody not in CUSTODIES:
        raise _refused(where, f"custody {info.custody!r} is unknown")
    _check_cost(cost, where)
    return _Envelope(info, cost, salt, box)


def _check_cost(cost: Cost, where: str) -> None:
    """A key file chooses what opening it costs, so a hostile one is bounded before anything is derived."""
    if not limits.KDF_MIN_MEMORY_BYTES <= cost.memory_bytes <= limits.KDF_MAX_MEMORY_BYTES:
        raise _refused(
            where,
            f"it asks for {cost.memory_bytes} bytes of memory; {limits.KDF_MIN_MEMORY_BYTES} to "
            f"{limits.KDF_MAX_MEMORY_BYTES} are allowed",
        )
    if not 1 <= cost.passes <= limits.KDF_MAX_PASSES:
        raise _refused(where, f"it asks for {cost.passes} passes; 1 to {limits.KDF_MAX_PASSES} are allowed")


def _derive(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
    try:
        derived: bytes = nacl.pwhash.argon2id.kdf(
            nacl.secret.SecretBox.KEY_SIZE,
            passphrase,
            salt,
            opslimit=cost.passes,
            memlimit=cost.memory_bytes,
        )
    except (MemoryError, nacl.exceptions.RuntimeError) as error:
        raise UsageError(f"this machine has no {cost.memory_bytes >> 20} MiB free to open the key") from error
    return derived


def _public_part(info: KeyInfo) -> dict[str, str]:
    return {
        "name": info.name,
        "key_id": info.key_id,
        "public": encode_base64(info.public),
        "issuer_id": info.issuer_id,
        "custody": info.custody,
    }


def _passphrase_bytes(passphrase: bytes | str) -> bytes:
    return passphrase.encode() if isinstance(passphrase, str) else passphrase


def _refused(where: Path | str, why: str) -> Refused:
    return refuse("SL-KEYFILE", f"{where} is not a usable key file: {why}")


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(value)
    return value


def _name(value: Any) -> str:
    """Short printable text: it ends up in tables and in questions on a terminal."""
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= limits.KEY_NAME_MAX_CHARS
        or not value.isprintable()
    ):
        raise ValueError(value)
    return value


def _unb64(text: Any, length: int | None) -> bytes:
    """Strict standard base64 of exactly `length` bytes, or of any number. Raises ValueError, TypeError."""
    if not isinstance(text, str):
        raise TypeError(text)
    data = decode_base64(text)
    if data is None or (length is not None and len(data) != length):
        raise ValueError(text)
    return data
