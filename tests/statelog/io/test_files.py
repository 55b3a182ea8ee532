"""Small files: bounded reads, whole writes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from statelog.errors import Refused, UsageError
from statelog.io.files import read_bounded, write_new, write_replacing


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    assert read_bounded(path, 100, "SL-REQUEST") == b"x" * 100
    with pytest.raises(Refused) as caught:
        read_bounded(path, 99, "SL-REQUEST")
    assert caught.value.code == "SL-REQUEST"


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(Refused) as caught:
        read_bounded(Path("/dev/zero"), 1_000, "SL-KEYFILE")
    assert caught.value.code == "SL-KEYFILE"


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
