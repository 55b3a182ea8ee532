"""Running a witness: its memory, its source, its queue."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from statelog import limits
from statelog.errors import SourceUnreadable
from statelog.io.database import open_database
from statelog.io.store import Store
from statelog.io.witnessing import WitnessHost
from statelog.witness import WitnessState
from tests.support.authority import Cluster, make_cluster, signer
from tests.support.logs import replay_of, request_body


class MemorySource:
    """Leaves of a cluster, at most `per_fetch` at once; `away` raises."""

    def __init__(self, cluster: Cluster) -> None:
        self.leaves_of = cluster.leaves()
        self.away = False
        self.per_fetch = 4
        self.held: asyncio.Event | None = None

    async def leaves(self, start: int, end: int) -> list[bytes]:
        if self.held is not None:
            await self.held.wait()
        if self.away:
            raise SourceUnreadable("the source is away")
        return self.leaves_of[start : min(end, start + self.per_fetch)]


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return make_cluster()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Store]:
    engine = open_database(f"sqlite:///{tmp_path / 'witness.db'}", create=True)
    yield Store(engine)
    engine.dispose()


def host(cluster: Cluster, memory: Store, source: MemorySource) -> WitnessHost:
    return WitnessHost(
        cluster.anchor, "witness-1.example", signer("witness-1"), memory, source, lambda: float(cluster.now)
    )


def ask(witness: WitnessHost, body: bytes) -> tuple[int, bytes]:
    reply = asyncio.run(witness.answer(body))
    return reply.status, reply.body


def test_what_is_cosigned_is_remembered(cluster: Cluster, memory: Store) -> None:
    source = MemorySource(cluster)
    assert ask(host(cluster, memory, source), request_body(cluster, 0, 9))[0] == 200
    replay = replay_of(cluster, 9)
    assert memory.witness_state(replay.origin) == WitnessState(replay.origin, 9, replay.root(), 1)
    again = host(cluster, memory, source)  # another process on the same folder
    assert asyncio.run(again.load()).size == 9
    assert ask(again, request_body(cluster, 0, 9)) == (409, b"9\n")
    assert ask(again, request_body(cluster, 9, 12))[0] == 200


def test_two_processes_with_one_key_never_cosign_two_histories(cluster: Cluster, memory: Store) -> None:
    """The second one's memory moved under it: it answers as the first would."""
    first, second = (host(cluster, memory, MemorySource(cluster)) for _ in range(2))
    asyncio.run(second.load())
    assert ask(first, request_body(cluster, 0, 9))[0] == 200
    assert ask(second, request_body(cluster, 0, 5)) == (409, b"9\n")


def test_a_source_that_is_away_is_503_until_it_is_back(cluster: Cluster, memory: Store) -> None:
    source = MemorySource(cluster)
    source.away = True
    witness = host(cluster, memory, source)
    with pytest.raises(SourceUnreadable):
        asyncio.run(witness.load())
    assert ask(witness, request_body(cluster, 0, 5))[0] == 503
    source.away = False
    assert ask(witness, request_body(cluster, 0, 5))[0] == 200
    assert witness.counters == {"answered_503": 1, "answered_200": 1}


@pytest.mark.parametrize("kept", [0, 5])
def test_a_source_of_another_history_is_503(cluster: Cluster, memory: Store, kept: int) -> None:
    """It differs from the first entry on, or ends before what was cosigned."""
    assert ask(host(cluster, memory, MemorySource(cluster)), request_body(cluster, 0, 9))[0] == 200
    source = MemorySource(cluster)
    source.leaves_of = source.leaves_of[:kept] or [source.leaves_of[1], *source.leaves_of[1:]]
    status, body = ask(host(cluster, memory, source), request_body(cluster, 9, 12))
    assert (status, b"source" in body) == (503, True)


def test_the_queue_is_bounded(cluster: Cluster, memory: Store) -> None:
    async def main() -> list[int]:
        source = MemorySource(cluster)
        source.held = asyncio.Event()
        witness = host(cluster, memory, source)
        body = request_body(cluster, 0, 5)
        asked = [asyncio.ensure_future(witness.answer(body)) for _ in range(limits.MAX_WITNESS_QUEUE + 3)]
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        refused = [one.result().status for one in done]
        source.held.set()
        return refused + [one.status for one in await asyncio.gather(*asked) if one.status != 503]

    statuses = asyncio.run(main())
    assert sorted(set(statuses)) == [200, 409, 503]
    assert (statuses.count(503), statuses.count(200)) == (2, 1)


def test_a_memory_that_fails_answers_503_and_begins_again(cluster: Cluster, memory: Store) -> None:
    witness = host(cluster, memory, MemorySource(cluster))
    asyncio.run(witness.load())
    with memory.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE witness_state RENAME TO lost")
    assert ask(witness, request_body(cluster, 0, 5))[0] == 503
    with memory.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE lost RENAME TO witness_state")
    assert ask(witness, request_body(cluster, 0, 5))[0] == 200
