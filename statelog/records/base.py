"""What every kind of record has in common: the header, and the questions that admission asks a kind.

A kind file states its shape as a table (field -> checker, see `shapes`), its subject, who signs it, and its
own rules.  `admission` asks in a fixed order; a kind never verifies a signature itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, Protocol

from statelog.errors import refuse
from statelog.limits import MAX_EPOCH_JUMP, MAX_INTEGER, MAX_SIGNATURES, MAX_TEXT_CHARS, SIGNATURE_BYTES
from statelog.quorum import Key, KeySet
from statelog.records.compiled import Accepts, compiled, may_hold
from statelog.records.shapes import (
    Check,
    Fault,
    base64_bytes,
    cluster_id,
    exactly,
    fields,
    integer,
    list_of,
    name,
    sha256_hex,
    text,
    time,
)
from statelog.signing import pae_head, payload_type_of, signed_bytes_of_decoded
from statelog.state import NODE, ROOT, AuthorityState, Edit, Node, Target

Record = Mapping[str, Any]
Concerns = tuple[tuple[Target, str], ...]

SCHEMA_PREFIX: Final = "rap.fabric."

_SIGNATURES: Final = b',"signatures":['  # never first: ``cluster_id`` sorts before it
_SIGNATURE: Final = fields(
    {
        "key_id": sha256_hex,
        "issuer_id": name,
        "role": name,
        "alg": exactly("ed25519"),
        "value": base64_bytes(SIGNATURE_BYTES),
    }
)


class LogView(Protocol):
    """A log as it stands just before the record: its name, its size, and its roots.

    ``size`` is the index that the record would get.  ``root_at(n)`` is the RFC 6962 root of the first n
    entries, None where it is not known; for n = size it must be known.
    """

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def root_at(self, size: int) -> bytes | None: ...


@dataclass(slots=True)
class Context:
    """The circumstances of one admission; ``issued_at`` and ``expires_at`` are the record's, parsed."""

    record_id: str
    now: int
    issued_at: int
    expires_at: int
    log: LogView | None
    ahead_of_log: bool
    bootstrap: bool


class Form:
    """The form of one kind's records: its schema, the common header, its ``own`` and ``optional`` fields.

    ``check`` finds the fault in a record; ``accepts`` only says, and fast, whether there is none.
    """

    def __init__(
        self, schema: str, own: Mapping[str, Check], optional: Mapping[str, Check] | None = None
    ) -> None:
        self.schema = schema
        self.own: Final = (*own.values(), *(optional or {}).values())
        self.check = fields(
            {
                "schema_version": exactly(schema),
                "cluster_id": cluster_id,
                "epoch": integer(1, MAX_INTEGER),
                "issued_at": time,
                "expires_at": time,
                "issuer_node_id": text(MAX_TEXT_CHARS),
                "issuer_role": name,
                "signatures": list_of(_SIGNATURE, 0, MAX_SIGNATURES, ascending="key_id"),
                **own,
            },
            {"generation": integer(0, MAX_INTEGER), **(optional or {})},
        )

    @cached_property
    def accepts(self) -> Accepts:
        """The form as one function, written when the first record of the kind comes."""
        return compiled(self.check, self.schema)


class Kind(ABC):
    """One kind of record.  Subclasses are stateless; `records.KINDS` holds one instance of each."""

    form: ClassVar[Form]
    max_validity_s: ClassVar[int]
    logged: ClassVar[bool] = True  # False: signed by one node, never in a log
    acts_unlogged: ClassVar[bool] = False  # has effect before a log carries it
    outlives_descriptor: ClassVar[bool] = False  # admitted after the descriptor in force expired
    ends_with_its_time: ClassVar[bool] = False  # once expired it has no effect on anything but its subject
    opens_term: ClassVar[bool] = False  # may put a new term of a log in force
    new_role: ClassVar[str] = ROOT  # in which the keys of `new_keys` sign
    free_form: ClassVar[bool] = False  # holds objects whose values the form does not check one by one

    @property
    def schema(self) -> str:
        """The ``schema_version`` of this kind."""
        return self.form.schema

    @cached_property
    def name(self) -> str:
        """The schema without its prefix and version: ``route.lease``."""
        return self.form.schema.removeprefix(SCHEMA_PREFIX).rsplit(".", 1)[0]

    def shape(self, record: Record) -> None:
        """Raise `Refused` (SL-SHAPE) unless ``record`` has exactly the fields of this kind, within bounds."""
        if self.form.accepts(record) and self.coherence(record) is None:
            return
        fault = self.form.check(record) or self.coherence(record)
        if fault is not None:
            raise refuse(
                "SL-SHAPE",
                f"not the form of {self.name}",
                path=fault.path,
                expected=fault.expected,
                found=fault.found,
            )

    def signed_bytes(self, record: Record, data: bytes) -> bytes:
        """What every signature covers, out of the canonical bytes ``data`` of a ``record`` of right shape.

        The signatures are cut out where they stand, which saves encoding the rest again: with a checked
        shape, no quotation mark and no bracket inside them, and no other field of that name, it is the same.
        """
        head = self._head
        if head is None:
            return signed_bytes_of_decoded(record)
        start = data.rfind(_SIGNATURES)
        end = data.index(b"]", start) + 1
        return head + b"%d " % (len(data) - end + start) + data[:start] + data[end:]

    @cached_property
    def _head(self) -> bytes | None:
        """The beginning of all signed bytes; None when a part may have a field ``signatures`` of its own."""
        if any(may_hold("signatures", own) for own in self.form.own):
            return None
        return pae_head(payload_type_of(self.form.schema))

    def coherence(self, record: Record) -> Fault | None:
        """What the table of fields cannot say: one field's form depending on another."""
        return None

    @abstractmethod
    def subject(self, record: Record) -> tuple[str, ...]:
        """What the record is about; its epochs only grow."""

    @abstractmethod
    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        """The role whose quorum must sign, and its partition (None: the whole cluster)."""

    def new_keys(self, record: Record) -> Mapping[str, Key]:
        """Keys that the record itself brings and that must sign it too, by key id."""
        return {}

    def quorums(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[KeySet, ...]:
        """The key sets of each of which a quorum must have signed.

        Raises `Refused` (SL-ROLE, SL-EXPIRED).
        """
        role, partition = self.signer_role(record, state)
        return (key_set_in_force(state, role, partition, ctx.now),)

    def home_partition(self, record: Record, state: AuthorityState) -> str | None:
        """The partition in whose log the record belongs once that log is open; None: the authority log."""
        return None

    def concerns(self, record: Record, record_id: str) -> Concerns:
        """What must not have been revoked, each with its path in the record."""
        return ()

    def crosses(self, record: Record) -> Concerns:
        """What must not have been fenced since the record was issued, each with its path in the record."""
        return ()

    def check_epoch(self, record: Record, last: int) -> None:
        """Raise `Refused` (SL-EPOCH) for an epoch too far beyond the subject's ``last`` (0: none yet)."""
        if record["epoch"] > last + MAX_EPOCH_JUMP:
            raise refuse(
                "SL-EPOCH",
                "the epoch jumps too far",
                path="epoch",
                expected=f"at most {last + MAX_EPOCH_JUMP}",
                found=record["epoch"],
            )

    def check_due(self, record: Record, state: AuthorityState, ctx: Context) -> None:
        """Raise `Refused` while a record that could pass has to wait.  A draft may be signed meanwhile."""
        return

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        """The kind's own rules: what the record changes besides its subject's entry, or `Refused`."""
        return ()


def key_set_in_force(state: AuthorityState, role: str, partition: str | None, now: int) -> KeySet:
    """The set that speaks for ``role``.  Raises `Refused`: SL-ROLE without one, SL-EXPIRED after its time."""
    found = state.key_set(role, partition)
    if found is None:
        where = f" in partition {partition}" if partition is not None else ""
        raise refuse(
            "SL-ROLE", f"nobody holds {role}{where}", path="issuer_role", expected="a members record"
        )
    if found.expires_at is not None and now >= found.expires_at:
        raise refuse("SL-EXPIRED", f"the members record of {role} has expired", path="issuer_role")
    return found


def require_node(state: AuthorityState, node_id: str, now: int, path: str) -> Node:
    """The approved node.  Raises `Refused` (SL-NODE) without an approval in force."""
    node = state.node_in_force(node_id, now)
    if node is None:
        raise refuse("SL-NODE", "the node has no approval in force", path=path, found=node_id)
    return node


def require_role(
    state: AuthorityState, node_id: str, role: str, now: int, path: str, *, partition: str | None = None
) -> None:
    """Raise `Refused` (SL-NODE) unless the control quorum gave the approved node ``role``, in ``partition``.

    For roles that cannot be delegated: their one certificate has no parent.
    """
    require_node(state, node_id, now, path)
    granted = state.subjects.get(("role.certificate", node_id, role, ""))
    certificate = state.certificate_in_force(granted.record_id, now) if granted is not None else None
    if certificate is None:
        raise refuse("SL-NODE", f"the node has no {role} certificate in force", path=path, found=node_id)
    if partition is not None and not certificate.scope.partitions & {partition, "*"}:
        raise refuse(
            "SL-NODE",
            f"the node's {role} certificate is for elsewhere",
            path=path,
            expected=partition,
            found=", ".join(sorted(certificate.scope.partitions)) or "nowhere",
        )


def node_key_set(node: Node) -> KeySet:
    """The key set of a record that one node signs: its own key, which is its own issuer."""
    return KeySet(NODE, None, 1, (Key(node.node_id, node.public, node.node_id, "online"),))


class NodeSigned(Kind):
    """A kind that one approved node signs for itself, its ``node_id``, and that no log carries."""

    logged: ClassVar[bool] = False

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["node_id"],)

    def concerns(self, record: Record, record_id: str) -> Concerns:
        return ((Target("node_id", record["node_id"]), "node_id"),)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return NODE, None

    def quorums(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[KeySet, ...]:
        return (node_key_set(require_node(state, record["node_id"], ctx.now, "node_id")),)
