"""When a route is pinged, suspected and given up, on a clock that only the test moves."""

from __future__ import annotations

import math

import pytest

from fabric import limits
from fabric.errors import CLOSE_CODES, RESET_REASONS
from fabric.failover import REASONS, ROUTE_RESETS, RouteWatch, Switch, Switches, reason_of

T0 = 1000.0


def acts(watch: RouteWatch, until: float, answer_s: float | None = None) -> list[tuple[float, str]]:
    """What a punctual shell does until then; pings are answered after so long, or never."""
    happened, nonce = [], 0
    pongs: list[tuple[float, int]] = []
    while True:
        due = watch.timer()
        if pongs and pongs[0][0] <= due:
            at, answered = pongs.pop(0)
            watch.ponged(at, answered)
            continue
        if due > until:
            return happened
        for act in watch.handle(due, due):
            happened.append((round(due - T0, 3), act))
            if act == "ping":
                nonce += 1
                watch.pinged(due, nonce)
                if answer_s is not None:
                    pongs.append((due + answer_s, nonce))


def measured(rtt_s: float) -> RouteWatch:
    """A route whose round trip is known, and which owes nothing."""
    watch = RouteWatch(T0 - rtt_s)
    watch.pinged(T0 - rtt_s, 0)
    watch.ponged(T0, 0)
    watch.not_pinged(T0)
    return watch


@pytest.mark.parametrize(
    ("urgent", "period"), [(True, limits.ROUTE_PING_URGENT_S), (False, limits.ROUTE_PING_S)]
)
def test_a_route_is_pinged_closely_only_while_a_person_may_wait(urgent: bool, period: float) -> None:
    watch = measured(0.02)
    watch.sent(T0, urgent=urgent)
    watch.heard()
    happened = acts(watch, T0 + 3 * period + 0.01, answer_s=0.02)
    assert happened == [(round(period * n, 3), "ping") for n in (1, 2, 3)]


def test_close_pings_end_after_a_while() -> None:
    watch = measured(0.02)
    watch.sent(T0, urgent=True)
    watch.heard()
    times = [at for at, _ in acts(watch, T0 + 20, answer_s=0.02)]
    assert limits.ROUTE_URGENT_S - 0.3 < times[-3] < limits.ROUTE_URGENT_S + 0.3
    assert times[-1] - times[-2] == pytest.approx(limits.ROUTE_PING_S)


@pytest.mark.parametrize("rtt_s", [0.0005, 0.02, 0.1, 0.2, 0.5])
def test_silence_is_suspected_and_then_given_up_in_time(rtt_s: float) -> None:
    watch = measured(rtt_s)
    watch.sent(T0, urgent=False)
    (suspected, first), (failed, second), *_ = acts(watch, T0 + 5)
    assert (first, second) == ("ping", "switch")
    assert suspected == pytest.approx(max(3 * rtt_s, 0.3))
    assert suspected < failed, "the ping of the suspicion had a chance"
    # Opening another way takes one round trip.
    assert failed + rtt_s <= max(0.6, 0.2 + 4 * rtt_s) + 1e-6


def test_one_answer_clears_the_suspicion() -> None:
    watch = measured(0.02)
    watch.sent(T0, urgent=False)
    watch.handle(T0 + 0.3, T0 + 0.3)
    assert watch.suspect
    watch.heard()
    assert not watch.suspect
    assert [act for _, act in acts(watch, T0 + 30, answer_s=0.02)].count("switch") == 0


def test_who_was_away_blames_nobody() -> None:
    watch = measured(0.02)
    watch.sent(T0, urgent=False)
    due = watch.timer()
    assert watch.handle(due + 2.0, due) == []
    assert not watch.suspect
    # If nothing was waiting to be read, it is found out all the same, a little later.
    assert [act for _, act in acts(watch, T0 + 4)][:2] == ["ping", "switch"]


def test_icmp_shortens_the_wait_and_decides_nothing() -> None:
    for answer_s, switches in ((0.02, 0), (None, 1)):
        watch = measured(0.02)
        watch.alarm(T0)
        happened = acts(watch, T0 + 0.2, answer_s=answer_s)
        assert happened[0] == (0.0, "ping")
        assert [act for _, act in happened].count("switch") == switches


def test_a_failed_route_without_another_is_looked_at_again() -> None:
    watch = measured(0.02)
    watch.sent(T0, urgent=False)
    times = [at for at, act in acts(watch, T0 + 3.7) if act == "switch"]
    assert len(times) == 4
    assert times[1] - times[0] == pytest.approx(limits.ROUTE_RETRY_S)


def test_answers_that_nobody_asked_for_say_nothing() -> None:
    watch = measured(0.02)
    watch.sent(T0, urgent=False)
    watch.ponged(T0 + 0.1, 77)
    assert watch.asked_at == T0
    for nonce in range(100, 200):
        watch.pinged(T0, nonce)
    assert len(watch._pings) == limits.PENDING_PINGS


def test_every_end_has_a_reason_out_of_the_set() -> None:
    assert {reason_of(code) for code in (*CLOSE_CODES, *RESET_REASONS, "unheard_of")} <= set(REASONS)
    assert set(RESET_REASONS) >= ROUTE_RESETS
    assert reason_of("idle_timeout") == "timeout"
    assert reason_of("carrier_lost", "no_route_to_host") == "no_route_to_host"
    assert reason_of("fenced", "connection_refused") == "fenced"
    assert reason_of("going_away") == "peer_unavailable"


def test_switches_are_counted_by_reason_and_time() -> None:
    switches = Switches()
    for seconds in (0.04, 0.3, 99.0):
        switches.add(Switch("timeout", seconds))
    switches.add(Switch("fenced", 0.5))
    assert switches.by_reason["timeout"] == 3
    assert switches.by_reason["fenced"] == 1
    assert set(switches.by_reason) == set(REASONS), "a reason that never was counts 0"
    found = dict(switches.cumulative())
    assert (found[0.05], found[0.5], found[30.0], found[math.inf]) == (1, 3, 3, 4)
    assert switches.total_s == pytest.approx(99.84)
