"""`statelog backup` and `restore`: what comes back is what was there, or nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from statelog.io import tables
from statelog.io.backup import KEPT, restore
from statelog.io.database import open_database, read_transaction, write_transaction
from statelog.io.sources import StoreSource
from statelog.io.store import Store
from statelog.signing import record_id_of
from statelog.witness import WitnessState
from tests.statelog.cli.conftest import Farm, Run
from tests.support.logs import leases

ROOT = Path(__file__).resolve().parents[3]


def rows(engine: sa.Engine) -> dict[str, list[tuple[object, ...]]]:
    with read_transaction(engine) as connection:
        return {table.name: sorted(map(tuple, connection.execute(sa.select(table)))) for table in KEPT}


@pytest.fixture
def saved(farm: Farm, run: Run, tmp_path: Path) -> Path:
    farm.store.outbox_put(record_id_of(farm.cluster.lease("route-0")), leases(farm.cluster, 1)[0], 1)
    path = tmp_path / "node.backup"
    said = run("backup", path, "--store", farm.path, "--root", farm.anchor)
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith(f"backed up  {path}\n")
    return path


def test_the_report_is_on_standard_output_while_a_bar_moves_on_a_terminal(
    farm: Farm, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    path = tmp_path / "node.backup"
    for command in (
        ("backup", path, "--store", farm.path),
        ("restore", path, "--store", tmp_path / "restored.db"),
    ):
        said = run(*command, "--root", farm.anchor, "-o", "json")
        assert (said.code, said.json["clean"]) == (0, True)


def test_what_comes_back_is_what_was_there(farm: Farm, run: Run, saved: Path, tmp_path: Path) -> None:
    restored = tmp_path / "restored.db"
    said = run("restore", saved, "--store", restored, "--root", farm.anchor)
    assert (said.code, said.out.splitlines()[-1]) == (0, f"restored   sqlite:///{restored}")
    engine = open_database(f"sqlite:///{restored}")
    assert rows(engine) == rows(farm.store.engine)
    assert len(rows(engine)["outbox"]) == 1
    engine.dispose()
    assert run("verify", restored, "--root", farm.anchor).code == 0
    assert {path.name for path in tmp_path.iterdir() if "part" in path.name} == set()


def test_the_memory_of_a_witness_does_not_come_back(farm: Farm, run: Run, tmp_path: Path) -> None:
    origin = f"{farm.cluster.cluster_id}/authority"
    state = WitnessState(origin, 5, b"r" * 32, 1)
    with write_transaction(farm.store.engine) as connection:
        columns = {"origin": state.origin, "size": state.size, "root": state.root, "term": state.term}
        connection.execute(tables.witness_state.insert(), columns)
    saved, restored = tmp_path / "node.backup", tmp_path / "restored.db"
    assert run("backup", saved, "--store", farm.path, "--root", farm.anchor).code == 0
    said = run("restore", saved, "--store", restored, "--root", farm.anchor)
    assert "new witness key" in said.err
    engine = open_database(f"sqlite:///{restored}")
    with read_transaction(engine) as connection:
        assert connection.execute(sa.select(tables.witness_state)).all() == []
    engine.dispose()


def test_every_table_is_kept_or_left_out_for_a_reason() -> None:
    ours = {table.name for table in vars(tables).values() if isinstance(table, sa.Table)}
    assert ours - {table.name for table in KEPT} == {"witness_state"}


def test_an_unsound_store_is_not_kept(farm: Farm, run: Run, saved: Path, tmp_path: Path) -> None:
    before = saved.read_bytes()
    with sqlite3.connect(farm.path) as connection:
        connection.execute("UPDATE log_entry SET record_id = 'x' WHERE log_index = 5")
    connection.close()
    said = run("backup", saved, "--store", farm.path, "--root", farm.anchor, "-o", "json")
    assert (said.code, [one["code"] for one in said.json["findings"]]) == (1, ["SL-STORED"])
    assert saved.read_bytes() == before
    assert run("backup", tmp_path / "new", "--store", farm.path, "--root", farm.anchor).code == 1
    assert not (tmp_path / "new").exists()


def test_a_damaged_backup_is_not_restored(farm: Farm, run: Run, saved: Path, tmp_path: Path) -> None:
    with sqlite3.connect(saved) as connection:
        connection.execute("UPDATE checkpoint SET root = zeroblob(32), note = x'78' WHERE size = 2")
    connection.close()
    said = run("restore", saved, "--store", tmp_path / "restored.db", "--root", farm.anchor)
    assert said.code == 1
    assert not (tmp_path / "restored.db").exists()
    other = run("restore", saved, "--store", tmp_path / "restored.db", "--root", "0" * 64)
    assert other.code == 1
    assert run("restore", tmp_path / "none", "--store", tmp_path / "x.db", "--root", farm.anchor).code == 2


def test_nothing_is_restored_over_a_log(farm: Farm, run: Run, saved: Path) -> None:
    before = rows(farm.store.engine)
    said = run("restore", saved, "--store", farm.path, "--root", farm.anchor)
    assert (said.code, "holds a log already" in said.err) == (2, True)
    assert rows(farm.store.engine) == before


def test_a_store_without_a_log_is_filled(farm: Farm, run: Run, saved: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    open_database(f"sqlite:///{empty}", create=True).dispose()
    assert run("restore", saved, "--store", empty, "--root", farm.anchor).code == 0
    engine = open_database(f"sqlite:///{empty}")
    head = Store(engine).head()
    engine.dispose()
    assert head is not None
    assert head.size == farm.cluster.log.size


def test_a_store_that_does_more_than_hold_rows_is_not_read(
    farm: Farm, run: Run, saved: Path, tmp_path: Path
) -> None:
    assert run("verify", saved, "--root", farm.anchor).code == 0
    with sqlite3.connect(saved) as connection:
        connection.execute("CREATE TRIGGER t AFTER DELETE ON outbox BEGIN DELETE FROM log_entry; END")
    connection.close()
    restored = tmp_path / "restored.db"
    for said in (
        run("verify", saved, "--root", farm.anchor),
        run("restore", saved, "--store", restored, "--root", farm.anchor),
    ):
        assert (said.code, "SL-STORED at outbox" in said.err) == (1, True)
    assert not restored.exists()


def test_values_that_no_column_should_hold_are_not_copied(
    farm: Farm, run: Run, saved: Path, tmp_path: Path
) -> None:
    with sqlite3.connect(saved) as connection:
        connection.execute("UPDATE log_head SET final_size = 'many'")
    connection.close()
    restored = tmp_path / "restored.db"
    said = run("restore", saved, "--store", restored, "--root", farm.anchor)
    assert (said.code, "log_head.final_size holds a value that is no BIGINT" in said.err) == (3, True)
    assert not restored.exists()


def test_what_is_restored_is_what_was_audited(farm: Farm, run: Run, saved: Path, tmp_path: Path) -> None:
    """Whoever writes to the backup meanwhile changes nothing: the copy is judged, then committed."""
    restored, judged = tmp_path / "restored.db", list[int]()

    def judge(copy: StoreSource) -> None:
        with sqlite3.connect(saved) as connection:
            connection.execute("DELETE FROM log_entry WHERE log_index > 2")
            connection.execute("UPDATE outbox SET state = 'final'")
        connection.close()
        judged.append(sum(1 for _ in copy.entries()))
        assert not restored.exists()

    before = rows(farm.store.engine)
    restore(saved, f"sqlite:///{restored}", judge)
    assert judged == [farm.cluster.log.size]
    engine = open_database(f"sqlite:///{restored}")
    assert rows(engine) == before
    engine.dispose()


@pytest.mark.parametrize("into", ["a new file", "an empty store"])
def test_nothing_stays_of_what_was_found_unsound(
    farm: Farm, run: Run, saved: Path, tmp_path: Path, into: str
) -> None:
    """Rows of a log without a head are copied, so they are audited too."""
    with sqlite3.connect(saved) as connection:
        connection.execute("INSERT INTO log_node VALUES ('routes-eu-9', 1, 0, zeroblob(32))")
    connection.close()
    restored = tmp_path / "restored.db"
    if into == "an empty store":
        open_database(f"sqlite:///{restored}", create=True).dispose()
    said = run("restore", saved, "--store", restored, "--root", farm.anchor, "-o", "json")
    assert said.code == 1
    assert {(one["log"], one["code"]) for one in said.json["findings"]} >= {("routes-eu-9", "SL-STORED")}
    assert restored.exists() == (into == "an empty store")
    if restored.exists():
        engine = open_database(f"sqlite:///{restored}")
        assert Store(engine).logs_with_rows() == []
        engine.dispose()


def test_a_damaged_file_is_not_copied(farm: Farm, run: Run, saved: Path, tmp_path: Path) -> None:
    """The index of the outbox misses its row, which no audit of the copy could know of."""
    with sqlite3.connect(saved) as connection:
        connection.execute("CREATE TABLE emptied (state TEXT, received_at BIGINT)")
        connection.execute("CREATE INDEX hollow ON emptied (state, received_at)")
        connection.execute("PRAGMA writable_schema=ON")
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'hollow'").fetchone()[0]
        connection.execute(
            "UPDATE sqlite_master SET rootpage = ? WHERE name = 'ix_outbox_state_received_at'", (page,)
        )
        connection.execute("DELETE FROM sqlite_master WHERE name IN ('hollow', 'emptied')")
    connection.close()
    said = run("restore", saved, "--store", tmp_path / "restored.db", "--root", farm.anchor)
    assert (said.code, "SL-STORED" in said.err, "damaged" in said.err) == (1, True, True)
    assert not (tmp_path / "restored.db").exists()


# --- cut off ---

CUT = """
import os, resource, signal, sys
from pathlib import Path
from statelog.errors import SourceUnreadable
from statelog.io.backup import backup, restore
from statelog.io.database import open_database

how, source, target = sys.argv[1:]

def cut(*_: object) -> None:
    if how.endswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)

if how.endswith("full"):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    if how.startswith("backup"):
        backup(open_database(f"sqlite:///{source}"), Path(target), cut, cut if "early" in how else None)
    else:
        restore(Path(source), f"sqlite:///{target}", cut)
except SourceUnreadable:
    sys.exit(3)
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("backup killed", -9),
        ("backup early killed", -9),
        ("restore killed", -9),
        ("backup full", 3),
        ("restore full", 3),
    ],
)
def test_one_that_is_cut_off_leaves_no_file_and_nothing_for_ever(
    farm: Farm, run: Run, saved: Path, tmp_path: Path, how: str, code: int
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    target, source = folder / "made", farm.path if how.startswith("backup") else saved
    arguments = [sys.executable, "-c", CUT, how, str(source), str(target)]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    assert not target.exists()
    assert (list(folder.iterdir()) != []) == (code == -9)  # nobody could tidy up
    if how.startswith("backup"):
        said = run("backup", target, "--store", farm.path, "--root", farm.anchor)
    else:
        said = run("restore", saved, "--store", target, "--root", farm.anchor)
    assert said.code == 0, said.err
    assert list(folder.iterdir()) == [target]


@pytest.mark.parametrize("beside", ["-wal", "-journal"])
def test_a_store_is_not_restored_into_the_files_of_another(
    farm: Farm, run: Run, saved: Path, tmp_path: Path, beside: str
) -> None:
    restored = tmp_path / "restored.db"
    left = tmp_path / f"restored.db{beside}"
    left.write_bytes(b"x")
    said = run("restore", saved, "--store", restored, "--root", farm.anchor)
    assert (said.code, "of another store" in said.err, restored.exists()) == (2, True, False)
    left.unlink()
    assert run("restore", saved, "--store", restored, "--root", farm.anchor).code == 0


def on_a_read_only_file_system(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What `statelog` says in a process that sees `folder` mounted read-only."""
    inside = f'mount --bind "{folder}" "{folder}" && mount -o remount,ro,bind "{folder}"'
    if subprocess.run(["unshare", "-rm", "sh", "-c", inside], check=False).returncode:
        pytest.skip("a read-only mount takes root, or namespaces that anybody may make; neither is here")
    command = [sys.executable, "-m", "statelog.cli.main", *map(str, arguments)]
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{inside} && exec "$@"', "sh", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_backup_on_a_read_only_medium_is_audited_and_restored(
    farm: Farm, saved: Path, tmp_path: Path
) -> None:
    stick, restored = tmp_path / "stick", tmp_path / "restored.db"
    stick.mkdir()
    copy = saved.rename(stick / "node.db")
    said = on_a_read_only_file_system(stick, "verify", copy, "--root", farm.anchor)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.endswith("clean\n")
    said = on_a_read_only_file_system(stick, "restore", copy, "--store", restored, "--root", farm.anchor)
    assert said.returncode == 0, said.stderr
    engine = open_database(f"sqlite:///{restored}")
    assert rows(engine) == rows(farm.store.engine)
    engine.dispose()

    # Commits that are only in the -wal are not passed over.
    (stick / "node.db-wal").write_bytes(b"w")
    said = on_a_read_only_file_system(stick, "verify", copy, "--root", farm.anchor)
    assert (said.returncode, said.stdout) == (3, "")
    assert (
        said.stderr == f"statelog: {copy} cannot be read without writing: copy it and node.db-wal elsewhere\n"
    )
