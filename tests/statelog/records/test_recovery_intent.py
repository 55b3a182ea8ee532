"""Recovery intents: what they may name, when the delay begins, and what the descriptor then does.

Who must sign, and when, is the table in `tests.statelog.test_rotation`.
"""

from __future__ import annotations

from typing import Any

import pytest

from statelog.admission import admit
from statelog.canonical import encode
from statelog.errors import UsageError
from statelog.limits import MAX_SEQUENCERS
from statelog.records.recovery_intent import RecoveryIntent
from statelog.signing import encode_base64, record_id_of
from statelog.state import RECOVERY
from tests.support.authority import (
    DAY_S,
    HOUR_S,
    Cluster,
    key_entry,
    key_id,
    make_cluster,
    sequencer_entry,
    signer,
)
from tests.support.verdicts import ADMITTED, changed, place, verdict

BY = ("recovery-1", "recovery-2")


def coming(cluster: Cluster, **changes: Any) -> dict[str, Any]:
    """A descriptor for recovery keys to sign, with a root and a control of its own."""
    names = {part: [f"{part}-{n}" for n in (4, 5)] for part in ("root", "control")}
    own = {
        "keys": [
            *(key_entry(name, custody="offline") for name in names["root"]),
            *(key_entry(name) for name in names["control"]),
        ],
        **{part: cluster.holders(*listed, threshold=2) for part, listed in names.items()},
    }
    return cluster.descriptor(issuer_role=RECOVERY, by=[], **{**own, **changes})


def landed(cluster: Cluster, descriptor: dict[str, Any], *by: str) -> dict[str, Any]:
    return cluster.sign(descriptor, by or BY)


def test_the_delay_counts_from_the_logs_time(cluster: Cluster) -> None:
    """A record that claims an early time, or lay in a drawer, shortens nothing."""
    descriptor = coming(cluster)
    intent = cluster.recovery_intent(descriptor, issued_at=cluster.now - 20 * DAY_S)
    cluster.now += HOUR_S
    cluster.append(intent)
    pending = cluster.state.recovery
    assert pending is not None
    assert pending.due_at == cluster.now + cluster.state.descriptor.recovery.delay_s
    assert pending.descriptor == record_id_of(descriptor)
    cluster.now = pending.due_at - 1
    assert place(cluster, landed(cluster, descriptor)) == ("SL-RECOVERY", "")
    cluster.now = pending.due_at
    assert verdict(cluster, landed(cluster, descriptor)) == ADMITTED


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sequencers": [sequencer_entry(f"sequencer-{n}", "home-1") for n in (1, 2)]}, ADMITTED),
        ({"sequencers": []}, ("SL-SHAPE", "sequencers")),
        (
            {"sequencers": [sequencer_entry(f"s-{n}", "home-1") for n in range(MAX_SEQUENCERS + 1)]},
            ("SL-SHAPE", "sequencers"),
        ),
        ({"sequencers": [sequencer_entry("sequencer-2", "home-1")] * 2}, ("SL-KEY", "sequencers[1]")),
        ({"sequencers": [sequencer_entry("control-1", "home-1")]}, ("SL-KEY", "sequencers[0]")),
        (
            {"sequencers": [{**sequencer_entry("sequencer-2", "home-1"), "node_id": "ab" * 32}]},
            ("SL-KEY", "sequencers[0].proof"),
        ),
        ({"keys": []}, ("SL-SHAPE", "keys")),
    ],
)
def test_what_it_may_name(cluster: Cluster, changes: dict[str, Any], expected: object) -> None:
    record = cluster.recovery_intent(coming(cluster), **changes)
    assert (verdict if expected == ADMITTED else place)(cluster, record) == expected


def test_keys_are_proved_and_listed_once(cluster: Cluster) -> None:
    descriptor, shown = coming(cluster), [key_entry(name) for name in BY]
    twice = cluster.recovery_intent(descriptor, keys=[*shown, shown[0]])
    assert place(cluster, twice) == ("SL-KEY", "keys[2]")
    unproved = [shown[0], {**shown[1], "proof": shown[0]["proof"]}]
    assert place(cluster, cluster.recovery_intent(descriptor, keys=unproved)) == ("SL-KEY", "keys[1].proof")
    misnamed = [*shown, {**key_entry("recovery-3"), "key_id": key_id("root-1")}]
    assert place(cluster, cluster.recovery_intent(descriptor, keys=misnamed)) == ("SL-KEY", "keys[2].key_id")
    assert verdict(cluster, cluster.recovery_intent(descriptor, keys=shown)) == ADMITTED


def test_its_witnesses_protect(cluster: Cluster) -> None:
    descriptor = coming(cluster)
    few = cluster.witness_set("witness-1", "witness-2", "witness-3", threshold=2)
    assert place(cluster, cluster.recovery_intent(descriptor, witnesses=few)) == ("SL-THRESHOLD", "witnesses")
    both = [sequencer_entry("witness-5", "home-1")]
    watching = cluster.witness_set("witness-2", "witness-3", "witness-4", "witness-5")
    clash = cluster.recovery_intent(descriptor, witnesses=watching, sequencers=both)
    assert place(cluster, clash) == ("SL-KEY", "sequencers[0]")
    assert verdict(cluster, cluster.recovery_intent(descriptor, witnesses=watching)) == ADMITTED


def test_its_witnesses_keep_their_names(cluster: Cluster) -> None:
    descriptor = coming(cluster)
    renamed = cluster.witness_set()
    renamed["keys"][2]["name"] = "new.example"
    where = ("SL-KEY", "witnesses.keys[2].name")
    assert place(cluster, cluster.recovery_intent(descriptor, witnesses=renamed)) == where
    same = cluster.recovery_intent(descriptor, witnesses=cluster.witness_set())
    assert verdict(cluster, same) == ADMITTED


def test_the_descriptor_has_the_witnesses_that_were_named(cluster: Cluster) -> None:
    other = cluster.witness_set("witness-2", "witness-3", "witness-4", "witness-5")
    for named, expected in ((other, ("SL-RECOVERY", "witnesses")), (None, ADMITTED)):
        descriptor = coming(cluster)
        cluster.append(cluster.recovery_intent(descriptor, **({"witnesses": named} if named else {})))
        cluster.now += 3 * DAY_S
        record = landed(cluster, descriptor)
        assert (verdict if expected == ADMITTED else place)(cluster, record) == expected


def test_the_descriptor_is_judged_against_its_log(cluster: Cluster) -> None:
    descriptor = coming(cluster)
    cluster.append(cluster.recovery_intent(descriptor))
    cluster.now += 3 * DAY_S
    with pytest.raises(UsageError):
        admit(cluster.state, encode(landed(cluster, descriptor)), cluster.now)
    assert verdict(cluster, landed(cluster, descriptor)) == ADMITTED


def test_a_recovery_key_never_becomes_another(cluster: Cluster) -> None:
    keys = [key_entry("recovery-1", custody="offline"), key_entry("root-4", custody="offline")]
    keys += [key_entry("control-4"), key_entry("control-5")]
    descriptor = coming(cluster, keys=keys, root=cluster.holders("recovery-1", "root-4", threshold=2))
    cluster.append(cluster.recovery_intent(descriptor))
    cluster.now += 3 * DAY_S
    assert verdict(cluster, landed(cluster, descriptor)) == "SL-KEY"


def test_recovery_keys_sign_nothing_else(cluster: Cluster) -> None:
    cluster.append(cluster.recovery_intent(coming(cluster)))
    for record in (
        cluster.policy(issuer_role=RECOVERY, by=BY),
        cluster.veto("ab" * 32, issuer_role=RECOVERY, by=BY),
    ):
        assert place(cluster, record) == ("SL-ROLE", "issuer_role")
    assert RecoveryIntent.new_role == RECOVERY


def test_shape(cluster: Cluster) -> None:
    record = cluster.recovery_intent(coming(cluster))
    for path in ("descriptor", "keys.0.public", "witnesses.faulty", "sequencers.0.node_id"):
        assert place(cluster, cluster.sign(changed(record, path, "AB" * 32)))[0] == "SL-SHAPE", path


@pytest.mark.parametrize(("name", "use"), [("sequencer-2", "sequencer"), ("witness-5", "witness")])
def test_the_keys_of_a_recovery_under_way_serve_nothing_else(name: str, use: str) -> None:
    """Or a control quorum could stop it with an approval, or one key could write, sign and be a node."""
    cluster = make_cluster()
    others = cluster.witness_set("witness-2", "witness-3", "witness-4", "witness-5")
    descriptor = coming(cluster, witnesses=others)
    public = signer(name).public
    approval = {"node_id": key_id(name), "public": encode_base64(public), "display_name": name}
    draft = cluster.draft("node.approval", trust_tier="standard", organizations=[], **approval)
    assert verdict(cluster, cluster.sign(draft)) == ADMITTED
    intent = cluster.recovery_intent(
        descriptor, witnesses=others, sequencers=[sequencer_entry("sequencer-2", "home-1")]
    )
    cluster.append(intent)
    assert place(cluster, cluster.sign(draft)) == ("SL-KEY", "public")
    cluster.now += 3 * DAY_S
    assert verdict(cluster, landed(cluster, descriptor)) == ADMITTED
    assert cluster.state.recovery is not None
    assert cluster.state.recovery.use_of(key_id(name)) == use


def test_a_recovery_makes_no_key_both_write_and_sign() -> None:
    cluster = make_cluster()
    names = ("sequencer-2", "control-5")
    listed = [*(key_entry(one, custody="offline") for one in ("root-4", "root-5")), *map(key_entry, names)]
    both = coming(cluster, keys=listed, control=cluster.holders(*names, threshold=2))
    cluster.append(cluster.recovery_intent(both, sequencers=[sequencer_entry("sequencer-2", "home-1")]))
    cluster.now += 3 * DAY_S
    assert verdict(cluster, landed(cluster, both)) == "SL-KEY"


def test_a_root_that_was_recovered_from_has_not_equivocated(cluster: Cluster) -> None:
    """It never signed what is in the log: its own descriptor of that epoch came too late, and that is all."""
    descriptor = coming(cluster)
    late = cluster.descriptor()
    cluster.append(cluster.recovery_intent(descriptor))
    assert cluster.state.recovery is not None
    cluster.now = cluster.state.recovery.due_at
    landing = landed(cluster, descriptor)
    late = cluster.sign({**late, "expires_at": descriptor["expires_at"]})
    cluster.append(landing)
    assert late["epoch"] == landing["epoch"]
    assert verdict(cluster, late) == "SL-QUORUM"
