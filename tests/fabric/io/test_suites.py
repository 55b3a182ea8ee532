"""The cipher of streams on real sockets: what this machine prefers, and what two ends agree on."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from fabric.classes import Mode, TrafficClass
from fabric.errors import StreamError
from fabric.io import suites
from fabric.io.streams import Stream
from fabric.wire import AES_256_GCM, CHACHA20_POLY1305, SUITES
from tests.support.aio import run
from tests.support.endpoints import SERVICES, assert_alive, bind, dial, engines, send_and_hash
from tests.support.farm import Farm

ORDERS = list(permutations(SUITES))


def suite_of(stream: Stream) -> str:
    keys = stream._machine._binding.keys
    assert keys is not None
    return keys.suite


@pytest.mark.parametrize("order", ORDERS)
def test_the_faster_one_comes_first(monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]) -> None:
    monkeypatch.setattr(suites, "_seconds", order.index)
    assert suites.suites_by_speed.__wrapped__() == order


def test_what_was_measured_is_a_time_and_stays_for_the_process() -> None:
    assert all(0 < suites._seconds(suite) < 1 for suite in SUITES)
    assert sorted(suites.suites_by_speed()) == sorted(SUITES)
    assert suites.suites_by_speed() is suites.suites_by_speed()


@engines
@pytest.mark.parametrize("order", ORDERS)
def test_the_responders_preference_counts(engines: tuple[str, str], order: tuple[str, ...]) -> None:
    async def main() -> None:
        async with (
            await bind(1, engine=engines[0], suites=order[::-1]) as a,
            await bind(2, engine=engines[1], suites=order, services=SERVICES) as b,
        ):
            connection = await dial(a, b)
            for mode in (Mode.STREAM, Mode.DATAGRAM):
                stream = await connection.open("echo", TrafficClass.INTERACTIVE, mode=mode)
                assert suite_of(stream) == order[0]
                stream.reset()
            assert await send_and_hash(connection, 300_000, TrafficClass.BULK)

    run(main)


def test_an_end_that_takes_nothing_of_what_is_offered_refuses_with_a_code() -> None:
    async def main() -> None:
        async with (
            await bind(1, suites=(CHACHA20_POLY1305,)) as a,
            await bind(2, suites=(AES_256_GCM,), services=SERVICES) as b,
            await bind(3, suites=(CHACHA20_POLY1305, AES_256_GCM)) as c,
        ):
            connection = await dial(a, b)
            with pytest.raises(StreamError) as refused:
                await connection.open("echo", TrafficClass.RELIABLE)
            assert refused.value.code == "seal_suite"
            assert await connection.ping() > 0
            other = await dial(c, b)
            assert await send_and_hash(other, 1000, TrafficClass.RELIABLE)
            await assert_alive(c, b)

    run(main)


def test_a_node_takes_what_its_configuration_names_or_what_it_does_faster(tmp_path: Path) -> None:
    async def main() -> None:
        async with Farm(tmp_path) as farm:
            named = await farm.start("phone-a", seal_suites=(CHACHA20_POLY1305,))
            assert named.endpoint.suites == (CHACHA20_POLY1305,)
            usual = await farm.start("home-1")
            assert usual.endpoint.suites == suites.suites_by_speed()

    run(main)
