"""What the next record of a subject is judged by where the order of epochs is not enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from statelog.findings import Finding

VERSION_NUMBERS: Final = 4  # at most, in a version


@dataclass(frozen=True, slots=True)
class Release:
    """The release in force of a product's channel.

    ``artifacts`` maps (platform, name) to the hex SHA-256; the way back is open before ``rollback_until``.
    """

    record_id: str
    version: str
    artifacts: Mapping[tuple[str, str], str]
    rollback_to: frozenset[str]
    rollback_until: int

    def fault_after(self, last: Release, now: int) -> Finding | None:
        """Why this may not follow ``last``, or None.

        Forward always; back where the release in force allows it; the version in force keeps its artifacts,
        and may get more: who is on the way to it must find what it names.
        """
        new, old = version_order(self.version), version_order(last.version)
        if new == old:
            for key, sha256 in last.artifacts.items():
                if self.artifacts.get(key) != sha256:
                    sentence = "the version in force keeps its artifacts"
                    found = self.artifacts.get(key, "nothing of that name")
                    return Finding("SL-RELEASE", sentence, "artifacts", f"{'/'.join(key)} {sha256}", found)
        is_open = now < last.rollback_until
        if new < old and not (is_open and self.version in last.rollback_to):
            allowed = ", ".join(sorted(last.rollback_to)) if is_open else ""
            return Finding(
                "SL-RELEASE",
                "goes back further than the release in force allows",
                "version",
                f"above {last.version}" + (f", or {allowed}" if allowed else ""),
                self.version,
            )
        return None


@dataclass(frozen=True, slots=True)
class ShardSet:
    """The latest manifest of a shard set; ``content`` hashes all that a recovery epoch fixes."""

    recovery_epoch: int
    content: bytes

    def fault_after(self, last: ShardSet) -> Finding | None:
        """Why this may not follow ``last``, or None: the recovery epoch never goes back, and bytes change
        only with it.
        """
        new, old = self.recovery_epoch, last.recovery_epoch
        if new < old:
            sentence = "the recovery epoch goes back"
            return Finding("SL-SHARDS", sentence, "recovery_epoch", f"at least {old}", str(new))
        if new == old and self.content != last.content:
            sentence = "other bytes need a later recovery epoch"
            return Finding("SL-SHARDS", sentence, "recovery_epoch", f"above {old}", str(new))
        return None


def version_order(version: str) -> tuple[int, ...]:
    """Versions compare number by number; missing ones count as 0."""
    numbers = [int(part) for part in version.split(".")]
    return (*numbers, *[0] * (VERSION_NUMBERS - len(numbers)))
