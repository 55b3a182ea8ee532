"""Named risks at the command line: not drafted and not submitted without a word."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from statelog import canonical
from statelog.risks import RISKS
from statelog.state import ROUTE
from tests.statelog.cli.conftest import Farm, Run
from tests.support.authority import key_entry

ACCEPT = "--accept-risk=last-online-signer"


@pytest.fixture
def change(tmp_path: Path) -> list[object]:
    """The options of a draft that leaves route authority with offline keys only."""
    options: list[object] = ["--role", ROUTE, "--threshold", 2]
    for n in (4, 5):
        path = tmp_path / f"route-{n}.json"
        path.write_bytes(orjson.dumps(key_entry(f"route-{n}", custody="offline")))
        options += ["--add", path]
    for n in (1, 2, 3):
        options += ["--drop", f"keeper-of-route-{n}"]
    return options


def test_a_draft_asks_for_the_name(farm: Farm, run: Run, tmp_path: Path, change: list[object]) -> None:
    out = tmp_path / "m.sigreq"
    draft = ("propose", "authority.members", *change, "--store", farm.path, "--out", out)
    said = run(*draft)
    assert (said.code, "SL-RISK" in said.err, ACCEPT in said.err) == (1, True, True), said.err
    assert not out.exists()
    wrong = run(*draft, "--accept-risk", "everything")
    assert (wrong.code, "there are last-online-signer" in wrong.err) == (2, True)
    assert run(*draft, ACCEPT).code == 0


def test_a_signer_sees_the_risk_in_words(farm: Farm, run: Run, tmp_path: Path, change: list[object]) -> None:
    out = tmp_path / "m.sigreq"
    where = ("--store", farm.path, "--root", farm.anchor)
    assert run("propose", "authority.members", *change, *where, "--out", out, ACCEPT).code == 0
    sentence = RISKS["last-online-signer"]
    body = run("diff", out, *where, "-o", "json").json
    assert [(one["name"], sentence in one["sentence"]) for one in body["risks"]] == [
        ("last-online-signer", True)
    ]
    shown = run("sign", out, "--key", "env:KEY_CONTROL_1", *where, stdin="n\n").out
    (line,) = [line for line in shown.splitlines() if line.startswith("RISK")]
    assert sentence in line
    assert shown.index("RISK") < shown.index("digest")


def test_so_does_a_submission(farm: Farm, run: Run, tmp_path: Path) -> None:
    keys = [key_entry(f"route-{n}", custody="offline") for n in (4, 5)]
    path = tmp_path / "record.json"
    path.write_bytes(canonical.encode(farm.cluster.members(ROUTE, keys=keys)))
    submit = ("submit", path, "--store", farm.path, "--root", farm.anchor, "--wait", 0)
    for submission in (submit, ("submit", path, "--api", "https://127.0.0.1:1")):
        said = run(*submission)
        assert (said.code, "SL-RISK" in said.err) == (1, True), said.err
    assert farm.store.outbox_pending(10) == []
    accepted = run(*submit, ACCEPT)
    assert (accepted.code, "risk accepted: route-authority: no key" in accepted.err) == (0, True)
    assert len(farm.store.outbox_pending(10)) == 1
