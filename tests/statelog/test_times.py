"""Times of records: one form, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog.errors import Refused, UsageError
from statelog.times import format_time, parse_time

LAST = 253_402_300_799  # 9999-12-31T23:59:59Z


def attempt(text: str) -> str:
    """The form of the time that ``text`` is, or the code of its refusal."""
    try:
        return format_time(parse_time(text))
    except Refused as refusal:
        return refusal.code


@given(st.integers(0, LAST))
def test_there_and_back(seconds: int) -> None:
    text = format_time(seconds)
    assert len(text) == 20
    assert parse_time(text) == seconds


@given(st.integers(0, LAST), st.integers(0, LAST))
def test_text_sorts_like_time(a: int, b: int) -> None:
    assert (format_time(a) < format_time(b)) == (a < b)


@given(st.text(alphabet="0123456789-:TZ +.W", min_size=18, max_size=22))
def test_what_parses_is_the_one_form(text: str) -> None:
    assert attempt(text) in ("SL-SHAPE", text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-01T00:00:00Z", 1_767_225_600),
        ("2024-02-29T12:34:56Z", 1_709_210_096),
    ],
)
def test_known_times(text: str, seconds: int) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-01-01 00:00:00Z",
        "2026-01-01t00:00:00z",
        "2026-01-01T00:00:00z",
        "2026-01-01T00:00:60Z",  # a leap second
        "2026-02-30T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-1-01T00:00:000Z",
        "20260101T000000.000Z",
        "2026-W01-4T00:00:00Z",
        "2026-01-01T00:00:00+00:00",
        "２026-01-01T00:00:00Z",  # a full-width digit
        "1969-12-31T23:59:59Z",
        "0000-01-01T00:00:00Z",
    ],
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(Refused, match="SL-SHAPE"):
        parse_time(text)


@pytest.mark.parametrize("seconds", [-1, LAST + 1])
def test_times_that_no_record_can_carry(seconds: int) -> None:
    with pytest.raises(UsageError):
        format_time(seconds)
