"""The replica on a real store: what it takes from a source or a shared store, and what it never believes."""

# Long on purpose: all that a replica takes and refuses, from every side it can come from.

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fabric import limits
from fabric.io.replica import Replica
from fabric.io.updates import ReplicaError, Update
from fabric.sync import Entries, Head, batches
from statelog.canonical import encode
from statelog.checkpoint import cosign, parse_signed_checkpoint
from statelog.errors import Refused, SourceUnreadable
from statelog.io.store import Store, StoredCosignature
from statelog.signing import key_id_of, record_id_of
from tests.support.authority import Cluster, endpoint, make_cluster, node_id, sequencer_entry, signer
from tests.support.logs import cosigned, head_note, new_store, outbox_state, replay_of

SERVICE = "web-admin"


@dataclass
class Site:
    """A replica, its clock and what it published."""

    cluster: Cluster
    path: Path
    updates: list[Update] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.now = float(self.cluster.now)
        self.replica = Replica(
            f"sqlite:///{self.path}",
            self.cluster.anchor,
            self.cluster.cluster_id,
            lambda: self.now,
            self.updates.append,
        )
        self.opened = self.replica.open()

    def restart(self) -> None:
        """The same store in a new replica."""
        self.replica.close()
        self.__post_init__()

    @property
    def last(self) -> Update:
        return self.updates[-1]

    def follow(self, sizes: list[int] | None = None) -> None:
        """Take the cluster's log as an honest source sends it, with final heads at these sizes."""
        intake, leaves = self.replica.intake(), self.cluster.leaves()
        for size in sizes or [len(leaves)]:
            for message in batches(intake.size, leaves[intake.size : size]):
                self.replica.take(intake, message)
            self.replica.take(intake, final_head(self.cluster, size))


def final_head(cluster: Cluster, size: int) -> Head:
    return Head(cosigned(head_note(replay_of(cluster, size)), at=cluster.now))


def make_final(store: Store, cluster: Cluster, size: int) -> None:
    """What the sequencer's host does once the witnesses have answered."""
    note = store.checkpoint(size)
    assert note is not None
    checkpoint, parsed = parse_signed_checkpoint(note)
    lines = []
    for n in (1, 2, 3):
        key, name = signer(f"witness-{n}"), f"witness-{n}.example"
        line = cosign(parsed.text, name, key, cluster.now).line()
        lines.append(StoredCosignature(key_id_of(key.public), name, cluster.now, line))
    store.put_cosignatures(size, lines)
    store.set_final(size, checkpoint.root)


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    made = Site(cluster, tmp_path / "node.db")
    yield made
    made.replica.close()


# -- from a source --


def test_an_empty_replica_knows_nothing_and_says_so(site: Site) -> None:
    assert site.opened.log is None
    assert site.opened.snapshot.size == 0
    judged = site.replica.judge(encode(site.cluster.registry(SERVICE)))
    assert judged.refusal is not None
    assert judged.refusal.code == "GS-NOLOG"


def test_entries_under_a_final_head_are_stored_folded_and_published(site: Site) -> None:
    site.follow()
    log = site.last.log
    assert log is not None
    size = site.cluster.log.size
    assert (log.size, log.final_size, log.final_root) == (size, size, site.cluster.log.tree.root())
    assert log.fresh_at == site.cluster.now
    assert site.last.news.advanced
    assert len(site.last.snapshot.nodes) == len(site.cluster.state.nodes)
    assert [row.leaf for row in site.replica.store.entries(0)] == site.cluster.leaves()


def test_nothing_is_stored_before_a_final_head(site: Site) -> None:
    intake = site.replica.intake()
    site.replica.take(intake, Entries(0, site.cluster.leaves()))
    assert site.updates == []
    assert site.replica.store.head() is None
    with pytest.raises(Refused) as caught:
        site.replica.take(intake, Head(cosigned(head_note(replay_of(site.cluster)), ["witness-1"])))
    assert caught.value.code == "SL-FINALITY"
    assert site.replica.store.head() is None


def test_a_restart_goes_on_where_it_was(site: Site) -> None:
    site.follow([4, site.cluster.log.size])
    again = Site(site.cluster, site.path)
    assert again.opened.log == site.last.log
    assert again.opened.snapshot.nodes == site.last.snapshot.nodes
    again.replica.close()


def test_a_source_that_was_overtaken_changes_nothing(site: Site) -> None:
    slow = site.replica.intake()
    site.replica.take(slow, Entries(0, site.cluster.leaves()[:4]))
    site.follow()
    before = len(site.updates)
    with pytest.raises(SourceUnreadable):
        site.replica.take(slow, final_head(site.cluster, 4))
    assert len(site.updates) == before


@pytest.mark.parametrize("change", ["anchor", "cluster"])
def test_a_store_of_another_cluster_is_refused(site: Site, change: str) -> None:
    site.follow()
    own = {"anchor": site.cluster.anchor, "cluster": site.cluster.cluster_id}
    assert Replica(site.replica.url, **own, clock=lambda: site.now, publish=site.updates.append).open().log
    other = {**own, change: "0" * 64 if change == "anchor" else "other.abc"}
    with pytest.raises(ReplicaError) as caught:
        Replica(site.replica.url, **other, clock=lambda: site.now, publish=site.updates.append).open()
    assert caught.value.code == "bad_store"


def test_a_log_of_another_cluster_is_not_taken(site: Site, tmp_path: Path) -> None:
    other = Replica(
        f"sqlite:///{tmp_path}/other.db",
        site.cluster.anchor,
        "other.abc",
        lambda: site.now,
        site.updates.append,
    )
    other.open()
    intake = other.intake()
    other.take(intake, Entries(0, site.cluster.leaves()))
    with pytest.raises(ReplicaError):
        other.take(intake, final_head(site.cluster, site.cluster.log.size))
    assert other.store.head() is None
    other.close()


# -- serving --


def test_it_serves_what_it_has_up_to_final_heads(site: Site) -> None:
    size = site.cluster.log.size
    site.follow([4, 7, size])
    found = site.replica.batch_from(0)
    assert found is not None
    leaves, note = found
    assert leaves == site.cluster.leaves()
    assert parse_signed_checkpoint(note)[0].size == size
    assert site.replica.batch_from(size) is None
    assert site.replica.leaves(3, 5) == site.cluster.leaves()[3:5]
    assert site.replica.leaves(size, size + 5) == []


def test_a_follower_from_far_back_passes_every_change_of_the_witnesses(
    cluster: Cluster, tmp_path: Path
) -> None:
    before = cluster.log.size
    changed = cluster.witness_set("witness-5", "witness-6", "witness-7", "witness-8")
    cluster.append(cluster.descriptor(witnesses=changed, by=("root-1", "root-2")))
    covered = cluster.log.size
    cluster.append(cluster.approval("guest"))
    size = cluster.log.size
    source = Site(cluster, tmp_path / "source.db")
    everyone, new = [f"witness-{n}" for n in range(1, 9)], [f"witness-{n}" for n in range(5, 9)]
    heads = [(before, everyone[:4]), (covered, everyone), (size, new)]
    intake = source.replica.intake()
    for end, names in heads:
        source.replica.take(intake, Entries(intake.size, cluster.leaves()[intake.size : end]))
        source.replica.take(intake, Head(cosigned(head_note(replay_of(cluster, end)), names)))
    reached, position = [], 0
    while (found := source.replica.batch_from(position)) is not None:
        position += len(found[0])
        reached.append(position)
    assert reached == [covered, size]
    restarted = Site(cluster, tmp_path / "source.db")
    assert restarted.opened.log is not None
    assert restarted.opened.log.final_size == size
    for one in (source, restarted):
        one.replica.close()


# -- a store that another process writes --


def test_what_becomes_final_in_a_shared_store_is_folded(cluster: Cluster, tmp_path: Path) -> None:
    engine, sequencer = new_store(tmp_path / "node.db", cluster)
    site = Site(cluster, tmp_path / "node.db")
    assert site.opened.log is None
    site.replica.refresh()
    assert site.updates == []
    make_final(sequencer.store, cluster, cluster.log.size)
    site.replica.refresh()
    assert site.last.log is not None
    assert site.last.log.final_size == cluster.log.size
    assert len(site.last.snapshot.nodes) == len(cluster.state.nodes)
    count = len(site.updates)
    site.replica.refresh()
    assert len(site.updates) == count
    site.replica.close()
    engine.dispose()


def test_a_store_that_only_claims_finality_is_not_believed(cluster: Cluster, tmp_path: Path) -> None:
    """Whoever can write the database can mark a head final; without cosignatures it is not."""
    engine, sequencer = new_store(tmp_path / "node.db", cluster)
    site = Site(cluster, tmp_path / "node.db")
    head = sequencer.store.head()
    assert head is not None
    with sqlite3.connect(tmp_path / "node.db") as connection:
        connection.execute("UPDATE log_head SET final_size = ?, final_root = ?", (head.size, head.root))
    connection.close()
    site.replica.refresh()
    assert site.updates == []
    assert site.replica.counters["store_refused"] == 1
    make_final(sequencer.store, cluster, cluster.log.size)
    site.replica.refresh()
    assert site.last.log is not None
    site.replica.close()
    engine.dispose()


# -- records ahead of the log --


def registry(cluster: Cluster, node: str = "home-1", epoch: int = 1) -> dict[str, object]:
    return cluster.registry(SERVICE, endpoints=[endpoint(node)], epoch=epoch)


def test_an_admitted_record_acts_until_the_log_has_it(site: Site) -> None:
    site.follow()
    record = registry(site.cluster)
    judged = site.replica.judge(encode(record))
    assert (judged.state, judged.kind) == ("candidate", "registry.gossip_record")
    assert judged.item is not None
    assert judged.item.keep == 2
    assert [change.after for change in site.last.news.registry] == ["candidate"]
    assert site.replica.judge(encode(record)).state == "known"
    site.cluster.append(record)
    site.follow()
    (logged,) = site.last.news.logged
    assert (logged.record_id, logged.subject) == (record_id_of(record), judged.item.subject)
    assert logged.order == judged.item.order
    assert site.replica.unlogged() == []
    assert site.replica.store.ahead_records() == []
    assert site.replica.judge(encode(record)).state == "final"


def test_it_survives_a_restart_and_ends_when_it_expires(site: Site) -> None:
    site.follow()
    record = registry(site.cluster)
    site.replica.judge(encode(record))
    again = Site(site.cluster, site.path)
    assert [item.record_id for item in again.replica.unlogged()] == [record_id_of(record)]
    assert [change.after for change in again.opened.news.registry] == ["candidate"]
    again.now += 10_000
    again.replica.expired()
    assert again.last.news.dropped == ((record_id_of(record), "SL-EXPIRED"),)
    assert again.replica.unlogged() == []
    again.replica.close()


def test_the_logs_word_wins_over_what_acts_here(site: Site) -> None:
    site.follow()
    mine, theirs = registry(site.cluster, "home-1"), registry(site.cluster, "node-9")
    site.replica.judge(encode(mine))
    site.replica.queue(record_id_of(mine), encode(mine))
    site.cluster.append(theirs)
    site.follow()
    assert site.last.news.dropped == ((record_id_of(mine), "SL-EQUIVOCATION"),)
    assert outbox_state(site.replica.store, record_id_of(mine)) == ("refused", None, "SL-EQUIVOCATION")
    view = site.last.snapshot.registry_view(SERVICE)
    assert [r.record_id for r in view.candidates] == [record_id_of(theirs)]


def test_bytes_of_another_record_than_claimed_are_a_bad_copy(site: Site) -> None:
    site.follow()
    judged = site.replica.judge(encode(registry(site.cluster)), "0" * 64)
    assert judged.refusal is not None
    assert (judged.refusal.code, judged.refusal.copy_only) == ("GS-ID", True)
    assert site.replica.unlogged() == []


@pytest.mark.parametrize(
    ("signed_by", "code", "copy_only"),
    [(["control-1"], "SL-QUORUM", True), (["route-1", "route-2"], "SL-SIG", True)],
)
def test_refusals_say_whether_another_copy_may_pass(
    site: Site, signed_by: list[str], code: str, copy_only: bool
) -> None:
    site.follow()
    record = site.cluster.sign(registry(site.cluster), signed_by)
    judged = site.replica.judge(encode(record))
    assert judged.refusal is not None
    assert (judged.refusal.code, judged.refusal.copy_only) == (code, copy_only)
    old = site.cluster.registry(SERVICE, issued_at=site.cluster.now - 9_000, lifetime_s=60)
    expired = site.replica.judge(encode(old))
    assert expired.refusal is not None
    assert (expired.refusal.code, expired.refusal.copy_only) == ("SL-EXPIRED", False)


def test_equivocation_ahead_of_the_log_is_kept_as_evidence(site: Site) -> None:
    site.follow()
    one, other = registry(site.cluster, "home-1"), registry(site.cluster, "node-9")
    for record in (one, other):
        assert site.replica.judge(encode(record)).state == "candidate"
    kept = {item.record_id for item in site.replica.store.evidence()}
    assert kept == {record_id_of(one), record_id_of(other)}


def test_equivocation_against_the_log_is_kept_as_evidence(site: Site) -> None:
    one, other = registry(site.cluster, "home-1"), registry(site.cluster, "node-9")
    site.cluster.append(one)
    site.follow()
    judged = site.replica.judge(encode(other))
    assert judged.refusal is not None
    assert judged.refusal.code == "SL-EQUIVOCATION"
    kept = {item.record_id for item in site.replica.store.evidence()}
    assert kept == {record_id_of(one), record_id_of(other)}


def test_a_revoked_nodes_addresses_are_refused_before_the_log_says_so(site: Site) -> None:
    site.follow()
    candidates = encode(site.cluster.candidates("phone-a"))
    before = site.replica.judge(candidates)
    assert before.node_id != ""
    revocation = site.cluster.revocation({"node_id": before.node_id})
    assert site.replica.judge(encode(revocation)).state == "candidate"
    assert site.last.snapshot.revoked(before.node_id)
    after = site.replica.judge(candidates)
    assert after.refusal is not None
    assert after.refusal.code == "SL-REVOKED"


def test_what_only_a_log_can_carry_waits_for_it(site: Site) -> None:
    site.follow()
    record = site.cluster.approval("guest")
    judged = site.replica.judge(encode(record))
    assert (judged.state, judged.item) == ("pending", None)
    site.replica.queue(judged.record_id, encode(record))
    assert site.replica.outbox({}) == [(judged.record_id, encode(record), "authority")]
    assert not site.replica.submission_refused(judged.record_id, "SL-STALE", "why")
    assert outbox_state(site.replica.store, judged.record_id) == ("refused", None, "SL-STALE")


def test_a_new_writers_term_does_not_wait_behind_what_the_old_one_never_takes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SUBMIT_PENDING_PER_LOG", 2)
    site.follow()
    cluster = site.cluster
    term = cluster.log_term(sequencers=[sequencer_entry("sequencer-2", "home-1", cluster.cluster_id)])
    for n, record in enumerate([*(cluster.approval(f"guest-{n}") for n in range(3)), term]):
        site.replica.store.outbox_put(record_id_of(record), encode(record), n)
    for own, share in (("", 2), (node_id("control-1"), 0)):  # a node, and the one that is the old writer
        found = site.replica.outbox({}, own)
        assert [one.log for one in found[:-1]] == ["authority"] * share
        assert (found[-1].record_id, found[-1].log) == (record_id_of(term), "log.term")
    assert site.replica.homes_of([encode(term), b"no record"]) == ["log.term", "authority"]


def test_one_hosts_refusal_does_not_end_what_acts_here(site: Site) -> None:
    site.follow()
    record = registry(site.cluster)
    judged = site.replica.judge(encode(record))
    site.replica.queue(judged.record_id, encode(record))
    assert site.replica.submission_refused(judged.record_id, "SL-STALE", "a lie")
    assert outbox_state(site.replica.store, judged.record_id)[0] == "pending"
    assert len(site.replica.unlogged()) == 1


def test_a_probe_makes_the_newest_active_and_keeps_the_old(site: Site) -> None:
    old = registry(site.cluster, "home-1", epoch=1)
    site.cluster.append(old)
    site.follow()
    site.replica.verified(record_id_of(old))
    new = registry(site.cluster, "node-9", epoch=2)
    site.replica.judge(encode(new))
    view = site.last.snapshot.registry_view(SERVICE)
    assert view.active is not None
    assert view.active.record_id == record_id_of(old)
    site.replica.verified(record_id_of(new))
    view = site.last.snapshot.registry_view(SERVICE)
    assert view.active is not None
    assert view.active.record_id == record_id_of(new)
    assert [r.record_id for r in view.fallbacks] == [record_id_of(old)]


def test_a_store_that_fails_leaves_memory_where_the_store_is(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.follow([4])
    leaves = site.cluster.leaves()

    def torn(*_: object) -> bool:
        raise SourceUnreadable("no space left")

    intake = site.replica.intake()
    site.replica.take(intake, Entries(4, leaves[4:]))
    with monkeypatch.context() as broken:
        broken.setattr(site.replica.store, "set_final", torn)
        with pytest.raises(SourceUnreadable):
            site.replica.take(intake, final_head(site.cluster, len(leaves)))
    assert site.replica.final.size == 4
    assert site.replica.counters["reloads"] == 1
    site.follow()
    assert site.replica.final.size == len(leaves)


def test_any_cut_into_heads_ends_alike(cluster: Cluster, tmp_path: Path) -> None:
    rng = random.Random(5)
    size = cluster.log.size
    roots = set()
    for number in range(5):
        cuts = sorted(rng.sample(range(2, size), 3))
        site = Site(cluster, tmp_path / f"{number}.db")
        site.follow([*cuts, size])
        assert site.last.log is not None
        roots.add((site.last.log.final_root, len(site.last.snapshot.nodes)))
        site.replica.close()
    assert roots == {(cluster.log.tree.root(), len(cluster.state.nodes))}


def test_gossip_carries_no_observations(site: Site) -> None:
    site.cluster.grant_roles()
    site.follow()
    assert site.replica.judge(encode(site.cluster.candidates("phone-a"))).state == "candidate"
    judged = site.replica.judge(encode(site.cluster.observation("phone-a")))
    assert judged.refusal is not None
    assert judged.refusal.code == "SL-SCHEMA"
