"""The auditor: one pass over a log from entry 0, trusting nothing but the pinned anchor.

It replays every entry by the fold that sequencer and witnesses use, checks every stored checkpoint against
the tree, the sequencer of its term and its witnesses, and, for a database, every stored column against what
the entries say. It names what is wrong (docs/records/, "Verification") and goes on as far as that means
anything: a refused entry is counted in the tree and left out of the state.

Signatures are the cost. With a `SignatureVerifier` they are handed over in jobs, to be checked on other cores
while the fold runs on; when any of them is wrong, or an entry was refused whose signatures nobody has looked
at, the log is replayed once more with signatures checked in place, so both ways give the same report.
"""

from __future__ import annotations

import dataclasses
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from statelog.audit_ahead import check_ahead
from statelog.audit_evidence import PastSigners, check_evidence
from statelog.audit_store import (
    HashedLog,
    NodesBeside,
    StoredLog,
    check_cosignatures,
    check_file,
    check_head,
    check_nodes,
    check_rollbacks,
    check_roots,
    check_split_views,
)
from statelog.checkpoint import (
    Checkpoint,
    parse_signed_checkpoint,
    verify_cosignature,
    verify_sequencer,
    witness_key,
)
from statelog.errors import Refused, SourceUnreadable
from statelog.finality import finality, is_final, needed_sets
from statelog.findings import Finding
from statelog.limits import AUDIT_PROGRESS_ENTRIES, MAX_AUDIT_FINDINGS
from statelog.merkle import EMPTY_ROOT, CompactRange
from statelog.note import Note, VerifierKey
from statelog.replay import Entry, Replay
from statelog.signing import Job
from statelog.state import AUTHORITY_LOG


class LogSource(Protocol):
    """Where a log is read from. Both iterators go in order and can be started again."""

    def entries(self) -> Iterator[tuple[int, bytes]]:
        """(log index, leaf bytes) from entry 0 on."""
        ...

    def checkpoints(self) -> Iterator[tuple[int, bytes]]:
        """(size, signed note with its cosignature lines) of every stored checkpoint, by size."""
        ...


class SignatureVerifier(Protocol):
    """Checks signatures elsewhere. `statelog.io.verify_pool` spreads them over processes."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs over; may wait until there is room."""
        ...

    def finish(self) -> bool:
        """Wait for all; True when every signature was right. The verifier is then empty again."""
        ...


@runtime_checkable
class Checker(Protocol):
    """Follows the fold and compares something else with it, such as stored projections."""

    def entry(self, entry: Entry) -> None:
        """An accepted entry, in order."""
        ...

    def finish(self) -> Iterable[Finding]:
        """What differs, after the last entry."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found. `findings` is empty for a sound log; each names the log.

    `size` and `root` are of the entries read; `final_size` of the largest head that the audit itself found
    final; `sound_size` counts the entries before the first that was refused. `signatures` counts those
    verified. `complete` is False when it had to stop before the end.
    """

    log: str
    anchor: str
    origin: str
    size: int
    root: bytes
    final_size: int
    final_root: bytes
    checkpoints: int
    signatures: int
    complete: bool
    findings: tuple[Finding, ...]
    sound_size: int


def audit(
    source: LogSource,
    anchor: str,
    progress: Callable[[int], None] | None = None,
    *,
    replay: Callable[[], Replay] | None = None,
    verifier: SignatureVerifier | None = None,
    checkers: Callable[[], Sequence[Checker]] = tuple,
) -> Report:
    """Audit the log in `source` against the pinned `anchor` (hex record id of the authority log's entry 0).

    `replay` makes the fold of a partition's log, fresh for each pass (`statelog.audit_logs`), and
    `checkers` what follows it. `progress(entries)` is called now and then. A source that is also a
    `statelog.audit_store.StoredLog` has its columns compared too, a `HashedLog` its hashes. What the source
    itself refuses is a finding, and the last; when it cannot be read, what it raises is raised.
    """

    def one_pass(used: SignatureVerifier | None) -> Report:
        fold = Replay(anchor) if replay is None else replay()
        return _Audit(source, fold, progress, checkers(), used).run()

    if verifier is not None:
        report = one_pass(verifier)
        if verifier.finish() and report.sound_size == report.size:
            return report
    return one_pass(None)


class _Full(Exception):  # noqa: N818 - not an error: enough has been found
    pass


@dataclass(slots=True)
class _Totals:
    checkpoints: int = 0
    signatures: int = 0
    final_size: int = 0
    final_root: bytes = EMPTY_ROOT
    findings: list[Finding] = field(default_factory=list)
    complete: bool = True
    refused_at: int | None = None


class _Audit:
    """One pass. The order of its methods is the order in which a log is looked at."""

    def __init__(
        self,
        source: LogSource,
        replay: Replay,
        progress: Callable[[int], None] | None,
        checkers: Sequence[Checker],
        verifier: SignatureVerifier | None,
    ) -> None:
        self.source = source
        self.stored = source if isinstance(source, StoredLog) else None
        self.hashed = source if isinstance(source, HashedLog) else None
        self.nodes = NodesBeside(self.stored) if self.stored is not None else None
        self.replay = replay
        self.totals = _Totals()
        self.checkpoints = source.checkpoints()
        self.next_checkpoint: tuple[int, bytes] | None = None
        self.progress = progress
        self.checkers = checkers
        self.signers = PastSigners()
        self.verifier = verifier
        self.covered = 0  # the size of the last checkpoint looked at
        self.last_final = False
        self.forked = False  # the tree no longer matches and cannot be realigned
        self.doubtful: dict[int, bytes] = {}  # log index -> computed hash, where the stored one differs

    def run(self) -> Report:
        try:
            self.next_checkpoint = next(self.checkpoints, None)
            self._entries()
            self._after()
        except _Full:
            self.totals.complete = False
        except Refused as error:
            self.totals.findings.append(error.finding.of(self.replay.log))
            self.totals.complete = False
        totals, replay = self.totals, self.replay
        started = self.replay.started
        return Report(
            log=replay.log,
            anchor=replay.anchor,
            origin=replay.origin if started else "",
            size=replay.size,
            root=replay.root(),
            final_size=totals.final_size,
            final_root=totals.final_root,
            checkpoints=totals.checkpoints,
            signatures=totals.signatures,
            complete=totals.complete,
            findings=tuple(totals.findings),
            sound_size=replay.size if totals.refused_at is None else totals.refused_at,
        )

    def _found(self, finding: Finding) -> None:
        self.totals.findings.append(finding.of(self.replay.log))
        if len(self.totals.findings) >= MAX_AUDIT_FINDINGS:
            raise _Full

    # --- entries ---

    def _entries(self) -> None:
        hashes = self.hashed.leaf_hashes() if self.hashed is not None else None
        size = self.replay.size
        for index, stored_id, stored_hash, data in self._read():
            if index != size:
                self._found(
                    Finding("SL-STORED", f"entry {size} is missing", found=str(index), log_index=size)
                )
                self.totals.complete = False
                return
            record_id, hash_ = self._entry(data)
            if stored_id is not None and (stored_hash != hash_ or stored_id != record_id):
                self._row(index, hash_, record_id, stored_id, stored_hash)
            if hashes is not None:
                self._leaf_hash(index, hash_, next(hashes, b""))
            if size == 0 and not self.replay.started:
                self.totals.complete = False  # without a genesis there is nothing to judge the rest by
                return
            size += 1
            if self.next_checkpoint is not None and self.next_checkpoint[0] <= size:
                self._checkpoints_at(size)
            if self.progress is not None and size % AUDIT_PROGRESS_ENTRIES == 0:
                self.progress(size)

    def _read(self) -> Iterator[tuple[int, str | None, bytes, bytes]]:
        """(log index, stored record id, stored leaf hash, leaf bytes), those stored of a database alone."""
        if self.stored is not None:
            return self.stored.stored_entries()
        return ((index, None, b"", data) for index, data in self.source.entries())

    def _entry(self, data: bytes) -> tuple[str | None, bytes]:
        """Replay one entry; answers with its record id (None when it was refused) and its leaf hash."""
        try:
            entry = self.replay.append(data, verify_signatures=self.verifier is None)
        except Refused as error:
            if self.totals.refused_at is None:
                self.totals.refused_at = self.replay.size
            self._found(error.finding)
            if self.nodes is not None:
                self.nodes.differ()
            return None, self.replay.skip(data)
        if self.nodes is not None:
            self.nodes.completed(entry.new_nodes)
        self.totals.signatures += len(entry.signed_by)
        if self.verifier is not None:
            self.verifier.submit(signature_jobs(entry))
        if self.stored is not None:
            self.signers.entry(entry, self.replay.state)
        for checker in self.checkers:
            checker.entry(entry)
        return entry.record_id, entry.leaf_hash

    def _row(
        self, index: int, computed: bytes, record_id: str | None, stored_id: str, stored_hash: bytes
    ) -> None:
        """The stored columns of an entry against what its bytes say."""
        if stored_hash != computed:
            self.doubtful[index] = computed
            self._found(
                Finding(
                    "SL-STORED",
                    "the stored leaf hash is not the hash of the leaf",
                    "log_entry.leaf_hash",
                    computed.hex(),
                    stored_hash.hex(),
                    index,
                    stored_id,
                )
            )
        if record_id is not None and stored_id != record_id:
            sentence = "the stored record id is not the record's"
            self._found(
                Finding("SL-STORED", sentence, "log_entry.record_id", record_id, stored_id, index, record_id)
            )

    def _leaf_hash(self, index: int, computed: bytes, kept: bytes) -> None:
        if kept != computed:
            sentence = "the entry is not the one whose hash its tile holds"
            self._found(Finding("SL-TILE", sentence, "", kept.hex(), computed.hex(), index))

    # --- checkpoints ---

    def _checkpoints_at(self, size: int) -> None:
        while self.next_checkpoint is not None and self.next_checkpoint[0] <= size:
            stored_size, note = self.next_checkpoint
            self.next_checkpoint = next(self.checkpoints, None)
            if stored_size < size:
                self._found(_stray(stored_size, "lies out of order, or before the first term"))
            else:
                self._checkpoint(size, note)

    def _checkpoint(self, size: int, data: bytes) -> None:
        self.totals.checkpoints += 1
        since, self.covered, self.last_final = self.covered, size, False
        try:
            checkpoint, note = parse_signed_checkpoint(data)
            verify_sequencer(note, self.replay.sequencer_keys())
        except Refused as error:
            self._found(error.at(size - 1).finding)
            return
        try:
            self.replay.check_head(checkpoint)
        except Refused as error:
            if not self._explain_root(error, checkpoint, size, since):
                return
        self.totals.signatures += 1
        self._cosignatures(checkpoint, note)

    def _explain_root(self, error: Refused, checkpoint: Checkpoint, size: int, since: int) -> bool:
        """Report a head that the entries do not lead to; True when the audit goes on with that head.

        The stored tree tells whether the head or an entry is wrong: when its nodes give the signed root, the
        damage lies in entries since the last good head, and the fold goes on along the stored tree.
        """
        if error.code != "SL-ROOT":
            self._found(error.at(size - 1).finding)
            return False
        if self.forked:
            return False  # said once; every later root differs too
        first, last = min(since, size - 1), size - 1
        where = f"entry {last}" if first == last else f"one of the entries {first} to {last}"
        finding = error.at(first).finding
        self._found(
            dataclasses.replace(finding, sentence=f"{finding.sentence}: {where} is not what was signed")
        )
        tree = self._stored_tree(size)
        if tree is None or tree.root() != checkpoint.root:
            self.forked = True
            return False
        self.replay.realign(tree)
        if self.nodes is not None:
            self.nodes.differ()
        return True

    def _stored_tree(self, size: int) -> CompactRange | None:
        kept = self.stored or self.hashed
        if kept is None:
            return None
        try:
            return CompactRange.from_nodes(size, kept.read_node)
        except (SourceUnreadable, ValueError):
            return None

    def _cosignatures(self, checkpoint: Checkpoint, note: Note) -> None:
        """Every cosignature of a witness of any set so far, and whether the head is final."""
        state, size = self.replay.state, checkpoint.size
        sets = [one for _, one in state.witness_history]
        keys = {witness_key(key.name, key.public) for one in sets for key in one.keys}
        known: set[VerifierKey] = keys | set(self.replay.sequencer_keys())
        for line in note.signatures:
            for key in keys:
                if not line.is_by(key):
                    continue
                self.totals.signatures += 1
                try:
                    verify_cosignature(note.text, line, key)
                except Refused as error:
                    self._found(error.at(size - 1).finding)
            if self.stored is not None and not any(line.is_by(key) for key in known):
                sentence = "the store keeps a signature line of nobody that it knows"
                self._found(Finding("SL-COSIGNATURE", sentence, found=line.name, log_index=size - 1))
        if is_final(finality(note, needed_sets(state, self.totals.final_size, size))):
            self.totals.final_size, self.totals.final_root = size, checkpoint.root
            self.last_final = True

    # --- the end ---

    def _after(self) -> None:
        if not self.totals.complete:
            return  # the entries ended too early to say anything about the rest
        size = self.replay.size
        while self.next_checkpoint is not None:
            self._found(_stray(self.next_checkpoint[0], f"covers more than the {size} entries there are"))
            self.next_checkpoint = next(self.checkpoints, None)
        if size == 0:
            self._found(Finding("SL-GENESIS", "there are no entries"))
        elif self.covered < size:
            sentence = f"entries {self.covered} to {size - 1} lie past the newest checkpoint"
            self._found(Finding("SL-TAIL", sentence, log_index=self.covered))
        elif not self.last_final:
            sentence = f"the newest head, of {size} entries, is not final"
            expected = f"final size {size}"
            self._found(Finding("SL-NOTFINAL", sentence, "", expected, str(self.totals.final_size), size - 1))
        if self.stored is not None:
            for finding in self._beside(self.stored, size):
                self._found(finding)
        if self.hashed is not None:
            for finding in self.hashed.check_hashes():
                self._found(finding)
        for checker in self.checkers:
            for finding in checker.finish():
                self._found(finding)

    def _beside(self, stored: StoredLog, size: int) -> Iterator[Finding]:
        """What a database has beside its entries and checkpoints, one after the other: nobody holds more
        findings than a report shows.
        """
        replay, totals = self.replay, self.totals
        yield from self._wrong_nodes(stored, size)
        yield from check_head(stored, replay, totals.final_size, totals.final_root)
        if replay.started:
            yield from check_cosignatures(stored, replay)
        yield from check_roots(stored)
        yield from check_file(stored)
        if replay.started and replay.log == AUTHORITY_LOG:
            yield from check_evidence(stored, self.signers, replay.state)
        if replay.started:
            yield from check_split_views(stored, replay)
            yield from check_rollbacks(stored, replay)
        if replay.started and replay.log == AUTHORITY_LOG:
            yield from check_ahead(stored, replay)

    def _wrong_nodes(self, stored: StoredLog, size: int) -> Iterator[Finding]:
        alike = self.nodes is not None and not self.doubtful and self.nodes.are_all(size)
        return iter(()) if alike else check_nodes(stored, size, self.doubtful)


def _stray(size: int, why: str) -> Finding:
    return Finding("SL-CHECKPOINT", f"the checkpoint of size {size} {why}", log_index=max(size - 1, 0))


def signature_jobs(entry: Entry) -> list[Job]:
    """The signatures of an accepted entry, to be verified elsewhere, by the keys that admission found."""
    signed = entry.signed
    return [
        (public, a2b_base64(one["value"]), signed)
        for public, one in zip(entry.signed_by, entry.record["signatures"], strict=True)
    ]
