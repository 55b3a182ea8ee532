"""A partition's log beside a test cluster's authority log.

cluster = make_cluster()
eu = Partition(cluster)                      # the term that opens routes-eu-1 is in the authority log
eu.append(eu.lease("eu-1/a"))                # judged at the authority log's size
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from statelog.canonical import encode
from statelog.checkpoint import sign_checkpoint
from statelog.partition import PartitionReplay
from statelog.records import KINDS_BY_NAME
from statelog.replay import Entry
from statelog.signing import encode_base64
from tests.support.authority import Cluster, sequencer_entry, signer

EMPTY_ROOT = encode_base64(sha256(b"").digest())
WRITER = "sequencer-eu"


class MemoryFeed:
    """The authority log of a cluster in memory; final up to `final`, or wholly."""

    def __init__(self, leaves: Sequence[bytes], final: int | None = None) -> None:
        self.all = leaves
        self.final = final
        self.read: list[tuple[int, int]] = []

    def final_size(self) -> int:
        return len(self.all) if self.final is None else self.final

    def leaves(self, start: int, end: int) -> Sequence[bytes]:
        self.read.append((start, end))
        return self.all[start:end]


class ClusterFeed(MemoryFeed):
    """The same of a cluster that grows."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__([])
        self.cluster = cluster

    def final_size(self) -> int:
        return self.cluster.log.size if self.final is None else self.final

    def leaves(self, start: int, end: int) -> Sequence[bytes]:
        self.read.append((start, end))
        return self.cluster.leaves()[start:end]


class Partition:
    """The log of one partition of `cluster`; `opened` is the authority index of the term that opened it."""

    def __init__(self, cluster: Cluster, name: str = "eu-1", *, writer: str = WRITER) -> None:
        self.cluster = cluster
        self.name = name
        self.log = f"routes-{name}"
        self.writer = writer
        self.opened = cluster.log.size
        cluster.append(self.term(writer, start_size=0))
        self.feed = ClusterFeed(cluster)
        self.replay = self.fresh()
        self.replay.advance()
        self.leaves: list[bytes] = []

    def fresh(self, feed: MemoryFeed | None = None) -> PartitionReplay:
        """A replay before entry 0, on the authority log as `feed` shows it."""
        return PartitionReplay(self.cluster.anchor, self.log, feed or self.feed)

    def replayed(self, size: int | None = None) -> PartitionReplay:
        """A replay of the first `size` entries."""
        replay = self.fresh()
        for leaf in self.leaves[:size]:
            replay.append(leaf)
        return replay

    def term(self, writer: str, *, start_size: int | None = None, **changes: Any) -> dict[str, Any]:
        """The next term of the log, from its end or `start_size` on."""
        start = self.replay.size if start_size is None else start_size
        root = EMPTY_ROOT if not start else encode_base64(self.replay.root_at(start) or b"")
        changes.setdefault("start_root", root)
        entries = [sequencer_entry(writer, "control-1", self.cluster.cluster_id)]
        return self.cluster.log_term(self.log, start_size=start, sequencers=entries, **changes)

    def lease(self, route_id: str = "eu-1/a", *hops: str, **changes: Any) -> dict[str, Any]:
        return self._next("route.lease", self.cluster.lease, route_id, *hops, partition=self.name, **changes)

    def fence(self, target: dict[str, str], **changes: Any) -> dict[str, Any]:
        return self._next("route.fence", self.cluster.fence, target, **changes)

    def _next(self, kind: str, make: Any, *arguments: Any, **changes: Any) -> dict[str, Any]:
        """The record with this log's next epoch of its subject."""
        record: dict[str, Any] = make(*arguments, **changes)
        last = self.replay.state.subjects.get((kind, *KINDS_BY_NAME[kind].subject(record)))
        if "epoch" in changes or last is None:
            return record
        return self.cluster.sign({**record, "epoch": last.epoch + 1}, changes.get("by"))

    def next_leaf(self, record: dict[str, Any]) -> bytes:
        self.replay.advance()
        return self.replay.next_leaf(encode(record), self.cluster.now)

    def append(self, record: dict[str, Any]) -> Entry:
        """Sequence the record at all of the authority log that is final."""
        entry = self.replay.append(self.next_leaf(record))
        self.leaves.append(entry.data)
        return entry

    def head(self, by: str | None = None) -> bytes:
        """The signed checkpoint of the log as it stands."""
        return sign_checkpoint(self.replay.checkpoint(), signer(by or self.writer))
