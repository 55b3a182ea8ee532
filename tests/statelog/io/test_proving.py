"""Proofs cut from a store whose partition's log nobody wrote while the authority changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from statelog.canonical import encode
from statelog.errors import Refused
from statelog.io.proving import prove
from statelog.io.sequencer import Sequencer
from statelog.io.snapshots import prove_row, row_trees
from statelog.io.store import Store
from statelog.lightclient import Proved, check_proof
from statelog.rowproofs import Standing, check_row, summaries
from statelog.signing import encode_base64
from statelog.state import RECOVERY
from tests.support.authority import BASE_TIME, Cluster, key_entry, make_cluster, signer
from tests.support.logs import WITNESSES, finalize, new_store
from tests.support.partitions import WRITER, Partition

ONE = ("witness-1", "witness-2", "witness-3", "witness-5")  # witness-4 left, witness-5 came
ALL = ("witness-5", "witness-6", "witness-7", "witness-8")


class Host:
    """A store with the authority log of `cluster`, and beside it the log of eu-1 with one final lease.

    The lease rests on a final head of the authority log.
    """

    def __init__(self, engine: sa.Engine, sequencer: Sequencer, cluster: Cluster) -> None:
        self.cluster, self.sequencer, self.store = cluster, sequencer, Store(engine)
        finalize(self.store)
        self.eu = Partition(cluster)
        self.log = self.store.of(self.eu.log)
        self.follow()
        self.write(self.eu.lease("eu-1/a"))

    def follow(self, *names: str, by: str = "sequencer-1") -> None:
        """Put into the store what the cluster's log has more, and make it final."""
        head = self.store.head()
        assert head is not None
        writer = Sequencer(self.store, self.cluster.anchor, signer(by))
        for record, at, _ in self.cluster.log.entries[head.size :]:
            writer.submit(record, at)
        finalize(self.store, names or WITNESSES, at=self.cluster.now)

    def write(self, record: dict[str, Any], *names: str, by: str = WRITER) -> None:
        """A final entry of the partition's log."""
        self.eu.append(record)
        Sequencer(self.log, self.cluster.anchor, signer(by)).submit(encode(record), self.cluster.now)
        finalize(self.log, names or WITNESSES, at=self.cluster.now)

    def snapshot(self) -> None:
        """The partition's newest rows, under a quorum's word."""
        size = self.eu.replay.size
        listed = summaries(row_trees(self.log, size))
        root = encode_base64(self.eu.replay.root())
        self.write(self.cluster.snapshot(log=self.eu.log, size=size, root=root, projections=listed))

    def exchange(self, names: tuple[str, ...]) -> None:
        """Other witnesses, whose change both sets cosign; the old ones cosign nothing any more."""
        self.cluster.append(self.cluster.descriptor(witnesses=self.cluster.witness_set(*names)))
        self.follow(*{*WITNESSES, *names})
        self.cluster.append(self.cluster.policy("after"))
        self.follow(*names)

    def recover(self, names: tuple[str, ...]) -> None:
        """Recovery keys install another root, another writer and other witnesses."""
        next_ = (("root", "offline"), ("control", "online"))
        keys = [key_entry(f"{part}-{n}", custody=kept) for part, kept in next_ for n in (4, 5)]
        holders = {part: self.cluster.holders(f"{part}-4", f"{part}-5", threshold=2) for part, _ in next_}
        coming = self.cluster.descriptor(
            issuer_role=RECOVERY,
            by=[],
            keys=keys,
            **holders,
            witnesses=self.cluster.witness_set(*names),
        )
        self.cluster.append(self.cluster.recovery_intent(coming))
        self.follow()
        assert self.cluster.state.recovery is not None
        self.cluster.now = self.cluster.state.recovery.due_at
        self.cluster.append(self.cluster.sign(coming, ("recovery-1", "recovery-2")))
        self.follow(*{*WITNESSES, *names}, by="sequencer-2")

    def move(self) -> None:
        """Somebody else writes the partition's log from now on."""
        self.cluster.append(self.eu.term("sequencer-us"))
        self.follow()

    def lose(self, log: str, *sizes: int) -> None:
        """Nobody's cosignatures of these heads are in the store any more."""
        with self.store.writing() as connection:
            for size in sizes:
                lost = connection.execute(
                    sa.text("DELETE FROM cosignature WHERE log = :log AND size = :size"),
                    {"log": log, "size": size},
                )
                assert lost.rowcount >= len(WITNESSES)

    def proved(self, store: Store | None = None) -> Proved:
        """Entry 0 of the partition's log or of `store`, proved now and checked by the anchor alone."""
        data = prove(store or self.log, self.cluster.anchor, 0, self.cluster.now)
        return check_proof(data, self.cluster.anchor, self.cluster.now)

    def expect_unproved(self, code: str) -> None:
        with pytest.raises(Refused) as refused:
            self.proved()
        assert refused.value.code == code


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    cluster = make_cluster()
    engine, sequencer = new_store(tmp_path / "node.db", cluster)
    yield Host(engine, sequencer, cluster)
    engine.dispose()


CHANGES: dict[str, Sequence[Callable[[Host], None]]] = {
    "one witness": [lambda host: host.exchange(ONE)],
    "all witnesses": [lambda host: host.exchange(ALL)],
    "all witnesses, twice": [lambda host: host.exchange(ONE), lambda host: host.exchange(ALL)],
    "a recovery": [lambda host: host.recover(ALL)],
    "another writer": [Host.move],
    "another writer, then all witnesses": [Host.move, lambda host: host.exchange(ALL)],
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_an_idle_log_is_proved_after_a_change(host: Host, changes: Sequence[Callable[[Host], None]]) -> None:
    before = prove(host.log, host.cluster.anchor, 0, host.cluster.now)
    for change in changes:
        change(host)
    proved = host.proved()
    assert (proved.log, proved.leaf.record["route_id"]) == ("routes-eu-1", "eu-1/a")
    assert {name.removesuffix(".example") for name in proved.signed_by} <= set(WITNESSES)
    assert proved.as_of == BASE_TIME  # as old as its head is
    assert check_proof(before, host.cluster.anchor, host.cluster.now).record_id == proved.record_id
    assert host.proved(host.store).log == "authority"  # which shows everything


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_lease_of_an_idle_log_is_shown_after_a_change(
    host: Host, changes: Sequence[Callable[[Host], None]]
) -> None:
    host.snapshot()
    for change in changes:
        change(host)
    data = prove_row(host.log, host.cluster.anchor, "route_lease", ("eu-1/a",), BASE_TIME)
    shown = check_row(check_proof(data, host.cluster.anchor, BASE_TIME))
    assert shown.standing(BASE_TIME) is Standing.IN_FORCE


def test_the_next_entry_is_proved_by_those_in_force(host: Host) -> None:
    host.exchange(ALL)
    host.write(host.eu.lease("eu-1/b"), *WITNESSES, *ALL)
    assert set(host.proved().signed_by) == {f"{name}.example" for name in ALL}


def test_a_proof_shows_the_newest_descriptor_that_it_can(host: Host) -> None:
    """A renewal that changes nobody is shown, and so is a change that leaves enough who cosigned."""
    host.cluster.now += 60
    host.cluster.append(host.cluster.descriptor())
    host.follow()
    assert host.proved().expires_at == host.cluster.state.descriptor.expires_at
    host.cluster.now += 60
    host.exchange(ONE)
    assert host.proved().expires_at == host.cluster.state.descriptor.expires_at
    last = host.cluster.state.descriptor.expires_at
    host.cluster.now += 60
    host.exchange(ALL)
    assert host.proved().expires_at == last


def test_a_proof_ends_with_the_last_descriptor_that_vouches_for_it(host: Host) -> None:
    host.cluster.now += 60
    end = host.cluster.state.descriptor.expires_at
    host.exchange(ALL)
    assert host.cluster.state.descriptor.expires_at > end
    assert host.proved().expires_at == end
    assert prove(host.log, host.cluster.anchor, 0, end - 1)
    with pytest.raises(Refused) as refused:
        prove(host.log, host.cluster.anchor, 0, end)
    assert refused.value.code == "SL-EXPIRED"


def test_what_its_own_witnesses_did_not_cosign_is_not_proved(host: Host) -> None:
    """Neither set's: one that was never there, and the new one alone, before the log came under it."""
    host.exchange(ALL)
    assert host.proved().index == 0
    host.lose(host.eu.log, 1)
    finalize(host.log, WITNESSES[:2])
    host.expect_unproved("SL-FINALITY")


def test_a_trail_needs_no_head_that_the_store_lacks(host: Host) -> None:
    """Who followed the log only after a recovery has no head between the intent and the descriptor."""
    host.recover(ALL)
    size = host.cluster.log.size
    assert host.proved().record_id
    host.lose("authority", size - 1)
    assert host.proved().log == "routes-eu-1"  # the trail ends before the intent
    host.lose("authority", size - 2)
    host.expect_unproved("SL-CHECKPOINT")


def test_a_trail_goes_as_far_as_what_the_entry_was_judged_by(host: Host) -> None:
    """Without the heads that show so much nothing is proved by those before."""
    host.exchange(ONE)
    size = host.cluster.log.size
    host.write(host.eu.lease("eu-1/b"), *WITNESSES, *ONE)
    host.exchange(ALL)
    assert host.proved().index == 0
    host.lose("authority", size - 1, size, size + 1)
    host.expect_unproved("SL-FINALITY")
