"""What the replica's thread hands to the node's loop: immutable values."""

from __future__ import annotations

from dataclasses import dataclass

from fabric import gossip
from fabric.errors import FabricError
from projections.registry import StatusChange
from projections.snapshot import Snapshot
from statelog.alarms import alarms, of_log
from statelog.findings import Finding
from statelog.io.evidence import EvidenceCounts


class ReplicaError(FabricError):
    """The store is not this cluster's, or cannot be used. Code `bad_store`."""


@dataclass(frozen=True, slots=True)
class Logged:
    """A record of a kind that gossip carries became final."""

    record_id: str
    subject: tuple[str, ...]
    order: gossip.Order


@dataclass(frozen=True, slots=True)
class LogStatus:
    """Where this node's log is. Times are Unix seconds; `fresh_at` counts the head's age.

    `evidence` counts what is kept of it.
    """

    origin: str
    size: int
    final_size: int
    final_root: bytes
    term: int
    fresh_at: int | None
    max_age_s: int
    sequencers: tuple[str, ...]
    evidence: EvidenceCounts

    @property
    def log(self) -> str:
        """The log's name."""
        return self.origin.rpartition("/")[2]

    def alarms(self, now: float) -> list[Finding]:
        """What every view of this node must say aloud (`statelog.alarms`)."""
        return alarms(
            final_size=self.final_size,
            fresh_at=self.fresh_at,
            max_age_s=self.max_age_s,
            now=now,
            **self.evidence._asdict(),
        )


@dataclass(frozen=True, slots=True)
class News:
    """What happened since the update before.

    `settled`: records of this node's outbox that the log carries now. `dropped`: (record id, finding code) of
    records that acted ahead of the log and do so no more. `advanced`: the final head moved.
    """

    registry: tuple[StatusChange, ...] = ()
    logged: tuple[Logged, ...] = ()
    settled: tuple[str, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()
    advanced: bool = False


NO_NEWS = News()


@dataclass(frozen=True, slots=True)
class Update:
    """What this node knows now, for the data plane, and what is new. `log` is where the authority log is,
    None before its first entry; `partitions` are the partition logs that this node holds.

    `version` grows with every update: there may be more to serve.
    """

    snapshot: Snapshot
    log: LogStatus | None
    news: News = NO_NEWS
    version: int = 0
    partitions: tuple[LogStatus, ...] = ()

    @property
    def logs(self) -> tuple[LogStatus, ...]:
        """All logs that this node holds, the authority log first."""
        return () if self.log is None else (self.log, *self.partitions)

    def alarms(self, now: float) -> list[Finding]:
        """What every view of this node must say aloud, of all its logs; of a partition's with its name."""
        found = [] if self.log is None else self.log.alarms(now)
        for one in self.partitions:
            told = one.alarms(now) if one.final_size else []  # an empty log has no head to grow old
            found += of_log(told, one.log)
        return found

    def status_of(self, log: str) -> LogStatus | None:
        """Where a log that this node holds is."""
        return next((one for one in self.logs if one.log == log), None)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a record from outside. `item` is for gossip; `candidates` of `node_id` for peering."""

    record_id: str
    item: gossip.Item | None = None
    refusal: gossip.Refusal | None = None
    sentence: str = ""
    state: str = ""  # candidate, pending, final, known or refused
    kind: str = ""
    candidates: tuple[dict[str, object], ...] = ()
    node_id: str = ""
