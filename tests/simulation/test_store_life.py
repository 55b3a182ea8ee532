"""A store lives: two sequencers, failing commits, restarts, a replica that follows, witnesses that come and
go.

Whatever the order, the store holds one history: it audits clean, every checkpoint extends every earlier one,
what was acknowledged stays, and what was final stays final.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import tempfile
from pathlib import Path

import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from statelog.audit import audit
from statelog.canonical import encode
from statelog.checkpoint import parse_signed_checkpoint
from statelog.errors import SourceUnreadable
from statelog.findings import Finding
from statelog.io.cosign import collect
from statelog.io.database import open_database
from statelog.io.loading import follow, load_replay
from statelog.io.sequencer import Sequencer, Submitted
from statelog.io.sources import StoreSource
from statelog.io.store import Store
from statelog.merkle import consistency_proof, consistency_ranges, nodes_under, verify_consistency
from statelog.replay import Entry, Replay
from tests.support.authority import make_cluster, signer
from tests.support.logs import WITNESSES, WitnessHost, new_store

CLUSTER = make_cluster()
RECORDS = [encode(CLUSTER.lease(f"route-{n}", epoch=epoch)) for epoch in (1, 2, 3) for n in range(5)]


@functools.cache
def template() -> bytes:
    """A new store, to be copied: making one costs a tenth of a second."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "state.db"
        new_store(path, CLUSTER)[0].dispose()
        return path.read_bytes()


class StoreLife(RuleBasedStateMachine):
    """The model is small: what was acknowledged, and up to where the log was final."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        path = Path(self.directory.name) / "state.db"
        path.write_bytes(template())
        self.engine = open_database(f"sqlite:///{path}")
        replica = Path(self.directory.name) / "replica.db"
        self.replica_engine = open_database(f"sqlite:///{replica}", create=True)
        self.store, self.replica = Store(self.engine), Store(self.replica_engine)
        self.replica_replay = Replay(CLUSTER.anchor)
        self.sequencers = [self.fresh(), self.fresh()]
        self.hosts = {f"{name}.example": WitnessHost(CLUSTER, name, self.leaves) for name in WITNESSES}
        self.now = CLUSTER.now
        self.acknowledged: dict[str, int] = {}
        self.final = 0

    def fresh(self) -> Sequencer:
        return Sequencer(self.store, CLUSTER.anchor, signer("sequencer-1"))

    def leaves(self) -> list[bytes]:
        return [row.leaf for row in self.store.entries(0)]

    # --- what happens ---

    @rule(which=st.integers(0, 1), batch=st.lists(st.sampled_from([*RECORDS, b"{}", b""]), max_size=6))
    def submit(self, which: int, batch: list[bytes]) -> None:
        self.note(self.sequencers[which].submit_many(batch, self.now))

    def note(self, outcomes: list[Submitted | Finding]) -> None:
        for one in outcomes:
            if isinstance(one, Submitted):
                assert self.acknowledged.setdefault(one.record_id, one.log_index) == one.log_index

    @rule(
        which=st.integers(0, 1), happened=st.booleans(), batch=st.lists(st.sampled_from(RECORDS), max_size=3)
    )
    def submit_with_a_failing_commit(self, which: int, happened: bool, batch: list[bytes]) -> None:
        armed = [True]

        def fail(connection: sa.Connection) -> None:
            if armed and connection.get_execution_options().get("statelog_writes"):
                armed.clear()
                if happened:
                    connection.exec_driver_sql("COMMIT")
                raise sa.exc.OperationalError("COMMIT", {}, OSError("disk I/O error"))

        sa.event.listen(self.engine, "commit", fail)
        try:
            self.note(self.sequencers[which].submit_many(batch, self.now))
        except SourceUnreadable:
            assert not happened  # one that happened is recognised
        finally:
            sa.event.remove(self.engine, "commit", fail)

    @rule(which=st.integers(0, 1))
    def restart_a_sequencer(self, which: int) -> None:
        self.sequencers[which] = self.fresh()

    @rule(name=st.sampled_from(WITNESSES))
    def restart_a_witness(self, name: str) -> None:
        self.hosts[f"{name}.example"].restart()

    @rule(by=st.integers(-50, 100))
    def the_clock_moves(self, by: int) -> None:
        self.now = max(CLUSTER.now, self.now + by)

    @rule(away=st.sets(st.sampled_from(WITNESSES)))
    def cosign(self, away: set[str]) -> None:
        async def ask(name: str, body: bytes) -> tuple[int, bytes]:
            if name.removesuffix(".example") in away:
                raise ConnectionError(name)
            reply = self.hosts[name].ask(body, now=self.now + 100)
            return reply.status, reply.body

        replay = load_replay(self.store, CLUSTER.anchor)
        collected = asyncio.run(collect(self.store, replay, ask, clock=lambda: self.now + 100.0))
        assert collected.final or len(away) > 1
        head = self.store.head()
        assert head is not None
        assert head.final_size >= self.final
        self.final = head.final_size

    @rule()
    def the_replica_follows(self) -> None:
        """As a node does: entries in batches, then the signed head, verified before anything is stored."""
        note = self.store.checkpoint()
        assert note is not None
        entries: list[Entry] = []
        for row in self.store.entries(self.replica_replay.size):
            entries.append(self.replica_replay.append(row.leaf))
            if len(entries) == 3:
                self.replica.append_entries(entries, self.replica_replay, None)
                entries = []
        self.replica_replay.verify_head(note)
        head_note = parse_signed_checkpoint(note)[1]
        first_line = head_note.text.encode() + b"\n" + head_note.signatures[0].line().encode()
        if entries:
            self.replica.append_entries(entries, self.replica_replay, first_line)
        else:
            self.replica.put_checkpoint(self.replica_replay.size, self.replica_replay.root(), first_line)

    # --- what always holds ---

    @invariant()
    def what_was_acknowledged_is_there(self) -> None:
        for record_id, index in self.acknowledged.items():
            assert self.store.find(record_id) == index

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.check_sound(self.store, {"SL-NOTFINAL"})
            if self.replica_replay.size:
                self.check_sound(self.replica, {"SL-NOTFINAL"})
                assert list(self.replica.rows()) == list(self.store.rows())[: self.replica_replay.size]
            self.check_one_history()
            self.engine.dispose()
            self.replica_engine.dispose()
            self.directory.cleanup()

    def check_sound(self, store: Store, allowed: set[str]) -> None:
        with store.reading() as connection:
            report = audit(StoreSource(store, connection), CLUSTER.anchor)
        assert {finding.code for finding in report.findings} <= allowed, report.findings
        replay = Replay(CLUSTER.anchor)
        follow(store, replay)
        assert (report.size, report.root) == (replay.size, replay.root())
        if store is self.store:
            assert report.final_size == self.final

    def check_one_history(self) -> None:
        heads = [parse_signed_checkpoint(note)[0] for _, note in self.store.checkpoints()]
        with self.store.reading() as connection:
            for old, new in itertools.pairwise(heads):
                wanted = nodes_under(consistency_ranges(old.size, new.size))
                read = self.store.read_nodes(wanted, connection)
                proof = consistency_proof(old.size, new.size, read)
                assert verify_consistency(old.size, old.root, new.size, new.root, proof)


TestStoreLife = StoreLife.TestCase
TestStoreLife.settings = settings(
    max_examples=25,
    stateful_step_count=15,
)
