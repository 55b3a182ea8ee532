"""Network namespaces in a row, joined by veth links, for tests that need real interfaces.

    with lab("a", "r", "b") as net:
        net.link("a", "r", "10.9.1", mtu=1500)       a has 10.9.1.1, r has 10.9.1.2
        with net.inside("b"):
            ...                                      sockets made here live in b, wherever they are used

The namespace is the thread's: what is made inside stays there. Skips where this is not allowed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000


class Lab:
    """The namespaces of one test; names as the test calls them."""

    def __init__(self) -> None:
        self._prefix = f"fab{os.getpid()}"
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.names: list[str] = []
        self._links = 0

    def ip(self, name: str, *arguments: str) -> None:
        """`ip` with these arguments in a namespace."""
        _ip("-n", self._full(name), *arguments)

    def add(self, name: str) -> None:
        _ip("netns", "add", self._full(name))
        self.names.append(name)
        self.ip(name, "link", "set", "lo", "up")
        with self.inside(name):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")

    def link(self, one: str, other: str, net: str, *, mtu: int = 1500) -> None:
        """A /24 between two namespaces: `one` gets .1, `other` .2, on interfaces named after the far end."""
        self._links += 1
        first, second = f"v{self._links}x{os.getpid()}", f"v{self._links}y{os.getpid()}"
        _ip("link", "add", first, "type", "veth", "peer", "name", second)
        for name, far, made, number in ((one, other, first, 1), (other, one, second, 2)):
            _ip("link", "set", made, "netns", self._full(name), "name", f"to-{far}")
            self.ip(name, "addr", "add", f"{net}.{number}/24", "dev", f"to-{far}")
            self.ip(name, "link", "set", f"to-{far}", "mtu", str(mtu), "up")

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """This thread in a namespace."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            target = os.open(f"/run/netns/{self._full(name)}", os.O_RDONLY)
            try:
                self._enter(target)
            finally:
                os.close(target)
            try:
                yield
            finally:
                self._enter(before)
        finally:
            os.close(before)

    def close(self) -> None:
        for name in self.names:
            _ip("netns", "del", self._full(name))

    def _full(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _enter(self, descriptor: int) -> None:
        if self._libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def lab(*names: str) -> Iterator[Lab]:
    """Namespaces of these names, gone afterwards."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    made = Lab()
    try:
        try:
            for name in names:
                made.add(name)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespaces here: {error}")
        yield made
    finally:
        made.close()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)
