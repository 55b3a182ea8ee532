"""A partition's log in a replica: taken, waited for, and replaced where it was never final."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fabric.sync import Entries, Head
from statelog.canonical import encode
from statelog.errors import Refused, UsageError
from statelog.io.sequencers import Sequencers
from statelog.signing import record_id_of
from tests.fabric.io.test_replica import Site
from tests.support.authority import make_cluster, node_id, signer
from tests.support.logs import WITNESSES, cosigned, head_note, replay_of
from tests.support.partitions import WRITER, Partition


class PartitionSite(Site):
    """A replica that has the opening of the partition's log, and a source that writes it."""

    def __init__(self, path: Path) -> None:
        super().__init__(make_cluster(), path)
        self.eu = Partition(self.cluster)
        self.follow()

    def give(self) -> bool:
        """All entries of the partition's log and its final head, as a source sends them."""
        intake = self.replica.intake(self.eu.log)
        if not self.replica.take(intake, Entries(0, self.eu.leaves)):
            return False
        return self.replica.take(intake, Head(cosigned(self.eu.head(), at=int(self.now))))

    def final(self) -> int:
        status = self.last.status_of(self.eu.log)
        assert status is not None
        return status.final_size


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PartitionSite]:
    made = PartitionSite(tmp_path / "node.db")
    yield made
    made.replica.close()


def test_a_log_is_held_as_soon_as_it_is_open(site: PartitionSite) -> None:
    assert site.replica.logs() == ["authority", "routes-eu-1"]
    assert site.final() == 0
    assert site.replica.head_note(site.eu.log) is None
    with pytest.raises(UsageError):
        site.replica.held("routes-us-1")


def test_its_leases_stand_beside_what_the_authority_log_says(site: PartitionSite) -> None:
    site.eu.append(site.eu.lease("eu-1/a"))
    assert site.give()
    assert site.final() == 1
    lease = site.last.snapshot.lease("eu-1/a")
    assert lease is not None
    assert (lease.log, lease.authority_size) == (site.eu.log, site.eu.opened + 1)
    site.cluster.append(site.cluster.fence({"node_id": node_id("relay-1")}))
    site.follow()
    assert site.last.snapshot.lease("eu-1/a") is None
    restarted = Site(site.cluster, site.path)
    assert restarted.opened.snapshot.leases.get("eu-1/a") is not None
    assert restarted.opened.snapshot.lease("eu-1/a") is None
    assert restarted.opened.status_of(site.eu.log) == site.last.status_of(site.eu.log)
    restarted.replica.close()


def test_entries_wait_for_the_authority_head_that_they_rest_on(site: PartitionSite) -> None:
    site.cluster.append(site.cluster.policy())
    site.eu.append(site.eu.lease("eu-1/a"))
    assert not site.give()
    assert site.final() == 0
    site.follow()
    assert site.give()
    assert site.final() == 1


def test_a_source_is_believed_no_more_than_for_the_authority_log(site: PartitionSite) -> None:
    site.eu.append(site.eu.lease("eu-1/a"))
    intake = site.replica.intake(site.eu.log)
    with pytest.raises(Refused) as error:
        site.replica.take(intake, Entries(0, [site.eu.leaves[0].replace(b'"term":1}', b'"term":2}')]))
    assert error.value.code == "SL-TERM"
    intake = site.replica.intake(site.eu.log)
    site.replica.take(intake, Entries(0, site.eu.leaves))
    with pytest.raises(Refused) as error:
        site.replica.take(intake, Head(cosigned(site.eu.head(), ("witness-1", "witness-2"))))
    assert error.value.code == "SL-FINALITY"
    assert site.give()


def test_a_record_is_judged_by_its_own_log(site: PartitionSite) -> None:
    lease = site.eu.lease("eu-1/a")
    assert site.replica.judge(encode(lease)).state == "pending"
    site.eu.append(lease)
    assert site.give()
    assert site.replica.judge(encode(lease)).state == "final"
    again = site.replica.judge(encode(site.eu.lease("eu-1/a", epoch=1, service="other")))
    assert again.refusal is not None
    assert again.refusal.code == "SL-EQUIVOCATION"
    kept = {item.record_id for item in site.replica.store.evidence()}
    assert record_id_of(lease) in kept
    assert len(kept) == 2


def test_a_fence_ahead_of_the_log_is_done_when_its_log_has_it(site: PartitionSite) -> None:
    site.eu.append(site.eu.lease("eu-1/a"))
    site.give()
    fence = site.eu.fence({"route_id": "eu-1/a"})
    assert site.replica.judge(encode(fence)).state == "candidate"
    assert site.last.snapshot.lease("eu-1/a") is None
    assert record_id_of(fence) in site.replica._ahead
    site.eu.append(fence)
    site.give()
    assert record_id_of(fence) not in site.replica._ahead
    assert [one.record_id for one in site.last.news.logged] == [record_id_of(fence)]
    lease = site.last.snapshot.leases.get("eu-1/a")
    assert lease is not None
    assert lease.ended_by == record_id_of(fence)


def test_what_a_writer_appended_alone_gives_way_to_what_is_final(site: PartitionSite) -> None:
    site.eu.append(site.eu.lease("eu-1/a"))
    site.give()
    alone = Sequencers(site.replica.engine, site.cluster.anchor, signer(WRITER))
    lost = site.eu.lease("eu-1/lost")
    site.replica.queue(record_id_of(lost), encode(lost))
    placed = alone.submit(encode(lost), int(site.now))
    store = site.replica.held(site.eu.log).store
    store.outbox_sequenced(placed.record_id, placed.log_index)
    assert (placed.log, placed.log_index) == (site.eu.log, 1)

    site.eu.append(site.eu.lease("eu-1/b"))
    site.eu.append(site.eu.lease("eu-1/c"))
    assert site.give()
    assert site.final() == 3
    assert store.find(placed.record_id) is None
    assert [row.record_id for row in store.outbox_pending(5)] == [placed.record_id]
    head = store.head()
    assert head is not None
    assert (head.size, head.root) == (3, site.eu.replay.root())
    again = alone.submit(encode(lost), int(site.now))  # the writer in this process has noticed
    assert again.log_index == 3


def test_the_first_entries_of_a_log_give_way_likewise(site: PartitionSite) -> None:
    """Nothing of the log was final: all that its first writer appended goes, and waits for the next one."""
    alone = Sequencers(site.replica.engine, site.cluster.anchor, signer(WRITER))
    lost = [encode(site.eu.lease(f"eu-1/{route}")) for route in ("lost", "both")]
    placed = [alone.submit(data, int(site.now)) for data in lost]
    assert [(one.log, one.log_index) for one in placed] == [(site.eu.log, 0), (site.eu.log, 1)]
    store = site.replica.held(site.eu.log).store
    assert store.outbox_pending(5) == []

    site.cluster.append(site.eu.term("sequencer-us", start_size=0))
    site.follow()
    # At once: the next writer may never append anything else.
    assert {row.record_id for row in store.outbox_pending(5)} == {one.record_id for one in placed}
    assert [row.index for row in store.entries(0)] == [0, 1]
    for route in ("a", "both"):
        site.eu.append(site.eu.lease(f"eu-1/{route}"))
    intake = site.replica.intake(site.eu.log)
    assert site.replica.take(intake, Entries(0, site.eu.leaves))
    head = Head(cosigned(site.eu.head("sequencer-us"), at=int(site.now)))
    assert site.replica.take(intake, head)
    assert site.final() == 2
    assert [row.record_id for row in store.outbox_pending(5)] == [placed[0].record_id]
    row = store.outbox_row(placed[1].record_id)
    assert row is not None
    assert (row.state, row.log, row.log_index) == ("final", site.eu.log, 1)
    waiting = [data for _, data, _ in site.replica.outbox({})]
    assert waiting == [lost[0]]


def test_what_a_writer_appended_and_others_made_final_stays(site: PartitionSite) -> None:
    site.eu.append(site.eu.lease("eu-1/a"))
    site.give()
    alone = Sequencers(site.replica.engine, site.cluster.anchor, signer(WRITER))
    for route in ("b", "c"):
        alone.submit(encode(site.eu.lease(f"eu-1/{route}")), int(site.now))
    store = site.replica.held(site.eu.log).store
    own = [row.leaf for row in store.entries(1)]
    site.eu.leaves.append(site.eu.replay.append(own[0]).data)
    assert site.give()
    assert site.final() == 2
    head = store.head()
    assert head is not None
    assert (head.size, head.final_size) == (3, 2)


@pytest.mark.parametrize(
    ("names", "codes"),
    [
        (("witness-1", "witness-2", "witness-3", "witness-5"), []),
        (("witness-5", "witness-6", "witness-7", "witness-8"), [("routes-eu-1", "SL-FRESHNESS")]),
    ],
)
def test_a_head_that_nobody_in_force_cosigned_counts_as_old(
    site: PartitionSite, names: tuple[str, ...], codes: list[tuple[str, str]]
) -> None:
    """As in `statelog status` and the API: those who left may have left with their keys."""
    site.eu.append(site.eu.lease("eu-1/a"))
    assert site.give()
    site.cluster.append(site.cluster.descriptor(witnesses=site.cluster.witness_set(*names)))
    intake, leaves = site.replica.intake(), site.cluster.leaves()
    site.replica.take(intake, Entries(intake.size, leaves[intake.size :]))
    note = cosigned(head_note(replay_of(site.cluster)), {*WITNESSES, *names}, at=int(site.now))
    assert site.replica.take(intake, Head(note))
    assert [(one.log, one.code) for one in site.last.alarms(site.now)] == codes

    site.eu.append(site.eu.lease("eu-1/b"))
    intake = site.replica.intake(site.eu.log)
    assert site.replica.take(intake, Entries(0, site.eu.leaves))
    assert site.replica.take(intake, Head(cosigned(site.eu.head(), {*WITNESSES, *names}, at=int(site.now))))
    assert site.last.alarms(site.now) == []


def test_alarms_name_the_partition(site: PartitionSite) -> None:
    assert site.last.alarms(site.now) == []
    site.eu.append(site.eu.lease("eu-1/a"))
    site.give()
    assert site.last.log is not None
    late = site.now + site.last.log.max_age_s + 1
    found = [(one.log, one.code) for one in site.last.alarms(late)]
    assert found == [(None, "SL-FRESHNESS"), (site.eu.log, "SL-FRESHNESS")]
    assert "routes-eu-1: the final head of 1" in site.last.alarms(late)[1].sentence
