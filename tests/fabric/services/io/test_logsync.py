"""Serving the log to whoever asks, over real sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fabric.classes import TrafficClass
from fabric.errors import FabricError
from fabric.io.connection import Connection
from fabric.io.status import status
from fabric.services.io.channel import Channel
from fabric.services.io.logsync import Changed
from fabric.sync import CODEC, SERVICE, Compare, Entries, Fetch, Follow, Head, Message, Refuse
from statelog.audit import audit
from statelog.canonical import encode
from statelog.checkpoint import parse_signed_checkpoint
from statelog.io.sources import open_source
from statelog.leaf import split_leaf
from tests.support.aio import run, until
from tests.support.authority import node_id
from tests.support.farm import Farm, stranger
from tests.support.logs import cosigned, forked, head_note, replay_of

NAMES = ("control-1", "home-1", "node-9", "usa-los-1")


def play(tmp_path: Path, script: Callable[[Farm, Connection], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Farm(tmp_path) as farm:
            await farm.begin(NAMES)
            async with stranger(farm, "home-1") as session:
                await script(farm, session)

    run(main, timeout_s=90)


async def channel(session: Connection) -> Channel[Message]:
    return Channel(await session.open(SERVICE, TrafficClass.RELIABLE), CODEC)


def test_a_follower_gets_the_log_its_head_and_every_new_one(tmp_path: Path) -> None:
    async def script(farm: Farm, session: Connection) -> None:
        one = await channel(session)
        size = farm.cluster.log.size
        await one.send(Follow("authority", 0, farm.cluster.anchor))
        entries, head = await one.receive(), await one.receive()
        assert entries == Entries(0, farm.cluster.leaves())
        assert isinstance(head, Head)
        assert parse_signed_checkpoint(head.note)[0].size == size
        record = farm.cluster.policy("other", {"cidrs": []})
        await farm.log(record)
        while True:  # newer cosignatures of the same head may come first
            message = await one.receive()
            if isinstance(message, Entries):
                break
        assert message.start == size
        assert [split_leaf(leaf).record for leaf in message.leaves] == [encode(record)]
        followers = farm.nodes["home-1"].sync_server.followers
        assert node_id("stranger") in followers
        one.stream.reset()
        await until(lambda: node_id("stranger") not in followers)

    play(tmp_path, script)


def test_who_wants_only_heads_gets_only_heads(tmp_path: Path) -> None:
    async def script(farm: Farm, session: Connection) -> None:
        one = await channel(session)
        await one.send(Follow("authority", 0, farm.cluster.anchor, entries=False))
        assert isinstance(await one.receive(), Head)
        await farm.log(farm.cluster.policy("other", {"cidrs": []}))
        message = await one.receive()
        assert isinstance(message, Head)
        one.stream.reset()

    play(tmp_path, script)


def test_what_is_not_served_is_refused_by_name(tmp_path: Path) -> None:
    async def script(farm: Farm, session: Connection) -> None:
        for request, code in (
            (Follow("authority", 0, "0" * 64), "other_anchor"),
            (Follow("routes-eu-1", 0, farm.cluster.anchor), "unknown_log"),
            (Fetch("routes-eu-1", 0, 1), "unknown_log"),
            (Fetch("authority", 1_000, 1_001), "unavailable"),
            (Compare("routes-eu-1", b"x"), "unknown_log"),
        ):
            one = await channel(session)
            await one.send(request)
            answer = await one.receive()
            assert isinstance(answer, Refuse)
            assert answer.code == code
            one.stream.reset()
        one = await channel(session)
        await one.send(Fetch("authority", 2, 5))
        assert await one.receive() == Entries(2, farm.cluster.leaves()[2:5])
        one.stream.reset()

    play(tmp_path, script)


def test_heads_are_exchanged_and_a_contradiction_alarms_everywhere(tmp_path: Path) -> None:
    """A peer has a head that the sequencer signed over another history: kept, shown, found by an audit."""

    async def script(farm: Farm, session: Connection) -> None:
        node = farm.nodes["home-1"]
        assert status(node)["alarms"] == []
        fork = forked(farm.cluster)
        one = await channel(session)
        await one.send(Compare("authority", head_note(replay_of(fork))))
        answer = await one.receive()
        assert isinstance(answer, Head)
        assert parse_signed_checkpoint(answer.note)[0].root == farm.cluster.log.tree.root()
        await until(lambda: [alarm["code"] for alarm in status(node)["alarms"]] == ["SL-SPLIT"])
        assert status(node)["log"]["split_views"] == 1
        (kept,) = node.replica.store.split_views()
        assert kept.source == node_id("stranger")
        with open_source(f"sqlite:///{tmp_path / 'home-1' / 'node.db'}") as source:
            found = audit(source, farm.cluster.anchor).findings
        assert [one.code for one in found] == ["SL-SPLIT"]
        assert farm.nodes["node-9"].replica.store.split_views() == []

    play(tmp_path, script)


async def exchange(farm: Farm, name: str, other: str) -> None:
    """Node `name` asks `other` for its head, over whichever of two sessions stays."""
    while True:
        await farm.until_connected(name, other)
        node = farm.nodes[name]
        try:
            return await node.sync_client.compare(node.peers.sessions()[node_id(other)])
        except FabricError as error:
            if error.code != "going_away":
                raise


@pytest.mark.parametrize("asking", [("home-1", "node-9"), ("node-9", "home-1")], ids=["asks", "is-asked"])
def test_a_node_that_shows_less_than_before_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asking: tuple[str, str]
) -> None:
    """node-9 goes back, and home-1 finds it out, whichever of the two asks first."""

    async def script(farm: Farm, session: Connection) -> None:
        del session
        node, other = farm.nodes["home-1"], farm.nodes["node-9"]
        size = farm.cluster.log.size
        await exchange(farm, "home-1", "node-9")
        _, asked = node.replica.asking(node_id("node-9"))
        assert asked.before is not None
        assert asked.before.size == size
        assert status(node)["alarms"] == []

        old = cosigned(head_note(replay_of(farm.cluster, size - 1)), at=farm.cluster.now)
        with monkeypatch.context() as patched:
            patched.setattr(other.replica, "head_note", lambda log="authority": old)
            await exchange(farm, *asking)
            await until(lambda: [alarm["code"] for alarm in status(node)["alarms"]] == ["SL-ROLLBACK"])
        (kept,) = node.replica.store.rollbacks()
        assert (kept.source, kept.earlier_size, kept.size) == (node_id("node-9"), size, size - 1)
        assert other.replica.store.rollbacks() == []

        await exchange(farm, *asking)
        await until(lambda: status(node)["alarms"] == [])

    play(tmp_path, script)


def test_who_is_followed_and_shows_less_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of heads goes back: that alone proves nothing, what the peer then answers does."""

    async def script(farm: Farm, session: Connection) -> None:
        del session
        node, source = farm.nodes["home-1"], farm.nodes["control-1"]
        await until(lambda: status(node)["log"]["source"] == node_id("control-1"))
        await exchange(farm, "home-1", "control-1")
        size = farm.cluster.log.size
        old = cosigned(head_note(replay_of(farm.cluster, size - 1)), at=farm.cluster.now)
        monkeypatch.setattr(source.replica, "head_note", lambda log="authority": old)
        source.changed.set(source.changed.version + 1)
        await until(lambda: [alarm["code"] for alarm in status(node)["alarms"]] == ["SL-ROLLBACK"])
        (kept,) = node.replica.store.rollbacks()
        assert (kept.source, kept.earlier_size, kept.size) == (node_id("control-1"), size, size - 1)

    play(tmp_path, script)


def test_nodes_exchange_heads_when_they_meet(tmp_path: Path) -> None:
    async def script(farm: Farm, session: Connection) -> None:
        del session
        await until(lambda: any(n.sync_client.counters["compared"] for n in farm.nodes.values()))
        assert all(node.replica.store.split_views() == [] for node in farm.nodes.values())

    play(tmp_path, script)


def test_everybody_who_waits_hears_of_a_change() -> None:
    async def main() -> None:
        changed = Changed()
        changed.set(3)
        assert await changed.beyond(2) == 3
        changed.set(2)
        assert changed.version == 3

    run(main)
