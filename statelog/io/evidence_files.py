"""Evidence as files that anyone can check without this software: signed notes, and the proof between two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from statelog.errors import UsageError
from statelog.io.files import write_new
from statelog.rollback import Rollback
from statelog.signing import encode_base64
from statelog.splitview import SplitView


def split_view_files(stem: str, size: int, found: SplitView) -> dict[str, bytes]:
    """File name -> bytes. `size` is the smaller head's; the proof is RFC 6962's, as lines of base64 under the
    root that the larger head's history has there.
    """
    lines = [f"old {size}", encode_base64(found.root), *map(encode_base64, found.proof)]
    return {
        f"{stem}-smaller.note": found.smaller,
        f"{stem}-larger.note": found.larger,
        f"{stem}-proof.txt": "".join(f"{line}\n" for line in lines).encode(),
    }


def rollback_files(stem: str, found: Rollback) -> dict[str, bytes]:
    """File name -> bytes."""
    return {f"{stem}-earlier.note": found.earlier, f"{stem}-later.note": found.later}


def write_evidence(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write what is not there yet. Raises UsageError for what the folder does not take."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: {(error.strerror or str(error)).lower()}") from error
    for name, data in files.items():
        if not (folder / name).exists():
            write_new(folder / name, data, 0o644)
