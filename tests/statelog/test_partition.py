"""Partition logs: opened by a term, judged at an authority size, and the same on every replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from statelog.canonical import encode
from statelog.checkpoint import Checkpoint
from statelog.errors import Refused, SourceUnreadable, UsageError
from statelog.finality import needed_sets
from statelog.leaf import frame_leaf, split_leaf
from statelog.merkle import leaf_hash, root_of
from statelog.partition import PartitionReplay
from statelog.replay import Replay
from statelog.state import CONTROL, ROUTE, AuthorityState, Target
from tests.support.authority import QUORUMS, Cluster, make_cluster, node_id
from tests.support.logs import replay_of
from tests.support.partitions import MemoryFeed, Partition


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


@pytest.fixture
def eu(cluster: Cluster) -> Partition:
    return Partition(cluster)


def partition_rows(state: AuthorityState) -> tuple[Any, ...]:
    own = {key: value for key, value in state.subjects.items() if key[0] == "route.lease"}
    return state.leases, state.leases_of, state.partition_of, own


def code_of(replay: Replay, leaf: bytes) -> str:
    """The refusal's code, after checking that the log did not move and the refusal names its place."""
    before = replay.size, replay.root(), replay.last_sequenced_at
    rows = partition_rows(replay.state.copy()) if replay.started else None
    with pytest.raises(Refused) as error:
        replay.append(leaf)
    assert (replay.size, replay.root(), replay.last_sequenced_at) == before
    assert error.value.finding.log_index == replay.size
    if rows is not None:
        assert partition_rows(replay.state) == rows
    return error.value.code


def parts(leaf: bytes, **changes: Any) -> bytes:
    return frame_leaf(*split_leaf(leaf)._replace(**changes))


# --- opening ---


def test_a_partition_log_begins_with_its_first_entry(eu: Partition) -> None:
    assert (eu.replay.size, eu.replay.term, eu.replay.authority_size) == (0, 1, eu.opened + 1)
    entry = eu.append(eu.lease())
    assert (entry.index, entry.leaf.term, entry.leaf.authority_size) == (0, 1, eu.opened + 1)
    assert eu.replay.origin == f"{eu.cluster.cluster_id}/routes-eu-1"
    assert eu.replay.checkpoint() == Checkpoint(eu.replay.origin, 1, root_of([leaf_hash(entry.data)]))
    assert eu.replay.verify_head(eu.head())[0].size == PartitionReplay.first_checkpoint_size == 1
    assert sorted(eu.replay.state.leases) == ["eu-1/a"]


def test_nothing_is_in_a_log_that_no_term_has_opened(eu: Partition) -> None:
    leaf = eu.next_leaf(eu.lease())
    assert code_of(eu.fresh(), parts(leaf, authority_size=eu.opened)) == "SL-AUTHORITY"
    assert code_of(eu.fresh(), parts(leaf, authority_size=0)) == "SL-AUTHORITY"
    assert eu.fresh().append(leaf).index == 0
    other = PartitionReplay(eu.cluster.anchor, "routes-us-1", eu.feed)
    assert code_of(other, leaf) == "SL-AUTHORITY"


def test_only_partitions_have_partition_logs(eu: Partition) -> None:
    with pytest.raises(UsageError):
        PartitionReplay(eu.cluster.anchor, "authority", eu.feed)


def test_a_leaf_names_an_authority_size_exactly_where_it_must(eu: Partition) -> None:
    leaf = eu.next_leaf(eu.lease())
    assert code_of(eu.fresh(), parts(leaf, authority_size=None)) == "SL-LEAF"
    assert eu.fresh().append(leaf).index == 0
    authority = replay_of(eu.cluster)
    policy = authority.next_leaf(encode(eu.cluster.policy()), eu.cluster.now)
    assert code_of(authority, parts(policy, authority_size=3)) == "SL-LEAF"
    assert authority.append(policy).leaf.authority_size is None


def test_what_the_authority_log_said_of_the_partition_holds_on(cluster: Cluster) -> None:
    """Epochs go on, fences hold, and no lease of before is sequenced a second time."""
    old = cluster.lease("route-a")
    cluster.append(old)
    fenced = cluster.lease("route-b")
    cluster.append(cluster.fence({"partition": "eu-1"}))
    eu = Partition(cluster)
    assert code_of(eu.replay, eu.next_leaf(old)) == "SL-DUPLICATE"
    assert code_of(eu.replay, eu.next_leaf(fenced)) == "SL-FENCED"
    cluster.now += 1
    assert code_of(eu.replay, eu.next_leaf(eu.lease("route-a", epoch=1))) == "SL-EQUIVOCATION"
    assert eu.append(eu.lease("route-a")).record["epoch"] == 2


# --- what belongs where ---


def test_a_record_is_admitted_in_one_log_only(eu: Partition) -> None:
    cluster, authority = eu.cluster, replay_of(eu.cluster)
    at_home = [eu.lease(), eu.fence({"partition": "eu-1"}), eu.fence({"route_id": "eu-1/a"})]
    elsewhere = [
        cluster.fence({"node_id": node_id("relay-1")}),
        cluster.lease("route-x", partition="us-1"),
        cluster.fence({"route_id": "route-x"}),
        cluster.registry(),
        eu.term("sequencer-2", start_size=0),
    ]
    for record in at_home:
        assert code_of(authority, authority.next_leaf(encode(record), cluster.now)) == "SL-SCOPE"
        assert eu.replay.copy().append(eu.next_leaf(record)).index == 0
    for record in elsewhere:
        assert code_of(eu.replay.copy(), eu.next_leaf(record)) == "SL-SCOPE"
        assert authority.copy().append(authority.next_leaf(encode(record), cluster.now))


def test_a_new_route_of_an_open_partition_carries_its_name(cluster: Cluster) -> None:
    """Logs that do not see one another never lease one id twice."""
    cluster.append(cluster.lease("eu-1/old", partition="us-1"))
    eu = Partition(cluster)
    us = Partition(cluster, "us-1", writer="sequencer-us")
    assert code_of(eu.replay, eu.next_leaf(eu.lease("route-a"))) == "SL-SCOPE"
    assert code_of(eu.replay, eu.next_leaf(eu.lease("us-1/a"))) == "SL-SCOPE"
    assert code_of(eu.replay, eu.next_leaf(eu.lease("eu-1/old"))) == "SL-SCOPE"  # leased before, elsewhere
    assert eu.append(eu.lease("eu-1/a")).index == 0
    assert us.append(us.lease("eu-1/old")).record["epoch"] == 2
    authority = replay_of(cluster)
    squat = encode(cluster.lease("eu-1/b", partition="asia-1"))
    assert code_of(authority, authority.next_leaf(squat, cluster.now)) == "SL-SCOPE"
    free = encode(cluster.lease("route-b", partition="asia-1"))
    assert authority.append(authority.next_leaf(free, cluster.now))


def test_a_partitions_own_set_fences_its_routes(cluster: Cluster) -> None:
    own = ("route-eu-1", "route-eu-2", "route-eu-3")
    cluster.append(cluster.members(ROUTE, *own, partition="eu-1"))
    eu = Partition(cluster)
    fence = eu.fence({"route_id": "eu-1/a"})
    assert code_of(eu.replay, eu.next_leaf(fence)) == "SL-SCOPE"
    assert eu.append(eu.cluster.sign(fence, own[:2]))


# --- the authority size ---


def test_the_authority_size_never_goes_back(eu: Partition) -> None:
    eu.cluster.append(eu.cluster.policy())
    eu.append(eu.lease("eu-1/a"))
    leaf = eu.next_leaf(eu.lease("eu-1/b"))
    assert code_of(eu.replay, parts(leaf, authority_size=eu.opened + 1)) == "SL-AUTHORITY"
    assert eu.replay.append(leaf).leaf.authority_size == eu.opened + 2


def test_the_authority_size_is_final(eu: Partition) -> None:
    eu.cluster.append(eu.cluster.policy())
    leaf = eu.next_leaf(eu.lease())
    eu.feed.final = eu.opened + 1
    assert code_of(eu.fresh(), leaf) == "SL-AUTHORITY"
    eu.feed.final = eu.opened + 2
    assert eu.fresh().append(leaf).index == 0


def test_a_size_that_was_named_binds_even_when_its_entry_is_refused(eu: Partition) -> None:
    low = eu.next_leaf(eu.lease("eu-1/b"))
    eu.cluster.append(eu.cluster.policy())
    replay = eu.fresh()
    bad = eu.next_leaf(eu.lease("route-a"))
    assert code_of(replay, bad) == "SL-SCOPE"
    replay.skip(bad)
    assert code_of(replay, low) == "SL-AUTHORITY"
    assert replay.append(parts(low, authority_size=eu.opened + 2)).index == 1


def test_an_entry_is_not_sequenced_before_what_it_is_judged_by(eu: Partition) -> None:
    eu.cluster.now += 60
    eu.cluster.append(eu.cluster.policy())
    leaf = eu.next_leaf(eu.lease())
    earlier = parts(leaf, sequenced_at=eu.cluster.now - 1)
    assert code_of(eu.fresh(), earlier) == "SL-ORDER"
    assert eu.fresh().append(leaf).index == 0
    behind = eu.replay.next_leaf(encode(eu.lease()), eu.cluster.now - 30)
    assert split_leaf(behind).sequenced_at == eu.cluster.now


def test_the_authority_log_is_read_once_and_no_further_than_named(eu: Partition) -> None:
    first = eu.next_leaf(eu.lease("eu-1/a"))
    eu.cluster.append(eu.cluster.policy())
    eu.replay.append(first)
    replay, eu.feed.read = eu.fresh(), []
    replay.append(first)
    assert eu.feed.read == [(0, eu.opened + 1)]


def test_an_authority_log_that_does_not_hold_is_named(eu: Partition) -> None:
    leaf = eu.next_leaf(eu.lease())
    damaged = [*eu.cluster.leaves()]
    damaged[4] = damaged[5]
    replay = PartitionReplay(eu.cluster.anchor, eu.log, MemoryFeed(damaged))
    assert code_of(replay, leaf) == "SL-AUTHORITY"
    short = PartitionReplay(eu.cluster.anchor, eu.log, MemoryFeed(damaged[:3], final=eu.opened + 1))
    with pytest.raises(SourceUnreadable):
        short.append(leaf)


# --- what the authority log says takes effect by authority size ---

Change = Callable[[Cluster], dict[str, Any]]


def revoke_relay(cluster: Cluster) -> dict[str, Any]:
    return cluster.revocation({"node_id": node_id("relay-1")})


def fence_relay(cluster: Cluster) -> dict[str, Any]:
    return cluster.fence({"node_id": node_id("relay-1")})


def rotate_route_keys(cluster: Cluster) -> dict[str, Any]:
    return cluster.members(ROUTE, "route-4", "route-5", "route-6")


@pytest.mark.parametrize(
    ("change", "code"),
    [(revoke_relay, "SL-REVOKED"), (fence_relay, "SL-FENCED"), (rotate_route_keys, "SL-REVOKED")],
)
def test_an_authority_entry_binds_from_the_size_that_covers_it(
    eu: Partition, change: Change, code: str
) -> None:
    leaf = eu.next_leaf(eu.lease())
    eu.cluster.append(change(eu.cluster))
    covering = parts(leaf, authority_size=eu.cluster.log.size)
    assert code_of(eu.fresh(), covering) == code
    assert eu.fresh().append(leaf).index == 0  # judged just before it, and for ever so


def test_a_node_fence_ends_the_partitions_leases_too(eu: Partition) -> None:
    eu.append(eu.lease("eu-1/a", "phone-a", "relay-1", "home-1"))
    eu.append(eu.lease("eu-1/b", "phone-a", "home-1"))
    assert len(eu.replay.state.leases) == 2
    eu.cluster.append(fence_relay(eu.cluster))
    eu.cluster.now += 1
    eu.append(eu.lease("eu-1/c", "phone-a", "home-1"))
    assert sorted(eu.replay.state.leases) == ["eu-1/b", "eu-1/c"]
    assert eu.replay.state.fenced[Target("node_id", node_id("relay-1"))].log_index == eu.opened + 1


def test_fences_of_the_partition_end_what_stands_before_them(eu: Partition) -> None:
    for route in ("a", "b"):
        eu.append(eu.lease(f"eu-1/{route}"))
    held_back = eu.lease("eu-1/a")
    eu.append(eu.fence({"route_id": "eu-1/a"}))
    assert sorted(eu.replay.state.leases) == ["eu-1/b"]
    assert code_of(eu.replay, eu.next_leaf(held_back)) == "SL-FENCED"
    eu.append(eu.fence({"partition": "eu-1"}))
    assert not eu.replay.state.leases
    eu.cluster.now += 1
    assert eu.append(eu.lease("eu-1/a"))


def test_the_witness_sets_of_a_head_are_those_that_its_entries_were_judged_under(eu: Partition) -> None:
    old = eu.replay.state.witnesses
    eu.append(eu.lease("eu-1/a"))
    names = ("witness-1", "witness-2", "witness-3", "witness-5")
    new_set = eu.cluster.witness_set(*names)
    eu.cluster.append(eu.cluster.descriptor(witnesses=new_set))
    eu.append(eu.lease("eu-1/b"))
    eu.append(eu.lease("eu-1/c"))
    new = eu.replay.state.witnesses
    assert new != old
    for replay in (eu.replay, eu.replayed()):
        state = replay.state
        assert needed_sets(state, 0, 1) == (old,)
        assert needed_sets(state, 1, 2) == (old, new)
        assert needed_sets(state, 0, 3) == (old, new)
        assert needed_sets(state, 2, 3) == (new,)
    late = Partition(eu.cluster, "us-1", writer="sequencer-us")
    late.append(late.lease("us-1/a"))
    assert needed_sets(late.replay.state, 0, 1) == (new,)


# --- terms ---


def test_a_new_term_takes_the_pen_away(eu: Partition) -> None:
    eu.append(eu.lease("eu-1/a"))
    stale = eu.next_leaf(eu.lease("eu-1/b"))
    eu.cluster.append(eu.term("sequencer-2"))
    leaf = eu.next_leaf(eu.lease("eu-1/b"))
    assert split_leaf(leaf).term == 2
    assert code_of(eu.replay, parts(stale, authority_size=eu.cluster.log.size)) == "SL-TERM"
    assert eu.replay.append(leaf).leaf.term == 2
    assert eu.replay.verify_head(eu.head("sequencer-2"))
    with pytest.raises(Refused) as error:
        eu.replay.verify_head(eu.head("sequencer-eu"))
    assert error.value.code == "SL-CHECKPOINT"
    assert [key.public for key in eu.replay.past_sequencer_keys()] != []


def test_a_term_starts_where_it_says(eu: Partition) -> None:
    for route in ("a", "b", "c"):
        eu.append(eu.lease(f"eu-1/{route}"))
    eu.cluster.append(eu.term("sequencer-2", start_size=2))
    leaf = eu.next_leaf(eu.lease("eu-1/d"))
    assert code_of(eu.replayed(1), leaf) == "SL-TERM"
    assert eu.replayed(2).append(leaf).index == 2  # the third entry was never final: it is dropped
    assert eu.replayed(3).append(leaf).index == 3  # or it is kept: the new writer had seen it


def test_a_term_starts_at_a_root_that_the_log_had(eu: Partition) -> None:
    eu.append(eu.lease("eu-1/a"))
    other = Partition(eu.cluster, "us-1", writer="sequencer-us")
    other.append(other.lease("us-1/a"))
    eu.cluster.append(eu.term("sequencer-2", start_root=other.term("x")["start_root"]))
    assert code_of(eu.replay, eu.next_leaf(eu.lease("eu-1/b"))) == "SL-TERM"
    eu.cluster.append(eu.term("sequencer-3"))  # the way out of a term that starts nowhere
    assert eu.append(eu.lease("eu-1/b")).leaf.term == 3


# --- the same everywhere ---


def test_every_replay_ends_in_one_state(eu: Partition) -> None:
    cluster = eu.cluster
    eu.append(eu.lease("eu-1/a"))
    cluster.append(cluster.lease("route-x", partition="us-1"))
    cluster.append(revoke_relay(cluster))
    eu.append(eu.lease("eu-1/b", "phone-a", "home-1"))
    cluster.append(cluster.fence({"node_id": node_id("home-1")}))
    eu.append(eu.fence({"partition": "eu-1"}))
    again = eu.replayed()
    assert again.state == eu.replay.state
    assert (again.root(), again.term, again.authority_size) == (
        eu.replay.root(),
        eu.replay.term,
        eu.replay.authority_size,
    )


def test_a_copy_goes_its_own_way(eu: Partition) -> None:
    eu.append(eu.lease("eu-1/a"))
    before = partition_rows(eu.replay.state.copy()), eu.replay.authority_size
    other = eu.replay.copy()
    eu.cluster.append(fence_relay(eu.cluster))
    eu.cluster.now += 1
    other.advance()
    other.append(other.next_leaf(encode(eu.lease("eu-1/b")), eu.cluster.now))
    assert (partition_rows(eu.replay.state), eu.replay.authority_size) == before
    assert other.root_at(1) == eu.replay.root()
    assert other.state.copy() is not eu.replay.state


def test_control_quorum_alone_opens_logs(cluster: Cluster) -> None:
    with pytest.raises(Refused) as error:
        cluster.append(cluster.log_term("routes-eu-1", start_size=0, start_root="", by=QUORUMS[CONTROL][:1]))
    assert error.value.code in {"SL-QUORUM", "SL-SHAPE"}
