"""The limit on bytes under way, on simulated paths: the pipe stays full, the queue short."""

from __future__ import annotations

from collections import deque

import pytest

from fabric import limits
from fabric.flight import FlightLimit

STEP_S = 0.001


class Path:
    """A sender that always has more, a bottleneck with a queue, a receiver that acknowledges in turns."""

    def __init__(self, rate: float, delay_s: float, turn_s: float = 0.001) -> None:
        self.rate = rate
        self.delay_s = delay_s
        self.turn_s = turn_s
        self.now = 100.0
        self.flight = FlightLimit(self.now)
        self.sent = 0
        self.packet = max(1200, int(rate * STEP_S / 8))
        self.window = 10 * self.packet  # the engine's own, in slow start, which no loss ends
        self.in_flight = 0
        self.free_at = self.now
        self.acks: deque[tuple[float, float]] = deque()
        self.queue_s = 0.0
        self.rtt = 0.0

    @property
    def delivered(self) -> int:
        return self.sent - self.in_flight

    def run(self, seconds: float, *, demand: float = float("inf")) -> float:
        """Let it run; the share of the bottleneck's rate that got through. `demand`: bytes a second."""
        end, before, began = self.now + seconds, self.delivered, self.now
        self.queue_s = 0.0
        offered = self.sent
        while self.now < end:
            while self.acks and self.acks[0][0] <= self.now:
                _, sent_at = self.acks.popleft()
                self.in_flight -= self.packet
                self.window += self.packet
                self.rtt = self.now - sent_at
            room = min(self.window - self.in_flight, self.flight.room(self.now, self.in_flight))
            due = min(room, int((self.now - began) * demand) + offered - self.sent if demand < 1e12 else room)
            starved = due < room
            for _ in range(max(0, due) // self.packet):
                start = max(self.now, self.free_at)
                self.free_at = start + self.packet / self.rate
                self.queue_s = max(self.queue_s, start - self.now)
                arrives = self.free_at + self.delay_s
                turn = -(-arrives // self.turn_s) * self.turn_s
                self.acks.append((turn, self.now))
                self.sent += self.packet
                self.in_flight += self.packet
            self.flight.update(self.now, self.sent, self.in_flight, self.rtt or None, starved=starved)
            self.now += STEP_S
        return (self.delivered - before) / seconds / self.rate


@pytest.mark.parametrize(
    ("rate", "delay_s"), [(200e6, 0.0002), (30e6, 0.0002), (12.5e6, 0.1), (1.25e6, 0.03), (125e6, 0.02)]
)
def test_the_pipe_is_full_and_the_queue_short(rate: float, delay_s: float) -> None:
    path = Path(rate, delay_s)
    path.run(3.0)
    assert path.run(4.0) > 0.95
    queue_s = 2 * path.flight.min_rtt + limits.FLIGHT_QUEUE_S
    assert path.queue_s <= max(queue_s, limits.FLIGHT_BYTES_MIN / rate) * 1.3


def test_before_the_rate_is_known_nothing_is_held_back() -> None:
    flight = FlightLimit(0.0)
    assert flight.room(0.0, 10 << 20) == limits.SESSION_UNSENT_BYTES


def test_a_faster_path_is_found() -> None:
    path = Path(5e6, 0.02)
    path.run(3.0)
    path.rate = 40e6
    path.run(1.5)
    assert path.run(1.0) > 0.95


def test_a_slower_path_gets_less() -> None:
    path = Path(40e6, 0.02)
    path.run(3.0)
    path.rate = 5e6
    path.run(2.0)
    path.run(1.0)
    assert path.queue_s < 0.1


def test_little_traffic_says_nothing_about_the_path() -> None:
    path = Path(20e6, 0.01)
    path.run(3.0)
    known = path.flight.rate
    path.run(3.0, demand=50e3)
    assert path.flight.rate == pytest.approx(known, rel=0.1)
    path.run(0.1)
    assert path.run(1.0) > 0.95


def test_a_longer_path_is_believed_after_a_probe() -> None:
    path = Path(12.5e6, 0.01)
    path.run(3.0)
    path.delay_s = 0.08
    path.run(limits.FLIGHT_MIN_RTT_S + 2)
    assert path.flight.min_rtt == pytest.approx(0.08, rel=0.3)
    assert path.run(3.0) > 0.95


def test_the_round_trip_stays_honest_under_load() -> None:
    """Without probes each renewal would take the queue for the path, and allow a longer queue."""
    path = Path(12.5e6, 0.01)
    path.run(4 * limits.FLIGHT_MIN_RTT_S)
    assert path.flight.min_rtt < 0.015
    assert path.run(limits.FLIGHT_MIN_RTT_S) > 0.95
