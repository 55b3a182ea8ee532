"""Messages of the route socket: as the kernel writes them, cut short, and made of noise."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import netlink
from fabric.netlink import Message

UP, RUNNING = 0x1, 0x40
TENTATIVE, DEPRECATED, DUPLICATE = 0x40, 0x20, 0x08


def message(kind: int, body: bytes) -> bytes:
    data = struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body
    return data + bytes(-len(data) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    data = struct.pack("=HH", 4 + len(value), kind) + value
    return data + bytes(-len(data) % 4)


def address_body(text: str, index: int = 2, flags: int = 0, *more: bytes, kind: int = 1) -> bytes:
    raw = ipaddress.ip_address(text).packed
    family = 2 if len(raw) == 4 else 10
    return struct.pack("=BBBBI", family, 24, flags & 0xFF, 0, index) + attribute(kind, raw) + b"".join(more)


def link_body(index: int, flags: int) -> bytes:
    return struct.pack("=BxHiII", 0, 1, index, flags, 0) + attribute(3, b"eth0\0")


@pytest.mark.parametrize("text", ["192.0.2.7", "2001:db8::7", "127.0.0.1", "fe80::1"])
def test_an_address_that_is_ready_is_found(text: str) -> None:
    [one] = netlink.messages(message(netlink.RTM_NEWADDR, address_body(text)))
    assert netlink.address(one) == (2, text)


@pytest.mark.parametrize("flag", [TENTATIVE, DEPRECATED, DUPLICATE])
def test_an_address_that_is_not_ready_is_not(flag: int) -> None:
    assert netlink.address(Message(netlink.RTM_NEWADDR, address_body("2001:db8::7", 2, flag))) is None
    # The attribute has more bits than the header, and counts.
    wide = attribute(8, struct.pack("=I", flag | 0x100))
    assert netlink.address(Message(netlink.RTM_NEWADDR, address_body("2001:db8::7", 2, 0, wide))) is None
    ready = attribute(8, struct.pack("=I", 0x80))
    body = address_body("2001:db8::7", 2, flag, ready)
    assert netlink.address(Message(netlink.RTM_NEWADDR, body)) == (2, "2001:db8::7")


def test_the_local_end_of_a_point_to_point_link_is_ours() -> None:
    local = attribute(2, ipaddress.ip_address("192.0.2.1").packed)
    body = address_body("192.0.2.2", 3, 0, local)
    assert netlink.address(Message(netlink.RTM_NEWADDR, body)) == (3, "192.0.2.1")


def test_another_message_is_no_address() -> None:
    assert netlink.address(Message(netlink.RTM_DELADDR, address_body("192.0.2.7"))) is None
    assert netlink.running_link(Message(netlink.RTM_DELLINK, link_body(2, UP | RUNNING))) is None


@pytest.mark.parametrize(
    ("flags", "found"), [(UP | RUNNING, 2), (UP, None), (RUNNING, None), (0, None), (UP | RUNNING | 0x8, 2)]
)
def test_a_link_counts_while_it_runs(flags: int, found: int | None) -> None:
    assert netlink.running_link(Message(netlink.RTM_NEWLINK, link_body(2, flags))) == found


def test_several_messages_in_one_datagram() -> None:
    data = message(16, link_body(1, UP)) + message(20, address_body("192.0.2.7")) + message(3, b"\0\0\0\0")
    assert [one.kind for one in netlink.messages(data)] == [16, 20, netlink.NLMSG_DONE]


def test_every_cut_yields_the_whole_messages_before_it() -> None:
    parts = [message(20, address_body(text)) for text in ("192.0.2.1", "192.0.2.2", "2001:db8::1")]
    data, ends = b"".join(parts), [len(b"".join(parts[: n + 1])) for n in range(3)]
    for cut in range(len(data) + 1):
        assert len(list(netlink.messages(data[:cut]))) == sum(end <= cut for end in ends)


@pytest.mark.parametrize("length", [0, 1, 15, 1000, 0xFFFFFFFF])
def test_a_length_that_lies_ends_the_reading(length: int) -> None:
    data = struct.pack("=IHHII", length, 20, 0, 0, 0) + bytes(20)
    assert list(netlink.messages(data)) == []
    assert list(netlink.messages(message(20, b"good") + data)) == [Message(20, b"good")]


@pytest.mark.parametrize("length", [0, 3, 200, 0xFFFF])
def test_an_attribute_that_lies_ends_the_reading(length: int) -> None:
    body = struct.pack("=BBBBI", 2, 24, 0, 0, 2) + struct.pack("=HH", length, 1) + bytes(4)
    assert netlink.address(Message(20, body)) is None


@pytest.mark.parametrize("raw", [b"", b"abc", bytes(5), bytes(16)])
def test_an_address_of_the_wrong_length_is_none(raw: bytes) -> None:
    body = struct.pack("=BBBBI", 2, 24, 0, 0, 2) + attribute(1, raw)
    assert netlink.address(Message(20, body)) is None


@given(st.binary(max_size=200), st.sampled_from([16, 17, 20, 21]))
def test_noise_never_hurts(noise: bytes, kind: int) -> None:
    for one in [*netlink.messages(noise), *netlink.messages(message(kind, noise))]:
        found, link = netlink.address(one), netlink.running_link(one)
        assert found is None or str(ipaddress.ip_address(found[1])) == found[1]
        assert link is None or isinstance(link, int)


def test_a_request_is_a_message_of_its_kind() -> None:
    [one] = netlink.messages(netlink.dump_request(netlink.RTM_GETADDR))
    assert one.kind == netlink.RTM_GETADDR
