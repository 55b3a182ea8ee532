"""Pressure: every row of the table, what decides among several, the history, what a neighbour is told."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import limits
from fabric.classes import TrafficClass
from fabric.pressure import (
    REASONS,
    RULES,
    Pressure,
    PressureGauge,
    PressureNews,
    Reading,
    highest,
    withheld,
)
from fabric.wire import NodePressure

CASES: dict[str, tuple[dict[str, Any], str, int, str]] = {
    "route_failed": ({"waiting": 1}, "critical", 70, "rebuild_or_reroute"),
    "memory_full": ({"node": NodePressure(memory=90)}, "critical", 70, "shed_or_reroute"),
    "queue_full": ({"node": NodePressure(queue=95)}, "critical", 70, "shed_or_reroute"),
    "drops": ({"total_dropped": 1}, "warning", 35, "throttle_bulk"),
    "cpu": ({"node": NodePressure(cpu=85)}, "warning", 35, "throttle_bulk"),
    "backpressure": ({"node": NodePressure(queue=50)}, "warning", 30, "throttle_bulk"),
    "bulk_pressure": ({"bulk_shrunk": True}, "warning", 30, "throttle_bulk"),
    "peer_pressure": ({"peer": 50}, "warning", 30, "throttle_bulk"),
    "network": ({"node": NodePressure(network=85)}, "warning", 30, "prefer_faster_route"),
    "slow_path": ({"slow_sessions": 1}, "warning", 30, "prefer_faster_route"),
    "capacity_limited": ({"total_refused": 1}, "warning", 30, "reduce_parallelism"),
    "sockets": ({"node": NodePressure(sockets=85)}, "warning", 30, "reduce_parallelism"),
    "route_recovered": ({"total_resumed": 1}, "warning", 30, "observe_recovery"),
}
"""What is seen, and the picture: by itself it gives the reason of its name."""

JUST_BELOW: list[dict[str, Any]] = [
    {"node": NodePressure(memory=89, queue=49, cpu=84, network=84, sockets=84)},
    {"peer": 49},
]


def judged(**fields: Any) -> Pressure:
    gauge = PressureGauge()
    gauge.handle(0.0, Reading())
    return gauge.handle(1.0, Reading(**fields))


def test_calm_is_nominal_and_observed() -> None:
    calm = PressureGauge().handle(0.0, Reading())
    assert (calm.level, calm.score, calm.reasons, calm.action) == ("nominal", 0, (), "observe")
    assert calm.history == ()


def test_the_table_has_a_case_for_every_reason() -> None:
    assert tuple(CASES) == REASONS
    assert {rule.action for rule in RULES} | {"observe"} == {
        "observe",
        "throttle_bulk",
        "reduce_parallelism",
        "prefer_faster_route",
        "observe_recovery",
        "rebuild_or_reroute",
        "shed_or_reroute",
    }


@pytest.mark.parametrize("reason", CASES)
def test_each_reason_alone(reason: str) -> None:
    fields, level, score, action = CASES[reason]
    found = judged(**fields)
    assert found.reasons == (reason,)
    assert (found.level, found.score, found.action) == (level, score, action)


@pytest.mark.parametrize("fields", JUST_BELOW, ids=str)
def test_just_below_every_bound_is_nominal(fields: dict[str, Any]) -> None:
    assert judged(**fields).level == "nominal"


def test_a_full_queue_is_one_reason_not_two() -> None:
    assert judged(node=NodePressure(queue=100)).reasons == ("queue_full",)


def test_the_first_reason_decides_and_a_critical_sum_is_shed() -> None:
    assert judged(waiting=1, slow_sessions=1).action == "rebuild_or_reroute"
    assert judged(slow_sessions=1, total_refused=1).action == "prefer_faster_route"
    many = judged(total_dropped=1, bulk_shrunk=True, slow_sessions=1)
    assert (many.level, many.score, many.action) == ("critical", 95, "shed_or_reroute")
    assert judged(**{k: v for fields, *_ in CASES.values() for k, v in fields.items()}).score == 100


def test_totals_count_by_what_they_grow() -> None:
    gauge = PressureGauge()
    assert gauge.handle(0.0, Reading(total_dropped=1000)).reasons == (), "what was before is not news"
    assert gauge.handle(1.0, Reading(total_dropped=1000)).reasons == ()
    assert gauge.handle(2.0, Reading(total_dropped=1001)).reasons == ("drops",)
    assert gauge.handle(10.0, Reading(total_dropped=3)).reasons == ("drops",), "counted anew"


def test_a_reason_is_held_a_while_and_then_gone() -> None:
    gauge = PressureGauge()
    gauge.handle(0.0, Reading(slow_sessions=1))
    hold = limits.PRESSURE_HOLD_S
    assert gauge.handle(hold - 0.1, Reading()).level == "warning"
    assert gauge.handle(hold, Reading()).level == "nominal"


def test_the_history_has_every_change_once_and_an_end() -> None:
    gauge = PressureGauge()
    for second in range(10):
        gauge.handle(float(second), Reading(slow_sessions=second < 5))
    changes = [(one.at, one.level, one.action) for one in gauge.current.history]
    assert changes == [(0.0, "warning", "prefer_faster_route"), (7.0, "nominal", "observe")]
    for second in range(10, 1000):
        gauge.handle(10.0 * second, Reading(slow_sessions=second % 2))
    assert len(gauge.current.history) == limits.PRESSURE_HISTORY
    assert gauge.current.history[-1].at == 9990.0


@given(
    st.lists(
        st.builds(
            Reading,
            waiting=st.integers(0, 2),
            bulk_shrunk=st.booleans(),
            slow_sessions=st.integers(0, 1),
            peer=st.integers(0, 100),
            total_dropped=st.integers(0, 5),
            total_refused=st.integers(0, 5),
            total_resumed=st.integers(0, 5),
            node=st.builds(NodePressure, queue=st.integers(0, 100), memory=st.integers(0, 100)),
        ),
        max_size=60,
    )
)
def test_any_readings_give_bounded_pictures_and_neighbours_that_differ(readings: list[Reading]) -> None:
    gauge = PressureGauge()
    for second, reading in enumerate(readings):
        found = gauge.handle(float(second), reading)
        assert 0 <= found.score <= 100
        assert set(found.reasons) <= set(REASONS)
        assert (found.level == "nominal") == (found.score < 30)
        assert (found.level == "critical") == (found.score >= 70)
        assert (found.action == "observe") == (not found.reasons)
    history = gauge.current.history
    pictures = [(one.level, one.reasons, one.action) for one in history]
    assert all(one != other for one, other in itertools.pairwise(pictures))


def test_recommended_windows_shrink_for_bulk_alone() -> None:
    whole = limits.STREAM_WINDOW_BYTES_MAX
    for fields, share in (({}, 1), ({"slow_sessions": 1}, 2), ({"waiting": 1}, 4)):
        found = judged(**fields)
        assert found.recommended_window_bytes(TrafficClass.BULK) == whole // share
        assert found.recommended_window_bytes(TrafficClass.DROPPABLE) == whole // share
        assert found.recommended_window_bytes(TrafficClass.INTERACTIVE) == whole


def test_neighbours_hear_of_changes_at_once_and_of_calm_once() -> None:
    news = PressureNews()
    calm, high, higher = NodePressure(queue=49), NodePressure(queue=50), NodePressure(memory=80)
    told = [
        news.due(now, pressure)
        for now, pressure in [
            (0.0, calm),
            (1.0, high),
            (2.0, high),
            (1.0 + limits.PRESSURE_REPEAT_S, high),
            (7.0, higher),
            (8.0, high),
            (9.0, calm),
            (1000.0, calm),
        ]
    ]
    assert told == [False, True, False, True, True, True, True, False]
    assert limits.PEER_PRESSURE_S > 2 * limits.PRESSURE_REPEAT_S, "one repetition may be lost"


@pytest.mark.parametrize("name", ["queue", "cpu", "memory", "sockets", "network"])
def test_the_highest_value_counts(name: str) -> None:
    assert highest(NodePressure(**{name: 77})) == 77


def test_what_is_withheld_leaves_the_credit_moving() -> None:
    """Credit comes back in quarters of a window: half of it must stay in play."""
    assert [withheld(percent, 400) for percent in (0, 49, 50, 79, 80, 100)] == [0, 0, 100, 100, 200, 200]
