"""qlog files: one for each connection and side, on both engines, bounded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.io.engines import CarrierConfig
from tests.support.aio import run
from tests.support.endpoints import SERVICES, bind, dial, send_and_hash


@pytest.mark.parametrize("engine", ["qh3", "aioquic"])
def test_each_connection_leaves_a_file(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QLOG_EVENTS", 200)
    monkeypatch.setattr(limits, "QLOG_FILES", 2)

    async def main() -> None:
        traced = CarrierConfig(qlog_folder=tmp_path / "traces")
        async with await bind(2, services=SERVICES, engine=engine, carrier=traced) as b:
            for _ in range(3):
                async with await bind(1, engine=engine) as a:
                    connection = await dial(a, b)
                    assert await send_and_hash(connection, 300_000, TrafficClass.BULK)
                    await connection.aclose()

    run(main)
    files = sorted((tmp_path / "traces").iterdir())
    assert len(files) == 2
    for path in files:
        document = json.loads(path.read_text())
        assert document["qlog_version"] == "0.3"
        (trace,) = document["traces"]
        assert trace["vantage_point"]["type"] == "server"
        names = [event["name"] for event in trace["events"]]
        assert 0 < len(names) <= 200
        assert "transport:datagrams_received" in names
