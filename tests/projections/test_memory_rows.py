"""Rows in memory: what an index answers is what looking at every row answers."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from projections.base import Change, Delete, MemoryRows, Put, Table

TABLE = Table("t", ("id",), {"id": "text", "a": "integer", "b": "integer"}, indexes=(("a",), ("a", "b")))
KEYS = st.sampled_from("uvwxyz").map(lambda name: (name,))


@st.composite
def changes(draw: st.DrawFn) -> Change:
    key = draw(KEYS)
    if draw(st.booleans()):
        return Delete("t", key)
    return Put("t", key, {"id": key[0], "a": draw(st.integers(0, 2)), "b": draw(st.integers(0, 2))})


@given(
    st.lists(changes(), max_size=30),
    st.dictionaries(st.sampled_from("ab"), st.integers(0, 2)),
)
def test_an_index_changes_no_answer(history: list[Change], equal: dict[str, int]) -> None:
    rows, plain = MemoryRows([TABLE]), dict[tuple[str, ...], Any]()
    for change in history:
        rows.apply([change])
        plain.pop(change.key, None)
        if isinstance(change, Put):
            plain[change.key] = change.row
    wanted = [row for _, row in sorted(plain.items()) if all(row[name] == equal[name] for name in equal)]
    assert rows.where("t", **equal) == wanted
    assert list(rows.rows("t")) == [row for _, row in sorted(plain.items())]


@given(
    st.lists(changes(), max_size=30),
    st.integers(0, 30),
    st.integers(0, 3),
    st.sampled_from([{}, {"a": 1}, {"id": "v"}]),
)
def test_what_lies_below_a_limit(
    history: list[Change], asked_after: int, limit: int, equal: dict[str, Any]
) -> None:
    """The index is made when it is first asked for, and kept from then on."""
    rows = MemoryRows([TABLE])
    rows.apply(history[:asked_after])
    for change in [None, *history[asked_after:]]:
        rows.apply([change] if change is not None else [])
        wanted = [row for row in rows.where("t", **equal) if row["b"] <= limit]
        assert list(rows.where_at_most("t", "b", limit, **equal)) == wanted
