"""The recovery row: which set holds since when, and what is under way."""

from __future__ import annotations

from typing import Any

from projections.all import fold_all
from projections.base import Row
from tests.projections import facts
from tests.projections.facts import T0, hexid

DAY = 86_400


def recovery(*records: dict[str, Any], apart_s: int = 1) -> Row:
    made = [facts.log(one, start=n, at=T0 + n * apart_s)[0] for n, one in enumerate(records)]
    (row,) = fold_all(made).rows("recovery")
    return row


def pinning(*people: str, delay_s: int = DAY, **more: Any) -> dict[str, Any]:
    part = {"threshold": 1, "key_sha256": [hexid(person) for person in people], "delay_s": delay_s}
    return {**facts.descriptor(**more), "recovery": part}


def test_a_new_set_waits_for_the_old_delay() -> None:
    row = recovery(pinning("p"), pinning("q", delay_s=1, epoch=2), apart_s=60)
    assert [(one["since"], one["key_sha256"], one["delay_s"]) for one in row["sets"]] == [
        (T0, [hexid("p")], DAY),
        (T0 + 60 + DAY, [hexid("q")], 1),
    ]
    later = recovery(
        pinning("p"), pinning("q", delay_s=1, epoch=2), pinning("q", delay_s=1, epoch=3), apart_s=DAY
    )
    assert [one["since"] for one in later["sets"]] == [T0 + 2 * DAY]


def test_an_intent_is_due_after_the_delay_in_force() -> None:
    intent = facts.intent(hexid("coming"), "p", "q")
    row = recovery(pinning("p", "q"), intent, apart_s=60)
    assert (row["intent"], row["descriptor"], row["due_at"]) == (
        facts.id_of(intent),
        hexid("coming"),
        T0 + 60 + DAY,
    )
    assert [key["issuer_id"] for key in row["shown"]] == ["p", "q"]
    assert (row["record_id"], row["log_index"]) == (facts.id_of(intent), 1)


def test_a_veto_or_a_descriptor_ends_it() -> None:
    intent = facts.intent(hexid("coming"), "p")
    for ending in (facts.veto(facts.id_of(intent)), pinning("p", epoch=2)):
        row = recovery(pinning("p"), intent, ending)
        assert (row["intent"], row["descriptor"], row["shown"], row["due_at"]) == ("", "", [], 0)
        assert [one["since"] for one in row["sets"]] == [T0]
