"""The thread for SQL and admission."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from fabric import limits
from fabric.io.worker import Worker
from tests.support.aio import run


def test_calls_run_in_order_on_one_thread_of_their_own() -> None:
    async def main() -> None:
        worker = Worker("test")
        seen: list[int] = []
        threads = await asyncio.gather(
            *(worker.run(lambda i=i: (seen.append(i), threading.current_thread())[1]) for i in range(20))
        )
        assert seen == list(range(20))
        assert len(set(threads)) == 1
        assert threads[0] is not threading.current_thread()
        await worker.close()

    run(main)


def test_what_a_call_raises_reaches_the_caller_and_nobody_else() -> None:
    async def main() -> None:
        worker = Worker("test")

        def fail() -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await worker.run(fail)
        assert await worker.run(lambda: 7) == 7
        await worker.close()

    run(main)


def test_a_cancelled_caller_leaves_the_call_to_finish() -> None:
    async def main() -> None:
        worker, begun, go, done = Worker("test"), threading.Event(), threading.Event(), threading.Event()

        def slow() -> None:
            begun.set()
            go.wait(5)
            done.set()

        task = asyncio.create_task(worker.run(slow))
        await asyncio.to_thread(begun.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not done.is_set()
        go.set()
        await worker.close()
        assert done.is_set()

    run(main)


@pytest.mark.parametrize(("before", "after"), [(0.005, limits.WORKER_SWITCH_S), (0.0001, 0.0001)])
def test_a_worker_that_computes_keeps_the_loop_waiting_for_less(before: float, after: float) -> None:
    was = sys.getswitchinterval()
    sys.setswitchinterval(before)
    try:
        run(lambda: Worker("test").close())
        assert sys.getswitchinterval() == pytest.approx(after, rel=0.02)
    finally:
        sys.setswitchinterval(was)
