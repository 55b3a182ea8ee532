"""The smoke run of a node against another, and pings from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabric.io.admin import AdminClient, AdminError, AdminServer
from fabric.services.io.echoing import SERVICE
from tests.support.aio import run
from tests.support.authority import node_id
from tests.support.farm import Farm, echo_server

NAMES = ("control-1", "home-1", "node-9", "usa-los-1", "phone-a")


def test_a_smoke_run_proves_the_data_plane(tmp_path: Path) -> None:
    async def main() -> None:
        server, target = await echo_server(b"<home-1>")
        async with Farm(tmp_path, services={"home-1": {"web-admin": target}}) as farm:
            await farm.begin(NAMES)
            await farm.log(farm.loopback_policy())
            await farm.log(farm.cluster.certificate("home-1", "service-host"))
            record = await farm.log(farm.cluster.registry("web-admin", endpoints=[farm.endpoint("home-1")]))
            await farm.until_active("web-admin", record)
            phone = farm.nodes["phone-a"]
            admin = AdminServer(phone, phone.config.admin_socket)
            await admin.start()
            try:
                async with AdminClient(phone.config.admin_socket) as client:
                    report = await client.call("smoke", peer="control-1")
                    hop = await client.call("ping", peer="home-1", count=3)
                    whole = await client.call("ping", service="web-admin", count=3)
                    with pytest.raises(AdminError) as nobody:
                        await client.call("smoke", peer="phone-a")
                    with pytest.raises(AdminError) as many:
                        await client.call("ping", peer="home-1", count=10_000)
            finally:
                await admin.close()
        server.close()
        steps = {step["name"]: step for step in report["steps"]}
        assert report["schema"] == "fabric.smoke.v1"
        assert report["ok"], steps
        assert list(steps) == [
            "session",
            "interactive",
            "blocked_bulk",
            "fan_out",
            "datagrams",
            "pressure",
            "resumption",
        ]
        assert steps["fan_out"]["detail"]["bulk"]["lanes"] > 1
        assert steps["pressure"]["detail"]["activated"]
        assert steps["resumption"]["detail"]["nothing_lost"]
        for found in (hop, whole):
            assert found["schema"] == "fabric.ping.v1"
            assert found["sent"] == found["answered"] == 3
            assert 0 < found["min_ms"] <= found["avg_ms"] <= found["max_ms"]
            assert found["node_id"] == node_id("home-1")
        assert (hop["end_to_end"], whole["end_to_end"]) == (False, True)
        assert nobody.value.code == "unknown_node"
        assert many.value.code == "bad_request"

    run(main, timeout_s=110)


def test_an_echo_is_for_approved_nodes_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with Farm(tmp_path) as farm:
            await farm.begin(NAMES)
            from fabric.classes import TrafficClass  # noqa: PLC0415 - one use
            from fabric.errors import StreamError  # noqa: PLC0415 - same
            from tests.support.farm import stranger  # noqa: PLC0415 - same

            async with stranger(farm, "control-1") as connection:
                with pytest.raises(StreamError, match="not_approved"):
                    await connection.open(SERVICE, TrafficClass.INTERACTIVE)

    run(main, timeout_s=90)
