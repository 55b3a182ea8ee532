"""Rows under a snapshot: shown, shown to be absent, and everything that shows neither."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog.errors import Refused, UsageError
from statelog.leaf import Leaf
from statelog.lightclient import Proved
from statelog.merkle import EMPTY_ROOT, leaf_hash, root_of
from statelog.rowproofs import (
    SNAPSHOT_SCHEMA,
    Key,
    Row,
    RowTree,
    ShownRow,
    Standing,
    check_row,
    key_bytes,
    summaries,
    trees_of,
)
from statelog.signing import encode_base64

ROWS: list[tuple[Key, Row]] = [((name,), {"name": name, "n": at}) for at, name in enumerate("cafebd")]
TREE = RowTree("letters.v1", ROWS)
OTHER = RowTree("others.v1", ROWS)


def proved(more: Any, *trees: RowTree) -> Proved:
    record = {
        "schema_version": SNAPSHOT_SCHEMA,
        "log": "authority",
        "size": 9,
        "projections": summaries({tree.name: tree for tree in trees or (TREE, OTHER)}),
    }
    leaf = Leaf(record, 0, 1, None)
    return Proved("c/authority", "authority", 12, leaf, "", 20, b"", (), None, 0, False, more)


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(Refused) as refused:
        act()
    return refused.value.code


def test_leaves_are_in_the_order_of_their_keys() -> None:
    ordered = sorted(ROWS, key=lambda pair: key_bytes(pair[0]))
    leaves = [
        b'{"key":["%s"],"projection":"letters.v1","row":{"n":%d,"name":"%s"}}'
        % (row["name"].encode(), row["n"], row["name"].encode())
        for _, row in ordered
    ]
    root = encode_base64(root_of(leaf_hash(leaf) for leaf in leaves))
    assert TREE.summary() == {"name": "letters.v1", "root": root, "rows": 6}
    assert OTHER.summary()["root"] != root  # a leaf of one read model is none of another
    empty = RowTree("none.v1", []).summary()
    assert empty == {"name": "none.v1", "root": encode_base64(EMPTY_ROOT), "rows": 0}


def test_every_row_is_shown() -> None:
    for key, row in ROWS:
        shown = check_row(proved(TREE.show(key)))
        assert (shown.key, shown.row, shown.size, shown.log) == (key, row, 9, "authority")


texts = st.text(st.characters(codec="utf-8"), max_size=4)


@given(st.sets(st.tuples(texts, texts), max_size=9), st.tuples(texts, texts))
def test_a_key_is_there_or_shown_to_be_absent(keys: set[Key], wanted: Key) -> None:
    tree = RowTree("pairs.v1", ((key, {"key": list(key)}) for key in keys))
    shown = check_row(proved(tree.show(wanted), tree))
    assert shown.row == ({"key": list(wanted)} if wanted in keys else None)


def test_trees_of_a_fold() -> None:
    class Letters:
        def add(self, log: str, index: int, leaf: bytes) -> None:
            pytest.fail(f"nothing is added here: {log}, {index}, {leaf!r}")

        def rows(self, log: str) -> Iterator[tuple[str, Iterable[tuple[Key, Row]]]]:
            yield f"{log}.v2", ROWS
            yield f"{log}.v1", []

    assert list(trees_of(Letters(), "x")) == ["x.v1", "x.v2"]


@pytest.mark.parametrize(
    ("at", "row", "rows", "expected"),
    [
        (100, {}, "lease.v1", Standing.IN_FORCE),
        (199, {}, "lease.v1", Standing.IN_FORCE),
        (200, {}, "lease.v1", Standing.EXPIRED),
        (99, {}, "lease.v1", Standing.NOT_YET),
        (150, {"ended_by": "ab"}, "lease.v1", Standing.ENDED),
        (250, {"ended_by": "ab"}, "lease.v1", Standing.ENDED),
        (150, {"ended_by": ""}, "lease.v1", Standing.IN_FORCE),
        (250, {}, "route_fence.v1", Standing.IN_FORCE),
        (250, {}, "route_fences.v1", Standing.EXPIRED),
        (150, None, "lease.v1", Standing.ABSENT),
    ],
)
def test_what_a_row_is_worth(at: int, row: Row | None, rows: str, expected: Standing) -> None:
    whole = None if row is None else {"issued_at": 100, "expires_at": 200, **row}
    assert ShownRow("authority", 9, rows, ("c",), whole).standing(at) is expected


@pytest.mark.parametrize("value", ["200", True, -1, 2**60])
def test_a_row_with_odd_times_is_worth_nothing(value: object) -> None:
    shown = ShownRow("authority", 9, "lease.v1", ("c",), {"expires_at": value})
    assert refusal(lambda: shown.standing(1)) == "SL-PROOF"
    assert ShownRow("authority", 9, "cluster.v1", ("c",), {"n": 1}).standing(1) is Standing.IN_FORCE


# --- what shows nothing ---


def more_with(change: Callable[[dict[str, Any]], object], key: str = "c") -> Any:
    more = TREE.show((key,))
    change(more["row"])
    return more


BETWEEN = ("bb",)  # stands between b and c


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(key=["d"]),
        lambda row: row.update(key="c"),
        lambda row: row.update(key=[]),
        lambda row: row.update(projection="unknown.v1"),
        lambda row: row.update(projection="others.v1"),
        lambda row: row.update(shown=[]),
        lambda row: row.update(shown={}),
        lambda row: row.update(extra=1),
        lambda row: row["shown"][0].update(index=3),
        lambda row: row["shown"][0].update(leaf=encode_base64(b"{}")),
        lambda row: row["shown"][0].update(hashes=[]),
        lambda row: row["shown"].append(row["shown"][0]),
    ],
)
def test_a_changed_proof_shows_nothing(change: Callable[[dict[str, Any]], object]) -> None:
    assert check_row(proved(TREE.show(("c",)))).row is not None
    assert refusal(lambda: check_row(proved(more_with(change)))) == "SL-PROOF"


def test_absence_needs_the_neighbours() -> None:
    more = TREE.show(BETWEEN)
    assert check_row(proved(more)).row is None
    left, right = more["row"]["shown"]
    far = TREE.show(("f",))["row"]["shown"][0]
    for shown in ([left], [right], [left, far], [right, left, right], []):
        wrong = {"row": {**more["row"], "shown": shown}}
        assert refusal(lambda wrong=wrong: check_row(proved(wrong))) == "SL-PROOF"
    for key in (("A",), ("z",)):
        assert len(TREE.show(key)["row"]["shown"]) == 1
        assert check_row(proved(TREE.show(key))).row is None
    present = {"row": {**more["row"], "key": ["b"], "shown": [left, right]}}  # hides b behind its neighbours
    assert refusal(lambda: check_row(proved(present))) == "SL-PROOF"


def test_a_row_under_another_root() -> None:
    changed = RowTree("letters.v1", [*ROWS[:-1], (("d",), {"name": "d", "n": 99})])
    assert refusal(lambda: check_row(proved(changed.show(("d",))))) == "SL-PROOF"
    assert check_row(proved(changed.show(("d",)), changed)).row == {"name": "d", "n": 99}


def test_a_proof_of_something_else() -> None:
    plain = proved(None)
    for it in (plain, proved({"other": 1})):
        with pytest.raises(UsageError, match="no row"):
            check_row(it)
    record = {**plain.leaf.record, "schema_version": "rap.fabric.route.lease.v1"}
    with pytest.raises(UsageError, match="no snapshot"):
        check_row(replace(proved(TREE.show(("c",))), leaf=Leaf(record, 0, 1, None)))
