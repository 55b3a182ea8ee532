"""Cosignatures over HTTPS: one honest witness server, and servers that keep no rules."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from statelog.errors import UsageError
from statelog.io import cosign
from statelog.io.cosign import Collected, HttpsWitnesses, collect
from statelog.io.database import open_database
from statelog.io.entries import StoreEntries
from statelog.io.loading import load_replay
from statelog.io.store import Store
from statelog.io.witness_http import create_app
from statelog.io.witnessing import WitnessHost
from statelog.limits import WITNESS_ANSWER_BYTES
from tests.support import logs
from tests.support.authority import Cluster, make_cluster, signer
from tests.support.https import Script, Site, https_served, scripted_https

FIRST = "witness-1.example"


class Log:
    """A store whose witnesses 2 and 3 answer in memory, 4 is away, and 1 has the address under test."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.cluster = cluster
        self.engine, _ = logs.new_store(folder / "log.db", cluster)
        self.store = Store(self.engine)
        self.hosts = {
            f"{name}.example": logs.WitnessHost(cluster, name) for name in ("witness-2", "witness-3")
        }

    def collect(self, site: Site, ca_file: Path | None) -> Collected:
        async def main() -> Collected:
            remote = HttpsWitnesses({FIRST: site.url}, ca_file)

            async def ask(name: str, body: bytes) -> tuple[int, bytes]:
                if name in remote:
                    return await remote.ask(name, body)
                reply = self.hosts[name].ask(body)
                return reply.status, reply.body

            replay = load_replay(self.store, self.cluster.anchor)
            try:
                return await collect(self.store, replay, ask, clock=lambda: float(self.cluster.now))
            finally:
                await remote.aclose()

        return asyncio.run(main())


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path, make_cluster())
    yield made
    made.engine.dispose()


def test_a_cosignature_over_https_makes_a_head_final(log: Log, tmp_path: Path) -> None:
    memory = open_database(f"sqlite:///{tmp_path / 'witness.db'}", create=True)
    host = WitnessHost(
        log.cluster.anchor,
        FIRST,
        signer("witness-1"),
        Store(memory),
        StoreEntries(log.store),
        lambda: float(log.cluster.now),
    )
    with https_served(create_app(host), tmp_path) as site:
        untrusted = log.collect(site, None)
        assert (untrusted.final, "certificate" in untrusted.failures[FIRST]) == (False, True)
        assert log.collect(site, site.ca_file).final
    stored = [one.name for one in log.store.cosignatures(log.cluster.log.size)]
    assert stored == [FIRST, *log.hosts]
    memory.dispose()


def http(status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> Script:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return lambda _: head.encode() + b"Connection: close\r\n\r\n" + body


def forged(_: bytes) -> bytes:
    """A line of the right shape under the right name, by another key."""
    line = logs.cosigned(logs.head_note(logs.replay_of(make_cluster())), ["witness-2"]).split(b"\n")[-2]
    return http(200, line.replace(b"witness-2", b"witness-1") + b"\n")(b"")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (http(200, b"x" * (WITNESS_ANSWER_BYTES + 1)), "more than"),
        (lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\ncut", "cannot be reached"),
        (lambda _: b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20), "cannot be reached"),
        (lambda _: None, "did not answer within"),
        (lambda _: b"", "cannot be reached"),
        (http(302, b""), "answered 302"),
        (http(409, b"12\n"), "without a size"),
        (http(409, b"0\n", "text/x.tlog.size"), "keeps moving"),
        (http(409, b"99999999999\n", "text/x.tlog.size"), "larger head"),
        (http(409, b"-1\n", "text/x.tlog.size"), "SL-CHECKPOINT"),
        (forged, "SL-COSIGNATURE"),
    ],
)
def test_a_hostile_witness_is_reported_and_nothing_of_it_is_kept(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Script, said: str
) -> None:
    monkeypatch.setattr(cosign, "WITNESS_ASK_TIMEOUT_S", 1.0)
    with scripted_https(script, tmp_path) as site:
        collected = log.collect(site, site.ca_file)
    assert not collected.final
    assert said in collected.failures[FIRST]
    assert [one.name for one in log.store.cosignatures(log.cluster.log.size)] == list(log.hosts)


def test_a_witness_that_holds_another_head_of_this_size_is_told_apart(log: Log, tmp_path: Path) -> None:
    size = log.cluster.log.size
    with scripted_https(http(409, f"{size}\n".encode(), "text/x.tlog.size"), tmp_path) as site:
        assert "SL-CONSISTENCY" in log.collect(site, site.ca_file).failures[FIRST]


@pytest.mark.parametrize("url", ["http://w.example", "https://", "w.example", "https://[::"])
def test_only_https_addresses(url: str) -> None:
    with pytest.raises(UsageError, match="https"):
        HttpsWitnesses({FIRST: url})
