"""The writer thread: what callers hear when the store fails, and that nothing taken in is forgotten."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from control_api.desk import Desk, Receipt
from control_api.problems import Problem
from statelog.errors import Refused, SourceUnreadable, UsageError
from statelog.findings import Finding
from statelog.io.database import CommitUnknownError
from tests.support.aio import run


class Backend:
    """Accepts everything, except records that name an error."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.hold = threading.Event()
        self.hold.set()
        self.error: Exception | None = None
        self.closed = False

    def begin(self, batch: Sequence[bytes]) -> Sequence[bytes]:
        return batch

    def close(self) -> None:
        self.closed = True

    def accept(self, batch: Sequence[bytes], now: int) -> list[Receipt | Finding]:
        self.batches.append(list(batch))
        self.hold.wait(10)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return [
            Finding("SL-SIG", "no")
            if data == b"bad"
            else Receipt(data.decode(), now, duplicate=data == b"old")
            for data in batch
        ]


def make(backend: Backend) -> tuple[Desk, list[bool]]:
    rung: list[bool] = []
    return Desk(backend, lambda: 7.9, lambda: rung.append(True)), rung


def test_each_caller_gets_its_own_outcome_and_the_bell_rings_for_what_was_written() -> None:
    backend = Backend()
    desk, rung = make(backend)

    async def main() -> None:
        desk.start()
        assert await desk.receipt(b"one") == Receipt("one", 7, duplicate=False)
        assert rung == [True]
        with pytest.raises(Refused) as refused:
            await desk.receipt(b"bad")
        assert refused.value.code == "SL-SIG"
        assert (await desk.receipt(b"old")).duplicate
        assert rung == [True], "nothing was written"
        desk.close()

    run(main)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (CommitUnknownError("lost"), Problem, "API-UNKNOWN"),
        (UsageError("no log"), Problem, "API-NOT-READY"),
        (SourceUnreadable("disk full"), SourceUnreadable, None),
        (RuntimeError("a defect"), RuntimeError, None),
    ],
    ids=["commit unknown", "no log", "store away", "defect"],
)
def test_a_failing_store_reaches_every_caller_and_the_thread_goes_on(
    error: Exception, kind: type[Exception], code: str | None
) -> None:
    backend = Backend()
    desk, _ = make(backend)

    async def main() -> None:
        backend.error = error
        desk.start()
        with pytest.raises(kind) as raised:
            await desk.receipt(b"one")
        if code is not None:
            assert isinstance(raised.value, Problem)
            assert raised.value.finding.code == code
        assert (await desk.receipt(b"one")).record_id == "one"
        desk.close()

    run(main)


def test_a_caller_that_went_away_takes_nothing_with_it() -> None:
    backend = Backend()
    desk, rung = make(backend)

    async def main() -> None:
        backend.hold.clear()
        desk.start()
        asking = asyncio.create_task(desk.receipt(b"one"))
        await asyncio.sleep(0.02)  # time for the thread to take what it should not
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        backend.hold.set()
        assert (await desk.receipt(b"two")).record_id == "two"
        desk.close()

    run(main)
    assert [data for batch in backend.batches for data in batch] == [b"one", b"two"]
    assert rung == [True, True]


def test_closing_serves_what_was_taken_in_first() -> None:
    backend = Backend()
    desk, _ = make(backend)

    async def main() -> None:
        backend.hold.clear()
        desk.start()
        asking = [asyncio.create_task(desk.receipt(b"%d" % n)) for n in range(5)]
        await asyncio.sleep(0.02)  # time for the thread to take what it should not
        closing = asyncio.create_task(asyncio.to_thread(desk.close))
        await asyncio.sleep(0.02)  # time for the thread to take what it should not
        assert not closing.done()
        backend.hold.set()
        await closing
        assert [one.record_id for one in await asyncio.gather(*asking)] == list("01234")

    run(main)
