"""Findings and refusals: data first, a sentence for people second."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from statelog.errors import Refused, SourceUnreadable, StatelogError, UsageError, refuse
from statelog.findings import CODES, Finding

ROOT = Path(__file__).resolve().parents[2]


def test_codes_are_stable_words_with_an_explanation() -> None:
    assert all(re.fullmatch(r"SL-[A-Z]+", code) for code in CODES)
    assert all(sentence.endswith(".") and len(sentence) > 20 for sentence in CODES.values())
    assert len(set(CODES.values())) == len(CODES)


def test_every_code_is_documented_in_its_own_words() -> None:
    """docs/findings.md lists them all, in order, as the code says them, each with what to do about it."""
    rows = re.findall(
        r"^\| `(SL-[A-Z]+)` \| (.+?) \| (.+?) \|$", (ROOT / "docs/findings.md").read_text(), re.M
    )
    assert {code: sentence for code, sentence, _ in rows} == CODES
    assert [code for code, _, _ in rows] == list(CODES)
    assert all(advice.endswith(".") and len(advice) > 20 for _, _, advice in rows)


def test_every_code_has_a_test_that_produces_it() -> None:
    here = Path(__file__)
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path != here]
    assert [code for code in CODES if not any(f'"{code}"' in text for text in texts)] == []


def test_a_finding_reads_as_one_sentence() -> None:
    finding = Finding("SL-SIG", "the signature is wrong", "signatures[0]", "this", "that")
    assert str(finding) == "SL-SIG at signatures[0]: the signature is wrong; expected this; found that"
    assert str(Finding("SL-SIG", "no")) == "SL-SIG: no"


def test_a_finding_is_placed_once() -> None:
    placed = Finding("SL-SIG", "no").at(7, "a" * 64)
    assert (placed.log_index, placed.record_id) == (7, "a" * 64)
    assert placed.at() == placed
    assert placed.at(8).log_index == 8


def test_a_path_is_seen_from_the_outside() -> None:
    assert Finding("SL-KEY", "no", "keys[0]").under("root").path == "root.keys[0]"
    assert Finding("SL-KEY", "no").under("root").path == "root"


@pytest.mark.parametrize("kind", [Refused, UsageError, SourceUnreadable])
def test_one_tree(kind: type[Exception]) -> None:
    assert issubclass(kind, StatelogError)


def test_a_refusal_carries_its_finding() -> None:
    refused = refuse("SL-QUORUM", "too few", path="signatures", expected=2, found=1)
    assert (refused.code, refused.finding.expected, refused.finding.found) == ("SL-QUORUM", "2", "1")
    assert str(refused) == str(refused.finding)
    assert refused.at(3).finding.log_index == 3
