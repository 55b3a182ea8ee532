"""How a key enters: a sound point, its hash as id, a proof that somebody holds it, one purpose for ever."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.errors import Refused
from statelog.records import keys
from statelog.records.base import Context
from statelog.records.keys import bytes_of, key_of, witness_key_of
from statelog.signing import encode_base64, key_id_of
from statelog.state import ROUTE
from tests.support.authority import CLUSTER_ID, Cluster, key_entry, key_id, signer
from tests.support.keys import possession
from tests.support.verdicts import ADMITTED, refusal, verdict


def mixed_order() -> bytes:
    """A key plus the point of order two: (−x, −y), which no honest key pair has."""
    public = signer("x-1").public
    p = 2**255 - 19
    y = int.from_bytes(public, "little") & (2**255 - 1)
    return ((p - y) | (0 if public[31] >> 7 else 1 << 255)).to_bytes(32, "little")


def listing(cluster: Cluster, entry: dict[str, Any]) -> dict[str, Any]:
    """A members record that lists ``entry`` beside two good keys."""
    return cluster.members(ROUTE, keys=[key_entry("x-2"), entry, key_entry("x-3")])


def place(cluster: Cluster, entry: dict[str, Any]) -> tuple[str, str]:
    found = refusal(cluster, listing(cluster, entry))
    assert not isinstance(found, str), found
    return found.code, found.path


def test_a_good_key_enters(cluster: Cluster) -> None:
    assert verdict(cluster, listing(cluster, key_entry("x-1"))) == ADMITTED


@pytest.mark.parametrize(
    "public", [bytes(32), b"\1" + bytes(31), bytes([2]) + bytes(31), b"\xff" * 32, mixed_order()]
)
def test_unsound_points(cluster: Cluster, public: bytes) -> None:
    entry = {**key_entry("x-1"), "public": encode_base64(public), "key_id": key_id_of(public)}
    assert place(cluster, entry) == ("SL-KEY", "keys[1].public")


def test_the_id_is_the_hash(cluster: Cluster) -> None:
    entry = {**key_entry("x-1"), "key_id": key_id("x-4")}
    assert place(cluster, entry) == ("SL-KEY", "keys[1].key_id")


@pytest.mark.parametrize(
    "proof",
    [
        possession(CLUSTER_ID, "x-4", "keeper-of-x-1"),  # somebody else's
        possession("other.abcdefghijklmnopqrstuvwxyz", "x-1", "keeper-of-x-1"),  # for another cluster
        possession(CLUSTER_ID, "x-1", "keeper-of-x-4"),  # for another issuer
        encode_base64(bytes(64)),
    ],
)
def test_the_proof_of_possession(cluster: Cluster, proof: str) -> None:
    assert place(cluster, key_entry("x-1", proof=proof)) == ("SL-KEY", "keys[1].proof")


def test_a_fold_of_verified_bytes_leaves_nothing_but_signatures_out(cluster: Cluster) -> None:
    unproved = listing(cluster, key_entry("x-1", proof=encode_base64(bytes(64))))
    assert verdict(cluster, unproved, verify_signatures=False) == "SL-KEY"
    assert verdict(cluster, listing(cluster, key_entry("x-1")), verify_signatures=False) == ADMITTED
    wrong_id = listing(cluster, {**key_entry("x-1"), "key_id": key_id("x-4")})
    assert verdict(cluster, wrong_id, verify_signatures=False) == "SL-KEY"


def test_twice_in_a_list(cluster: Cluster) -> None:
    assert place(cluster, key_entry("x-2")) == ("SL-KEY", "keys[1]")


@pytest.mark.parametrize("name", ["witness-1", "sequencer-1", "node:home-1", "recovery-1"])
def test_one_purpose_for_ever(cluster: Cluster, name: str) -> None:
    assert place(cluster, key_entry(name)) == ("SL-KEY", "keys[1]")


def test_a_witness_may_leave_and_come_back_but_serves_nothing_else(cluster: Cluster) -> None:
    others = cluster.witness_set(*(f"witness-{n}" for n in range(2, 6)))
    cluster.append(cluster.descriptor(witnesses=others))
    assert place(cluster, key_entry("witness-1")) == ("SL-KEY", "keys[1]")
    assert verdict(cluster, cluster.descriptor(witnesses=cluster.witness_set())) == ADMITTED


@pytest.mark.parametrize("field", ["key_id", "alg", "public", "issuer_id", "custody", "proof"])
def test_every_field_is_there(cluster: Cluster, field: str) -> None:
    entry = {name: value for name, value in key_entry("x-1").items() if name != field}
    assert place(cluster, entry) == ("SL-SHAPE", f"keys[1].{field}")


@pytest.mark.parametrize(
    ("field", "value"), [("custody", "pocket"), ("alg", "rsa"), ("public", "QQ=="), ("name", "x")]
)
def test_every_field_has_its_form(cluster: Cluster, field: str, value: str) -> None:
    assert place(cluster, {**key_entry("x-1"), field: value}) == ("SL-SHAPE", f"keys[1].{field}")


def test_the_listed_key() -> None:
    entry = key_entry("x-1", custody="hardware")
    key = key_of(entry)
    assert (key.key_id, key.public, key.issuer_id, key.custody) == (
        key_id("x-1"),
        signer("x-1").public,
        "keeper-of-x-1",
        "hardware",
    )
    witness = witness_key_of({**entry, "name": "w.example"})
    assert (witness.name, witness.public, witness.issuer_id) == ("w.example", key.public, key.issuer_id)


def test_bytes_of_checked_base64() -> None:
    assert bytes_of("QQ==") == b"A"
    with pytest.raises(Refused, match="SL-SHAPE"):
        bytes_of("QQ")


def test_uses_are_checked_against_the_state(cluster: Cluster) -> None:
    keys.check_use(cluster.state, key_id("x-1"), "here", "authority")
    with pytest.raises(Refused, match="SL-KEY at here"):
        keys.check_use(cluster.state, key_id("route-1"), "here", "witness")
    context = Context("", 0, 0, 0, None, ahead_of_log=False, bootstrap=False)
    keys.check_listed(cluster.state, [key_entry("route-1")], "keys", "authority", context)
