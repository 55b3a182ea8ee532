"""The doorbell: wakes other processes, and outlives those that died."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from statelog.errors import SourceUnreadable, UsageError
from statelog.io import doorbell
from statelog.io.doorbell import Doorbell, ring


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state.db'}"


def bells(url: str) -> list[Path]:
    return sorted(Path(url.removeprefix("sqlite:///") + ".bells").glob("*"))


def test_a_ring_wakes_everyone(url: str) -> None:
    with Doorbell(url) as one, Doorbell(url) as other:
        assert ring(url) == 2
        assert one.wait(5)
        assert other.wait(5)
        assert not one.wait(0)


def test_a_ring_before_the_wait_is_not_lost(url: str) -> None:
    with Doorbell(url) as bell:
        ring(url)
        ring(url)
        assert bell.wait(0)
        assert not bell.wait(0)  # two rings, one awakening


def test_rings_can_be_drained_by_an_event_loop(url: str) -> None:
    with Doorbell(url) as bell:
        assert bell.fileno() >= 0
        assert bell.drain() == 0
        ring(url)
        ring(url)
        assert bell.drain() == 2


def test_nobody_there(url: str) -> None:
    assert ring(url) == 0
    with Doorbell(url):
        assert len(bells(url)) == 1
    assert bells(url) == []
    assert ring(url) == 0


def test_a_bell_of_the_dead_is_taken_down(url: str) -> None:
    left = Doorbell(url)
    left._socket.close()  # as if the process had been killed: the file stays
    with Doorbell(url) as alive:
        assert len(bells(url)) == 2
        assert ring(url) == 1
        assert alive.wait(5)
        assert bells(url) == [alive.path]


def test_a_full_bell_does_not_hold_the_ringer_up(url: str) -> None:
    with Doorbell(url) as bell:
        for _ in range(5_000):
            assert ring(url) == 1
        assert 0 < bell.drain() < 5_000
        ring(url)
        assert bell.wait(0)


def test_litter_is_bounded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "MAX_BELLS", 2)
    with Doorbell(url) as one, Doorbell(url) as two, Doorbell(url) as three:
        assert ring(url) == 2
        assert sum(bell.wait(0) for bell in (one, two, three)) == 2


def test_a_deep_directory(tmp_path: Path) -> None:
    """Longer than the address of a Unix socket may be."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    url = f"sqlite:///{deep / 'state.db'}"
    with Doorbell(url) as bell:
        assert ring(url) == 1
        assert bell.wait(5)
    assert bells(url) == []


def test_a_database_server_has_no_doorbell(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Doorbell("postgresql://localhost/state")
    assert ring("postgresql://localhost/state") == 0
    with pytest.raises(SourceUnreadable):
        Doorbell(f"sqlite:///{tmp_path / 'no' / 'such' / 'state.db'}")


WAITER = """
import sys
from statelog.io.doorbell import Doorbell
with Doorbell(sys.argv[1]) as bell:
    print("ready", flush=True)
    for _ in range(2):
        print(bell.wait(20), flush=True)
        sys.stdin.readline()
"""


def test_between_two_processes(url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as waiter:
        assert waiter.stdin is not None
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "ready\n"
        for _ in range(2):
            assert ring(url) == 1
            assert waiter.stdout.readline() == "True\n"
            waiter.stdin.write("\n")
            waiter.stdin.flush()
        assert waiter.wait(20) == 0
    assert ring(url) == 0


def test_a_killed_process_leaves_nothing_behind_for_long(url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as waiter:
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "ready\n"
        assert ring(url) == 1
        waiter.kill()
        waiter.wait(20)
    assert len(bells(url)) == 1
    assert ring(url) == 0
    assert bells(url) == []
