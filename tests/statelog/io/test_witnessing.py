"""Running a witness: its memory, its source, its queue."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from statelog import limits
from statelog.checkpoint import parse_signed_checkpoint, verify_cosignature, witness_key
from statelog.errors import SourceUnreadable
from statelog.io.database import open_database
from statelog.io.store import Store
from statelog.io.witnessing import WitnessHost
from statelog.note import parse_signature_lines
from statelog.witness import WitnessState, encode_add_checkpoint
from tests.support.authority import Cluster, make_cluster, signer
from tests.support.logs import WITNESSES, ClusterEntries, consistency, replay_of, request_body
from tests.support.partitions import Partition


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return make_cluster()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Store]:
    engine = open_database(f"sqlite:///{tmp_path / 'witness.db'}", create=True)
    yield Store(engine)
    engine.dispose()


def host(cluster: Cluster, memory: Store, source: ClusterEntries) -> WitnessHost:
    return WitnessHost(
        cluster.anchor, "witness-1.example", signer("witness-1"), memory, source, lambda: float(cluster.now)
    )


def ask(witness: WitnessHost, body: bytes) -> tuple[int, bytes]:
    reply = asyncio.run(witness.answer(body))
    return reply.status, reply.body


def test_what_is_cosigned_is_remembered(cluster: Cluster, memory: Store) -> None:
    source = ClusterEntries(cluster)
    assert ask(host(cluster, memory, source), request_body(cluster, 0, 9))[0] == 200
    replay = replay_of(cluster, 9)
    assert memory.witness_state(replay.origin) == WitnessState(replay.origin, 9, replay.root(), 1)
    again = host(cluster, memory, source)  # another process on the same folder
    assert asyncio.run(again.load()).size == 9
    assert ask(again, request_body(cluster, 0, 9)) == (409, b"9\n")
    assert ask(again, request_body(cluster, 9, 12))[0] == 200


def test_two_processes_with_one_key_never_cosign_two_histories(cluster: Cluster, memory: Store) -> None:
    """The second one's memory moved under it: it answers as the first would."""
    first, second = (host(cluster, memory, ClusterEntries(cluster)) for _ in range(2))
    asyncio.run(second.load())
    assert ask(first, request_body(cluster, 0, 9))[0] == 200
    assert ask(second, request_body(cluster, 0, 5)) == (409, b"9\n")


def test_a_source_that_is_away_is_503_until_it_is_back(cluster: Cluster, memory: Store) -> None:
    source = ClusterEntries(cluster)
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
    assert ask(host(cluster, memory, ClusterEntries(cluster)), request_body(cluster, 0, 9))[0] == 200
    source = ClusterEntries(cluster)
    leaves = cluster.leaves()
    source.leaves = leaves[:kept] or [leaves[1], *leaves[1:]]
    status, body = ask(host(cluster, memory, source), request_body(cluster, 9, 12))
    assert (status, b"source" in body) == (503, True)


def test_the_queue_is_bounded(cluster: Cluster, memory: Store) -> None:
    async def main() -> list[int]:
        source = ClusterEntries(cluster)
        source.held.clear()
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
    witness = host(cluster, memory, ClusterEntries(cluster))
    asyncio.run(witness.load())
    with memory.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE witness_state RENAME TO lost")
    assert ask(witness, request_body(cluster, 0, 5))[0] == 503
    with memory.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE lost RENAME TO witness_state")
    assert ask(witness, request_body(cluster, 0, 5))[0] == 200


class Beside:
    """A partition's log whose term is final, and a source of both logs."""

    def __init__(self) -> None:
        self.cluster = make_cluster()
        self.eu = Partition(self.cluster)
        self.source = ClusterEntries(self.cluster)
        self.source.beside[self.eu.log] = ClusterEntries(self.cluster)
        self.source.beside[self.eu.log].leaves = self.eu.leaves
        self.source.final = [self.cluster.log.size]

    def lease(self, route: str) -> None:
        self.eu.append(self.eu.lease(f"eu-1/{route}"))

    def body(self, old: int) -> bytes:
        size = self.eu.replay.size
        return encode_add_checkpoint(old, consistency(self.eu.leaves, old, size), self.eu.head())


@pytest.fixture
def beside() -> Beside:
    return Beside()


def test_the_log_of_a_partition_is_cosigned_beside_the_authority_log(beside: Beside, memory: Store) -> None:
    witness = host(beside.cluster, memory, beside.source)
    beside.lease("a")
    status, body = ask(witness, beside.body(0))
    assert status == 200
    (line,) = parse_signature_lines(body)
    _, note = parse_signed_checkpoint(beside.eu.head())
    key = witness_key("witness-1.example", signer("witness-1").public)
    assert verify_cosignature(note.text, line, key) == beside.cluster.now
    assert ask(witness, request_body(beside.cluster, 0, 9))[0] == 200  # the authority log has its own memory
    again = host(beside.cluster, memory, beside.source)  # another process on the same folder
    beside.lease("b")
    assert ask(again, beside.body(0)) == (409, b"1\n")
    assert ask(again, beside.body(1))[0] == 200


def test_a_partitions_entry_waits_for_what_it_rests_on(beside: Beside, memory: Store) -> None:
    witness = host(beside.cluster, memory, beside.source)
    beside.cluster.append(beside.cluster.policy())
    beside.lease("a")  # rests on the policy, which is not final yet
    status, body = ask(witness, beside.body(0))
    assert (status, b"SL-AUTHORITY" in body) == (503, True)
    beside.source.final.append(beside.cluster.log.size)
    assert ask(witness, beside.body(0))[0] == 200


def test_a_log_that_no_final_term_has_opened_is_unknown(beside: Beside, memory: Store) -> None:
    witness = host(beside.cluster, memory, beside.source)
    beside.lease("a")
    beside.source.final = [beside.eu.opened]
    assert ask(witness, beside.body(0))[0] == 404
    beside.source.final = [beside.cluster.log.size]
    assert ask(witness, beside.body(0))[0] == 200


def test_an_authority_log_that_its_witnesses_did_not_make_final_is_503(beside: Beside, memory: Store) -> None:
    witness = host(beside.cluster, memory, beside.source)
    beside.lease("a")
    beside.source.witnesses = ("witness-1",)
    assert ask(witness, beside.body(0))[0] == 503
    beside.source.witnesses = WITNESSES
    assert ask(witness, beside.body(0))[0] == 200
