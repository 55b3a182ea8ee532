"""Proof files as C2SP tlog-proof spells them, and every other spelling."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog.errors import Refused
from statelog.limits import MAX_PROOF_FILE_BYTES, MAX_PROOF_HASHES
from statelog.signing import encode_base64
from statelog.tlogproof import TlogProof, parse_tlog_proof

HASH = sha256(b"x").digest()
LINE = encode_base64(HASH)
NOTE = b"example.com/fancylog\n109482\nsFo\n\n\xe2\x80\x94 example.com/fancylog hI2DJw==\n"


def test_the_format() -> None:
    proof = TlogProof(73894, (HASH, HASH), NOTE, b"age-v1")
    head = f"c2sp.org/tlog-proof@v1\nextra YWdlLXYx\nindex 73894\n{LINE}\n{LINE}\n\n".encode()
    assert proof.format() == head + NOTE
    assert parse_tlog_proof(head + NOTE) == proof
    assert TlogProof(0, (), NOTE).format() == b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + NOTE


@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=MAX_PROOF_HASHES),
    st.binary(max_size=60),
)
def test_what_is_written_is_read(index: int, hashes: list[bytes], extra: bytes) -> None:
    proof = TlogProof(index, tuple(hashes), NOTE, extra)
    assert parse_tlog_proof(proof.format()) == proof


GOOD = ["c2sp.org/tlog-proof@v1", "extra YWdl", "index 7", LINE]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["c2sp.org/tlog-proof@v2", *GOOD[1:]],
        [GOOD[0], GOOD[1]],
        [GOOD[0], "index 7", "extra YWdl"],
        [GOOD[0], "extra ", *GOOD[2:]],
        [GOOD[0], "extra YWdl=", *GOOD[2:]],
        [*GOOD[:2], "index 07", LINE],
        [*GOOD[:2], "index -7", LINE],
        [*GOOD[:2], "index 9223372036854775808", LINE],
        [*GOOD[:2], "Index 7", LINE],
        [*GOOD[:3], LINE + "\r"],
        [*GOOD[:3], LINE[:-4]],
        [*GOOD[:3], "é"],
        [*GOOD[:3], *[LINE] * (MAX_PROOF_HASHES + 1)],
    ],
)
def test_other_spellings_are_refused(lines: list[str]) -> None:
    assert parse_tlog_proof("\n".join([*GOOD, "", ""]).encode() + NOTE).index == 7
    with pytest.raises(Refused) as refused:
        parse_tlog_proof("\n".join([*lines, "", ""]).encode() + NOTE)
    assert refused.value.code == "SL-PROOF"


@pytest.mark.parametrize("data", [b"", b"\n\n", "\n".join(GOOD).encode(), bytes(MAX_PROOF_FILE_BYTES + 1)])
def test_what_is_no_proof_file(data: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse_tlog_proof(data)
    assert refused.value.code == "SL-PROOF"
