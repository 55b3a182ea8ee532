"""Terms: one after the other, from a size and root that the log itself has."""

from __future__ import annotations

from hashlib import sha256

import pytest

from statelog.admission import admit
from statelog.canonical import encode
from statelog.errors import UsageError
from statelog.limits import MAX_PARTITION_CHARS
from statelog.merkle import EMPTY_ROOT
from statelog.records import term
from statelog.signing import encode_base64
from statelog.state import AUTHORITY_LOG
from tests.support.authority import Cluster, key_id, make_cluster, node_id, sequencer_entry
from tests.support.verdicts import ADMITTED, place, verdict


def test_the_next_term(cluster: Cluster) -> None:
    size = cluster.log.size
    cluster.append(cluster.log_term(sequencers=[sequencer_entry("sequencer-2", "home-1")]))
    term = cluster.state.terms[AUTHORITY_LOG]
    assert (term.term, term.start_size, term.start_root) == (2, size, cluster.log.root_at(size))
    assert [(one.key_id, one.node_id) for one in term.sequencers] == [
        (key_id("sequencer-2"), node_id("home-1"))
    ]


def test_terms_follow_one_by_one(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.log_term(term=2, epoch=2)) == ADMITTED
    assert place(cluster, cluster.log_term(term=3, epoch=3)) == ("SL-TERM", "term")
    assert place(cluster, cluster.log_term(term=2, epoch=3)) == ("SL-SHAPE", "term")  # term = epoch
    assert verdict(cluster, cluster.log_term(term=1, epoch=1)) == "SL-EQUIVOCATION"


def test_the_start_is_in_the_log(cluster: Cluster) -> None:
    size = cluster.log.size
    assert verdict(cluster, cluster.log_term(start_size=size - 3)) == ADMITTED
    assert place(cluster, cluster.log_term(start_size=size + 1)) == ("SL-TERM", "start_size")
    wrong = encode_base64(cluster.log.root_at(size - 1) or b"")
    assert place(cluster, cluster.log_term(start_root=wrong)) == ("SL-TERM", "start_root")


def test_a_term_does_not_start_before_its_predecessor(cluster: Cluster) -> None:
    size = cluster.log.size
    cluster.append(cluster.log_term())
    assert verdict(cluster, cluster.log_term(start_size=size)) == ADMITTED
    assert place(cluster, cluster.log_term(start_size=size - 1)) == ("SL-TERM", "start_size")


def test_the_first_term_is_entry_1() -> None:
    cluster = Cluster("production", make_cluster().cluster_id, make_cluster().now)
    assert verdict(cluster, cluster.registry()) == "SL-TERM"
    assert verdict(cluster, cluster.descriptor()) == "SL-TERM"
    assert verdict(cluster, cluster.log_term("routes-eu-1")) == "SL-TERM"
    assert place(cluster, cluster.log_term(start_size=0)) == ("SL-TERM", "start_size")
    assert verdict(cluster, cluster.log_term(start_size=1)) == ADMITTED


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("routes-" + "p" * MAX_PARTITION_CHARS, ADMITTED),
        ("routes-" + "p" * (MAX_PARTITION_CHARS + 1), "SL-SHAPE"),
        ("routes--p", "SL-SHAPE"),
        ("routes-", "SL-SHAPE"),
        ("eu-1", "SL-SHAPE"),
    ],
)
def test_every_partition_can_have_a_log_and_nothing_else(cluster: Cluster, log: str, expected: str) -> None:
    record = cluster.log_term(log, start_size=0, start_root=encode_base64(EMPTY_ROOT))
    assert verdict(cluster, record) == expected


def test_it_cannot_be_judged_without_its_log(cluster: Cluster) -> None:
    with pytest.raises(UsageError):
        admit(cluster.state, encode(cluster.log_term()), cluster.now)
    assert admit(cluster.state, encode(cluster.log_term()), cluster.now, log=cluster.log).change


def test_a_root_that_is_not_known_is_not_believed(cluster: Cluster) -> None:
    record = cluster.log_term(start_size=3)
    assert verdict(cluster, record) == ADMITTED
    del cluster.log.roots[3]
    assert place(cluster, record) == ("SL-TERM", "start_root")


def test_a_term_opens_a_partition_log(cluster: Cluster) -> None:
    empty = encode_base64(sha256(b"").digest())
    opening = cluster.log_term("routes-eu-1", start_size=0, start_root=empty)
    assert verdict(cluster, opening) == ADMITTED
    assert place(cluster, cluster.log_term("routes-eu-1", start_size=1)) == ("SL-TERM", "start_size")
    not_empty = cluster.log_term("routes-eu-1", start_size=0, start_root=encode_base64(bytes(32)))
    assert place(cluster, not_empty) == ("SL-TERM", "start_root")
    cluster.append(opening)
    later = cluster.log_term("routes-eu-1", start_size=70, start_root=encode_base64(bytes(32)))
    assert verdict(cluster, later) == ADMITTED  # that log's own replay knows its roots


def test_no_more_logs_open_than_anybody_audits(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(term, "MAX_LOGS", 2)
    empty = encode_base64(EMPTY_ROOT)
    for log in ("routes-eu-1", "routes-eu-2"):
        opening = cluster.log_term(log, start_size=0, start_root=empty)
        assert verdict(cluster, opening) == ADMITTED
        cluster.append(opening)
    assert place(cluster, cluster.log_term("routes-eu-3", start_size=0, start_root=empty)) == (
        "SL-TERM",
        "log",
    )
    assert verdict(cluster, cluster.log_term("routes-eu-1", start_size=0, start_root=empty)) == ADMITTED


@pytest.mark.parametrize("log", ["routes-", "routes", "other", "eu-1"])
def test_logs_have_known_names(cluster: Cluster, log: str) -> None:
    assert place(cluster, cluster.log_term(log)) == ("SL-SHAPE", "log")


@pytest.mark.parametrize("name", ["witness-1", "control-1", "node:home-1", "recovery-1"])
def test_a_sequencer_key_serves_nothing_else(cluster: Cluster, name: str) -> None:
    record = cluster.log_term(sequencers=[sequencer_entry(name, "home-1")])
    assert place(cluster, record) == ("SL-KEY", "sequencers[0]")


def test_sequencers_are_proved_and_distinct(cluster: Cluster) -> None:
    first, second = sequencer_entry("sequencer-1", "control-1"), sequencer_entry("sequencer-2", "home-1")
    assert verdict(cluster, cluster.log_term(sequencers=[first, second])) == ADMITTED
    assert place(cluster, cluster.log_term(sequencers=[first, first])) == ("SL-KEY", "sequencers[1]")
    assert place(cluster, cluster.log_term(sequencers=[])) == ("SL-SHAPE", "sequencers")
    moved = {**second, "node_id": node_id("node-9")}  # the proof names the node
    assert place(cluster, cluster.log_term(sequencers=[moved])) == ("SL-KEY", "sequencers[0].proof")


def test_a_sequencer_signs_no_record(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.log_term(by=("sequencer-1", "control-1"))) == "SL-SIG"
