"""What one record changes against another, leaf by leaf, for the people who sign it. Pure.

Two different records never read the same: every leaf that differs is shown whole, as JSON in ASCII. So a
letter that only looks like another, a control character or the direction of writing cannot hide what is
signed, a number is not taken for its digits, and no name is taken for a path. Nothing is cut; of long texts
that differ in one place, that place is shown and where it begins.

Left out is what says nothing of its own: `alg` and `proof` of a new key in the key lists of an authority
record, and `public` beside the key id that is its hash. Admission verifies all three.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_LIST_KEYS: Final = ("key_id", "endpoint_id", "name", "node_id", "public")  # what tells list items apart
_HEADER: Final = frozenset({"signatures", "schema_version", "cluster_id"})  # shown beside the differences
_KEY_LISTS: Final = ("keys", "witnesses.keys", "sequencers")  # whose proofs were verified, not read aloud
_UNREAD: Final = frozenset({"proof", "alg"})
_LONG_CHARS: Final = 120  # longer texts are shown around where they differ
_CONTEXT_CHARS: Final = 24  # on either side of it
_SHORT_CHARS: Final = 8  # of a hex identifier that no other in the list begins like
_BARE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")  # needs no quotes in a path
_BARE_VALUE: Final = re.compile(r"[A-Za-z0-9_./:+-]+")
_MISSING: Final = object()  # None is a value of JSON


@dataclass(frozen=True, slots=True)
class Difference:
    """One change: `before` and `after` are JSON in ASCII; None for what is new, or goes away.

    `path` is made of names and of places in lists: a number, or what identifies the item.
    """

    path: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.path}: {self.after}"
        if self.after is None:
            return f"- {self.path}: {self.before}"
        return f"~ {self.path}: {self.before} → {self.after}"


def differences(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[Difference]:
    """Every change of `after` against `before`, or all that it says when there was nothing before.

    Lists of objects are compared by what identifies their items, lists of different words as sets and by
    their order, all others place by place. A key id in a quorum stands with the name of its issuer.
    """
    old = {} if before is None else _with_names(before)
    return list(_members("", old, _with_names(after)))


def as_json(value: Any) -> str:
    """JSON in printable ASCII, on one line."""
    return json.dumps(value, ensure_ascii=True).replace("\x7f", "\\u007f")  # DEL is ASCII and not printable


# --- names for key ids ---


def _with_names(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record with `<issuer> <key id>` where a quorum of a descriptor lists a key id alone."""
    listed = record.get("keys")
    if not isinstance(listed, list):
        return record
    issuers = {
        key["key_id"]: str(key.get("issuer_id"))
        for key in listed
        if isinstance(key, Mapping) and isinstance(key.get("key_id"), str)
    }
    return {name: _named_quorum(value, issuers) for name, value in record.items()}


def _named_quorum(value: Any, issuers: Mapping[str, str]) -> Any:
    if not isinstance(value, Mapping) or not isinstance(value.get("key_ids"), list):
        return value
    listed = value["key_ids"]
    if not all(isinstance(one, str) for one in listed):
        return value
    named = [f"{issuers[one]} {one}" if one in issuers else one for one in listed]
    return {**value, "key_ids": named}


# --- the walk ---


def _walk(path: str, before: Any, after: Any) -> Iterator[Difference]:
    if before is _MISSING:
        yield from _new(path, after)
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _members(path, before, after)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _items(path, before, after)
    elif not _same(before, after):
        yield _changed(path, before, after)


def _new(path: str, after: Any) -> Iterator[Difference]:
    if isinstance(after, Mapping) and after:
        yield from _members(path, {}, after)
    elif isinstance(after, list) and after:
        yield from _items(path, [], after)
    else:
        yield Difference(path, None, as_json(after))


def _members(path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    for name in [*after, *(gone for gone in before if gone not in after)]:
        if path or name not in _HEADER:
            place = _below(path, name)
            if name in after:
                yield from _walk(place, before.get(name, _MISSING), after[name])
            else:
                yield Difference(place, as_json(before[name]), None)


def _items(path: str, before: list[Any], after: list[Any]) -> Iterator[Difference]:
    identity = _identity(path, before, after)
    if identity is not None:
        yield from _named_items(path, identity, before, after)
    elif before and _are_words(before) and _are_words(after):
        yield from _words(path, before, after)
    else:
        yield from _places(path, before, after)


def _named_items(path: str, identity: str, before: list[Any], after: list[Any]) -> Iterator[Difference]:
    old, new = ({item[identity]: item for item in side} for side in (before, after))
    places = _shown_names(identity, [*old, *(name for name in new if name not in old)])
    for name, item in new.items():
        place = f"{path}[{identity}={places[name]}]"
        if name in old:
            yield from _walk(place, old[name], item)
        elif path in _KEY_LISTS:
            yield Difference(place, None, as_json(_without_proof(item)))
        else:
            yield from _new(place, item)
    for name, item in old.items():
        if name not in new:
            shown = _without_proof(item) if path in _KEY_LISTS else item
            yield Difference(f"{path}[{identity}={places[name]}]", as_json(shown), None)
    yield from _order(path, list(old), list(new))


def _words(path: str, before: list[str], after: list[str]) -> Iterator[Difference]:
    old, new = set(before), set(after)
    for word in after:
        if word not in old:
            yield Difference(f"{path}[]", None, as_json(word))
    for word in before:
        if word not in new:
            yield Difference(f"{path}[]", as_json(word), None)
    yield from _order(path, before, after)


def _order(path: str, before: list[str], after: list[str]) -> Iterator[Difference]:
    """The order, unless it is the expected one: sorted where it was sorted, else with new ones at the end."""
    old, new = set(before), set(after)
    expected = [name for name in before if name in new] + [name for name in after if name not in old]
    if before == sorted(before):
        expected = sorted(expected)
    if after != expected:
        yield Difference(f"{path} (order)", as_json(before), as_json(after))


def _places(path: str, before: list[Any], after: list[Any]) -> Iterator[Difference]:
    """Place by place, what both lists begin and end with left out."""
    shorter = min(len(before), len(after))
    start = next((at for at in range(shorter) if not _same(before[at], after[at])), shorter)
    end = next(
        (at for at in range(shorter - start) if not _same(before[-1 - at], after[-1 - at])), shorter - start
    )
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    for at in range(max(len(old), len(new))):
        place = f"{path}[{start + at}]"
        if at >= len(new):
            yield Difference(place, as_json(old[at]), None)
        else:
            yield from _walk(place, old[at] if at < len(old) else _MISSING, new[at])


def _changed(path: str, before: Any, after: Any) -> Difference:
    if not (isinstance(before, str) and isinstance(after, str) and len(before + after) > 2 * _LONG_CHARS):
        return Difference(path, as_json(before), as_json(after))
    begin = _alike(before, after)
    end = _alike(before[begin:][::-1], after[begin:][::-1])
    begin, end = max(0, begin - _CONTEXT_CHARS), max(0, end - _CONTEXT_CHARS)
    old, new = (text[begin : len(text) - end] for text in (before, after))
    return Difference(f"{path} (from character {begin + 1} on)", as_json(old), as_json(new))


# --- small things ---


def _same(one: Any, other: Any) -> bool:
    """Equality as JSON has it: Python's own holds 1 equal to true."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)


def _alike(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))  # the longer one's end has no partner
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _below(path: str, name: str) -> str:
    if not _BARE_NAME.fullmatch(name):
        return f"{path}[{as_json(name)}]"
    return f"{path}.{name}" if path else name


def _are_words(items: list[Any]) -> bool:
    return all(isinstance(item, str) for item in items) and len(set(items)) == len(items)


def _identity(path: str, before: list[Any], after: list[Any]) -> str | None:
    """The field that every item has as text, and no two of one list alike; None when there is none, or when
    all is new and places say as much.
    """
    items = before + after
    if not items or not all(isinstance(item, Mapping) for item in items):
        return None
    if not before and path not in _KEY_LISTS:
        return None
    for name in _LIST_KEYS:
        if all(isinstance(item.get(name), str) for item in items) and all(
            len({item[name] for item in side}) == len(side) for side in (before, after)
        ):
            return name
    return None


def _shown_names(identity: str, names: Sequence[str]) -> dict[str, str]:
    """How the items are named in a path: key and node ids by their beginning, unless two begin alike."""
    begins = [name[:_SHORT_CHARS] for name in names]
    short = identity in {"key_id", "node_id"} and len(set(begins)) == len(begins)
    shown = begins if short else names
    return {
        name: one if _BARE_VALUE.fullmatch(one) else as_json(one)
        for name, one in zip(names, shown, strict=True)
    }


def _without_proof(item: Mapping[str, Any]) -> dict[str, Any]:
    unread = _UNREAD | {"public"} if "key_id" in item else _UNREAD
    return {name: value for name, value in item.items() if name not in unread}
