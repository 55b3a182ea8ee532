"""Signers who have a replica's address and the anchor, and nothing else: fetch, review, sign, hand in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from control_api.app import create_app
from statelog import ceremony
from statelog.cli.main import main
from tests.control_api.replica import Replica, make_replica
from tests.support.authority import make_cluster, signer
from tests.support.https import Site, https_served
from tests.support.keysources import seed_variable


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Replica]:
    """A replica whose cluster began a minute ago, since commands go by the machine's clock."""
    made = make_replica(tmp_path, make_cluster(now=int(time.time()) - 60))
    yield replace(made, clock=time.time)  # type: ignore[arg-type]  # any clock will do
    made.engine.dispose()


@pytest.fixture
def site(live: Replica, tmp_path: Path) -> Iterator[Site]:
    app = create_app(live.settings, signer=signer("sequencer-1"))
    with https_served(app, tmp_path) as served:
        yield served


@pytest.fixture
def request_file(live: Replica, tmp_path: Path) -> Path:
    """What an operator at the host drafted."""
    (tmp_path / "d.json").write_text('{"allow": ["192.0.2.0/24"]}')
    path = tmp_path / "p.sigreq"
    draft = ("propose", "policy.epoch", "--policy", "probe", "--document", tmp_path / "d.json")
    assert command(*draft, "--store", tmp_path / "node.db", "--root", live.cluster.anchor, "--out", path) == 0
    return path


def command(*arguments: object) -> object:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def test_signers_need_an_address_and_the_anchor(
    live: Replica,
    site: Site,
    request_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for n in (1, 2):
        seed = sha256(f"key of a test cluster: control-{n}".encode()).digest()
        monkeypatch.setenv(f"KEY_{n}", seed_variable(seed))
    ground = ("--store", f"{site.url}/log/authority", "--ca", site.ca_file, "--root", live.cluster.anchor)
    digest = ceremony.decode_request(request_file.read_bytes()).record_id

    capsys.readouterr()
    assert command("diff", request_file, *ground) == 0
    shown = capsys.readouterr().out
    assert '+ document.allow[0]: "192.0.2.0/24"' in shown
    assert digest in shown
    for n in (1, 2):
        assert command("sign", request_file, "--key", f"env:KEY_{n}", *ground, "--digest", digest) == 0
    assert command("status", request_file, *ground) == 0
    assert "2 of 2; complete" in capsys.readouterr().out

    size = live.store.head().size  # type: ignore[union-attr]  # the replica has a log
    submit = ("submit", request_file, "--api", site.url, "--ca", site.ca_file, "--wait", 0)
    assert command(*submit) == 0
    assert live.store.find(digest) == size
    live.finalize()
    assert command(*submit) == 0
    assert "final: entry" in capsys.readouterr().out


def test_an_address_with_another_anchor_or_certificate_shows_nothing(
    live: Replica, site: Site, request_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = ("diff", request_file, "--store", f"{site.url}/log/authority")
    capsys.readouterr()
    assert command(*address, "--ca", site.ca_file, "--root", "ab" * 32) == 1
    assert command(*address, "--root", live.cluster.anchor) == 3  # nobody vouches for the certificate
    assert command(*address, "--ca", site.ca_file) == 2  # no anchor
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "SL-ANCHOR" in printed.err
