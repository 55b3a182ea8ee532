"""Metrics of a running node: text that Prometheus reads, bounded labels, over HTTP where it is asked for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fabric import failover, limits
from fabric.classes import CLASS_NAMES, TrafficClass
from fabric.errors import RESET_REASONS, FabricError
from fabric.io.admin import AdminClient, AdminServer
from fabric.io.metrics import CONTENT_TYPE, metrics_text
from fabric.io.metricsport import MetricsPort
from fabric.pressure import REASONS
from tests.support.aio import run
from tests.support.farm import Farm, echo_server

SERVICE = "web-admin"


async def fetch(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def test_a_node_tells_what_it_measures(tmp_path: Path) -> None:
    async def main() -> None:
        server, target = await echo_server(b"<home-1>")
        async with Farm(tmp_path, services={"home-1": {SERVICE: target}}) as farm:
            await farm.begin(("control-1", "home-1", "node-9", "usa-los-1", "phone-a"))
            await farm.log(farm.loopback_policy())
            await farm.log(farm.cluster.certificate("home-1", "service-host"))
            record = await farm.log(farm.cluster.registry(SERVICE, endpoints=[farm.endpoint("home-1")]))
            await farm.until_active(SERVICE, record)
            phone = farm.nodes["phone-a"]
            async with await phone.reach.open(SERVICE, TrafficClass.BULK) as stream:
                stream.write(bytes(100_000))
                await stream.readexactly(8 + 100_000)
            phone.pressure.look()
            text = metrics_text(phone)
            found = {
                (sample.name, *sorted(sample.labels.values())): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
            assert found["fabric_session_bytes_total", "bulk", "sent"] > 100_000
            assert found["fabric_session_bytes_total", "bulk", "received"] > 100_000
            assert found["fabric_streams_opened_total", "bulk"] == 1
            sizes = [value for key, value in found.items() if key[0] == "fabric_session_datagram_bytes"]
            assert sizes
            assert min(sizes) >= limits.CARRIER_DATAGRAM_BYTES
            assert found["fabric_lane_unsent_bytes", "0", "control"] >= 0
            assert any(key[0] == "fabric_lane_queued_bytes" and "bulk" in key for key in found)
            assert found["fabric_reach_events_total", "opened_direct"] == 1
            assert found["fabric_probe_events_total", "ok"] >= 1
            assert found["fabric_peering_events_total", "connected"] >= 1
            assert (found["fabric_relay_streams",], found["fabric_relay_held_bytes",]) == (0, 0)
            assert found["fabric_sessions",] == len(phone.endpoint.connections())
            assert found["fabric_pressure_level", "nominal"] in (0, 1)
            assert found["fabric_log_final_entries",] == farm.cluster.log.size
            labels = {value for name, *values in found for value in values}
            peers = {one[:16] for one in phone.peers.sessions()}
            words = {"sent", "received", "forward", "back", "nominal", "warning", "critical", "other"}
            words |= {"queue", "cpu", "memory", "sockets", "network"}
            words |= {"+Inf", *map(str, limits.ROUTE_RECOVERY_BUCKETS_S)} | set(failover.REASONS)
            assert found["fabric_route_switches_total", "timeout"] == 0
            assert found["fabric_route_switch_seconds_count",] == 0
            known = set(CLASS_NAMES) | set(RESET_REASONS) | set(REASONS) | peers | words
            events = set(phone.endpoint.totals.counters) | set(phone.endpoint.resuming.counters)
            for one in (phone.endpoint, phone.reach, phone.promoter, phone.peers.machine, phone.follower):
                events |= set(one.counters)
            events |= {str(shard) for shard in range(limits.SESSION_SHARDS)}
            assert labels <= known | events | set(phone.endpoint.totals.closed) | {"late_frames"}

            admin = AdminServer(phone, phone.config.admin_socket)
            await admin.start()
            try:
                async with AdminClient(phone.config.admin_socket) as client:
                    over_admin = await client.call("metrics")
                    beat = await client.call("heartbeat")
            finally:
                await admin.close()
            assert over_admin["content_type"] == CONTENT_TYPE
            assert "fabric_session_bytes_total" in over_admin["text"]
            assert beat["schema"] == "fabric.heartbeat.v1"
            assert "gossip" in beat["capabilities"]
            assert len(json.dumps(beat)) < limits.HEARTBEAT_BYTES
        server.close()

    run(main, timeout_s=90)


def test_the_port_answers_one_path() -> None:
    async def main() -> None:
        port = MetricsPort("127.0.0.1", 0, lambda: "fabric_sessions 1\n", CONTENT_TYPE)
        await port.start()
        try:
            good = await fetch(port.port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert good.startswith(b"HTTP/1.1 200 OK\r\n")
            assert good.endswith(b"\r\n\r\nfabric_sessions 1\n")
            head = await fetch(port.port, b"HEAD /metrics HTTP/1.1\r\n\r\n")
            assert b"Content-Length: 18" in head
            assert head.endswith(b"\r\n\r\n")
            assert (await fetch(port.port, b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404")
            assert (await fetch(port.port, b"POST /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405")
            assert await fetch(port.port, b"x" * (limits.METRICS_REQUEST_BYTES + 100)) == b""
            taken = MetricsPort("127.0.0.1", port.port, lambda: "", CONTENT_TYPE)
            with pytest.raises(FabricError) as refused:
                await taken.start()
            assert refused.value.code == "port_taken"
        finally:
            await port.close()

    run(main)
