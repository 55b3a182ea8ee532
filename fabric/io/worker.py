"""A thread of its own for what must not run where packets are moved: SQL, admission, replay.

The measure: judging a thousand two-signature records takes about 77 ms, in which no packet would leave. A
thread alone does not spare the event loop: the interpreter's lock changes hands only when a switch interval
is over, so each time the loop wakes up it waits for one while the worker computes. Hence a shorter interval.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from fabric import limits

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """Runs calls one after the other, in the order in which they were asked for.

    From the first one on the whole process switches threads after `limits.WORKER_SWITCH_S`, or sooner where
    it was set so.
    """

    def __init__(self, name: str) -> None:
        if sys.getswitchinterval() > limits.WORKER_SWITCH_S:
            sys.setswitchinterval(limits.WORKER_SWITCH_S)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The call's result, or what it raised. A caller that is cancelled leaves the call to finish."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: call(*args, **kwargs))

    async def close(self) -> None:
        """Wait for what is under way and end the thread. Calls that have not begun are dropped."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, lambda: self._executor.shutdown(wait=True, cancel_futures=True))
