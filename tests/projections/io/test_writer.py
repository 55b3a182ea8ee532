"""Rows and cursor in one transaction: incremental, rebuilt and freshly folded rows are the same."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.all import FOLD_VERSION, TABLES, fold_all
from projections.base import Fact, MemoryRows, fact_of_leaf
from projections.io import check
from projections.io.check import check_against_fresh_fold
from projections.io.reader import read_live
from projections.io.rows import select_rows
from projections.io.tables import SQL_TABLES, projection_cursor, registry_local
from projections.io.writer import Writer
from projections.snapshot import Snapshot
from statelog import canonical
from statelog.io.database import open_database, read_transaction, write_transaction
from statelog.io.tables import ahead_record, log_entry, metadata
from statelog.leaf import Leaf, encode_leaf
from statelog.merkle import leaf_hash
from tests.projections import facts
from tests.projections.facts import HOUR, T0, hexid


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    made = open_database(f"sqlite:///{tmp_path / 'state.db'}", create=True)
    yield made
    made.dispose()


def store(engine: sa.Engine, records: list[dict[str, Any]], start: int = 0) -> list[Fact]:
    """Writes the records as stored entries; their facts come back as a rebuild reads them."""
    leaves = [
        encode_leaf(Leaf({**record, "signatures": []}, T0 + n, 1)) for n, record in enumerate(records, start)
    ]
    made = [fact_of_leaf(n, leaf) for n, leaf in enumerate(leaves, start)]
    with write_transaction(engine) as connection:
        for fact, leaf in zip(made, leaves, strict=True):
            row = {"log": "authority", "log_index": fact.index, "record_id": fact.record_id}
            connection.execute(log_entry.insert(), {**row, "leaf_hash": leaf_hash(leaf), "leaf": leaf})
    return made


def stored(engine: sa.Engine) -> dict[str, list[Any]]:
    with read_transaction(engine) as connection:
        return {table.name: select_rows(connection, table.name) for table in TABLES}


def in_memory(rows: MemoryRows) -> dict[str, list[Any]]:
    return {table.name: list(rows.rows(table.name)) for table in TABLES}


LOG = [
    facts.descriptor("development"),
    facts.approval("phone-a"),
    facts.approval("relay-1"),
    facts.certificate("relay-1", "relay"),
    facts.registry(valid_s=60),
    facts.lease("r1", ["phone-a", "relay-1"]),
    facts.policy("probe_allow", {"networks": ["127.0.0.0/8"], "none": None, "deep": {"yes": True}}),
    facts.fence({"route_id": "r1"}),
]

names = st.sampled_from(["a", "b", "c"])
epochs = st.integers(1, 3)


@st.composite
def any_record(draw: st.DrawFn) -> dict[str, Any]:
    epoch, valid_s = draw(epochs), draw(st.sampled_from([2, 30, HOUR]))
    a, b = draw(names), draw(names)
    kind = draw(st.integers(0, 18))
    common: dict[str, Any] = {"epoch": epoch, "valid_s": valid_s}
    if kind == 0:
        return facts.descriptor(draw(st.sampled_from(["development", "production"])), **common)
    if kind == 1:
        return facts.approval(a, **common)
    if kind == 2:
        parent = draw(st.none() | names)
        above = facts.id_of({**facts.certificate(parent, "relay"), "signatures": []}) if parent else None
        return facts.certificate(a, "relay", above, **common)
    if kind == 3:
        return facts.registry(draw(st.sampled_from(["x", "y"])), **common)
    if kind == 4:
        return facts.lease(f"r-{a}", [a, b], **common)
    if kind == 5:
        return facts.policy(a, {"epoch": epoch}, **common)
    if kind == 6:
        return facts.revoke_node(a, **common)
    if kind > 9:
        return _of_the_newest(kind, a, b, draw(st.booleans()), **common)
    if kind == 9:
        return facts.members(draw(st.sampled_from(["route-authority", "update-authority"])), **common)
    if kind == 7:
        return facts.revoke_certificate(facts.id_of(facts.certificate(a, "relay")), **common)
    target = draw(st.sampled_from([{"route_id": f"r-{a}"}, {"partition": "eu"}, {"node_id": hexid(b)}]))
    return facts.fence(target, **common)


def _of_the_newest(kind: int, a: str, b: str, flag: bool, **common: Any) -> dict[str, Any]:
    """Kinds of which a row keeps the newest, and those of a recovery."""
    makers: dict[int, Callable[[], dict[str, Any]]] = {
        10: lambda: facts.intent(hexid(a), a, b, **common),
        11: lambda: facts.veto(hexid(a), **common),
        12: lambda: facts.service_lease(a, a, b, leader=b if flag else None, **common),
        13: lambda: facts.assignment(a, b, **common),
        14: lambda: facts.directory(a, int(flag), **common),
        15: lambda: facts.release(a, f"1.{int(flag)}", b, **common),
        16: lambda: facts.manifest(a, b, **common),
        17: lambda: facts.seeds(a, b, **common),
        18: lambda: facts.snapshot(1 + int(flag), **common),
    }
    return makers[kind]()


@settings(max_examples=40)
@given(
    st.lists(any_record(), min_size=1, max_size=25, unique_by=canonical.encode),
    st.lists(st.integers(0, 25), max_size=4),
)
def test_incremental_equals_rebuilt_equals_fresh(records: list[dict[str, Any]], cuts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = open_database(f"sqlite:///{folder}/state.db", create=True)
        try:
            made = store(engine, records)
            fresh = in_memory(fold_all(made))
            writer, snapshot = Writer(engine), Snapshot()
            marks = sorted({0, len(made), *(min(cut, len(made)) for cut in cuts)})
            for low, high in itertools.pairwise(marks):
                # Deliveries overlap: what was folded before is skipped.
                changes = writer.catch_up(made[max(0, low - 3) : high])
                snapshot = snapshot.advance(changes, writer.size())
            assert stored(engine) == fresh
            assert all(canonical.encode(row) for rows in stored(engine).values() for row in rows)
            assert check_against_fresh_fold(engine) == []
            read = read_live(engine, T0).snapshot
            for part in ("size", "cluster", "nodes", "certificates", "leases", "policies"):
                assert getattr(snapshot, part) == getattr(read, part)
            for name in "abc":
                assert snapshot.roles_of(hexid(name), T0) == read.roles_of(hexid(name), T0)
                assert snapshot.leases_from(hexid(name)) == read.leases_from(hexid(name))
            assert writer.rebuild() == len(made)
            assert stored(engine) == fresh
        finally:
            engine.dispose()


def test_the_schema_in_the_database_is_the_one_in_the_code(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_long_fold_writes_as_it_goes_and_answers_with_the_net(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.io.writer.BATCH", 2)
    records = [facts.descriptor(), *(facts.approval(f"n{n}") for n in range(1, 8))]
    made = store(engine, records)
    writer = Writer(engine)
    writer.catch_up(made[:1])
    changes = writer.catch_up(made[1:])
    assert [change.key for change in changes] == [(hexid(f"n{n}"),) for n in range(1, 8)]
    assert stored(engine) == in_memory(fold_all(made))


def test_catching_up_from_the_store_stops_at_the_given_size(engine: sa.Engine) -> None:
    made = store(engine, LOG)
    writer = Writer(engine)
    writer.catch_up_from_store(3)
    assert writer.size() == 3
    assert stored(engine) == in_memory(fold_all(made[:3]))
    changes = writer.catch_up_from_store(len(LOG))
    assert {change.table for change in changes} == {
        "role_certificate",
        "registry_record",
        "route_fence",
        "route_lease",
        "policy",
    }
    assert writer.catch_up_from_store(len(LOG)) == []


def test_a_gap_is_refused_and_changes_nothing(engine: sa.Engine) -> None:
    made = store(engine, LOG)
    writer = Writer(engine)
    with pytest.raises(ValueError, match="entry 1 cannot follow a projection of size 0"):
        writer.catch_up(made[1:])
    writer.catch_up(made[:2])
    with pytest.raises(ValueError, match="entry 3 cannot follow a projection of size 2"):
        writer.catch_up([made[0], made[3]])
    assert writer.size() == 2


def test_rows_and_cursor_are_one_transaction_with_the_callers(engine: sa.Engine) -> None:
    made = store(engine, LOG)
    writer = Writer(engine)

    def commit_that_never_comes() -> None:
        with write_transaction(engine) as connection:
            writer.catch_up(made, connection)
            assert writer.size(connection) == len(made)
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        commit_that_never_comes()
    assert writer.size() == 0
    assert stored(engine) == in_memory(MemoryRows(TABLES))
    writer.catch_up(made)
    assert stored(engine) == in_memory(fold_all(made))


def test_rows_of_another_fold_version_are_folded_anew(engine: sa.Engine) -> None:
    made = store(engine, LOG)
    writer = Writer(engine)
    writer.catch_up(made[:4])
    with write_transaction(engine) as connection:
        connection.execute(projection_cursor.update().values(fold_version=FOLD_VERSION + 1))
        connection.execute(SQL_TABLES["node"].update().values(display_name="of another version"))
    (finding,) = [f for f in check_against_fresh_fold(engine) if f.path == "projection_cursor.fold_version"]
    assert finding.found == str(FOLD_VERSION + 1)
    writer.catch_up(made)
    assert stored(engine) == in_memory(fold_all(made))
    assert check_against_fresh_fold(engine) == []


def test_rebuilding_keeps_what_the_node_found_out_itself(engine: sa.Engine) -> None:
    made = store(engine, LOG)
    writer = Writer(engine)
    writer.catch_up(made)
    view = read_live(engine, T0)
    writer.save_statuses(view.verified(made[4].record_id, T0 + 9))
    writer.rebuild()
    active = read_live(engine, T0 + 10).snapshot.active("control-api")
    assert active is not None
    assert active.record_id == made[4].record_id
    assert active.bootstrap
    assert read_live(engine, T0 + 60).snapshot.active("control-api") is None


class TestWhatComesBackAfterARestart:
    def test_proofs_and_records_ahead_of_the_log(self, engine: sa.Engine) -> None:
        made = store(engine, [*LOG[:4], facts.registry(), facts.lease("r1", ["phone-a", "relay-1"])])
        writer = Writer(engine)
        writer.catch_up(made)
        ahead = facts.registry(epoch=2)
        fence = facts.fence({"route_id": "r1"})
        with write_transaction(engine) as connection:
            for record in (ahead, fence):
                row = {
                    "record_id": facts.id_of(record),
                    "schema_version": record["schema_version"],
                    "subject": "",
                    "epoch": record["epoch"],
                    "expires_at": T0 + HOUR,
                    "received_at": T0,
                    "data": canonical.encode(record),
                }
                connection.execute(ahead_record.insert(), row)
        view = read_live(engine, T0)
        assert view.snapshot.size == len(made)
        assert [r.epoch for r in view.snapshot.candidates("control-api")] == [2, 1]
        assert view.snapshot.lease("r1") is None
        writer.save_statuses(view.verified(facts.id_of(ahead), T0))
        again = read_live(engine, T0).snapshot.active("control-api")
        assert again is not None
        assert (again.epoch, again.unlogged) == (2, True)

    def test_statuses_are_kept_as_last_told(self, engine: sa.Engine) -> None:
        made = store(engine, [LOG[0], facts.registry(), facts.registry(epoch=2)])
        writer = Writer(engine)
        writer.catch_up(made)
        view = read_live(engine, T0)
        told = view.verified(made[1].record_id, T0 + 1) + view.verified(made[2].record_id, T0 + 2)
        writer.save_statuses(told)
        with read_transaction(engine) as connection:
            kept = {row.record_id: row.status for row in connection.execute(sa.select(registry_local))}
        assert kept == {made[1].record_id: "fallback", made[2].record_id: "active"}
        writer.save_statuses(view.expired(T0 + 100 * HOUR))
        with read_transaction(engine) as connection:
            assert connection.execute(sa.select(registry_local)).all() == []

    def test_they_go_with_the_record_that_they_are_about(self, engine: sa.Engine) -> None:
        short, long = facts.registry(valid_s=1), facts.registry("web-admin")
        made = store(engine, [LOG[0], short, long, facts.registry(epoch=2, issued_at=T0 + 2)])
        writer = Writer(engine)
        writer.catch_up(made[:3])
        view = read_live(engine, T0)
        writer.save_statuses([*view.verified(made[1].record_id, T0), *view.verified(made[2].record_id, T0)])
        writer.catch_up(made)
        with read_transaction(engine) as connection:
            kept = set(connection.execute(sa.select(registry_local.c.record_id)).scalars())
        assert kept == {made[2].record_id}


class TestCheck:
    def test_a_changed_row_is_found_with_the_entry_that_made_it(self, engine: sa.Engine) -> None:
        made = store(engine, LOG)
        Writer(engine).catch_up(made)
        assert check_against_fresh_fold(engine) == []
        with write_transaction(engine) as connection:
            connection.execute(
                SQL_TABLES["node"]
                .update()
                .where(sa.text("display_name = 'relay-1'"))
                .values(trust_tier="trusted")
            )
        (finding,) = check_against_fresh_fold(engine)
        assert finding.code == "SL-PROJECTION"
        assert finding.path == f"node[{hexid('relay-1')}].trust_tier"
        assert (finding.expected, finding.found) == ("standard", "trusted")
        assert (finding.log_index, finding.record_id) == (2, made[2].record_id)

    def test_a_missing_row_and_one_too_many(self, engine: sa.Engine) -> None:
        made = store(engine, LOG)
        Writer(engine).catch_up(made)
        with write_transaction(engine) as connection:
            connection.execute(SQL_TABLES["route_lease"].update().values(route_id="r2"))
        found = {(f.path, f.expected, f.found) for f in check_against_fresh_fold(engine)}
        assert found == {("route_lease[r1]", "present", "absent"), ("route_lease[r2]", "absent", "present")}

    def test_of_rows_without_end_some_are_named(
        self, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(check, "MAX_AUDIT_FINDINGS", 3)
        Writer(engine).catch_up(store(engine, LOG))
        lease = SQL_TABLES["route_lease"]
        with write_transaction(engine) as connection:
            (row,) = connection.execute(sa.select(lease)).mappings().all()
            for route_id in (*"abcd", "x" * 400):
                connection.execute(lease.insert(), {**row, "route_id": route_id})
        found = [finding.path for finding in check_against_fresh_fold(engine)]
        assert found == [f"route_lease[{one}]" for one in "abc"]
        with write_transaction(engine) as connection:
            connection.execute(lease.delete().where(lease.c.route_id.in_(list("abcd"))))
        (finding,) = check_against_fresh_fold(engine)
        assert finding.path == f"route_lease[{'x' * 300}]"

    def test_rows_that_claim_more_than_the_log_holds(self, engine: sa.Engine) -> None:
        made = store(engine, LOG)
        Writer(engine).catch_up(made)
        with write_transaction(engine) as connection:
            connection.execute(log_entry.delete().where(log_entry.c.log_index == len(LOG) - 1))
        assert [f.path for f in check_against_fresh_fold(engine)] == [
            "projection_cursor.size",
            "route_lease[r1].ended_by",
            "route_fence[route_id/r1]",
        ]

    @pytest.mark.parametrize(
        "leaf", [b"junk", encode_leaf(Leaf({"schema_version": "x", "signatures": []}, T0, 1))]
    )
    def test_entries_that_no_fold_can_read_are_a_finding(self, engine: sa.Engine, leaf: bytes) -> None:
        Writer(engine).catch_up(store(engine, LOG))
        with write_transaction(engine) as connection:
            at = log_entry.c.log_index == 1
            broken = leaf.replace(b'"x"', b'"rap.fabric.node.approval.v1"')
            connection.execute(log_entry.update().where(at).values(leaf=broken))
        (finding,) = check_against_fresh_fold(engine)
        assert finding.code == "SL-PROJECTION"
        assert "cannot be folded" in finding.sentence

    def test_an_empty_store_has_nothing_to_find(self, engine: sa.Engine) -> None:
        assert check_against_fresh_fold(engine) == []
