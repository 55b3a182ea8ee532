"""Which addresses a node binds, as the machine's own addresses come and go. Pure; the shell is
`fabric.io.interfaces`.

    Seen ──► settle ──► Add what appeared ──► Drop what is gone, once another address can carry its sessions,
                                              or nobody came to do so in time

A wildcard stays bound whatever happens; there the sessions are told that they may leave from elsewhere.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fabric import limits

EVERY = "*"
"""As the host of a bind rule: every address of the machine that others may reach, each with a socket."""
WILDCARDS = frozenset(("0.0.0.0", "::"))
"""Hosts that are bound once and stand for every address of their family."""


def is_usable(host: str) -> bool:
    """Whether others may reach a node there: no loopback, no link-local, no multicast."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False  # with a zone, or no address at all
    return not (
        address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    )


def covers(bound: str, host: str) -> bool:
    """Whether `bound` is the wildcard of a host's family."""
    return bound in WILDCARDS and _alike(bound, host)


@dataclass(frozen=True, slots=True)
class Rule:
    """What is to be bound: ports by host. A host is an address, a name, a wildcard or `EVERY`."""

    ports: Mapping[str, int]

    def port(self, host: str) -> int:
        """The port to bind at a host that `wanted` named."""
        return self.ports[host] if host in self.ports else self.ports[EVERY]

    def wanted(self, present: frozenset[str]) -> frozenset[str]:
        """The hosts to be bound while the machine has the addresses `present`."""
        found = {host for host in self.ports if host != EVERY and _may_bind(host, present)}
        if EVERY in self.ports:
            found.update(sorted(filter(is_usable, present))[: limits.INTERFACES_BOUND])
        return frozenset(found)

    def reachable(self, bound: Iterable[str], present: frozenset[str]) -> tuple[str, ...]:
        """Where others may try the node, of what is bound."""
        found: dict[str, None] = {}
        for host in sorted(bound):
            if host in WILDCARDS:
                found |= dict.fromkeys(one for one in sorted(present) if is_usable(one) and covers(host, one))
            elif _may_bind(host, present) and (host in self.ports or is_usable(host)):
                found[host] = None
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Seen:
    """The machine has these addresses now, in their canonical text."""

    present: frozenset[str]


@dataclass(frozen=True, slots=True)
class Refused:
    """An address could not be bound: an IPv6 address is not ready at once, a port may be taken."""

    host: str


@dataclass(frozen=True, slots=True)
class Timer:
    """`deadline()` has come."""


Event = Seen | Refused | Timer


@dataclass(frozen=True, slots=True)
class Add:
    """Bind this host."""

    host: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Leave this host: dialed sessions move to another of its family, the others end."""

    host: str


@dataclass(frozen=True, slots=True)
class Moved:
    """An address behind a wildcard is gone: what was dialed may leave from another one."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The node is reachable elsewhere than before: publish it."""


Effect = Add | Drop | Moved | Changed


@dataclass(slots=True)
class Interfaces:
    """`bound` are the hosts that have a socket; `present` the machine's addresses when they were bound."""

    rule: Rule
    bound: set[str]
    present: frozenset[str]
    _waiting: frozenset[str] | None = None
    """The newest addresses, not acted upon yet."""
    _settled_at: float = 0.0
    _again: dict[str, float] = field(default_factory=dict)
    """When a refused host is tried again."""
    _until: dict[str, float] = field(default_factory=dict)
    """How long a host whose address is gone waits for one to take over its sessions."""
    _at_once: bool = False
    _told: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._told = self.reachable()

    def reachable(self) -> tuple[str, ...]:
        """Where others may try the node."""
        return self.rule.reachable(self.bound, self.present)

    def deadline(self) -> float | None:
        """When a `Timer` is due."""
        if self._at_once:
            return 0.0
        settled = () if self._waiting is None else (self._settled_at,)
        return min((*settled, *self._again.values(), *self._until.values()), default=None)

    def handle(self, now: float, event: Event) -> list[Effect]:
        """What to do about an event; `now` in seconds of a steady clock."""
        match event:
            case Seen():
                if self._waiting is None:
                    self._settled_at = now + limits.INTERFACES_SETTLE_S
                self._waiting = event.present
                if self._waiting == self.present:
                    self._waiting = None  # a flap
            case Refused():
                self.bound.discard(event.host)
                self._again[event.host] = now + limits.INTERFACES_RETRY_S
            case Timer():
                return self._act(now)
        return []

    def _act(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        self._at_once = False
        if self._waiting is not None and now >= self._settled_at:
            gone, self.present = self.present - self._waiting, self._waiting
            self._waiting = None
            if any(is_usable(one) and covers(host, one) for host in self.bound for one in gone):
                effects.append(Moved())
        wanted = self.rule.wanted(self.present)
        self._again = {host: at for host, at in self._again.items() if host in wanted}
        self._until = {host: at for host, at in self._until.items() if host not in wanted}
        for host in sorted(wanted - self.bound):
            if self._again.get(host, now) <= now:
                self._again.pop(host, None)
                self.bound.add(host)
                effects.append(Add(host))
                self._at_once = True  # the rest is judged when it is known who could be bound
        if self._at_once:
            return effects
        effects += self._leave(now, wanted)
        if self.reachable() != self._told:
            self._told = self.reachable()
            effects.append(Changed())
        return effects

    def _leave(self, now: float, wanted: frozenset[str]) -> list[Effect]:
        effects: list[Effect] = []
        for host in sorted(self.bound - wanted):
            until = self._until.setdefault(host, now + limits.INTERFACES_GRACE_S)
            if now >= until or any(_alike(host, other) for other in self.bound & wanted):
                self.bound.discard(host)
                del self._until[host]
                effects.append(Drop(host))
        return effects


def _alike(one: str, other: str) -> bool:
    """Whether two hosts are of one family."""
    return (":" in one) is (":" in other)


def _may_bind(host: str, present: frozenset[str]) -> bool:
    """Whether an explicit host is there. Loopback has more addresses than are listed; a name is its own."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return True
    return address.is_loopback or address.is_unspecified or str(address) in present
