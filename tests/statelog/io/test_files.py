"""Small files: bounded reads, whole writes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from statelog.errors import Refused, UsageError
from statelog.io.files import read_bounded, replacing, write_new, write_replacing


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    assert read_bounded(path, 100, "SL-REQUEST") == b"x" * 100
    with pytest.raises(Refused) as caught:
        read_bounded(path, 99, "SL-REQUEST")
    assert caught.value.code == "SL-REQUEST"


def test_what_may_have_no_end_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(UsageError, match=f"{path} is not a regular file; .* /dev/stdin < {path}"):
            read_bounded(path, 1_000, "SL-KEYFILE")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(__file__)
    assert read_bounded(tmp_path / "link", 1_000_000, "SL-KEYFILE") == Path(__file__).read_bytes()


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_what_the_shell_has_opened_is_read_up_to_the_bound(name: str) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"x" * 11)
        os.close(writer)
        with pytest.raises(Refused) as caught:
            read_bounded(Path(name.format(reader)), 9, "SL-KEYFILE")
        assert caught.value.code == "SL-KEYFILE"
    finally:
        os.close(reader)
    reader, writer = os.pipe()
    try:
        os.write(writer, b"x" * 9)
        os.close(writer)
        assert read_bounded(Path(name.format(reader)), 9, "SL-KEYFILE") == b"x" * 9
    finally:
        os.close(reader)


def test_no_file_takes_the_place_of_a_device_or_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "null").symlink_to("/dev/null")
    for path in (pipe, tmp_path / "null", Path("/dev/fd/1")):
        before = path.lstat().st_ino
        with pytest.raises(UsageError, match="is not a regular file, and none may take its place"):
            write_replacing(path, b"x")
        with pytest.raises(UsageError, match="is not a regular file"), replacing(path):
            pytest.fail("nothing is made")
        assert path.lstat().st_ino == before
    assert {one.name for one in tmp_path.iterdir()} == {"null", "pipe"}
    pipe.unlink()
    write_replacing(pipe, b"x")
    write_replacing(pipe, b"y")
    assert pipe.read_bytes() == b"y"


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_bounded(tmp_path / "absent", 10, "SL-REQUEST")
    with pytest.raises(UsageError, match="is a directory"):
        read_bounded(tmp_path, 10, "SL-REQUEST")


def test_new_files_are_whole_private_and_new(tmp_path: Path) -> None:
    path = tmp_path / "new"
    write_new(path, b"one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="exists already"):
        write_new(path, b"two")
    assert path.read_bytes() == b"one"
    assert [one.name for one in tmp_path.iterdir()] == ["new"]


def test_replacing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_replacing(path, b"one")
    write_replacing(path, b"two")
    assert path.read_bytes() == b"two"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match="no space left"):
        write_replacing(path, b"three")
    with pytest.raises(UsageError, match="no space left"):
        write_new(tmp_path / "g", b"three")
    assert path.read_bytes() == b"two"
    assert [one.name for one in tmp_path.iterdir()] == ["f"]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    for write in (write_new, write_replacing):
        with pytest.raises(UsageError, match="no such file"):
            write(tmp_path / "absent" / "f", b"x")


def test_what_is_long_in_the_making_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "f[1]"  # no pattern
    with replacing(path) as copy:
        copy.write_bytes(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"

    def fail() -> None:
        with replacing(path) as copy:
            copy.write_bytes(b"two")
            copy.with_name(f"{copy.name}-wal").write_bytes(b"x")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [(path.name, b"one")]


def test_what_a_killed_process_left_is_removed_and_what_another_makes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "f"
    left = [f".f.{'0' * 12}.making", f".f.{'0' * 12}.making-wal"]
    others = [f".g.{'0' * 12}.making", ".f.making", f".f.{'0' * 12}.part"]
    for name in (*left, *others):
        (tmp_path / name).write_bytes(b"x")
    with replacing(path) as first, replacing(path) as second:
        assert {one.name for one in tmp_path.iterdir()} == {*others, first.name, second.name}
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert {one.name for one in tmp_path.iterdir()} == {*others, "f"}
    assert path.read_bytes() == b"first"
