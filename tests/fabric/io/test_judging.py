"""Records from outside that somebody forged, or wants to keep from a node."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from statelog.audit_store import StoredAhead
from statelog.canonical import encode
from statelog.signing import record_id_of
from tests.fabric.io.test_replica import SERVICE, Site
from tests.support.authority import make_cluster, node_id


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(make_cluster(), tmp_path / "node.db")
    yield made
    made.replica.close()


def test_what_a_restored_store_says_acts_only_if_it_is_signed(site: Site) -> None:
    """Rows of what acts ahead of the log are in a backup, and whoever holds the file can add some."""
    site.follow()
    true = site.cluster.revocation({"node_id": node_id("home-1")})
    assert site.replica.judge(encode(true)).state == "candidate"
    site.restart()
    assert site.opened.snapshot.revoked(node_id("home-1"))
    forged = copy.deepcopy(site.cluster.revocation({"node_id": node_id("phone-a")}))
    for signature in forged["signatures"]:
        signature["value"] = "A" * 86 + "=="
    with site.replica.store.writing() as connection:
        row = StoredAhead(
            record_id_of(forged), forged["schema_version"], "x", 1, 1 << 40, site.cluster.now, encode(forged)
        )
        site.replica.store.ahead_put(row, connection)
    site.restart()
    assert site.opened.snapshot.revoked(node_id("home-1"))
    assert not site.opened.snapshot.revoked(node_id("phone-a"))


def test_only_a_records_own_bytes_speak_against_it(site: Site) -> None:
    """Of a revocation that a peer would rather keep from this node."""
    site.follow()
    wanted = site.cluster.revocation({"node_id": node_id("phone-a")})
    record_id = record_id_of(wanted)
    other = site.cluster.registry(SERVICE, lifetime_s=60)
    site.now += 120
    worse = copy.deepcopy(wanted)
    worse["signatures"].append({**worse["signatures"][0], "key_id": "f" * 64})
    worse["signatures"].sort(key=lambda one: one["key_id"])
    for data in (encode(other), b"{}", b"no JSON", encode(worse)):
        refused = site.replica.judge(data, record_id)
        assert refused.record_id == record_id
        assert refused.refusal is not None
        assert refused.refusal.copy_only, refused
    assert site.replica.judge(encode(wanted), record_id).state == "candidate"
    late = site.replica.judge(encode(other), record_id_of(other))
    assert late.refusal is not None
    assert not late.refusal.copy_only, "its own bytes have expired"
