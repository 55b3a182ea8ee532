"""The check that projections add to `statelog verify`, by the entry point of the distribution."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from projections.io.check import check_against_fresh_fold
from projections.io.writer import Writer
from statelog.cli.verify import installed_checks, run_checks
from statelog.io.store import Store
from tests.support.authority import make_cluster
from tests.support.logs import new_store


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store whose log is projected to its end."""
    engine, _ = new_store(tmp_path / "node.db", make_cluster(now=int(time.time()) - 60))
    head = Store(engine).head()
    assert head is not None
    with Store(engine).writing() as connection:
        Writer(engine).catch_up_from_store(head.size, connection)
    engine.dispose()
    return f"sqlite:///{tmp_path / 'node.db'}"


def test_the_distribution_declares_it() -> None:
    assert installed_checks()["projections"] is check_against_fresh_fold


def test_sound_projections_pass_and_others_do_not(url: str) -> None:
    assert run_checks(url, installed_checks()) == (["projections"], [])
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        changed = connection.execute("UPDATE node SET trust_tier = 'trusted' WHERE display_name = 'relay-1'")
        assert changed.rowcount == 1
    connection.close()
    ran, (finding,) = run_checks(url, installed_checks())
    assert ran == ["projections"]
    assert finding.code == "SL-PROJECTION"
    assert finding.path.endswith(".trust_tier")
    assert (finding.expected, finding.found) == ("standard", "trusted")
