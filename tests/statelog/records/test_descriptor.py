"""The descriptor: rotation by both roots, what production demands, sets that protect."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.admission import admit_genesis
from statelog.canonical import encode
from statelog.errors import Refused
from statelog.records import KINDS
from statelog.records.descriptor import descriptor_of
from statelog.signing import encode_base64, record_id_of
from statelog.state import CONTROL
from tests.support.authority import DAY_S, Cluster, key_entry, key_id, make_cluster
from tests.support.verdicts import ADMITTED, refusal, verdict

ROOTS = ("root-1", "root-2", "root-3")
NEW_ROOTS = ("root-4", "root-5", "root-6")
CONTROLS = ("control-1", "control-2", "control-3")


def with_keys(
    cluster: Cluster,
    roots: tuple[str, ...] = ROOTS,
    controls: tuple[str, ...] = CONTROLS,
    *,
    thresholds: tuple[int, int] = (2, 2),
    custody: str = "offline",
    **changes: Any,
) -> dict[str, Any]:
    """The next descriptor, with these root and control keys."""
    names = dict.fromkeys([*roots, *controls])
    return cluster.descriptor(
        **{
            "keys": [key_entry(n, custody=custody if n in roots else "online") for n in names],
            "root": cluster.holders(*roots, threshold=thresholds[0]),
            "control": cluster.holders(*controls, threshold=thresholds[1]),
            **changes,
        }
    )


def place(cluster: Cluster, record: dict[str, Any]) -> tuple[str, str]:
    found = refusal(cluster, record)
    assert not isinstance(found, str), found
    return found.code, found.path


# --- rotation ---


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (("root-1", "root-2", "root-4", "root-5"), ADMITTED),
        (("root-1", "root-2"), "SL-QUORUM"),  # the new root did not agree
        (("root-4", "root-5"), "SL-QUORUM"),  # the old root did not agree: anybody could do that
        (("root-1", "root-4"), "SL-QUORUM"),
        (("root-1", "root-2", "root-4"), "SL-QUORUM"),
        (("root-1", "root-4", "root-5"), "SL-QUORUM"),
        (("root-1", "root-2", "root-4", "root-5", "root-9"), "SL-SIG"),
        ((), "SL-QUORUM"),
    ],
)
def test_both_roots_agree(cluster: Cluster, by: tuple[str, ...], expected: str) -> None:
    assert verdict(cluster, with_keys(cluster, NEW_ROOTS, by=by)) == expected


def test_control_does_not_change_the_root(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.descriptor(by=CONTROLS[:2])) == "SL-SIG"
    as_control = cluster.descriptor(by=CONTROLS[:2], issuer_role=CONTROL)
    assert verdict(cluster, as_control) == "SL-ROLE"


def test_after_a_rotation_the_old_root_is_gone(cluster: Cluster) -> None:
    cluster.append(with_keys(cluster, NEW_ROOTS, by=(*ROOTS[:2], *NEW_ROOTS[:2])))
    assert set(cluster.state.descriptor.root.by_id) == set(map(key_id, NEW_ROOTS))
    assert verdict(cluster, with_keys(cluster, NEW_ROOTS, by=NEW_ROOTS[:2])) == ADMITTED
    assert verdict(cluster, with_keys(cluster, NEW_ROOTS, by=ROOTS[:2])) == "SL-REVOKED"
    returning = with_keys(cluster, ROOTS, by=(*ROOTS[:2], *NEW_ROOTS[:2]))
    assert verdict(cluster, returning) == "SL-REVOKED"


RIVALS = ("root-7", "root-8", "root-9")


def rival(cluster: Cluster, *by: str) -> dict[str, Any]:
    """Another descriptor of the epoch in force."""
    return with_keys(cluster, RIVALS, epoch=cluster.state.descriptor.epoch, by=by)


def test_two_successors_are_equivocation_though_the_root_is_gone(cluster: Cluster) -> None:
    cluster.append(with_keys(cluster, NEW_ROOTS, by=(*ROOTS[:2], *NEW_ROOTS[:2])))
    assert verdict(cluster, rival(cluster, *ROOTS[:2], *RIVALS[:2])) == "SL-EQUIVOCATION"
    assert verdict(cluster, rival(cluster, *ROOTS[:1], *RIVALS[:2])) == "SL-QUORUM"
    assert verdict(cluster, rival(cluster, *ROOTS[:2])) == "SL-QUORUM"
    forged = rival(cluster, *ROOTS[:2], *RIVALS[:2])
    (entry,) = (one for one in forged["signatures"] if one["key_id"] == key_id(ROOTS[0]))
    entry["value"] = encode_base64(bytes(64))
    assert verdict(cluster, forged) == "SL-SIG"
    # The root in force could not have put it there: it was nobody then.
    assert verdict(cluster, rival(cluster, *NEW_ROOTS[:2], *RIVALS[:2])) not in (ADMITTED, "SL-EQUIVOCATION")


def test_what_the_root_before_signs_is_no_descriptor(cluster: Cluster) -> None:
    cluster.append(with_keys(cluster, NEW_ROOTS, by=(*ROOTS[:2], *NEW_ROOTS[:2])))
    later = with_keys(cluster, RIVALS, by=(*ROOTS[:2], *RIVALS[:2]))
    assert verdict(cluster, later) == "SL-REVOKED"
    cluster.append(with_keys(cluster, RIVALS, by=(*NEW_ROOTS[:2], *RIVALS[:2])))
    assert verdict(cluster, with_keys(cluster, ROOTS, epoch=2, by=(*ROOTS[:2],))) == "SL-STALE"


def test_descriptors_follow_one_by_one(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.descriptor(epoch=2)) == ADMITTED
    assert place(cluster, cluster.descriptor(epoch=3)) == ("SL-EPOCH", "epoch")
    assert verdict(cluster, cluster.descriptor(epoch=1, clock_skew_s=60)) == "SL-EQUIVOCATION"
    cluster.append(cluster.descriptor())
    assert verdict(cluster, cluster.descriptor(epoch=1, clock_skew_s=60)) == "SL-STALE"
    assert verdict(cluster, cluster.descriptor(epoch=3)) == ADMITTED


def test_after_expiry_only_the_successor_is_admitted(cluster: Cluster) -> None:
    cluster.now = cluster.state.descriptor.expires_at - 1
    assert verdict(cluster, cluster.registry()) == ADMITTED
    cluster.now += 1
    assert verdict(cluster, cluster.registry()) == "SL-EXPIRED"
    cluster.append(cluster.descriptor())
    assert verdict(cluster, cluster.registry()) == ADMITTED


def named(cluster: Cluster, **names: str) -> dict[str, Any]:
    """A set of four witnesses, the key of each under the given name."""
    witnesses = cluster.witness_set(*(key.replace("_", "-") for key in names))
    for entry, name in zip(witnesses["keys"], names.values(), strict=True):
        entry["name"] = f"{name}.example"
    return witnesses


def test_a_witness_key_keeps_its_name(cluster: Cluster) -> None:
    same = {f"witness_{n}": f"witness-{n}" for n in (2, 3, 4)}
    other = named(cluster, witness_1="new", **same)
    assert place(cluster, cluster.descriptor(witnesses=other)) == ("SL-KEY", "witnesses.keys[0].name")
    swapped = named(cluster, witness_1="witness-2", **{**same, "witness_2": "witness-1"})
    assert place(cluster, cluster.descriptor(witnesses=swapped)) == ("SL-KEY", "witnesses.keys[0].name")
    assert verdict(cluster, cluster.descriptor(witnesses=cluster.witness_set())) == ADMITTED
    # Not even after it was away.
    cluster.append(cluster.descriptor(witnesses=named(cluster, witness_5="witness-5", **same)))
    back = named(cluster, witness_1="new", **same)
    assert place(cluster, cluster.descriptor(witnesses=back)) == ("SL-KEY", "witnesses.keys[0].name")
    assert verdict(cluster, cluster.descriptor(witnesses=cluster.witness_set())) == ADMITTED


def test_a_name_passes_to_another_key_when_nobody_in_force_has_it(cluster: Cluster) -> None:
    same = {f"witness_{n}": f"witness-{n}" for n in (2, 3, 4)}
    renewed = named(cluster, witness_5="witness-1", **same)
    assert place(cluster, cluster.descriptor(witnesses=renewed)) == ("SL-KEY", "witnesses.keys[0].name")
    cluster.append(cluster.descriptor(witnesses=named(cluster, witness_6="witness-6", **same)))
    assert verdict(cluster, cluster.descriptor(witnesses=renewed)) == ADMITTED


def test_a_witness_change_is_remembered(cluster: Cluster) -> None:
    changed_at = cluster.log.size
    others = cluster.witness_set(*(f"witness-{n}" for n in range(2, 6)))
    cluster.append(cluster.descriptor(witnesses=others))
    old, new = cluster.state.witnesses_between(changed_at, changed_at + 1)
    assert (len(old.by_name), "witness-1.example" in old.by_name) == (4, True)
    assert set(new.by_name) == {f"witness-{n}.example" for n in range(2, 6)}
    cluster.append(cluster.descriptor(witnesses=others))
    assert cluster.state.witnesses_between(changed_at + 1, cluster.log.size) == (new,)


def test_the_record_states_its_descriptor(cluster: Cluster) -> None:
    record = cluster.descriptor()
    stated = descriptor_of(record, record_id_of(record))
    assert (stated.epoch, stated.mode, stated.clock_skew_s, stated.max_checkpoint_age_s) == (
        2,
        "production",
        120,
        600,
    )
    assert (stated.root.threshold, stated.control.threshold, stated.recovery.threshold) == (2, 2, 2)
    assert stated.expires_at - stated.issued_at == 365 * DAY_S


# --- keys and thresholds ---


def test_references(cluster: Cluster) -> None:
    by = ROOTS[:2]
    assert verdict(cluster, with_keys(cluster, by=by)) == ADMITTED
    unknown = with_keys(cluster, root=cluster.holders(*ROOTS, "root-9", threshold=2), by=by)
    assert place(cluster, unknown) == ("SL-KEY", "root.key_ids[3]")
    fewer = with_keys(cluster, control=cluster.holders(*CONTROLS[:2], threshold=2), by=by)
    assert place(cluster, fewer) == ("SL-KEY", "keys")  # control-3 is listed and has no role
    twice = [key_entry(n, custody="offline") for n in (*ROOTS, "root-1")]
    repeated = with_keys(cluster, keys=[*twice, *map(key_entry, CONTROLS)], by=by)
    assert place(cluster, repeated) == ("SL-KEY", "keys[3]")


def test_an_id_that_is_not_its_keys_hash_opens_nothing(cluster: Cluster) -> None:
    keys = [key_entry(n, custody="offline") for n in ROOTS] + [key_entry(n) for n in CONTROLS]
    keys[0] = {**key_entry("root-9", custody="offline"), "key_id": key_id("root-1")}
    assert verdict(cluster, with_keys(cluster, keys=keys, by=("root-1", "root-2"))) == "SL-QUORUM"
    found = place(cluster, with_keys(cluster, keys=keys, by=("root-1", "root-2", "root-3")))
    assert found == ("SL-KEY", "keys[0].key_id")


@pytest.mark.parametrize("part", ["root", "control"])
@pytest.mark.parametrize(("threshold", "expected"), [(3, ADMITTED), (4, "SL-THRESHOLD"), (0, "SL-SHAPE")])
def test_thresholds_can_be_met(cluster: Cluster, part: str, threshold: int, expected: str) -> None:
    thresholds = (threshold, 2) if part == "root" else (2, threshold)
    assert verdict(cluster, with_keys(cluster, thresholds=thresholds, by=ROOTS)) in (expected, "SL-QUORUM")
    if part == "control":
        assert verdict(cluster, with_keys(cluster, thresholds=thresholds, by=ROOTS)) == expected


def test_one_person_with_two_keys_counts_once(cluster: Cluster) -> None:
    same = [key_entry(n, custody="offline") for n in ROOTS]
    same += [key_entry(n, issuer_id="one-person") for n in ("control-4", "control-5", "control-6")]
    controls = ("control-4", "control-5", "control-6")
    record = with_keys(cluster, controls=controls, keys=same, by=ROOTS[:2])
    assert place(cluster, record) == ("SL-THRESHOLD", "control")


@pytest.mark.parametrize(
    ("count", "threshold", "faulty", "expected"),
    [
        (4, 3, 1, ADMITTED),
        (5, 4, 1, ADMITTED),
        (7, 5, 2, ADMITTED),
        (2, 2, 0, "SL-PRODUCTION"),
        (4, 2, 1, "SL-THRESHOLD"),  # two quorums could share only the liar
        (4, 4, 1, "SL-THRESHOLD"),  # one silent witness would stop the log
        (5, 3, 1, "SL-THRESHOLD"),
        (3, 2, 1, "SL-THRESHOLD"),
        (6, 4, 2, "SL-THRESHOLD"),
    ],
)
def test_witness_arithmetic(cluster: Cluster, count: int, threshold: int, faulty: int, expected: str) -> None:
    names = [f"witness-{n}" for n in range(1, count + 1)]
    witnesses = cluster.witness_set(*names, threshold=threshold, faulty=faulty)
    assert verdict(cluster, cluster.descriptor(witnesses=witnesses)) == expected


@pytest.mark.parametrize("what", ["name", "issuer_id"])
def test_witnesses_are_distinct(cluster: Cluster, what: str) -> None:
    witnesses = cluster.witness_set()
    first = witnesses["keys"][0]
    if what == "name":
        witnesses["keys"][1]["name"] = first["name"]
    else:
        second = key_entry("witness-2", issuer_id=first["issuer_id"])
        witnesses["keys"][1] = {**second, "name": "witness-2.example"}
    assert place(cluster, cluster.descriptor(witnesses=witnesses)) == ("SL-KEY", "witnesses")


def test_a_key_serves_one_purpose(cluster: Cluster) -> None:
    named = ("witness-1", "witness-2", "witness-3")
    for clash in ("control-1", "root-1", "route-1", "sequencer-1", "node:home-1", "recovery-1"):
        record = cluster.descriptor(witnesses=cluster.witness_set(*named, clash))
        assert verdict(cluster, record) == "SL-KEY", clash
    fresh = cluster.witness_set(*named, "witness-9")
    assert verdict(cluster, cluster.descriptor(witnesses=fresh)) == ADMITTED


@pytest.mark.parametrize(
    ("control", "witness", "recovery", "path"),
    [
        ("new-1", "new-1", "new-2", "witnesses.keys"),
        ("new-1", "new-2", "new-1", "recovery.key_sha256"),
        ("new-1", "new-2", "new-2", "recovery.key_sha256"),
        ("new-1", "new-2", "new-3", None),
    ],
)
def test_keys_that_nobody_has_seen_are_kept_apart_too(
    cluster: Cluster, control: str, witness: str, recovery: str, path: str | None
) -> None:
    record = with_keys(
        cluster,
        controls=("control-1", "control-2", control),
        witnesses=cluster.witness_set("witness-1", "witness-2", "witness-3", witness),
        recovery={"threshold": 2, "key_sha256": [key_id("recovery-1"), key_id(recovery)], "delay_s": 60},
        by=ROOTS[:2],
    )
    if path is None:
        assert verdict(cluster, record) == ADMITTED
    else:
        assert place(cluster, record) == ("SL-KEY", path)


@pytest.mark.parametrize("clash", ["root-1", "control-1", "witness-1", "route-1", "node:home-1"])
def test_recovery_keys_are_kept_apart(cluster: Cluster, clash: str) -> None:
    def recovery(name: str) -> dict[str, Any]:
        return {"threshold": 2, "key_sha256": [key_id("recovery-1"), key_id(name)], "delay_s": 60}

    assert verdict(cluster, cluster.descriptor(recovery=recovery(clash))) == "SL-KEY"
    assert verdict(cluster, cluster.descriptor(recovery=recovery("recovery-9"))) == ADMITTED


def test_the_recovery_threshold_can_be_met(cluster: Cluster) -> None:
    keys = [key_id("recovery-1"), key_id("recovery-2")]
    record = cluster.descriptor(recovery={"threshold": 3, "key_sha256": keys, "delay_s": 60})
    assert place(cluster, record) == ("SL-THRESHOLD", "recovery.threshold")


# --- modes ---


def test_production_rules(cluster: Cluster) -> None:
    by, keys = ROOTS, [key_id("recovery-1"), key_id("recovery-2")]
    lone = cluster.witness_set("witness-1", threshold=1, faulty=0)
    broken: dict[str, dict[str, Any]] = {
        "root.threshold": with_keys(cluster, thresholds=(1, 2), by=by),
        "control.threshold": with_keys(cluster, thresholds=(2, 1), by=by),
        "keys": with_keys(cluster, custody="online", by=by),
        "root.key_ids": with_keys(cluster, controls=("root-1", "control-1", "control-2"), by=by),
        "witnesses.faulty": cluster.descriptor(witnesses=lone),
        "recovery.threshold": cluster.descriptor(
            recovery={"threshold": 1, "key_sha256": keys, "delay_s": 60}
        ),
        "recovery.delay_s": cluster.descriptor(recovery={"threshold": 2, "key_sha256": keys, "delay_s": 0}),
    }
    assert {path: place(cluster, record) for path, record in broken.items()} == {
        path: ("SL-PRODUCTION", path) for path in broken
    }
    assert verdict(cluster, with_keys(cluster, custody="hardware", by=by)) == ADMITTED


def test_a_root_key_that_is_a_member_elsewhere(small: Cluster) -> None:
    """Development lets a root key be a member; production does not take such a state over."""
    small.append(small.members("route-authority", "root-1", threshold=1))
    record = with_keys(small, mode="production", recovery=recovery_of_two(), by=(*ROOTS,))
    assert place(small, record) == ("SL-PRODUCTION", "root.key_ids")


def recovery_of_two() -> dict[str, Any]:
    return {"threshold": 2, "key_sha256": [key_id("recovery-1"), key_id("recovery-2")], "delay_s": 60}


def test_development_is_lenient(small: Cluster) -> None:
    lenient = with_keys(small, ("root-1",), ("root-1",), thresholds=(1, 1), custody="online")
    assert verdict(small, lenient) == ADMITTED  # one key for everything


def test_the_mode_moves_forward_only(small: Cluster) -> None:
    upgrade = with_keys(small, mode="production", recovery=recovery_of_two(), by=("root-1", "root-2"))
    small.append(upgrade)
    assert small.state.mode == "production"
    back = with_keys(small, mode="development", recovery=recovery_of_two(), by=("root-1", "root-2"))
    assert place(small, back) == ("SL-MODE", "mode")


def test_what_development_installed_says_nothing_in_production(small: Cluster) -> None:
    small.append(small.registry())
    before = small.state.copy().subjects
    assert before["registry.gossip_record", "control-api", "cluster", ""].bootstrap
    assert before["authority.descriptor", "cluster"].bootstrap
    small.append(with_keys(small, mode="production", recovery=recovery_of_two(), by=("root-1", "root-2")))
    assert not small.state.subjects["authority.descriptor", "cluster"].bootstrap
    small.mode = "production"
    assert verdict(small, small.lease()) == "SL-ROLE"  # nobody holds route authority any more
    assert verdict(small, small.certificate("home-1")) == "SL-NODE"  # and no node is approved
    small.append(small.members("route-authority"))
    small.append(small.approval("home-1"))
    admitted = small.append(small.certificate("home-1"))
    assert not admitted.bootstrap


# --- genesis ---


def test_a_genesis_is_judged_by_the_same_rules() -> None:
    cluster = make_cluster()

    def genesis(record: dict[str, Any]) -> str:
        try:
            admit_genesis(encode(record), None)
        except Refused as refused:
            return refused.code
        return ADMITTED

    assert genesis(cluster.genesis) == ADMITTED
    assert genesis(cluster.descriptor(epoch=2)) == "SL-EPOCH"
    assert genesis(with_keys(cluster, epoch=1, by=("root-1",))) == "SL-QUORUM"
    assert genesis(with_keys(cluster, epoch=1, thresholds=(1, 2), by=("root-1",))) == "SL-PRODUCTION"
    assert genesis(with_keys(cluster, epoch=1, by=("control-1", "control-2"))) == "SL-SIG"
    assert KINDS[cluster.genesis["schema_version"]].outlives_descriptor
