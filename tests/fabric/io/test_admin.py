"""The local admin socket of a running node, and the status document."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import stat
from pathlib import Path
from typing import Any, cast

import pytest

from fabric import limits
from fabric.heartbeat import heartbeat
from fabric.io.admin import AdminClient, AdminError, AdminServer
from fabric.io.node import Node
from fabric.io.status import SCHEMA, status
from statelog.canonical import encode
from statelog.signing import record_id_of
from tests.support.aio import run
from tests.support.authority import node_id
from tests.support.farm import Farm, echo_server, identity_of
from tests.support.users import not_root

SERVICE = "web-admin"
NAMES = ("control-1", "home-1", "node-9", "usa-los-1", "phone-a")


def play(tmp_path: Path, script: Any) -> None:
    """A farm whose `phone-a` has an admin socket; `script(farm, client)`."""

    async def main() -> None:
        server, target = await echo_server(b"<home-1>")
        async with Farm(tmp_path, services={"home-1": {SERVICE: target}}) as farm:
            await farm.begin(NAMES)
            await farm.log(farm.loopback_policy())
            node = farm.nodes["phone-a"]
            admin = AdminServer(node, node.config.admin_socket)
            await admin.start()
            try:
                async with AdminClient(node.config.admin_socket) as client:
                    await script(farm, client)
            finally:
                await admin.close()
        server.close()

    run(main, timeout_s=90)


def test_status_is_one_document_with_a_schema(tmp_path: Path) -> None:
    async def script(farm: Farm, client: AdminClient) -> None:
        record_id = await farm.log(farm.cluster.registry(SERVICE, endpoints=[farm.endpoint("home-1")]))
        await farm.until_active(SERVICE, record_id)
        found = await client.call("status")
        assert json.loads(json.dumps(found)) == found
        assert found["schema"] == SCHEMA
        identity = identity_of("phone-a")
        assert (found["node_id"], found["cert_sha256"]) == (identity.node_id, identity.certificate_sha256)
        assert (found["approved"], found["mode"], found["engine"]) == (True, "production", "qh3")
        log = found["log"]
        size = farm.cluster.log.size
        assert (log["size"], log["final_size"], log["term"], log["stale"]) == (size, size, 1, False)
        assert 0 <= log["age_s"] < 60
        assert {one["node_id"] for one in found["sessions"]} >= {node_id("control-1"), node_id("usa-los-1")}
        assert all(one["datagram_bytes"] >= limits.CARRIER_DATAGRAM_BYTES for one in found["sessions"])
        assert all(one["rtt_ms"] is None or one["rtt_ms"] > 0 for one in found["sessions"])
        assert "fabric.gossip/1" in {one["service"] for one in found["streams"]}
        (row,) = found["registry"]
        assert (row["service"], row["active"], row["fallback"], row["candidate"]) == (
            SERVICE,
            record_id,
            [],
            [],
        )
        assert row["records"][0]["log_index"] == size - 1
        assert found["probes"]["counters"]["ok"] == 1

    play(tmp_path, script)


def test_a_status_shows_the_busiest_and_says_how_many_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(farm: Farm, client: AdminClient) -> None:
        node = farm.nodes["phone-a"]
        whole = await client.call("status")
        assert len(whole["sessions"]) > 1
        assert len(whole["streams"]) > 2
        assert (whole["sessions_left_out"], whole["streams_left_out"], whole["relay_left_out"]) == (0, 0, 0)
        monkeypatch.setattr(limits, "STATUS_SESSIONS", 1)
        monkeypatch.setattr(limits, "STATUS_STREAMS", 2)
        found = status(node)
        assert found["sessions_left_out"] == len(node.peers.sessions()) - 1
        moved = {
            one.stream_uid.hex(): sum(one.machine.moved)
            for connection in node.peers.sessions().values()
            for one in connection.streams()
        }
        assert found["streams_left_out"] == len(moved) - 2
        assert sorted(moved[one["uid"]] for one in found["streams"]) == sorted(moved.values())[-2:]
        report = heartbeat(found, at=0.0, versions={})
        assert report["sessions"]["count"] == len(node.peers.sessions())
        monkeypatch.setattr(limits, "ADMIN_ANSWER_BYTES", 1000)
        with pytest.raises(AdminError) as caught:
            await client.call("status")
        assert caught.value.code == "too_large"

    play(tmp_path, script)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b'{"ok": true, "result": {"a": 1}}\n', ""),
        (b'{"ok": false, "error": {"code": "no_route", "sentence": "none"}}\n', "no_route"),
        (b"", "not_running"),
        (b'{"ok": true, "resu', "not_running"),
        (b"hello\n", "bad_answer"),
        (b"[]\n", "bad_answer"),
        (b"[" * 500 + b"\n", "bad_answer"),
        (b'{"ok": false}\n', "bad_answer"),
        (b'{"ok": true, "result": 7}\n', "bad_answer"),
        (b" " * 2000 + b"\n", "bad_answer"),
    ],
)
def test_whatever_is_at_the_socket_a_failure_has_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, code: str
) -> None:
    monkeypatch.setattr(limits, "ADMIN_ANSWER_BYTES", 1000)

    async def main() -> None:
        async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(answer)
            writer.close()

        server = await asyncio.start_unix_server(answers, tmp_path / "admin.sock")
        async with server, AdminClient(tmp_path / "admin.sock") as client:
            if not code:
                assert await client.call("status") == {"a": 1}
                return
            with pytest.raises(AdminError) as caught:
                await client.call("status")
            assert caught.value.code == code
            assert "\n" not in caught.value.sentence

    run(main)


def test_commands_and_their_refusals(tmp_path: Path) -> None:
    async def script(farm: Farm, client: AdminClient) -> None:
        found = await client.call("ping", peer="control-1")
        assert found["node_id"] == node_id("control-1")
        assert found["rtt_ms"] > 0
        assert (await client.call("ping", peer=node_id("usa-los-1")[:10]))["node_id"] == node_id("usa-los-1")
        for request, code in (
            ({"do": "ping", "peer": "nobody"}, "unknown_node"),
            ({"do": "open-test", "service": "nothing"}, "no_route"),
            ({"do": "open-test", "service": SERVICE, "class": "fast"}, "bad_request"),
            ({"do": "open-test", "service": SERVICE, "route": "r"}, "no_lease"),
            ({"do": "forward", "service": SERVICE, "port": "x"}, "bad_request"),
            ({"do": "deliver", "record": "not base64!"}, "bad_request"),
            ({"do": "dance"}, "bad_request"),
        ):
            with pytest.raises(AdminError) as caught:
                await client.call(**request)
            assert caught.value.code == code

    play(tmp_path, script)


def test_a_delivered_record_is_judged_and_its_code_comes_back(tmp_path: Path) -> None:
    async def script(farm: Farm, client: AdminClient) -> None:
        good = farm.cluster.registry(SERVICE, endpoints=[farm.endpoint("home-1")])
        bad = farm.cluster.sign(good, ["control-1"])
        with pytest.raises(AdminError) as caught:
            await client.call("deliver", record=base64.b64encode(encode(bad)).decode())
        assert str(caught.value).startswith("SL-QUORUM: at signatures: 1 more of ")  # the code is there once
        assert caught.value.code == "SL-QUORUM"
        found = await client.call("deliver", record=base64.b64encode(encode(good)).decode())
        assert found == {
            "record_id": record_id_of(good),
            "kind": "registry.gossip_record",
            "state": "candidate",
        }
        await farm.until_active(SERVICE, record_id_of(good))
        assert (await client.call("status"))["refusals"]["delivered"] == {"SL-QUORUM": 1}
        tested = await client.call("open-test", service=SERVICE)
        assert (tested["peer"], tested["route_id"]) == (node_id("home-1"), None)

    play(tmp_path, script)


def test_a_forwarded_port_lives_as_long_as_the_connection_that_asked_for_it(tmp_path: Path) -> None:
    async def script(farm: Farm, client: AdminClient) -> None:
        record_id = await farm.log(farm.cluster.registry(SERVICE, endpoints=[farm.endpoint("home-1")]))
        await farm.until_active(SERVICE, record_id)
        async with AdminClient(farm.nodes["phone-a"].config.admin_socket) as other:
            opened = await other.call("forward", service=SERVICE, port=0)
            reader, writer = await asyncio.open_connection("127.0.0.1", opened["port"])
            writer.write(b"ping")
            writer.write_eof()
            assert await reader.read(-1) == b"<home-1>ping"
            writer.close()
            with pytest.raises(AdminError) as caught:
                await client.call("forward", service=SERVICE, port=opened["port"])
            assert caught.value.code == "port_taken"
        async with asyncio.timeout(40):
            while True:
                try:
                    again = await client.call("forward", service=SERVICE, port=opened["port"])
                except AdminError:
                    continue
                break
        assert again["port"] == opened["port"]

    play(tmp_path, script)


def test_only_the_owner_may_open_the_socket_and_only_one_daemon_serves_it(tmp_path: Path) -> None:
    async def script(farm: Farm, client: AdminClient) -> None:
        node = farm.nodes["phone-a"]
        assert stat.S_IMODE(node.config.admin_socket.stat().st_mode) == 0o600
        with pytest.raises(AdminError) as caught:
            await AdminServer(node, node.config.admin_socket).start()
        assert caught.value.code == "already_running"
        assert (await client.call("status"))["name"] == "phone-a"

    play(tmp_path, script)


def test_a_socket_that_may_not_be_opened_is_said_and_left_alone(tmp_path: Path) -> None:
    path, node = tmp_path / "admin.sock", cast("Node", None)  # is not asked: nothing is ever served here

    async def refused() -> None:
        for attempt in (AdminClient(path).__aenter__, AdminServer(node, path).start):
            with pytest.raises(AdminError) as caught:
                await attempt()
            assert (caught.value.code, str(path) in caught.value.sentence) == ("not_permitted", True)

    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(path))
        daemon.listen()
        path.chmod(0)
        with not_root():
            run(refused)
        assert path.is_socket()
        path.chmod(0o600)

        async def opened() -> None:
            async with AdminClient(path):
                pass
            with pytest.raises(AdminError) as caught:
                await AdminServer(node, path).start()
            assert caught.value.code == "already_running"

        run(opened)


def test_a_deep_folder_is_no_obstacle_and_no_daemon_is_said(tmp_path: Path) -> None:
    async def main() -> None:
        deep = tmp_path / ("d" * 60) / ("e" * 60)
        deep.mkdir(parents=True)
        with pytest.raises(AdminError) as caught:
            async with AdminClient(deep / "admin.sock"):
                pass
        assert caught.value.code == "not_running"
        async with Farm(tmp_path) as farm:
            node = await farm.start("phone-a", folder=deep)
            admin = AdminServer(node, node.config.admin_socket)
            await admin.start()
            async with AdminClient(node.config.admin_socket) as client:
                found = await client.call("status")
                assert (found["log"]["final_size"], found["approved"], found["sessions"]) == (0, False, [])
            await admin.close()
            assert not node.config.admin_socket.exists()

    run(main)
