"""Drafts of what is published and kept: releases and shard manifests."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from statelog.cli.common import now
from statelog.cli.templates.common import (
    NOTHING,
    Current,
    Fields,
    Names,
    parse_duration,
    present,
    read_json,
)
from statelog.errors import UsageError
from statelog.times import format_time


def release(
    current: Current,
    product: Annotated[str | None, typer.Option(help="What is released.")] = None,
    channel: Annotated[str, typer.Option(help="For whom.")] = "stable",
    version: Annotated[str | None, typer.Option(help="1 to 4 numbers with dots between.")] = None,
    artifact: Annotated[
        Names, typer.Option(metavar="PLATFORM=FILE", help="A file, measured and hashed here; repeatable.")
    ] = NOTHING,
    min_version: Annotated[
        str | None, typer.Option(help="The oldest version it works with; itself by default.")
    ] = None,
    session_version: Annotated[
        list[int], typer.Option(help="A session protocol version it speaks; repeatable.")
    ] = NOTHING,
    rollback_to: Annotated[Names, typer.Option(help="An older version still allowed; repeatable.")] = NOTHING,
    rollback_window: Annotated[str, typer.Option(metavar="7d", help="For how long.")] = "7d",
    rollout: Annotated[
        Names,
        typer.Option(metavar="PERCENT@TIME", help="Since when for how many; all at once by default."),
    ] = NOTHING,
) -> Fields:
    """Release a version of a product.

    Example:

      statelog propose update.release --product agent --version 1.4.0 --artifact linux-x86-64=agent.tar.zst
    """
    steps = [_step(text) for text in rollout] or [{"cohort_percent": 100, "not_before": format_time(now())}]
    return present(
        product=product,
        channel=channel,
        version=version,
        artifacts=[_artifact(text) for text in artifact] or None,
        compatibility=present(
            min_version=min_version or version, session_versions=list(session_version) or [1]
        ),
        rollback={"to": rollback_to, "window_s": parse_duration(rollback_window)},
        rollout=steps,
    )


def shard_manifest(
    current: Current,
    shard_set_id: Annotated[str | None, typer.Option(help="The shard set's name.")] = None,
    shards: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON list of {index, node_id, length, sha256}.")
    ] = None,
    retention_until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Kept at least so long.")
    ] = None,
) -> Fields:
    """Say where the shards of a stored object are: the manifest in force, with what changes.

    The first manifest of a set also needs `object`, `cipher`, `code` and `replication_factor` in --body.

    Example:

      statelog propose storage.shard_manifest --shard-set-id backup-7 --shards placed.json
    """
    before = current.record("storage.shard_manifest", shard_set_id or "") or {}
    kept = ("object", "cipher", "code", "replication_factor", "shards", "retention_until", "recovery_epoch")
    own = {name: before[name] for name in kept if name in before}
    return {
        **({} if before else {"recovery_epoch": 1}),
        **own,
        **present(
            shard_set_id=shard_set_id,
            shards=None if shards is None else read_json(shards),
            retention_until=retention_until,
        ),
    }


def _artifact(text: str) -> Fields:
    platform, _, place = text.partition("=")
    path = Path(place)
    if not place or not path.is_file():
        raise UsageError(f"--artifact {text!r} is not PLATFORM=FILE with a file that is there")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        length = file.tell()
    return {"name": path.name, "platform": platform, "length": length, "sha256": digest}


def _step(text: str) -> Fields:
    percent, _, moment = text.partition("@")
    if not percent.isdecimal() or not moment:
        raise UsageError(f"--rollout {text!r} is not PERCENT@TIME, such as 10@2026-02-01T00:00:00Z")
    return {"cohort_percent": int(percent), "not_before": moment}
