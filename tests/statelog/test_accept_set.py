"""The accept set of the one Ed25519 verifier: generated edge cases against a rule and a golden hash.

Libraries disagree about small-order points, points with a small-order component, non-canonical encodings,
scalars beyond the order, and whether the cofactor is multiplied in. The cases below are made from the curve's
own arithmetic: every public key A = [a]B + T and commitment R = [r]B + T' for all eight points T and T' of
small order, in every encoding, with scalars for which the equation holds, holds only after multiplication by
the cofactor, or is beyond the order. What is accepted is written down as a rule and, bit for bit, as a hash:
an upgrade of the library that changes its mind about one case is noticed before it splits a log.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256, sha512

from statelog.signing import acceptable_public_key, verify
from tests.support.edwards import (
    BASE,
    IDENTITY,
    L,
    Point,
    add,
    decode,
    encode,
    encodings,
    multiply,
    torsion,
)

SECRET, NONCE = 0x1F3A9C5577, 0x2B8E11D3F5  # any two scalars; small ones keep plain integers quick
MESSAGES = [b"message %d" % n for n in range(4)]
GOLDEN = "eab00890bcc60fe6832ceb4fc4e9ea0c2f44d10da09776236f5a75139936aa40"  # of cases and verdicts
ACCEPTED = 12


@dataclass(frozen=True)
class Case:
    """One signature, and what is true of it."""

    public: bytes
    signature: bytes
    message: bytes
    flags: frozenset[str]


@functools.cache
def _flags(data: bytes, mark: str) -> frozenset[str]:
    """What a lenient decoder finds at these bytes, as the public key A or the commitment R."""
    point = decode(data)
    assert point is not None
    found = set()
    if multiply(8, point) == IDENTITY:
        found.add(f"small-order {mark}")
    elif multiply(L, point) != IDENTITY:
        found.add(f"small-order component {mark}")
    if data != encode(point):
        found.add(f"non-canonical {mark}")
    return frozenset(found)


@dataclass(frozen=True)
class Part:
    """[scalar]B + T in one of its encodings."""

    data: bytes
    scalar: int
    small: Point


def _parts(scalar: int) -> list[Part]:
    """Both with and without the part in the prime-order group, every T, every encoding."""
    found = []
    for main in (scalar, 0):
        point = multiply(main, BASE)
        found += [Part(data, main, t) for t in torsion() for data in encodings(add(point, t))]
    return found


def _case(a: Part, r: Part, message: bytes, beyond: int = 0) -> Case:
    """S = r + k·a, `beyond` times the order added: S·B - k·A - R is then -(k·T + T') alone."""
    k = int.from_bytes(sha512(r.data + a.data + message).digest(), "little") % L
    scalar = (r.scalar + k * a.scalar) % L + beyond * L
    flags = set(_flags(a.data, "A") | _flags(r.data, "R"))
    if scalar >= L:
        flags.add("S beyond L")
    # A and R go into the equation as points: a library that works on k modulo L meets k·T, not (k mod 8)·T.
    flags.add("holds" if add(multiply(k, a.small), r.small) == IDENTITY else "holds with the cofactor")
    return Case(a.data, r.data + scalar.to_bytes(32, "little"), message, frozenset(flags))


@functools.cache
def cases() -> tuple[Case, ...]:
    """In a fixed order."""
    keys, commitments = _parts(SECRET), _parts(NONCE)
    found = [
        _case(a, r, MESSAGES[(i + j) % len(MESSAGES)])
        for i, a in enumerate(keys)
        for j, r in enumerate(commitments)
    ]
    found += [_case(keys[0], commitments[0], one, n) for one in MESSAGES for n in range(8)]
    return tuple(found)


REFUSED = {"small-order A", "small-order R", "non-canonical A", "non-canonical R", "S beyond L"}


def test_the_rule() -> None:
    """Accepted is exactly what satisfies the equation without the cofactor and has none of five faults."""
    for case in cases():
        expected = "holds" in case.flags and not case.flags & REFUSED
        found = verify(case.public, case.signature, case.message)
        assert found is expected, (sorted(case.flags), case.public.hex(), case.signature.hex())


def test_every_fault_alone_is_what_refuses() -> None:
    """For each there is a case with that fault and no other whose equation holds: the check is not idle."""
    alone = Counter(
        next(iter(case.flags & REFUSED))
        for case in cases()
        if "holds" in case.flags and len(case.flags & REFUSED) == 1
    )
    assert alone.keys() >= {"small-order A", "small-order R", "S beyond L"}, alone
    cofactored = [
        case for case in cases() if "holds with the cofactor" in case.flags and not case.flags & REFUSED
    ]
    assert len(cofactored) > 20  # what a verifier that multiplies by 8 would take
    assert not any(verify(case.public, case.signature, case.message) for case in cofactored)
    mixed = [case for case in cases() if "small-order component A" in case.flags and "holds" in case.flags]
    assert any(verify(case.public, case.signature, case.message) for case in mixed)


def test_the_golden_accept_set() -> None:
    verdicts = bytes(verify(case.public, case.signature, case.message) for case in cases())
    inputs = sha256(b"".join(case.public + case.signature + case.message for case in cases()))
    digest = sha256(inputs.digest() + verdicts).hexdigest()
    assert (sum(verdicts), digest) == (ACCEPTED, GOLDEN)


def test_what_may_be_enrolled_is_stricter() -> None:
    """Canonical keys of the prime-order group, so that no two verifiers anywhere disagree about them."""
    publics = {case.public: case.flags for case in cases()}
    for public, flags in publics.items():
        clean = not flags & {"small-order A", "small-order component A", "non-canonical A"}
        assert acceptable_public_key(public) is clean
    assert sum(map(acceptable_public_key, publics)) == 1


def test_the_curve_that_the_cases_are_made_of() -> None:
    """The generator's own arithmetic: the base point's order, and eight points of small order."""
    assert encode(BASE).hex() == "58" + "66" * 31
    assert multiply(L, BASE) == IDENTITY
    small = torsion()
    assert len(set(small)) == 8
    assert all(multiply(8, point) == IDENTITY for point in small)
    assert {len(encodings(point)) for point in small} == {1, 2, 4}
    assert sum(len(encodings(point)) for point in small) == 14
