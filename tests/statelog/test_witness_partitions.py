"""A witness of a partition's log: it rests on the authority log as the witness itself knows it."""

from __future__ import annotations

import pytest

from statelog.checkpoint import parse_signed_checkpoint
from statelog.state import ROUTE
from statelog.witness import WitnessState, encode_add_checkpoint
from tests.support.authority import DAY_S, make_cluster, node_id
from tests.support.logs import WITNESSES, WitnessHost, consistency, verdict
from tests.support.partitions import ClusterFeed, Partition


class Site:
    """A partition's log, and a witness that follows the authority log by a feed of its own."""

    def __init__(self) -> None:
        self.cluster = make_cluster()
        self.eu = Partition(self.cluster)
        self.seen = ClusterFeed(self.cluster)
        self.witness = WitnessHost(
            self.cluster, WITNESSES[0], lambda: self.eu.leaves, lambda: self.eu.fresh(self.seen), self.eu.log
        )

    def lease(self, route: str, *hops: str) -> None:
        self.eu.append(self.eu.lease(f"eu-1/{route}", *hops))

    def ask(self, old: int, *, by: str | None = None, now: float | None = None) -> tuple[int, str]:
        size = self.eu.replay.size
        body = encode_add_checkpoint(old, consistency(self.eu.leaves, old, size), self.eu.head(by))
        reply = self.witness.ask(body, now)
        return (200, "") if reply.status == 200 else verdict(reply)


@pytest.fixture
def site() -> Site:
    return Site()


def test_it_cosigns_from_the_first_entry_on(site: Site) -> None:
    site.lease("a")
    assert site.ask(0) == (200, "")
    site.lease("b")
    site.lease("c")
    assert site.ask(1) == (200, "")
    origin = f"{site.cluster.cluster_id}/routes-eu-1"
    assert site.witness.stored == WitnessState(origin, 3, site.eu.replay.root(), 1)
    assert parse_signed_checkpoint(site.eu.head())[0].origin == origin


def test_it_waits_until_it_has_seen_the_authority_head_itself(site: Site) -> None:
    site.seen.final = site.eu.opened + 1
    site.cluster.append(site.cluster.policy())
    site.lease("a")
    assert site.ask(0) == (503, "SL-AUTHORITY")
    assert site.witness.stored is None
    site.seen.final = None
    assert site.ask(0) == (200, "")


def test_it_refuses_what_rests_on_an_authority_long_overtaken(site: Site) -> None:
    """A revoked node goes on being leased as long as its sequencer looks away; witnesses do not."""
    site.lease("a")
    old = site.eu.next_leaf(site.eu.lease("eu-1/b"))
    site.cluster.append(site.cluster.revocation({"node_id": node_id("relay-1")}))
    revoked_at = site.cluster.now
    site.eu.replay = site.eu.replayed()  # a sequencer that never advances
    site.eu.leaves.append(site.eu.replay.append(old).data)
    allowed = site.eu.replay.state.descriptor.max_checkpoint_age_s
    assert site.ask(0, now=revoked_at + allowed + 1) == (422, "SL-AUTHORITY")
    assert site.ask(0, now=revoked_at + allowed) == (200, "")
    assert site.ask(2, now=revoked_at + 9 * allowed) == (200, "")  # nothing new: only a fresh signature


def test_a_new_terms_sequencer_is_known_from_the_authority_log(site: Site) -> None:
    site.lease("a")
    assert site.ask(0) == (200, "")
    site.cluster.append(site.eu.term("sequencer-2"))
    site.lease("b")
    assert site.ask(1, by="sequencer-eu") == (422, "SL-TERM")
    assert site.ask(1, by="sequencer-2") == (200, "")
    assert site.witness.stored is not None
    assert site.witness.stored.term == 2
    site.witness.restart()
    assert site.ask(2, by="sequencer-eu") == (422, "SL-TERM")
    site.lease("c")
    assert site.ask(2, by="sequencer-2") == (200, "")


def test_a_suffix_that_was_never_final_is_dropped_by_a_term(site: Site) -> None:
    site.lease("a")
    assert site.ask(0) == (200, "")
    site.lease("b")  # the old sequencer dies before anybody cosigned this
    dropped = site.eu.leaves.pop()
    site.eu.replay = site.eu.replayed()
    site.cluster.append(site.eu.term("sequencer-2"))
    site.lease("c")
    assert site.eu.leaves[1] != dropped
    assert site.ask(1, by="sequencer-2") == (200, "")


def test_what_a_refused_entry_rested_on_binds_nobody(site: Site) -> None:
    """A stranger makes the witness read an entry that its source then replaces by the right one."""
    site.lease("a")
    assert site.ask(0) == (200, "")
    site.lease("b")
    begun, right = list(site.eu.leaves), site.eu.next_leaf(site.eu.lease("eu-1/c"))
    site.cluster.append(site.cluster.policy())
    few = site.eu.lease("eu-1/c", by=("route-1",))
    refused = site.eu.next_leaf(few)  # which rests on the policy, too
    site.eu.leaves.append(refused)
    site.eu.replay.skip(refused)
    assert site.ask(1, by="stranger") == (403, "SL-CHECKPOINT")
    site.eu.leaves = [*begun, right]
    site.eu.replay = site.eu.replayed()
    assert site.ask(1) == (200, "")


def test_a_pen_goes_no_further_than_its_successors_start(site: Site) -> None:
    """The old sequencer names an authority size from before its end; who knows better is not deceived."""
    site.lease("a")
    site.lease("b")
    assert site.ask(0) == (200, "")
    site.lease("c")
    later = [site.eu.next_leaf(site.eu.lease(f"eu-1/{route}")) for route in ("d", "e")]
    site.cluster.append(site.eu.term("sequencer-2"))  # from size 3 on
    site.eu.replay = site.eu.replayed()  # a sequencer that never advances
    assert site.ask(2, by="sequencer-eu") == (200, "")  # up to there it is right, also for who comes late
    site.eu.leaves.append(site.eu.replay.append(later[0]).data)
    assert site.ask(3, by="sequencer-eu") == (422, "SL-TERM")
    site.seen.final = site.cluster.log.size - 1
    assert site.ask(3, by="sequencer-eu") == (200, "")  # nobody can know
    site.seen.final = None
    site.eu.leaves.append(site.eu.replay.append(later[1]).data)
    assert site.ask(4, by="sequencer-eu") == (422, "SL-TERM")
    site.eu.leaves.pop()
    site.eu.replay = site.eu.replayed()
    assert site.ask(4, by="sequencer-eu") == (200, "")  # nothing new: only a fresh signature


def test_a_term_that_nobody_wrote_in_has_a_successor_too(site: Site) -> None:
    """Two sequencers vanish one after the other; the third goes on from what is final."""
    site.lease("a")
    assert site.ask(0) == (200, "")
    site.lease("b")  # never final, and gone
    site.eu.leaves.pop()
    site.eu.replay = site.eu.replayed()
    site.cluster.append(site.eu.term("sequencer-2"))
    site.cluster.append(site.eu.term("sequencer-3"))
    site.lease("c")
    assert site.ask(1, by="sequencer-2") == (422, "SL-TERM")
    assert site.ask(1, by="sequencer-3") == (200, "")


def test_what_it_meets_late_passes_at_its_own_time(site: Site) -> None:
    site.cluster.append(site.cluster.members(ROUTE, lifetime_s=DAY_S))
    site.lease("a")
    assert site.ask(0) == (200, "")
    site.cluster.now += DAY_S - 1
    site.eu.append(site.eu.fence({"route_id": "eu-1/a"}, lifetime_s=90 * DAY_S))
    rules = site.cluster.state.descriptor
    allowed = site.cluster.now + rules.clock_skew_s + rules.max_checkpoint_age_s
    assert site.ask(1, now=allowed + 1) == (422, "SL-EXPIRED")
    assert site.ask(1, now=allowed) == (200, "")


def test_nothing_that_was_cosigned_is_dropped(site: Site) -> None:
    site.lease("a")
    site.lease("b")
    assert site.ask(0) == (200, "")
    site.eu.leaves.pop()
    site.eu.replay = site.eu.replayed()
    site.cluster.append(site.eu.term("sequencer-2"))
    site.lease("c")
    site.lease("d")
    assert site.ask(2, by="sequencer-2") == (422, "SL-ROOT")


def test_an_entry_against_the_rules_is_refused_as_an_auditor_would(site: Site) -> None:
    site.lease("a")
    stale = site.eu.next_leaf(site.eu.lease("eu-1/b"))
    site.cluster.append(site.cluster.fence({"node_id": node_id("relay-1")}))
    site.cluster.now += 1
    site.lease("c")
    site.eu.leaves.append(stale)
    site.eu.replay.skip(stale)
    assert site.ask(0) == (422, "SL-AUTHORITY")  # its authority size goes backwards
