"""Times of records: ``YYYY-MM-DDTHH:MM:SSZ`` and nothing else (a profile of RFC 3339), as Unix seconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from statelog.errors import UsageError, refuse

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST_SECOND: Final = 253_402_300_799  # 9999-12-31T23:59:59Z: four digits of a year
_TWO_DIGITS: Final = {f"{number:02}": number for number in range(60)}  # of minutes and seconds
_HOURS: Final = {f"{number:02}": 3_600 * number for number in range(24)}


@lru_cache(maxsize=4096)  # read once for the form, once for the rules, once for the tables
def parse_time(text: str) -> int:
    """Unix seconds of ``text``.  Raises `Refused` (SL-SHAPE) on any other form, leap seconds included."""
    # Every record has its own times, so the parts are looked up and only the day, which many share, is read.
    if len(text) == 20 and text[10] == "T" and text[13] == text[16] == ":" and text[19] == "Z":
        hour, minute, second = (
            _HOURS.get(text[11:13]),
            _TWO_DIGITS.get(text[14:16]),
            _TWO_DIGITS.get(text[17:19]),
        )
        day = _day(text[:10])
        if day is not None and hour is not None and minute is not None and second is not None:
            return day + hour + 60 * minute + second
    raise refuse("SL-SHAPE", "not a time", expected="YYYY-MM-DDTHH:MM:SSZ", found=repr(text[:40]))


@lru_cache(maxsize=1024)
def _day(text: str) -> int | None:
    """Unix seconds at which the day ``YYYY-MM-DD`` begins, from 1970 on; None for any other text."""
    if not (text.isascii() and text[4] == text[7] == "-"):
        return None
    try:
        days = (datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH).days
    except ValueError:
        return None
    return 86_400 * days if days >= 0 else None


@lru_cache(maxsize=64)  # a batch of entries is sequenced in one second
def format_time(seconds: int) -> str:
    """The record form of Unix ``seconds``, 0 … 9999-12-31.  Raises `UsageError` outside."""
    if not 0 <= seconds <= LAST_SECOND:
        raise UsageError(f"{seconds} is not a time that a record can carry")
    return (_EPOCH + timedelta(seconds=int(seconds))).strftime("%Y-%m-%dT%H:%M:%SZ")
