"""The own columns of `shard_manifest`; what all such tables share is in test_latest."""

from __future__ import annotations

from tests.projections import facts
from tests.projections.facts import HOUR, T0
from tests.projections.test_latest import rows_of


def test_its_own_columns() -> None:
    record = facts.manifest("s", "n1")
    (row,) = rows_of("shard_manifest", record)
    assert row["retention_until"] == T0 + HOUR
    for part in ("object", "cipher", "code", "replication_factor", "shards", "recovery_epoch"):
        assert row[part] == record[part]
