"""The UDP socket: both ways of batching, on real sockets."""

from __future__ import annotations

import errno
import select
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fabric import limits
from fabric.io import udp
from fabric.io.engines import Address
from fabric.io.udp import Batching, SocketError, UdpSocket, source_towards

BATCHINGS: list[Batching] = ["offload", "plain"]


@pytest.fixture
def make() -> Iterator[Callable[..., UdpSocket]]:
    made: list[UdpSocket] = []

    def bind(batching: Batching = "auto", host: str = "127.0.0.1", port: int = 0) -> UdpSocket:
        made.append(UdpSocket(host, port, batching=batching))
        return made[-1]

    yield bind
    for sock in made:
        sock.close()


def receive(sock: UdpSocket, count: int) -> list[tuple[bytes, Address]]:
    found: list[tuple[bytes, Address]] = []
    while len(found) < count:
        readable, _, _ = select.select([sock], [], [], 5)
        assert readable, f"{len(found)} of {count} datagrams came"
        found += sock.recv_batch()
    return found


@pytest.mark.parametrize("sender", BATCHINGS)
@pytest.mark.parametrize("receiver", BATCHINGS)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_batches_arrive_whole_and_in_order(
    make: Callable[..., UdpSocket], sender: Batching, receiver: Batching, host: str
) -> None:
    a, b = make(sender, host), make(receiver, host)
    assert (a.offload, b.offload) == (sender == "offload", receiver == "offload")
    sizes = [1200] * 70 + [300] + [1200] * 3 + [1, 1452, 1452, 900, 1200] + [8952] * 9
    payloads = [bytes([index % 251]) * size for index, size in enumerate(sizes)]
    assert a.send_batch([(data, b.local_address) for data in payloads]) == len(payloads)
    received = receive(b, len(payloads))
    assert [data for data, _ in received] == payloads
    assert {addr for _, addr in received} == {a.local_address}


@pytest.mark.parametrize("batching", BATCHINGS)
def test_one_batch_to_several_addresses(make: Callable[..., UdpSocket], batching: Batching) -> None:
    a, b, c = make(batching), make(), make()
    batch = [(bytes([i]) * 50, (b if i % 3 else c).local_address) for i in range(12)]
    assert a.send_batch(batch) == 12
    assert [d for d, _ in receive(b, 8)] == [d for d, addr in batch if addr == b.local_address]
    assert [d for d, _ in receive(c, 4)] == [d for d, addr in batch if addr == c.local_address]


@pytest.mark.parametrize("batching", BATCHINGS)
def test_ipv6(make: Callable[..., UdpSocket], batching: Batching) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    a, b = make(batching, "::1"), make(batching, "::1")
    assert a.send_batch([(b"six", b.local_address)]) == 1
    assert receive(b, 1)[0][0] == b"six"


@pytest.mark.parametrize("batching", BATCHINGS)
def test_nothing_there_is_an_empty_batch(make: Callable[..., UdpSocket], batching: Batching) -> None:
    assert make(batching).recv_batch() == []


@pytest.mark.parametrize("batching", BATCHINGS)
def test_a_turn_is_bounded(make: Callable[..., UdpSocket], batching: Batching) -> None:
    a, b = make("offload"), make(batching)
    total = limits.UDP_DATAGRAMS_PER_TURN * 6
    assert a.send_batch([(b"x" * 100, b.local_address)] * total) == total
    readable, _, _ = select.select([b], [], [], 5)
    assert readable
    first = len(b.recv_batch())
    if batching == "plain":
        assert first == limits.UDP_DATAGRAMS_PER_TURN
    # With GRO the kernel's last batch is taken whole: 32 messages of 64 segments.
    assert first < limits.UDP_DATAGRAMS_PER_TURN + 2048
    assert first + len(receive(b, total - first)) == total


@pytest.mark.parametrize("batching", BATCHINGS)
def test_a_dead_peer_does_not_hurt_the_others(make: Callable[..., UdpSocket], batching: Batching) -> None:
    a, alive, dead = make(batching), make(), make()
    gone = dead.local_address
    dead.close()
    if sys.platform == "linux":  # ask for the ICMP errors that other systems give unasked
        raw = socket.socket(fileno=socket.dup(a.fileno()))
        raw.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        raw.close()
    for number in range(20):
        assert a.send_batch([(b"to nobody", gone), (bytes([number]), alive.local_address)]) == 2
        assert a.recv_batch() == []
    assert [data for data, _ in receive(alive, 20)] == [bytes([number]) for number in range(20)]
    assert a.icmp_errors > 0


@pytest.mark.parametrize("batching", BATCHINGS)
def test_what_the_network_refuses_is_dropped_and_the_rest_goes_on(
    make: Callable[..., UdpSocket], batching: Batching, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = make(batching), make()
    batch: list[tuple[bytes, Address]] = [
        (b"first", b.local_address),
        (bytes(70_000), b.local_address),
        (b"unroutable", ("240.0.0.1", 9)),
        (b"last", b.local_address),
    ]
    assert a.send_batch(batch) == 4
    assert [data for data, _ in receive(b, 2)] == [b"first", b"last"]
    assert a.datagrams_dropped == 2
    # A probe for the path's size may be too large; whatever else is refused, somebody should know.
    assert [record.args[0] for record in caplog.records if record.args] == ["240.0.0.1"]


class FlakyState:
    """A socket state that fails as told, then works: what drivers without GSO and full sockets do."""

    def __init__(self, real: Any, failures: list[OSError | int]) -> None:
        self.real = real
        self.failures = failures
        self.gso_disabled = False

    def send(self, group: list[bytes], addr: Address) -> int:
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, OSError):
                raise failure
            return int(self.real.send(group[:failure], addr))
        return int(self.real.send(group, addr))

    def recv(self) -> list[tuple[bytes, Address]]:
        found: list[tuple[bytes, Address]] = self.real.recv()
        return found

    def disable_gso(self) -> None:
        self.gso_disabled = True


def flaky(sock: UdpSocket, *failures: OSError | int) -> FlakyState:
    state = FlakyState(sock._state, list(failures))
    sock._state = state
    return state


def test_segmentation_is_given_up_where_the_driver_refuses_it(make: Callable[..., UdpSocket]) -> None:
    a, b = make("offload"), make()
    state = flaky(a, OSError(errno.EIO, "no segmentation"))
    payloads = [bytes([index]) * 1200 for index in range(10)]
    assert a.send_batch([(data, b.local_address) for data in payloads]) == 10
    assert state.gso_disabled
    assert [data for data, _ in receive(b, 10)] == payloads


def test_a_full_socket_takes_a_prefix(make: Callable[..., UdpSocket]) -> None:
    a, b = make("offload"), make()
    flaky(a, 4, 0)
    payloads = [bytes([index]) * 1200 for index in range(10)]
    batch: list[tuple[bytes, Address]] = [(data, b.local_address) for data in payloads]
    assert a.send_batch(batch) == 4
    assert a.send_batch(batch[4:]) == 6
    assert [data for data, _ in receive(b, 10)] == payloads


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EMSGSIZE])
def test_anothers_refusal_in_the_middle_of_a_batch_loses_nothing(
    make: Callable[..., UdpSocket], number: int
) -> None:
    a, b = make("offload"), make()
    refused = OSError(number, "another peer's")
    refused.datagrams_sent = 0  # type: ignore[attr-defined]  # as qh3 reports the prefix that went out
    flaky(a, 3, refused, 2)
    payloads = [bytes([index]) * 1200 for index in range(10)]
    assert a.send_batch([(data, b.local_address) for data in payloads]) == 10
    assert [data for data, _ in receive(b, 10)] == payloads
    assert a.icmp_errors == 1


def test_offload_is_chosen_where_it_is_there(
    make: Callable[..., UdpSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make("auto").offload
    monkeypatch.setattr(udp, "_load_offload", lambda _: None)
    assert not make("auto").offload
    with pytest.raises(SocketError) as refused:
        make("offload")
    assert refused.value.code == "offload_missing"


@pytest.mark.skipif(sys.platform != "linux", reason="a socket option that only Linux has")
@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_nobody_cuts_datagrams_and_no_forged_size_is_believed(
    make: Callable[..., UdpSocket], batching: Batching, host: str
) -> None:
    a = make(batching, host)
    assert a.whole
    raw = socket.socket(fileno=socket.dup(a.fileno()))
    try:
        if host == "::1":
            assert raw.getsockopt(socket.IPPROTO_IPV6, 23) == 3  # IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE
            assert raw.getsockopt(socket.IPPROTO_IPV6, 62) == 1  # IPV6_DONTFRAG
        else:
            assert raw.getsockopt(socket.IPPROTO_IP, 10) == 3  # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE
    finally:
        raw.close()


def test_a_taken_port_is_told(make: Callable[..., UdpSocket]) -> None:
    first = make()
    with pytest.raises(SocketError) as refused:
        make(port=first.local_address[1])
    assert refused.value.code == "bind_failed"
    assert str(first.local_address[1]) in refused.value.sentence


def test_without_descriptors_there_is_a_code_and_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_towards(socket.AF_INET, ("127.0.0.1", 9)) == "127.0.0.1"

    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", none_left)
    with pytest.raises(SocketError, match="Too many open files") as refused:
        UdpSocket("127.0.0.1", 0)
    assert refused.value.code == "bind_failed"
    assert source_towards(socket.AF_INET, ("127.0.0.1", 9)) is None
