"""Records as DSSE envelopes (secure-systems-lab/dsse), for other people's verifiers.

A record's signatures are DSSE signatures already (`statelog.signing`): an envelope only spells the same bytes
in the common form. `keyid` is our key id, the SHA-256 of the raw public key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statelog.canonical import encode_trusted
from statelog.signing import encode_base64, payload_type_of


def envelope_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The envelope of a record that `canonical.decode` returned, for JSON."""
    body = {name: value for name, value in record.items() if name != "signatures"}
    return {
        "payload": encode_base64(encode_trusted(body)),
        "payloadType": payload_type_of(record["schema_version"]),
        "signatures": [{"keyid": one["key_id"], "sig": one["value"]} for one in record["signatures"]],
    }
