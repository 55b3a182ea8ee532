"""The writer thread: one answer for each record, one look ahead, and nothing taken in is forgotten."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from statelog.canonical import encode
from statelog.errors import SourceUnreadable
from statelog.findings import Finding
from statelog.io.database import CommitUnknownError
from statelog.io.desk import Desk, DeskClosedError, DeskFullError
from statelog.io.loading import load_replay
from statelog.io.sequencer import Sequencer, Submitted
from statelog.io.sequencers import Sequencers, Writing
from statelog.io.store import Store
from statelog.state import ROUTE
from tests.support.aio import run, until
from tests.support.authority import make_cluster, signer
from tests.support.logs import leases, new_store


class Recorder:
    """A backend that writes down what it is told, and lets no commit pass while `hold` is clear."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.hold = threading.Event()
        self.hold.set()
        self.errors: dict[str, Exception] = {}
        self.closed = False

    def begin(self, batch: Sequence[bytes]) -> list[str]:
        names = [data.decode() for data in batch]
        self.told.append("begin " + " ".join(names))
        if error := self.errors.pop("begin " + names[0], None):
            raise error
        return names

    def accept(self, begun: list[str], now: int) -> list[str | Finding]:
        self.told.append("accept " + " ".join(begun))
        assert self.hold.wait(40)
        if error := self.errors.pop("accept " + begun[0], None):
            raise error
        return [Finding("SL-SIG", "no") if name == "bad" else f"{name} at {now}" for name in begun]

    def close(self) -> None:
        self.closed = True


def desk_of(backend: Recorder, waiting: int = 100) -> Desk[str]:
    desk: Desk[str] = Desk(backend, lambda: 7.9, lambda _: None, waiting=waiting)
    desk.start()
    return desk


def test_the_next_batch_is_begun_while_one_is_committed() -> None:
    backend = Recorder()
    desk = desk_of(backend)

    async def main() -> None:
        assert await desk.submit(b"a") == "a at 7"
        backend.hold.clear()
        first = asyncio.create_task(desk.submit(b"b"))
        await until(lambda: backend.told[-1] == "accept b")
        others = [asyncio.create_task(desk.submit(name)) for name in (b"c", b"bad")]
        await until(lambda: desk._queue.qsize() == 2)
        backend.hold.set()
        assert await first == "b at 7"
        good, bad = await asyncio.gather(*others)
        assert good == "c at 7"
        assert isinstance(bad, Finding)
        await asyncio.to_thread(desk.close)

    run(main)
    assert backend.told == ["begin a", "accept a", "begin b", "accept b", "begin c bad", "accept c bad"]
    assert backend.closed


def test_what_waits_is_begun_before_the_batch_before_it_is_committed() -> None:
    """The order that lets one batch be verified while another is written."""
    backend = Recorder()
    desk: Desk[str] = Desk(backend, lambda: 7.9, lambda _: None, waiting=1000)

    async def main() -> None:
        asking = [asyncio.create_task(desk.submit(b"%d" % n)) for n in range(300)]
        await until(lambda: desk._queue.qsize() == 300)
        desk.start()
        assert await asyncio.gather(*asking) == [f"{n} at 7" for n in range(300)]
        await asyncio.to_thread(desk.close)

    run(main)
    assert [one.split(" ")[:2] for one in backend.told] == [
        ["begin", "0"],
        ["begin", "256"],
        ["accept", "0"],
        ["accept", "256"],
    ]


@pytest.mark.parametrize("step", ["begin", "accept"])
def test_a_failure_reaches_the_callers_of_its_batch_alone(step: str) -> None:
    backend = Recorder()
    desk = desk_of(backend)

    async def main() -> None:
        backend.errors[f"{step} a"] = SourceUnreadable("disk full")
        with pytest.raises(SourceUnreadable):
            await desk.submit(b"a")
        assert await desk.submit(b"b") == "b at 7"
        await asyncio.to_thread(desk.close)

    run(main)


def test_a_full_desk_and_a_closed_one_take_nothing() -> None:
    backend = Recorder()
    desk = desk_of(backend, waiting=1)

    async def main() -> None:
        backend.hold.clear()
        first = asyncio.create_task(desk.submit(b"a"))
        await until(lambda: "accept a" in backend.told)
        second = asyncio.create_task(desk.submit(b"b"))
        await until(lambda: desk._queue.qsize() == 1)
        with pytest.raises(DeskFullError):
            await desk.submit(b"c")
        backend.hold.set()
        assert await asyncio.gather(first, second) == ["a at 7", "b at 7"]
        await asyncio.to_thread(desk.close)
        with pytest.raises(DeskClosedError):
            await desk.submit(b"d")

    run(main)


def test_callers_of_a_real_log_share_commits(tmp_path: Path) -> None:
    """Those that come while one commit is under way are served together, each with its own answer."""
    cluster = make_cluster()
    engine, _ = new_store(tmp_path / "node.db", cluster)
    sequencers = Sequencers(engine, cluster.anchor, signer("sequencer-1"))
    records = [*leases(cluster, 40), b"{}"]
    desk: Desk[Submitted] = Desk(Writing(sequencers), lambda: float(cluster.now), lambda _: None, waiting=100)

    async def main() -> None:
        asking = [asyncio.create_task(desk.submit(data)) for data in records]
        await until(lambda: desk._queue.qsize() == len(records))
        desk.start()
        *placed, refused = await asyncio.gather(*asking)
        assert isinstance(refused, Finding)
        assert refused.code == "SL-SCHEMA"
        first = cluster.log.size
        places = [one.log_index for one in placed if isinstance(one, Submitted)]
        assert places == list(range(first, first + 40))
        assert [at for at, _ in sequencers.authority.store.checkpoints(first + 1)] == [first + 40]
        await asyncio.to_thread(desk.close)

    run(main)
    engine.dispose()


def test_a_bell_that_breaks_takes_no_record_with_it(caplog: pytest.LogCaptureFixture) -> None:
    def broken(outcomes: list[str | Finding]) -> None:
        raise OSError(str(outcomes))

    desk: Desk[str] = Desk(Recorder(), lambda: 7.9, broken, waiting=10)
    desk.start()

    async def main() -> None:
        assert await desk.submit(b"a") == "a at 7"
        assert await desk.submit(b"b") == "b at 7"
        await asyncio.to_thread(desk.close)

    run(main)
    assert "does not" in caplog.text


def test_a_commit_that_nobody_knows_of_is_told_to_its_callers_and_a_copy_finds_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster()
    engine, _ = new_store(tmp_path / "node.db", cluster)
    sequencers = Sequencers(engine, cluster.anchor, signer("sequencer-1"))
    desk: Desk[Submitted] = Desk(Writing(sequencers), lambda: float(cluster.now), lambda _: None, waiting=100)
    desk.start()
    (record,) = leases(cluster, 1)

    def unknown(*_: object) -> None:
        raise CommitUnknownError("the connection is gone")

    async def main() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Sequencer, "_append", unknown)
            patched.setattr(Sequencer, "_committed", lambda *_: False)
            with pytest.raises(CommitUnknownError):
                await desk.submit(record)
        placed, copy = await asyncio.gather(desk.submit(record), desk.submit(record))
        assert isinstance(placed, Submitted)
        assert isinstance(copy, Submitted)
        assert placed.log_index == copy.log_index == cluster.log.size
        assert {placed.duplicate, copy.duplicate} == {False, True}
        await asyncio.to_thread(desk.close)

    run(main)
    engine.dispose()


def test_a_record_in_two_batches_that_are_under_way_is_placed_once(tmp_path: Path) -> None:
    """Both are looked at before the first is committed, so neither look can know of the other's copy."""
    cluster = make_cluster()
    engine, _ = new_store(tmp_path / "node.db", cluster)
    writing = Writing(Sequencers(engine, cluster.anchor, signer("sequencer-1")))
    twice, *others = leases(cluster, 18)
    first, second = writing.begin([twice, *others[:9]]), writing.begin([*others[9:], twice])
    (placed, *_), (*_, copy) = (writing.accept(begun, cluster.now) for begun in (first, second))
    writing.close()
    assert isinstance(placed, Submitted)
    assert isinstance(copy, Submitted)
    assert (placed.log_index, placed.duplicate) == (cluster.log.size, False)
    assert (copy.log_index, copy.duplicate) == (cluster.log.size, True)
    assert load_replay(Store(engine), cluster.anchor).size == cluster.log.size + 18
    engine.dispose()


@pytest.mark.parametrize("count", [1, 20])  # verified by the desk's own thread, and by other processes
def test_keys_that_change_between_the_look_and_the_commit_count_as_they_are_then(
    tmp_path: Path, count: int
) -> None:
    """A signature that was seen to be right stays right; whether its key may sign is judged in the commit."""
    cluster = make_cluster()
    engine, _ = new_store(tmp_path / "node.db", cluster)
    sequencers = Sequencers(engine, cluster.anchor, signer("sequencer-1"))
    sequencers.authority.catch_up()
    writing = Writing(sequencers)
    before, after = leases(cluster, count), leases(cluster, count, count)
    placed = writing.accept(writing.begin(before), cluster.now)
    assert all(isinstance(one, Submitted) for one in placed)
    begun = writing.begin(after)
    sequencers.submit(encode(cluster.members(ROUTE, "x-1", "x-2")), cluster.now)
    refused = writing.accept(begun, cluster.now)
    writing.close()
    assert [one.code for one in refused if isinstance(one, Finding)] == ["SL-REVOKED"] * count
    assert load_replay(Store(engine), cluster.anchor).size == cluster.log.size + count + 1
    engine.dispose()
