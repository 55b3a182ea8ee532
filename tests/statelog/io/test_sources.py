"""An audit of a real database: sound, damaged byte by byte and column by column, and while it grows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from statelog.audit import Report, audit
from statelog.audit_store import StoredAhead, StoredLog
from statelog.canonical import encode
from statelog.errors import SourceUnreadable, UsageError
from statelog.io import tables
from statelog.io.cosign import collect
from statelog.io.database import open_database, write_transaction
from statelog.io.evidence import Evidence, KeptSplitView
from statelog.io.loading import load_replay
from statelog.io.sequencer import Sequencer
from statelog.io.sources import open_resources, open_source
from statelog.io.store import Store
from statelog.io.verify_pool import VerifyPool
from statelog.signing import record_id_of
from statelog.splitview import SplitView
from statelog.times import parse_time
from tests.support.authority import Cluster, make_cluster, signer
from tests.support.logs import WITNESSES, WitnessHost, leases, new_store

CLUSTER: Cluster = make_cluster()
SIZE = CLUSTER.log.size + 6


def cosign_all(engine: sa.Engine) -> None:
    store = Store(engine)
    leaves = [row.leaf for row in store.entries(0)]
    hosts = {f"{name}.example": WitnessHost(CLUSTER, name, lambda: leaves) for name in WITNESSES}

    async def ask(name: str, body: bytes) -> tuple[int, bytes]:
        reply = hosts[name].ask(body)
        return reply.status, reply.body

    replay = load_replay(store, CLUSTER.anchor)
    assert asyncio.run(collect(store, replay, ask, clock=lambda: float(CLUSTER.now))).final


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a store with 18 entries and six checkpoints, the second and the last one final."""
    path = tmp_path_factory.mktemp("sound") / "state.db"
    engine, sequencer = new_store(path, CLUSTER)
    cosign_all(engine)
    for record in leases(CLUSTER, 6)[:5:2]:
        sequencer.submit(record, CLUSTER.now)
    sequencer.submit_many(leases(CLUSTER, 6), CLUSTER.now)
    cosign_all(engine)
    engine.dispose()  # the last connection writes the journal back into the file
    return path.read_bytes()


@pytest.fixture
def url(sound: bytes, tmp_path: Path) -> str:
    (tmp_path / "state.db").write_bytes(sound)
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    engine = open_database(url)
    yield engine
    engine.dispose()


def report_of(url: str) -> Report:
    with open_source(url) as source:
        return audit(source, CLUSTER.anchor)


def codes(url: str) -> list[tuple[str, int | None]]:
    return [(finding.code, finding.log_index) for finding in report_of(url).findings]


def change(engine: sa.Engine, table: sa.Table, where: sa.ColumnElement[bool], **values: object) -> None:
    with write_transaction(engine) as connection:
        assert connection.execute(table.update().where(where).values(**values)).rowcount == 1


def test_a_sound_store(url: str) -> None:
    with open_source(url) as source:
        assert isinstance(source, StoredLog)
        report = audit(source, CLUSTER.anchor)
    assert report.findings == ()
    assert (report.size, report.final_size, report.complete) == (SIZE, SIZE, True)
    assert report.checkpoints == 6


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError), open_source(f"sqlite:///{tmp_path / 'none.db'}"):
        pytest.fail("there is no such store")
    (tmp_path / "junk.db").write_bytes(b"junk" * 1_000)
    with pytest.raises(SourceUnreadable), open_source(f"sqlite:///{tmp_path / 'junk.db'}"):
        pytest.fail("that is no database")
    with (
        pytest.raises(SourceUnreadable, match=f"no folder {tmp_path / 'none'}"),
        open_resources(str(tmp_path / "none")),
    ):
        pytest.fail("there is no such folder")
    with open_resources(str(tmp_path)) as resources:
        assert resources.get("junk.db", 4_000) == b"junk" * 1_000


def test_every_entry_with_a_changed_byte_is_named(url: str, engine: sa.Engine) -> None:
    """In each entry a few bytes, one at a time, wherever they are."""
    chance = random.Random(20260101)
    entry = tables.log_entry
    for row in list(Store(engine).entries(0)):
        for _ in range(2):
            at = chance.randrange(len(row.leaf))
            byte = row.leaf[at] ^ chance.randrange(1, 256)
            changed = row.leaf[:at] + bytes([byte]) + row.leaf[at + 1 :]
            change(engine, entry, entry.c.log_index == row.index, leaf=changed)
            found = codes(url)
            assert ("SL-STORED", row.index) in found, (row.index, at, byte)
            assert found[0][1] == row.index or row.index == 0
        change(engine, entry, entry.c.log_index == row.index, leaf=row.leaf)
    assert codes(url) == []


def test_every_stored_column_is_compared(url: str, engine: sa.Engine) -> None:
    entry, node, head, check = tables.log_entry, tables.log_node, tables.log_head, tables.checkpoint
    line = tables.cosignature
    at5 = entry.c.log_index == 5
    node_1_3 = (node.c.level == 1) & (node.c.node_index == 3)
    first_line = (line.c.size == SIZE) & (line.c.name == "witness-1.example")
    stored = {one.name: one.line for one in Store(engine).cosignatures(SIZE)}["witness-1.example"]
    worse = stored.replace(stored[-10:-4], "AAAAAA")
    cases = [
        (entry, at5, {"record_id": "0" * 64}, ("SL-STORED", 5)),
        (entry, at5, {"leaf_hash": b"x" * 32}, ("SL-STORED", 5)),
        (node, node_1_3, {"hash": b"x" * 32}, ("SL-STORED", 7)),
        (node, node_1_3, {"node_index": 99}, ("SL-STORED", 7)),
        (head, head.c.log == "authority", {"root": b"x" * 32}, ("SL-STORED", None)),
        (head, head.c.log == "authority", {"term": 2}, ("SL-STORED", None)),
        (head, head.c.log == "authority", {"final_root": b"x" * 32}, ("SL-FINALITY", SIZE - 1)),
        (check, check.c.size == 2, {"note": b"x"}, ("SL-NOTE", 1)),
        (check, check.c.size == SIZE, {"size": SIZE + 1}, ("SL-CHECKPOINT", SIZE)),
        (line, first_line, {"line": worse}, ("SL-COSIGNATURE", SIZE - 1)),
    ]
    for table, where, values, expected in cases:
        with write_transaction(engine) as connection:
            before = dict(connection.execute(sa.select(table).where(where)).mappings().one())
            connection.execute(table.update().where(where).values(**values))
        found = codes(url)
        assert expected in found, (table.name, values, found)
        key = sa.and_(*(column == {**before, **values}[column.name] for column in table.primary_key))
        change(engine, table, key, **before)
    assert codes(url) == []


def test_removed_rows_are_missed(url: str, engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        connection.execute(tables.log_entry.delete().where(tables.log_entry.c.log_index == SIZE - 1))
    found = codes(url)
    assert found[0] == ("SL-CHECKPOINT", SIZE - 1)
    with write_transaction(engine) as connection:
        connection.execute(tables.log_entry.delete().where(tables.log_entry.c.log_index == 5))
    assert codes(url) == [("SL-STORED", 5)]


def test_a_checkpoint_that_was_removed(url: str, engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        connection.execute(tables.checkpoint.delete().where(tables.checkpoint.c.size == SIZE))
    strays = [("SL-STORED", None)] * 4  # its cosignatures are of no checkpoint now
    assert codes(url) == [("SL-TAIL", SIZE - 3), ("SL-FINALITY", SIZE - 1), *strays]


def test_evidence_is_read(url: str, engine: sa.Engine) -> None:
    Store(engine).evidence_add(Evidence("s", 1, "0" * 64, b"{}", 5))
    assert [code for code, _ in codes(url)] == ["SL-EVIDENCE", "SL-EVIDENCE"]


def test_split_views_are_read(url: str, engine: sa.Engine) -> None:
    found = SplitView(b"no note", b"none either", b"r" * 32, ())
    Store(engine).split_view_add(KeptSplitView(5, b"x" * 32, 9, found, "peer", 7))
    assert [code for code, _ in codes(url)] == ["SL-EVIDENCE"]


def test_an_audit_sees_one_moment_of_a_growing_store(url: str, engine: sa.Engine) -> None:
    sequencer = Sequencer(Store(engine), CLUSTER.anchor, signer("sequencer-1"))
    with open_source(url) as source:
        entries = source.entries()
        next(entries)
        sequencer.submit_many(leases(CLUSTER, 3, 50), CLUSTER.now)
        report = audit(source, CLUSTER.anchor)
    assert (report.size, report.findings) == (SIZE, ())
    assert report_of(url).size == SIZE + 3


def test_signatures_are_verified_by_other_processes(url: str, engine: sa.Engine) -> None:
    with VerifyPool(2) as pool, open_source(url) as source:
        parallel = audit(source, CLUSTER.anchor, verifier=pool)
        assert parallel == audit(source, CLUSTER.anchor)
    leaf = next(Store(engine).entries(SIZE - 1)).leaf
    at = leaf.index(b'"value":"') + 9
    worse = leaf[:at] + (b"B" if leaf[at : at + 1] == b"A" else b"A") + leaf[at + 1 :]
    change(engine, tables.log_entry, tables.log_entry.c.log_index == SIZE - 1, leaf=worse)
    with VerifyPool(1) as pool, open_source(url) as source:
        parallel = audit(source, CLUSTER.anchor, verifier=pool)
        assert ("SL-SIG", SIZE - 1) in [(finding.code, finding.log_index) for finding in parallel.findings]
        assert parallel == audit(source, CLUSTER.anchor)


def test_records_ahead_of_the_log_are_read_and_judged(engine: sa.Engine, url: str) -> None:
    store, kept = Store(engine), []
    for n in range(3):
        record = CLUSTER.registry(f"web-{n}")
        expires_at = parse_time(record["expires_at"])
        subject = f"registry.gossip_record/web-{n}/cluster/"
        row = (record_id_of(record), record["schema_version"], subject, 1, expires_at, CLUSTER.now)
        kept.append(StoredAhead(*row, encode(record)))
        store.ahead_put(kept[-1])
    assert codes(url) == []
    change(
        engine, tables.ahead_record, tables.ahead_record.c.record_id == kept[1].record_id, data=kept[2].data
    )
    assert codes(url) == [("SL-STORED", None), ("SL-STORED", None)]  # another record id and another subject
    change(
        engine,
        tables.ahead_record,
        tables.ahead_record.c.record_id == kept[2].record_id,
        data=kept[2].data[:-2],
    )
    assert [code for code, _ in codes(url)].count("SL-CANON") == 1
    unnamed = replace(kept[0], record_id="", data=kept[0].data[:-2])  # sorts before every other
    with engine.begin() as connection:
        store.ahead_put(unnamed, connection)
    assert [code for code, _ in codes(url)].count("SL-CANON") == 2
