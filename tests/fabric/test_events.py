"""Inputs, effects and events: the unions are whole, and configurations that cannot work are refused."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from fabric import events, limits
from fabric.classes import TrafficClass
from fabric.errors import CLOSE_CODES, RESET_REASONS, CloseNumber, close_number


def test_every_event_is_in_exactly_one_union() -> None:
    unions = (
        events.SessionInput,
        events.SessionEvent,
        events.HopInput,
        events.StreamEffect,
        events.StreamEvent,
    )
    members = [kind for union in unions for kind in get_args(union)]
    defined = [
        value
        for value in vars(events).values()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == events.__name__
    ]
    # SendOpen alone has no stream to act on yet: `EndToEnd.initiate` returns it.
    assert sorted(kind.__name__ for kind in [*members, events.SendOpen]) == sorted(
        kind.__name__ for kind in defined
    )


def test_events_do_not_change_once_told() -> None:
    event = events.StreamClosed(2, dead=True)
    with pytest.raises(AttributeError):
        event.dead = False  # type: ignore[misc]  # what the test is about


def test_windows_that_would_wait_for_themselves_are_refused() -> None:
    assert events.SessionConfig(stream_window=4 * 66_576).stream_window == 4 * 66_576
    with pytest.raises(ValueError, match="four frames"):
        events.SessionConfig(stream_window=4 * 66_576 - 1)
    with pytest.raises(ValueError, match="four frames"):
        events.SessionConfig(session_window=limits.SESSION_RESERVE_BYTES + 100_000)
    with pytest.raises(ValueError, match="four frames"):
        events.SessionConfig(body_limit=limits.FRAME_BODY_BYTES_MAX)


def test_shards_are_of_interactive_and_bulk_and_few() -> None:
    most = {TrafficClass.INTERACTIVE: limits.SESSION_SHARDS, TrafficClass.BULK: limits.SESSION_SHARDS}
    assert events.SessionConfig(shards=most).shards == most
    assert sum(most.values()) + len(TrafficClass) - len(most) <= limits.SESSION_LANES
    for wrong in ({TrafficClass.BULK: limits.SESSION_SHARDS + 1}, {TrafficClass.BULK: 0}):
        with pytest.raises(ValueError, match="lanes for BULK"):
            events.SessionConfig(shards=wrong)
    with pytest.raises(ValueError, match="lanes for CONTROL: 1 to 1"):
        events.SessionConfig(shards={TrafficClass.CONTROL: 2})


def test_every_close_code_has_a_number_and_a_meaning() -> None:
    assert {close_number(code) for code in CLOSE_CODES} == set(CloseNumber)
    assert close_number("frame_too_large") is CloseNumber.PROTOCOL
    assert close_number("done") is CloseNumber.DONE
    assert all(CLOSE_CODES.values())
    assert all(RESET_REASONS.values())
