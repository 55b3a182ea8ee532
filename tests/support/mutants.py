"""Every single change of a valid record, guided by the form of its kind, and each change under a name.

path             dotted, list positions in brackets: ``keys[0].custody``
other            another value of the same form           =word             another word of a closed set
more, less       an integer and one                       =all, =null       in place of what is listed
later, earlier   a time and one second                    as tag            another choice of a tagged one
added            an optional field that was absent        gone              a field that was there
shorter          a list without its last item             longer            its last item once more
reversed         a list the other way round
bent             a value of another type                  extra             a field of no meaning
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from statelog.records import shapes
from statelog.records.shapes import Base64, Check, Fields, Integer, ListOf, OneFieldOf, OneOf, OrElse
from statelog.signing import decode_base64, encode_base64
from statelog.times import format_time, parse_time

Step = str | int
Path = tuple[Step, ...]


class Mutant(NamedTuple):
    """``record`` with one ``change`` at ``path``."""

    path: str
    change: str
    record: dict[str, Any]


def mutants(check: Check, record: dict[str, Any]) -> Iterator[Mutant]:
    """All single changes of ``record``, which ``check`` accepts, but for its signatures."""
    for path, change, value in _changes(check, record, ()):
        if path[:1] != ("signatures",):
            yield Mutant(_text(path), change, _with(record, path, value))


class _Gone:
    """Stands for a field that is taken away."""


_GONE = _Gone()


def _changes(check: Check, value: Any, path: Path) -> Iterator[tuple[Path, str, Any]]:
    match check:
        case Fields():
            yield from _of_object(check, value, path)
        case OneFieldOf():
            ((tag, inner),) = value.items()
            yield from _changes(check.choices[tag], inner, (*path, tag))
            for other in check.choices:
                if other != tag:
                    yield path, f"as {other}", {other: _sample(check.choices[other])}
            yield (*path, "zzz"), "extra", 1
        case ListOf():
            yield from _of_list(check, value, path)
        case OrElse() if value == check.value:
            yield path, "other", [_sample(shapes.name)] if check.value == ["*"] else _sample(check.item)
        case OrElse():
            yield path, "=null" if check.value is None else "=all", check.value
            yield from _changes(check.item, value, path)
        case _:
            yield from ((path, change, other) for change, other in _of_scalar(check, value))
    if path:
        yield path, "bent", _bent(value)


def _of_object(check: Fields, value: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, str, Any]]:
    yield (*path, "zzz"), "extra", 1
    for name, inner in (*check.required.items(), *check.optional.items()):
        if name in value:
            yield (*path, name), "gone", _GONE
            yield from _changes(inner, value[name], (*path, name))
        else:
            yield (*path, name), "added", _sample(inner)


def _of_list(check: ListOf, value: list[Any], path: Path) -> Iterator[tuple[Path, str, Any]]:
    if value:
        yield path, "shorter", value[:-1]
        yield path, "longer", [*value, value[-1]]
    else:
        yield path, "longer", [_sample(check.item)]
    if len(value) > 1:
        yield path, "reversed", value[::-1]
    for position, one in enumerate(value):
        yield from _changes(check.item, one, (*path, position))


def _of_scalar(check: Check, value: Any) -> Iterator[tuple[str, Any]]:
    match check:
        case Integer():
            yield "more", value + 1
            if value:
                yield "less", value - 1
        case OneOf() if len(check.allowed) > 1:
            yield from ((f"={word}", word) for word in sorted(check.allowed - {value}))
        case Base64():
            data = decode_base64(value) or b""
            yield "other", encode_base64(bytes([data[0] ^ 1]) + data[1:])
        case _ if check is shapes.time:
            yield "later", format_time(parse_time(value) + 1)
            yield "earlier", format_time(parse_time(value) - 1)
        case _ if check is shapes.json_object:
            yield "other", {**value, "zzz": 1}
        case _ if check in (shapes.sha256_hex, shapes.cluster_id):
            yield "other", value[:-1] + ("b" if value[-1] == "a" else "a")
        case _ if check is shapes.quic_address:
            yield "other", value + "1"
        case _:
            yield "other", value + "x"


def _sample(check: Check) -> Any:
    """Some value that ``check`` accepts."""
    match check:
        case Integer():
            return check.low
        case OneOf():
            return min(check.allowed)
        case Fields():
            return {name: _sample(inner) for name, inner in check.required.items()}
        case ListOf():
            return [_sample(check.item)] * check.at_least
        case _ if check is shapes.sha256_hex:
            return "ab" * 32
    return "sample"


def _bent(value: Any) -> Any:
    """A value of another type."""
    match value:
        case str():
            return 1
        case bool() | int():
            return str(value)
        case list():
            return {}
        case dict():
            return []
    return 1


def _with(record: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    copy: dict[str, Any] = deepcopy(record)
    inner: Any = copy
    for step in path[:-1]:
        inner = inner[step]
    if value is _GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return copy


def _text(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def expected(text: str) -> dict[str, dict[tuple[str, str], frozenset[str]]]:
    """The table of verdicts in tests/vectors/mutants.txt: kind -> (path, change) -> codes."""
    table: dict[str, dict[tuple[str, str], frozenset[str]]] = {}
    rows: dict[tuple[str, str], frozenset[str]] = {}
    for line in text.splitlines():
        told = line.split("#", 1)[0].rstrip()
        if told and not told.startswith(" "):
            rows = table.setdefault(told, dict(table.get("every kind", {})))
        elif told:
            match = _ROW.fullmatch(told)
            assert match, f"not a row: {line!r}"
            rows[match[1], match[2]] = frozenset(match[3].split())
            if match[3] == "-":
                del rows[match[1], match[2]]
    return table


_ROW = re.compile(r"    (\S+) +((?:as )?\S+) +(\S.*)")
