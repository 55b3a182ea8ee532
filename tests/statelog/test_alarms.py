"""Alarms: what every view of a replica says aloud, and when it is silent."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.alarms import alarms, is_stale, of_log

FINE: dict[str, Any] = {"final_size": 12, "fresh_at": 1_000, "max_age_s": 600, "now": 1_600.0}


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, []),
        ({"now": 1_600.5}, ["SL-FRESHNESS"]),
        ({"fresh_at": None}, ["SL-FRESHNESS"]),
        ({"fresh_at": 2_000}, []),
        ({"split_views": 1}, ["SL-SPLIT"]),
        ({"equivocations": 2}, ["SL-EQUIVOCATION"]),
        ({"rollbacks": 1}, ["SL-ROLLBACK"]),
        ({"now": 9e9, "split_views": 1, "equivocations": 1}, ["SL-FRESHNESS", "SL-SPLIT", "SL-EQUIVOCATION"]),
    ],
)
def test_each_alarm_and_its_absence(changes: dict[str, Any], codes: list[str]) -> None:
    assert [one.code for one in alarms(**{**FINE, **changes})] == codes


def test_those_of_another_log_bear_its_name_and_repeat_no_evidence_about_records() -> None:
    kept = {"split_views": 1, "equivocations": 1, "rollbacks": 1}
    found = of_log(alarms(**{**FINE, **kept}), "routes-eu-1")
    assert [(one.code, one.log) for one in found] == [
        ("SL-SPLIT", "routes-eu-1"),
        ("SL-ROLLBACK", "routes-eu-1"),
    ]
    assert all(one.sentence.startswith("routes-eu-1: ") for one in found)


def test_the_age_is_in_the_sentence() -> None:
    (alarm,) = alarms(**{**FINE, "now": 2_000.0})
    assert str(alarm) == (
        "SL-FRESHNESS: the final head of 12 is older than the descriptor allows; "
        "expected at most 600 s; found 1000 s"
    )
    (unknown,) = alarms(**{**FINE, "fresh_at": None})
    assert unknown.found == "unknown"


def test_the_age_may_be_exactly_what_is_allowed() -> None:
    assert not is_stale(1_000, 600, 1_600)
    assert is_stale(1_000, 600, 1_601)
    assert is_stale(None, 600, 0)
