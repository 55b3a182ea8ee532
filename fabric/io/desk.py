"""What becomes of records from outside: judged on the replica's thread, spread, probed, handed to the log."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from fabric import discovery, gossip, limits, peering
from fabric.candidates import addresses_of
from fabric.io.peers import Peers
from fabric.io.replica import Replica
from fabric.io.updates import Judgement
from fabric.io.worker import Worker
from fabric.services.io.gossiping import GossipService
from fabric.services.io.submitting import Forwarder
from projections.model import RegistryRecord
from projections.snapshot import Snapshot

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Parts:
    """The parts of the node that records reach. `promote` gives the promoter an event."""

    replica: Replica
    worker: Worker
    gossip: GossipService
    peers: Peers
    forwarder: Forwarder
    promote: Callable[[discovery.Event], None]
    snapshot: Callable[[], Snapshot]


class Desk:
    """Takes delivered and gossiped records."""

    def __init__(self, parts: Parts, rng: random.Random) -> None:
        self.refused: Counter[str] = Counter()
        """Refusals of delivered records by finding code; those by gossip are counted per peer."""
        self._parts = parts
        self._rng = rng

    async def deliver(self, data: bytes) -> Judgement:
        """A record handed to this node: judged, spread, probed now, and on its way into the log."""
        parts = self._parts
        judgement = await parts.worker.run(parts.replica.judge, data)
        if judgement.refusal is not None:
            self.refused[judgement.refusal.code] += 1
            _log.warning("delivered record refused: %s", judgement.sentence)
            return judgement
        if judgement.item is not None:
            parts.gossip.handle(gossip.Local(judgement.item))
        self._accept(judgement, urgent=True)
        if judgement.kind != "" and judgement.state in ("candidate", "known", "pending"):
            await self._to_log(judgement, data)
        return judgement

    def judged(self, judgement: Judgement) -> None:
        """The verdict on a record that gossip brought. Whoever got it first forwards it: wait for that."""
        self._accept(judgement, urgent=False)
        item = judgement.item
        if item is None or judgement.node_id or judgement.state != "candidate":
            return
        delay = self._rng.uniform(0.2, 1.0) * limits.SUBMIT_SPREAD_S
        self._parts.forwarder.add(judgement.record_id, item.data, delay_s=delay)

    def restored(self, items: list[gossip.Item]) -> None:
        """The records ahead of the log that the store kept from before."""
        for item in items:
            self._parts.gossip.handle(gossip.Local(item))
            self._parts.forwarder.add(item.record_id, item.data)

    async def _to_log(self, judgement: Judgement, data: bytes) -> None:
        if judgement.node_id:
            return  # a node's own record is never logged
        parts = self._parts
        await parts.worker.run(parts.replica.queue, judgement.record_id, data)
        parts.forwarder.add(judgement.record_id, data)

    def _accept(self, judgement: Judgement, *, urgent: bool) -> None:
        parts = self._parts
        if judgement.node_id:
            addresses = addresses_of(judgement.node_id, judgement.candidates)
            parts.peers.handle(peering.Learn(judgement.node_id, addresses))
        if urgent:
            record = _candidate(parts.snapshot(), judgement.record_id)
            if record is not None:
                parts.promote(as_candidate(record, urgent=True))


def as_candidate(record: RegistryRecord, *, urgent: bool) -> discovery.Candidate:
    """A registry record for the promoter, its endpoints best first."""
    endpoints = tuple(record.best_first)
    return discovery.Candidate(record.record_id, record.subject[0], endpoints, record.expires_at, urgent)


def _candidate(snapshot: Snapshot, record_id: str) -> RegistryRecord | None:
    for view in snapshot.registry.values():
        for record in view.candidates:
            if record.record_id == record_id:
                return record
    return None
