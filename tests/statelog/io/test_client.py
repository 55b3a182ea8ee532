"""The control API's client: verified TLS, bounded answers, the server's refusals as findings."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from statelog import limits
from statelog.errors import Refused, SourceUnreadable, UsageError
from statelog.io.client import ControlClient, SubmitResult

ID = "ab" * 32
Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler, **options: Any) -> ControlClient:
    return ControlClient("https://api.example:8443", transport=httpx.MockTransport(handler), **options)


def submitted(handler: Handler) -> SubmitResult:
    with client(handler) as api:
        return api.submit(b"{}")


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def answer(status: int, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, content=pieces(body), headers=headers)


def answering(status: int, body: Any = None, **headers: str) -> Handler:
    return lambda _: answer(status, orjson.dumps(body), headers)


RECEIPT = {"record_id": ID, "final": True, "log_index": 7, "duplicate": False}


@pytest.mark.parametrize(
    ("status", "body", "final", "index"),
    [
        (201, RECEIPT, True, 7),
        (200, RECEIPT, True, 7),
        (202, {**RECEIPT, "final": False}, False, 7),
        (202, {**RECEIPT, "final": False, "log_index": None}, False, None),
        (202, RECEIPT, False, 7),  # 202 never means final, whatever the body claims
        (201, {"record_id": ID, "log_index": "7"}, False, None),
    ],
)
def test_a_submission_is_final_only_when_the_answer_says_so(
    status: int, body: dict[str, Any], final: bool, index: int | None
) -> None:
    result = submitted(answering(status, body, location=f"/v1/records/{ID}"))
    assert (result.record_id, result.final, result.log_index) == (ID, final, index)
    assert result.status_url == f"/v1/records/{ID}"


def test_what_is_sent() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answer(201, orjson.dumps(RECEIPT))

    with client(handler, token="let-me-in") as api:
        api.submit(b'{"a":1}', 12.5)
    (request,) = seen
    assert (request.method, request.url.path, request.content) == ("POST", "/v1/records", b'{"a":1}')
    assert request.headers["prefer"] == "wait=12.5"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer let-me-in"


def test_a_refusal_is_a_finding() -> None:
    problem = {
        "type": "/v1/errors/SL-QUORUM",
        "status": 403,
        "detail": "1 more must sign",
        "code": "SL-QUORUM",
        "path": "signatures",
        "expected": "2 of 3",
        "found": "1",
    }
    with pytest.raises(Refused) as caught:
        submitted(answering(403, problem))
    finding = caught.value.finding
    assert (finding.code, finding.sentence, finding.path) == ("SL-QUORUM", "1 more must sign", "signatures")
    assert (finding.expected, finding.found) == ("2 of 3", "1")


@pytest.mark.parametrize(
    "handler",
    [
        answering(503, {"code": "API-STORE", "detail": "the store does not answer"}),
        answering(500, None),
        answering(404, ["nothing"]),
        answering(302, None, location="https://elsewhere.example/"),
        answering(201, {"log_index": 3}),
        answering(200, [RECEIPT]),
        lambda _: answer(201, b"<html>"),
        lambda _: answer(201, b"x" * (limits.API_ANSWER_MAX_BYTES + 1)),
    ],
)
def test_other_answers_are_no_source(handler: Handler) -> None:
    assert submitted(answering(201, RECEIPT)).final  # the valid twin
    with pytest.raises(SourceUnreadable, match=r"api\.example|not (a )?JSON"):
        submitted(handler)


def test_an_endless_answer_is_cut_off() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 1_000_000

    with (
        client(lambda _: httpx.Response(200, content=endless())) as api,
        pytest.raises(SourceUnreadable, match="more than"),
    ):
        api.status()
    assert sent <= limits.API_ANSWER_MAX_BYTES // 1_000_000 + 2


def test_reading() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return answer(200, orjson.dumps({"path": str(request.url.raw_path, "ascii")}))

    with client(handler) as api:
        assert api.status() == {"path": "/v1/status"}
        assert api.record("../x") == {"path": "/v1/records/..%2Fx"}
        assert api.get("/v1/records", limit=2) == {"path": "/v1/records?limit=2"}


def test_an_answer_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece comes soon, and the whole never."""
    monkeypatch.setattr("statelog.io.client.ANSWER_S", 0.3)

    async def drip() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)  # a server that is slow
            yield b" "

    with (
        client(lambda _: httpx.Response(200, content=drip())) as api,
        pytest.raises(SourceUnreadable, match=r"within 0\.3 s"),
    ):
        api.status()


def test_a_packed_answer_was_not_asked_for() -> None:
    packed = answer(200, gzip.compress(b"{}"), {"content-encoding": "gzip"})
    with client(lambda _: packed) as api, pytest.raises(SourceUnreadable, match="not asked for"):
        api.status()


@pytest.mark.parametrize("url", ["http://api.example", "api.example", "https://", "quic://api.example:1", ""])
def test_only_https_is_spoken(url: str) -> None:
    with pytest.raises(UsageError, match="https://"):
        ControlClient(url)


def test_a_certificate_file_must_be_one(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    with pytest.raises(UsageError, match=r"ca\.pem: no such file"):
        ControlClient("https://api.example", path)
    for content in (b"", b"not a certificate"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="certificate file"):
            ControlClient("https://api.example", path)


# -- real TLS --


def make_certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / f"{name}.pem"
    path.write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    return path


class Api(BaseHTTPRequestHandler):
    """Answers every GET with a status."""

    def do_GET(self) -> None:
        body = orjson.dumps({"ok": True})
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing on the test's terminal."""
        return


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    pem = make_certificate(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with HTTPServer(("127.0.0.1", 0), Api) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listening.server_port}", pem
        finally:
            listening.shutdown()
            thread.join()


def test_the_named_certificate_is_trusted_and_no_other(server: tuple[str, Path], tmp_path: Path) -> None:
    url, pem = server
    with ControlClient(url, pem) as api:
        assert api.status() == {"ok": True}
    for ca in (None, make_certificate(tmp_path, "another")):
        with (
            ControlClient(url, ca) as api,
            pytest.raises(SourceUnreadable, match="certificate verify failed"),
        ):
            api.status()
    elsewhere = ControlClient(url.replace("127.0.0.1", "localhost"), pem)
    with elsewhere as api, pytest.raises(SourceUnreadable, match=r"[Hh]ostname mismatch"):
        api.status()


def test_nobody_there_is_said() -> None:
    with (
        ControlClient("https://127.0.0.1:1") as api,
        pytest.raises(SourceUnreadable, match="cannot be reached"),
    ):
        api.status()
