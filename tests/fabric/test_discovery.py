"""Probing candidates: when, where, and never at certain addresses."""

from __future__ import annotations

import random

import pytest

from fabric import limits
from fabric.discovery import (
    Candidate,
    Effect,
    Probe,
    ProbeFailed,
    ProbeOk,
    Promoter,
    Timer,
    Verified,
    Withdrawn,
    may_probe,
    parse_networks,
)
from projections.model import Endpoint

RECORD = "a" * 64


def endpoint(number: int) -> Endpoint:
    node = f"{number:064x}"
    return Endpoint(
        f"{node}/0", f"quic://192.0.2.{number}:7000", "direct_quic", "public", "direct", number, 1, "f" * 64
    )


def candidate(
    record_id: str = RECORD, *, endpoints: int = 1, urgent: bool = False, expires_at: int = 10_000
) -> Candidate:
    return Candidate(record_id, "web", tuple(endpoint(i) for i in range(endpoints)), expires_at, urgent)


def promoter(spread_s: float = 10.0, seed: int = 1) -> Promoter:
    return Promoter(random.Random(seed), 0.0, spread_s=spread_s)


def probes(effects: list[Effect]) -> list[str]:
    return [e.endpoint.endpoint_id for e in effects if isinstance(e, Probe)]


def until_probe(made: Promoter) -> tuple[float, list[str]]:
    for _ in range(100):
        at = made.deadline()
        assert at is not None
        found = probes(made.handle(at, Timer()))
        if found:
            return at, found
    pytest.fail("no probe came")


def test_a_live_probe_verifies_the_record() -> None:
    made = promoter()
    assert made.handle(1.0, candidate(urgent=True)) == [Probe(RECORD, "web", endpoint(0))]
    assert made.handle(1.1, ProbeOk(RECORD, endpoint(0).endpoint_id)) == [
        Verified(RECORD, endpoint(0).endpoint_id)
    ]
    assert made.deadline() is None


def test_what_is_not_needed_now_waits_a_random_part_of_the_spread() -> None:
    times = []
    for seed in range(50):
        made = promoter(seed=seed)
        assert made.handle(100.0, candidate()) == []
        times.append(until_probe(made)[0])
    assert all(100.0 <= t <= 110.0 for t in times)
    assert max(times) - min(times) > 5.0


def test_a_record_that_becomes_urgent_is_probed_at_once() -> None:
    made = promoter()
    assert made.handle(1.0, candidate()) == []
    assert probes(made.handle(1.1, candidate(urgent=True))) == [endpoint(0).endpoint_id]


def test_all_endpoints_are_tried_then_again_after_growing_pauses() -> None:
    made = promoter()
    now, tried = 1.0, probes(made.handle(1.0, candidate(endpoints=2, urgent=True)))
    pauses = []
    for _ in range(3):
        assert tried == [endpoint(0).endpoint_id]
        tried = probes(made.handle(now, ProbeFailed(RECORD, tried[0], "timeout")))
        assert tried == [endpoint(1).endpoint_id]
        assert probes(made.handle(now, ProbeFailed(RECORD, tried[0], "timeout"))) == []
        at, tried = until_probe(made)
        pauses.append(at - now)
        now = at
    for pause, expected in zip(pauses, (2.0, 4.0, 8.0), strict=True):
        assert 0.75 * expected <= pause <= 1.25 * expected
    assert made.counters["failed_timeout"] == 6


def test_the_pause_has_a_longest() -> None:
    made, now = promoter(), 1.0
    made.handle(now, candidate(urgent=True, expires_at=10**9))
    pause = 0.0
    for _ in range(30):
        made.handle(now, ProbeFailed(RECORD, endpoint(0).endpoint_id, "timeout"))
        at, _ = until_probe(made)
        pause, now = at - now, at
    assert pause <= 1.25 * limits.PROBE_RETRY_MAX_S


def test_a_late_answer_about_a_withdrawn_record_says_nothing() -> None:
    made = promoter()
    made.handle(1.0, candidate(urgent=True))
    made.handle(1.1, Withdrawn(RECORD))
    assert made.handle(1.2, ProbeOk(RECORD, endpoint(0).endpoint_id)) == []


def test_an_expired_record_is_not_probed() -> None:
    made = promoter()
    made.handle(1.0, candidate(expires_at=5))
    at = made.deadline()
    assert at is not None
    assert probes(made.handle(max(at, 20.0), Timer())) == []
    assert made.snapshot().waiting == 0


def test_probes_under_way_are_bounded_and_urgent_ones_go_first() -> None:
    made = promoter(spread_s=0.0)
    begun = 0
    for i in range(20):
        begun += len(probes(made.handle(1.0, candidate(f"{i:064x}"))))
    assert begun == limits.PROBE_CONCURRENT
    assert made.deadline() is None  # answers come first
    made.handle(1.0, candidate("f" * 64, urgent=True))
    effects = made.handle(9.0, ProbeOk(f"{0:064x}", endpoint(0).endpoint_id))
    assert [e.record_id for e in effects if isinstance(e, Probe)] == ["f" * 64]


def test_probes_are_rationed() -> None:
    made, begun, now = promoter(spread_s=0.0), 0, 1.0
    for i in range(100):
        made.handle(now, candidate(f"{i:064x}"))
    while now < 6.0:
        for record_id in [i for i, w in made._waiting.items() if w.probing]:
            begun += 1
            made.handle(now, ProbeOk(record_id, ""))
        at = made.deadline()
        if at is not None:  # else all places are taken, and the answers above free them
            now = max(at, now)
            made.handle(now, Timer())
    assert begun <= limits.PROBE_CONCURRENT + 5 * limits.PROBE_PER_S + 1
    assert begun >= 5 * limits.PROBE_PER_S


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "127.8.9.1",
        "::1",
        "169.254.169.254",
        "169.254.1.1",
        "fe80::1",
        "fe80::1%eth0",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "240.0.0.1",
        "fd00:ec2::254",
        "100.100.100.200",
        "192.0.0.192",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "example.org",
        "",
    ],
)
def test_addresses_where_no_service_lives_are_not_probed(ip: str) -> None:
    assert not may_probe(ip, ())


@pytest.mark.parametrize(
    "ip", ["192.0.2.1", "10.1.2.3", "203.0.113.9", "2001:db8::1", "fd12::1", "::ffff:10.0.0.1"]
)
def test_other_addresses_are(ip: str) -> None:
    assert may_probe(ip, ())


def test_the_signed_policy_opens_its_networks_and_no_others() -> None:
    allowed = parse_networks(["127.0.0.0/8", "not a network", 7, "::1/128", "10.0.0.1/8"])
    assert may_probe("127.0.0.1", allowed)
    assert may_probe("::1", allowed)
    assert may_probe("::ffff:127.0.0.1", allowed)
    assert not may_probe("169.254.169.254", allowed)
    assert not may_probe("fe80::1", allowed)
