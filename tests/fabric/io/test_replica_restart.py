"""What a replica saves when it stops, and when it goes on from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fabric.io.updates import ReplicaError
from statelog.io.database import write_transaction
from statelog.io.tables import cosignature
from statelog.replay import Replay
from tests.fabric.io.test_replica import Site
from tests.support.authority import make_cluster


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(make_cluster(), tmp_path / "node.db")
    yield made
    made.replica.close()


def test_a_restart_after_a_clean_stop_replays_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.follow([4, site.cluster.log.size])
    site.replica.close()
    with monkeypatch.context() as patched:
        patched.setattr(Replay, "append", None)  # nobody may call it
        again = Site(site.cluster, site.path)
    assert again.opened.log == site.last.log
    assert again.replica.final.folded() == site.replica.final.folded()
    again.replica.close()


def test_a_saved_fold_at_a_head_without_enough_witnesses_is_not_used(site: Site) -> None:
    site.follow()
    site.replica.close()
    with write_transaction(site.replica.engine) as connection:
        some = cosignature.select().limit(1)
        kept = connection.execute(some).one()
        connection.execute(cosignature.delete().where(cosignature.c.name != kept.name))
    with pytest.raises(ReplicaError) as caught:  # the stored head is replayed, and it is not final either
        Site(site.cluster, site.path)
    assert caught.value.code == "bad_store"
