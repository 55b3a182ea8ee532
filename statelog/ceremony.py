"""Ceremonies, without the world: drafting a record, collecting its signatures, saying who is missing.

A request file (`.sigreq`) is canonical JSON of schema `statelog.sigreq.v1`: the record without its
signatures, the signatures collected so far, and a title for people. The title is never signed and never
trusted; what a signer is shown comes from the record and from the authority state (`statelog.wording`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

from statelog import canonical
from statelog.admission import rehearse
from statelog.errors import Refused, UsageError, refuse
from statelog.limits import MAX_REQUEST_BYTES, MAX_SIGNATURES, MAX_TITLE_CHARS
from statelog.quorum import KeySet, count
from statelog.records import DESCRIPTOR, KINDS, KINDS_BY_NAME
from statelog.records.base import Context, Kind, LogView
from statelog.records.descriptor import descriptor_of
from statelog.signing import Signer, decode_base64, sign_record, signed_bytes, verify
from statelog.state import CONTROL, ROOT, AuthorityState
from statelog.times import format_time, parse_time

SCHEMA: Final = "statelog.sigreq.v1"
HEADER: Final = (
    *("schema_version", "cluster_id", "epoch", "issued_at", "expires_at"),
    *("issuer_node_id", "issuer_role", "signatures"),
)
_FIELDS: Final = {"schema", "title", "record", "signatures"}


@dataclass(frozen=True)
class Request:
    """A record on its way to a quorum: `record` has no `signatures`; those are sorted by key id."""

    record: Mapping[str, Any]
    signatures: tuple[Mapping[str, str], ...] = ()
    title: str = ""

    @property
    def payload(self) -> bytes:
        """Exactly the bytes that a signature of this request covers."""
        return signed_bytes(self.record)

    @property
    def record_id(self) -> str:
        """SHA-256 of `payload`, hex: the digest that signers compare."""
        return sha256(self.payload).hexdigest()

    @property
    def kind(self) -> Kind:
        """The kind of the record; known, since `decode_request` and `propose` checked it."""
        return KINDS[self.record["schema_version"]]

    @property
    def is_genesis(self) -> bool:
        """Whether this is a first descriptor, which is judged without a log."""
        return self.kind is DESCRIPTOR and self.record["epoch"] == 1

    def signed_record(self) -> bytes:
        """Canonical bytes of the record with the signatures so far: what `submit` sends."""
        return canonical.encode({**self.record, "signatures": [dict(one) for one in self.signatures]})


@dataclass(frozen=True, slots=True)
class QuorumLine:
    """How far one quorum of a request is. Names are issuer ids; `missing` of the `waiting` must sign yet."""

    role: str
    partition: str | None
    installed: bool  # False for a set that only this record brings
    threshold: int
    signed: tuple[str, ...]
    missing: int
    waiting: tuple[str, ...]

    def __str__(self) -> str:
        where = f" of {self.partition}" if self.partition else ""
        what = f"{self.role}{where}" if self.installed else f"proposed {self.role}{where}"
        text = f"{what}: {len(self.signed)} of {self.threshold}"
        if not self.missing:
            return text + "; complete"
        names = ", ".join(self.waiting) or "nobody who could"
        some = "" if self.missing == len(self.waiting) else f"{self.missing} of "
        return f"{text}; missing: {some}{names}"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a request stands: each quorum that it needs, and key ids whose signature does not count."""

    quorums: tuple[QuorumLine, ...]
    wrong: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every quorum is met and no signature would make the whole copy refused."""
        return not self.wrong and all(not line.missing for line in self.quorums)


# --- the file ---


def encode_request(request: Request) -> bytes:
    """The bytes of a `.sigreq` file."""
    return canonical.encode(
        {
            "schema": SCHEMA,
            "title": request.title,
            "record": dict(request.record),
            "signatures": [dict(one) for one in request.signatures],
        }
    )


def decode_request(data: bytes) -> Request:
    """Parse a `.sigreq` file. Raises `Refused`: SL-REQUEST for the file, and what its record lacks."""
    try:
        # Editors and mail programs end a file with a newline; the canonical bytes stand before it.
        body = canonical.decode(data.removesuffix(b"\n"), max_bytes=MAX_REQUEST_BYTES)
    except Refused as refusal:
        raise refuse("SL-REQUEST", f"not a signing request: {refusal.finding.sentence}") from refusal
    if body.get("schema") != SCHEMA:
        raise refuse("SL-REQUEST", "not a signing request", path="schema", expected=SCHEMA)
    if body.keys() != _FIELDS:
        odd = sorted(body.keys() ^ _FIELDS)
        raise refuse("SL-REQUEST", "a signing request has other fields", expected=sorted(_FIELDS), found=odd)
    record, signatures, title = body["record"], body["signatures"], body["title"]
    if not isinstance(title, str) or len(title) > MAX_TITLE_CHARS or not title.isprintable():
        raise refuse("SL-REQUEST", f"a title is at most {MAX_TITLE_CHARS} printable characters", path="title")
    if not isinstance(record, dict) or "signatures" in record or not isinstance(signatures, list):
        raise refuse("SL-REQUEST", "a request holds a record and, beside it, its signatures", path="record")
    kind_of(record).shape({**record, "signatures": signatures})
    return Request(record, tuple(signatures), title)


def kind_of(record: Mapping[str, Any]) -> Kind:
    """The kind of a record that a quorum may sign. Raises `Refused` SL-SCHEMA."""
    schema = record.get("schema_version")
    kind = KINDS.get(schema) if isinstance(schema, str) else None
    if kind is None or not kind.logged:
        raise refuse("SL-SCHEMA", "no quorum signs this kind of record", path="schema_version", found=schema)
    return kind


def kind_named(name: str) -> Kind:
    """The kind called `name`, such as `route.lease`. Raises `UsageError` with the names that there are."""
    kind = KINDS_BY_NAME.get(name)
    if kind is None or not kind.logged:
        names = ", ".join(sorted(kind.name for kind in KINDS.values() if kind.logged))
        raise UsageError(f"no kind of record is called {name!r}; there are {names}")
    return kind


# --- drafting ---


def propose(
    kind: Kind,
    own: Mapping[str, Any],
    state: AuthorityState,
    now: int,
    *,
    log: LogView | None = None,
    issuer_node_id: str = "operator",
    issuer_role: str | None = None,
    epoch: int | None = None,
    valid_s: int | None = None,
    title: str = "",
) -> Request:
    """Draft a record of `kind` with its `own` fields, judged as far as it can be without signatures.

    The header is filled in: the cluster, `epoch` one past the subject's last, `issued_at` = `now`,
    `expires_at` after `valid_s` seconds (half of the kind's longest validity), and the role that must sign;
    `issuer_role` chooses where a kind leaves a choice.
    Raises `Refused` with the code that admission would give, `UsageError` for a field of the header in `own`.
    """
    if epoch is None and kind.name == "log.term":
        epoch = own.get("term")  # a term's epoch is its number
    if clash := sorted(set(own) & set(HEADER)):
        raise UsageError(f"{', '.join(clash)} belongs to the header; leave it out or use its own option")
    draft = {
        **own,
        "schema_version": kind.schema,
        "cluster_id": state.cluster_id,
        "epoch": 1 if epoch is None else epoch,
        "issued_at": format_time(now),
        "expires_at": format_time(now + (kind.max_validity_s // 2 if valid_s is None else valid_s)),
        "issuer_node_id": issuer_node_id,
        "issuer_role": issuer_role or "to-be-found",
        "signatures": [],
    }
    kind.shape(draft)  # subject and role may rely on the shape
    known = state.subjects.get((kind.name, *kind.subject(draft)))
    if epoch is None and known is not None:
        draft["epoch"] = known.epoch + 1
    draft["issuer_role"] = kind.signer_role(draft, state)[0]
    del draft["signatures"]
    request = Request(draft, (), title or _title(kind, draft))
    rehearse(state, request.record, now, log=log)
    return request


def _title(kind: Kind, record: Mapping[str, Any]) -> str:
    return " ".join([kind.name, *kind.subject(record), f"epoch {record['epoch']}"])[:MAX_TITLE_CHARS]


def _context(request: Request, state: AuthorityState, now: int, log: LogView | None) -> Context:
    return Context(
        record_id=request.record_id,
        now=now,
        issued_at=parse_time(request.record["issued_at"]),
        expires_at=parse_time(request.record["expires_at"]),
        log=log,
        ahead_of_log=False,
        bootstrap=state.mode == "development",
    )


# --- signing ---


def attach(request: Request, signer: Signer, issuer_id: str, role: str) -> Request:
    """`request` with a signature over exactly `request.payload`, in place of an older one of the same key."""
    entry = sign_record(request.record, signer, issuer_id, role)
    value = decode_base64(entry["value"])
    if value is None or not verify(signer.public, value, request.payload):
        raise refuse(
            "SL-SIG", "the key source returned a signature that does not verify", found=entry["key_id"]
        )
    return _with_signatures(request, [entry])


def merge(requests: Sequence[Request]) -> Request:
    """One request with the signatures of all copies; the first one's title. Raises `Refused` SL-REQUEST.

    Two different signatures of one key are refused by name: one of them is likely wrong and would spoil the
    whole copy, and which one to believe is for a person to say (`progress` tells, given the key sets).
    """
    first, *others = requests
    for other in others:
        if other.payload != first.payload:
            raise refuse(
                "SL-REQUEST",
                "the requests ask for signatures of different records",
                expected=first.record_id,
                found=other.record_id,
            )
    merged = first
    for other in others:
        mine = {one["key_id"]: one for one in merged.signatures}
        for theirs in other.signatures:
            if mine.get(theirs["key_id"], theirs) != theirs:
                raise refuse(
                    "SL-REQUEST", "two copies hold different signatures of one key", found=theirs["key_id"]
                )
        merged = _with_signatures(merged, other.signatures)
    return merged


def without(request: Request, key_ids: Iterable[str]) -> Request:
    """`request` without the signatures of these keys."""
    gone = set(key_ids)
    return replace(request, signatures=tuple(one for one in request.signatures if one["key_id"] not in gone))


def _with_signatures(request: Request, more: Iterable[Mapping[str, str]]) -> Request:
    entries = {one["key_id"]: one for one in (*request.signatures, *more)}
    if len(entries) > MAX_SIGNATURES:
        raise refuse("SL-REQUEST", "too many signatures", expected=f"at most {MAX_SIGNATURES}")
    return replace(request, signatures=tuple(entries[key_id] for key_id in sorted(entries)))


# --- who signed ---


def required_sets(request: Request, state: AuthorityState | None, now: int) -> tuple[KeySet, ...]:
    """The key sets of each of which a quorum must sign. Without a state: those of a first descriptor.

    Raises `Refused` where nobody could sign (SL-ROLE, SL-EXPIRED).
    """
    record = {**request.record, "signatures": list(request.signatures)}
    if state is None:
        if not request.is_genesis:
            raise refuse("SL-GENESIS", "without a log, only a first authority descriptor can be judged")
        return (descriptor_of(record, request.record_id).root,)
    if record["cluster_id"] != state.cluster_id:
        raise refuse(
            "SL-CLUSTER", "the request is for another cluster", path="cluster_id", expected=state.cluster_id
        )
    return request.kind.quorums(record, state, _context(request, state, now, None))


def progress(request: Request, sets: Sequence[KeySet], installed: Iterable[KeySet] = ()) -> Progress:
    """Count the signatures of `request` against the `sets` that it needs; `installed` are those in force."""
    payload, known = request.payload, {key.key_id: key for one in sets for key in one.keys}
    roles = {one.role for one in sets}
    good: list[str] = []
    wrong: list[str] = []
    for entry in request.signatures:
        key, value = known.get(entry["key_id"]), decode_base64(entry["value"])
        right = (
            key is not None
            and value is not None
            and entry["issuer_id"] == key.issuer_id
            and entry["role"] in roles
            and verify(key.public, value, payload)
        )
        (good if right else wrong).append(entry["key_id"])
    in_force = tuple(installed)
    lines = (_line(one, good, one in in_force) for one in sets)
    return Progress(tuple(dict.fromkeys(lines)), tuple(wrong))  # the same people twice are asked once


def _line(key_set: KeySet, good: list[str], installed: bool) -> QuorumLine:
    result = count(key_set, good)
    signed = {key_set.by_id[key_id].issuer_id for key_id in result.signed}
    return QuorumLine(
        key_set.role,
        key_set.partition,
        installed,
        key_set.threshold,
        tuple(sorted(signed)),
        result.missing,
        tuple(sorted(key_set.issuers - signed)),
    )


def capacity_of(signer_key_id: str, sets: Iterable[KeySet]) -> tuple[str, str] | None:
    """The (issuer id, role) in which a key signs for one of the `sets`; None when it signs for none."""
    for one in sets:
        if (key := one.by_id.get(signer_key_id)) is not None:
            return key.issuer_id, one.role
    return None


# --- second thoughts ---


def warnings(record: Mapping[str, Any], state: AuthorityState | None) -> list[str]:
    """What a signer should think about twice: quorums without a spare signer, and what has no way back."""
    found: list[str] = []
    for role, partition, threshold, issuers, key_ids in _proposed_sets(record):
        where = f"{role} of {partition}" if partition else role
        if len(issuers) <= threshold:
            found.append(
                f"{where} keeps no spare signer: all {threshold} must sign, and one lost key stops it"
            )
        old = state.key_set(role, partition) if state is not None else None
        if old is not None and old.partition == partition and not key_ids & old.by_id.keys():
            found.append(f"{where} loses every signer it has now; none of the present keys stays")
    schema = record["schema_version"]
    if record.get("mode") == "development":
        found.append("development mode: production nodes refuse whatever this cluster accepts")
    elif record.get("mode") == "production" and state is not None and state.mode == "development":
        found.append("the move to production mode has no way back")
    if schema == KINDS_BY_NAME["role.revocation"].schema:
        found.append("a revoked node or certificate never returns")
    if schema == KINDS_BY_NAME["route.fence"].schema and "route_id" not in record["target"]:
        found.append("every lease through the fenced node or partition dies at once")
    return found


def _proposed_sets(
    record: Mapping[str, Any],
) -> Iterable[tuple[str, str | None, int, set[str], set[str]]]:
    """(role, partition, threshold, issuers, key ids) of each key set that the record installs."""
    issuers = {key["key_id"]: key["issuer_id"] for key in record.get("keys", ())}
    if "root" in record and "control" in record:
        for role, part in ((ROOT, record["root"]), (CONTROL, record["control"])):
            ids = set(part["key_ids"])
            yield role, None, part["threshold"], {issuers.get(one, one) for one in ids}, ids
    elif "role" in record and "keys" in record:
        ids = set(issuers)
        yield record["role"], record.get("partition"), record["threshold"], set(issuers.values()), ids
