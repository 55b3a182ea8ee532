"""The few messages of Linux's route socket that tell which addresses the machine has. Pure.

Sources: rtnetlink(7), netlink(7), linux/rtnetlink.h, linux/if_addr.h. What is malformed ends the reading of
its buffer and hurts nothing: the list is asked for anew with every change.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass

NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
CHANGES = frozenset((RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR))
"""Messages after which the machine may have other addresses."""

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")
_REQUEST_DUMP = 0x1 | 0x300
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_NOT_READY = 0x08 | 0x20 | 0x40  # duplicate, deprecated, tentative
_FAMILIES = {2: 4, 10: 16}  # AF_INET, AF_INET6 and the bytes of their addresses


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message: its type and what follows the header."""

    kind: int
    body: bytes


def dump_request(kind: int) -> bytes:
    """Ask for all links (`RTM_GETLINK`) or all addresses (`RTM_GETADDR`)."""
    body = bytes(_LINK.size)
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_DUMP, 1, 0) + body


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram, as far as it is well-formed."""
    at = 0
    while len(data) - at >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if not _HEADER.size <= length <= len(data) - at:
            return
        yield Message(kind, data[at + _HEADER.size : at + length])
        at += _aligned(length)


def running_link(message: Message) -> int | None:
    """The index of a link that is up and has a carrier; None for anything else."""
    if message.kind != RTM_NEWLINK or len(message.body) < _LINK.size:
        return None
    _, _, index, flags, _ = _LINK.unpack_from(message.body)
    return int(index) if flags & _IFF_UP and flags & _IFF_RUNNING else None


def address(message: Message) -> tuple[int, str] | None:
    """The link's index and the address in its canonical text, where it may be used; else None."""
    if message.kind != RTM_NEWADDR or len(message.body) < _ADDRESS.size:
        return None
    family, _, flags, _, index = _ADDRESS.unpack_from(message.body)
    found = dict(_attributes(message.body[_ADDRESS.size :]))
    if len(found.get(_IFA_FLAGS, b"")) == 4:
        flags = int.from_bytes(found[_IFA_FLAGS], "little" if struct.pack("=H", 1)[0] else "big")
    raw = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS, b""))
    if flags & _NOT_READY or len(raw) != _FAMILIES.get(family):
        return None
    return index, str(ipaddress.ip_address(raw))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while len(data) - at >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= length <= len(data) - at:
            return
        yield kind, data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
