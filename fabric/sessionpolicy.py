"""Which sessions an endpoint keeps. Pure.

A session is in use while a stream is open on it, one that only passes through included. One that is not ends
after a while (`idle`), or sooner when its place is needed (`evicted`): first those of nodes that nobody here
knows, of these the one that was in use longest ago. Neighbours that this node wants stay. Where every session
is in use or wanted, it is the newcomer that is refused (`no_room`): what works is not cut off for what might.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from fabric import limits

T = TypeVar("T")


class Standing(IntEnum):
    """What a node is to this one; the lower, the sooner its idle session is given up."""

    STRANGER = 0
    KNOWN = 1
    WANTED = 2


def nobody_is_known(node_id: str) -> Standing:
    """The standing of every node where nobody tells them apart."""
    del node_id
    return Standing.STRANGER


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """`per_node` sessions of one neighbour, the newest; `total` of all; each `idle_ttl_s` seconds without a
    stream. `standing` of a node id is asked when something is to end.
    """

    per_node: int = limits.ENDPOINT_SESSIONS_PER_NODE
    total: int = limits.ENDPOINT_SESSIONS
    idle_ttl_s: float = limits.SESSION_IDLE_TTL_S
    standing: Callable[[str], Standing] = nobody_is_known


@dataclass(frozen=True, slots=True)
class Idle(Generic[T]):
    """A session without streams; `since` (seconds): when it had one last, or began."""

    session: T
    since: float
    standing: Standing


def expired(idle: Iterable[Idle[T]], now: float, ttl_s: float) -> list[T]:
    """Sessions that were idle for `ttl_s` seconds and are not wanted."""
    return [one.session for one in idle if one.standing < Standing.WANTED and now - one.since >= ttl_s]


def victim(idle: Iterable[Idle[T]]) -> T | None:
    """The session to give up first, None when all are wanted."""
    found = [one for one in idle if one.standing < Standing.WANTED]
    return min(found, key=lambda one: (one.standing, one.since)).session if found else None
