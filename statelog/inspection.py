"""What a file of a ceremony or a log is, and whether its signatures are right. Pure.

Recognized: requests in any form (`statelog.transport`), records, leaves, checkpoints and other signed notes,
proof files, enrollments of keys, entries of sequencers, key files, DSSE envelopes. Whose signatures
are right can be said only as far as keys are known: from the authority state where one is given, from the
file itself where it brings them. An unknown key is no fault; a wrong signature is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Literal

import orjson

from statelog import canonical, ceremony, lightclient, transport
from statelog.checkpoint import log_keys, parse_checkpoint, verify_cosignature, witness_key
from statelog.dsse import Envelope, read_envelope
from statelog.errors import Refused, UsageError, refuse
from statelog.findings import Finding
from statelog.genesis import proved
from statelog.leaf import decode_leaf
from statelog.limits import MAX_ENVELOPE_BYTES, MAX_PROOF_FILE_BYTES, MAX_REQUEST_BYTES
from statelog.merkle import leaf_hash
from statelog.note import NoteSignature, VerifierKey, parse_note, verify_line
from statelog.records import DESCRIPTOR, KINDS
from statelog.records.descriptor import descriptor_of
from statelog.signing import (
    decode_base64,
    key_id_of,
    possession_bytes,
    record_id_of,
    signed_bytes,
    verify,
)
from statelog.state import AuthorityState
from statelog.tlogproof import HEADER as PROOF_HEADER
from statelog.tlogproof import parse_tlog_proof
from statelog.wording import headline, plain, short

Verdict = Literal["right", "wrong", "unknown key", "not checked"]

_ENVELOPE: Final = "payloadType"  # by which an envelope is known
DATABASE_MAGIC: Final = b"SQLite format 3\0"  # stores and backups: https://www.sqlite.org/fileformat.html
KEY_FILE_SCHEMA: Final = "statelog.keyfile.v1"
_ENROLLMENT: Final = frozenset({"key_id", "alg", "public", "issuer_id", "custody", "proof"})
_SEQUENCER: Final = frozenset({"public", "node_id", "proof"})


@dataclass(frozen=True, slots=True)
class Seen:
    """A signature in the file: by whom (as it says itself), and what can be said of it."""

    by: str
    verdict: Verdict


@dataclass(frozen=True)
class Inspection:
    """What a file is. `digest` (hex) is what people compare, and `digest_of` says of what it is one."""

    what: str
    says: str
    digest: str
    digest_of: str
    facts: tuple[tuple[str, str], ...] = ()
    signatures: tuple[Seen, ...] = ()
    wrong: tuple[Finding, ...] = field(default=())

    @property
    def sound(self) -> bool:
        """Whether nothing in it is wrong, as far as could be seen."""
        return not self.wrong and all(one.verdict != "wrong" for one in self.signatures)


@dataclass(frozen=True, slots=True)
class Known:
    """What the reader knows: the authority `state`, the pinned `anchor`, a cluster id, the time."""

    now: int
    state: AuthorityState | None = None
    anchor: str | None = None
    cluster_id: str | None = None

    @property
    def cluster(self) -> str | None:
        """The cluster that proofs of possession must name."""
        return self.state.cluster_id if self.state is not None else self.cluster_id


def inspect(data: bytes, known: Known) -> Inspection:
    """What `data` is. Raises `UsageError` for what is no file of a log, `Refused` for a damaged one."""
    if data.startswith(DATABASE_MAGIC):
        raise UsageError(
            "this is a database: `statelog verify FILE --root ANCHOR` audits a store, "
            "`statelog status --store FILE` says what is in it"
        )
    if _is_envelopes(data):
        return _envelopes(data, known)
    if len(data) > MAX_PROOF_FILE_BYTES:
        raise refuse("SL-SIZE", "the file is too large", expected=f"at most {MAX_PROOF_FILE_BYTES} bytes")
    body, _ = transport.unpacked(data)
    if body.startswith(PROOF_HEADER.encode()):
        return _proof(body, known)
    if not body.lstrip().startswith(b"{"):
        return _note(body, known)
    value = _json(body)
    schema = value.get("schema")
    if schema == ceremony.SCHEMA:
        return _request(body, known)
    if schema == KEY_FILE_SCHEMA:
        return _key_file(value)
    if _ENVELOPE in value:
        return _envelope(value, known)
    if "schema_version" in value:
        return _record(canonical.decode(body.removesuffix(b"\n"), max_bytes=MAX_REQUEST_BYTES), known)
    if "record" in value and "sequenced_at" in value:
        return _leaf(body.removesuffix(b"\n"), known)
    for fields, read in ((_ENROLLMENT, _enrollment), (_SEQUENCER, _sequencer)):
        if fields <= value.keys() <= fields | {"name"}:
            return read(value, known)
    raise _unknown()


# --- requests, records, leaves ---


def _request(data: bytes, known: Known) -> Inspection:
    request = ceremony.decode_request(data)
    record = {**request.record, "signatures": list(request.signatures)}
    found = _record(record, known)
    title = ("title", f"{plain(request.title)}  (not signed)")
    return Inspection(
        "signing request", found.says, found.digest, found.digest_of, (title, *found.facts), found.signatures
    )


def _record(record: Mapping[str, Any], known: Known) -> Inspection:
    kind = KINDS.get(str(record.get("schema_version")))
    if kind is None:
        raise Refused(
            Finding("SL-SCHEMA", "an unknown kind of record", found=str(record.get("schema_version"))[:80])
        )
    kind.shape(record)
    payload, keys = signed_bytes(record), _keys_for(record, known)
    signatures = []
    for entry in record["signatures"]:
        who = f"{plain(entry['issuer_id'])} as {plain(entry['role'])}, key {short(entry['key_id'])}"
        signatures.append(Seen(who, _verdict(keys.get(entry["key_id"]), entry["value"], payload)))
    facts = (
        ("kind", kind.name),
        ("subject", " ".join(plain(part) for part in kind.subject(record) if part)),
        ("epoch", str(record["epoch"])),
        ("cluster", plain(record["cluster_id"])),
        ("valid", f"{record['issued_at']} until {record['expires_at']}"),
    )
    return Inspection(
        "record",
        headline(record),
        record_id_of(record),
        "what is signed: the record id",
        facts,
        tuple(signatures),
    )


def _leaf(data: bytes, known: Known) -> Inspection:
    leaf = decode_leaf(data)
    found = _record(leaf.record, known)
    facts = (*found.facts, ("record id", found.digest), ("term", str(leaf.term)))
    digest = leaf_hash(data).hex()
    return Inspection("log entry", found.says, digest, "the leaf (RFC 6962)", facts, found.signatures)


# --- envelopes ---


def _is_envelopes(data: bytes) -> bool:
    """Whether the first line of several is an envelope: what `export --dsse` writes."""
    first, newline, rest = data[: MAX_ENVELOPE_BYTES + 1].partition(b"\n")
    try:
        value = orjson.loads(first)
    except ValueError:
        return False
    return isinstance(value, dict) and _ENVELOPE in value and bool(newline and rest)


def _envelope(value: Mapping[str, Any], known: Known) -> Inspection:
    """One envelope. Raises Refused as `read_envelope`."""
    envelope = read_envelope(value)
    record = {**envelope.record, "signatures": []}
    found = _record(record, known)
    facts = (*found.facts, ("payload type", plain(value["payloadType"])))
    seen = _envelope_signatures(envelope, record, known)
    return Inspection("DSSE envelope", found.says, found.digest, found.digest_of, facts, seen)


def _envelope_signatures(envelope: Envelope, record: Mapping[str, Any], known: Known) -> tuple[Seen, ...]:
    payload, keys = signed_bytes(record), _keys_for(record, known)
    seen = []
    for key_id, value in envelope.signatures:
        public = keys.get(key_id)
        right = public is not None and verify(public, value, payload)
        seen.append(Seen(f"key {short(key_id)}", "unknown key" if public is None else _as_verdict(right)))
    return tuple(seen)


def _envelopes(data: bytes, known: Known) -> Inspection:
    """Envelopes, one a line. Every signature is looked at; the wrong ones are listed, the others counted.

    Raises Refused as `read_envelope`, its path beginning with the line.
    """
    kinds: Counter[str] = Counter()
    verdicts: Counter[Verdict] = Counter()
    wrong: list[Seen] = []
    lines = data.removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            envelope = read_envelope(_line_of(line))
        except Refused as refusal:
            raise Refused(refusal.finding.under(f"line {number}")) from refusal
        record = {**envelope.record, "signatures": []}
        kinds[KINDS[record["schema_version"]].name] += 1
        for one in _envelope_signatures(envelope, record, known):
            verdicts[one.verdict] += 1
            if one.verdict == "wrong":
                wrong.append(Seen(f"line {number}, {one.by}", "wrong"))
    facts = (
        *(("holds", f"{count} of {name}") for name, count in sorted(kinds.items())),
        ("signatures", ", ".join(f"{count} {name}" for name, count in sorted(verdicts.items())) or "none"),
    )
    says = f"{len(lines)} records in DSSE envelopes, one a line."
    return Inspection("DSSE envelopes", says, sha256(data).hexdigest(), "the file", facts, tuple(wrong))


def _line_of(line: bytes) -> Mapping[str, Any]:
    if len(line) > MAX_ENVELOPE_BYTES:
        raise refuse("SL-SIZE", "the line is too long", expected=f"at most {MAX_ENVELOPE_BYTES} bytes")
    try:
        value = orjson.loads(line)
    except ValueError as error:
        raise refuse("SL-SHAPE", f"not JSON: {error}"[:200]) from error
    if not isinstance(value, dict):
        raise refuse("SL-SHAPE", "not an envelope")
    return value


def _keys_for(record: Mapping[str, Any], known: Known) -> dict[str, bytes]:
    """Public bytes by key id: those in force, the node's own, and those that the record itself brings."""
    keys: dict[str, bytes] = {}
    kind = KINDS[record["schema_version"]]
    if kind is DESCRIPTOR:
        own = descriptor_of(record, record_id_of(record))
        keys |= {key.key_id: key.public for key in own.root.keys}
    keys |= {key_id: key.public for key_id, key in kind.new_keys(record).items()}
    if known.state is not None:
        keys |= {key_id: key.public for key_id, key in known.state.keys.items()}
        keys |= {node_id: node.public for node_id, node in known.state.nodes.items()}
    return keys


def _verdict(public: bytes | None, value: str, message: bytes) -> Verdict:
    if public is None:
        return "unknown key"
    return "right" if verify(public, decode_base64(value) or b"", message) else "wrong"


# --- notes and proofs ---


def _note(data: bytes, known: Known) -> Inspection:
    try:
        note = parse_note(data)
    except Refused as refusal:
        if "— " in data.decode("utf-8", "replace"):
            raise
        raise _unknown() from refusal
    text = sha256(note.text.encode()).hexdigest()
    try:
        head = parse_checkpoint(note.text)
    except Refused:
        lines = tuple(Seen(plain(one.name), "unknown key") for one in note.signatures)
        return Inspection("signed note", "A signed note, not a checkpoint.", text, "its text", (), lines)
    cluster, _, log = head.origin.rpartition("/")
    facts = (("origin", plain(head.origin)), ("size", str(head.size)), ("root", head.root.hex()))
    ours = known.state if known.state is not None and known.state.cluster_id == cluster else None
    seen = tuple(_line(note.text, one, ours, head.origin, log) for one in note.signatures)
    says = f"A head of the log {plain(log)}: {head.size} entries."
    return Inspection("checkpoint", says, text, "its text", facts, seen)


def _line(text: str, line: NoteSignature, state: AuthorityState | None, origin: str, log: str) -> Seen:
    """A signature line: the sequencer's when it is named like the log, else a witness's cosignature."""
    if line.name == origin:
        term = state.terms.get(log) if state is not None else None
        for key in log_keys(origin, (one.public for one in term.sequencers) if term is not None else ()):
            if line.is_by(key):
                return Seen(f"sequencer of {plain(log)}", _as_verdict(verify_line(text, line, key)))
        return Seen(f"sequencer of {plain(log)}", "unknown key")
    history = state.witness_history if state is not None else ()
    for public in {one.public for _, held in history for one in held.keys if one.name == line.name}:
        key = witness_key(line.name, public)
        if line.is_by(key):
            return Seen(f"witness {plain(line.name)}", _as_verdict(_is_cosignature(text, line, key)))
    return Seen(f"witness {plain(line.name)}", "unknown key")


def _is_cosignature(text: str, line: NoteSignature, key: VerifierKey) -> bool:
    try:
        verify_cosignature(text, line, key)
    except Refused:
        return False
    return True


def _proof(data: bytes, known: Known) -> Inspection:
    proof = parse_tlog_proof(data)
    head = parse_checkpoint(parse_note(proof.checkpoint).text)
    facts = [("origin", plain(head.origin)), ("index", str(proof.index)), ("size", str(head.size))]
    wrong: tuple[Finding, ...] = ()
    says = f"A proof that entry {proof.index} stands in a log of {head.size}; not checked without the anchor."
    if known.anchor is not None:
        try:
            shown = lightclient.check_proof(data, known.anchor, known.now)
        except Refused as refusal:
            wrong, says = (refusal.finding,), f"A proof of entry {proof.index} that does not hold."
        else:
            says = headline(shown.leaf.record)
            facts += [("record id", shown.record_id), ("cosigned", ", ".join(shown.signed_by))]
    digest = sha256(data).hexdigest()
    return Inspection("proof", says, digest, "the file", tuple(facts), (), wrong)


# --- keys ---


def _enrollment(value: Mapping[str, Any], known: Known) -> Inspection:
    names = [f"{plain(str(value['issuer_id']))}, kept {plain(str(value['custody']))}"]
    if "name" in value:
        names.append(f"witness name {plain(str(value['name']))}")
    facts = (("key id", plain(str(value["key_id"]))),)
    says = f"A key of {'; '.join(names)}, to enter a cluster."
    public = decode_base64(str(value["public"])) or b""
    verdict: Verdict = "not checked"
    if known.cluster is not None:
        verdict = _as_verdict(proved(value, known.cluster))
    elif key_id_of(public) != value["key_id"]:
        verdict = "wrong"
    seen = Seen(f"possession, for {known.cluster or 'a cluster that is not known here'}", verdict)
    return Inspection("enrollment", says, key_id_of(public), "the public key", facts, (seen,))


def _sequencer(value: Mapping[str, Any], known: Known) -> Inspection:
    public, proof = decode_base64(str(value["public"])) or b"", decode_base64(str(value["proof"])) or b""
    key_id, node_id = key_id_of(public), str(value["node_id"])
    verdict: Verdict = "not checked"
    if known.cluster is not None:
        verdict = _as_verdict(verify(public, proof, possession_bytes(known.cluster, node_id, key_id)))
    seen = Seen(f"possession, for {known.cluster or 'a cluster that is not known here'}", verdict)
    says = f"A sequencer's key of node {short(node_id)}."
    return Inspection("sequencer entry", says, key_id, "the public key", (("node", plain(node_id)),), (seen,))


def _key_file(value: Mapping[str, Any]) -> Inspection:
    public = decode_base64(str(value.get("public"))) or b""
    facts = tuple(
        (name.replace("_", " "), plain(str(value.get(name)))) for name in ("name", "issuer_id", "custody")
    )
    wrong: tuple[Finding, ...] = ()
    if key_id_of(public) != value.get("key_id"):
        wrong = (Finding("SL-KEYFILE", "the key id is not the SHA-256 of the public key"),)
    says = "An encrypted key file; its public part was not checked without the passphrase."
    return Inspection("key file", says, key_id_of(public), "the public key", facts, (), wrong)


# --- small things ---


def _as_verdict(right: bool) -> Verdict:
    return "right" if right else "wrong"


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except ValueError as error:
        raise _unknown() from error
    if not isinstance(value, dict):
        raise _unknown()
    return value


def _unknown() -> UsageError:
    return UsageError(
        "this is no file of a ceremony or a log: "
        "no request, record, log entry, checkpoint, proof, envelope or key"
    )
