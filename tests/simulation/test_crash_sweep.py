"""The real store at every write: killed, told EIO, told ENOSPC; then reopened, audited, and lived on.

Debian's strace injects the fault at the n-th write call (`pwrite64`, `fdatasync`) of a life that appends, is
cosigned, becomes final, and is projected (`tests.support.crash`). Of a life of one such cycle every call is
taken, of a longer one a seeded sample; FABRIC_FULL_SWEEP=1 takes every call of that too. Whatever was
acknowledged before the end is there, nothing is there twice, and a second life finishes the work.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from projections.io.check import check_against_fresh_fold
from statelog.audit import audit
from statelog.canonical import encode
from statelog.errors import SourceUnreadable
from statelog.io.database import open_database
from statelog.io.sequencer import Sequencer, Submitted
from statelog.io.sources import open_source
from statelog.io.store import Store
from statelog.signing import record_id_of
from tests.support.authority import signer
from tests.support.crash import (
    GO,
    MEMORY,
    ONE,
    PER_BATCH,
    SAID,
    STORE,
    Lives,
    batches_in,
    prepare,
    small_cluster,
)

CALLS = ("pwrite64", "fdatasync")
FAULTS = {"KILL": "signal=KILL", "EIO": "error=EIO", "ENOSPC": "error=ENOSPC"}
SAMPLE = 5  # calls of each fault, unless the whole sweep is asked for
SEED = 20260101
FULL = os.environ.get("FABRIC_FULL_SWEEP") == "1"

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (Debian: strace)"
)


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    with Lives() as source:
        yield source


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    prepare(folder)
    return folder


def copy_of(template: Path, folder: Path, *, one: bool = False) -> Path:
    folder.mkdir()
    if one:
        (folder / ONE).touch()
    for name in (STORE, MEMORY):
        shutil.copyfile(template / name, folder / name)
    return folder


def live(lives: Lives, folder: Path, *options: str) -> tuple[int, list[str]]:
    """One life under strace: its exit code (minus the signal that ended it), and what it said."""
    life = lives.begin(folder)
    command = [
        "strace",
        "-f",
        "-p",
        str(life.pid),
        "-o",
        str(folder / "calls"),
        "-e",
        f"trace={','.join(CALLS)}",
        *options,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        attached = strace.stderr.readline()
        if "attached" not in attached:
            life.go()
            life.wait()
            pytest.skip(f"strace may not attach here: {attached.strip()}")
        life.go()
        code = life.wait()
    return code, life.said


def check_after(folder: Path, said: list[str]) -> None:
    """What was acknowledged is there, once, and the store is sound, whatever happened."""
    cluster = small_cluster()
    words = [line.split() for line in said]
    with open_source(f"sqlite:///{folder / STORE}") as source:
        report = audit(source, cluster.anchor)
        stored = {record_id: index for index, record_id, _ in source.rows()}
        head = source.head()
    assert {one.code for one in report.findings} <= {"SL-NOTFINAL"}, report.findings
    assert head is not None
    for kind, *rest in words:
        if kind == "appended":
            assert stored.get(rest[1]) == int(rest[0])
        elif kind == "final":
            assert int(rest[0]) <= head.final_size <= report.final_size
    memory = open_database(f"sqlite:///{folder / MEMORY}")
    state = Store(memory).witness_state(report.origin)
    cosigned = [(int(rest[0]), rest[1]) for kind, *rest in words if kind == "cosigned"]
    if cosigned:
        assert state is not None
        assert state.size >= cosigned[-1][0]
        if state.size == cosigned[-1][0]:
            assert state.root.hex() == cosigned[-1][1]
    memory.dispose()
    engine = open_database(f"sqlite:///{folder / STORE}")
    assert check_against_fresh_fold(engine) == []
    engine.dispose()


def check_whole(folder: Path) -> None:
    """After a life that was not disturbed: everything is there once, and final."""
    cluster = small_cluster()
    with open_source(f"sqlite:///{folder / STORE}") as source:
        report = audit(source, cluster.anchor)
        stored = Counter(record_id for _, record_id, _ in source.rows())
    assert report.findings == ()
    assert report.size == report.final_size == cluster.log.size + batches_in(folder) * PER_BATCH
    assert set(stored.values()) == {1}


def calls_in(folder: Path) -> Counter[str]:
    """How often each call was made, as strace wrote it down; one that was interrupted counts once."""
    lines = (folder / "calls").read_text().splitlines()
    return Counter(name for line in lines for name in CALLS if f" {name}(" in line)


def places_in(folder: Path) -> list[tuple[str, int]]:
    """Each (call, which of its kind) of a life: strace counts every kind by itself."""
    made = calls_in(folder)
    return [(name, at) for name in CALLS for at in range(1, made[name] + 1)]


def struck(lives: Lives, folder: Path, place: tuple[str, int], fault: str) -> tuple[int, list[str], bool]:
    """A life with a fault at one place, and whether that was met."""
    name, at = place
    code, said = live(lives, folder, "-e", f"inject={name}:{FAULTS[fault]}:when={at}")
    return code, said, code == -9 or "(INJECTED)" in (folder / "calls").read_text()


@needs_strace
@pytest.mark.timeout(0 if FULL else 120)
def test_nothing_acknowledged_is_lost_at_any_write(lives: Lives, template: Path, tmp_path: Path) -> None:
    code, said = live(lives, copy_of(template, tmp_path / "whole"))
    assert (code, said[-1]) == (0, "done")
    check_after(tmp_path / "whole", said)
    check_whole(tmp_path / "whole")
    places = places_in(tmp_path / "whole")
    assert len(places) > 50, "the life writes to its stores"

    chance, fired, ends = random.Random(SEED), Counter[str](), Counter[str]()
    for name in FAULTS:
        for place in places if FULL else chance.sample(places, SAMPLE):
            folder = copy_of(template, tmp_path / f"{name}-{place[0]}-{place[1]}")
            code, said, met = struck(lives, folder, place, name)
            fired[name] += met
            ends[f"{name} {code}"] += 1
            check_after(folder, said)
            assert undisturbed(lives, folder) == 0, (name, place)
            check_whole(folder)
            shutil.rmtree(folder)
    assert all(fired[name] >= SAMPLE // 2 for name in FAULTS), fired
    assert ends["KILL -9"] >= SAMPLE // 2, ends


@needs_strace
@pytest.mark.timeout(600)
def test_every_write_of_one_cycle_may_be_the_last_or_fail(template: Path, tmp_path: Path) -> None:
    """Each call is killed at once, and fails once: one in two with EIO, the others with ENOSPC."""
    with Lives() as lives:
        code, said = live(lives, copy_of(template, tmp_path / "whole", one=True))
    assert (code, said[-1]) == (0, "done")
    check_whole(tmp_path / "whole")
    places = places_in(tmp_path / "whole")
    assert len(places) > 50, "the life writes to its stores"
    points = [(one, name) for n, one in enumerate(places) for name in ("KILL", ("EIO", "ENOSPC")[n % 2])]
    with ThreadPoolExecutor(2) as hands:
        shares = [hands.submit(sweep, points[n::2], template, tmp_path) for n in range(2)]
        fired = sum((one.result() for one in shares), Counter[str]())
    # At the end a call or two may not come: it depends on which witness answered first.
    assert fired["pwrite64"] >= 2 * (calls_in(tmp_path / "whole")["pwrite64"] - 3), fired
    assert fired["fdatasync"] >= 2 * (calls_in(tmp_path / "whole")["fdatasync"] - 3), fired


def sweep(points: Sequence[tuple[tuple[str, int], str]], template: Path, folder: Path) -> Counter[str]:
    """A life for each fault at a place, and what it left; how often each call was struck."""
    fired = Counter[str]()
    with Lives() as lives:
        for place, name in points:
            here = copy_of(template, folder / f"{name}-{place[0]}-{place[1]}", one=True)
            _, said, met = struck(lives, here, place, name)
            fired[place[0]] += met
            check_after(here, said)
            if place[1] % 4 == 0:  # goes on from what is sound: not worth the time at each
                assert undisturbed(lives, here) == 0, (name, place)
                check_whole(here)
            shutil.rmtree(here)
    return fired


def undisturbed(lives: Lives, folder: Path) -> int:
    """A second life on what the first one left; its exit code."""
    for name in (GO, SAID):
        (folder / name).unlink(missing_ok=True)
    life = lives.begin(folder)
    life.go()
    return life.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_disk_that_is_full(template: Path, tmp_path: Path) -> None:
    """A real one: the writer is told, what it acknowledged stays, and it goes on once there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        shutil.copyfile(template / STORE, disk / STORE)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(1 << 20))
        held = fill_and_free(disk, ballast)
        assert 5 < held < 10_000
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill_and_free(disk: Path, ballast: Path) -> int:
    """How many records were acknowledged before the disk was full."""
    cluster = small_cluster()
    engine = open_database(f"sqlite:///{disk / STORE}")
    sequencer = Sequencer(Store(engine), cluster.anchor, signer("sequencer-1"))
    acknowledged: dict[str, int] = {}

    def submit(number: int) -> str:
        record = cluster.lease(f"route-{number}")
        outcome = sequencer.submit(encode(record), cluster.now)
        assert isinstance(outcome, Submitted)
        acknowledged[record_id_of(record)] = outcome.log_index
        return record_id_of(record)

    def fill() -> None:
        for number in range(10_000):
            submit(number)

    with pytest.raises(SourceUnreadable, match="full"):
        fill()
    held = len(acknowledged)
    check_full(disk, acknowledged)
    ballast.unlink()
    for number in range(held, held + 5):  # the refused one again, and further
        submit(number)
    engine.dispose()
    check_full(disk, acknowledged)
    assert len(acknowledged) == held + 5
    return held


def check_full(disk: Path, acknowledged: dict[str, int]) -> None:
    with open_source(f"sqlite:///{disk / STORE}") as source:
        report = audit(source, small_cluster().anchor)
        stored = {record_id: index for index, record_id, _ in source.rows()}
    assert [one.code for one in report.findings] == ["SL-NOTFINAL"]
    assert acknowledged.items() <= stored.items()
    assert len(stored) == small_cluster().log.size + len(acknowledged)
