"""Which nodes to hold sessions with. Pure.

A node keeps up to `wanted` sessions, dialing what it knows: seeds, the endpoints of signed candidate sets,
and nodes that something waits for (`Need`: a lease's next hop, a service's host, a witness). Inbound sessions
count. A node that fails is tried again after a pause that doubles; all its addresses are tried before it
counts as failed. Which of several equally good peers is dialed is random, so that a farm does not gather on
one of them.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from fabric import limits
from fabric.errors import count_code


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node may answer. `cert_sha256` is the pin of its certificate."""

    address: str
    cert_sha256: str


# Events in.
@dataclass(frozen=True, slots=True)
class Learn:
    """Addresses of a node, best first, in place of what this source told before.

    `seed`: from the node's own configuration; never forgotten.
    """

    node_id: str
    addresses: tuple[Address, ...]
    seed: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """Something waits for a session with this node, whatever the number of sessions."""

    node_id: str


@dataclass(frozen=True, slots=True)
class Keep:
    """The nodes whose sessions matter beyond the number: they are redialed whenever they are lost."""

    node_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Connected:
    node_id: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    node_id: str


@dataclass(frozen=True, slots=True)
class DialFailed:
    node_id: str
    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class Forbid:
    """Revoked: dialed no more, and its session ends."""

    node_id: str


@dataclass(frozen=True, slots=True)
class Allow:
    """A revocation that acted ahead of the log has ended: the node is like any other again."""

    node_id: str


@dataclass(frozen=True, slots=True)
class Timer:
    pass


Event = Learn | Need | Keep | Connected | Disconnected | DialFailed | Forbid | Allow | Timer


# Effects out.
@dataclass(frozen=True, slots=True)
class Dial:
    """Dial and answer with Connected or DialFailed."""

    node_id: str
    address: Address


@dataclass(frozen=True, slots=True)
class Hangup:
    node_id: str
    reason: str


Effect = Dial | Hangup


@dataclass(slots=True)
class _Known:
    seed: tuple[Address, ...] = ()
    learned: tuple[Address, ...] = ()
    next_address: int = 0
    failures: int = 0
    retry_at: float = 0.0
    need_at: float = float("-inf")  # when a need overrides the pause again: others may make needs without end
    last_reason: str = ""

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(dict.fromkeys((*self.learned, *self.seed)))


@dataclass(frozen=True, slots=True)
class Snapshot:
    known: int
    connected: tuple[str, ...]
    dialing: tuple[str, ...]
    failing: dict[str, str] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)


class Peering:
    """`me` is this node's id, which is never dialed."""

    def __init__(self, me: str, rng: random.Random, *, wanted: int = limits.PEERS_WANTED) -> None:
        self.me = me
        self.counters: Counter[str] = Counter()
        self._rng = rng
        self._wanted = wanted
        self._known: dict[str, _Known] = {}
        self._connected_ids: dict[str, None] = {}
        self._dialing_ids: dict[str, None] = {}
        self._needed_ids: dict[str, None] = {}
        self._forbidden: dict[str, _Known | None] = {}  # and what was known of it, should it be allowed again
        self._keep: dict[str, None] = {}

    def handle(self, now: float, event: Event) -> list[Effect]:
        """Take one event at `now` (seconds); returns whom to dial and whom to leave."""
        effects: list[Effect] = []
        match event:
            case Learn():
                self._learn(now, event)
            case Need(node_id):
                known = self._entry(node_id)
                if known is not None and node_id not in self._connected_ids:
                    self._needed_ids[node_id] = None
                    at = max(now, known.need_at)
                    if at < known.retry_at:
                        known.retry_at, known.need_at = at, at + limits.PEER_REDIAL_FIRST_S
            case Keep(node_ids):
                self._keep = dict.fromkeys(node_ids)
            case Connected(node_id):
                self._connected(node_id, effects)
            case Disconnected(node_id):
                self._disconnected(now, node_id)
            case DialFailed(node_id, address, reason):
                self._failed(now, node_id, address, reason)
            case Forbid(node_id):
                self._forbid(node_id, effects)
            case Allow(node_id):
                self._allow(now, node_id)
            case Timer():
                pass
        self._dial(now, effects)
        return effects

    def deadline(self) -> float | None:
        """When `Timer` is due, or None."""
        if len(self._dialing_ids) >= limits.PEERS_DIALING:
            return None  # an answer comes first
        return min((self._known[n].retry_at for n in self._eligible()), default=None)

    def addresses(self, node_id: str) -> tuple[Address, ...]:
        """What is known of a node, the newest candidates first."""
        known = self._known.get(node_id)
        return () if known is None else known.addresses

    def wants(self, node_id: str) -> bool:
        """Whether a session with this node is to stay though nobody uses it: it matters, or they are few."""
        known = self._known.get(node_id)
        if self._matters(node_id) or (known is not None and known.seed):
            return True
        return node_id in self._connected_ids and len(self._connected_ids) <= self._wanted

    def snapshot(self) -> Snapshot:
        return Snapshot(
            known=len(self._known),
            connected=tuple(self._connected_ids),
            dialing=tuple(self._dialing_ids),
            failing={
                n: k.last_reason
                for n, k in self._known.items()
                if k.failures and n not in self._connected_ids
            },
            counters=dict(self.counters),
        )

    # -- events ----------------------------------------------------------------------------------------------

    def _entry(self, node_id: str) -> _Known | None:
        if node_id == self.me or node_id in self._forbidden:
            return None
        known = self._known.get(node_id)
        if known is None:
            if len(self._known) >= limits.PEERS_KNOWN and not self._forget_one():
                self.counters["not_remembered"] += 1
                return None
            known = self._known[node_id] = _Known()
        return known

    def _forget_one(self) -> bool:
        for node_id, known in self._known.items():
            busy = (self._connected_ids, self._dialing_ids, self._needed_ids)
            if not known.seed and not any(node_id in ids for ids in busy):
                del self._known[node_id]
                return True
        return False

    def _learn(self, now: float, event: Learn) -> None:
        known = self._entry(event.node_id)
        if known is None:
            return
        before = known.addresses
        addresses = event.addresses[: limits.PEER_ADDRESSES]
        if event.seed:
            known.seed = addresses
        else:
            known.learned = addresses
        if known.addresses != before:  # it moved: what failed at the old place says nothing of the new one
            known.next_address = 0
            known.failures = 0
            known.retry_at = now

    def _connected(self, node_id: str, effects: list[Effect]) -> None:
        known = self._entry(node_id)
        if known is None:
            effects.append(Hangup(node_id, "revoked" if node_id in self._forbidden else "not_wanted"))
            return
        self._connected_ids[node_id] = None
        self._dialing_ids.pop(node_id, None)
        self._needed_ids.pop(node_id, None)
        known.failures, known.next_address = 0, 0
        self.counters["connected"] += 1

    def _disconnected(self, now: float, node_id: str) -> None:
        known = self._known.get(node_id)
        if known is None or node_id not in self._connected_ids:
            return
        del self._connected_ids[node_id]
        known.retry_at = now + limits.PEER_REDIAL_FIRST_S * self._rng.uniform(0.5, 1.0)
        self.counters["disconnected"] += 1
        if not known.addresses:
            del self._known[node_id]  # it dialed us, and nobody told where it lives

    def _failed(self, now: float, node_id: str, address: str, reason: str) -> None:
        known = self._known.get(node_id)
        if known is None:
            return
        self._dialing_ids.pop(node_id, None)
        known.last_reason = reason
        count_code(self.counters, "dial_failed", reason)
        if node_id in self._connected_ids:
            return
        known.next_address += 1
        if known.next_address < len(known.addresses):
            known.retry_at = now
            return
        known.next_address = 0
        self._needed_ids.pop(node_id, None)
        pause = min(limits.PEER_REDIAL_FIRST_S * 2**known.failures, limits.PEER_REDIAL_MAX_S)
        known.failures = min(known.failures + 1, 16)  # past that the pause is at its longest
        known.retry_at = now + pause * self._rng.uniform(0.75, 1.25)

    def _forbid(self, node_id: str, effects: list[Effect]) -> None:
        if node_id in self._forbidden:
            return
        self._forbidden[node_id] = self._known.pop(node_id, None)
        self._dialing_ids.pop(node_id, None)
        self._needed_ids.pop(node_id, None)
        if node_id in self._connected_ids:
            del self._connected_ids[node_id]
            effects.append(Hangup(node_id, "revoked"))

    def _allow(self, now: float, node_id: str) -> None:
        known = self._forbidden.pop(node_id, None)
        if known is not None and node_id not in self._known and len(self._known) < limits.PEERS_KNOWN:
            known.failures, known.retry_at, known.last_reason = 0, now, ""
            self._known[node_id] = known

    # -- dialing ---------------------------------------------------------------------------------------------

    def _matters(self, node_id: str) -> bool:
        return node_id in self._needed_ids or node_id in self._keep

    def _eligible(self) -> list[str]:
        """Nodes that may be dialed when their time comes: all of them while sessions are short."""
        short = len(self._connected_ids) + len(self._dialing_ids) < self._wanted
        names = self._known if short else dict.fromkeys((*self._needed_ids, *self._keep))
        return [n for n in names if n in self._known and self._is_idle(n)]

    def _is_idle(self, node_id: str) -> bool:
        taken = node_id in self._connected_ids or node_id in self._dialing_ids
        return not taken and bool(self._known[node_id].addresses)

    def _dial(self, now: float, effects: list[Effect]) -> None:
        ready = [n for n in self._eligible() if self._known[n].retry_at <= now]
        self._rng.shuffle(ready)
        ready.sort(key=lambda n: (not self._matters(n), self._known[n].failures))
        for node_id in ready:
            if len(self._dialing_ids) >= limits.PEERS_DIALING:
                return
            enough = len(self._connected_ids) + len(self._dialing_ids) >= self._wanted
            if enough and not self._matters(node_id):
                return
            known = self._known[node_id]
            self._dialing_ids[node_id] = None
            addresses = known.addresses
            known.next_address = min(known.next_address, len(addresses) - 1)
            self.counters["dials"] += 1
            effects.append(Dial(node_id, addresses[known.next_address]))
