"""The registry: the fold, and candidate, active and fallback in any order of delivery."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.all import fold_all
from projections.model import RegistryRecord
from projections.registry import MAX_REMEMBERED_REFUSALS, TABLE, RegistryBook, StatusChange, generation_of
from tests.projections import facts
from tests.projections.facts import HOUR, T0

SUBJECT = ("control-api", "cluster", "")


def made(
    name: str = "r",
    epoch: int = 1,
    issued_at: int = T0,
    generation: int = 0,
    log_index: int | None = None,
    expires_at: int = T0 + HOUR,
    record_id: str | None = None,
) -> RegistryRecord:
    return RegistryRecord(
        record_id=record_id or facts.hexid(f"{name}{epoch}{issued_at}{generation}"),
        subject=SUBJECT,
        epoch=epoch,
        issued_at=issued_at,
        expires_at=expires_at,
        generation=generation,
        endpoints=(),
        log_index=log_index,
    )


def accept(book: RegistryBook, record: RegistryRecord, **more: Any) -> list[StatusChange]:
    return book.accepted(record, record.record_id, more.get("log_index", record.log_index))


def picture(book: RegistryBook, **names: RegistryRecord) -> dict[str, str | None]:
    return {name: book.status(record.record_id) for name, record in names.items()}


class TestStatus:
    def test_a_record_is_a_candidate_until_a_live_probe_proves_it(self) -> None:
        book, a = RegistryBook(), made()
        (told,) = accept(book, a)
        assert (told.before, told.after) == (None, "candidate")
        assert book.view(SUBJECT).active is None
        (told,) = book.verified(a.record_id, T0 + 5)
        assert (told.before, told.after, told.verified_at) == ("candidate", "active", T0 + 5)
        assert book.view(SUBJECT).active == a

    def test_the_previous_active_stays_until_the_newer_one_is_proved_and_then_as_fallback(self) -> None:
        book, a, b = RegistryBook(), made(epoch=1), made(epoch=2)
        accept(book, a)
        book.verified(a.record_id, T0)
        accept(book, b)
        assert picture(book, a=a, b=b) == {"a": "active", "b": "candidate"}
        told = book.verified(b.record_id, T0 + 1)
        assert {(c.record_id, c.after) for c in told} == {(a.record_id, "fallback"), (b.record_id, "active")}
        assert book.view(SUBJECT).fallbacks == (a,)
        book.expired(a.expires_at)
        assert book.view(SUBJECT).fallbacks == ()

    def test_an_older_record_never_replaces_a_live_active_one(self) -> None:
        book, old, new = RegistryBook(), made(epoch=3), made(epoch=4)
        accept(book, new)
        book.verified(new.record_id, T0)
        accept(book, old)
        book.verified(old.record_id, T0 + 1)
        assert picture(book, old=old, new=new) == {"old": "fallback", "new": "active"}

    def test_when_the_active_one_expires_the_newest_proved_one_takes_over(self) -> None:
        book = RegistryBook()
        old, new = made(epoch=1, expires_at=T0 + 100), made(epoch=2, expires_at=T0 + 50)
        unproved = made("u", epoch=1, issued_at=T0 + 1, expires_at=T0 + 100)
        for record in (old, new, unproved):
            accept(book, record)
        book.verified(old.record_id, T0)
        book.verified(new.record_id, T0)
        assert book.view(SUBJECT).fallbacks == (old, unproved), "a proved fallback comes first, though older"
        book.expired(T0 + 50)
        assert picture(book, old=old, new=new, unproved=unproved) == {
            "old": "active",
            "new": None,
            "unproved": "candidate",
        }

    @pytest.mark.parametrize(
        ("better", "worse"),
        [
            (made("a", epoch=2, issued_at=T0), made("b", epoch=1, issued_at=T0 + 9, generation=9)),
            (made("a", issued_at=T0 + 1), made("b", issued_at=T0, generation=9)),
            (made("a", generation=10), made("b", generation=9)),
            (made(record_id="0" * 64), made(record_id="1" + "0" * 63)),
        ],
        ids=["epoch", "issued_at", "generation as an integer", "lower record id"],
    )
    def test_order(self, better: RegistryRecord, worse: RegistryRecord) -> None:
        for first, second in ((better, worse), (worse, better)):
            book = RegistryBook()
            for record in (first, second):
                accept(book, record)
                book.verified(record.record_id, T0)
            assert picture(book, better=better, worse=worse) == {"better": "active", "worse": "fallback"}

    def test_generations_that_are_no_numbers_count_as_zero(self) -> None:
        assert [generation_of(g) for g in ("10", 9, "", "blue", "²", "-1")] == [10, 9, 0, 0, 0, 0]


class TestAheadOfTheLog:
    def test_a_record_that_the_log_refuses_is_dropped_and_the_one_before_it_restored(self) -> None:
        book, logged, ahead = RegistryBook(), made(epoch=1, log_index=7), made(epoch=2)
        for record in (logged, ahead):
            accept(book, record)
            book.verified(record.record_id, T0)
        assert picture(book, logged=logged, ahead=ahead) == {"logged": "fallback", "ahead": "active"}
        book.dropped(ahead.record_id)
        assert picture(book, logged=logged, ahead=ahead) == {"logged": "active", "ahead": None}
        assert accept(book, ahead) == [], "gossip must not bring it back"
        accept(book, ahead, log_index=8)
        assert book.status(ahead.record_id) == "candidate", "the log itself may"

    def test_what_the_log_has_cannot_be_dropped(self) -> None:
        book, logged = RegistryBook(), made(log_index=7)
        accept(book, logged)
        assert book.dropped(logged.record_id) == []
        assert book.status(logged.record_id) == "candidate"

    def test_becoming_logged_keeps_the_proof_and_lifts_the_mark(self) -> None:
        book, record = RegistryBook(), made()
        accept(book, record)
        book.verified(record.record_id, T0 + 3)
        accept(book, record, log_index=9)
        active = book.view(SUBJECT).active
        assert active is not None
        assert (active.log_index, active.unlogged) == (9, False)
        assert book.verified_at(record.record_id) == T0 + 3

    @pytest.mark.parametrize("epoch", [4, 5])
    def test_the_log_beats_an_unlogged_record_of_its_epoch_or_an_earlier_one(self, epoch: int) -> None:
        ahead, logged = made("a", epoch=epoch), made("l", epoch=5, log_index=3)
        for first, second in ((ahead, logged), (logged, ahead)):
            book = RegistryBook()
            for record in (first, second):
                accept(book, record)
                book.verified(record.record_id, T0)
            assert picture(book, ahead=ahead, logged=logged) == {"ahead": None, "logged": "active"}
        newer = made("n", epoch=6)
        accept(book, newer)
        assert book.status(newer.record_id) == "candidate", "one ahead of the log's epoch acts"

    def test_and_still_does_after_the_logged_one_expired(self) -> None:
        book = RegistryBook()
        accept(book, made("a", epoch=4, expires_at=T0 + 100))
        accept(book, made("l", epoch=5, log_index=3, expires_at=T0 + 50))
        book.expired(T0 + 60)
        assert SUBJECT not in book.views

    def test_refusals_are_remembered_within_a_bound(self) -> None:
        book = RegistryBook()
        for number in range(MAX_REMEMBERED_REFUSALS + 1):
            book.dropped(facts.hexid(str(number)))
        first = made(record_id=facts.hexid("0"))
        last = made(record_id=facts.hexid(str(MAX_REMEMBERED_REFUSALS)))
        assert accept(book, first), "the oldest refusal was forgotten for the newest"
        assert accept(book, last) == []


records = st.builds(
    made,
    name=st.sampled_from("ab"),
    epoch=st.integers(1, 4),
    issued_at=st.integers(T0, T0 + 2),
    generation=st.integers(0, 2),
    log_index=st.none(),
    expires_at=st.sampled_from([T0 + 10, T0 + 20, T0 + 30]),
)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, RegistryRecord, int]]:
    """Events whose order must not matter: records by gossip and by the log, refusals, proofs."""
    known = {record.record_id: record for record in draw(st.lists(records, min_size=1, max_size=6))}
    events: list[tuple[str, RegistryRecord, int]] = []
    logged_epochs: set[int] = set()
    for record in known.values():
        fate = draw(st.sampled_from(["ahead", "logged", "both", "refused"]))
        if fate in ("logged", "both"):
            if record.epoch in logged_epochs:  # admission lets one record of an epoch into a log
                fate = "ahead"
            logged_epochs.add(record.epoch)
        if fate != "logged":
            events.append(("ahead", record, 0))
        if fate in ("logged", "both"):
            events.append(("logged", record, record.epoch))
        if fate == "refused":
            events.append(("refused", record, 0))
        if draw(st.booleans()):
            events.append(("proved", record, T0))
    return events


def play(events: list[tuple[str, RegistryRecord, int]]) -> RegistryBook:
    book = RegistryBook()
    waiting: list[RegistryRecord] = []
    for what, record, number in events:
        if what == "ahead":
            accept(book, record)
        elif what == "logged":
            accept(book, record, log_index=number)
        elif what == "refused":
            book.dropped(record.record_id)
        else:
            waiting.append(record)
        for proved in waiting:  # a probe proves a record that the node holds, whenever it came
            book.verified(proved.record_id, T0)
    return book


@settings(max_examples=300)
@given(histories(), st.randoms(use_true_random=False), st.sampled_from([T0, T0 + 10, T0 + 25, T0 + 40]))
def test_any_order_of_delivery_ends_in_the_same_book(
    events: list[tuple[str, RegistryRecord, int]], chance: random.Random, now: int
) -> None:
    one = play(events)
    shuffled = list(events)
    chance.shuffle(shuffled)
    cut = chance.randrange(len(shuffled) + 1)
    other = play(shuffled[:cut])
    other.expired(now)
    for what, record, number in shuffled[cut:]:
        if what == "ahead":
            accept(other, record)
        elif what == "logged":
            accept(other, record, log_index=number)
        elif what == "refused":
            other.dropped(record.record_id)
    for what, record, _ in events:
        if what == "proved":
            other.verified(record.record_id, T0)
    one.expired(now)
    assert dict(one.views) == dict(other.views)


@given(histories())
def test_the_told_changes_add_up_to_the_statuses(events: list[tuple[str, RegistryRecord, int]]) -> None:
    book, statuses = RegistryBook(), dict[str, str | None]()
    for what, record, number in events:
        told = {
            "ahead": lambda r, n: accept(book, r),
            "logged": lambda r, n: accept(book, r, log_index=n),
            "refused": lambda r, n: book.dropped(r.record_id),
            "proved": lambda r, n: book.verified(r.record_id, n),
        }[what](record, number)
        for change in told:
            assert change.before == statuses.get(change.record_id)
            statuses[change.record_id] = change.after
    for change in book.expired(T0 + 15):
        statuses[change.record_id] = change.after
    kept = {record_id: status for record_id, status in statuses.items() if status is not None}
    assert kept == {r.record_id: book.status(r.record_id) for _, r, _ in events if book.status(r.record_id)}
    for view in book.views.values():
        orders = [r.order for r in (*view.candidates, *([view.active] if view.active else []))]
        assert orders == sorted(orders, reverse=True)
        assert view.active is None or all(r.order < view.active.order for r in view.fallbacks)


def test_a_copy_goes_its_own_way() -> None:
    book, record = RegistryBook(), made()
    accept(book, record)
    other = book.copy()
    other.verified(record.record_id, T0)
    assert (book.status(record.record_id), other.status(record.record_id)) == ("candidate", "active")


class TestFold:
    def test_rows_of_a_subject_stay_until_they_expired_at_its_next_entry(self) -> None:
        short = facts.registry(valid_s=5, epoch=1)
        long = facts.registry(valid_s=HOUR, epoch=2, generation="12")
        other = facts.registry("update-store", valid_s=5)
        rows = fold_all(facts.log(facts.descriptor(), short, other, long))
        assert len(list(rows.rows(TABLE.name))) == 3
        rows = fold_all(
            [
                *facts.log(facts.descriptor(), short, other, long),
                *facts.log(facts.registry(epoch=3), start=4, at=T0 + 50),
            ]
        )
        kept = {(row["service"], row["epoch"]) for row in rows.rows(TABLE.name)}
        assert kept == {("control-api", 2), ("control-api", 3), ("update-store", 1)}

    def test_a_row_carries_what_was_signed_and_where_it_stands(self) -> None:
        record = facts.registry(scope="organization", organization_id="acme", generation="7")
        rows = fold_all(facts.log(facts.descriptor("development"), record))
        row = rows.get(TABLE.name, (facts.id_of(record),))
        assert row is not None
        assert (row["organization_id"], row["generation"], row["log_index"]) == ("acme", "7", 1)
        assert row["endpoints"] == record["endpoints"]
        assert row["bootstrap"] is True
        other = fold_all(facts.log(facts.descriptor("production"), record)).get(
            TABLE.name, (facts.id_of(record),)
        )
        assert other == {**row, "bootstrap": False}
