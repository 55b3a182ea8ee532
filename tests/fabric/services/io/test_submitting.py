"""Handing records to a sequencer: again until the log has them, and never at one host's word alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.errors import FabricError
from fabric.io.replica import Replica
from fabric.io.updates import Update
from fabric.io.worker import Worker
from fabric.services.io.channel import Channel
from fabric.services.io.submitting import Forwarder, submit
from fabric.services.submit import CODEC, SERVICE, Message, Result, Submit
from fabric.sync import Entries, Head
from statelog.canonical import encode
from statelog.signing import record_id_of
from tests.support.aio import run, until
from tests.support.authority import Cluster, make_cluster
from tests.support.farm import CONTROL, Farm, stranger
from tests.support.logs import cosigned, head_note, replay_of

NAMES = ("control-1", "home-1", "node-9", "usa-los-1")


@dataclass
class Site:
    """A forwarder over a real store; `answers` is what the sequencer says, one after the other."""

    cluster: Cluster
    replica: Replica
    worker: Worker
    answers: list[Result | Exception] = field(default_factory=list)
    handed: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.forwarder = Forwarder(
            self.replica,
            self.worker,
            self.hand_in,
            asyncio.get_running_loop().time,
            random.Random(1),
        )

    async def hand_in(self, data: bytes) -> Result:
        self.handed.append(data)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def play(tmp_path: Path, script: Callable[[Site], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster, worker = make_cluster(), Worker("replica")
        updates: list[Update] = []
        replica = Replica(
            f"sqlite:///{tmp_path}/node.db",
            cluster.anchor,
            cluster.cluster_id,
            lambda: float(cluster.now),
            updates.append,
        )
        await worker.run(replica.open)
        intake = replica.intake()
        replica.take(intake, Entries(0, cluster.leaves()))
        replica.take(intake, Head(cosigned(head_note(replay_of(cluster)))))
        site = Site(cluster, replica, worker)
        task = asyncio.create_task(site.forwarder.run())
        try:
            await script(site)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            replica.close()
            await worker.close()

    run(main)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SUBMIT_RETRY_FIRST_S", 0.02)


def test_it_hands_in_again_until_the_nodes_own_log_has_the_record(tmp_path: Path) -> None:
    async def script(site: Site) -> None:
        site.answers = [FabricError("no_sequencer", ""), Result("unavailable"), Result("pending", "r", 9)]
        site.forwarder.add("r" * 64, b"record")
        await until(lambda: len(site.handed) >= 5)
        assert site.forwarder.counters["unavailable"] == 2
        site.forwarder.settled("r" * 64)
        assert len(site.forwarder) == 0
        count = len(site.handed)
        await asyncio.sleep(0.2)  # that nothing more is handed in has no event
        assert len(site.handed) <= count + 1

    play(tmp_path, script)


@pytest.mark.parametrize(
    ("code", "sentence", "kept"),
    [
        ("SL-STALE", "why", ("SL-STALE", "why")),
        ("SL-\0", "no\x1b[2J", ("SL-\\x00", "no\\x1b[2J")),  # as text that any store holds
    ],
)
def test_a_refused_record_of_the_log_alone_ends_and_its_code_stays(
    tmp_path: Path, code: str, sentence: str, kept: tuple[str, str]
) -> None:
    async def script(site: Site) -> None:
        data = encode(site.cluster.approval("guest"))
        judged = await site.worker.run(site.replica.judge, data)
        await site.worker.run(site.replica.queue, judged.record_id, data)
        site.answers = [Result("refused", judged.record_id, None, code, sentence)]
        await site.forwarder.look()
        await until(lambda: len(site.forwarder) == 0)
        assert site.forwarder.counters["refused"] == 1
        row = site.replica.store.outbox_row(judged.record_id)
        assert row is not None
        assert (row.state, row.code, row.sentence) == ("refused", *kept)
        assert site.handed == [data]

    play(tmp_path, script)


def test_what_acts_here_outlives_one_hosts_refusal(tmp_path: Path) -> None:
    async def script(site: Site) -> None:
        data = encode(site.cluster.registry("web-admin"))
        judged = await site.worker.run(site.replica.judge, data)
        site.answers = [Result("refused", judged.record_id, None, "SL-STALE", "a lie")]
        site.forwarder.add(judged.record_id, data)
        await until(lambda: len(site.handed) >= 3)
        assert site.forwarder.refusals == {judged.record_id: "SL-STALE"}
        assert len(site.replica.unlogged()) == 1

    play(tmp_path, script)


def test_what_others_forward_too_waits_its_turn_and_a_sequencer_that_comes_up_ends_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(site: Site) -> None:
        site.answers = [Result("unavailable")]
        site.forwarder.add("a" * 64, b"later", delay_s=1000.0)
        site.forwarder.add("b" * 64, b"now")
        await until(lambda: site.handed == [b"now"])
        monkeypatch.setattr(limits, "SUBMIT_RETRY_FIRST_S", 1000.0)
        await until(lambda: site.forwarder._pending["b" * 64].failures >= 2)
        count = len(site.handed)
        site.forwarder.hurry()
        await until(lambda: len(site.handed) > count)
        assert set(site.handed) == {b"now"}

    play(tmp_path, script)


def test_a_log_that_nobody_writes_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many records of a dead partition stand in front, in the outbox and beside it, and each attempt to reach
    its writer takes for ever.
    """
    monkeypatch.setattr(limits, "SUBMIT_PENDING_PER_LOG", 5)
    monkeypatch.setattr(limits, "OUTBOX_PAGE", 7)

    async def script(site: Site) -> None:
        monkeypatch.setattr(site.replica, "home_of", lambda data: data.decode().partition(" ")[0])
        monkeypatch.setattr(site.replica, "writers_of", lambda data: ("other",))
        site.replica._outbox._home = site.replica.home_of
        stuck = asyncio.Event()

        async def hand_in(data: bytes) -> Result:
            site.handed.append(data)
            if data.startswith(b"dead"):
                await stuck.wait()
                raise FabricError("no_sequencer", "")
            return Result("pending")

        site.forwarder._hand_in = hand_in
        put = site.replica.store.outbox_put
        for n in range(40):
            put(f"{n:064}", f"dead {n}".encode(), n)
        put("f" * 64, b"alive 1", 50)
        for n in range(30):
            site.forwarder.add(f"{n:063}x", f"dead direct {n}".encode())
        site.forwarder.add("e" * 64, b"alive 2")
        await site.forwarder.look()
        await until(lambda: {b"alive 1", b"alive 2"} <= set(site.handed))
        assert len([data for data in site.handed if data.startswith(b"dead")]) == 1
        assert len(site.forwarder) == 30 + 1 + 5 + 1
        await site.forwarder.look()
        assert len(site.forwarder) == 37  # the share of the dead log is full, whoever asks again
        for n in range(5):
            site.forwarder.settled(f"{n:064}")
        site.replica.store.outbox_sequenced(f"{0:064}", 1)
        await site.forwarder.look()
        assert len(site.forwarder) == 37

    play(tmp_path, script)


def test_what_nobody_takes_lets_others_of_its_log_try_first(tmp_path: Path) -> None:
    """One record of a log whose own writer is away must not be asked for before all others, for ever."""

    async def script(site: Site) -> None:
        async def hand_in(data: bytes) -> Result:
            site.handed.append(data)
            if data == b"hopeless":
                raise FabricError("no_sequencer", "")
            return Result("pending")

        site.forwarder._hand_in = hand_in
        for number, data in enumerate([b"hopeless", b"a", b"b"]):
            site.forwarder.add(str(number) * 64, data)
        await until(lambda: {b"a", b"b"} <= set(site.handed))
        assert site.handed[0] == b"hopeless"

    play(tmp_path, script)


def test_the_service_answers_pending_then_final_and_refusals_by_code(tmp_path: Path) -> None:
    async def main() -> None:
        async with Farm(tmp_path) as farm:
            await farm.begin(NAMES)
            good = farm.cluster.registry("web-admin")
            async with stranger(farm, CONTROL) as session:
                bad = await submit(session, encode(farm.cluster.sign(good, ["control-1"])), until_final=True)
                assert (bad.state, bad.code) == ("refused", "SL-QUORUM")
                index = farm.cluster.log.size
                pending = await submit(session, encode(good), until_final=False)
                assert pending == Result("pending", record_id_of(good), index)
                final = await submit(session, encode(good), until_final=True)
                assert final == Result("final", record_id_of(good), index)

    run(main, timeout_s=90)


def test_one_peers_records_are_rationed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Farm(tmp_path) as farm:
            await farm.begin(NAMES)
            async with stranger(farm, CONTROL) as session, stranger(farm, CONTROL, known_as="x") as other:
                results = []
                for _ in range(4):
                    stream = await session.open(SERVICE, TrafficClass.RELIABLE)
                    channel: Channel[Message] = Channel(stream, CODEC)
                    await channel.send(Submit(b"nonsense"))
                    results.append(await channel.receive())
                    stream.reset()
                codes = [one.code for one in results if isinstance(one, Result)]
                assert codes == ["SL-CANON", "SL-CANON", "GS-RATE", "GS-RATE"]
                assert (await submit(other, b"nonsense", until_final=False)).code == "SL-CANON"

    monkeypatch.setattr(limits, "SUBMIT_BURST", 2)
    monkeypatch.setattr(limits, "SUBMIT_PER_S", 0.001)
    run(main, timeout_s=90)
