"""Watching the machine's addresses, with and without a route socket, and an endpoint that follows them."""

from __future__ import annotations

import os
import socket
import struct
import sys

import pytest

from fabric import limits, netlink
from fabric.interfaces import Rule
from fabric.io import interfaces
from fabric.io.connection import Connection
from fabric.io.interfaces import Follower, InterfaceWatch, machine_addresses
from tests.support.aio import run, until
from tests.support.endpoints import SERVICES, assert_alive, bind, dial

NEW_ADDRESS = struct.pack("=IHHII", 16 + 8, netlink.RTM_NEWADDR, 0, 0, 0) + struct.pack(
    "=BBBBI", 2, 24, 0, 0, 2
)
ERROR = struct.pack("=IHHIIi", 20, netlink.NLMSG_ERROR, 0, 1, 0, -1)


def refuse(*_: object) -> socket.socket:
    raise PermissionError("not in this sandbox")


def test_loopback_is_among_the_machines_addresses() -> None:
    assert "127.0.0.1" in machine_addresses()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of addresses that change")
@pytest.mark.parametrize("answer", [ERROR, os.urandom(64), b""], ids=["refused", "noise", "silence"])
def test_a_route_socket_that_fails_leaves_what_can_be_known_without(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, kernel:
        monkeypatch.setattr(limits, "INTERFACES_ANSWER_S", 0.01)
        monkeypatch.setattr(interfaces, "_route_socket", lambda _: ours)
        if answer:
            kernel.send(answer)
        assert machine_addresses() == interfaces._resolved_addresses()


def test_the_list_is_looked_at_where_nobody_tells_of_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        lists = iter([frozenset({"192.0.2.1"}), frozenset({"192.0.2.2"}), frozenset[str]()])
        monkeypatch.setattr(limits, "INTERFACES_POLL_S", 0.001)
        monkeypatch.setattr(interfaces, "_route_socket", refuse)
        monkeypatch.setattr(interfaces, "machine_addresses", lambda: next(lists, frozenset()))
        seen: list[frozenset[str]] = []
        watch = InterfaceWatch(seen.append)
        await until(lambda: len(seen) > 3)
        watch.close()
        watch.close()
        assert seen[:3] == [{"192.0.2.1"}, {"192.0.2.2"}, set()]

    run(main)


def test_noise_on_the_route_socket_is_no_change_and_hurts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        monkeypatch.setattr(interfaces, "_route_socket", lambda _: ours)
        monkeypatch.setattr(interfaces, "machine_addresses", lambda: frozenset({"192.0.2.1"}))
        seen: list[frozenset[str]] = []
        watch = InterfaceWatch(seen.append)
        with kernel:
            for noise in (b"", b"\x00", os.urandom(15), b"\xff" * 200, ERROR, bytes(4096)):
                kernel.send(noise)
            watch._on_readable()
            assert seen == []
            for _ in range(5):
                kernel.send(os.urandom(3) + NEW_ADDRESS)  # a message that nobody can find
                kernel.send(NEW_ADDRESS)
            await until(lambda: bool(seen))
            assert seen == [{"192.0.2.1"}], "one look for all that came"
            watch.close()
            watch.close()

    run(main)


def test_an_overrun_route_socket_is_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    class Overrun:
        def recv(self, _: int) -> bytes:
            raise OSError(105, "No buffer space available")

    assert interfaces._changed(Overrun())  # type: ignore[arg-type]  # all that is asked of a socket here


def test_every_explicit_address_is_bound_and_a_taken_one_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(limits, "INTERFACES_RETRY_S", 0.01)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
            squatter.bind(("127.0.0.9", 0))
            port = squatter.getsockname()[1]
            async with await bind(1) as a, await bind(2, services=SERVICES) as b:
                changes: list[int] = []
                rule = Rule({"127.0.0.1": 0, "127.0.0.2": 0, "127.0.0.9": port})
                bound = {"127.0.0.1": b.local_address}
                follower = Follower(b, rule, bound, lambda: changes.append(len(b.addresses)))
                hosts = [host for host, *_ in b.addresses]
                assert hosts == ["127.0.0.1", "127.0.0.2"]
                await until(lambda: bool(changes))
                squatter.close()
                await until(lambda: len(b.addresses) == 3)
                await until(lambda: changes == [2, 3])
                assert {(str(at[0]), int(at[1])) for at in b.addresses} == set(follower.reachable())
                for host, number in follower.reachable():
                    await (await dial(a, b, f"quic://{host}:{number}")).aclose()
                follower.close()
                follower.close()
                await assert_alive(a, b)

    run(main)


def test_behind_a_wildcard_the_machines_addresses_are_published(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        present = {"127.0.0.1", "192.0.2.7", "fe80::1", "2001:db8::1"}
        monkeypatch.setattr(interfaces, "machine_addresses", lambda: frozenset(present))
        async with await bind(1, host="0.0.0.0") as a, await bind(2) as b:
            changes: list[bool] = []
            connection, accepted = (
                await dial(a, b),
                await dial(b, a, f"quic://127.0.0.1:{a.local_address[1]}"),
            )
            follower = Follower(
                a, Rule({"0.0.0.0": 0}), {"0.0.0.0": a.local_address}, lambda: changes.append(True)
            )
            port = int(a.local_address[1])
            assert follower.reachable() == (("192.0.2.7", port),)
            moved: list[Connection] = []

            def move(one: Connection) -> None:
                moved.append(one)

            monkeypatch.setattr(Connection, "moved", move)
            monkeypatch.setattr(limits, "INTERFACES_SETTLE_S", 0.0)
            follower._seen(frozenset({"127.0.0.1", "192.0.2.8"}))
            await until(lambda: bool(changes))
            assert follower.reachable() == (("192.0.2.8", port),)
            assert moved == [connection], "what was accepted is the peer's to move"
            assert accepted.is_ready
            follower.close()

    run(main)
