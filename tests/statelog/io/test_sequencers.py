"""The writers of several logs on one store: records find their log, terms fence, finality bounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from statelog.canonical import encode
from statelog.errors import Refused
from statelog.findings import Finding
from statelog.io.loading import StoredAuthority, load_replay
from statelog.io.sequencer import ClockWrongError, Sequencer, Submitted
from statelog.io.sequencers import Sequencers
from statelog.io.store import Store
from statelog.leaf import split_leaf
from statelog.partition import PartitionReplay
from statelog.signing import encode_base64
from tests.support.authority import Cluster, make_cluster, node_id, sequencer_entry, signer
from tests.support.logs import new_store
from tests.support.partitions import EMPTY_ROOT

LOG = "routes-eu-1"


class Site:
    """A store with an authority log that is final to its end, and its writers."""

    def __init__(self, path: Path) -> None:
        self.cluster: Cluster = make_cluster()
        self.engine, self.first = new_store(path, self.cluster)
        self.store = Store(self.engine)
        self.writers = self.process()
        self.finish()

    def process(self, key: str = "sequencer-1") -> Sequencers:
        return Sequencers(self.engine, self.cluster.anchor, signer(key))

    def finish(self, log: str = "authority") -> int:
        """Make the whole log final, as its witnesses would."""
        store = self.store.of(log)
        head = store.head()
        assert head is not None
        store.set_final(head.size, head.root)
        return head.size

    def authority(self, record: dict[str, Any], *, final: bool = True) -> None:
        self.writers.authority.submit(encode(record), self.cluster.now)
        self.cluster.append(record)
        if final:
            self.finish()

    def open(self, *keys: str, final: bool = True, **changes: Any) -> None:
        entries = [sequencer_entry(key, "control-1", self.cluster.cluster_id) for key in keys]
        changes = {"start_size": 0, "start_root": EMPTY_ROOT, **changes}
        self.authority(self.cluster.log_term(LOG, sequencers=entries, **changes), final=final)

    def lease(self, route: str, **changes: Any) -> bytes:
        return encode(self.cluster.lease(f"eu-1/{route}", **changes))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "state.db")
    yield site
    site.engine.dispose()


def code_of(outcome: Submitted | Finding) -> str:
    assert isinstance(outcome, Finding)
    return outcome.code


def test_a_record_finds_its_log(site: Site) -> None:
    policy, lease = encode(site.cluster.policy()), site.lease("a")
    before = site.writers.submit(encode(site.cluster.lease("route-a")), site.cluster.now)
    assert before.log == "authority"
    site.finish()
    site.open("sequencer-1")
    placed = site.writers.submit_many([lease, policy, site.lease("b")], site.cluster.now)
    assert [(one.log, one.log_index) for one in placed if isinstance(one, Submitted)] == [
        (LOG, 0),
        ("authority", site.cluster.log.size + 1),
        (LOG, 1),
    ]
    again = site.writers.submit(lease, site.cluster.now)
    assert (again.duplicate, again.log, again.log_index) == (True, LOG, 0)
    assert site.store.logs() == ["authority", LOG]
    found = site.store.locate(again.record_id)
    assert found is not None
    assert (found[0].log, found[1]) == (LOG, 0)
    assert site.store.locate("0" * 64) is None


def test_a_process_that_missed_the_opening_finds_the_log_all_the_same(site: Site) -> None:
    other = site.process()
    other.authority.catch_up()
    site.open("sequencer-1")
    assert other.home(site.lease("a")) == "authority"
    assert other.submit(site.lease("a"), site.cluster.now).log == LOG
    third = site.process()  # has looked at nothing yet
    (outcome,) = third.submit_many([site.lease("b")], site.cluster.now)
    assert isinstance(outcome, Submitted)
    assert (outcome.log, outcome.log_index) == (LOG, 1)


def test_a_refusal_is_the_record_s_own(site: Site) -> None:
    site.open("sequencer-1")
    site.writers.authority.catch_up()
    for wrong in ("route-a", "us-1/a"):
        with pytest.raises(Refused) as error:
            site.writers.submit(encode(site.cluster.lease(wrong)), site.cluster.now)
        assert (error.value.code, error.value.finding.path) == ("SL-SCOPE", "route_id")
    with pytest.raises(Refused) as error:
        site.writers.submit(b"{}", site.cluster.now)
    assert error.value.code == "SL-SCHEMA"
    assert site.writers.submit(site.lease("a"), site.cluster.now).log_index == 0


def test_entries_rest_on_what_is_final(site: Site) -> None:
    site.open("sequencer-1")
    opened = site.cluster.log.size
    site.writers.submit(site.lease("a"), site.cluster.now)
    site.authority(site.cluster.policy(), final=False)
    site.writers.submit(site.lease("b"), site.cluster.now)
    site.finish()
    site.writers.submit(site.lease("c"), site.cluster.now)
    sizes = [split_leaf(row.leaf).authority_size for row in site.store.of(LOG).entries(0)]
    assert sizes == [opened, opened, opened + 1]


def test_a_log_that_waits_for_its_time_holds_up_no_other(site: Site) -> None:
    """The clock was fast when it wrote a partition's log: the authority log goes on, even to a new term."""
    site.open("sequencer-1")
    policy, now = encode(site.cluster.policy()), site.cluster.now
    site.writers.submit(site.lease("a", issued_at=now), now + 1_000)
    lease = site.lease("b", issued_at=now)
    waits, placed = site.writers.submit_many([lease, policy], now)
    assert isinstance(waits, ClockWrongError)
    assert isinstance(placed, Submitted)
    assert (placed.log, placed.duplicate) == ("authority", False)
    again, duplicate = site.writers.submit_many([lease, policy], now + 1_000)
    assert isinstance(again, Submitted)
    assert (again.log, again.log_index) == (LOG, 1)
    assert isinstance(duplicate, Submitted)
    assert duplicate.duplicate


def test_a_log_that_is_not_finally_open_is_not_written(site: Site) -> None:
    site.open("sequencer-1", final=False)
    site.writers.authority.catch_up()
    (outcome,) = site.writers.submit_many([site.lease("a")], site.cluster.now)
    assert code_of(outcome) == "SL-TERM"
    assert site.store.logs() == ["authority"]
    site.finish()
    assert site.writers.submit(site.lease("a"), site.cluster.now).log_index == 0


def test_only_the_terms_sequencer_writes(site: Site) -> None:
    site.open("sequencer-eu")
    site.writers.authority.catch_up()
    (outcome,) = site.writers.submit_many([site.lease("a")], site.cluster.now)
    assert code_of(outcome) == "SL-TERM"
    writer = site.process("sequencer-eu")
    assert (site.writers.mine(), writer.mine()) == (["authority"], [LOG])
    assert writer.submit(site.lease("a"), site.cluster.now).log == LOG


def test_a_new_term_fences_the_old_writer_in_the_store(site: Site) -> None:
    site.open("sequencer-1")
    site.writers.submit(site.lease("a"), site.cluster.now)
    root = load_replay(site.store.of(LOG), site.cluster.anchor).root()

    site.open("sequencer-eu", start_size=1, start_root=encode_base64(root))
    (outcome,) = site.writers.submit_many([site.lease("b")], site.cluster.now)
    assert code_of(outcome) == "SL-TERM"
    placed = site.process("sequencer-eu").submit(site.lease("b"), site.cluster.now)
    assert (placed.log, placed.log_index) == (LOG, 1)
    head = site.store.of(LOG).head()
    assert head is not None
    assert head.term == 2


def test_a_fence_in_the_authority_log_reaches_the_writer(site: Site) -> None:
    site.open("sequencer-1")
    held_back = site.lease("b")
    site.writers.submit(site.lease("a"), site.cluster.now)
    site.authority(site.cluster.fence({"node_id": node_id("relay-1")}))
    (outcome,) = site.writers.submit_many([held_back], site.cluster.now)
    assert code_of(outcome) == "SL-FENCED"
    site.cluster.now += 1
    assert site.writers.submit(site.lease("b"), site.cluster.now).log_index == 1
    state = load_replay(site.store.of(LOG), site.cluster.anchor).state
    assert sorted(state.leases) == ["eu-1/b"]


def test_two_processes_never_fork_a_partition_log(site: Site) -> None:
    site.open("sequencer-1")
    others = [site.process() for _ in range(2)]
    for number, writers in enumerate(others * 3):
        assert writers.submit(site.lease(f"r{number}"), site.cluster.now).log_index == number
    replay = load_replay(site.store.of(LOG), site.cluster.anchor)
    head = site.store.of(LOG).head()
    assert head is not None
    assert (replay.size, replay.root()) == (head.size, head.root) == (6, replay.root())
    assert replay.verify_head(site.store.of(LOG).checkpoint() or b"")[0].size == 6


def test_the_authority_is_read_from_its_store(site: Site) -> None:
    feed = StoredAuthority(site.store.of(LOG))
    assert feed.final_size() == site.cluster.log.size
    assert list(feed.leaves(2, 5)) == site.cluster.leaves()[2:5]
    empty = PartitionReplay(site.cluster.anchor, LOG, feed)
    assert empty.advance() == site.cluster.log.size


def test_one_log_has_one_writer(site: Site) -> None:
    assert site.writers.of("authority") is site.writers.authority
    assert site.writers.of(LOG) is site.writers.of(LOG)
    assert isinstance(site.writers.of(LOG), Sequencer)
