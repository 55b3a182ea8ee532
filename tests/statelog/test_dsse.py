"""Envelopes, judged by the reference implementation of DSSE."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from statelog.canonical import encode
from statelog.dsse import envelope_of, read_envelope
from statelog.errors import Refused
from tests.support.authority import Cluster, key_id, make_cluster, signer

CLUSTER: Cluster = make_cluster()
RECORD = CLUSTER.registry()
SIGNERS = ("control-1", "control-2")


def key(name: str) -> SSlibKey:
    return SSlibKey(key_id(name), "ed25519", "ed25519", {"public": signer(name).public.hex()})


def verify(envelope: dict[str, Any], *names: str, threshold: int = 2) -> set[str]:
    accepted = Envelope.from_dict(copy.deepcopy(envelope)).verify([key(name) for name in names], threshold)
    return set(accepted)


def test_the_reference_implementation_accepts_an_envelope() -> None:
    envelope = envelope_of(RECORD)
    assert verify(envelope, *SIGNERS, "control-3") == {key_id(name) for name in SIGNERS}
    assert envelope["payloadType"] == "application/vnd.rap.fabric.registry.gossip_record.v1+json"
    body = {name: value for name, value in RECORD.items() if name != "signatures"}
    assert base64.b64decode(envelope["payload"]) == encode(body)


def test_it_refuses_what_was_changed() -> None:
    good = envelope_of(RECORD)
    body = base64.b64decode(good["payload"]).replace(b"control-api", b"control-apj", 1)
    changes = (
        {"payload": base64.b64encode(body).decode()},
        {"payloadType": "application/vnd.rap.fabric.route.lease.v1+json"},
        {"signatures": good["signatures"][:1]},
    )
    for change in changes:
        with pytest.raises(VerificationError):
            verify({**good, **change}, *SIGNERS)
    with pytest.raises(VerificationError):
        verify(good, "control-1", "control-3")
    assert verify(good, *SIGNERS)


def test_an_envelope_is_read_as_it_was_made() -> None:
    found = read_envelope(envelope_of(RECORD))
    assert {**found.record, "signatures": RECORD["signatures"]} == RECORD
    assert [key_id for key_id, _ in found.signatures] == [one["key_id"] for one in RECORD["signatures"]]
    assert all(len(value) == 64 for _, value in found.signatures)


def payload_with(**changes: Any) -> str:
    body = {name: value for name, value in RECORD.items() if name != "signatures"}
    return base64.b64encode(encode({**body, **changes})).decode()


GOOD = envelope_of(RECORD)
SIGNATURE = GOOD["signatures"][0]


@pytest.mark.parametrize(
    ("change", "code", "path"),
    [
        ({"more": 1}, "SL-SHAPE", ""),
        ({"payload": 7}, "SL-SHAPE", "payload"),
        ({"payload": GOOD["payload"] + "\n"}, "SL-SHAPE", "payload"),
        ({"payload": "é"}, "SL-SHAPE", "payload"),
        ({"payload": base64.b64encode(b"{ }").decode()}, "SL-CANON", ""),
        ({"payload": base64.b64encode(b"[" * 70_000).decode()}, "SL-SIZE", ""),
        ({"payload": payload_with(schema_version="x")}, "SL-SCHEMA", "schema_version"),
        ({"payload": payload_with(epoch=0)}, "SL-SHAPE", "epoch"),
        ({"payload": payload_with(signatures=[])}, "SL-SHAPE", "payload"),
        ({"payloadType": "application/json"}, "SL-SHAPE", "payloadType"),
        ({"payloadType": None}, "SL-SHAPE", "payloadType"),
        ({"signatures": {}}, "SL-SHAPE", "signatures"),
        ({"signatures": [SIGNATURE] * 17}, "SL-SHAPE", "signatures"),
        ({"signatures": [SIGNATURE] * 2}, "SL-SHAPE", "signatures[1].keyid"),
        ({"signatures": [{**SIGNATURE, "alg": "ed25519"}]}, "SL-SHAPE", "signatures[0]"),
        ({"signatures": [{**SIGNATURE, "keyid": "AB" * 32}]}, "SL-SHAPE", "signatures[0].keyid"),
        ({"signatures": [{**SIGNATURE, "keyid": 1}]}, "SL-SHAPE", "signatures[0].keyid"),
        ({"signatures": [{**SIGNATURE, "sig": "AAAA"}]}, "SL-SHAPE", "signatures[0].sig"),
        ({"signatures": [7]}, "SL-SHAPE", "signatures[0]"),
    ],
)
def test_another_envelope_is_refused(change: dict[str, Any], code: str, path: str) -> None:
    assert read_envelope(GOOD).record["epoch"] == RECORD["epoch"]
    with pytest.raises(Refused) as refused:
        read_envelope({**GOOD, **change})
    assert (refused.value.code, refused.value.finding.path) == (code, path)
