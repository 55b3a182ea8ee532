"""What a replica makes of heads that others show, and of records that the log contradicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fabric import limits
from statelog.canonical import encode
from statelog.io.comparing import Relation
from statelog.rollback import check_rollback
from statelog.signing import record_id_of
from tests.fabric.io.test_replica import SERVICE, Site
from tests.support.authority import make_cluster
from tests.support.logs import forked, head_note, replay_of


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(make_cluster(), tmp_path / "node.db")
    yield made
    made.replica.close()


def test_a_record_that_the_log_contradicts_is_kept_with_the_logged_one(site: Site) -> None:
    """Two hosts signed for one epoch; this node had one of them, and the log took the other."""
    site.follow()
    mine, logged = site.cluster.registry(SERVICE), site.cluster.registry(SERVICE, generation=2)
    site.replica.judge(encode(mine))
    site.cluster.append(logged)
    site.follow()
    assert site.last.news.dropped == ((record_id_of(mine), "SL-EQUIVOCATION"),)
    kept = {item.record_id for item in site.replica.store.evidence()}
    assert kept == {record_id_of(mine), record_id_of(logged)}
    assert site.last.log is not None
    assert site.last.log.evidence.equivocations == 1
    assert [one.code for one in site.last.log.alarms(site.now)] == ["SL-EQUIVOCATION"]


def test_a_head_of_another_history_is_kept_shown_and_said(site: Site) -> None:
    site.follow()
    before = len(site.updates)
    assert site.replica.compare_head(head_note(replay_of(site.cluster)), "honest").relation == Relation.SAME
    assert len(site.updates) == before
    note = head_note(replay_of(forked(site.cluster)))
    assert site.replica.compare_head(note, "liar").relation == Relation.SPLIT
    assert site.last.log is not None
    assert (site.last.log.evidence.split_views, len(site.updates)) == (1, before + 1)
    assert [one.code for one in site.last.log.alarms(site.now)] == ["SL-SPLIT"]
    assert site.replica.compare_head(note, "liar").relation == Relation.SPLIT
    assert len(site.updates) == before + 1  # known already


def test_a_head_beyond_the_log_is_compared_once_the_log_is_that_long(site: Site) -> None:
    site.follow()
    fork, size = forked(site.cluster), site.cluster.log.size
    fork.append(fork.policy("beyond"))
    assert site.replica.compare_head(head_note(replay_of(fork)), "liar").relation == Relation.NEWER
    site.cluster.append(site.cluster.policy("honest"))
    site.follow()
    assert site.last.log is not None
    assert (site.last.log.final_size, site.last.log.evidence.split_views) == (size + 1, 1)
    assert site.replica.counters["heads_split"] == 1


def test_heads_that_wait_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEADS_NEWER", 2)
    site.follow()
    beyond = make_cluster()
    beyond.append(beyond.policy("p"))
    for peer in "abca":
        assert site.replica.compare_head(head_note(replay_of(beyond)), peer).relation == Relation.NEWER
    assert sorted(peer for _, peer in site.replica._heads._newer) == ["a", "c"]


def test_nothing_is_compared_before_there_is_a_log(site: Site) -> None:
    assert site.replica.compare_head(head_note(replay_of(site.cluster)), "peer").relation == Relation.NEWER
    assert site.replica._heads._newer == {}


def test_a_peer_that_shows_less_than_before_went_back_until_it_is_there_again(site: Site) -> None:
    site.follow()
    replay = replay_of(site.cluster)
    newest, older = head_note(replay), head_note(replay_of(site.cluster, site.cluster.log.size - 1))
    size = site.cluster.log.size
    assert site.replica.compare_head(newest, "peer") == (Relation.SAME, False, False)

    # Said before it showed the newer one, perhaps: it has to be asked.
    assert site.replica.compare_head(older, "peer") == (Relation.OLDER, False, True)
    assert site.replica.store.rollbacks() == []

    note, asked = site.replica.asking("peer")
    assert (note, asked.before) == (site.replica.head_note(), (size, newest))
    assert site.replica.compare_head(older, "peer", asked=asked) == (Relation.OLDER, True, False)
    (kept,) = site.replica.store.rollbacks()
    assert (kept.source, kept.earlier_size, kept.size) == ("peer", size, size - 1)
    assert (kept.found.earlier, kept.found.later, kept.over_at) == (newest, older, None)
    check_rollback(kept.found, replay.sequencer_keys())
    assert site.last.log is not None
    assert [one.code for one in site.last.log.alarms(site.now)] == ["SL-ROLLBACK"]
    for again in (asked, None):
        assert site.replica.compare_head(older, "peer", asked=again) == (Relation.OLDER, False, False)
    assert site.replica.store.rollbacks() == [kept]  # one going back is kept once

    # It is remembered over a restart, and ends when the peer is where it was, asked or not.
    site.restart()
    assert site.opened.log is not None
    assert [one.code for one in site.opened.log.alarms(site.now)] == ["SL-ROLLBACK"]
    assert site.replica.compare_head(newest, "peer") == (Relation.SAME, True, False)
    assert site.last.log.alarms(site.now) == []
    (kept,) = site.replica.store.rollbacks()
    assert kept.over_at == site.now


def test_what_an_asked_peer_showed_is_remembered_over_a_restart(site: Site) -> None:
    site.follow()
    older = head_note(replay_of(site.cluster, site.cluster.log.size - 1))
    newest = head_note(replay_of(site.cluster))
    _, asked = site.replica.asking("peer")
    assert asked.before is None
    assert not site.replica.compare_head(newest, "peer", asked=asked).changed
    site.restart()
    _, asked = site.replica.asking("peer")
    assert asked.before == (site.cluster.log.size, newest)
    assert site.replica.compare_head(older, "peer", asked=asked).changed
    assert [one.source for one in site.replica.store.rollbacks()] == ["peer"]


def test_an_older_head_of_another_peer_is_no_rollback(site: Site) -> None:
    site.follow()
    older = head_note(replay_of(site.cluster, site.cluster.log.size - 1))
    site.replica.compare_head(head_note(replay_of(site.cluster)), "peer")
    for _ in range(2):
        _, asked = site.replica.asking("slow")
        assert site.replica.compare_head(older, "slow", asked=asked) == (Relation.OLDER, False, False)
    assert site.replica.store.rollbacks() == []
