"""Canonical bytes: RFC 8785 (JCS), narrowed until two encoders cannot disagree.

The profile (docs/records/, "Canonical bytes"): object keys are ASCII; numbers are integers in 0 … 2^53−1;
no duplicate keys; no lone surrogates; nesting at most `limits.MAX_DEPTH`.  On this profile `orjson` with
sorted keys yields exactly the bytes of RFC 8785: ASCII keys sort alike by UTF-16 units and by bytes, and no
floating-point number is ever formatted.  A property test holds it against an independent implementation.

Reading is strict: decode, walk the types, encode again, compare the bytes.  Whatever an encoder would not
have written (spaces, escapes, order, duplicate keys, `-0`, exponents) is refused.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from statelog.errors import refuse
from statelog.limits import MAX_DEPTH, MAX_INTEGER, MAX_RECORD_BYTES

_SORTED: Final = orjson.OPT_SORT_KEYS


def check_profile(value: object) -> None:
    """Raise `Refused` (SL-CANON) unless ``value`` is made only of what the profile allows."""
    # A stack instead of recursion: input chooses the nesting, so it must not choose our stack depth.
    pending: list[tuple[object, int]] = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        kind = type(item)
        if kind is dict:
            members: Any = item.values()  # type: ignore[attr-defined]  # an exact dict, by the line above
            for key in item:  # type: ignore[attr-defined]  # same
                if type(key) is not str or not key.isascii():
                    raise refuse("SL-CANON", "object keys are ASCII strings", found=repr(key)[:80])
        elif kind is list:
            members = item
        else:
            _check_scalar(item)
            continue
        if depth > MAX_DEPTH:
            raise refuse("SL-CANON", "nested too deeply", expected=f"at most {MAX_DEPTH} levels")
        for member in members:
            kind = type(member)
            if kind is dict or kind is list:
                pending.append((member, depth + 1))
            elif kind is not str:  # strings are the common case; surrogates fail in the encoder
                _check_scalar(member)


def _check_scalar(value: object) -> None:
    kind = type(value)
    if kind is int:
        if not 0 <= value <= MAX_INTEGER:  # type: ignore[operator]  # an exact int, by the line above
            raise refuse("SL-CANON", "integer out of range", expected="0 … 2^53−1", found=str(value)[:40])
    elif kind is not str and kind is not bool and value is not None:
        raise refuse("SL-CANON", "not a value of the profile", found=f"{kind.__name__} {value!r}"[:80])


def encode(value: object) -> bytes:
    """The canonical bytes of ``value`` (dict, list, str, int, bool, None).

    Raises `Refused` (SL-CANON) for anything outside the profile: floats, negative or large integers,
    non-ASCII keys, lone surrogates, deep nesting, other types.
    """
    check_profile(value)
    return encode_trusted(value)


def encode_trusted(value: object) -> bytes:
    """`encode` for a value that `decode` returned, or a part of one: the types are known to be right."""
    try:
        return orjson.dumps(value, option=_SORTED)
    except (orjson.JSONEncodeError, TypeError) as error:  # lone surrogates, above all
        raise refuse("SL-CANON", f"cannot be encoded: {error}") from None


def decode(data: bytes, *, max_bytes: int = MAX_RECORD_BYTES) -> dict[str, Any]:
    """The object whose canonical bytes ``data`` is.

    Raises `Refused`: SL-SIZE over ``max_bytes``; SL-CANON for anything that is not one object in exactly its
    canonical form.
    """
    value = decode_unwalked(data, max_bytes=max_bytes)
    check_profile(value)
    return value


def decode_unwalked(data: bytes, *, max_bytes: int = MAX_RECORD_BYTES) -> dict[str, Any]:
    """`decode` without the walk of the types, for a caller that checks every value of the object itself.

    What remains possible here and not in `decode`: floats, negative and large integers, keys beyond ASCII and
    deep nesting, each in the one spelling that the encoder gives it.
    """
    if len(data) > max_bytes:
        raise refuse("SL-SIZE", "too many bytes", expected=f"at most {max_bytes}", found=len(data))
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise refuse("SL-CANON", f"not JSON: {error}"[:200]) from None
    if type(value) is not dict:
        raise refuse("SL-CANON", "not an object", expected="an object", found=type(value).__name__)
    try:
        canonical = orjson.dumps(value, option=_SORTED)
    except (orjson.JSONEncodeError, TypeError):
        canonical = encode_trusted(value)  # which says why it cannot be
    if canonical != data:
        raise refuse("SL-CANON", "not in canonical form", expected="the bytes that RFC 8785 gives")
    return value
