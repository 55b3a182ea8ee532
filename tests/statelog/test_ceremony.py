"""Signing requests: drafted by the rules, shown in words, signed exactly, merged, counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from statelog import canonical, ceremony
from statelog.ceremony import Request
from statelog.errors import Refused, UsageError
from statelog.limits import MAX_REQUEST_BYTES, MAX_TITLE_CHARS
from statelog.records import KINDS_BY_NAME
from statelog.state import CONTROL, ROOT, ROUTE
from statelog.times import parse_time
from tests.support.authority import (
    Cluster,
    endpoint,
    issuer,
    key_entry,
    key_id,
    make_cluster,
    node_id,
    signer,
)

CLUSTER = make_cluster()
LEASE = {
    "route_id": "route-a",
    "partition": "eu-1",
    "service": "forward/ssh",
    "hops": [node_id("phone-a"), node_id("relay-1"), node_id("home-1")],
    "allowed_channels": [],
    "allowed_classes": ["bulk"],
    "allowed_services": [],
    "alternates": [],
}


def propose(kind: str, own: dict[str, Any], cluster: Cluster = CLUSTER, **options: Any) -> Request:
    return ceremony.propose(KINDS_BY_NAME[kind], own, cluster.state, cluster.now, log=cluster.log, **options)


def signed(request: Request, *names: str, role: str = ROUTE) -> Request:
    for name in names:
        request = ceremony.attach(request, signer(name), issuer(name), role)
    return request


def progress_of(request: Request, cluster: Cluster = CLUSTER) -> ceremony.Progress:
    sets = ceremony.required_sets(request, cluster.state, cluster.now)
    return ceremony.progress(request, sets, cluster.state.key_sets.values())


def refused(code: str, action: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(Refused) as caught:
        action(*arguments, **options)
    assert caught.value.code == code, str(caught.value)
    return str(caught.value)


# -- drafting --


def test_a_draft_has_the_whole_header() -> None:
    record = propose("route.lease", LEASE).record
    assert record["schema_version"] == "rap.fabric.route.lease.v1"
    assert record["cluster_id"] == CLUSTER.cluster_id
    assert record["epoch"] == 1
    assert record["issuer_role"] == ROUTE
    assert parse_time(record["issued_at"]) == CLUSTER.now
    assert parse_time(record["expires_at"]) == CLUSTER.now + 12 * 3_600  # half of a lease's longest life
    assert "signatures" not in record


def test_the_epoch_follows_the_subject() -> None:
    cluster = make_cluster(members=True)
    cluster.append(cluster.lease("route-a", epoch=7))
    assert propose("route.lease", LEASE, cluster).record["epoch"] == 8
    assert propose("route.lease", {**LEASE, "route_id": "route-b"}, cluster).record["epoch"] == 1
    assert propose("route.lease", LEASE, cluster, epoch=20).record["epoch"] == 20


def test_what_is_signed_is_admitted() -> None:
    cluster = make_cluster()
    request = signed(propose("route.lease", LEASE, cluster), "route-1", "route-3")
    admitted = cluster.append(canonical.decode(request.signed_record()))
    assert admitted.record_id == request.record_id


@pytest.mark.parametrize(
    ("kind", "own", "role"),
    [
        ("node.approval", None, CONTROL),
        ("role.revocation", {"target": {"node_id": node_id("phone-a")}, "reason": "stolen"}, CONTROL),
        ("route.fence", {"target": {"partition": "eu-1"}, "reason": "split"}, ROUTE),
        ("route.fence", {"target": {"node_id": node_id("phone-a")}, "reason": "lost"}, CONTROL),
        ("policy.epoch", {"policy": "p", "document": {}, "assertions": []}, CONTROL),
        (
            "registry.gossip_record",
            {"service": "relay-pool", "scope": "cluster", "endpoints": [endpoint()]},
            ROUTE,
        ),
    ],
)
def test_the_role_is_found(kind: str, own: dict[str, Any] | None, role: str) -> None:
    if own is None:
        approval = CLUSTER.approval("home-1")
        own = {name: value for name, value in approval.items() if name not in ceremony.HEADER}
    assert propose(kind, own).record["issuer_role"] == role


def test_a_term_is_drafted_with_its_own_number() -> None:
    term = CLUSTER.log_term()
    own = {name: value for name, value in term.items() if name not in ceremony.HEADER}
    request = propose("log.term", own)
    assert (request.record["epoch"], request.record["term"]) == (2, 2)


@pytest.mark.parametrize(
    ("changes", "options", "code"),
    [
        ({"hops": [node_id("phone-a")]}, {}, "SL-SHAPE"),
        ({"surprise": 1}, {}, "SL-SHAPE"),
        ({"hops": [node_id("phone-a"), node_id("nobody")]}, {}, "SL-NODE"),
        ({}, {"epoch": 5_000}, "SL-EPOCH"),
        ({}, {"valid_s": 48 * 3_600}, "SL-VALIDITY"),
        ({"service": "ümlaut"}, {}, "SL-SHAPE"),
    ],
)
def test_nothing_is_drafted_that_could_not_pass(
    changes: dict[str, Any], options: dict[str, Any], code: str
) -> None:
    assert propose("route.lease", LEASE)  # the valid twin
    refused(code, propose, "route.lease", {**LEASE, **changes}, **options)


def test_an_unsatisfiable_role_is_refused_at_the_draft() -> None:
    keys = [key_entry(f"observer-{n}") for n in (1, 2)]
    assert propose("authority.members", {"role": "observer-authority", "threshold": 2, "keys": keys})
    refused(
        "SL-THRESHOLD",
        propose,
        "authority.members",
        {"role": "observer-authority", "threshold": 3, "keys": keys},
    )


def test_a_key_that_nobody_proved_is_refused_at_the_draft() -> None:
    keys = [key_entry("observer-1"), {**key_entry("observer-2"), "proof": key_entry("observer-1")["proof"]}]
    refused(
        "SL-KEY", propose, "authority.members", {"role": "observer-authority", "threshold": 1, "keys": keys}
    )


def test_the_header_cannot_come_from_outside() -> None:
    with pytest.raises(UsageError, match="issuer_role"):
        propose("route.lease", {**LEASE, "issuer_role": ROOT})


def test_kinds_are_named() -> None:
    assert ceremony.kind_named("route.lease").schema == "rap.fabric.route.lease.v1"
    for name in ("route.leese", "endpoint.candidates"):
        with pytest.raises(UsageError, match=r"authority\.descriptor, "):
            ceremony.kind_named(name)


# -- the file --


def test_a_request_survives_its_file() -> None:
    request = signed(propose("route.lease", LEASE, title="Lease – route a"), "route-1")
    assert ceremony.decode_request(ceremony.encode_request(request)) == request
    assert ceremony.decode_request(ceremony.encode_request(request) + b"\n") == request


def tampered(**changes: Any) -> bytes:
    body = canonical.decode(ceremony.encode_request(signed(propose("route.lease", LEASE), "route-1")))
    body.update(changes)
    return canonical.encode({name: value for name, value in body.items() if value is not None})


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "SL-REQUEST"),
        (b"null", "SL-REQUEST"),
        (b"-----BEGIN CERTIFICATE-----", "SL-REQUEST"),
        (b'{"schema": "statelog.sigreq.v1"}', "SL-REQUEST"),
        (tampered()[:-1], "SL-REQUEST"),
        (b" " + tampered(), "SL-REQUEST"),
        (tampered() + b"\n\n", "SL-REQUEST"),
        (tampered() + b" " * MAX_REQUEST_BYTES, "SL-REQUEST"),
        (tampered(schema="statelog.sigreq.v2"), "SL-REQUEST"),
        (tampered(title=None), "SL-REQUEST"),
        (tampered(title="x" * (MAX_TITLE_CHARS + 1)), "SL-REQUEST"),
        (tampered(title="two\nlines"), "SL-REQUEST"),
        (tampered(title=7), "SL-REQUEST"),
        (tampered(extra=1), "SL-REQUEST"),
        (tampered(record=[]), "SL-REQUEST"),
        (tampered(record={"signatures": []}), "SL-REQUEST"),
        (tampered(signatures={}), "SL-REQUEST"),
        (tampered(signatures=[{}]), "SL-SHAPE"),
        (tampered(signatures=[1]), "SL-SHAPE"),
        (tampered(record={"schema_version": "rap.fabric.unheard.of.v1"}), "SL-SCHEMA"),
        (tampered(record={"schema_version": "rap.fabric.endpoint.candidates.v1"}), "SL-SCHEMA"),
        (tampered(record={"schema_version": "rap.fabric.route.lease.v1"}), "SL-SHAPE"),
        (tampered(record={"schema_version": 1}), "SL-SCHEMA"),
    ],
)
def test_foreign_files_are_refused(data: bytes, code: str) -> None:
    assert ceremony.decode_request(tampered()).signatures  # the valid twin
    refused(code, ceremony.decode_request, data)


# -- signing and merging --


def test_a_signature_covers_exactly_the_payload() -> None:
    request = propose("route.lease", LEASE)
    other = replace(request, record={**request.record, "service": "forward/rdp"})
    once = signed(request, "route-1")
    assert once.record_id == request.record_id != other.record_id
    assert progress_of(once).quorums[0].signed == (issuer("route-1"),)
    moved = replace(other, signatures=once.signatures)
    assert progress_of(moved).quorums[0].signed == ()
    assert progress_of(moved).wrong == (key_id("route-1"),)


def test_a_key_source_that_lies_is_found_out() -> None:
    class Broken:
        public = signer("route-1").public

        def sign(self, message: bytes) -> bytes:
            return signer("route-1").sign(message + b"!")

    request = propose("route.lease", LEASE)
    refused("SL-SIG", ceremony.attach, request, Broken(), issuer("route-1"), ROUTE)


def test_copies_are_merged() -> None:
    request = propose("route.lease", LEASE)
    one, two = signed(request, "route-1"), signed(request, "route-2", "route-1")
    merged = ceremony.merge([one, two])
    assert {entry["key_id"] for entry in merged.signatures} == {key_id("route-1"), key_id("route-2")}
    assert [entry["key_id"] for entry in merged.signatures] == sorted(
        entry["key_id"] for entry in merged.signatures
    )
    assert ceremony.merge([two, one]) == merged
    assert progress_of(merged).complete


def test_copies_of_different_requests_are_not_merged() -> None:
    one = signed(propose("route.lease", LEASE), "route-1")
    other = signed(propose("route.lease", LEASE, epoch=2), "route-2")
    assert ceremony.merge([one, one]) == one
    assert other.record_id in refused("SL-REQUEST", ceremony.merge, [one, other])


def test_two_signatures_of_one_key_are_told_apart() -> None:
    one = signed(propose("route.lease", LEASE), "route-1")
    spoiled = replace(one, signatures=({**one.signatures[0], "value": "A" * 86 + "=="},))
    assert key_id("route-1") in refused("SL-REQUEST", ceremony.merge, [one, spoiled])
    assert ceremony.merge([one, ceremony.without(spoiled, [key_id("route-1")])]) == one


def test_signatures_are_bounded() -> None:
    request = propose("route.lease", LEASE)
    many = signed(request, *(f"stranger-{n}" for n in range(16)))
    assert len(many.signatures) == 16
    refused("SL-REQUEST", signed, many, "stranger-16")


# -- who signed, who is missing --


def test_a_descriptor_that_keeps_the_root_asks_its_people_once() -> None:
    cluster = make_cluster()
    record = cluster.descriptor()
    signatures = tuple(record.pop("signatures"))
    request = Request(record, signatures)
    sets = ceremony.required_sets(request, cluster.state, cluster.now)
    assert len(sets) == 2  # the old root and the new one, which are the same people
    (line,) = ceremony.progress(request, sets, cluster.state.key_sets.values()).quorums
    assert str(line) == "root-authority: 2 of 2; complete"


def test_progress_names_who_is_missing() -> None:
    request = propose("route.lease", LEASE)
    (line,) = progress_of(request).quorums
    people = ", ".join(sorted(issuer(f"route-{n}") for n in (1, 2, 3)))
    assert str(line) == f"{ROUTE}: 0 of 2; missing: 2 of {people}"
    (line,) = progress_of(signed(request, "route-2")).quorums
    assert (line.signed, line.missing) == ((issuer("route-2"),), 1)
    done = progress_of(signed(request, "route-2", "route-3"))
    assert done.complete
    assert str(done.quorums[0]) == f"{ROUTE}: 2 of 2; complete"


@pytest.mark.parametrize(
    "spoil",
    [
        {"issuer_id": "somebody-else"},
        {"role": CONTROL},
        {"value": "A" * 86 + "=="},
        {"key_id": "0" * 64},
    ],
)
def test_a_signature_that_would_spoil_the_copy_is_named(spoil: dict[str, str]) -> None:
    request = signed(propose("route.lease", LEASE), "route-1", "route-2")
    assert progress_of(request).complete
    first, *rest = request.signatures
    bad = replace(request, signatures=({**first, **spoil}, *rest))
    found = progress_of(bad)
    assert not found.complete
    assert found.wrong == (bad.signatures[0]["key_id"],)


def test_a_descriptor_needs_the_old_root_and_the_new() -> None:
    record = CLUSTER.descriptor()
    keys = [entry for entry in record["keys"] if entry["key_id"] not in (key_id("root-1"), key_id("root-2"))]
    own = {name: value for name, value in record.items() if name not in ceremony.HEADER}
    own["keys"] = [*keys, key_entry("root-8", custody="offline"), key_entry("root-9", custody="offline")]
    own["root"] = CLUSTER.holders("root-3", "root-8", "root-9", threshold=2)
    request = signed(propose("authority.descriptor", own), "root-8", "root-9", role=ROOT)
    old, new = progress_of(request).quorums
    assert (old.installed, old.missing) == (True, 2)
    assert (new.installed, new.missing) == (False, 0)
    assert str(new).startswith("proposed root-authority: 2 of 2")
    assert not progress_of(request).complete
    assert progress_of(signed(request, "root-1", "root-3", role=ROOT)).complete


def test_a_first_descriptor_is_judged_without_a_log() -> None:
    record = dict(CLUSTER.genesis)
    signatures = record.pop("signatures")
    request = Request(record, tuple(signatures), "Genesis")
    assert request.is_genesis
    (root,) = ceremony.required_sets(request, None, 0)
    assert ceremony.progress(request, [root]).complete
    lease = propose("route.lease", LEASE)
    refused("SL-GENESIS", ceremony.required_sets, lease, None, 0)


def test_another_clusters_request_is_refused() -> None:
    other = make_cluster(cluster_id="other.abcdefghijklmnopqrstuvwxyz")
    refused("SL-CLUSTER", progress_of, propose("route.lease", LEASE, other))


def test_a_key_finds_its_capacity() -> None:
    sets = ceremony.required_sets(propose("route.lease", LEASE), CLUSTER.state, CLUSTER.now)
    assert ceremony.capacity_of(key_id("route-2"), sets) == (issuer("route-2"), ROUTE)
    assert ceremony.capacity_of(key_id("control-2"), sets) is None


# -- second thoughts --


def warnings(record: dict[str, Any], cluster: Cluster | None = CLUSTER) -> str:
    return "; ".join(ceremony.warnings(record, None if cluster is None else cluster.state))


def test_a_set_without_a_spare_signer_is_warned_about() -> None:
    spare, none = CLUSTER.members(ROUTE), CLUSTER.members(ROUTE, "route-1", "route-2")
    assert warnings(spare) == ""
    assert "route-authority keeps no spare signer: all 2 must sign" in warnings(none)


def test_replacing_every_signer_is_warned_about() -> None:
    assert "loses every signer" in warnings(CLUSTER.members(ROUTE, "route-7", "route-8", "route-9"))
    # Another partition's own set takes nothing from the cluster's.
    elsewhere = CLUSTER.members(ROUTE, "route-7", "route-8", "route-9", partition="eu-1")
    assert warnings(elsewhere) == ""


def test_what_has_no_way_back_is_warned_about() -> None:
    assert "never returns" in warnings(CLUSTER.revocation({"node_id": node_id("phone-a")}))
    assert "dies at once" in warnings(CLUSTER.fence({"partition": "eu-1"}))
    assert warnings(CLUSTER.fence({"route_id": "route-a"})) == ""
    development = make_cluster("development")
    assert "production nodes refuse" in warnings(development.genesis, None)
    production = {**development.genesis, "mode": "production", "epoch": 2}
    assert "no way back" in warnings(production, development)
    assert "no way back" not in warnings(CLUSTER.genesis)
