"""A cluster to measure with: every role two of three, four witnesses, and as many signed records as wanted.

Records are half registry records of two hundred services, whose epochs rise, and half leases of routes of
their own: the two kinds that a living cluster writes most. Each carries two signatures.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from statelog import ceremony, genesis
from statelog.canonical import encode
from statelog.ceremony import Request
from statelog.checkpoint import cosign, parse_signed_checkpoint
from statelog.io.database import open_database
from statelog.io.sequencer import Sequencer, Submitted
from statelog.io.store import Store, StoredCosignature
from statelog.records import KINDS_BY_NAME
from statelog.replay import Replay
from statelog.signing import SeedSigner, add_signature, encode_base64, key_id_of, sign_record
from statelog.state import CONTROL, ROOT, ROUTE
from statelog.times import format_time

CLUSTER_ID = "bench.abcdefghijklmnopqrstuvwxyz"
PEOPLE = ("alice", "bob", "carol")
WITNESSES = ("w1", "w2", "w3", "w4")
SERVICES = 200
PARTITION = "eu-1"
HOUR_S = 3_600


def signer(name: str) -> SeedSigner:
    """The key called `name`, the same in every run."""
    return SeedSigner(sha256(b"key of a measured cluster: " + name.encode()).digest())


def _entries(role: str, custody: str = "online") -> tuple[dict[str, str], ...]:
    return tuple(genesis.key_entry(signer(f"{role}-{who}"), CLUSTER_ID, who, custody) for who in PEOPLE)


class MeasuredCluster:
    """Genesis, first term, route authority and three nodes; `records` makes what is appended after them.

    It began `age_s` seconds ago, and `now` is that moment.
    """

    def __init__(self, age_s: int = 0) -> None:
        self.now = int(time.time()) - age_s
        self.sequencer_key = signer("sequencer")
        self.nodes = [signer(f"node-{n}") for n in range(3)]
        self.node_ids = [key_id_of(node.public) for node in self.nodes]
        self.beginning: list[bytes] = []
        descriptor = self._signed(genesis.first_descriptor(self._plan(), self.now), "root", ROOT)
        self.anchor = descriptor.record_id
        replay = genesis.genesis_replay(descriptor)
        self.beginning.append(descriptor.signed_record())
        sequencer = genesis.sequencer_entry(self.sequencer_key, CLUSTER_ID, self.node_ids[0])
        self._append(replay, genesis.first_term(replay, [sequencer], self.now))
        members = {"role": ROUTE, "threshold": 2, "keys": list(_entries("route"))}
        self._append(replay, self._propose(replay, "authority.members", members))
        for node, node_id in zip(self.nodes, self.node_ids, strict=True):
            approval = {
                "node_id": node_id,
                "public": encode_base64(node.public),
                "display_name": "measured",
                "trust_tier": "standard",
                "organizations": [],
            }
            self._append(replay, self._propose(replay, "node.approval", approval))

    def records(self, count: int) -> Iterator[bytes]:
        """`count` records of two signatures each, valid one after the other behind the beginning."""
        for n in range(count):
            kind, role, own = self.registry(n // 2, n // 2 % SERVICES) if n % 2 else self.lease(n)
            record = {
                "schema_version": KINDS_BY_NAME[kind].schema,
                "cluster_id": CLUSTER_ID,
                "epoch": 1 + (n // 2) // SERVICES if n % 2 else 1,
                "issued_at": format_time(self.now),
                "expires_at": format_time(self.now + 12 * HOUR_S),
                "issuer_node_id": self.node_ids[0],
                "issuer_role": role,
                **own,
            }
            signed: dict[str, Any] = {**record, "signatures": []}
            for who in PEOPLE[:2]:
                key = signer(f"{role.removesuffix('-authority')}-{who}")
                signed = add_signature(signed, sign_record(record, key, who, role))
            yield encode(signed)

    def store(self, path: Path, count: int) -> tuple[sa.Engine, Sequencer]:
        """A store at `path` with the beginning and `count` records, all of it final."""
        engine = open_database(f"sqlite:///{path}", create=True)
        descriptor, term, *rest = self.beginning
        sequencer = Sequencer.create(engine, descriptor, term, self.sequencer_key, now=self.now)
        batch = [*rest, *self.records(count)]
        for outcome in sequencer.submit_many(batch, self.now):
            if not isinstance(outcome, Submitted):
                raise TypeError(f"a record of the benchmark was refused: {outcome}")
        self.finalize(Store(engine))
        return engine, sequencer

    def finalize(self, store: Store) -> None:
        """Cosign the newest checkpoint by all witnesses and mark it final."""
        note = store.checkpoint()
        if note is None:
            raise LookupError("the store has no checkpoint")
        checkpoint, parsed = parse_signed_checkpoint(note)
        lines = [
            StoredCosignature(
                key_id_of(signer(name).public),
                name,
                self.now,
                cosign(parsed.text, name, signer(name), self.now).line(),
            )
            for name in WITNESSES
        ]
        store.put_cosignatures(checkpoint.size, lines)
        store.set_final(checkpoint.size, checkpoint.root)

    def _plan(self) -> genesis.Plan:
        return genesis.Plan(
            cluster_id=CLUSTER_ID,
            mode="production",
            root=_entries("root", "offline"),
            root_threshold=2,
            control=_entries("control"),
            control_threshold=2,
            witnesses=tuple(
                genesis.key_entry(signer(name), CLUSTER_ID, f"owner-of-{name}", "online", name=name)
                for name in WITNESSES
            ),
            witness_threshold=3,
            faulty=1,
            recovery=tuple(key_id_of(signer(f"recovery-{who}").public) for who in PEOPLE),
            recovery_threshold=2,
            recovery_delay_s=24 * HOUR_S,
        )

    def _propose(self, replay: Replay, kind: str, own: dict[str, Any]) -> Request:
        return ceremony.propose(KINDS_BY_NAME[kind], own, replay.state, self.now, log=replay)

    def _signed(self, request: Request, keys: str, role: str) -> Request:
        for who in PEOPLE[:2]:
            request = ceremony.attach(request, signer(f"{keys}-{who}"), who, role)
        return request

    def _append(self, replay: Replay, request: Request) -> None:
        record = self._signed(request, "control", CONTROL).signed_record()
        replay.append(replay.next_leaf(record, self.now))
        self.beginning.append(record)

    def registry(self, n: int, service: int) -> tuple[str, str, dict[str, Any]]:
        """The kind, the signers' role and the own fields of a registry record with an `n`-th endpoint."""
        endpoint = {
            "endpoint_id": f"{self.node_ids[0]}/{n}",
            "address": f"quic://192.0.2.{n % 250 + 1}:4433",
            "transport": "direct_quic",
            "reachability": "public",
            "connectivity_mode": "direct",
            "priority": 10,
            "weight": 100,
            "peer_cert_sha256": self.node_ids[1],
        }
        own = {"service": f"service-{service}", "scope": "cluster", "endpoints": [endpoint]}
        return "registry.gossip_record", CONTROL, own

    def lease(self, n: int) -> tuple[str, str, dict[str, Any]]:
        """The same of a lease of the `n`-th route."""
        own = {
            "route_id": f"route-{n}",
            "partition": PARTITION,
            "service": "forward/ssh",
            "hops": self.node_ids,
            "allowed_channels": ["*"],
            "allowed_classes": ["interactive", "bulk"],
            "allowed_services": ["forward/ssh"],
            "alternates": [],
        }
        return "route.lease", ROUTE, own
