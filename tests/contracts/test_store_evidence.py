"""What every backend of the store keeps as evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from statelog.errors import Refused, SourceUnreadable
from statelog.io import evidence
from statelog.io.database import open_database
from statelog.io.equivocation import keep_pair
from statelog.io.evidence import Evidence, KeptRollback, KeptSplitView, ShownHead
from statelog.io.store import Store
from statelog.rollback import Rollback
from statelog.splitview import SplitView
from tests.contracts.test_store import BACKENDS


@pytest.fixture(params=sorted(BACKENDS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    engine = open_database(BACKENDS[request.param](tmp_path), create=True)
    yield Store(engine)
    engine.dispose()


def test_evidence_is_kept_twice_an_epoch(store: Store) -> None:
    items = [Evidence("subject", 1, name * 64, name.encode(), 5) for name in "abc"]
    again = (items[0], items[0], items[1], items[2], items[0])
    assert [store.evidence_add(item) for item in again] == [True, False, True, False, False]
    assert store.evidence_add(Evidence("subject", 2, "c" * 64, b"c", 6))
    assert [(item.epoch, item.record_id[0]) for item in store.evidence()] == [(1, "a"), (1, "b"), (2, "c")]


def test_who_signs_two_things_without_end_fills_no_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "MAX_EVIDENCE_EPOCHS", 2)

    def kept(subject: str, epoch: int, name: str = "a") -> bool:
        return store.evidence_add(Evidence(subject, epoch, name * 64, b"x", 5))

    assert (kept("role.certificate/n", 1), kept("role.certificate/m", 1)) == (True, True)
    assert not kept("role.certificate/n", 2)
    assert not kept("role.certificate/o", 1)
    assert kept("role.certificate/n", 1, "b")  # the other half of a pair that has begun
    assert (kept("role_certificate/n", 1), kept("role.certificates/n", 1)) == (True, True)  # other kinds
    assert store.evidence_counts().equivocations == 4


def test_both_records_of_a_pair_are_kept_or_neither(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = {name * 64: name.encode() for name in "ab"}
    keep = store.evidence_add

    def failing(item: Evidence, connection: sa.Connection | None = None) -> bool:
        if item.data == b"b":
            raise SourceUnreadable("the disk is full")
        return keep(item, connection)

    with monkeypatch.context() as patch:
        patch.setattr(store, "evidence_add", failing)
        with pytest.raises(SourceUnreadable):
            keep_pair(store, ("policy.epoch", "p"), 1, pair, 5)
    assert list(store.evidence()) == []
    asked = [keep_pair(store, ("policy.epoch", "p"), 1, pair, 5) for _ in range(2)]
    assert (asked, len(list(store.evidence()))) == ([True, False], 2)


def test_split_views_are_kept_once_a_head_and_counted(store: Store) -> None:
    assert store.evidence_counts() == (0, 0, 0)
    found = SplitView(b"smaller", b"larger", b"r" * 32, (b"a" * 32, b"b" * 32))
    first = KeptSplitView(5, b"x" * 32, 9, found, "peer", 7)
    second = replace(first, size=4, found=replace(found, proof=()))
    assert [store.split_view_add(one) for one in (first, first, second)] == [True, False, True]
    assert store.split_view_add(replace(first, root=b"y" * 32))
    assert store.split_views() == [second, first, replace(first, root=b"y" * 32)]
    assert Store(store.engine, "routes-eu-1").split_views() == []
    for record_id in ("a" * 64, "b" * 64):
        store.evidence_add(Evidence("subject", 1, record_id, b"x", 5))
    assert store.evidence_counts() == (1, 3, 0)


def test_more_than_a_store_keeps_is_not_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SplitView(b"smaller", b"larger", b"r" * 32, ())
    for at in range(3):
        store.split_view_add(KeptSplitView(at, b"x" * 32, 9, found, "peer", 7))
        store.rollback_keep(KeptRollback(f"peer-{at}", 5, 9, Rollback(b"nine", b"five"), 7))
    for read, limit in ((store.split_views, "MAX_SPLIT_VIEWS"), (store.rollbacks, "MAX_ROLLBACKS")):
        monkeypatch.setattr(evidence, limit, 3)
        assert len(read()) == 3
        monkeypatch.setattr(evidence, limit, 2)
        with pytest.raises(Refused) as refused:
            read()
        assert refused.value.code == "SL-STORED"


def test_a_rollback_is_kept_once_until_its_source_is_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = KeptRollback("peer", 5, 9, Rollback(b"nine", b"five"), 7)
    again = KeptRollback("peer", 3, 9, Rollback(b"nine", b"three"), 8)
    other = replace(first, source="other", seen_at=8)
    assert [store.rollback_keep(one) for one in (first, again, other)] == [True, False, True]
    assert store.rollbacks() == [first, other]
    assert store.evidence_counts() == (0, 0, 2)
    assert (store.rollback_from("peer"), store.rollback_from("stranger")) == (9, None)
    assert Store(store.engine, "routes-eu-1").rollbacks() == []
    store.rollback_over("peer", 9)
    store.rollback_over("peer", 10)  # over already
    assert store.rollback_from("peer") is None
    assert store.rollbacks() == [replace(first, over_at=9), other]
    assert store.evidence_counts() == (0, 0, 1)
    assert store.rollback_keep(again)
    assert store.rollbacks() == [other, again]
    monkeypatch.setattr(evidence, "MAX_ROLLBACKS", 2)
    assert not store.rollback_keep(replace(first, source="third"))


def test_the_largest_head_of_each_source_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (store.shown_heads(), store.shown_head("a")) == ({}, None)
    five, nine = ShownHead(5, b"five"), ShownHead(9, b"nine")
    for at, (source, head) in enumerate([("a", five), ("a", nine), ("a", five), ("b", five), ("c", five)]):
        store.shown_head_keep(source, head, at)
    assert store.shown_heads() == {"a": nine, "b": five, "c": five}
    assert (store.shown_head("a"), store.shown_head("b")) == (nine, five)
    assert Store(store.engine, "routes-eu-1").shown_heads() == {}
    monkeypatch.setattr(evidence, "MAX_SHOWN_HEADS", 2)
    store.shown_head_keep("b", nine, 5)  # one that is known takes no room
    assert list(store.shown_heads()) == ["a", "c", "b"]
    store.shown_head_keep("d", five, 6)
    assert list(store.shown_heads()) == ["b", "d"]
