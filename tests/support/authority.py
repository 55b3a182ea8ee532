"""A cluster for tests: keys from names, a genesis, a first term, members, approved nodes, signed records.

    cluster = make_cluster()                     # production: every role 2 of 3, and 4 witnesses
    record = cluster.registry("control-api")     # signed by the control quorum
    data = encode(record)
    admit(cluster.state, data, cluster.now)

Everything is deterministic.  Records are made with the product's own encoders and signers and enter the state
through its own admission, so a rule is written down only once.  `Cluster.log` lists the records that are in
the state, in order, as (record bytes, sequenced_at, term); `Cluster.leaves()` are their leaf bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from statelog.admission import Admitted, admit, admit_genesis, admit_node_signed
from statelog.canonical import encode
from statelog.leaf import frame_leaf
from statelog.merkle import CompactRange, leaf_hash
from statelog.records import KINDS_BY_NAME
from statelog.signing import add_signature, record_id_of, sign_record
from statelog.state import (
    AUTHORITY_LOG,
    CONTROL,
    OBSERVER,
    RECOVERY,
    ROOT,
    ROUTE,
    STORAGE,
    UPDATE,
    AuthorityState,
    Mode,
)
from statelog.times import format_time
from tests.support.keys import (
    CLUSTER_ID,
    endpoint,
    issuer,
    key_entry,
    key_id,
    node_id,
    node_signer,
    sequencer_entry,
    signer,
)
from tests.support.makers import DAY_S, HOUR_S, NODES, STORES, Makers

__all__ = [
    "BASE_TIME",
    "CLUSTER_ID",
    "DAY_S",
    "HOUR_S",
    "NODES",
    "QUORUMS",
    "STORES",
    "Cluster",
    "Log",
    "endpoint",
    "issuer",
    "key_entry",
    "key_id",
    "make_cluster",
    "node_id",
    "node_signer",
    "sequencer_entry",
    "signer",
]

BASE_TIME = 1_767_225_600  # 2026-01-01T00:00:00Z
QUORUMS = {
    RECOVERY: ("recovery-1", "recovery-2"),
    ROOT: ("root-1", "root-2"),
    CONTROL: ("control-1", "control-2"),
    ROUTE: ("route-1", "route-2"),
    UPDATE: ("update-1", "update-2"),
    STORAGE: ("storage-1", "storage-2"),
    OBSERVER: ("observer-1",),
}


@dataclass
class Log:
    """The authority log as far as the cluster has grown; a `LogView`."""

    entries: list[tuple[bytes, int, int]] = field(default_factory=list)  # record, sequenced_at, term
    tree: CompactRange = field(default_factory=CompactRange)
    roots: dict[int, bytes] = field(default_factory=dict)
    name: str = AUTHORITY_LOG

    @property
    def size(self) -> int:
        return len(self.entries)

    def root_at(self, size: int) -> bytes | None:
        return self.roots.get(size)

    def append(self, record: bytes, sequenced_at: int, term: int) -> None:
        self.entries.append((record, sequenced_at, term))
        self.tree.append(leaf_hash(frame_leaf(record, sequenced_at, term)))
        self.roots[self.size] = self.tree.root()


class Cluster(Makers):
    """A growing cluster: `state` is the fold of `log`; `now` is the time at which records are made."""

    def __init__(self, mode: Mode, cluster_id: str, now: int, **genesis: Any) -> None:
        self.mode = mode
        self.cluster_id = cluster_id
        self.now = now
        self.log = Log()
        self.genesis = self.descriptor(**genesis)
        self.anchor = record_id_of(self.genesis)
        self.state: AuthorityState = admit_genesis(encode(self.genesis), self.anchor)[0]
        self.log.append(encode(self.genesis), self.now, 0)

    # --- growing ---

    def admit(self, record: dict[str, Any], **options: Any) -> Admitted:
        """The verdict on ``record`` at `now` in the log's next place; nothing changes."""
        return admit(self.state, encode(record), self.now, log=self.log, **options)

    def admit_node_signed(self, record: dict[str, Any]) -> Admitted:
        return admit_node_signed(self.state, encode(record), self.now)

    def append(self, record: dict[str, Any]) -> Admitted:
        """Admit ``record``, append it to the log and apply it."""
        admitted = self.admit(record)
        assert admitted.change is not None, "a log never carries a duplicate"
        self.state.apply(admitted.change, self.log.size)
        self.log.append(encode(record), self.now, self.term)
        return admitted

    def grant_roles(self) -> None:
        """Append what assignments, manifests and observations rest on: relay-1 relays, three nodes store,
        phone-a observes.
        """
        self.append(self.certificate("relay-1", "relay", lifetime_s=90 * DAY_S))
        for node in STORES:
            self.append(self.certificate(node, "storage", lifetime_s=90 * DAY_S))
        watcher = key_entry("observer-2", cluster_id=self.cluster_id, issuer_id=node_id("phone-a"))
        own = key_entry("observer-1", cluster_id=self.cluster_id)
        self.append(self.members(OBSERVER, threshold=1, keys=[own, watcher]))

    @property
    def term(self) -> int:
        term = self.state.terms.get(AUTHORITY_LOG)
        return term.term if term is not None else 0

    def leaves(self) -> list[bytes]:
        return [frame_leaf(*entry) for entry in self.log.entries]

    # --- signing ---

    def draft(
        self,
        kind: str,
        *,
        epoch: int | None = None,
        issued_at: int | None = None,
        lifetime_s: int = HOUR_S,
        issuer_role: str = CONTROL,
        **own: Any,
    ) -> dict[str, Any]:
        """An unsigned record of ``kind`` (``route.lease``); without ``epoch`` the subject's next one."""
        issued = self.now if issued_at is None else issued_at
        record = {
            "schema_version": KINDS_BY_NAME[kind].schema,
            "cluster_id": self.cluster_id,
            "epoch": epoch,
            "issued_at": format_time(issued),
            "expires_at": format_time(issued + lifetime_s),
            "issuer_node_id": node_id("control-1"),
            "issuer_role": issuer_role,
            **own,
        }
        if epoch is None:
            subject = (kind, *KINDS_BY_NAME[kind].subject(record))
            last = self.state.subjects.get(subject)
            record["epoch"] = last.epoch + 1 if last is not None else 1
        return record

    def sign(
        self, record: dict[str, Any], by: Sequence[str] | None = None, role: str | None = None
    ) -> dict[str, Any]:
        """``record`` signed anew by the named keys (default: two of its ``issuer_role``)."""
        unsigned = {name: value for name, value in record.items() if name != "signatures"}
        signed: dict[str, Any] = {**unsigned, "signatures": []}
        issuer_role = record["issuer_role"]
        for name in self.quorum(issuer_role) if by is None else by:
            entry = sign_record(unsigned, signer(name), issuer(name), role or issuer_role)
            signed = add_signature(signed, entry)
        return signed

    def quorum(self, role: str) -> tuple[str, ...]:
        """The keys that sign by default for ``role``."""
        names = QUORUMS[role]
        return names if self.mode == "production" else names[:1]


def make_cluster(
    mode: Mode = "production",
    *,
    cluster_id: str = CLUSTER_ID,
    members: bool = True,
    nodes: Sequence[str] = NODES,
    now: int = BASE_TIME,
) -> Cluster:
    """A cluster after its ceremony: genesis, first term, members of four roles, approved ``nodes``.

    ``members=False`` and ``nodes=()`` leave those out; the log then has two entries.
    """
    cluster = Cluster(mode, cluster_id, now)
    cluster.append(cluster.log_term())
    if members:
        threshold = 2 if mode == "production" else 1
        for role in (ROUTE, UPDATE, STORAGE):
            cluster.append(cluster.members(role, threshold=threshold))
        cluster.append(cluster.members(OBSERVER, "observer-1", threshold=1))
    for node in nodes:
        cluster.append(cluster.approval(node))
    return cluster
