"""Times of records: ``YYYY-MM-DDTHH:MM:SSZ`` and nothing else (a profile of RFC 3339), as Unix seconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from statelog.errors import UsageError, refuse

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST_SECOND: Final = 253_402_300_799  # 9999-12-31T23:59:59Z: four digits of a year
# Exact, because what the library reads grows: from some version on, 24:00 is the next day.
_MINUTE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:").fullmatch
_SECONDS: Final = {f"{number:02}Z": number for number in range(60)}


@lru_cache(maxsize=4096)  # read once for the form, once for the rules, once for the tables
def parse_time(text: str) -> int:
    """Unix seconds of ``text``.  Raises `Refused` (SL-SHAPE) on any other form, leap seconds included."""
    # Every record has its own times, so only the minute, which many share, is read.
    minute, second = _minute(text[:17]), _SECONDS.get(text[17:])
    if minute is None or second is None:
        raise refuse("SL-SHAPE", "not a time", expected="YYYY-MM-DDTHH:MM:SSZ", found=repr(text[:40]))
    return minute + second


@lru_cache(maxsize=4096)
def _minute(text: str) -> int | None:
    """Unix seconds at which the minute ``YYYY-MM-DDTHH:MM:`` begins, from 1970 on; None for other text."""
    if _MINUTE(text) is None:
        return None
    try:
        since = datetime.fromisoformat(text[:-1]).replace(tzinfo=UTC) - _EPOCH
    except ValueError:
        return None
    return 86_400 * since.days + since.seconds if since.days >= 0 else None


@lru_cache(maxsize=64)  # a batch of entries is sequenced in one second
def format_time(seconds: int) -> str:
    """The record form of Unix ``seconds``, 0 … 9999-12-31.  Raises `UsageError` outside."""
    if not 0 <= seconds <= LAST_SECOND:
        raise UsageError(f"{seconds} is not a time that a record can carry")
    return (_EPOCH + timedelta(seconds=int(seconds))).strftime("%Y-%m-%dT%H:%M:%SZ")
