"""A log entry's bytes: canonical `{"record": …, "sequenced_at": …, "term": …}` (docs/records/, "The log").

A leaf of a partition's log names an `authority_size` besides: the size of the authority log by whose state
the entry is judged. The record inside a canonical leaf is itself canonical and its bytes stand in the leaf
unchanged, so a leaf is cut apart without parsing the record, and admission then judges exactly the bytes that
are in the tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from statelog import canonical
from statelog.errors import Refused
from statelog.findings import Finding
from statelog.limits import MAX_INTEGER, MAX_LEAF_BYTES
from statelog.times import format_time, parse_time

_HEAD = b'{"record":'
_PARTITION_HEAD = re.compile(rb'\{"authority_size":(0|[1-9][0-9]{0,15}),"record":')
_TAIL_START = b',"sequenced_at":"'  # the last one in a leaf: what may follow it holds no other
_TIME_END = len(_TAIL_START) + len("YYYY-MM-DDTHH:MM:SSZ")
_TERM = re.compile(rb'","term":(0|[1-9][0-9]{0,15})\}').fullmatch
_NO_LEAF = "the leaf is not a record, a time and a term in canonical form"


@dataclass(frozen=True, slots=True)
class Leaf:
    """An entry: the signed record, the Unix second it was sequenced at, and the term that sequenced it.

    `authority_size` is None in the authority log.
    """

    record: dict[str, Any]
    sequenced_at: int
    term: int
    authority_size: int | None = None


class LeafParts(NamedTuple):
    """A leaf cut apart: the record's bytes, not yet judged, and the sequencer's words about them."""

    record: bytes
    sequenced_at: int
    term: int
    authority_size: int | None = None


def frame_leaf(record: bytes, sequenced_at: int, term: int, authority_size: int | None = None) -> bytes:
    """The leaf around canonical record bytes, of a partition's log with an `authority_size`.

    Raises Refused SL-LEAF when it would be too long.
    """
    head = _HEAD if authority_size is None else b'{"authority_size":%d,"record":' % authority_size
    data = b'%b%b,"sequenced_at":"%b","term":%d}' % (head, record, format_time(sequenced_at).encode(), term)
    if len(data) > MAX_LEAF_BYTES:
        raise _refuse(
            "the leaf is too long", expected=f"at most {MAX_LEAF_BYTES} bytes", found=str(len(data))
        )
    return data


def split_leaf(data: bytes) -> LeafParts:
    """The parts of a leaf. The leaf is canonical exactly when the record's bytes are; the caller checks
    those.

    Raises Refused SL-LEAF.
    """
    if len(data) > MAX_LEAF_BYTES:
        raise _refuse(
            "the leaf is too long", expected=f"at most {MAX_LEAF_BYTES} bytes", found=str(len(data))
        )
    begin, authority_size = (len(_HEAD), None) if data.startswith(_HEAD) else _read_partition_head(data)
    end = data.rfind(_TAIL_START)
    if end < begin:
        raise _refuse(_NO_LEAF)
    term = _read_term(data[end + _TIME_END :])
    text = data[end + len(_TAIL_START) : end + _TIME_END].decode(errors="replace")
    try:
        sequenced_at = parse_time(text)
    except Refused as error:
        raise _refuse("the leaf's time is not a time", found=text) from error
    return LeafParts(data[begin:end], sequenced_at, term, authority_size)


def _read_partition_head(data: bytes) -> tuple[int, int]:
    """Where the record begins after an authority size, and that size. Raises Refused SL-LEAF."""
    head = _PARTITION_HEAD.match(data)
    if head is None:
        raise _refuse(_NO_LEAF)
    return head.end(), _in_range("authority size", int(head[1]))


@lru_cache(maxsize=64)  # entries of one term end alike
def _read_term(data: bytes) -> int:
    found = _TERM(data)
    if found is None:
        raise _refuse(_NO_LEAF)
    return _in_range("term", int(found[1]))


def _in_range(name: str, value: int) -> int:
    if value > MAX_INTEGER:
        raise _refuse(f"the leaf's {name} is out of range", found=str(value))
    return value


def encode_leaf(leaf: Leaf) -> bytes:
    """Canonical bytes of a leaf. Raises Refused SL-CANON, SL-SIZE, SL-LEAF."""
    return frame_leaf(canonical.encode(leaf.record), leaf.sequenced_at, leaf.term, leaf.authority_size)


def decode_leaf(data: bytes) -> Leaf:
    """The leaf in `data`, which must be its canonical bytes. Raises Refused SL-LEAF, SL-CANON, SL-SIZE."""
    parts = split_leaf(data)
    return Leaf(canonical.decode(parts.record), *parts[1:])


def _refuse(sentence: str, *, expected: str = "", found: str = "") -> Refused:
    return Refused(Finding("SL-LEAF", sentence, expected=expected, found=found))
