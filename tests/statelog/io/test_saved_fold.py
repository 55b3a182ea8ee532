"""The fold that a node saves for its next start: what it brings back, and everything that makes it count for
nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from statelog.errors import Refused, UsageError
from statelog.io import saved_fold, tables
from statelog.io.database import write_transaction
from statelog.io.loading import StoredAuthority, begin_replay, load_replay, new_replay
from statelog.io.store import Store
from statelog.limits import HASH_BYTES
from statelog.partition import AuthorityFeed, PartitionReplay
from statelog.records import KINDS
from statelog.replay import Replay
from tests.statelog.io.test_sequencers import LOG, Site
from tests.statelog.records.test_mutations import MAKERS
from tests.support.authority import Cluster, make_cluster
from tests.support.logs import leases, new_store, replay_of
from tests.support.partitions import MemoryFeed

CLUSTER: Cluster = make_cluster()
SIZE = CLUSTER.log.size


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine, _ = new_store(tmp_path / "state.db", CLUSTER)
    yield engine
    engine.dispose()


@pytest.fixture
def path(engine: sa.Engine) -> Path:
    found = saved_fold.path_beside(Store(engine))
    assert found is not None
    saved_fold.save(found, replay_of(CLUSTER))
    return found


def test_what_was_saved_comes_back(engine: sa.Engine, path: Path) -> None:
    replay = saved_fold.load(path, Store(engine), CLUSTER.anchor)
    assert replay is not None
    original = replay_of(CLUSTER)
    assert replay.folded() == original.folded()
    assert (replay.size, replay.root(), replay.term) == (SIZE, original.root(), 1)
    assert [replay.root_at(size) for size in range(SIZE + 1)] == [
        original.root_at(size) for size in range(SIZE + 1)
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_kind_of_record_leaves_a_state_that_can_be_saved(tmp_path: Path, engine: sa.Engine) -> None:
    cluster = make_cluster()
    cluster.grant_roles()
    for kind in sorted(MAKERS, key=lambda kind: kind == "role.revocation"):
        record = MAKERS[kind](cluster)
        if KINDS[record["schema_version"]].logged and kind not in ("log.term", "authority.veto"):
            with suppress(Refused):  # some kinds leave nothing behind that others would not
                cluster.append(record)
    for field in ("policies", "releases", "shard_sets", "certificates", "revoked", "fenced"):
        assert getattr(cluster.state, field), field
    assert cluster.state.recovery is not None
    path = tmp_path / "fold"
    known = replace(replay_of(CLUSTER).folded(), state=cluster.state)
    saved_fold.save(path, Replay.resumed(CLUSTER.anchor, known))
    again = saved_fold.load(path, Store(engine), CLUSTER.anchor)
    assert again is not None
    assert again.state == cluster.state


def test_a_start_goes_on_from_it(engine: sa.Engine, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert path.exists()
    assert begin_replay(Store(engine), CLUSTER.anchor).size == SIZE

    def replayed(*_: object, **__: object) -> None:
        raise AssertionError("an entry was replayed")

    monkeypatch.setattr(Replay, "append", replayed)
    assert load_replay(Store(engine), CLUSTER.anchor).state == CLUSTER.state


def test_entries_behind_it_are_replayed_on_it(engine: sa.Engine, path: Path) -> None:
    replay = saved_fold.load(path, Store(engine), CLUSTER.anchor)
    assert replay is not None
    plain = replay_of(CLUSTER)
    for record in leases(CLUSTER, 3):
        leaf = plain.next_leaf(record, CLUSTER.now)
        assert plain.append(leaf) == replay.append(leaf)
    assert replay.folded() == plain.folded()


def test_no_damaged_octet_is_believed(engine: sa.Engine, path: Path) -> None:
    whole = path.read_bytes()
    store = Store(engine)
    for at in [*range(90), *range(90, len(whole), 211), len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])
        assert saved_fold.load(path, store, CLUSTER.anchor) is None, at
    for part in (b"", whole[:-1], whole[:90], whole + b"\0"):
        path.write_bytes(part)
        assert saved_fold.load(path, store, CLUSTER.anchor) is None
        assert load_replay(store, CLUSTER.anchor).state == CLUSTER.state  # replayed instead
    path.write_bytes(whole)
    assert saved_fold.load(path, store, CLUSTER.anchor) is not None


def test_parts_that_do_not_fit_together(engine: sa.Engine, path: Path) -> None:
    known = replay_of(CLUSTER).folded()
    short = replace(known, log=replace(known.log, recent=known.log.recent[HASH_BYTES:]))
    with pytest.raises(ValueError, match="right edge"):
        Replay.resumed(CLUSTER.anchor, short)
    size, edge = known.log.tree
    other = replace(known, log=replace(known.log, tree=(size, [bytes(32)] * len(edge))))
    saved_fold.save(path, Replay.resumed(CLUSTER.anchor, other))  # a root that nobody signed
    assert saved_fold.load(path, Store(engine), CLUSTER.anchor) is None


def test_it_belongs_to_the_log_in_the_store(tmp_path: Path, engine: sa.Engine, path: Path) -> None:
    store = Store(engine)
    stranger = make_cluster(cluster_id="other.abcdefghijklmnopqrstuvwxyz")
    assert saved_fold.load(path, store, stranger.anchor) is None
    saved_fold.save(tmp_path / "theirs", replay_of(stranger))
    assert saved_fold.load(tmp_path / "theirs", store, CLUSTER.anchor) is None
    saved_fold.save(tmp_path / "between", replay_of(CLUSTER, SIZE - 1))
    assert saved_fold.load(tmp_path / "between", store, CLUSTER.anchor) is None  # no checkpoint of that size
    assert saved_fold.load(tmp_path / "nowhere", store, CLUSTER.anchor) is None
    with write_transaction(engine) as connection:
        connection.execute(tables.checkpoint.delete())
    assert saved_fold.load(path, store, CLUSTER.anchor) is None


def test_other_code_replays(engine: sa.Engine, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert saved_fold.load(path, Store(engine), CLUSTER.anchor) is not None
    monkeypatch.setattr(saved_fold, "_code", lambda: "other rules")
    assert saved_fold.load(path, Store(engine), CLUSTER.anchor) is None


def test_where_it_lies(engine: sa.Engine, tmp_path: Path) -> None:
    assert saved_fold.path_beside(Store(engine)) == tmp_path / "state.db.fold"
    assert saved_fold.path_beside(Store(engine, "routes-eu-1")) == tmp_path / "state.db.routes-eu-1.fold"
    with pytest.raises(UsageError, match="no such file"):
        saved_fold.save(tmp_path / "absent" / "fold", replay_of(CLUSTER))


# --- of a partition's log ---


class Beside:
    """A partition's log of five leases in a store, and the saved fold of its first three."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder / "state.db")
        self.site.open("sequencer-1")
        self.store = self.site.store.of(LOG)
        self.site.writers.submit_many([self.site.lease(name) for name in "abc"], self.site.cluster.now)
        found = saved_fold.path_beside(self.store)
        assert found is not None
        self.path = found
        saved_fold.save(self.path, self.replayed())
        self.site.authority(self.site.cluster.policy())
        self.site.writers.submit_many([self.site.lease(name) for name in "de"], self.site.cluster.now)

    def replayed(self, size: int | None = None) -> PartitionReplay:
        """A replay from entry 0."""
        replay = new_replay(self.store, self.site.cluster.anchor)
        assert isinstance(replay, PartitionReplay)
        for row in self.store.entries(0, size):
            replay.append(row.leaf)
        return replay

    def load(self, path: Path | None = None, feed: AuthorityFeed | None = None) -> Replay | None:
        feed = feed or StoredAuthority(self.store)
        return saved_fold.load(path or self.path, self.store, self.site.cluster.anchor, feed)


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Beside]:
    made = Beside(tmp_path)
    yield made
    made.site.engine.dispose()


def test_the_log_of_a_partition_comes_back_with_what_it_rests_on(beside: Beside) -> None:
    resumed, original = beside.load(), beside.replayed(3)
    assert isinstance(resumed, PartitionReplay)
    assert resumed.folded_beside() == original.folded_beside()
    assert (resumed.size, resumed.authority_size) == (3, original.authority_size)
    for row in beside.store.entries(3):
        assert resumed.append(row.leaf) == original.append(row.leaf)
    assert resumed.folded_beside() == original.folded_beside()
    resumed.advance()
    original.advance()
    assert resumed.state == original.state
    assert resumed.copy().root_at(4) == original.root_at(4)


def test_a_start_with_the_log_of_a_partition_goes_on_from_it(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    appended: list[bytes] = []
    append = PartitionReplay.append

    def counted(self: PartitionReplay, data: bytes, **more: Any) -> Any:
        appended.append(data)
        return append(self, data, **more)

    monkeypatch.setattr(PartitionReplay, "append", counted)
    replay = load_replay(beside.store, beside.site.cluster.anchor)
    assert appended == [row.leaf for row in beside.store.entries(3)]
    assert replay.root() == beside.replayed().root()


def test_it_rests_on_the_authority_log_beside_it(beside: Beside, tmp_path: Path) -> None:
    saved = beside.load()
    assert saved is not None
    assert saved.authority_size is not None
    behind = MemoryFeed([], final=saved.authority_size - 1)
    assert beside.load(feed=behind) is None  # a store that was put back
    known = beside.replayed(3).folded_beside()
    (size, edge), log = known.authority.log.tree, known.authority.log
    other = replace(log, tree=(size, [bytes(32)] * len(edge)))
    known = replace(known, authority=replace(known.authority, log=other))
    feed = StoredAuthority(beside.store)
    stranger = PartitionReplay.resumed_beside(beside.site.cluster.anchor, LOG, feed, known)
    saved_fold.save(tmp_path / "other", stranger)
    assert beside.load(tmp_path / "other") is None
    saved_fold.save(tmp_path / "authority", load_replay(beside.site.store, beside.site.cluster.anchor))
    assert beside.load(tmp_path / "authority") is None  # the fold of another log
