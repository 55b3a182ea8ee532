"""The sequencer: batches, terms, failures of the store, and several writers on one store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from statelog.audit import audit
from statelog.canonical import encode
from statelog.checkpoint import parse_signed_checkpoint
from statelog.errors import Refused, SourceUnreadable, UsageError
from statelog.findings import Finding
from statelog.io import sequencer as sequencers
from statelog.io.database import CommitUnknownError, open_database
from statelog.io.sequencer import ClockWrongError, Sequencer, Submitted
from statelog.io.sources import StoreSource
from statelog.io.store import Store
from statelog.leaf import decode_leaf
from statelog.signing import record_id_of
from tests.support.authority import Cluster, key_entry, make_cluster, sequencer_entry, signer
from tests.support.logs import leases, new_store
from tests.support.statements import each_statement

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


@pytest.fixture
def engine(tmp_path: Path, cluster: Cluster) -> Iterator[sa.Engine]:
    engine, _ = new_store(tmp_path / "state.db", cluster)
    yield engine
    engine.dispose()


@pytest.fixture
def sequencer(engine: sa.Engine, cluster: Cluster) -> Sequencer:
    return Sequencer(Store(engine), cluster.anchor, signer("sequencer-1"))


def unsound(engine: sa.Engine, anchor: str) -> list[Finding]:
    """What an audit finds beyond that the newest head is not cosigned yet."""
    store = Store(engine)
    with store.reading() as connection:
        report = audit(StoreSource(store, connection), anchor)
    assert report.complete
    return [finding for finding in report.findings if finding.code != "SL-NOTFINAL"]


def size(engine: sa.Engine) -> int:
    head = Store(engine).head()
    return 0 if head is None else head.size


# --- the beginning ---


def test_a_log_begins_with_its_genesis_and_first_term(tmp_path: Path) -> None:
    cluster = make_cluster(members=False, nodes=())
    engine, _ = new_store(tmp_path / "state.db", cluster)
    store = Store(engine)
    assert [row.leaf for row in store.entries(0)] == cluster.leaves()
    head = store.head()
    assert head is not None
    assert (head.size, head.anchor, head.term, head.final_size) == (2, cluster.anchor, 1, 0)
    assert [at for at, _ in store.checkpoints()] == [2]
    assert unsound(engine, cluster.anchor) == []
    engine.dispose()


def test_a_store_holds_one_log(engine: sa.Engine, cluster: Cluster) -> None:
    records = [record for record, _, _ in cluster.log.entries]
    with pytest.raises(UsageError, match="a log already"):
        Sequencer.create(engine, records[0], records[1], signer("sequencer-1"), now=cluster.now)
    assert size(engine) == cluster.log.size


def test_a_beginning_that_does_not_pass_leaves_nothing(tmp_path: Path, cluster: Cluster) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'state.db'}", create=True)
    genesis, term, members = (record for record, _, _ in cluster.log.entries[:3])

    def create(first: bytes, second: bytes, name: str = "sequencer-1") -> None:
        Sequencer.create(engine, first, second, signer(name), now=cluster.now)

    for first, second, code in (
        (members, term, "SL-GENESIS"),
        (genesis, members, "SL-TERM"),
        (b"{}", term, "SL-SHAPE"),
    ):
        with pytest.raises(Refused) as refused:
            create(first, second)
        assert refused.value.code == code
    with pytest.raises(UsageError, match="not among the sequencers"):
        create(genesis, term, "sequencer-2")
    assert Store(engine).head() is None
    create(genesis, term)
    assert size(engine) == 2
    engine.dispose()


def test_a_store_without_a_log_takes_no_records(tmp_path: Path, cluster: Cluster) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'state.db'}", create=True)
    with pytest.raises(UsageError, match="statelog init"):
        Sequencer(Store(engine), cluster.anchor, signer("sequencer-1")).submit(
            leases(cluster, 1)[0], cluster.now
        )
    engine.dispose()


def test_another_clusters_store_is_refused(engine: sa.Engine, cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="not of " + "0" * 64):
        Sequencer(Store(engine), "0" * 64, signer("sequencer-1")).submit(leases(cluster, 1)[0], cluster.now)


# --- batches ---


def test_a_record_gets_its_place(sequencer: Sequencer, engine: sa.Engine, cluster: Cluster) -> None:
    record = cluster.lease("route-0")
    submitted = sequencer.submit(encode(record), cluster.now + 7)
    assert submitted == Submitted(record_id_of(record), cluster.log.size, duplicate=False)
    (row,) = Store(engine).entries(submitted.log_index)
    leaf = decode_leaf(row.leaf)
    assert (leaf.record, leaf.sequenced_at, leaf.term) == (record, cluster.now + 7, 1)
    assert unsound(engine, cluster.anchor) == []


def test_a_batch_is_one_commit_and_one_checkpoint(
    sequencer: Sequencer, engine: sa.Engine, cluster: Cluster
) -> None:
    before = [at for at, _ in Store(engine).checkpoints()]
    outcomes = sequencer.submit_many(leases(cluster, 10), cluster.now)
    first = cluster.log.size
    assert [one.log_index for one in outcomes if isinstance(one, Submitted)] == list(range(first, first + 10))
    assert [at for at, _ in Store(engine).checkpoints()] == [*before, first + 10]
    assert unsound(engine, cluster.anchor) == []


def test_one_bad_record_never_keeps_others_out(
    sequencer: Sequencer, engine: sa.Engine, cluster: Cluster
) -> None:
    good = leases(cluster, 3)
    stale = encode(cluster.lease("route-0", by=("route-1", "route-3")))
    few = encode(cluster.lease("route-8", by=("route-1",)))
    batch = [good[0], b"", good[1], b"{}", few, good[0], good[2], encode(cluster.candidates()), stale]
    outcomes = sequencer.submit_many(batch, cluster.now)
    verdicts = [one.code if isinstance(one, Finding) else one.duplicate for one in outcomes]
    assert verdicts == [False, "SL-CANON", False, "SL-SCHEMA", "SL-QUORUM", True, False, "SL-SCHEMA", True]
    assert all(one.log_index is None for one in outcomes if isinstance(one, Finding))
    assert size(engine) == cluster.log.size + 3
    assert unsound(engine, cluster.anchor) == []


def test_records_of_one_batch_build_on_one_another(sequencer: Sequencer, cluster: Cluster) -> None:
    first, second = cluster.lease("route-0"), cluster.lease("route-0", epoch=2)
    batch = [encode(second), encode(first), encode(cluster.lease("route-0", epoch=3))]
    outcomes = sequencer.submit_many(batch, cluster.now)
    assert [one.code if isinstance(one, Finding) else one.log_index for one in outcomes] == [
        cluster.log.size,
        "SL-STALE",
        cluster.log.size + 1,
    ]


def test_a_duplicate_is_answered_with_its_place(
    sequencer: Sequencer, engine: sa.Engine, cluster: Cluster
) -> None:
    record, _ = leases(cluster, 2)
    submitted = sequencer.submit(record, cluster.now)
    sequencer.submit(encode(cluster.lease("route-0", epoch=2)), cluster.now)  # the subject has moved on
    checkpoints = [at for at, _ in Store(engine).checkpoints()]
    again = sequencer.submit(record, cluster.now + 86_400)  # and the record has expired
    assert again == Submitted(submitted.record_id, submitted.log_index, duplicate=True)
    assert [at for at, _ in Store(engine).checkpoints()] == checkpoints


@pytest.mark.parametrize("together", [False, True])
def test_the_other_record_of_an_epoch_is_refused_and_kept_as_evidence(
    sequencer: Sequencer, engine: sa.Engine, cluster: Cluster, together: bool
) -> None:
    def policy(limit: int, *, by: tuple[str, ...] | None = None) -> bytes:
        own = {"policy": "pay", "document": {"limit": limit}, "assertions": []}
        return encode(cluster.sign(cluster.draft("policy.epoch", epoch=1, **own), by))

    batches = [[policy(1), policy(2)]] if together else [[policy(1)], [policy(2)]]
    outcomes = [one for batch in batches for one in sequencer.submit_many(batch, cluster.now)]
    assert isinstance(outcomes[0], Submitted)
    assert isinstance(outcomes[1], Finding)
    assert outcomes[1].code == "SL-EQUIVOCATION"
    assert {item.data for item in Store(engine).evidence()} == {policy(1), policy(2)}
    assert Store(engine).evidence_counts().equivocations == 1
    assert not unsound(engine, cluster.anchor)
    (forged,) = sequencer.submit_many([policy(3, by=("control-1",))], cluster.now)
    assert isinstance(forged, Finding)
    assert len(list(Store(engine).evidence())) == 2, "what no quorum signed proves nothing"


def test_two_successors_of_one_root_are_kept(
    sequencer: Sequencer, engine: sa.Engine, cluster: Cluster
) -> None:
    """The root that signed both has left with the first; what it signed is judged all the same."""

    def successor(*roots: str) -> bytes:
        names = [*roots, "control-1", "control-2"]
        offline = {name: "offline" if name in roots else "online" for name in names}
        record = cluster.descriptor(
            keys=[key_entry(name, custody=custody) for name, custody in offline.items()],
            root=cluster.holders(*roots, threshold=2),
            control=cluster.holders("control-1", "control-2", threshold=2),
            by=["root-1", "root-2", *roots],
        )
        return encode(record)

    first, second = successor("root-4", "root-5"), successor("root-6", "root-7")
    sequencer.submit(first, cluster.now)
    with pytest.raises(Refused) as refused:
        sequencer.submit(second, cluster.now)
    assert refused.value.code == "SL-EQUIVOCATION"
    kept = list(Store(engine).evidence())
    assert {item.data for item in kept} == {first, second}
    assert not unsound(engine, cluster.anchor)
    value = second.index(b'"value":"') + len(b'"value":"')
    forged = second[:value] + (b"B" if second[value : value + 1] == b"A" else b"A") + second[value + 1 :]
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE evidence SET data = :forged WHERE data = :data"),
            {"forged": forged, "data": second},
        )
    assert unsound(engine, cluster.anchor)


def test_nothing_is_appended_before_the_newest_entrys_time(
    sequencer: Sequencer, engine: sa.Engine, cluster: Cluster
) -> None:
    """The clock was fast by the allowed skew, and then by a second more."""
    skew = cluster.state.descriptor.clock_skew_s
    first, second, third = leases(cluster, 3)
    at = sequencer.submit(first, cluster.now + skew).log_index
    assert sequencer.submit(second, cluster.now).log_index == at + 1
    with pytest.raises(ClockWrongError, match=r"SL-FUTURE.* 121 s in the future"):
        sequencer.submit_many([third], cluster.now - 1)
    assert size(engine) == at + 2
    assert sequencer.submit(second, cluster.now - 1).duplicate
    assert sequencer.submit(third, cluster.now).log_index == at + 2
    assert not unsound(engine, cluster.anchor)


def test_what_a_batch_began_is_undone_when_the_clock_is_wrong_for_its_rest(
    sequencer: Sequencer, engine: sa.Engine, cluster: Cluster
) -> None:
    """Its first record allows less skew than the clock was fast by."""
    first, second = leases(cluster, 2)
    at = sequencer.submit(first, cluster.now + 60).log_index
    strict = encode(cluster.descriptor(clock_skew_s=0))
    with pytest.raises(ClockWrongError):
        sequencer.submit_many([strict, second], cluster.now)
    assert size(engine) == at + 1
    seen = sequencer.glance()
    assert seen is None or seen.descriptor.clock_skew_s == cluster.state.descriptor.clock_skew_s
    assert sequencer.submit(strict, cluster.now).log_index == at + 1
    assert not unsound(engine, cluster.anchor)


def test_nothing_accepted_is_nothing_written(
    sequencer: Sequencer, engine: sa.Engine, cluster: Cluster
) -> None:
    before = [at for at, _ in Store(engine).checkpoints()]
    assert sequencer.submit_many([], cluster.now) == []
    (finding,) = sequencer.submit_many([b"{}"], cluster.now)
    assert isinstance(finding, Finding)
    with pytest.raises(Refused) as refused:
        sequencer.submit(b"{}", cluster.now)
    assert refused.value.code == "SL-SCHEMA"
    assert [at for at, _ in Store(engine).checkpoints()] == before


def test_long_batches_are_cut(
    sequencer: Sequencer, engine: sa.Engine, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequencers, "MAX_BATCH_RECORDS", 4)
    outcomes = sequencer.submit_many(leases(cluster, 10), cluster.now)
    assert all(isinstance(one, Submitted) for one in outcomes)
    first = cluster.log.size
    assert [at for at, _ in Store(engine).checkpoints(first + 1)] == [first + 4, first + 8, first + 10]


def test_the_replay_handed_out_is_a_copy(sequencer: Sequencer, cluster: Cluster) -> None:
    replay = sequencer.replay()
    assert replay.size == cluster.log.size
    replay.append(replay.next_leaf(leases(cluster, 1)[0], cluster.now))
    assert sequencer.replay().size == cluster.log.size


def test_the_log_is_replayed_once_and_then_followed(
    sequencer: Sequencer, engine: sa.Engine, cluster: Cluster
) -> None:
    first, second, third = leases(cluster, 3)
    sequencer.submit(first, cluster.now)
    other = Sequencer(Store(engine), cluster.anchor, signer("sequencer-1"))
    other.submit(second, cluster.now)
    replay = sequencer._replay
    assert replay is not None
    assert sequencer.submit(third, cluster.now).log_index == cluster.log.size + 2
    assert sequencer._replay is replay
    assert replay.size == cluster.log.size + 3


# --- terms ---


def second_term(cluster: Cluster, *names: str) -> bytes:
    return encode(cluster.log_term(sequencers=[sequencer_entry(name, "home-1") for name in names]))


def test_a_sequencer_outside_the_term_writes_nothing(engine: sa.Engine, cluster: Cluster) -> None:
    stranger = Sequencer(Store(engine), cluster.anchor, signer("sequencer-2"))
    with pytest.raises(Refused) as refused:
        stranger.submit(leases(cluster, 1)[0], cluster.now)
    assert refused.value.code == "SL-TERM"
    assert size(engine) == cluster.log.size


def test_a_term_is_opened_by_its_own_sequencer(
    sequencer: Sequencer, engine: sa.Engine, cluster: Cluster
) -> None:
    lease, other = leases(cluster, 2)
    record = second_term(cluster, "sequencer-2")
    (finding,) = sequencer.submit_many([record], cluster.now)
    assert isinstance(finding, Finding)
    assert (finding.code, size(engine)) == ("SL-TERM", cluster.log.size)

    successor = Sequencer(Store(engine), cluster.anchor, signer("sequencer-2"))
    early, opened, late = successor.submit_many([lease, record, lease], cluster.now)
    assert isinstance(early, Finding)
    assert opened == Submitted(opened.record_id or "", cluster.log.size, duplicate=False)
    assert isinstance(late, Submitted)
    head = Store(engine).head()
    assert head is not None
    assert head.term == 2

    (finding,) = sequencer.submit_many([other], cluster.now)  # it had the old head in memory
    assert isinstance(finding, Finding)
    assert finding.code == "SL-TERM"
    assert isinstance(successor.submit(other, cluster.now), Submitted)
    assert unsound(engine, cluster.anchor) == []


def test_the_term_of_another_log_is_nobodys_own_business(sequencer: Sequencer, cluster: Cluster) -> None:
    record = encode(
        cluster.log_term("routes-eu-1", start_size=0, sequencers=[sequencer_entry("x", "home-1")])
    )
    assert sequencer.submit(record, cluster.now).log_index == cluster.log.size


@pytest.mark.parametrize("sequencers_field", [3, [3], [{}], None])
def test_a_misshapen_term_is_a_finding_like_any_other(
    sequencer: Sequencer, cluster: Cluster, sequencers_field: object
) -> None:
    record = encode({**cluster.log_term(), "sequencers": sequencers_field})
    finding, good = sequencer.submit_many([record, leases(cluster, 1)[0]], cluster.now)
    assert isinstance(finding, Finding)
    assert isinstance(good, Submitted)


def test_a_site_may_share_a_term(sequencer: Sequencer, engine: sa.Engine, cluster: Cluster) -> None:
    sequencer.submit(second_term(cluster, "sequencer-1", "sequencer-2"), cluster.now)
    other = Sequencer(Store(engine), cluster.anchor, signer("sequencer-2"))
    for position, record in enumerate(leases(cluster, 6)):
        (sequencer, other)[position % 2].submit(record, cluster.now)
    assert unsound(engine, cluster.anchor) == []
    signers = {
        parse_signed_checkpoint(note)[1].signatures[0].key_id for _, note in Store(engine).checkpoints()
    }
    assert len(signers) == 2


# --- failures of the store ---


class Failing:
    """Makes one commit of an engine fail, before it happened or after."""

    def __init__(self, engine: sa.Engine, happened: bool) -> None:
        self.engine, self.happened, self.armed = engine, happened, True
        sa.event.listen(engine, "commit", self)

    def __call__(self, connection: sa.Connection) -> None:
        if self.armed and connection.get_execution_options().get("statelog_writes"):
            self.armed = False
            if self.happened:
                connection.exec_driver_sql("COMMIT")
            raise sa.exc.OperationalError("COMMIT", {}, OSError("disk I/O error"))


def test_a_commit_that_happened_is_recognised(
    sequencer: Sequencer, engine: sa.Engine, cluster: Cluster
) -> None:
    first, second = leases(cluster, 2)
    Failing(engine, happened=True)
    assert sequencer.submit(first, cluster.now).log_index == cluster.log.size
    assert sequencer.submit(second, cluster.now).log_index == cluster.log.size + 1
    assert unsound(engine, cluster.anchor) == []


def test_a_commit_that_did_not_happen_is_told(
    sequencer: Sequencer, engine: sa.Engine, cluster: Cluster
) -> None:
    first, second = leases(cluster, 2)
    Failing(engine, happened=False)
    with pytest.raises(CommitUnknownError):
        sequencer.submit(first, cluster.now)
    assert size(engine) == cluster.log.size
    assert sequencer.submit(second, cluster.now).log_index == cluster.log.size
    assert sequencer.submit(first, cluster.now).log_index == cluster.log.size + 1
    assert unsound(engine, cluster.anchor) == []


def test_a_failure_in_the_middle_leaves_nothing(
    sequencer: Sequencer, engine: sa.Engine, cluster: Cluster
) -> None:
    record, other = leases(cluster, 2)
    sequencer.submit(other, cluster.now)

    def fail(statement: str) -> None:
        if statement.startswith("INSERT INTO checkpoint"):
            raise sqlite3.OperationalError("database or disk is full")

    with (
        each_statement(engine, fail),
        pytest.raises(SourceUnreadable, match="the store failed: database or disk is full"),
    ):
        sequencer.submit(record, cluster.now)
    assert sequencer.submit(record, cluster.now).log_index == cluster.log.size + 1
    assert unsound(engine, cluster.anchor) == []
