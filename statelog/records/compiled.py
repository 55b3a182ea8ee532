"""A whole form as one function: what `shapes` states, written out once as Python and compiled.

A form of forty values is otherwise forty calls and more. The written function has no call where a comparison
does, and remembers which names and ids it has accepted, because the same ones come again in record after
record. It only says yes or no: who gets a no asks the checker itself, which then says where the fault is. So
the checkers stay the one definition, and a property test holds this against them.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

from statelog.errors import Refused
from statelog.limits import MAX_REMEMBERED_TEXTS
from statelog.records.shapes import (
    Base64,
    Check,
    Fields,
    Integer,
    ListOf,
    OfText,
    OneFieldOf,
    OneOf,
    OrElse,
    Printable,
    Spelled,
    json_object,
    time,
)
from statelog.times import parse_time

Accepts = Callable[[Any], bool]

_INDENT: Final = "    "


class _Memory:
    """Strings that one checker accepted, shared by all forms; it forgets all when it is full."""

    __slots__ = ("check", "learn", "seen")

    def __init__(self, check: Spelled | OfText) -> None:
        self.check = check  # kept, because memories are found by its identity
        self.seen: set[str] = set()
        self.learn = _learner(check, self.seen)


def _learner(check: Spelled | OfText, seen: set[str]) -> Accepts:
    """A function that says whether ``check`` accepts a value, and remembers it then in ``seen``."""

    def remembered(value: str) -> bool:
        if len(seen) >= MAX_REMEMBERED_TEXTS:
            seen.clear()
        seen.add(value)
        return True

    if isinstance(check, OfText):
        inner = check.check
        return lambda value: inner(value) is None and remembered(value)
    matches, max_chars = check.matches, check.max_chars

    def learn(value: Any) -> bool:
        return (
            type(value) is str
            and len(value) <= max_chars
            and matches(value) is not None
            and remembered(value)
        )

    return learn


_MEMORIES: Final[dict[int, _Memory]] = {}  # by identity of the checker


def compiled(check: Check, title: str) -> Accepts:
    """A function that is True for a value exactly when ``check`` finds no fault in it.

    ``title`` names it in a traceback.
    """
    writer = _Writer()
    writer.write(check, "value", 2)
    body = "\n".join(writer.lines)
    # A field that is absent, or of a type that cannot be looked up, is a fault like any other, and so is what
    # is not a time.
    source = (
        f"def accepts(value):\n{_INDENT}try:\n{body}\n{_INDENT}except (KeyError, TypeError, Refused):\n"
        f"{_INDENT * 2}return False\n{_INDENT}return True\n"
    )
    # Names of fields enter the source as literals only, and nothing of a record does.
    exec(compile(source, f"<form of {title}>", "exec"), writer.names)  # noqa: S102 - made of the forms in this package
    accepts: Accepts = writer.names["accepts"]
    return accepts


def may_hold(field: str, check: Check) -> bool:
    """Whether a value that ``check`` accepts may hold an object with a field of that name, however deep."""
    match check:
        case Fields():
            inner = {**check.required, **check.optional}
            return field in inner or any(may_hold(field, one) for one in inner.values())
        case OneFieldOf():
            return field in check.choices or any(may_hold(field, one) for one in check.choices.values())
        case ListOf() | OrElse():
            return may_hold(field, check.item)
    return not isinstance(check, Integer | OneOf | OfText | Spelled | Printable | Base64)


class _Writer:
    """Writes one statement after the other; every value has a variable of its own."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {"Refused": Refused}
        self._count = 0

    def write(self, check: Check, value: str, depth: int) -> None:
        """Statements that return False unless ``check`` accepts the variable ``value``."""
        match check:
            case Fields():
                self._fields(check, value, depth)
            case ListOf():
                self._list(check, value, depth)
            case OrElse():
                self._line(depth, f"if {value} != {check.value!r}:")
                self.write(check.item, value, depth + 1)
            case _:
                self._line(depth, f"if not ({self._test(check, value)}): return False")

    def _test(self, check: Check, value: str) -> str:
        """One expression for a plain value."""
        if check is time:  # `parse_time` has a memory of its own, which the record's judge asks next
            return f"type({value}) is str and {self._name(parse_time)}({value}) >= 0"
        match check:
            case Integer():
                return f"type({value}) is int and {check.low} <= {value} <= {check.high}"
            case OneOf():
                only = next(iter(check.allowed)) if len(check.allowed) == 1 else None
                return (
                    f"{value} == {only!r}" if type(only) is str else f"{value} in {self._name(check.allowed)}"
                )
            case Base64():
                return f"{self._name(check.matches)}({value}) is not None"
            case Printable():
                length = f"0 < len({value}) <= {check.max_chars}"
                return f"type({value}) is str and {length} and {value}.isprintable()"
            case Spelled() | OfText():
                memory = _MEMORIES.get(id(check))
                if memory is None:
                    memory = _MEMORIES[id(check)] = _Memory(check)
                return f"{value} in {self._name(memory.seen)} or {self._name(memory.learn)}({value})"
        if check is json_object:
            return f"type({value}) is dict"
        return f"{self._name(check)}({value}) is None"

    def _fields(self, check: Fields, value: str, depth: int) -> None:
        self._line(depth, f"if type({value}) is not dict: return False")
        count = str(len(check.required))
        if check.optional:
            count = self._variable()
            self._line(depth, f"{count} = {len(check.required)}")
        members = [self._variable() for _ in check.required]
        if len(members) > 1:  # all at once: a look-up for each is what a form costs most
            fetched = f"{self._name(itemgetter(*check.required))}({value})"
            self._line(depth, f"{', '.join(members)} = {fetched}")
        for member, (field, inner) in zip(members, check.required.items(), strict=True):
            if len(members) == 1:
                self._line(depth, f"{member} = {value}[{field!r}]")
            self.write(inner, member, depth)
        for field, inner in check.optional.items():
            member = self._variable()
            self._line(depth, f"if {field!r} in {value}:")
            self._line(depth + 1, f"{count} += 1")
            self._line(depth + 1, f"{member} = {value}[{field!r}]")
            self.write(inner, member, depth + 1)
        self._line(depth, f"if len({value}) != {count}: return False")

    def _list(self, check: ListOf, value: str, depth: int) -> None:
        length = f"{check.at_least} <= len({value}) <= {check.at_most}"
        self._line(depth, f"if type({value}) is not list or not {length}: return False")
        item = self._variable()
        last = self._variable()
        if check.ascending is not None:
            self._line(depth, f"{last} = None")
        self._line(depth, f"for {item} in {value}:")
        self.write(check.item, item, depth + 1)
        if check.ascending is not None:
            this = self._variable()
            self._line(depth + 1, f"{this} = {item}[{check.ascending!r}]")
            self._line(depth + 1, f"if {last} is not None and {last} >= {this}: return False")
            self._line(depth + 1, f"{last} = {this}")
        if check.distinct:
            self._line(depth, f"if len({value}) > 1 and len(set({value})) != len({value}): return False")

    def _line(self, depth: int, line: str) -> None:
        self.lines.append(_INDENT * depth + line)

    def _variable(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def _name(self, thing: object) -> str:
        """A global name of the written function for an object that it uses."""
        name = f"g{len(self.names)}"
        self.names[name] = thing
        return name
