"""The quicker verifier says yes to ordinary signatures, and only where the one verifier does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog.io import quickverify
from statelog.io.quickverify import SMALL_ORDER, surely_right
from statelog.signing import SeedSigner, verify
from tests.statelog.test_accept_set import cases
from tests.support.edwards import encodings, torsion

ALICE = SeedSigner(b"a" * 32)
MESSAGE = b"message"
SIGNATURE = ALICE.sign(MESSAGE)


def test_an_ordinary_signature() -> None:
    assert quickverify.AVAILABLE
    assert surely_right(ALICE.public, SIGNATURE, MESSAGE)


def test_it_never_accepts_more() -> None:
    yes = [case for case in cases() if surely_right(case.public, case.signature, case.message)]
    assert yes
    assert all(verify(case.public, case.signature, case.message) for case in yes)


def test_the_library_alone_would_accept_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickverify, "SMALL_ORDER", frozenset())
    monkeypatch.setattr(quickverify, "_key", lambda public: quickverify._SPKI_HEAD + public)
    assert any(
        surely_right(case.public, case.signature, case.message)
        and not verify(case.public, case.signature, case.message)
        for case in cases()
    )


def test_every_encoding_of_a_point_of_small_order_is_known() -> None:
    assert {data for point in torsion() for data in encodings(point)} <= SMALL_ORDER
    assert len(SMALL_ORDER) == 14


@given(
    st.binary(min_size=1, max_size=3),
    st.integers(0, 10_000),
    st.sampled_from(("key", "signature", "message")),
)
def test_whatever_is_changed(noise: bytes, at: int, where: str) -> None:
    parts = {"key": ALICE.public, "signature": SIGNATURE, "message": MESSAGE}
    old = parts[where]
    at %= len(old)
    parts[where] = (old[:at] + noise + old[at + len(noise) :])[: len(old)]
    found = surely_right(parts["key"], parts["signature"], parts["message"])
    assert found == (parts[where] == old) == verify(parts["key"], parts["signature"], parts["message"])


@pytest.mark.parametrize("length", [0, 31, 63, 65])
def test_other_lengths(length: int) -> None:
    assert not surely_right(ALICE.public, SIGNATURE[:length].ljust(length, b"x"), MESSAGE)
    assert not surely_right(ALICE.public[:31], SIGNATURE, MESSAGE)


def test_without_the_library_everything_is_left_to_the_one_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickverify, "AVAILABLE", False)
    assert not surely_right(ALICE.public, SIGNATURE, MESSAGE)
