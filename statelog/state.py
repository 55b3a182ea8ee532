"""The authority state: everything that admission needs to judge the next record.

It is the fold of the authority log.  Entry i is judged by the state after entry i−1; what it changes holds
from entry i+1 on.  A change is computed first, as data (`Change`), and committed at once by
`AuthorityState.apply`, which only assigns and so cannot stop half-way.

Every lookup is one dictionary access.  Memory is bounded by what is or ever was a subject: one `Subject` per
subject, and the payload only of its latest record.
"""

# Long on purpose: the whole state that records are judged by, type for type, on one page.
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal, NamedTuple, Protocol

from statelog.findings import Finding
from statelog.precedents import Release, ShardSet
from statelog.quorum import Custody, KeySet

Mode = Literal["development", "production"]
Purpose = Literal["authority", "witness", "sequencer", "node", "recovery"]
TrustTier = Literal["candidate", "standard", "trusted"]
SubjectKey = tuple[str, ...]  # (kind name, *the kind's subject)

AUTHORITY_LOG: Final = "authority"
PARTITION_LOG_PREFIX: Final = "routes-"  # the log of partition eu-1 is routes-eu-1

ROOT: Final = "root-authority"
CONTROL: Final = "control-authority"
ROUTE: Final = "route-authority"
UPDATE: Final = "update-authority"
STORAGE: Final = "storage-authority"
OBSERVER: Final = "observer-authority"
RECOVERY: Final = "recovery-authority"  # speaks only where a root was lost, after a delay in the open
NODE: Final = "node"  # the role of a record that one node signs for itself


# --- what records install ---


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """A witness: ``name`` is its key name in cosignature lines (C2SP signed-note)."""

    name: str
    key_id: str
    public: bytes
    issuer_id: str
    custody: Custody


@dataclass(frozen=True)
class WitnessSet:
    """N witnesses, K = ``threshold`` of whom make a head final while up to f = ``faulty`` lie."""

    threshold: int
    faulty: int
    keys: tuple[WitnessKey, ...]

    @cached_property
    def by_name(self) -> dict[str, WitnessKey]:
        """The witnesses by key name."""
        return {key.name: key for key in self.keys}

    @cached_property
    def fault(self) -> Finding | None:
        """Why this set protects nobody, or None: distinct keys, names and issuers; (N+f)/2 < K ≤ N−f.

        The left side makes any two quorums share an honest witness, so no fork becomes final; the right side
        lets a head become final while f witnesses are silent.
        """
        n, k, f = len(self.keys), self.threshold, self.faulty
        for what in ("public", "name", "issuer_id"):
            if len({getattr(key, what) for key in self.keys}) != n:
                return Finding("SL-KEY", f"two witnesses share one {what}")
        if not n + f < 2 * k <= 2 * (n - f):
            return Finding(
                "SL-THRESHOLD",
                "the witness threshold does not protect against that many faulty witnesses",
                expected="(N + f)/2 < K ≤ N − f",
                found=f"N = {n}, f = {f}, K = {k}",
            )
        return None


@dataclass(frozen=True, slots=True)
class Recovery:
    """Who may replace a lost root, after ``delay_s`` in the open: hashes of keys that nobody has seen yet."""

    threshold: int
    key_sha256: tuple[str, ...]
    delay_s: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The authority descriptor in force: root, control, witnesses, recovery and the cluster's clocks."""

    record_id: str
    epoch: int
    mode: Mode
    clock_skew_s: int
    max_checkpoint_age_s: int
    issued_at: int
    expires_at: int
    root: KeySet
    control: KeySet
    witnesses: WitnessSet
    recovery: Recovery


@dataclass(frozen=True, slots=True)
class Sequencer:
    """A key that may sign checkpoints in a term, and the node that holds it."""

    key_id: str
    public: bytes
    node_id: str


@dataclass(frozen=True, slots=True)
class Term:
    """Who may write log ``log`` from ``start_size`` on; ``start_root`` is the root at that size."""

    log: str
    term: int
    start_size: int
    start_root: bytes
    sequencers: tuple[Sequencer, ...]


@dataclass(frozen=True, slots=True)
class PendingRecovery:
    """A recovery under way: who shows recovery keys, and what follows at ``due_at`` (Unix seconds).

    The coming ``descriptor`` (a record id) is sequenced by one of ``sequencers``, in a term of their own.
    """

    record_id: str
    descriptor: str
    holders: KeySet
    due_at: int
    sequencers: tuple[Sequencer, ...]
    witnesses: WitnessSet

    def use_of(self, key_id: str) -> Purpose | None:
        """What a key will serve as from the coming descriptor on, as far as the intent says."""
        if any(one.key_id == key_id for one in self.witnesses.keys):
            return "witness"
        return "sequencer" if any(one.key_id == key_id for one in self.sequencers) else None


@dataclass(frozen=True, slots=True)
class Node:
    """An approved node; ``node_id`` is the hex SHA-256 of ``public``."""

    node_id: str
    public: bytes
    display_name: str
    trust_tier: TrustTier
    organizations: tuple[str, ...]
    record_id: str
    expires_at: int
    bootstrap: bool


@dataclass(frozen=True, slots=True)
class Scope:
    """What a certificate allows, per dimension; ``frozenset({"*"})`` is everything, empty is nothing."""

    actions: frozenset[str]
    organizations: frozenset[str]
    services: frozenset[str]
    partitions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A role of a node.  ``scope`` is resolved against the parent; ``depth`` is 1 for a quorum-signed one."""

    record_id: str
    node_id: str
    role: str
    scope: Scope
    delegation_depth: int
    parent: str | None
    depth: int
    issued_at: int
    expires_at: int
    bootstrap: bool


class Lease(NamedTuple):
    """A leased route; ``hops`` is empty for a lease by next-hop policy."""

    record_id: str
    route_id: str
    partition: str
    hops: tuple[str, ...]
    issued_at: int
    expires_at: int
    bootstrap: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """The latest signed document of one policy; ``document`` must not be changed."""

    record_id: str
    policy: str
    epoch: int
    document: Mapping[str, object]
    expires_at: int
    bootstrap: bool


class Target(NamedTuple):
    """What a revocation or fence names: ``kind`` is certificate, node_id, route_id or partition."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A revocation or fence in effect: the record, its ``issued_at``, and where the log carries it."""

    record_id: str
    issued_at: int
    log_index: int | None


# --- what admission remembers ---


class Subject(NamedTuple):
    """The latest record of a subject.  ``log_index`` is None for one that acts ahead of the log.

    ``bootstrap`` marks what development mode accepted.
    """

    epoch: int
    record_id: str
    issued_at: int
    expires_at: int
    log_index: int | None
    bootstrap: bool


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that may sign now, and for which (role, partition) sets."""

    public: bytes
    issuer_id: str
    sets: frozenset[tuple[str, str | None]]
    roles: frozenset[str]

    def within(self, sets: frozenset[tuple[str, str | None]]) -> KnownKey:
        """The same key in other sets."""
        return KnownKey(self.public, self.issuer_id, sets, frozenset(role for role, _ in sets))


class Edit(Protocol):
    """One piece of a change.  `commit` only assigns: whatever can fail has failed before."""

    def commit(self, state: AuthorityState, log_index: int | None) -> None: ...


class Change(NamedTuple):
    """Everything that one admitted record changes: its subject's entry, and the edits of its kind."""

    subject: SubjectKey
    epoch: int
    record_id: str
    issued_at: int
    expires_at: int
    bootstrap: bool
    edits: tuple[Edit, ...] = ()


@dataclass(slots=True)
class AuthorityState:
    """The state after some entry of the log.  Read freely; change only by `apply`."""

    cluster_id: str
    anchor: str  # record_id of entry 0
    descriptor: Descriptor
    key_sets: dict[tuple[str, str | None], KeySet] = field(default_factory=dict)
    keys: dict[str, KnownKey] = field(default_factory=dict)  # by key_id, every key of key_sets
    former_root: KeySet | None = None  # whose quorum put this descriptor in force, and might have another
    retired: dict[str, int | None] = field(default_factory=dict)  # key_id -> log index of its removal
    uses: dict[str, Purpose] = field(default_factory=dict)  # key_id -> its one purpose, for ever
    witness_history: tuple[tuple[int, WitnessSet], ...] = ()  # (log index that installed it, set), in order
    recovery_sets: tuple[tuple[int, Recovery], ...] = ()  # (in force since, set); the last may be to come
    recovery: PendingRecovery | None = None
    terms: dict[str, Term] = field(default_factory=dict)  # by log name
    subjects: dict[SubjectKey, Subject] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    certificates: dict[str, Certificate] = field(default_factory=dict)  # by record_id, latest of its subject
    leases: dict[str, Lease] = field(default_factory=dict)  # by route_id
    leases_of: dict[Target, set[str]] = field(default_factory=dict)  # node or partition -> route_ids
    partition_of: dict[str, str] = field(default_factory=dict)  # route_id -> partition; never changes
    policies: dict[str, Policy] = field(default_factory=dict)
    releases: dict[tuple[str, str], Release] = field(default_factory=dict)  # by product and channel
    shard_sets: dict[str, ShardSet] = field(default_factory=dict)
    revoked: dict[Target, Mark] = field(default_factory=dict)
    fenced: dict[Target, Mark] = field(default_factory=dict)

    @property
    def mode(self) -> Mode:
        """The mode of the descriptor in force."""
        return self.descriptor.mode

    @property
    def witnesses(self) -> WitnessSet:
        """The witness set in force."""
        return self.descriptor.witnesses

    def root_before(self, epoch: int) -> KeySet:
        """The root whose quorum a descriptor of ``epoch`` needs beside its own.

        For a rival of the descriptor in force, one of the same epoch, that is the root before: who signed
        both has equivocated, and may well have left since.
        """
        if self.former_root is not None and epoch == self.descriptor.epoch:
            return self.former_root
        return self.descriptor.root

    def recovery_in_force(self, now: int) -> Recovery:
        """Who may start a recovery.  A new set waits for the old one's delay, so that whoever stole the root
        cannot take recovery away before its holders see it.
        """
        in_force = [one for since, one in self.recovery_sets if since <= now]
        return in_force[-1] if in_force else self.descriptor.recovery

    def witnesses_between(self, old_size: int, new_size: int) -> tuple[WitnessSet, ...]:
        """The witness sets whose quorum a head of ``new_size`` needs, after a final head of ``old_size``.

        The first head that covers a change of the set needs a quorum of the old set and of the new.  A head
        of size n covers the entries 0 … n−1.
        """
        history = [one for index, one in self.witness_history if index < new_size]
        before = sum(1 for index, _ in self.witness_history if index < old_size)
        return tuple(history[max(0, before - 1) :])

    def has_log(self, partition: str) -> bool:
        """Whether a term has opened the log of ``partition``."""
        return PARTITION_LOG_PREFIX + partition in self.terms

    def partition_of_route(self, route_id: str) -> str | None:
        """The partition that ``route_id`` belongs to, None for a route that nobody has leased or reserved.

        A leased route stays where it is.  Of the others ``<partition>/…`` is that partition's as soon as its
        log is open: logs that do not see one another never hand out one id twice.
        """
        known = self.partition_of.get(route_id)
        if known is not None:
            return known
        named, slash, _ = route_id.partition("/")
        return named if slash and self.has_log(named) else None

    def key_set(self, role: str, partition: str | None = None) -> KeySet | None:
        """Who speaks for ``role`` in ``partition``: its own set, or the cluster's where it has none.

        A set that development mode installed says nothing in production.
        """
        found = self.key_sets.get((role, partition)) or self.key_sets.get((role, None))
        if found is None or (found.bootstrap and self.mode == "production"):
            return None
        return found

    def node_in_force(self, node_id: str, now: int) -> Node | None:
        """The approved, unexpired, unrevoked node, or None."""
        node = self.nodes.get(node_id)
        if node is None or now >= node.expires_at or (node.bootstrap and self.mode == "production"):
            return None
        return node

    def certificate_in_force(self, record_id: str, now: int) -> Certificate | None:
        """The certificate if it and every one above it is the latest of its subject, unexpired, unrevoked.

        Certificates of a revoked node, or below one, are not in force.  At most `limits.MAX_CHAIN` steps.
        """
        found = current = self.certificates.get(record_id)
        while current is not None:
            if (
                now >= current.expires_at
                or Target("certificate", current.record_id) in self.revoked
                or Target("node_id", current.node_id) in self.revoked
                or (current.bootstrap and self.mode == "production")
            ):
                return None
            if current.parent is None:
                return found
            current = self.certificates.get(current.parent)
        return None

    def apply(self, change: Change, log_index: int | None) -> None:
        """Commit ``change``, all at once.  ``log_index`` is None for a record that acts ahead of the log."""
        for edit in change.edits:
            edit.commit(self, log_index)
        self.subjects[change.subject] = Subject(
            change.epoch,
            change.record_id,
            change.issued_at,
            change.expires_at,
            log_index,
            change.bootstrap,
        )

    def copy(self) -> AuthorityState:
        """An independent copy: values are immutable and shared, tables are not."""
        return AuthorityState(
            cluster_id=self.cluster_id,
            anchor=self.anchor,
            descriptor=self.descriptor,
            key_sets=dict(self.key_sets),
            keys=dict(self.keys),
            former_root=self.former_root,
            retired=dict(self.retired),
            uses=dict(self.uses),
            witness_history=self.witness_history,
            recovery_sets=self.recovery_sets,
            recovery=self.recovery,
            terms=dict(self.terms),
            subjects=dict(self.subjects),
            nodes=dict(self.nodes),
            certificates=dict(self.certificates),
            leases=dict(self.leases),
            leases_of={target: set(routes) for target, routes in self.leases_of.items()},
            partition_of=dict(self.partition_of),
            policies=dict(self.policies),
            releases=dict(self.releases),
            shard_sets=dict(self.shard_sets),
            revoked=dict(self.revoked),
            fenced=dict(self.fenced),
        )

    # --- for edits only ---

    def install_key_sets(self, sets: Iterable[KeySet], log_index: int | None) -> None:
        """Replace the sets of the same (role, partition); keys that are left in no set retire for good."""
        touched: set[str] = set()
        for new in sets:
            where = (new.role, new.partition)
            old = self.key_sets.get(where)
            self.key_sets[where] = new
            leaving = old.by_id if old is not None else {}
            for key_id in leaving:
                self.keys[key_id] = self.keys[key_id].within(self.keys[key_id].sets - {where})
            for key in new.keys:
                known = self.keys.get(key.key_id) or KnownKey(
                    key.public, key.issuer_id, frozenset(), frozenset()
                )
                self.keys[key.key_id] = known.within(known.sets | {where})
                self.uses[key.key_id] = "authority"
            touched.update(leaving)
        for key_id in touched:
            if not self.keys[key_id].sets:
                del self.keys[key_id]
                self.retired[key_id] = log_index
