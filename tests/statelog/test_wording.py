"""Records in words: digests read aloud, sentences, and text that cannot lie on a screen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog.wording import digest_words, headline, plain, span
from tests.support.examples import MAKERS, setting


@pytest.mark.parametrize(
    ("address", "words"),
    [  # the examples of the proquint proposal
        ("127.0.0.1", "lusab-babad"),
        ("63.84.220.193", "gutih-tugad"),
        ("140.98.193.141", "mudof-sakat"),
        ("198.81.129.136", "sinid-makam"),
        ("12.110.110.204", "budov-kuras"),
    ],
)
def test_words_are_proquints(address: str, words: str) -> None:
    assert digest_words(bytes(int(part) for part in address.split("."))) == words


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_words_tell_digests_apart(one: bytes, other: bytes) -> None:
    assert (digest_words(one) == digest_words(other)) == (one == other)
    assert len(digest_words(one).split("-")) == 16


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ümlaut ✓", "plain – ümlaut ✓"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nb\rc", "a\\nb\\rc"),
        ("abc\u202edef", "abc\\u202edef"),
        ("a\u00a0b\u200bc", "a\\xa0b\\u200bc"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_unprintable_text_is_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3_599, "59 min 59 s"),
        (3_601, "1 h"),
        (86_400 + 7_200, "1 d 2 h"),
        (400 * 86_400, "400 d"),
    ],
)
def test_a_length_of_time_has_two_units(seconds: int, shown: str) -> None:
    assert span(seconds) == shown


@given(st.text())
def test_whatever_is_shown_is_printable(text: str) -> None:
    assert plain(text).isprintable()


NODE = "ab" * 32
CASES: list[tuple[str, dict[str, Any], str]] = [
    (
        "authority.descriptor",
        {
            "cluster_id": "farm.x",
            "epoch": 2,
            "issuer_role": "root-authority",
            "mode": "production",
            "keys": [{"key_id": "k1", "issuer_id": "alice"}, {"key_id": "k2", "issuer_id": "bob"}],
            "root": {"threshold": 2, "key_ids": ["k1", "k2"]},
            "control": {"threshold": 1, "key_ids": ["k2"]},
            "witnesses": {"threshold": 3, "faulty": 1, "keys": [{"name": name} for name in "wxyz"]},
        },
        (
            "Authority of farm.x, epoch 2, mode production: root 2 of 2 (alice, bob); control 1 of 1 (bob); "
            "witnesses 3 of 4 (w, x, y, z), of which 1 may lie."
        ),
    ),
    (
        "authority.recovery_intent",
        {
            "descriptor": NODE,
            "keys": [{"issuer_id": "rosa"}, {"issuer_id": "quentin"}],
            "sequencers": [{"node_id": "cd" * 32}],
            "witnesses": {"threshold": 3, "keys": [{}] * 4},
        },
        (
            "Recovery: unless the root vetoes it during the delay, descriptor abababab replaces the "
            "authority by the recovery keys of quentin, rosa alone; then only cdcdcdcd may append, and 3 of "
            "4 witnesses make a head final."
        ),
    ),
    (
        "authority.veto",
        {"intent": NODE, "reason": "we are here"},
        "Veto recovery abababab, which ends with that: we are here",
    ),
    (
        "authority.members",
        {"role": "route-authority", "partition": "eu-1", "threshold": 1, "keys": [{"issuer_id": "alice"}]},
        "route-authority of partition eu-1: 1 of 1 (alice) may sign for it.",
    ),
    (
        "log.term",
        {"log": "authority", "term": 3, "start_size": 9, "sequencers": [{"node_id": NODE}]},
        "From size 9 on, only abababab may append (term 3 of log authority).",
    ),
    (
        "log.snapshot",
        {"log": "authority", "size": 9, "projections": [{"rows": 2}, {"rows": 3}]},
        "Log authority at size 9 means 5 row(s) in 2 projection(s).",
    ),
    (
        "node.approval",
        {"display_name": "Desk\x07", "node_id": NODE, "trust_tier": "standard"},
        "Admit node “Desk\\x07” (abababab) with trust standard.",
    ),
    (
        "role.certificate",
        {"node_id": NODE, "role": "relay", "scope": {"actions": ["*"], "services": []}},
        "Node abababab may act as relay: actions *; services none.",
    ),
    (
        "role.revocation",
        {"target": {"node_id": NODE}, "reason": "stolen"},
        f"Revoke node {NODE} for ever: stolen",
    ),
    (
        "registry.gossip_record",
        {"service": "update-store", "scope": "cluster", "endpoints": [{"address": "quic://a:1"}]},
        "Service update-store (cluster) is found at quic://a:1.",
    ),
    (
        "registry.gossip_record",
        {"service": "x", "scope": "organization", "organization_id": "o1", "endpoints": []},
        "Service x (organization o1) is found at no address at all.",
    ),
    (
        "route.lease",
        {"route_id": "r1", "partition": "eu-1", "service": "rdp", "hops": [NODE, "cd" * 32]},
        "Route r1 of partition eu-1 carries rdp over abababab → cdcdcdcd.",
    ),
    (
        "route.fence",
        {"target": {"partition": "eu-1"}, "reason": "split"},
        "Fence partition eu-1, killing every lease before it: split",
    ),
    (
        "policy.epoch",
        {"policy": "p", "epoch": 4, "assertions": [{}]},
        "Policy p becomes epoch 4, with 1 assertion(s) to hold it.",
    ),
    (
        "service.lease",
        {"service": "web-admin", "mode": "leader-follower", "leader": NODE, "replicas": [NODE, "cd" * 32]},
        "Service web-admin is served by abababab, cdcdcdcd (leader-follower, led by abababab).",
    ),
    (
        "service.lease",
        {"service": "dns", "mode": "active-active", "replicas": [NODE]},
        "Service dns is served by abababab (active-active).",
    ),
    (
        "relay.assignment",
        {
            "partition": "eu-1",
            "relays": [{"node_id": NODE, "classes": ["dns", "bulk"], "max_mbit_per_s": 200}],
            "rendezvous": ["cd" * 32],
        },
        "In partition eu-1 relay abababab (dns bulk, 200 Mbit/s); nodes meet at cdcdcdcd.",
    ),
    (
        "relay.assignment",
        {"partition": "eu-1", "relays": [], "rendezvous": []},
        "In partition eu-1 relay nobody; nodes meet at nobody.",
    ),
    (
        "peer_directory.epoch",
        {"partition": "eu-1", "node_count": 7},
        "The peer directory of partition eu-1 lists 7 node(s).",
    ),
    (
        "update.release",
        {
            "product": "agent",
            "version": "1.4.0",
            "channel": "stable",
            "artifacts": [{}],
            "rollout": [{"cohort_percent": 10, "not_before": "2026-01-01T00:00:00Z"}],
        },
        "Release agent 1.4.0 on channel stable: 1 artifact(s), for 10 % from 2026-01-01T00:00:00Z.",
    ),
    (
        "storage.shard_manifest",
        {
            "shard_set_id": "backup-7",
            "code": {"k": 2, "m": 1},
            "replication_factor": 2,
            "shards": [{"node_id": NODE}, {"node_id": NODE}, {"node_id": "cd" * 32}],
            "retention_until": "2027-01-01T00:00:00Z",
        },
        (
            "Shard set backup-7 lies on 2 node(s): any 2 of 3 shards, 2 copies each, restore it; "
            "kept until 2027-01-01T00:00:00Z."
        ),
    ),
    (
        "bootstrap.seed_set",
        {"platform": "linux", "site": "home", "endpoints": [{"address": "quic://a:1"}]},
        "New linux nodes at site home start from quic://a:1.",
    ),
    (
        "endpoint.candidates",
        {"node_id": NODE, "candidates": [{"address": "quic://a:1"}, {"address": "quic://b:2"}]},
        "Node abababab may be tried at quic://a:1, quic://b:2.",
    ),
    (
        "telemetry.observation",
        {"node_id": NODE, "observed": [{"metric": "rtt_us"}, {"metric": "loss_ppm"}, {"metric": "rtt_us"}]},
        "Node abababab measured loss_ppm, rtt_us.",
    ),
    (
        "traffic.account",
        {
            "node_id": NODE,
            "since": "2026-01-01T00:00:00Z",
            "until": "2026-01-01T01:00:00Z",
            "carried": [{"route_id": "r", "bytes": 5}, {"route_id": "r", "bytes": 6}],
        },
        "Node abababab carried 11 bytes on 1 route(s) from 2026-01-01T00:00:00Z to 2026-01-01T01:00:00Z.",
    ),
    ("seen.by.nobody", {}, "A record of kind rap.fabric.seen.by.nobody.v1."),
]


@pytest.mark.parametrize(("kind", "fields", "sentence"), CASES)
def test_every_kind_has_its_sentence(kind: str, fields: dict[str, Any], sentence: str) -> None:
    assert headline({"schema_version": f"rap.fabric.{kind}.v1", **fields}) == sentence


def test_no_kind_is_without_words() -> None:
    cluster = setting()
    assert not [kind for kind, make in MAKERS.items() if "A record of kind" in headline(make(cluster))]
