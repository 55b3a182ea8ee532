"""Checkers: the small vocabulary in which a kind states its shape.

A checker is a function of one value that returns None, or a `Fault` saying where, what was expected and what
was found.  Structures are objects that also show what they are made of, so that `compiled` can write one
function out of a whole form.

    endpoint = fields({"address": quic_address, "priority": integer(0, 65_535)}, optional={"interface": name})
    endpoints = list_of(endpoint, 1, 16)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from typing import Any, Final

from statelog.errors import Refused
from statelog.limits import (
    HASH_BYTES,
    MAX_ADDRESS_CHARS,
    MAX_CLUSTER_ID_CHARS,
    MAX_LIST_ITEMS,
    MAX_LOG_NAME_CHARS,
    MAX_NAME_CHARS,
    MAX_PARTITION_CHARS,
    PUBLIC_KEY_BYTES,
)
from statelog.times import parse_time

_QUIC: Final = re.compile(r"quic://(\[[0-9a-f:.]+\]|[a-z0-9.-]+):([1-9][0-9]{0,4})").fullmatch
_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
).fullmatch
_MAX_PORT: Final = 65_535


class _Missing:
    """Stands for an absent field; no checker accepts it."""


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a value departs from its shape; ``path`` is relative to the value that was checked."""

    path: str
    expected: str
    found: str

    def under(self, step: str) -> Fault:
        """The same fault, seen from the object that holds the value under ``step``."""
        joint = "" if not self.path or self.path.startswith("[") else "."
        return Fault(f"{step}{joint}{self.path}", self.expected, self.found)


Check = Callable[[Any], Fault | None]


def fault(expected: str, value: object) -> Fault:
    """The fault of ``value`` itself, described in at most 80 characters."""
    return Fault("", expected, "nothing" if value is MISSING else repr(value)[:80])


@dataclass(frozen=True, slots=True)
class OfText:
    """A ``check`` that accepts strings only, and always the same ones: `compiled` may remember them."""

    check: Check

    def __call__(self, value: Any) -> Fault | None:
        return self.check(value)


# --- structures ---


@dataclass(frozen=True, slots=True)
class Fields:
    """What `fields` makes."""

    required: Mapping[str, Check]
    optional: Mapping[str, Check]

    def __call__(self, value: Any) -> Fault | None:
        if type(value) is not dict:
            return fault("an object", value)
        for field, checker in self.required.items():
            found = checker(value.get(field, MISSING))
            if found is not None:
                return found.under(field)
        present = len(self.required)
        for field, checker in self.optional.items():
            if field in value:
                present += 1
                found = checker(value[field])
                if found is not None:
                    return found.under(field)
        if len(value) != present:
            strange = value.keys() - self.required.keys() - self.optional.keys()
            return Fault(min(strange), "no such field", "a field of no meaning")
        return None


def fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with every ``required`` field, any of the ``optional`` ones, and no other."""
    return Fields(dict(required), dict(optional or {}))


@dataclass(frozen=True, slots=True)
class OneFieldOf:
    """What `one_field_of` makes."""

    choices: Mapping[str, Check]

    def __call__(self, value: Any) -> Fault | None:
        wanted = "an object with exactly one of " + ", ".join(self.choices)
        if type(value) is not dict or len(value) != 1:
            return fault(wanted, value)
        ((tag, inner),) = value.items()
        checker = self.choices.get(tag)
        if checker is None:
            return fault(wanted, value)
        found = checker(inner)
        return None if found is None else found.under(tag)


def one_field_of(**choices: Check) -> Check:
    """An object with exactly one of the named fields: a tagged choice."""
    return OneFieldOf(choices)


@dataclass(frozen=True, slots=True)
class ListOf:
    """What `list_of` makes."""

    item: Check
    at_least: int
    at_most: int
    distinct: bool
    ascending: str | None

    def __call__(self, value: Any) -> Fault | None:
        if type(value) is not list or not self.at_least <= len(value) <= self.at_most:
            return fault(f"a list of {self.at_least} to {self.at_most} items", value)
        for position, one in enumerate(value):
            found = self.item(one)
            if found is not None:
                return found.under(f"[{position}]")
        if self.distinct and len(set(value)) != len(value):
            return fault("distinct items", value)
        if self.ascending is not None:
            order = [one[self.ascending] for one in value]
            if any(a >= b for a, b in pairwise(order)):
                return fault(f"sorted by {self.ascending}, each once", order)
        return None


def list_of(
    item: Check,
    at_least: int = 0,
    at_most: int = MAX_LIST_ITEMS,
    *,
    distinct: bool = False,
    ascending: str | None = None,
) -> Check:
    """A list; ``distinct`` items (plain values), or objects ``ascending`` strictly by one of their fields."""
    return ListOf(item, at_least, at_most, distinct, ascending)


@dataclass(frozen=True, slots=True)
class OrElse:
    """One plain ``value``, or what ``item`` accepts."""

    value: Any
    item: Check

    def __call__(self, value: Any) -> Fault | None:
        return None if value == self.value else self.item(value)


def nullable(item: Check) -> Check:
    """null, or what ``item`` accepts; only where the format shows null."""
    return OrElse(None, item)


def json_object(value: Any) -> Fault | None:
    """Any object of the canonical profile, which the decoder has checked."""
    return None if type(value) is dict else fault("an object", value)


# --- scalars ---


@dataclass(frozen=True, slots=True)
class OneOf:
    """What `one_of` and `exactly` make: ``wanted`` describes the ``allowed`` strings."""

    allowed: frozenset[str]
    wanted: str

    def __call__(self, value: Any) -> Fault | None:
        return None if type(value) is str and value in self.allowed else fault(self.wanted, value)


def exactly(constant: str) -> Check:
    """One constant."""
    return OneOf(frozenset((constant,)), repr(constant))


def one_of(*choices: str) -> Check:
    """One of a closed vocabulary."""
    return OneOf(frozenset(choices), " | ".join(choices))


@dataclass(frozen=True, slots=True)
class Integer:
    """What `integer` makes."""

    low: int
    high: int

    def __call__(self, value: Any) -> Fault | None:
        if type(value) is int and self.low <= value <= self.high:
            return None
        return fault(f"an integer in {self.low} … {self.high}", value)


def integer(low: int, high: int) -> Check:
    """An integer in ``low`` … ``high``; true and false are not integers."""
    return Integer(low, high)


@dataclass(frozen=True, slots=True)
class Printable:
    """What `text` makes."""

    max_chars: int

    def __call__(self, value: Any) -> Fault | None:
        if type(value) is str and 0 < len(value) <= self.max_chars and value.isprintable():
            return None
        return fault(f"1 to {self.max_chars} printable characters", value)


def text(max_chars: int) -> Check:
    """Printable text for people, 1 … ``max_chars``; no control characters, which could redraw a terminal."""
    return Printable(max_chars)


@dataclass(frozen=True, slots=True)
class Spelled:
    """A string of at most ``max_chars`` that ``matches``, a regular expression, spans whole."""

    matches: Callable[[str], object]
    max_chars: int
    wanted: str

    def __call__(self, value: Any) -> Fault | None:
        if type(value) is str and len(value) <= self.max_chars and self.matches(value) is not None:
            return None
        return fault(self.wanted, value)


# A name that machines compare: ASCII letters, digits and `. _ / @ -`, starting with the former.
name: Final[Check] = Spelled(
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@-]*").fullmatch,
    MAX_NAME_CHARS,
    f"a name of at most {MAX_NAME_CHARS} characters from A-Z a-z 0-9 . _ / @ -",
)

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?").fullmatch

# A partition: it becomes part of its log's name.
partition: Final[Check] = Spelled(
    _LABEL, MAX_PARTITION_CHARS, f"1 to {MAX_PARTITION_CHARS} characters from a-z 0-9 -"
)

# A log's name: it becomes part of the log's origin.
log_label: Final[Check] = Spelled(
    _LABEL, MAX_LOG_NAME_CHARS, f"1 to {MAX_LOG_NAME_CHARS} characters from a-z 0-9 -"
)

# `<name>.<26 base32 characters>`, lower case.
cluster_id: Final[Check] = Spelled(
    re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\.[a-z2-7]{26}").fullmatch,
    MAX_CLUSTER_ID_CHARS,
    f"<name>.<26 characters from a-z 2-7>, at most {MAX_CLUSTER_ID_CHARS}",
)

# A SHA-256 in lower-case hex: key ids, node ids, record ids, digests.
sha256_hex: Final[Check] = Spelled(re.compile(r"[0-9a-f]{64}").fullmatch, 64, "64 lower-case hex digits")


def name_list(*, wildcard: bool = False) -> Check:
    """Distinct names; with ``wildcard`` also the one-item list ``["*"]``, which stands alone."""
    names = list_of(name, distinct=True)
    if not wildcard:
        return names
    return OrElse(["*"], names)


@dataclass(frozen=True, slots=True)
class Base64:
    """What `base64_bytes` makes: ``matches`` knows the one spelling of ``length`` bytes."""

    length: int
    matches: Callable[[str], object]

    def __call__(self, value: Any) -> Fault | None:
        if type(value) is str and self.matches(value):
            return None
        return fault(f"{self.length} bytes in base64", value)


def base64_bytes(length: int) -> Check:
    """Exactly ``length`` bytes in strict standard base64.

    The last character before the padding carries 4 or 2 bits only, and the others must be zero: two texts
    never mean the same bytes.
    """
    whole, rest = divmod(length, 3)
    tail = ("", "[A-Za-z0-9+/][AQgw]==", "[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=")[rest]
    return Base64(length, re.compile(f"[A-Za-z0-9+/]{{{4 * whole}}}{tail}").fullmatch)


public_key: Final = base64_bytes(PUBLIC_KEY_BYTES)
sha256_base64: Final = base64_bytes(HASH_BYTES)


def _time(value: Any) -> Fault | None:
    if type(value) is not str:
        return fault("YYYY-MM-DDTHH:MM:SSZ", value)
    try:
        parse_time(value)
    except Refused as refusal:
        return Fault("", refusal.finding.expected, refusal.finding.found)
    return None


# `YYYY-MM-DDTHH:MM:SSZ`; every record has its own.
time: Final[Check] = OfText(_time)


def _is_quic_address(value: str) -> bool:
    match = _QUIC(value)
    if match is None or int(match[2]) > _MAX_PORT:
        return False
    host = match[1]
    try:
        if host[0] == "[":
            IPv6Address(host[1:-1])
        elif host.rsplit(".", 1)[-1].isdigit():  # ends in a number, so it can only be an IPv4 address
            IPv4Address(host)
        else:
            return _HOST_NAME(host) is not None
    except ValueError:
        return False
    return True


def _quic_address(value: Any) -> Fault | None:
    if type(value) is str and len(value) <= MAX_ADDRESS_CHARS and _is_quic_address(value):
        return None
    return fault("quic://host:port", value)


# `quic://host:port` with a lower-case DNS name, an IPv4 address or an IPv6 address in brackets.
quic_address: Final[Check] = OfText(_quic_address)
