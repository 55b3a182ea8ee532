"""The witness service over real sessions: byte for byte, entries on demand, and strangers who stall."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.io.connection import Connection
from fabric.services.io.channel import Channel
from fabric.services.witness import CODEC, SERVICE, AddCheckpoint, Answer, Entries, Message, Need
from statelog.checkpoint import cosignature_timestamp
from statelog.io.cosign import CosignRound
from statelog.merkle import EMPTY_ROOT
from statelog.note import parse_signature_lines
from statelog.replay import Replay
from statelog.witness import encode_add_checkpoint
from tests.support.aio import run
from tests.support.authority import make_cluster, signer
from tests.support.farm import Farm, stranger
from tests.support.logs import head_note, replay_of

ALONE = ("home-1",)


async def ask(session: Connection, request: AddCheckpoint, leaves: list[bytes]) -> tuple[Answer, list[Need]]:
    """One question, answering every `need` from `leaves`."""
    async with await session.open(SERVICE, TrafficClass.CONTROL) as stream:
        channel: Channel[Message] = Channel(stream, CODEC)
        await channel.send(request)
        needs: list[Need] = []
        while True:
            message = await channel.receive()
            if isinstance(message, Answer):
                return message, needs
            assert isinstance(message, Need)
            needs.append(message)
            await channel.send(Entries(message.start, leaves[message.start : message.end]))


def test_it_asks_for_what_it_lacks_replays_it_and_cosigns(tmp_path: Path) -> None:
    async def main() -> None:
        async with Farm(tmp_path) as farm:
            await farm.start("home-1")
            leaves = farm.cluster.leaves()
            body = encode_add_checkpoint(0, (), head_note(replay_of(farm.cluster)))
            async with stranger(farm, "home-1") as session:
                answer, needs = await ask(session, AddCheckpoint(body), leaves)
                assert answer.status == 200
                assert needs == [Need(0, len(leaves))]
                (line,) = parse_signature_lines(answer.body)
                assert line.name == "witness-1.example"
                assert abs(cosignature_timestamp(line) - time.time()) < 60
                again, needs = await ask(session, AddCheckpoint(body), leaves)
                assert (again.status, again.body) == (409, f"{len(leaves)}\n".encode())
                assert needs == []

    run(main)


def test_entries_that_come_along_are_not_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with Farm(tmp_path) as farm:
            await farm.start("home-1")
            leaves = farm.cluster.leaves()
            body = encode_add_checkpoint(0, (), head_note(replay_of(farm.cluster)))
            async with stranger(farm, "home-1") as session:
                answer, needs = await ask(session, AddCheckpoint(body, 0, leaves), leaves)
                assert (answer.status, needs) == (200, [])

    run(main)


def test_what_an_auditor_refuses_is_not_cosigned_and_the_memory_survives(tmp_path: Path) -> None:
    async def main() -> None:
        async with Farm(tmp_path) as farm:
            await farm.start("home-1")
            leaves = farm.cluster.leaves()
            good = encode_add_checkpoint(0, (), head_note(replay_of(farm.cluster)))
            stolen = encode_add_checkpoint(0, (), head_note(replay_of(farm.cluster), by="control-1"))
            async with stranger(farm, "home-1") as session:
                answer, _ = await ask(session, AddCheckpoint(stolen), leaves)
                assert answer.status == 403
                answer, _ = await ask(session, AddCheckpoint(b"old x\n\n"), leaves)
                assert answer.status == 400
                forged = [*leaves[:-1], leaves[-1][:-3] + b"9" + leaves[-1][-2:]]
                answer, _ = await ask(session, AddCheckpoint(good), forged)
                assert answer.status in (422, 503)
                answer, _ = await ask(session, AddCheckpoint(good), leaves)
                assert answer.status == 200
            await farm.stop("home-1")
            await farm.start("home-1")
            async with stranger(farm, "home-1") as session:
                answer, _ = await ask(session, AddCheckpoint(good), leaves)
                assert answer.status == 409

    run(main)


def test_a_stranger_that_stalls_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Farm(tmp_path) as farm:
            await farm.start("home-1")
            leaves = farm.cluster.leaves()
            body = encode_add_checkpoint(0, (), head_note(replay_of(farm.cluster)))
            async with (
                stranger(farm, "home-1") as session,
                stranger(farm, "home-1", known_as="another") as honest,
            ):
                stream = await session.open(SERVICE, TrafficClass.CONTROL)
                stalled: Channel[Message] = Channel(stream, CODEC)
                await stalled.send(AddCheckpoint(body))
                assert await stalled.receive() == Need(0, len(leaves))  # and never an answer to it
                async with asyncio.timeout(40):
                    answer = await stalled.receive()
                    assert isinstance(answer, Answer)
                    assert answer.status == 503
                    found, _ = await ask(honest, AddCheckpoint(body), leaves)
                assert found.status == 200
                stream.reset()

    monkeypatch.setattr(limits, "WITNESS_STRANGER_TIMEOUT_S", 0.5)
    run(main)


def test_what_was_read_for_a_stranger_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor after one who stalls: only whether the source still holds it."""

    async def main() -> None:
        async with Farm(tmp_path) as farm:
            await farm.start("home-1")
            leaves = farm.cluster.leaves()
            size = len(leaves)
            stolen = AddCheckpoint(
                encode_add_checkpoint(0, (), head_note(replay_of(farm.cluster), by="control-1"))
            )
            async with stranger(farm, "home-1") as session:
                answer, needs = await ask(session, stolen, leaves)
                assert (answer.status, needs) == (403, [Need(0, size)])
                stream = await session.open(SERVICE, TrafficClass.CONTROL)
                stalled: Channel[Message] = Channel(stream, CODEC)
                await stalled.send(stolen)
                assert await stalled.receive() == Need(size - 1, size)
                async with asyncio.timeout(40):
                    late = await stalled.receive()
                assert isinstance(late, Answer)
                assert late.status == 503
                stream.reset()
                answer, needs = await ask(session, stolen, leaves)
                assert (answer.status, needs) == (403, [Need(size - 1, size)])

    monkeypatch.setattr(limits, "WITNESS_STRANGER_TIMEOUT_S", 0.5)
    run(main)


def test_the_host_and_the_witness_speak_the_same_bytes() -> None:
    """A round's request for a witness that knows nothing is a request of C2SP tlog-witness."""
    cluster = make_cluster()
    replay: Replay = replay_of(cluster)
    note = head_note(replay)

    def read_node(level: int, index: int) -> bytes:
        raise AssertionError((level, index))

    request = CosignRound(note, (replay.state.witnesses,)).request(0, read_node)
    assert request == encode_add_checkpoint(0, (), note)
    assert request.startswith(b"old 0\n\n")
    assert EMPTY_ROOT not in request
    assert signer("witness-1").public not in request
