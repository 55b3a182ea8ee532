"""Rows of several logs: whatever the interleaving, the same; and what one log says of another's leases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.all import FOLD_VERSION, TABLES, fold_all
from projections.base import Fact, fact_of_leaf
from projections.io.check import check_against_fresh_fold
from projections.io.reader import read_live
from projections.io.rows import SqlRows, select_rows
from projections.io.tables import projection_cursor
from projections.io.writer import Writer, cursors
from projections.leases import ended_by_another, ended_elsewhere
from projections.live import LiveView
from statelog.io.database import open_database, read_transaction, write_transaction
from statelog.io.tables import log_entry
from statelog.leaf import Leaf, encode_leaf
from statelog.merkle import leaf_hash
from tests.projections import facts
from tests.projections.facts import T0, hexid

EU, US = "routes-eu", "routes-us"
RELAYED = ["phone-a", "relay-1", "node-9"]

# What the authority log says, and what the partitions' logs say at which size of it.
AUTHORITY: list[dict[str, Any]] = [
    facts.descriptor("development"),
    facts.approval("phone-a"),
    facts.approval("relay-1"),
    facts.approval("relay-2"),
    facts.lease("old", RELAYED),  # before any partition had a log
    facts.record("log.term", log=EU),
    facts.record("log.term", log=US),
    facts.fence({"node_id": hexid("relay-1")}),
    facts.descriptor("production", epoch=2),
    facts.revoke_node("relay-2"),
]
PARTITIONS: dict[str, list[tuple[dict[str, Any], int]]] = {
    EU: [
        (facts.lease("eu/a", RELAYED), 7),  # just before the node is fenced
        (facts.lease("eu/b", RELAYED), 8),  # just after
        (facts.fence({"route_id": "old"}), 8),
        (facts.lease("eu/c", ["phone-a", "relay-2", "node-9"]), 9),
        (facts.fence({"route_id": "eu/b"}), 10),
        (facts.lease("eu/b", ["phone-a", "node-9"], epoch=2), 10),
    ],
    US: [
        (facts.lease("us/a", RELAYED, partition="us"), 7),
        (facts.fence({"partition": "us"}), 7),
        (facts.lease("us/b", RELAYED, partition="us"), 8),
    ],
}


def leaves() -> dict[str, list[bytes]]:
    found = {"authority": [Leaf({**r, "signatures": []}, T0 + n, 1) for n, r in enumerate(AUTHORITY)]}
    for log, records in PARTITIONS.items():
        found[log] = [Leaf({**r, "signatures": []}, T0 + n, 1, size) for n, (r, size) in enumerate(records)]
    return {log: [encode_leaf(leaf) for leaf in made] for log, made in found.items()}


FACTS: dict[str, list[Fact]] = {
    log: [fact_of_leaf(n, leaf, log) for n, leaf in enumerate(made)] for log, made in leaves().items()
}
SIZES = {log: len(made) for log, made in FACTS.items()}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    engine = open_database(f"sqlite:///{tmp_path_factory.mktemp('logs') / 'node.db'}", create=True)
    with write_transaction(engine) as connection:
        for log, made in leaves().items():
            for n, leaf in enumerate(made):
                row = {"log": log, "log_index": n, "record_id": FACTS[log][n].record_id}
                connection.execute(log_entry.insert(), {**row, "leaf_hash": leaf_hash(leaf), "leaf": leaf})
    yield engine
    engine.dispose()


@pytest.fixture
def engine(filled: sa.Engine) -> sa.Engine:
    empty(filled)
    return filled


def empty(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        connection.execute(projection_cursor.delete())
    Writer(engine).rebuild(0)
    with write_transaction(engine) as connection:
        connection.execute(projection_cursor.delete())


def stored(engine: sa.Engine) -> dict[str, list[Any]]:
    with read_transaction(engine) as connection:
        return {table.name: select_rows(connection, table.name) for table in TABLES}


def fold_up(engine: sa.Engine, choices: list[str]) -> LiveView:
    """Fold entry by entry in the order of `choices`, skipping what cannot come yet, then all the rest."""
    writers = {log: Writer(engine, log) for log in FACTS}
    view, at = LiveView(), dict.fromkeys(FACTS, 0)
    for log in [*choices, *(["authority"] * SIZES["authority"]), *([EU] * SIZES[EU]), *([US] * SIZES[US])]:
        if at[log] == SIZES[log]:
            continue
        fact = FACTS[log][at[log]]
        if log != "authority" and fact.judged_at > at["authority"]:
            with pytest.raises(ValueError, match="was judged beyond"):
                writers[log].catch_up([fact])
            continue
        changes = writers[log].catch_up([fact])
        at[log] += 1
        view.logged([fact], changes, at[log] if log == "authority" else None)
    assert at == SIZES
    return view


def in_order() -> dict[str, list[Any]]:
    rows = fold_all(fact for log in ("authority", EU, US) for fact in FACTS[log])
    return {table.name: list(rows.rows(table.name)) for table in TABLES}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["authority", EU, US]), max_size=24))
def test_every_interleaving_gives_the_same_rows(filled: sa.Engine, choices: list[str]) -> None:
    empty(filled)
    view = fold_up(filled, choices)
    assert stored(filled) == in_order()
    assert check_against_fresh_fold(filled) == []
    again = read_live(filled, T0).snapshot
    for part in ("size", "cluster", "nodes", "leases", "fences"):
        assert getattr(view.snapshot, part) == getattr(again, part)


def test_a_rebuild_gives_the_rows_of_every_log(engine: sa.Engine) -> None:
    fold_up(engine, [])
    before = stored(engine)
    for log in (US, "authority"):
        assert Writer(engine, log).rebuild() == SIZES[log]
        assert stored(engine) == before
    with read_transaction(engine) as connection:
        assert cursors(connection) == SIZES


def test_rows_of_older_folds_are_folded_anew_whoever_comes_first(engine: sa.Engine) -> None:
    fold_up(engine, [])
    before = stored(engine)
    with write_transaction(engine) as connection:
        connection.execute(projection_cursor.update().values(fold_version=FOLD_VERSION - 1))
    assert Writer(engine, EU).catch_up([]) != []
    assert stored(engine) == before
    assert Writer(engine).catch_up([]) == []


def test_a_row_names_its_log_and_so_does_its_finding(engine: sa.Engine) -> None:
    fold_up(engine, [])
    rows = {row["route_id"]: row for row in stored(engine)["route_lease"]}
    places = {route: (row["log"], row["log_index"], row["authority_size"]) for route, row in rows.items()}
    assert places == {
        "old": ("authority", 4, 4),
        "eu/a": (EU, 0, 7),
        "eu/b": (EU, 5, 10),
        "eu/c": (EU, 3, 9),
        "us/a": (US, 0, 7),
        "us/b": (US, 2, 8),
    }
    assert [route for route, row in rows.items() if row["bootstrap"]] == ["eu/a", "old", "us/a", "us/b"]
    with write_transaction(engine) as connection:
        connection.execute(sa.text("UPDATE route_lease SET service = 'x' WHERE route_id = 'us/b'"))
    (finding,) = check_against_fresh_fold(engine)
    assert (finding.log, finding.log_index, finding.path) == (US, 2, "route_lease[us/b].service")


def test_what_stands_is_told_from_all_logs(engine: sa.Engine) -> None:
    snapshot = fold_up(engine, []).snapshot
    now = T0 + 100
    ended = {row["route_id"] for row in stored(engine)["route_lease"] if row["ended_by"]}
    assert ended == {"old", "us/a"}  # each by a fence of its own log
    standing = {route for route, lease in snapshot.leases.items() if snapshot.stands(lease)}
    # eu/a: fenced by the authority log after it. eu/c: its relay was revoked. eu/b: leased anew without it.
    # us/b was judged after the fence, but in development mode, which counts for nothing by now.
    assert standing == {"eu/b"}
    with read_transaction(engine) as connection:
        reader = SqlRows(connection)
        told = {row["route_id"]: ended_by_another(reader, row) for row in stored(engine)["route_lease"]}
    fence, revocation = FACTS["authority"][7].record_id, FACTS["authority"][9].record_id
    old = FACTS[EU][2].record_id
    assert told == {"old": old, "eu/a": fence, "eu/b": "", "eu/c": revocation, "us/a": fence, "us/b": ""}
    assert snapshot.lease("eu/b", now=now) is not None


def test_a_lease_that_was_judged_by_the_fence_outlives_it(engine: sa.Engine) -> None:
    writers = {log: Writer(engine, log) for log in FACTS}
    view = LiveView()
    view.logged(FACTS["authority"][:8], writers["authority"].catch_up(FACTS["authority"][:8]), 8)
    for log in (EU, US):
        those = [fact for fact in FACTS[log] if fact.judged_at <= 8]
        view.logged(those, writers[log].catch_up(those))
    standing = {route for route, lease in view.snapshot.leases.items() if view.snapshot.stands(lease)}
    assert standing == {"eu/b", "us/b"}


def test_a_partitions_fence_ends_what_the_authority_log_had_leased(engine: sa.Engine) -> None:
    writers = {log: Writer(engine, log) for log in FACTS}
    view = LiveView()
    view.logged(FACTS["authority"][:7], writers["authority"].catch_up(FACTS["authority"][:7]), 7)
    assert view.snapshot.lease("old") is not None
    fence = fact_of_leaf(
        0, encode_leaf(Leaf({**facts.fence({"partition": "eu"}), "signatures": []}, T0, 1, 7)), EU
    )
    view.logged([fence], writers[EU].catch_up([fence]))
    assert view.snapshot.lease("old") is None


def test_which_word_comes_after_which() -> None:
    assert not ended_elsewhere(EU, 7, EU, 9)  # its own log: the row says it
    assert ended_elsewhere(EU, 7, "authority", 7)
    assert not ended_elsewhere(EU, 8, "authority", 7)
    assert ended_elsewhere("authority", 4, EU, 0)
