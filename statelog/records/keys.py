"""The KEY object of descriptors and members records, and the rules by which any key enters.

A key enters only if it is a sound point of the curve, its id is its hash, somebody proved to hold it, and it
serves no other purpose: authority, witness, sequencer, node and recovery keys are pairwise distinct for ever,
so that no signature is valid in two places.  A removed authority key never returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from statelog.errors import Refused, refuse
from statelog.limits import SIGNATURE_BYTES
from statelog.quorum import Key, KeySet
from statelog.records.base import Context
from statelog.records.shapes import base64_bytes, exactly, fields, name, one_of, public_key, sha256_hex
from statelog.signing import acceptable_public_key, decode_base64, key_id_of, possession_bytes, verify
from statelog.state import AuthorityState, Purpose, WitnessKey, WitnessSet

_KEY_FIELDS: Final = {
    "key_id": sha256_hex,
    "alg": exactly("ed25519"),
    "public": public_key,
    "issuer_id": name,
    "custody": one_of("online", "offline", "hardware"),
    "proof": base64_bytes(SIGNATURE_BYTES),
}
KEY: Final = fields(_KEY_FIELDS)
WITNESS_KEY: Final = fields({**_KEY_FIELDS, "name": name})

Entry = Mapping[str, Any]


def bytes_of(text: str) -> bytes:
    """The bytes of base64 that a shape check has seen."""
    data = decode_base64(text)
    if data is None:
        raise refuse("SL-SHAPE", "not base64", found=text[:40])
    return data


def key_of(entry: Entry) -> Key:
    """The key that a KEY object lists; not yet checked by any rule."""
    return Key(entry["key_id"], bytes_of(entry["public"]), entry["issuer_id"], entry["custody"])


def witness_key_of(entry: Entry) -> WitnessKey:
    """The witness that a KEY-with-name object lists."""
    key = key_of(entry)
    return WitnessKey(entry["name"], key.key_id, key.public, key.issuer_id, key.custody)


def check_listed(
    state: AuthorityState, entries: Iterable[Entry], path: str, use: Purpose, ctx: Context
) -> None:
    """Raise `Refused` (SL-KEY, SL-REVOKED) unless each KEY object of a list may enter for ``use``."""
    seen: set[str] = set()
    for position, entry in enumerate(entries):
        where = f"{path}[{position}]"
        public, key_id = bytes_of(entry["public"]), entry["key_id"]
        if key_id != key_id_of(public):
            raise refuse(
                "SL-KEY",
                "the key id is not the SHA-256 of the public bytes",
                path=f"{where}.key_id",
                expected=key_id_of(public),
                found=key_id,
            )
        if key_id in seen:
            raise refuse("SL-KEY", "the public key is listed twice", path=where, found=key_id)
        seen.add(key_id)
        check_entry(state, public, entry["issuer_id"], entry["proof"], where, use, ctx)
        known = state.keys.get(key_id)
        if known is not None and known.issuer_id != entry["issuer_id"]:
            raise refuse(
                "SL-KEY",
                "a key keeps its issuer while it lives",
                path=f"{where}.issuer_id",
                expected=known.issuer_id,
                found=entry["issuer_id"],
            )


def check_names(state: AuthorityState, witnesses: WitnessSet, path: str) -> None:
    """Raise `Refused` (SL-KEY) for a witness key under another name than ever, or a name of the set in force
    that passes to another key.

    A cosignature is found by name and key together, and the head that covers a change needs both sets: nobody
    is asked twice under two names, nor two under one.
    """
    names = {key.key_id: key.name for _, known in state.witness_history for key in known.keys}
    for position, key in enumerate(witnesses.keys):
        where = f"{path}[{position}].name"
        name_before = names.get(key.key_id, key.name)
        if name_before != key.name:
            raise refuse(
                "SL-KEY", "a witness key keeps its name", path=where, expected=name_before, found=key.name
            )
        holder = state.witnesses.by_name.get(key.name, key)
        if holder.key_id != key.key_id:
            sentence = "the name is another witness's, who is in force"
            raise refuse(
                "SL-KEY",
                sentence,
                path=where,
                expected=f"a new name, or key {holder.key_id}",
                found=key.key_id,
            )


def check_entry(  # what makes one key fit to enter, whatever object lists it
    state: AuthorityState, public: bytes, issuer_id: str, proof: str, path: str, use: Purpose, ctx: Context
) -> None:
    """Raise `Refused` (SL-KEY, SL-REVOKED) unless the key is sound, held by somebody and free for ``use``."""
    check_public(public, path)
    key_id = key_id_of(public)
    message = possession_bytes(state.cluster_id, issuer_id, key_id)
    if not verify(public, bytes_of(proof), message):
        raise refuse("SL-KEY", "nobody proved to hold this key", path=f"{path}.proof", found=key_id)
    check_use(state, key_id, path, use)


def check_public(public: bytes, path: str) -> None:
    """Raise `Refused` (SL-KEY) for a public key on which verifiers disagree."""
    if not acceptable_public_key(public):
        raise refuse(
            "SL-KEY",
            "not a canonical point of the prime-order group",
            path=f"{path}.public" if path else "public",
            found=public.hex(),
        )


def check_use(state: AuthorityState, key_id: str, path: str, use: Purpose) -> None:
    """Raise `Refused` if the key ever served another purpose (SL-KEY) or was removed (SL-REVOKED).

    A recovery under way has its keys already: nobody takes one to stop it, and it takes none twice.
    """
    served = state.uses.get(key_id)
    if served is None and state.recovery is not None:
        served = state.recovery.use_of(key_id)
    if served is not None and served != use:
        raise refuse("SL-KEY", f"this key serves as a {served} key", path=path, expected=use, found=served)
    if use == "authority" and key_id in state.retired:
        raise refuse("SL-REVOKED", "a removed key never returns", path=path, found=key_id)


def check_set(key_set: KeySet, path: str) -> None:
    """Raise `Refused` (SL-KEY, SL-THRESHOLD) for a set that can never be satisfied."""
    found = key_set.fault
    if found is not None:
        raise Refused(found.under(path))
