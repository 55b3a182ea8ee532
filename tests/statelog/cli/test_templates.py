"""Drafting: every kind from options, files and what is in force; what cannot pass is not written."""

from __future__ import annotations

import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from statelog import canonical, ceremony
from statelog.ceremony import Request
from statelog.cli.templates import TEMPLATES
from statelog.io.sequencer import Sequencer, Submitted
from statelog.records import KINDS
from statelog.signing import encode_base64
from statelog.state import RECOVERY
from tests.statelog.cli.conftest import Farm, Run
from tests.support.authority import DAY_S, HOUR_S, NODES, QUORUMS, STORES, key_entry, key_id, node_id, signer


def read(path: Path) -> Request:
    return ceremony.decode_request(path.read_bytes())


def submit(farm: Farm, *records: dict[str, Any]) -> None:
    """Sequence the records."""
    sequencer = Sequencer(farm.store, farm.anchor, signer("sequencer-1"))
    for record in records:
        (outcome,) = sequencer.submit_many([canonical.encode(record)], int(time.time()))
        assert isinstance(outcome, Submitted), outcome


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "probe.json"
    path.write_text('{ "allow": ["192.0.2.0/24"] }')
    return path


HOPS = [part for name in ("phone-a", "relay-1", "home-1") for part in ("--hop", node_id(name))]
DRAFTS: dict[str, tuple[Any, ...]] = {
    "node.approval": ("--public", encode_base64(signer("node:desk").public), "--name", "Desk"),
    "role.certificate": ("--node-id", node_id("relay-1"), "--role", "relay", "--action", "*"),
    "role.revocation": ("--node-id", node_id("relay-1"), "--reason", "stolen"),
    "registry.record": (
        *("--service", "web-admin", "--endpoint"),
        f"quic://192.0.2.7:4433,pin={'ab' * 32},node={node_id('home-1')},priority=5",
    ),
    "route.lease": ("--route-id", "r7", "--partition", "eu-1", "--service", "rdp", *HOPS, "--class", "bulk"),
    "route.fence": ("--partition", "eu-1", "--reason", "split"),
    "service.lease": (
        "--service",
        "web-admin",
        "--replica",
        node_id("home-1"),
        "--leader",
        node_id("home-1"),
    ),
    "relay.assignment": ("--partition", "eu-1", "--rendezvous", node_id("home-1")),
    "bootstrap.seed_set": (
        *("--platform", "linux", "--site", "home", "--endpoint"),
        f"quic://192.0.2.7:4433,pin={'ab' * 32},node={node_id('home-1')}",
    ),
    "authority.members": ("--role", "route-authority", "--drop", "keeper-of-route-3"),
    "authority.descriptor": ("--witness-threshold", 3, "--drop", "keeper-of-root-3"),
}


@pytest.mark.parametrize("kind", DRAFTS)
def test_every_kind_is_drafted_from_options(farm: Farm, run: Run, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "draft.sigreq"
    where = ("--store", farm.path, "--root", farm.anchor, "--out", path)
    said = run("propose", kind, *DRAFTS[kind], *where, "-o", "json")
    assert said.code == 0, said.err
    name = "registry.gossip_record" if kind == "registry.record" else kind
    assert said.json["record"]["schema_version"] == f"rap.fabric.{name}.v1"
    assert said.json["record_id"] == read(path).record_id
    status = run("status", path, "--store", farm.path, "--root", farm.anchor, "-o", "json")
    assert said.json == status.json
    assert said.json["quorums"][0]["missing"] > 0


def test_a_term_is_drafted_from_an_enrollment(farm: Farm, run: Run, tmp_path: Path) -> None:
    entry, path = tmp_path / "seq.json", tmp_path / "term.sigreq"
    cluster = ("--cluster-id", farm.cluster.cluster_id, "--issuer", node_id("home-1"))
    assert run("key", "enroll", "env:KEY_SEQUENCER_2", *cluster, "--out", entry).code == 0
    where = ("--store", farm.path, "--root", farm.anchor, "--out", path)
    said = run("propose", "log.term", "--sequencer", entry, *where)
    assert said.code == 0, said.err
    assert f"From size {farm.cluster.log.size} on, only {node_id('home-1')[:8]} may append" in said.out


def test_a_snapshot_is_drafted_at_the_head(farm: Farm, run: Run, tmp_path: Path) -> None:
    listed, path = tmp_path / "projections.json", tmp_path / "snapshot.sigreq"
    listed.write_bytes(orjson.dumps(farm.cluster.snapshot()["projections"]))
    where = ("--store", farm.path, "--root", farm.anchor, "--out", path, "--projections", listed)
    said = run("propose", "log.snapshot", *where, "--size", farm.cluster.log.size + 1)
    assert (said.code, "root at size" in said.err) == (2, True)
    said = run("propose", "log.snapshot", *where)
    assert (said.code, f"at size {farm.cluster.log.size} means" in said.out) == (0, True)
    path.unlink()
    listed.write_text("{}")
    said = run("propose", "log.snapshot", *where)
    assert (said.code, "--projections must hold" in said.err) == (2, True)


def test_a_directory_is_drafted_from_its_nodes(farm: Farm, run: Run, tmp_path: Path) -> None:
    nodes, path = tmp_path / "nodes.json", tmp_path / "d.sigreq"
    nodes.write_bytes(orjson.dumps([node_id(name) for name in NODES]))
    draft = ("propose", "peer_directory.epoch", "--partition", "eu-1", "--nodes", nodes)
    where = ("--store", farm.path, "--root", farm.anchor, "--out", path)
    said = run(*draft, *where)
    assert (said.code, f"lists {len(NODES)} node(s)" in said.out) == (0, True), said.err
    assert read(path).record["directory_root"] == farm.cluster.directory()["directory_root"]
    nodes.write_text('["home-1"]')
    assert "--nodes must hold" in run(*draft, *where).err


def test_a_release_measures_and_hashes_its_files(farm: Farm, run: Run, tmp_path: Path) -> None:
    file, path = tmp_path / "agent.tar.zst", tmp_path / "r.sigreq"
    file.write_bytes(b"the agent")
    where = ("--store", farm.path, "--root", farm.anchor, "--out", path)
    draft = ("propose", "update.release", "--product", "agent", "--version", "1.4")
    said = run(*draft, "--artifact", f"linux={file}", "--rollout", "5@2027-01-01T00:00:00Z", *where)
    assert said.code == 0, said.err
    record = read(path).record
    digest = sha256(b"the agent").hexdigest()
    artifact = {"name": "agent.tar.zst", "platform": "linux", "length": 9, "sha256": digest}
    assert record["artifacts"] == [artifact]
    assert record["rollout"] == [{"cohort_percent": 5, "not_before": "2027-01-01T00:00:00Z"}]
    assert "PLATFORM=FILE" in run(*draft, "--artifact", f"linux={file}x", *where).err
    assert "PERCENT@TIME" in run(*draft, "--rollout", "soon", *where).err


def test_a_manifest_goes_on_from_the_one_in_force(farm: Farm, run: Run, tmp_path: Path) -> None:
    cluster = farm.cluster
    submit(farm, *(cluster.certificate(node, "storage", lifetime_s=HOUR_S) for node in STORES))
    whole = cluster.manifest()
    body, placed, path = tmp_path / "body.json", tmp_path / "placed.json", tmp_path / "m.sigreq"
    fixed = ("object", "cipher", "code", "replication_factor")
    body.write_bytes(orjson.dumps({part: whole[part] for part in fixed}))
    placed.write_bytes(orjson.dumps(whole["shards"]))
    draft = ("propose", "storage.shard_manifest", "--shard-set-id", "backup-7")
    where = ("--store", farm.path, "--root", farm.anchor, "--out", path)
    new = ("--shards", placed, "--retention-until", whole["retention_until"])
    assert "SL-SHAPE at object" in run(*draft, *new, *where).err
    said = run(*draft, *new, "--body", body, *where)
    assert (said.code, "lies on 3 node(s)" in said.out) == (0, True), said.err
    submit(farm, whole)
    path.unlink()
    said = run(*draft, "--retention-until", "2099-01-01T00:00:00Z", *where)
    assert said.code == 0, said.err
    record = read(path).record
    assert (record["epoch"], record["recovery_epoch"], record["shards"]) == (2, 1, whole["shards"])


def test_relays_say_what_they_lack(farm: Farm, run: Run) -> None:
    draft = ("propose", "relay.assignment", "--partition", "eu-1", "--store", farm.path)
    for text in ("ID", "ID,mbit=5", "ID,mbit=x,class=dns", "ID,mbit=5,class=dns,colour=red"):
        said = run(*draft, "--relay", text)
        assert (said.code, "is not NODE_ID,mbit=N" in said.err) == (2, True)
    said = run(*draft, "--relay", f"{node_id('relay-1')},mbit=5,class=dns+bulk")
    assert "SL-NODE at relays[0].node_id" in said.err


def test_a_recovery_is_drafted_signed_and_vetoed(farm: Farm, run: Run, tmp_path: Path) -> None:
    where = ("--store", farm.path, "--root", farm.anchor)
    names = ("root-4", "root-5", "recovery-1", "recovery-2", "sequencer-2")
    files = {name: tmp_path / f"{name}.json" for name in names}
    for name, path in files.items():
        node = {"issuer_id": node_id("home-1")} if name == "sequencer-2" else {}
        path.write_bytes(orjson.dumps(key_entry(name, custody="offline", **node)))
    coming, intent, veto = (tmp_path / f"{name}.sigreq" for name in ("coming", "intent", "veto"))
    change = [part for n in (1, 2, 3) for part in ("--drop", f"keeper-of-root-{n}")]
    change += [part for name in ("root-4", "root-5") for part in ("--add-root", files[name])]
    draft = ("propose", "authority.recovery_intent", *where, "--out", intent)
    assert "--descriptor FILE" in run(*draft).err
    said = run("propose", "authority.descriptor", *change, *where, "--out", coming)
    assert said.code == 0, said.err
    said = run(*draft, "--descriptor", coming)
    assert (said.code, "no descriptor for recovery-authority" in said.err) == (2, True)
    coming.unlink()
    recovering = ("--issuer-role", "recovery-authority")
    said = run("propose", "authority.descriptor", *change, *recovering, *where, "--out", coming)
    assert (said.code, "in place of the root" in said.out) == (0, True), said.err
    shown = [part for name in ("recovery-1", "recovery-2") for part in ("--key", files[name])]
    said = run(*draft, "--descriptor", coming, *shown, "--sequencer", files["sequencer-2"])
    assert (said.code, "recovery keys of keeper-of-recovery-1" in said.out) == (0, True), said.err
    assert read(intent).record["descriptor"] == read(coming).record_id
    vetoing = ("propose", "authority.veto", "--reason", "found", *where, "--out", veto)
    said = run(*vetoing)
    assert (said.code, said.err) == (
        2,
        "statelog: no recovery is under way in this log, so there is nothing to stop\n",
    )
    submit(farm, farm.cluster.sign(dict(read(intent).record), QUORUMS[RECOVERY]))
    assert run(*vetoing).code == 0
    said = run("status", coming, *where, "-o", "json")
    assert said.json["quorums"][0]["role"] == "recovery-authority"
    assert said.json["quorums"][0]["missing"] == 2


def test_recovery_keys_change_with_the_descriptor(farm: Farm, run: Run, tmp_path: Path) -> None:
    entry, path = tmp_path / "r.json", tmp_path / "d.sigreq"
    entry.write_bytes(orjson.dumps(key_entry("recovery-4", custody="offline")))
    change = ("--add-recovery", entry, "--drop", key_id("recovery-1"), "--recovery-delay", "9d")
    where = ("--store", farm.path, "--root", farm.anchor, "--out", path)
    assert run("propose", "authority.descriptor", *change, "--recovery-threshold", 3, *where).code == 0
    assert read(path).record["recovery"] == {
        "threshold": 3,
        "key_sha256": [key_id(f"recovery-{n}") for n in (2, 3, 4)],
        "delay_s": 9 * DAY_S,
    }


def test_own_fields_come_from_a_file_too(farm: Farm, run: Run, tmp_path: Path) -> None:
    body, path = tmp_path / "body.json", tmp_path / "draft.sigreq"
    body.write_text('{"policy": "p", "document": {"x": 1}, "assertions": []}')
    where = ("--store", farm.path, "--root", farm.anchor, "--out", path)
    assert run("propose", "policy.epoch", "--body", body, *where, "--valid-for", "30d").code == 0
    assert read(path).record["document"] == {"x": 1}
    body.write_text('{"policy": "p", "document": {}, "assertions": [], "epoch": 9}')
    said = run("propose", "policy.epoch", "--body", body, *where)
    assert (said.code, "epoch belongs to the header" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "code", "hint"),
    [
        (("--document", "DOC"), 1, "SL-SHAPE at policy"),
        (("--policy", "p", "--document", "DOC", "--valid-for", "tomorrow"), 2, "not a duration"),
        (("--policy", "p", "--document", "DOC", "--valid-for", "900d"), 1, "SL-VALIDITY"),
        (("--policy", "p", "--document", "DOC", "--epoch", "5000"), 1, "SL-EPOCH"),
        (("--policy", "p", "--document", "absent.json"), 2, "no such file"),
        (("--policy", "p", "--body", "LIST"), 2, "JSON object"),
    ],
)
def test_a_draft_that_cannot_pass_is_not_written(
    farm: Farm, document: Path, run: Run, tmp_path: Path, options: tuple[str, ...], code: int, hint: str
) -> None:
    (tmp_path / "list.json").write_text("[]")
    names = {"DOC": str(document), "LIST": str(tmp_path / "list.json")}
    chosen = [names.get(option, option) for option in options]
    out = tmp_path / "draft.sigreq"
    where = ("--store", farm.path, "--root", farm.anchor, "--out", out)
    said = run("propose", "policy.epoch", *chosen, *where)
    assert (said.code, hint in said.err) == (code, True), said.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("endpoint", "hint"),
    [
        ("quic://192.0.2.7:4433", "node=NODE_ID"),
        ("quic://192.0.2.7:4433,node=x", "pin=HEX"),
        ("quic://192.0.2.7:4433,node=x,pin=ab,colour=red", "colour=red"),
        ("https://192.0.2.7:4433,node=x,pin=" + "ab" * 32, "SL-SHAPE"),
    ],
)
def test_endpoints_say_what_they_lack(farm: Farm, run: Run, endpoint: str, hint: str) -> None:
    where = ("--store", farm.path, "--root", farm.anchor)
    said = run("propose", "registry.record", "--service", "s", "--endpoint", endpoint, *where)
    assert said.code in (1, 2)
    assert hint in said.err


def test_one_target_at_a_time(farm: Farm, run: Run) -> None:
    where = ("--store", farm.path, "--root", farm.anchor, "--reason", "x")
    said = run("propose", "route.fence", "--route-id", "r", "--partition", "p", *where)
    assert (said.code, "name one target" in said.err) == (2, True)
    none = run("propose", "route.fence", *where)
    assert (none.code, "SL-SHAPE at target" in none.err) == (1, True)


def test_an_enrollment_is_checked(farm: Farm, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    where = ("--store", farm.path, "--root", farm.anchor, "--out", tmp_path / "draft.sigreq")
    for content, code in (('{"key_id": "x"}', 1), ("[]", 1), ("{", 2)):
        path.write_text(content)
        said = run("propose", "authority.members", "--role", "route-authority", "--add", path, *where)
        assert said.code == code
    stranger = (
        "--cluster-id",
        "other.abcdefghijklmnopqrstuvwxyz",
        "--issuer",
        "x",
        "--out",
        tmp_path / "s.json",
    )
    assert run("key", "enroll", "env:KEY_STRANGER_1", *stranger).code == 0
    add = ("--role", "route-authority", "--add", tmp_path / "s.json")
    said = run("propose", "authority.members", *add, *where)
    assert (said.code, "SL-KEY" in said.err) == (1, True)
    assert not (tmp_path / "draft.sigreq").exists()


def test_every_kind_that_a_log_carries_has_a_template() -> None:
    assert set(TEMPLATES) == {kind.name for kind in KINDS.values() if kind.logged}
