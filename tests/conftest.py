"""What holds for every test."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How fast a machine is today is not what a property says: benchmarks measure, tests do not.
settings.register_profile(
    "fabric", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("fabric")

GATE = Path(__file__)
ROOM = Path(__file__).with_name("__init__.py")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test that measures (`alone`) waits until no other runs in this checkout, and lets none begin. The
    wait comes before the clock of its time limit.
    """
    with _turn(alone="alone" in item.keywords):
        return (yield)


@contextmanager
def _turn(*, alone: bool) -> Iterator[None]:
    """Lock the room, for this test alone or shared. Whoever wants it alone shuts the gate meanwhile, so that
    those who come and go do not keep it out for ever.
    """
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    with GATE.open("rb") as gate, ROOM.open("rb") as room:
        fcntl.flock(gate, kind)
        fcntl.flock(room, kind)
        if not alone:
            fcntl.flock(gate, fcntl.LOCK_UN)
        yield  # closing the files unlocks them
