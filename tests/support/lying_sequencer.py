"""A sequencer that lies about the time: every lie by its name, and what it does without the pen.

It holds the cosigning key of one witness besides (f = 1) and cosigns its own lies with it. Until it has lied
it cosigns, serves and refreshes as before, but takes nothing from clients, so that the log's clock stands
still, and asks no witness that has never cosigned anything. What lies outside the bound must never be final.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from statelog.canonical import encode
from statelog.checkpoint import cosign, parse_signed_checkpoint
from statelog.leaf import frame_leaf
from statelog.signing import record_id_of
from statelog.state import RECOVERY
from tests.support.authority import signer
from tests.support.cluster_actors import LEASE_S, POOL, BrokenError, SequencerActor
from tests.support.logs import with_lines

if TYPE_CHECKING:
    from tests.support.cluster_world import ClusterWorld

TEMPT_S, INSIST_S = 20.0, 240.0
STOLEN = "witness-4"
FENCED = "fenced"
Lie = Callable[["LyingSequencer", int], tuple[dict[str, Any], int] | None]
LIES: dict[str, Lie] = {}


def lie(function: Lie) -> Lie:
    """Registers a lie under its name: it gives the record and its date, None while its time has not come."""
    LIES[function.__name__] = function
    return function


class LyingSequencer(SequencerActor):
    """Waits for the chance of the lie that was told least so far, tells it, and falls silent to clients."""

    def start(self) -> None:
        if "lie" not in self.disk:
            names = sorted(LIES)
            self.world.chance.shuffle(names)
            self.disk["lie"] = min(names, key=lambda name: self.world.fired[f"lie {name}"])
        super().start()
        self.later(TEMPT_S, self._tempt)

    def has_lied(self) -> bool:
        return "lied_at" in self.disk

    def on_submit(self, source: str, data: bytes) -> None:
        if source != "client":  # to refuse its owners would give it away
            super().on_submit(source, data)

    def _tempt(self) -> None:
        if self.has_lied():
            return
        self.later(TEMPT_S, self._tempt)
        name = self.disk["lie"]
        told = LIES[name](self, int(self.world.now))
        if told is None:
            return
        record, at = told
        candidate = self.replay.copy()
        leaf = frame_leaf(encode(record), at, candidate.term)
        candidate.append(leaf)
        if name.endswith("a_little"):
            self.world.bent.add(leaf)
        elif at < self.world.now:
            self.world.lies[leaf] = name
        self.append(candidate, leaf, record_id_of(record), lied_at=self.world.now)
        self.world.fired[f"lie {name}"] += 1

    def _begin(self) -> None:
        super()._begin()
        size = self.replay.size
        if self.has_lied() and STOLEN in self.asking and STOLEN not in self.disk["lines"].get(size, {}):
            line = cosign(self.round.note.text, f"{STOLEN}.example", signer(STOLEN), int(self.world.now))
            self.round.note = with_lines(self.round.note, [line])
            lines = {**self.disk["lines"].get(size, {}), STOLEN: line.line().encode()}
            self.disk["lines"] = {**self.disk["lines"], size: lines}

    def _request(self, name: str) -> None:
        """Whoever has cosigned nothing yet is kept for the lie, if others are enough."""
        kept = {one for one in self.asking if self.world.actors[one].disk["state"] is None}
        needed = self.world.needed(self.disk["final"], self.replay.size)
        spared = all(len(one.names - kept) >= one.threshold for one in needed)
        if self.has_lied() or name not in kept or not spared:
            super()._request(name)


def _quiet_s(liar: LyingSequencer, now: int) -> int:
    """How much further back than a witness allows the next entry may be dated."""
    rules = liar.replay.state.descriptor
    return now - liar.replay.last_sequenced_at - rules.clock_skew_s - rules.max_checkpoint_age_s


@lie
def dates_a_lease_ahead(liar: LyingSequencer, now: int) -> tuple[dict[str, Any], int]:
    ahead_s = liar.world.chance.randint(1_000, 7_200)
    return liar.world.cluster.lease(
        f"route-ahead-{now}", epoch=1, issued_at=now, lifetime_s=LEASE_S
    ), now + ahead_s


@lie
def dates_a_lease_ahead_a_little(liar: LyingSequencer, now: int) -> tuple[dict[str, Any], int]:
    """The positive twin: clocks may differ so much."""
    return liar.world.cluster.lease(
        f"route-near-{now}", epoch=1, issued_at=now, lifetime_s=LEASE_S
    ), now + 100


@lie
def dates_an_expired_fence_back(liar: LyingSequencer, now: int) -> tuple[dict[str, Any], int] | None:
    if _quiet_s(liar, now) < 60:
        return None
    at = liar.replay.last_sequenced_at
    target = {"route_id": f"route-back-{now}"}
    return liar.world.cluster.fence(target, epoch=1, issued_at=at, lifetime_s=300), at


@lie
def dates_a_lasting_fence_back_a_little(liar: LyingSequencer, now: int) -> tuple[dict[str, Any], int] | None:
    """The positive twin: what would still pass may be as old as it likes."""
    if _quiet_s(liar, now) < 60:
        return None
    at = liar.replay.last_sequenced_at
    target = {"route_id": f"route-back-{now}"}
    return liar.world.cluster.fence(target, epoch=1, issued_at=at, lifetime_s=10 * LEASE_S), at


@lie
def dates_a_recovery_back(liar: LyingSequencer, now: int) -> tuple[dict[str, Any], int] | None:
    """Most of a recovery's delay would be over when it is first seen."""
    if _quiet_s(liar, now) < 60:
        return None
    at, cluster = liar.replay.last_sequenced_at, liar.world.cluster
    epoch = liar.replay.state.descriptor.epoch + 1
    coming = cluster.descriptor(epoch=epoch, issuer_role=RECOVERY, issued_at=at, by=())
    return cluster.recovery_intent(coming, issued_at=at, epoch=1), at


class FencedSequencer(SequencerActor):
    """Has lost the pen and goes on: another entry now and then, shown to every witness there is."""

    def __init__(self, world: ClusterWorld) -> None:
        super().__init__(world, FENCED)
        self.tries = 3  # after those it has seen every answer there is
        self.got: dict[int, set[str]] = {}

    def start(self) -> None:
        super().start()
        self.later(INSIST_S, self._insist)

    def _insist(self) -> None:
        if self.world.healed or self.tries == 0:
            return
        self.tries -= 1
        self.later(INSIST_S, self._insist)
        now = int(self.world.now)
        route, cluster = f"route-fenced-{now}", self.world.cluster
        record = cluster.lease(route, epoch=1, issued_at=now - 1, lifetime_s=LEASE_S)
        candidate = self.replay.copy()
        leaf = candidate.next_leaf(encode(record), now)
        candidate.append(leaf)
        self.append(candidate, leaf, record_id_of(record))

    def _begin(self) -> None:
        super()._begin()
        self.asking = set(POOL)

    def _ask(self, size: int) -> None:
        for name in sorted(self.asking):
            self._request(name)

    def on_cosigned(self, source: str, size: int, status: int, body: bytes) -> None:
        if status != 200:
            self.world.fired["a fenced sequencer is refused"] += 1
            super().on_cosigned(source, size, status, body)
            return
        self.world.fired["a fenced sequencer gets a cosignature"] += 1
        self.got.setdefault(size, {STOLEN}).add(source)
        true = parse_signed_checkpoint(self.disk["notes"][size])[0].root == self.world.root_at(size)
        for one in self.world.quorums:
            if not true and len(one.names & self.got[size]) >= one.threshold:
                raise BrokenError(f"a fenced sequencer's head of {size} is cosigned by {self.got[size]}")
