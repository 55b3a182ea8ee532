"""A witness over real HTTPS: the statuses and bodies of C2SP tlog-witness, and clients that keep no rules."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from statelog import limits
from statelog.checkpoint import verify_cosignature, witness_key
from statelog.io import witness_http
from statelog.io.database import open_database
from statelog.io.entries import StoreEntries
from statelog.io.store import Store
from statelog.io.witness_http import create_app
from statelog.io.witnessing import WitnessHost
from statelog.note import parse_signature_lines
from statelog.witness import encode_add_checkpoint
from tests.support.authority import Cluster, make_cluster, signer
from tests.support.https import Site, https_served
from tests.support.logs import head_note, new_store, replay_of, request_body

NAME = "witness-1.example"


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return make_cluster()


@pytest.fixture
def site(tmp_path: Path, cluster: Cluster) -> Iterator[Site]:
    """A witness that reads the cluster's store and remembers in its own."""
    engine, _ = new_store(tmp_path / "log.db", cluster)
    memory = open_database(f"sqlite:///{tmp_path / 'witness.db'}", create=True)
    host = WitnessHost(
        cluster.anchor,
        NAME,
        signer("witness-1"),
        Store(memory),
        StoreEntries(Store(engine)),
        lambda: cluster.now,
    )
    with https_served(create_app(host), tmp_path) as served:
        yield served
    engine.dispose()
    memory.dispose()


def post(site: Site, body: bytes) -> httpx.Response:
    return httpx.post(f"{site.url}/add-checkpoint", content=body, verify=site.tls(), timeout=30)


def test_a_cosignature_over_https(site: Site, cluster: Cluster) -> None:
    answer = post(site, request_body(cluster, 0, 5))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    (line,) = parse_signature_lines(answer.content)
    note = head_note(replay_of(cluster, 5)).decode().partition("\n\n")[0] + "\n"
    assert verify_cosignature(note, line, witness_key(NAME, signer("witness-1").public)) == cluster.now


def test_every_status_of_the_protocol(site: Site, cluster: Cluster) -> None:
    """In the order of the specification, each beside a request that passes the same check."""
    size = cluster.log.size
    whole = request_body(cluster, 0, size)
    other = request_body(
        cluster, 0, size, head_note(replay_of(cluster)).replace(b"authority\n", b"elsewhere\n", 1)
    )
    stranger = request_body(cluster, 0, 5, head_note(replay_of(cluster, 5), "root-1"))
    assert post(site, b"nonsense").status_code == 400
    assert post(site, other).status_code == 404
    assert post(site, stranger).status_code == 403
    assert post(site, request_body(cluster, 0, 5)).status_code == 200
    assert post(site, encode_add_checkpoint(size + 1, [], head_note(replay_of(cluster)))).status_code == 400
    conflict = post(site, whole)
    assert (conflict.status_code, conflict.content) == (409, b"5\n")
    assert conflict.headers["content-type"] == "text/x.tlog.size"
    broken = encode_add_checkpoint(5, [b"\0" * 32], head_note(replay_of(cluster)))
    assert post(site, broken).status_code == 422
    assert post(site, request_body(cluster, 5, size)).status_code == 200


def test_a_source_that_lacks_the_entries_is_503(site: Site, cluster: Cluster) -> None:
    grown = make_cluster()
    grown.append(grown.lease("route-beyond"))
    assert post(site, request_body(cluster, 0, cluster.log.size)).status_code == 200
    assert post(site, request_body(grown, cluster.log.size, grown.log.size)).status_code == 503


def test_what_is_not_the_protocol(site: Site) -> None:
    get = httpx.get(f"{site.url}/add-checkpoint", verify=site.tls())
    assert (get.status_code, get.headers["allow"]) == (405, "POST")
    assert httpx.post(f"{site.url}/elsewhere", verify=site.tls()).status_code == 404
    assert httpx.get(f"{site.url}/healthz", verify=site.tls()).text == f"{NAME}\n"


def request_head(length: int) -> bytes:
    return b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: %d\r\n\r\n" % length


def read_all(connection: ssl.SSLSocket) -> bytes:
    data = b""
    while chunk := connection.recv(65_536):
        data += chunk
    return data


def test_a_huge_body_is_refused_while_it_is_read(site: Site, cluster: Cluster) -> None:
    assert post(site, b"x" * (limits.MAX_ADD_CHECKPOINT_BYTES + 1)).status_code == 413
    assert post(site, b"x" * limits.MAX_ADD_CHECKPOINT_BYTES).status_code == 400
    with site.connect() as connection:  # chunked: no length is declared, and the sender never ends
        connection.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n")
        most = limits.MAX_ADD_CHECKPOINT_BYTES
        connection.sendall(b"%x\r\n%b\r\n" % (most, b"x" * most))
        connection.sendall(b"1\r\nx\r\n")  # and no more, or its end might break the answer off
        assert connection.recv(12) == b"HTTP/1.1 413"
    assert post(site, request_body(cluster, 0, 5)).status_code == 200


def test_a_truncated_body_changes_nothing(site: Site, cluster: Cluster) -> None:
    body = request_body(cluster, 0, 5)
    with site.connect() as connection:
        connection.sendall(request_head(len(body)) + body[:-1])
        connection.shutdown(socket.SHUT_WR)
        read_all(connection)
    assert post(site, request_body(cluster, 0, 9)).status_code == 200  # it is still at 0


def test_a_slow_body_is_given_up(site: Site, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness_http, "WITNESS_BODY_TIMEOUT_S", 0.2)
    body = request_body(cluster, 0, 5)
    with site.connect() as connection:
        connection.sendall(request_head(len(body)) + body[:10])
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert post(site, body).status_code == 200


def test_a_slow_head_is_hung_up_on(site: Site, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTPS_HEAD_TIMEOUT_S", 0.2)
    with site.connect() as silent, site.connect() as slow:
        slow.sendall(b"POST /add-chec")
        assert read_all(silent) == read_all(slow) == b""
    assert post(site, request_body(cluster, 0, 5)).status_code == 200


def test_a_huge_head_is_refused(site: Site, cluster: Cluster) -> None:
    with site.connect() as connection:
        connection.sendall(
            b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nX: " + b"x" * 2 * limits.HTTPS_HEAD_BYTES
        )
        assert read_all(connection).startswith(b"HTTP/1.1 400")
    assert post(site, request_body(cluster, 0, 5)).status_code == 200


def test_a_connection_serves_many_requests(site: Site, cluster: Cluster) -> None:
    with httpx.Client(base_url=site.url, verify=site.tls()) as client:
        statuses = [
            client.post("/add-checkpoint", content=request_body(cluster, old, new)).status_code
            for old, new in ((0, 5), (0, 6), (5, 9), (9, 12))
        ]
    assert statuses == [200, 409, 200, 200]
