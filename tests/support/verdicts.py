"""Verdicts as short words, and every single-field change of a record: the vocabulary of refusal tests."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from statelog.errors import Refused
from statelog.findings import Finding
from tests.support.authority import Cluster

ADMITTED = "admitted"
DUPLICATE = "duplicate"


def verdict(cluster: Cluster, record: dict[str, Any], **options: Any) -> str:
    """``admitted``, ``duplicate``, or the code of the refusal."""
    found = refusal(cluster, record, **options)
    return found if isinstance(found, str) else found.code


def refusal(cluster: Cluster, record: dict[str, Any], **options: Any) -> Finding | str:
    """The finding of the refusal, or ``admitted`` or ``duplicate``."""
    try:
        admitted = cluster.admit(record, **options)
    except Refused as refused:
        return refused.finding
    return DUPLICATE if admitted.duplicate else ADMITTED


def judge(cluster: Cluster, record: dict[str, Any]) -> str:
    """``admitted``, or the code of the refusal, of a record that one node signs and no log carries."""
    try:
        cluster.admit_node_signed(record)
    except Refused as refused:
        return refused.code
    return ADMITTED


def place(cluster: Cluster, record: dict[str, Any]) -> tuple[str, str]:
    """(code, path) of the refusal that ``record`` meets."""
    found = refusal(cluster, record)
    assert not isinstance(found, str), found
    return found.code, found.path


def changed(record: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of ``record`` with ``value`` at the dotted ``path``; list positions are numbers."""
    copy: Any = deepcopy(record)
    inner, steps = copy, path.split(".")
    for step in steps[:-1]:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    if isinstance(inner, list):
        inner[int(steps[-1])] = value
    else:
        inner[steps[-1]] = value
    result: dict[str, Any] = copy
    return result


def without(record: dict[str, Any], path: str) -> dict[str, Any]:
    """A copy of ``record`` without the field or list item at ``path``."""
    copy: Any = deepcopy(record)
    inner, steps = copy, path.split(".")
    for step in steps[:-1]:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    del inner[int(steps[-1]) if isinstance(inner, list) else steps[-1]]
    result: dict[str, Any] = copy
    return result


def single_field_changes(record: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every way to change one thing in ``record``, as (what was done, the changed record).

    Each scalar takes another value of its type, and null; each field and list item is taken away; each list
    repeats its last item; each object gains a field of no meaning.
    """
    for path, value in _walk(record, ""):
        if path:
            yield f"{path} taken away", without(record, path)
            for other in _others(value):
                yield f"{path} = {other!r}"[:80], changed(record, path, other)
        if isinstance(value, dict):
            yield f"{path} gains a field", changed(record, f"{path}.zzz".lstrip("."), 1)


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, value
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for step, inner in members:
        yield from _walk(inner, f"{path}.{step}".lstrip("."))


def _others(value: Any) -> list[Any]:
    if isinstance(value, str):
        flipped = value[:-1] + ("0" if value[-1:] != "0" else "1")
        return [flipped, value + "a", "", None, 1]
    if isinstance(value, bool):
        return [not value, None]
    if isinstance(value, int):
        return [value + 1, max(0, value - 1) if value else 2, str(value), None]
    if isinstance(value, list):
        return [[*value, *value[-1:]] if value else ["a"], {}, None]
    return [[], None] if value is not None else ["a" * 64, 0]
