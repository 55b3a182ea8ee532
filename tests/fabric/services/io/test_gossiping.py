"""Gossip over real sessions: what strangers may do to it, and that it comes back after a break."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.errors import StreamError
from fabric.io.streams import Stream
from fabric.services import gossip
from fabric.services.gossip import Have, Message, Reader, Record, Want
from statelog.canonical import encode
from statelog.signing import record_id_of
from tests.support.aio import run, until
from tests.support.authority import node_id
from tests.support.farm import Farm, identity_of, stranger

NAMES = ("control-1", "home-1", "node-9", "usa-los-1")
STRANGER = identity_of("stranger").node_id


def play(tmp_path: Path, script: Callable[[Farm], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Farm(tmp_path) as farm:
            await farm.begin(NAMES)
            await script(farm)

    run(main, timeout_s=90)


async def read_out(stream: Stream) -> None:
    while await stream.read():
        pass


class Talker:
    """A neighbour's end of a gossip stream, written by hand."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.reader = Reader()
        self.heard: list[Message] = []

    async def say(self, message: Message) -> None:
        self.stream.write(gossip.encode(message))
        await self.stream.drain()

    async def hears(self, kind: type[Message]) -> Message:
        while True:
            for message in self.heard:
                if isinstance(message, kind):
                    self.heard.remove(message)
                    return message
            data = await self.stream.read()
            assert data
            self.heard += self.reader.feed(data)


def test_a_stranger_may_carry_a_record_but_not_make_one(tmp_path: Path) -> None:
    async def script(farm: Farm) -> None:
        node = farm.nodes["home-1"]
        good = farm.cluster.registry("web-admin")
        forged = farm.cluster.sign(farm.cluster.registry("other"), ["control-1"])
        async with stranger(farm, "home-1") as session:
            stream = await session.open(gossip.SERVICE, TrafficClass.CONTROL)
            talker = Talker(stream)
            await talker.say(Record(record_id_of(good), encode(good)))  # nobody asked for it
            for record in (good, forged):
                await talker.say(Have((record_id_of(record),)))
                assert await talker.hears(Want) == Want((record_id_of(record),))
                await talker.say(Record(record_id_of(record), encode(record)))
            expected = {"GS-UNASKED": 1, "SL-QUORUM": 1}
            await until(lambda: node.gossip.machine.snapshot().refused.get(STRANGER) == expected)
            assert node.gossip.machine.holds(record_id_of(good))
            assert not node.gossip.machine.holds(record_id_of(forged))
            stream.reset()
        await farm.until(lambda n: n.gossip.machine.holds(record_id_of(good)), ["node-9", "usa-los-1"])

    play(tmp_path, script)


def test_bytes_that_are_no_messages_end_the_stream_and_nothing_else(tmp_path: Path) -> None:
    async def script(farm: Farm) -> None:
        node = farm.nodes["home-1"]
        async with stranger(farm, "home-1") as session:
            stream = await session.open(gossip.SERVICE, TrafficClass.CONTROL)
            stream.write((1 << 31).to_bytes(4, "big"))
            with pytest.raises(StreamError):
                await read_out(stream)
            assert await session.ping() > 0
            assert STRANGER not in node.gossip.machine.snapshot().refused
            assert node.endpoint.counters["service_errors"] == 0
            again = Talker(await session.open(gossip.SERVICE, TrafficClass.CONTROL))
            await again.say(Have(("0" * 64,)))
            assert await again.hears(Want) == Want(("0" * 64,))
            again.stream.reset()

    play(tmp_path, script)


def test_a_neighbour_that_reads_nothing_costs_a_bounded_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(farm: Farm) -> None:
        node = farm.nodes["home-1"]
        record = farm.cluster.registry("web-admin")
        await node.desk.deliver(encode(record))
        async with stranger(farm, "home-1") as session:
            async with await session.open(gossip.SERVICE, TrafficClass.CONTROL) as stream:
                talker = Talker(stream)
                for _ in range(60_000):
                    await talker.say(Want((record_id_of(record),)))
                    if node.gossip.machine.counters["slow_peer"]:
                        break
                assert node.gossip.machine.counters["slow_peer"] > 0
                stream.reset()
            assert await session.ping() > 0

    monkeypatch.setattr(limits, "GOSSIP_QUEUE_BYTES", 20_000)
    monkeypatch.setattr(limits, "GOSSIP_RECORDS_BURST", 1_000_000)
    play(tmp_path, script)


def test_a_stream_that_breaks_is_opened_again(tmp_path: Path) -> None:
    async def script(farm: Farm) -> None:
        node, peer = farm.nodes["home-1"], node_id("usa-los-1")
        await farm.until(lambda n: n.gossip.link_to(peer) is not None, ["home-1"])
        link = node.gossip.link_to(peer)
        assert link is not None
        link.stream.reset()
        await until(lambda: node.gossip.link_to(peer) not in (None, link))
        record = farm.cluster.registry("web-admin")
        await node.desk.deliver(encode(record))
        await farm.until(lambda n: n.gossip.machine.holds(record_id_of(record)), ["usa-los-1"])

    play(tmp_path, script)


@pytest.mark.parametrize("ended", [0, 1])
def test_of_two_streams_with_a_neighbour_either_may_end(tmp_path: Path, ended: int) -> None:
    async def script(farm: Farm) -> None:
        node = farm.nodes["home-1"]
        async with stranger(farm, "home-1") as session:
            talkers: list[Talker] = []
            for number in (1, 2):
                talkers.append(Talker(await session.open(gossip.SERVICE, TrafficClass.CONTROL)))
                await talkers[-1].say(Have(()))
                await until(lambda number=number: len(node.gossip._links.get(STRANGER, ())) == number)
            await talkers[0].say(Have(("0" * 64,)))  # read from the older, answered on the newer
            assert await talkers[1].hears(Want) == Want(("0" * 64,))
            talkers[ended].stream.reset()
            await until(lambda: len(node.gossip._links[STRANGER]) == 1)
            left = talkers[1 - ended]
            await left.say(Have(("1" * 64,)))
            assert await left.hears(Want) == Want(("1" * 64,))
            left.stream.reset()
            await until(lambda: STRANGER not in node.gossip._links)

    play(tmp_path, script)
