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
from statelog.dsse import envelope_of
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
