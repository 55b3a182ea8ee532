"""A recovery in a real store: the next sequencer writes its descriptor, the old one no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from statelog.audit import audit
from statelog.canonical import encode
from statelog.errors import Refused
from statelog.io.sequencer import Sequencer
from statelog.io.sources import StoreSource
from statelog.io.store import Store
from statelog.leaf import decode_leaf
from statelog.state import RECOVERY
from tests.support.authority import DAY_S, QUORUMS, Cluster, make_cluster, signer
from tests.support.logs import new_store


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


@pytest.fixture
def engine(tmp_path: Path, cluster: Cluster) -> Iterator[sa.Engine]:
    engine, _ = new_store(tmp_path / "state.db", cluster)
    yield engine
    engine.dispose()


def test_a_recovery_is_finished_by_the_sequencer_it_named(engine: sa.Engine, cluster: Cluster) -> None:
    """Neither the old control quorum nor the old writer is asked, and an audit follows."""
    sequencer = Sequencer(Store(engine), cluster.anchor, signer("sequencer-1"))
    descriptor = cluster.descriptor(issuer_role=RECOVERY, by=[], clock_skew_s=60)
    sequencer.submit(encode(cluster.recovery_intent(descriptor)), cluster.now)
    due = cluster.now + cluster.state.descriptor.recovery.delay_s
    record = encode(cluster.sign(descriptor, QUORUMS[RECOVERY]))
    other = Sequencer(Store(engine), cluster.anchor, signer("sequencer-2"))
    for early in (sequencer, other):
        with pytest.raises(Refused) as refused:
            early.submit(record, due - 1)
        assert refused.value.code == ("SL-TERM" if early is sequencer else "SL-RECOVERY")
    with pytest.raises(Refused) as refused:
        sequencer.submit(record, due)
    assert refused.value.code == "SL-TERM"
    index = other.submit(record, due).log_index
    (row,) = Store(engine).entries(index)
    assert decode_leaf(row.leaf).term == 2
    with pytest.raises(Refused) as refused:
        sequencer.submit(encode(cluster.policy()), due)
    assert refused.value.code == "SL-TERM"
    assert other.submit(encode(cluster.policy(lifetime_s=30 * DAY_S)), due).log_index == index + 1
    store = Store(engine)
    with store.reading() as connection:
        report = audit(StoreSource(store, connection), cluster.anchor)
    assert [finding.code for finding in report.findings] == ["SL-NOTFINAL"]
