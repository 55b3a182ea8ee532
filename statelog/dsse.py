"""Records as DSSE envelopes (secure-systems-lab/dsse), for other people's verifiers, and back.

A record's signatures are DSSE signatures already (`statelog.signing`): an envelope only spells the same bytes
in the common form. `keyid` is our key id, the SHA-256 of the raw public key. Who a key belongs to and for
which role it signed is not in an envelope.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from statelog import canonical
from statelog.canonical import encode_trusted
from statelog.errors import Refused, refuse
from statelog.limits import MAX_SIGNATURES, SIGNATURE_BYTES
from statelog.records import KINDS
from statelog.signing import decode_base64, encode_base64, payload_type_of

_FIELDS = frozenset({"payload", "payloadType", "signatures"})
_KEY_ID = re.compile(r"[0-9a-f]{64}")
_SIGNATURE_FIELDS = frozenset({"keyid", "sig"})


@dataclass(frozen=True, slots=True)
class Envelope:
    """What an envelope holds: a record without its `signatures`, and pairs of key id and 64 bytes."""

    record: Mapping[str, Any]
    signatures: tuple[tuple[str, bytes], ...]


def envelope_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The envelope of a record that `canonical.decode` returned, for JSON."""
    body = {name: value for name, value in record.items() if name != "signatures"}
    return {
        "payload": encode_base64(encode_trusted(body)),
        "payloadType": payload_type_of(record["schema_version"]),
        "signatures": [{"keyid": one["key_id"], "sig": one["value"]} for one in record["signatures"]],
    }


def read_envelope(value: Mapping[str, Any]) -> Envelope:
    """What an envelope holds, in the form that `envelope_of` gives it and no other; no signature is verified.

    Raises Refused: SL-SHAPE for the envelope; SL-SIZE, SL-CANON, SL-SCHEMA, SL-SHAPE for its record.
    """
    if value.keys() != _FIELDS:
        raise _refuse("an envelope has other fields", expected=sorted(_FIELDS), found=sorted(value)[:9])
    payload = decode_base64(value["payload"]) if type(value["payload"]) is str else None
    if payload is None:
        raise _refuse("the payload is not canonical base64", "payload")
    record = canonical.decode(payload)
    kind = KINDS.get(str(record.get("schema_version")))
    if kind is None:
        schema = str(record.get("schema_version"))[:80]
        raise refuse("SL-SCHEMA", "an unknown kind of record", path="schema_version", found=schema)
    if "signatures" in record:
        raise _refuse("the payload holds signatures, which do not sign themselves", "payload")
    kind.shape({**record, "signatures": []})
    if value["payloadType"] != payload_type_of(kind.schema):
        found = str(value["payloadType"])[:80]
        raise _refuse("the payload is of another type", "payloadType", payload_type_of(kind.schema), found)
    return Envelope(record, _signatures(value["signatures"]))


def _signatures(value: Any) -> tuple[tuple[str, bytes], ...]:
    if type(value) is not list or len(value) > MAX_SIGNATURES:
        raise _refuse("signatures are a list", "signatures", f"at most {MAX_SIGNATURES}")
    found: dict[str, bytes] = {}
    for at, one in enumerate(value):
        path = f"signatures[{at}]"
        if type(one) is not dict or one.keys() != _SIGNATURE_FIELDS:
            raise _refuse("a signature has other fields", path, sorted(_SIGNATURE_FIELDS))
        key_id, sig = one["keyid"], decode_base64(one["sig"]) if type(one["sig"]) is str else None
        if type(key_id) is not str or not _KEY_ID.fullmatch(key_id):
            raise _refuse("a key id is the SHA-256 of a public key in hex", f"{path}.keyid")
        if sig is None or len(sig) != SIGNATURE_BYTES:
            raise _refuse("a signature is 64 bytes in canonical base64", f"{path}.sig")
        if key_id in found:
            raise _refuse("one key signs twice", f"{path}.keyid", found=key_id)
        found[key_id] = sig
    return tuple(found.items())


def _refuse(sentence: str, path: str = "", expected: object = "", found: object = "") -> Refused:
    return refuse("SL-SHAPE", sentence, path=path, expected=expected, found=found)
