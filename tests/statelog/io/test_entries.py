"""Sources of entries for a witness: tiles over HTTPS and databases."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from statelog.errors import SourceUnreadable, UsageError
from statelog.io import resources
from statelog.io.entries import open_entries
from statelog.limits import MAX_LEAF_BYTES, TILE_WIDTH
from statelog.tiles import encode_bundle, tile_path
from tests.support.authority import make_cluster
from tests.support.https import scripted_https
from tests.support.logs import new_store

LEAVES = [b"leaf %d" % n for n in range(600)]


def http(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def static_server(request: bytes, *, partial: bool = True) -> bytes:
    """The log as files; without `partial` only full bundles are left."""
    path = request.split(b" ")[1].decode().removeprefix("/log/authority/")
    for index in range(3):
        width = min(TILE_WIDTH, len(LEAVES) - index * TILE_WIDTH)
        for each in range(1, width + 1):
            if path == tile_path("entries", index, each) and (partial or each == TILE_WIDTH):
                return http(encode_bundle(LEAVES[index * TILE_WIDTH :][:each]))
    return http(b"", "404 Not Found")


async def read(source: str, ca: Path | None, start: int, end: int) -> list[bytes]:
    async with open_entries(source, ca) as opened:
        return await asyncio.to_thread(opened.read, start, end)


def test_leaves_come_bundle_by_bundle(tmp_path: Path) -> None:
    with scripted_https(static_server, tmp_path) as site:
        prefix = f"{site.url}/log/authority"
        for start, end, found in ((0, 5, 5), (0, 300, 256), (250, 300, 6), (256, 600, 256), (599, 600, 1)):
            got = asyncio.run(read(prefix, site.ca_file, start, end))
            assert got == LEAVES[start : start + found]
        assert asyncio.run(read(prefix, site.ca_file, 600, 601)) == []


def test_a_full_bundle_stands_in_for_a_partial_one(tmp_path: Path) -> None:
    with scripted_https(lambda request: static_server(request, partial=False), tmp_path) as site:
        prefix = site.url + "/log/authority"
        assert asyncio.run(read(prefix, site.ca_file, 3, 9)) == LEAVES[3:9]
        assert asyncio.run(read(prefix, site.ca_file, 513, 600)) == []  # no full bundle there yet


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http(b"\0\5abc"), "SL-TILE"),
        (http(b"", "500 Internal Server Error"), "answered 500"),
        (http(b"", "302 Found\r\nLocation: https://elsewhere.example/"), "redirects"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "cannot be reached"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (5 * (MAX_LEAF_BYTES + 2) + 1), "more than"),
        (b"garbage\r\n\r\n", "cannot be reached"),
        (None, "cannot be reached"),
    ],
)
def test_a_hostile_source_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, said: str
) -> None:
    if answer is None:
        monkeypatch.setattr(resources, "RESOURCE_STALL_S", 0.2)
    with (
        scripted_https(lambda _: answer, tmp_path) as site,
        pytest.raises(SourceUnreadable, match=said),
    ):
        asyncio.run(read(site.url, site.ca_file, 0, 5))


def test_tls_is_verified(tmp_path: Path) -> None:
    with (
        scripted_https(static_server, tmp_path) as site,
        pytest.raises(SourceUnreadable, match="certificate"),
    ):
        asyncio.run(read(site.url, None, 0, 5))


def test_a_database_is_a_source(tmp_path: Path) -> None:
    cluster = make_cluster()
    new_store(tmp_path / "log.db", cluster)[0].dispose()
    url = f"sqlite:///{tmp_path / 'log.db'}"
    assert asyncio.run(read(url, None, 2, 7)) == cluster.leaves()[2:7]
    assert asyncio.run(read(url, None, 2, 10_000)) == cluster.leaves()[2:]
    assert asyncio.run(read(url, None, cluster.log.size, 10_000)) == []


@pytest.mark.parametrize("source", ["http://127.0.0.1/log", "https://", "ftp://x", "sqlite:///no/such.db"])
def test_what_is_no_source(source: str) -> None:
    with pytest.raises((UsageError, SourceUnreadable)):
        asyncio.run(read(source, None, 0, 1))
