"""Keys in hardware tokens, the key source `pkcs11:URI`.

The URI is RFC 7512's: `pkcs11:token=alice;object=authority?module-path=/usr/lib/softhsm/libsofthsm2.so`. Path
attributes that are understood: token, manufacturer, serial, model, object, id, type (private). The library is
`module-path`, else STATELOG_PKCS11_MODULE. The PIN comes from the file that `pin-source` names, else
STATELOG_PIN, else the first line of the file that STATELOG_PIN_FILE names, else a person; a token with a PIN
pad asks by itself. The private key is of type CKK_EC_EDWARDS and signs with CKM_EDDSA (PKCS#11 3.0 section
2.3.14); its public half is the public key object with the same id.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, unquote_to_bytes

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, TokenFlag

from statelog.errors import Refused, UsageError, refuse
from statelog.io.files import read_first_line
from statelog.io.held import Ask, KeyInfo, checked
from statelog.limits import KEY_FILE_MAX_BYTES, KEY_NAME_MAX_CHARS, PUBLIC_KEY_BYTES
from statelog.signing import key_id_of
from statelog.wording import plain

_TOKEN_ATTRIBUTES: Final = ("token", "manufacturer", "serial", "model")
_PATH_ATTRIBUTES: Final = (*_TOKEN_ATTRIBUTES, "object", "id", "type")
_QUERY_ATTRIBUTES: Final = ("module-path", "pin-source")
_OCTET_STRING_OF_32: Final = b"\x04\x20"  # DER (ITU-T X.690 section 8.7)


class TokenKey:
    """A private key in a token, in a session that stays open; the key itself never leaves it."""

    __slots__ = ("_key", "_lock", "_where", "info")

    def __init__(self, key: Any, public: bytes, where: str) -> None:
        self._key, self._where = key, where
        self._lock = threading.Lock()  # a session carries out one operation at a time
        name = plain(str(key.label or ""))[:KEY_NAME_MAX_CHARS] or where
        self.info = KeyInfo(name, key_id_of(public), public, "", "hardware")

    @property
    def public(self) -> bytes:
        """The 32 raw public bytes."""
        return self.info.public

    def sign(self, message: bytes) -> bytes:
        """The signature that the token makes, verified. Raises `Refused` with SL-KEYSOURCE."""
        with self._lock:
            try:
                signature = bytes(self._key.sign(message, mechanism=Mechanism.EDDSA))
            except pkcs11.PKCS11Error as error:
                raise _refused(self._where, error) from error
        return checked(self.public, signature, message, self._where)

    def __repr__(self) -> str:
        return f"TokenKey(name={self.info.name!r}, key_id={self.info.key_id!r})"


def parse_uri(uri: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Path and query attributes of an RFC 7512 URI, percent-encoding kept. Raises `UsageError`."""
    path, _, query = uri.removeprefix("pkcs11:").partition("?")
    parts = []
    for text, separator, known in ((path, ";", _PATH_ATTRIBUTES), (query, "&", _QUERY_ATTRIBUTES)):
        found: dict[str, str] = {}
        for part in filter(None, text.split(separator)):
            name, _, value = part.partition("=")
            if name == "pin-value":
                raise UsageError(
                    "a PIN in a key source stays in histories and process lists; use STATELOG_PIN, "
                    "STATELOG_PIN_FILE or pin-source"
                )
            if name not in known or not value or name in found:
                raise UsageError(
                    f"{plain(part)!r} in a pkcs11 URI is not understood; there are {', '.join(known)}"
                )
            found[name] = value
        parts.append(found)
    if parts[0].get("type", "private") != "private":
        raise UsageError("a pkcs11 key source names a private key; leave type out")
    return parts[0], parts[1]


def open_token_key(uri: str, ask: Ask | None) -> TokenKey:
    """The private key that an RFC 7512 URI names, logged in.

    Raises `UsageError` when library, token or key are not there or not told apart; `Refused` with
    SL-PASSPHRASE for a wrong PIN, SL-KEYSOURCE for a locked token and for a key of another type.
    """
    path, query = parse_uri(uri)
    where = f"token {unquote(path.get('token', path.get('serial', '')))!r}"
    token = _token(_library(query), path, where)
    try:
        session = _session(token, query, ask, where)
        key = _only(session, _wanted(path), where)
        if key[Attribute.KEY_TYPE] != KeyType.EC_EDWARDS:
            raise refuse("SL-KEYSOURCE", f"the key in {where} is no Ed25519 key (CKK_EC_EDWARDS)")
        return TokenKey(key, _public_of(session, key, where), where)
    except pkcs11.PinIncorrect as error:
        raise refuse("SL-PASSPHRASE", f"{where} does not open with this PIN; few tries are left") from error
    except (pkcs11.PinInvalid, pkcs11.PinLenRange) as error:
        raise refuse("SL-PASSPHRASE", f"{where} cannot have this PIN") from error
    except pkcs11.PKCS11Error as error:
        raise _refused(where, error) from error


def _library(query: Mapping[str, str]) -> Any:
    module = unquote(query.get("module-path", "")) or os.environ.get("STATELOG_PKCS11_MODULE", "")
    if not module:
        raise UsageError("which PKCS#11 library? set STATELOG_PKCS11_MODULE or add ?module-path=… to the URI")
    try:
        return pkcs11.lib(module)
    except pkcs11.PKCS11Error as error:
        raise UsageError(f"{module} does not load as a PKCS#11 library: {error}") from error


def _token(library: Any, path: Mapping[str, str], where: str) -> Any:
    """The one token that fits. A slot whose token cannot be asked holds none."""
    fitting = []
    for slot in library.get_slots(token_present=True):
        try:
            token = slot.get_token()
        except (pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised, pkcs11.DeviceError):
            continue
        facts = {
            "token": token.label,
            "manufacturer": token.manufacturer_id,
            "serial": token.serial.decode("utf-8", "replace"),
            "model": token.model,
        }
        if TokenFlag.TOKEN_INITIALIZED in token.flags and all(
            facts[name] == unquote(path[name]) for name in _TOKEN_ATTRIBUTES if name in path
        ):
            fitting.append(token)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        labels = ", ".join(f"{one.label} (serial {one.serial.decode('utf-8', 'replace')})" for one in fitting)
        raise UsageError(f"more than one token fits; add token= or serial= for one of {plain(labels)}")
    raise UsageError(f"{where} is not plugged in, or its library does not see it")


def _session(token: Any, query: Mapping[str, str], ask: Ask | None, where: str) -> Any:
    if TokenFlag.PROTECTED_AUTHENTICATION_PATH in token.flags:
        pin: object = pkcs11.PROTECTED_AUTH
    else:
        pin = _pin(query, ask, where)
    try:
        return token.open(user_pin=pin)
    except pkcs11.UserAlreadyLoggedIn:
        return token.open()  # a log-in is the process's, for every session on the token


def _pin(query: Mapping[str, str], ask: Ask | None, where: str) -> str:
    if "pin-source" in query:
        return read_first_line(Path(unquote(query["pin-source"]).removeprefix("file:")), KEY_FILE_MAX_BYTES)
    if (value := os.environ.get("STATELOG_PIN")) is not None:
        return value
    if (named := os.environ.get("STATELOG_PIN_FILE")) is not None:
        return read_first_line(Path(named), KEY_FILE_MAX_BYTES)
    if ask is None:
        raise UsageError(f"{where} needs its PIN; set STATELOG_PIN or STATELOG_PIN_FILE")
    return ask(f"PIN of {where}")


def _wanted(path: Mapping[str, str]) -> dict[Attribute, Any]:
    wanted: dict[Attribute, Any] = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
    if "object" in path:
        wanted[Attribute.LABEL] = unquote(path["object"])
    if "id" in path:
        wanted[Attribute.ID] = unquote_to_bytes(path["id"])
    return wanted


def _only(session: Any, wanted: dict[Attribute, Any], where: str) -> Any:
    found = list(session.get_objects(wanted))
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"{where} holds no such private key; object= and id= say which")
    labels = ", ".join(plain(str(one.label)) for one in found)
    raise UsageError(f"{where} holds {len(found)} private keys that fit ({labels}); add object= or id=")


def _public_of(session: Any, key: Any, where: str) -> bytes:
    """The raw public bytes from the public object with the private key's id.

    CKA_EC_POINT is a DER octet string around them in PKCS#11 2.40's way, the bytes alone in 3.0's.
    """
    public = _only_public(session, key, where)
    point = bytes(public[Attribute.EC_POINT])
    if point.startswith(_OCTET_STRING_OF_32):
        point = point.removeprefix(_OCTET_STRING_OF_32)
    if len(point) != PUBLIC_KEY_BYTES:
        raise refuse("SL-KEYSOURCE", f"the key in {where} is of another curve than Ed25519")
    return point


def _only_public(session: Any, key: Any, where: str) -> Any:
    same = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: key[Attribute.ID]}
    found = list(session.get_objects(same))
    if len(found) != 1:
        raise UsageError(f"{where} holds {len(found)} public keys with the private key's id; it must be one")
    return found[0]


def _refused(where: str, error: pkcs11.PKCS11Error) -> Refused:
    why = {
        pkcs11.PinLocked: "it is locked after too many wrong PINs; its security officer unlocks it",
        pkcs11.UserPinNotInitialized: "its user PIN was never set",
        pkcs11.UserNotLoggedIn: "it wants the PIN again; start anew",
        pkcs11.MechanismInvalid: "it does not know CKM_EDDSA",
        pkcs11.TokenNotPresent: "it was removed",
        pkcs11.DeviceRemoved: "it was removed",
        pkcs11.ObjectHandleInvalid: "it was removed, or the key was deleted",
        pkcs11.KeyHandleInvalid: "it was removed, or the key was deleted",
        pkcs11.SessionHandleInvalid: "it was removed, or another process reset it",
        pkcs11.SessionClosed: "it was removed, or another process reset it",
    }.get(type(error), f"{type(error).__name__} {error}".strip())
    return refuse("SL-KEYSOURCE", f"{where} does not sign: {why}")
