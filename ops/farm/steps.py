"""The steps that `./ops/up` proves, in order. Each returns what it saw, or raises `StepError`.

A step may run again on a farm that was up before: it goes on from what the log already says.
"""

# Long on purpose: the proofs read in the order in which they run.
from __future__ import annotations

import base64
import json
import secrets
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ops.farm import watch
from ops.farm.authority import DAY_S, Operators
from ops.farm.content import FILE_BYTES, FILE_NAME, fetch
from ops.farm.farm import CONTROL, MEMBERS, SERVICE, Farm, identities
from statelog import canonical, ceremony, genesis
from statelog.errors import Refused
from statelog.io.client import SubmitResult
from statelog.io.database import open_database
from statelog.io.doorbell import Doorbell, ring
from statelog.io.sequencer import Sequencer
from statelog.io.store import Store
from statelog.signing import encode_base64, record_id_of
from statelog.times import format_time

Detail = dict[str, Any]
Step = Callable[[Farm], Detail]

ROUTE_ID = "phone-a-to-node-9"
PARTITION = "farm"
WAIT_S = 40.0  # six interpreters on two busy cores; in peace every wait is over within a second


class StepError(Exception):
    """A step saw something other than it must."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.expected, self.found = expected, found


@cache
def operators_of(farm: Farm) -> Operators:
    """The operators of a farm; their keys are opened once."""
    return Operators(farm)


def require(condition: bool, expected: str, found: object) -> None:
    """Raise `StepError` unless `condition`."""
    if not condition:
        raise StepError(expected, str(found))


# -- 1 --


def make_genesis(farm: Farm) -> Detail:
    """Entry 0 and 1, the anchor, every node's folder and process, and the other authorities."""
    identities(farm)
    operators, fresh = operators_of(farm), not farm.anchor
    if fresh:
        cluster = genesis.new_cluster_id("farm-1", secrets.token_bytes)
        _begin_log(farm, operators, cluster)
    with farm.opened() as log:
        cluster = log.replay(verify_signatures=False).state.cluster_id
    for member in MEMBERS:
        farm.make_node(member, cluster)
    for member in MEMBERS:
        if member.name != CONTROL:
            farm.start_node(member.name)
    farm.start_control()
    state = farm.state()
    for role in ("route", "update", "storage"):
        if state.key_set(f"{role}-authority") is None:
            accept(operators.decide("authority.members", operators.members(cluster, role)))
    state = farm.state()
    sets = {
        role: state.key_set(f"{role}-authority") for role in ("root", "control", "route", "update", "storage")
    }
    require(
        all(one is not None and one.threshold == 2 and len(one.issuers) == 3 for one in sets.values()),
        "five authorities of three issuers, two of whom must sign",
        sets,
    )
    require(state.mode == "production", "production mode", state.mode)
    witnesses = state.witnesses
    return {
        "proved": f"{cluster}: 2-of-3 authorities, {witnesses.threshold} of {len(witnesses.keys)} witnesses",
        "cluster_id": cluster,
        "anchor": farm.anchor,
        "mode": state.mode,
        "witnesses": {
            "threshold": witnesses.threshold,
            "faulty": witnesses.faulty,
            "keys": len(witnesses.keys),
        },
        "resumed": not fresh,
    }


def _begin_log(farm: Farm, operators: Operators, cluster: str) -> None:
    now = int(time.time())
    first = operators.sign(genesis.first_descriptor(operators.plan(cluster), now), "root")
    start = genesis.genesis_replay(first)
    term = operators.sign(genesis.first_term(start, [operators.sequencer(cluster)], now), "control")
    engine = open_database(farm.store_url, create=True)
    try:
        signer = operators.signer("sequencer", farm.node_id(CONTROL))
        Sequencer.create(engine, first.signed_record(), term.signed_record(), signer, now=now)
    finally:
        engine.dispose()
    (farm.folder / "anchor").write_text(f"{first.record_id}\n")


# -- 2 --


def approve_nodes(farm: Farm) -> Detail:
    """Approvals, role certificates, and the policy that lets this farm probe loopback addresses."""
    operators, state = operators_of(farm), farm.state()
    granted = {(one.node_id, one.role) for one in state.certificates.values()}
    for member in MEMBERS:
        node_id, identity = farm.node_id(member.name), farm.identity(member.name)
        if node_id not in state.nodes:
            own = {
                "node_id": node_id,
                "public": encode_base64(identity.public),
                "display_name": member.name,
                "trust_tier": "standard",
                "organizations": [],
            }
            accept(operators.decide("node.approval", own))
        if (node_id, member.role) not in granted:
            everything = {part: ["*"] for part in ("actions", "organizations", "services", "partitions")}
            own = {
                "node_id": node_id,
                "role": member.role,
                "scope": everything,
                "delegation_depth": 0,
                "parent": None,
            }
            accept(operators.decide("role.certificate", own, valid_s=30 * DAY_S))
    if "probe_allow" not in state.policies:
        own = {"policy": "probe_allow", "document": {"cidrs": ["127.0.0.0/8"]}, "assertions": []}
        accept(operators.decide("policy.epoch", own))
    state = farm.state()
    missing = [member.name for member in MEMBERS if farm.node_id(member.name) not in state.nodes]
    require(not missing, "every node approved", missing)
    await_everywhere(farm, state_size(farm))
    return {
        "proved": f"{len(MEMBERS)} nodes approved and certified by two of three",
        "nodes": {
            member.name: {"node_id": farm.node_id(member.name), "role": member.role} for member in MEMBERS
        },
    }


# -- 3 --


def register_service(farm: Farm) -> Detail:
    """`web-admin` on `home-1`: proposed, signed, submitted, final, replicated and active on every node."""
    operators = operators_of(farm)
    request = operators.sign(operators.draft("registry.gossip_record", _web_admin(farm, "home-1")), "control")
    result = accept(operators.submit(request.signed_record()))
    await_everywhere(farm, state_size(farm))
    await_active(farm, request.record_id)
    return {
        "proved": f"{SERVICE} is home-1, epoch {request.record['epoch']}, active everywhere",
        "record_id": request.record_id,
        "epoch": request.record["epoch"],
        "log_index": result.log_index,
    }


def _web_admin(farm: Farm, host: str) -> dict[str, Any]:
    return {"service": SERVICE, "scope": "cluster", "endpoints": [farm.endpoint(host)]}


# -- 4 --


def fetch_direct(farm: Farm) -> Detail:
    """`phone-a` forwards a local port to the logical name; an ordinary HTTP client fetches 64 MiB."""
    farm.start_forward("phone-a", SERVICE)
    seen = fetch_from(farm, "home-1")
    return {
        "proved": f"64 MiB from home-1 by its logical name, {seen['mbit_per_s']} Mbit/s, SHA-256 matches",
        **seen,
    }


def fetch_from(farm: Farm, host: str) -> Detail:
    """Fetch through the forwarded port, and require that `host` served exactly its own file."""
    port = farm.ports["forward"]
    status, _, _, head = fetch(port, "/whoami")
    require(status == 200 and head.decode().strip() == host, f"{host} answers", f"{status} {head!r}")
    start = time.monotonic()
    status, digest, length, _ = fetch(port, f"/{FILE_NAME}")
    seconds = time.monotonic() - start
    require(
        status == 200 and length == FILE_BYTES, f"200 and {FILE_BYTES} bytes", f"{status} and {length} bytes"
    )
    require(digest == farm.content[host], f"SHA-256 {farm.content[host]}", digest)
    return {
        "served_by": host,
        "bytes": length,
        "sha256": digest,
        "seconds": round(seconds, 3),
        "mbit_per_s": round(length * 8 / seconds / 1e6),
    }


# -- 5 --


def move_service(farm: Farm) -> Detail:
    """The next epoch points to `node-9`, is handed to one node only, and the control host is down."""
    operators = operators_of(farm)
    request = operators.sign(operators.draft("registry.gossip_record", _web_admin(farm, "node-9")), "control")
    others = [member.name for member in MEMBERS if member.name != CONTROL]
    before = active_records(farm, others)
    farm.stop_control()
    start = time.monotonic()
    watch.deliver(farm.node_folder("usa-los-1"), request.signed_record())
    await_active(farm, request.record_id, others)
    seconds = time.monotonic() - start
    kept = {
        name: before[name] in watch.view_of(status_of(farm, name), SERVICE)["fallback"] for name in others
    }
    require(all(kept.values()), "the old record kept as fallback on every node", kept)
    seen = fetch_from(farm, "node-9")
    farm.start_control()
    index = await_logged(farm, request.record_id)
    await_everywhere(farm, state_size(farm))
    return {
        "proved": f"handed to usa-los-1 alone, active on {len(others)} nodes in {seconds:.2f} s, now node-9",
        "record_id": request.record_id,
        "epoch": request.record["epoch"],
        "promoted_everywhere_s": round(seconds, 3),
        "log_index": index,
        "fallback_kept": kept,
        "fetch": seen,
    }


# -- 6 --


def route_lease(farm: Farm) -> Detail:
    """Without a lease the relay refuses; two of three then lease phone-a → relay-1 → node-9."""
    operators = operators_of(farm)
    hops = [farm.node_id(name) for name in ("phone-a", "relay-1", "node-9")]
    phone = farm.node_folder("phone-a")
    refusal = watch.refusal_of(phone, "open-test", service=SERVICE, route="nobody-leased-this", hops=hops)
    require(refusal == "no_lease", "the relay refuses with no_lease", refusal)
    own = {
        "route_id": ROUTE_ID,
        "partition": PARTITION,
        "service": SERVICE,
        "hops": hops,
        "allowed_channels": [],
        "allowed_classes": ["control", "interactive", "reliable", "bulk"],
        "allowed_services": [SERVICE],
        "alternates": [],
    }
    request = operators.sign(operators.draft("route.lease", own, valid_s=DAY_S), "route")
    result = accept(operators.submit(request.signed_record()))
    await_everywhere(farm, state_size(farm))
    return {
        "proved": f"refused with no_lease, then leased for a day at index {result.log_index}",
        "route_id": ROUTE_ID,
        "hops": ["phone-a", "relay-1", "node-9"],
        "log_index": result.log_index,
        "refusal_without_lease": refusal,
    }


def fetch_relayed(farm: Farm) -> Detail:
    """The same fetch, now through the relay, which counts bytes by class and reads none."""
    before = watch.relayed_bytes(status_of(farm, "relay-1"), ROUTE_ID)
    seen = fetch_from(farm, "node-9")
    after = watch.relayed_bytes(status_of(farm, "relay-1"), ROUTE_ID)
    passed = {name: after[name] - before.get(name, 0) for name in after}
    require(sum(passed.values()) >= FILE_BYTES, f"at least {FILE_BYTES} bytes counted by relay-1", passed)
    return {
        "proved": f"64 MiB through relay-1, {seen['mbit_per_s']} Mbit/s, counted there by class",
        "relay_bytes_by_class": passed,
        **seen,
    }


# -- 7 --


def refuse_forgery(farm: Farm) -> Detail:
    """Whoever holds the replica's database and TLS key still cannot make a record."""
    operators = operators_of(farm)
    good = operators.draft("registry.gossip_record", _web_admin(farm, "home-1"))
    forgeries = {
        "one signature": (operators.sign(good, "control", signers=1).signed_record(), "SL-QUORUM"),
        "one key twice": (_one_key_twice(operators, good), "SL-SIG"),
        "expired": (_expired(operators, good), "SL-EXPIRED"),
    }
    before = all_positions(farm)
    codes: dict[str, dict[str, str]] = {}
    for name, (data, expected) in forgeries.items():
        found = {
            "api": _refused_by_api(operators, data),
            "gossip": _refused_by_gossip(farm, data),
            "database": _refused_from_outbox(farm, data),
        }
        require(
            set(found.values()) == {expected},
            f"{name}: {expected} from the API, by gossip and from its database",
            found,
        )
        codes[name] = found
    after = all_positions(farm)
    require(before == after, f"state stays {before}", after)
    return {
        "proved": "SL-QUORUM, SL-SIG and SL-EXPIRED; no node's state moved",
        "codes": codes,
        "positions": after,
    }


def _one_key_twice(operators: Operators, request: ceremony.Request) -> bytes:
    """Two signatures by one key, the second under the key id of another issuer."""
    first, second = operators.three("control")[:2]
    signed = ceremony.attach(request, first, first.info.issuer_id, "control-authority")
    record = canonical.decode(signed.signed_record())
    copy = {**record["signatures"][0], "key_id": second.info.key_id, "issuer_id": second.info.issuer_id}
    record["signatures"] = sorted([*record["signatures"], copy], key=lambda one: one["key_id"])
    return canonical.encode(record)


def _expired(operators: Operators, request: ceremony.Request) -> bytes:
    """The record as it would have been a month ago, with a full quorum."""
    now = int(time.time())
    old = {
        **request.record,
        "issued_at": format_time(now - 30 * DAY_S),
        "expires_at": format_time(now - 20 * DAY_S),
    }
    return operators.sign(replace(request, record=old), "control").signed_record()


def _refused_by_api(operators: Operators, data: bytes) -> str:
    try:
        operators.submit(data)
    except Refused as refusal:
        return refusal.finding.code
    return "accepted"


def _refused_by_gossip(farm: Farm, data: bytes) -> str:
    """Handed to every node, as a seized replica would; they agree, or the codes are listed."""
    codes = {
        watch.refusal_of(farm.node_folder(one.name), "deliver", record=base64.b64encode(data).decode())
        for one in MEMBERS
    }
    return ", ".join(sorted(codes))


def _refused_from_outbox(farm: Farm, data: bytes) -> str:
    """Written straight into the replica's own database, where its sequencer finds it."""
    record_id = record_id_of(canonical.decode(data))
    engine = open_database(farm.store_url)
    try:
        store = Store(engine)
        with Doorbell(farm.store_url) as bell:
            store.outbox_put(record_id, data, int(time.time()))
            ring(farm.store_url)
            deadline = time.monotonic() + WAIT_S
            while (row := store.outbox_row(record_id)) is None or row.state == "pending":
                require(time.monotonic() < deadline, "the sequencer to look at its outbox", row)
                bell.wait(1.0)
        return row.code or row.state
    finally:
        engine.dispose()


# -- 8 --


def verify_clean(farm: Farm) -> Detail:
    """`statelog verify` from the pinned anchor finds nothing."""
    code, report = verify(farm, farm.store_url)
    require(
        code == 0 and not report["findings"],
        "exit code 0 and no finding",
        f"{code}: {report['findings'][:3]}",
    )
    return {
        "proved": f"{report['size']} entries audited from the anchor, nothing found",
        "size": report["size"],
    }


def verify_tampered(farm: Farm) -> Detail:
    """One byte of one entry is flipped in a copy: the audit names the entry."""
    copy = farm.folder / "tampered.db"
    with sqlite3.connect(farm.store_path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    index, position = _flip_one_byte(copy)
    code, report = verify(farm, f"sqlite:///{copy}")
    named = sorted({one["log_index"] for one in report["findings"] if one["log_index"] is not None})
    for leftover in farm.folder.glob("tampered.db*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    require(code == 1 and index in named, f"exit code 1 and entry {index} named", f"{code} and {named}")
    return {
        "proved": f"byte {position} of entry {index} flipped in a copy: exit code 1, entry {index} named",
        "log_index": index,
        "byte": position,
        "codes": sorted({one["code"] for one in report["findings"]}),
    }


def _flip_one_byte(store: Path) -> tuple[int, int]:
    with sqlite3.connect(store) as connection:
        (size,) = connection.execute("SELECT count(*) FROM log_entry").fetchone()
        index = secrets.randbelow(size)
        (leaf,) = connection.execute("SELECT leaf FROM log_entry WHERE log_index = ?", (index,)).fetchone()
        position = secrets.randbelow(len(leaf))
        changed = bytearray(leaf)
        changed[position] ^= 1 << secrets.randbelow(8)
        connection.execute("UPDATE log_entry SET leaf = ? WHERE log_index = ?", (bytes(changed), index))
    connection.close()
    return index, position


def verify_tiles(farm: Farm) -> Detail:
    """The log as static files audits clean without a database; one flipped byte is named."""
    tiles = farm.folder / "tiles"
    code, exported = statelog(farm, "export", str(tiles), "--store", farm.store_url)
    require(code == 0, "statelog export to exit 0", code)
    code, report = verify(farm, str(tiles))
    require(code == 0 and report["clean"], "clean tiles", f"{code}: {report['findings'][:3]}")
    bundle = max((tiles / "tile/entries").rglob("*.p/*"), key=lambda path: path.stat().st_mtime)
    whole = bundle.read_bytes()
    position = secrets.randbelow(len(whole))
    flipped = whole[position] ^ 1 << secrets.randbelow(8)
    bundle.write_bytes(whole[:position] + bytes([flipped]) + whole[position + 1 :])
    code, damaged = verify(farm, str(tiles))
    bundle.write_bytes(whole)
    named = sorted({one["log_index"] for one in damaged["findings"] if one["code"] == "SL-TILE"})
    require(code == 1 and bool(named), "exit code 1 and the entry named", f"{code} and {named}")
    return {
        "proved": f"{report['size']} entries audited from files alone; byte {position} of a bundle flipped: "
        f"exit code 1, entry {named[0]} named",
        "size": report["size"],
        "logs": [one["log"] for one in exported["logs"]],
    }


def verify(farm: Farm, source: str) -> tuple[int, dict[str, Any]]:
    """Run `statelog verify` as an auditor would: (exit code, report)."""
    return statelog(farm, "verify", source)


def statelog(farm: Farm, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a `statelog` command that knows the anchor: (exit code, report)."""
    command = [sys.executable, "-m", "statelog.cli.main", *arguments, "--root", str(farm.folder / "anchor")]
    done = subprocess.run([*command, "-o", "json"], capture_output=True, check=False)
    try:
        return done.returncode, json.loads(done.stdout)
    except json.JSONDecodeError:
        raise StepError(
            f"a JSON report of statelog {arguments[0]}", done.stderr.decode(errors="replace")[-800:]
        ) from None


# -- the farm, asked --


def accept(result: SubmitResult) -> SubmitResult:
    """Require that a submitted record is final."""
    require(result.final, "201, acknowledged as final", result)
    return result


def state_size(farm: Farm) -> int:
    """Entries in the control replica's log."""
    with farm.opened() as log:
        return log.head.size


def status_of(farm: Farm, name: str) -> watch.Status:
    """A node's status document."""
    return watch.call(farm.node_folder(name), "status")


def active_records(farm: Farm, names: Iterable[str]) -> dict[str, str | None]:
    """The active record of the service at each node."""
    return {name: watch.view_of(status_of(farm, name), SERVICE)["active"] for name in names}


def all_positions(farm: Farm) -> dict[str, Any]:
    """Final log and active record of every node."""
    return watch.positions(((one.name, status_of(farm, one.name)) for one in MEMBERS), SERVICE)


def await_nodes(farm: Farm, names: Iterable[str] | None, met: watch.Condition, what: str) -> None:
    """Wait until the nodes' own status says so."""
    wanted = list(names or [member.name for member in MEMBERS])
    try:
        watch.await_status({name: farm.node_folder(name) for name in wanted}, met, WAIT_S)
    except watch.NotYetError as late:
        raise StepError(f"{what} on every node within {WAIT_S:.0f} s", f"not on {late}") from late


def await_everywhere(farm: Farm, size: int) -> None:
    """Every node has the log up to `size`, final."""
    await_nodes(farm, None, lambda one: one["log"]["final_size"] >= size, f"a final log of {size} entries")


def await_active(farm: Farm, record_id: str, names: Iterable[str] | None = None) -> None:
    """Every node has probed the record and made it active."""
    met = f"record {record_id[:12]}… active"
    await_nodes(farm, names, lambda one: watch.view_of(one, SERVICE)["active"] == record_id, met)


def await_logged(farm: Farm, record_id: str) -> int:
    """The record is in the control replica's log, final; its index."""

    def logged(status: watch.Status) -> bool:
        records = watch.view_of(status, SERVICE).get("records", [])
        return any(one["record_id"] == record_id and not one["unlogged"] for one in records)

    await_nodes(farm, [CONTROL], logged, f"record {record_id[:12]}… in the log")
    records = watch.view_of(status_of(farm, CONTROL), SERVICE)["records"]
    return next(int(one["log_index"]) for one in records if one["record_id"] == record_id)


STEPS: tuple[tuple[str, Step], ...] = (
    ("genesis", make_genesis),
    ("approve-nodes", approve_nodes),
    ("register-service", register_service),
    ("fetch-direct", fetch_direct),
    ("move-service", move_service),
    ("route-lease", route_lease),
    ("fetch-relayed", fetch_relayed),
    ("refuse-forgery", refuse_forgery),
    ("verify-clean", verify_clean),
    ("verify-tampered", verify_tampered),
    ("verify-tiles", verify_tiles),
)
