"""Running one coroutine as a test, with a deadline and without leftovers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def run(main: Callable[[], Coroutine[Any, Any, None]], *, timeout_s: float = 90.0) -> None:
    """Run `main()`; fail when it takes too long, leaves a task behind, or lets the loop report an error."""
    reported: list[dict[str, Any]] = []

    async def guarded() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        async with asyncio.timeout(timeout_s):
            await main()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"

    asyncio.run(guarded())
    assert not reported, f"the loop reported: {reported}"


async def until(condition: Callable[[], bool], *, timeout_s: float = 40.0) -> None:
    """Let the loop turn until `condition()`; for state without an event of its own to wait for."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - any attribute may be the condition
            await asyncio.sleep(0.001)  # the condition may be any attribute, which has no event
