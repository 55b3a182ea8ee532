"""The beginning of a cluster: ids, proofs of possession, the first two records."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from statelog import ceremony, genesis
from statelog.errors import Refused, UsageError
from statelog.replay import Replay
from statelog.signing import key_id_of
from statelog.state import CONTROL, ROOT
from tests.support.authority import BASE_TIME, CLUSTER_ID, node_id, signer


def entries(
    role: str, count: int, custody: str = "online", *, named: bool = False
) -> tuple[dict[str, str], ...]:
    return tuple(
        genesis.key_entry(
            signer(f"{role}-{n}"), CLUSTER_ID, f"holder-{n}", custody, name=f"{role}-{n}" if named else None
        )
        for n in range(count)
    )


def plan(**changes: Any) -> genesis.Plan:
    return replace(
        genesis.Plan(
            cluster_id=CLUSTER_ID,
            mode="production",
            root=entries("root", 3, "offline"),
            root_threshold=2,
            control=entries("control", 3),
            control_threshold=2,
            witnesses=entries("witness", 4, named=True),
            witness_threshold=3,
            faulty=1,
            recovery=tuple(key_id_of(signer(f"recovery-{n}").public) for n in range(3)),
            recovery_threshold=2,
            recovery_delay_s=86_400,
        ),
        **changes,
    )


def begun(made: genesis.Plan) -> Replay:
    request = genesis.first_descriptor(made, BASE_TIME)
    for n in range(made.root_threshold):
        request = ceremony.attach(request, signer(f"root-{n}"), f"holder-{n}", ROOT)
    return genesis.genesis_replay(request)


def test_a_cluster_begins() -> None:
    log = begun(plan())
    assert (log.size, log.state.cluster_id, log.state.mode) == (1, CLUSTER_ID, "production")
    sequencer = genesis.sequencer_entry(signer("sequencer"), CLUSTER_ID, node_id("control-1"))
    term = genesis.first_term(log, [sequencer], BASE_TIME + 5)
    for n in range(2):
        term = ceremony.attach(term, signer(f"control-{n}"), f"holder-{n}", CONTROL)
    log.append(log.next_leaf(term.signed_record(), BASE_TIME + 5))
    assert (log.size, log.term) == (2, 1)


def test_a_development_cluster_has_one_signer() -> None:
    alone = plan(
        mode="development",
        root=entries("root", 1),
        root_threshold=1,
        control=entries("control", 1),
        control_threshold=1,
        witnesses=entries("witness", 1, named=True),
        witness_threshold=1,
        faulty=0,
        recovery=(),
        recovery_threshold=0,
        recovery_delay_s=0,
    )
    assert begun(alone).state.mode == "development"
    with pytest.raises(Refused) as caught:
        genesis.first_descriptor(replace(alone, mode="production"), BASE_TIME)
    assert caught.value.code == "SL-PRODUCTION"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"root_threshold": 4}, "SL-THRESHOLD"),
        ({"root": entries("root", 3, "online")}, "SL-PRODUCTION"),
        ({"control": entries("root", 3, "offline")}, "SL-PRODUCTION"),
        ({"control": entries("witness", 3)}, "SL-KEY"),
        ({"witness_threshold": 2}, "SL-THRESHOLD"),
        ({"recovery_delay_s": 0}, "SL-PRODUCTION"),
        ({"cluster_id": "no-suffix"}, "SL-SHAPE"),
        ({"cluster_id": "other.abcdefghijklmnopqrstuvwxyz"}, "SL-KEY"),  # proofs are of one cluster
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused_before_anybody_signs(
    changes: dict[str, Any], code: str
) -> None:
    assert genesis.first_descriptor(plan(), BASE_TIME)
    with pytest.raises(Refused) as caught:
        genesis.first_descriptor(plan(**changes), BASE_TIME)
    assert caught.value.code == code


def test_cluster_ids_are_random_and_fit() -> None:
    one = genesis.new_cluster_id("farm-1.eu", Random(1).randbytes)
    assert one.startswith("farm-1.eu.")
    assert len(one.removeprefix("farm-1.eu.")) == 26
    assert set(one[-26:]) <= set("abcdefghijklmnopqrstuvwxyz234567")
    assert one != genesis.new_cluster_id("farm-1.eu", Random(2).randbytes)
    assert len(genesis.new_cluster_id("x" * 36, Random(1).randbytes)) == 63


@pytest.mark.parametrize("name", ["", "Farm", "farm ", "-farm", "x" * 37, "fa_rm", "ferme-é"])
def test_names_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cluster name"):
        genesis.new_cluster_id(name, Random(1).randbytes)


def test_a_proof_is_of_one_cluster_issuer_and_key() -> None:
    entry = genesis.key_entry(signer("k"), CLUSTER_ID, "alice", "offline")
    assert genesis.proved(entry, CLUSTER_ID)
    assert not genesis.proved(entry, "other.abcdefghijklmnopqrstuvwxyz")
    other = genesis.key_entry(signer("l"), CLUSTER_ID, "alice", "offline")
    for change in (
        {"issuer_id": "bob"},
        {"key_id": other["key_id"]},
        {"public": other["public"]},
        {"proof": other["proof"]},
        {"proof": "?"},
        {"public": ""},
    ):
        assert not genesis.proved({**entry, **change}, CLUSTER_ID)
