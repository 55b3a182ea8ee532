"""The sequencer's host against witnesses in memory: finality, outages, a stream of entries, the outbox."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fabric import limits
from fabric.io.sequencing import Sequencing
from statelog.alarms import is_stale
from statelog.canonical import decode, encode
from statelog.io.cosign import HttpsWitnesses
from statelog.io.database import open_database
from statelog.io.sequencers import Sequencers
from statelog.io.store import Store
from statelog.io.witness_http import create_app
from statelog.io.witnessing import WitnessHost as ServedWitness
from statelog.signing import key_id_of, record_id_of
from tests.support.aio import run, until
from tests.support.authority import Cluster, make_cluster, signer
from tests.support.https import https_served
from tests.support.logs import ClusterEntries, WitnessHost, leases, new_store, outbox_state


class Witnesses:
    """Four witnesses that replay what the store has; any of them can be away, or slow."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.leaves: list[bytes] = []
        self.hosts = {
            key_id_of(signer(f"witness-{n}").public): WitnessHost(
                cluster, f"witness-{n}", leaves=lambda: self.leaves
            )
            for n in range(1, 5)
        }
        self.names = list(self.hosts)
        self.away: set[str] = set()
        self.slow_s: dict[str, float] = {}
        self.asked: Counter[str] = Counter()

    async def ask(self, key_id: str, body: bytes) -> tuple[int, bytes]:
        self.asked[key_id] += 1
        if key_id in self.away:
            raise ConnectionError("away")
        await asyncio.sleep(self.slow_s.get(key_id, 0.0))  # a witness that answers late
        reply = self.hosts[key_id].ask(body, now=self.clock())
        return reply.status, reply.body


@asynccontextmanager
async def host(
    path: Path,
    remote: HttpsWitnesses | None = None,
    clock: Callable[[], float] = time.time,
    cluster: Cluster | None = None,
) -> AsyncIterator[tuple[Sequencing, Witnesses, Cluster]]:
    cluster = cluster or make_cluster(now=int(time.time()) - 1)
    engine, sequencer = new_store(path / "node.db", cluster)
    witnesses = Witnesses(cluster, clock)
    store = sequencer.store
    made: list[Sequencing] = []

    def on_final() -> None:
        head = store.head()
        assert head is not None
        made[0].advanced(head.final_size)

    async def ask(key_id: str, body: bytes) -> tuple[int, bytes]:
        witnesses.leaves = [row.leaf for row in store.entries(0)]
        return await witnesses.ask(key_id, body)

    writers = Sequencers(engine, cluster.anchor, signer("sequencer-1"))
    made.append(Sequencing(f"sqlite:///{path}/node.db", writers, ask, on_final, clock, remote))
    try:
        yield made[0], witnesses, cluster
    finally:
        await made[0].close()
        engine.dispose()


def test_what_was_left_over_becomes_final_at_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with host(tmp_path) as (sequencing, _, cluster):
            await sequencing.wait_final(cluster.log.size - 1)
            assert sequencing.counters["final"] == 1

    run(main)


def test_a_witness_with_an_address_is_asked_over_https(tmp_path: Path) -> None:
    """Two witnesses of the fabric are away; one that is asked over HTTPS makes the quorum whole."""
    memory = open_database(f"sqlite:///{tmp_path / 'witness.db'}", create=True)
    cluster = make_cluster(now=int(time.time()) - 1)

    served = ServedWitness(
        cluster.anchor,
        "witness-1.example",
        signer("witness-1"),
        Store(memory),
        ClusterEntries(cluster),
        time.time,
    )

    async def main(remote: HttpsWitnesses) -> None:
        async with host(tmp_path, remote, cluster=cluster) as (sequencing, witnesses, _):
            witnesses.away = set(witnesses.names[:2])
            await sequencing.wait_final(cluster.log.size - 1)
            assert witnesses.asked[witnesses.names[0]] == 0
            assert served.counters["answered_200"] == 1

    with https_served(create_app(served), tmp_path) as site:
        run(lambda: main(HttpsWitnesses({"witness-1.example": site.url}, site.ca_file)))
    memory.dispose()


def test_a_submitted_record_is_pending_then_final(tmp_path: Path) -> None:
    async def main() -> None:
        async with host(tmp_path) as (sequencing, _, cluster):
            record = cluster.registry("web-admin")
            result = await sequencing.submit(encode(record))
            assert (result.state, result.record_id) == ("pending", record_id_of(record))
            assert result.log_index == cluster.log.size
            await sequencing.wait_final(result.log_index)
            again = await sequencing.submit(encode(record))
            assert (again.state, again.log_index) == ("pending", result.log_index)

    run(main)


def test_a_refused_record_gets_its_code(tmp_path: Path) -> None:
    async def main() -> None:
        async with host(tmp_path) as (sequencing, _, cluster):
            good = cluster.registry("web-admin")
            result = await sequencing.submit(encode(cluster.sign(good, ["control-1"])))
            assert (result.state, result.code) == ("refused", "SL-QUORUM")
            assert (await sequencing.submit(encode(good))).state == "pending"

    run(main)


def test_three_of_four_witnesses_are_enough_and_two_are_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with host(tmp_path) as (sequencing, witnesses, cluster):
            await sequencing.wait_final(cluster.log.size - 1)
            witnesses.away = set(witnesses.names[:2])
            result = await sequencing.submit(encode(cluster.registry("web-admin")))
            assert result.log_index is not None
            await until(lambda: len(sequencing.missing) == 2)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sequencing.wait_final(result.log_index), 0.3)
            witnesses.away.pop()
            sequencing.wake()  # as when a session with a witness comes up
            await sequencing.wait_final(result.log_index)

    run(main)


def test_a_stream_of_entries_still_becomes_final(tmp_path: Path) -> None:
    """Every entry wakes the collector; a collection that is begun anew for each would never end."""

    async def main() -> None:
        async with host(tmp_path) as (sequencing, witnesses, cluster):
            await sequencing.wait_final(cluster.log.size - 1)
            for name in witnesses.names:
                witnesses.slow_s[name] = 0.05
            before, last = sequencing.counters["final"], -1
            for data in leases(cluster, 400):
                result = await sequencing.submit(data)
                assert result.log_index is not None
                last = result.log_index
                if sequencing.counters["final"] >= before + 2:
                    break
            assert sequencing.counters["final"] >= before + 2, "heads become final while entries stream in"
            await sequencing.wait_final(last)

    run(main)


def test_a_slow_witness_does_not_hold_up_the_next_head(tmp_path: Path) -> None:
    async def main() -> None:
        async with host(tmp_path) as (sequencing, witnesses, cluster):
            await sequencing.wait_final(cluster.log.size - 1)
            witnesses.slow_s[witnesses.names[0]] = 20.0
            for data in leases(cluster, 3):
                result = await sequencing.submit(data)
                assert result.log_index is not None
                async with asyncio.timeout(40):
                    await sequencing.wait_final(result.log_index)

    run(main)


def test_the_outbox_is_drained_and_what_is_forged_in_it_refused(tmp_path: Path) -> None:
    """Whoever holds the database can write into the outbox; the sequencer judges it like any other record."""

    async def main() -> None:
        async with host(tmp_path) as (sequencing, _, cluster):
            await sequencing.wait_final(cluster.log.size - 1)
            store = sequencing.sequencers.authority.store
            good = cluster.registry("web-admin")
            forged = cluster.sign(cluster.registry("other"), ["control-1"])
            for record in (good, forged):
                store.outbox_put(record_id_of(record), encode(record), cluster.now)
            sequencing.wake()
            await until(lambda: sequencing.counters["outbox_drained"] == 2)
            assert outbox_state(store, record_id_of(forged)) == ("refused", None, "SL-QUORUM")
            await sequencing.wait_final(cluster.log.size)
            assert outbox_state(store, record_id_of(good)) == ("final", cluster.log.size, None)

    run(main)


def test_after_a_fast_clock_nothing_is_added_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One entry is dated half an hour ahead; witnesses have the right time, and then the sequencer too."""
    clock = [time.time()]
    right = clock[0]

    async def main() -> None:
        async with host(tmp_path, clock=lambda: clock[0]) as (sequencing, witnesses, cluster):
            await sequencing.wait_final(cluster.log.size - 1)
            witnesses.clock = lambda: right
            clock[0] += 1_800
            early, later, queued = leases(cluster, 3)
            first = await sequencing.submit(early)
            assert first.state == "pending"
            assert first.log_index is not None
            await until(lambda: any("SL-FUTURE" in why for why in sequencing.missing.values()))

            clock[0] -= 1_800
            refused = await sequencing.submit(later)
            assert (refused.state, "SL-FUTURE" in refused.sentence) == ("unavailable", True)
            store = sequencing.sequencers.authority.store
            record_id = put(store, queued, cluster.now)
            errors = sequencing.counters["errors"]
            sequencing.wake()
            await until(lambda: sequencing.counters["errors"] > errors)
            head = store.head()
            assert head is not None
            assert (outbox_state(store, record_id)[0], head.size) == ("pending", first.log_index + 1)

            clock[0] += 1_800  # that time has come
            witnesses.clock = lambda: clock[0]
            sequencing.wake()
            await sequencing.wait_final(first.log_index + 1)
            again = await sequencing.submit(later)
            assert (again.state, again.log_index) == ("pending", first.log_index + 2)

    monkeypatch.setattr(limits, "SEQUENCING_RETRY_FIRST_S", 0.05)
    run(main)


def put(store: Store, record: bytes, received_at: int) -> str:
    """A record into the outbox; its id."""
    record_id = record_id_of(decode(record))
    store.outbox_put(record_id, record, received_at)
    return record_id


def test_a_log_that_waits_for_its_time_does_not_hold_up_the_outbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition's newest entry is dated half an hour ahead, and its records stand in front."""
    monkeypatch.setattr("fabric.io.sequencing.MAX_BATCH_RECORDS", 2)
    monkeypatch.setattr(limits, "SEQUENCING_RETRY_FIRST_S", 0.05)
    clock = [time.time()]

    async def main() -> None:
        async with host(tmp_path, clock=lambda: clock[0]) as (sequencing, _, cluster):
            store, log = sequencing.sequencers.authority.store, "routes-eu-1"
            term = encode(cluster.opening(log, "sequencer-1"))
            assert (await sequencing.submit(term)).state == "pending"
            await sequencing.wait_final(cluster.log.size)
            leases_ = [encode(cluster.lease(f"eu-1/{n}", partition="eu-1")) for n in range(4)]
            sequencing.sequencers.of(log).submit(leases_.pop(), int(clock[0]) + 1_800)
            for n, lease in enumerate(leases_):
                put(store, lease, cluster.now - 10 + n)
            good = put(store, encode(cluster.registry("web-admin")), cluster.now)
            sequencing.wake()
            await sequencing.wait_final(cluster.log.size + 1)
            assert outbox_state(store, good) == ("final", cluster.log.size + 1, None)
            assert len(store.outbox_pending(9)) == 3

            clock[0] += 1_800  # that time comes, and nobody has to ring
            await until(lambda: not store.outbox_pending(9))

    run(main)


def test_what_waits_for_another_writer_does_not_hold_up_the_outbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of a partition's log that somebody else writes stand in front, more of them than a page."""
    monkeypatch.setattr("fabric.io.sequencing.MAX_BATCH_RECORDS", 2)
    monkeypatch.setattr(limits, "SUBMIT_PENDING", 3)

    async def main() -> None:
        async with host(tmp_path) as (sequencing, _, cluster):
            store = sequencing.sequencers.authority.store
            term = encode(cluster.opening("routes-eu-1", "sequencer-eu"))
            assert (await sequencing.submit(term)).state == "pending"
            for n in range(5):
                put(store, encode(cluster.lease(f"eu-1/{n}", partition="eu-1")), cluster.now - 10 + n)
            good = put(store, encode(cluster.registry("web-admin")), cluster.now)
            sequencing.wake()
            await sequencing.wait_final(cluster.log.size + 1)
            assert outbox_state(store, good) == ("final", cluster.log.size + 1, None)
            assert len(store.outbox_pending(9)) == 5

    run(main)


def test_a_third_of_the_allowed_age_is_the_longest_that_nobody_is_asked(tmp_path: Path) -> None:
    """On a virtual clock: asked too early nobody is, in time everybody; witnesses that are away make it stale
    until they are back.
    """
    virtual = [time.time()]

    async def main() -> None:
        async with host(tmp_path, clock=lambda: virtual[0]) as (sequencing, witnesses, cluster):
            allowed = cluster.state.descriptor.max_checkpoint_age_s
            await sequencing.wait_final(cluster.log.size - 1)
            await until(lambda: sequencing.law.fresh_at >= int(virtual[0]))
            first, asked = sequencing.law.fresh_at, witnesses.asked.total()

            async def looked_at(seconds: float) -> None:
                virtual[0] = first + seconds
                looks = sequencing.counters["looks"]
                sequencing.wake()
                await until(lambda: sequencing.counters["looks"] > looks)

            await looked_at(allowed / 3 - 1)
            assert (witnesses.asked.total(), sequencing.law.fresh_at) == (asked, first)
            await looked_at(allowed / 3)
            await until(lambda: sequencing.law.fresh_at == int(virtual[0]))
            assert witnesses.asked.total() >= asked + 3

            second = sequencing.law.fresh_at
            witnesses.away = set(witnesses.names[1:])  # one alone is f: it makes nothing fresh
            await looked_at(2 * allowed)
            await until(lambda: sequencing.missing.keys() >= {"witness-2.example"})
            assert sequencing.law.fresh_at == second
            assert is_stale(sequencing.law.fresh_at, allowed, virtual[0])
            witnesses.away = set()
            await looked_at(2 * allowed + 1)
            await until(lambda: sequencing.law.fresh_at == int(virtual[0]))
            assert not is_stale(sequencing.law.fresh_at, allowed, virtual[0])

    run(main)


def test_cosignatures_are_refreshed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with host(tmp_path) as (sequencing, witnesses, cluster):
            await sequencing.wait_final(cluster.log.size - 1)
            await until(lambda: sequencing.law.fresh_at > 0)
            assert sequencing.law.until_refresh() > cluster.state.descriptor.max_checkpoint_age_s / 3 - 60
            before = sum(witnesses.asked.values())
            sequencing.law.fresh_at = 0  # as if that time had passed
            sequencing.wake()
            await until(lambda: sequencing.law.until_refresh() > 0)
            assert sum(witnesses.asked.values()) == before + 4

    monkeypatch.setattr(limits, "SEQUENCING_RETRY_FIRST_S", 0.05)
    run(main)
