"""A witness of one log: C2SP tlog-witness v1.0.0 `add-checkpoint`, byte for byte, and the rules of the log.

Beyond consistency it replays what it cosigns: it fetches the new entries from its own source, judges each as
an auditor would (`statelog.replay`), and refuses with 422 and the finding's code whatever an auditor would
refuse; heads from its future; entries that may be dated back (`statelog.dating`); heads over the entry that
makes it a witness, before the quorum of those before it has cosigned them; and heads signed with keys of term
T once it has seen term T+1.

The machine is pure: `handle(now, event)` answers with effects. It never answers 200 before the shell has
reported that (size, root, term) is durably stored by compare-and-set, so that two processes with one key, or
one process that crashes, never cosign two histories.

    Request ─► Fetch ⇄ Fetched … ─► Persist ─► Persisted ─► Reply
"""

# Long on purpose: the protocol's bytes and the rules of one answer, in the order of its specification.
from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from statelog import signing
from statelog.checkpoint import Checkpoint, cosign, parse_decimal, parse_signed_checkpoint, verify_sequencer
from statelog.dating import fault_of_date, is_vouched_for
from statelog.errors import Refused, refuse
from statelog.finality import final_cosignatures
from statelog.findings import Finding
from statelog.limits import (
    HASH_BYTES,
    MAX_ADD_CHECKPOINT_BYTES,
    MAX_PROOF_HASHES,
    MAX_WITNESS_QUEUE,
    STORE_BATCH_ENTRIES,
)
from statelog.merkle import EMPTY_ROOT, leaf_hash, verify_consistency
from statelog.note import Note, VerifierKey, decode_base64
from statelog.replay import Replay
from statelog.state import WitnessSet

SIZE_CONTENT_TYPE = "text/x.tlog.size"
TEXT_CONTENT_TYPE = "text/plain; charset=utf-8"

OK, BAD_REQUEST, FORBIDDEN, NOT_FOUND, CONFLICT, UNPROCESSABLE, UNAVAILABLE = (
    200,
    400,
    403,
    404,
    409,
    422,
    503,
)


# --- the request -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A parsed request: the size the asker believes the witness is at, the proof from there, the
    signed head.
    """

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: Checkpoint
    note: Note


def encode_add_checkpoint(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """The body of an add-checkpoint request: old size, proof hashes, an empty line, the signed checkpoint."""
    lines = [f"old {old_size}", *(signing.encode_base64(item) for item in proof), ""]
    return "".join(f"{line}\n" for line in lines).encode() + note


def parse_add_checkpoint(body: bytes) -> AddCheckpoint:
    """The request in `body`. Raises Refused SL-WITNESS, SL-NOTE or SL-CHECKPOINT when it is malformed."""
    if len(body) > MAX_ADD_CHECKPOINT_BYTES:
        raise refuse(
            "SL-WITNESS", "the request is too long", expected=f"at most {MAX_ADD_CHECKPOINT_BYTES} bytes"
        )
    head, separator, note_bytes = body.partition(b"\n\n")
    if not separator:
        raise refuse("SL-WITNESS", "a request is a size, a proof, an empty line and a checkpoint")
    first, *hashes = head.decode("utf-8", "replace").split("\n")
    if not first.startswith("old "):
        raise refuse("SL-WITNESS", "a request starts with the old size", found=first[:40])
    if len(hashes) > MAX_PROOF_HASHES:
        raise refuse("SL-WITNESS", "the proof is too long", expected=f"at most {MAX_PROOF_HASHES} hashes")
    proof = tuple(decode_base64(line) for line in hashes)
    if any(len(item) != HASH_BYTES for item in proof):
        raise refuse("SL-WITNESS", "a proof hash is not 32 bytes")
    checkpoint, note = parse_signed_checkpoint(note_bytes)
    return AddCheckpoint(parse_decimal(first.removeprefix("old ")), proof, checkpoint, note)


def parse_size(body: bytes) -> int:
    """The size in the body of a 409 answer. Raises Refused SL-WITNESS or SL-CHECKPOINT."""
    if not body.endswith(b"\n"):
        raise refuse("SL-WITNESS", "a size ends in a newline", found=repr(body[:40]))
    return parse_decimal(body[:-1].decode("ascii", "replace"))


# --- events and effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WitnessState:
    """What the witness remembers of a log: the head it last cosigned and that head's term."""

    origin: str
    size: int
    root: bytes
    term: int


@dataclass(frozen=True, slots=True)
class Request:
    """An add-checkpoint body arrived; `request_id` comes back in every effect that belongs to it."""

    request_id: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer to `Fetch`: leaves from its start on, fewer than asked where the source ends.

    None when the source cannot be reached.
    """

    request_id: int
    leaves: Sequence[bytes] | None


@dataclass(frozen=True, slots=True)
class Persisted:
    """The answer to `Persist`: what is stored now. It equals the new state when the compare-and-set
    succeeded.
    """

    request_id: int
    stored: WitnessState


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read leaves start … end - 1 from the witness's configured source and report `Fetched`."""

    request_id: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Persist:
    """Store `new` durably if what is stored is `expected` (nothing stored is size 0); report `Persisted`."""

    request_id: int
    expected: WitnessState
    new: WitnessState


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request: HTTP status, content type, body."""

    request_id: int
    status: int
    content_type: str
    body: bytes


Event = Request | Fetched | Persisted
Effect = Fetch | Persist | Reply
_Ask = Fetch | Persist
_Answer = Fetched | Persisted
_Steps = Generator[_Ask, _Answer, "_Outcome"]


@dataclass(frozen=True, slots=True)
class _Outcome:
    status: int
    body: bytes
    content_type: str = TEXT_CONTENT_TYPE


@dataclass(slots=True)
class _Ahead:
    """What was read beyond the head cosigned last, and judged, but not cosigned: one replay at most.

    Whoever asks for the same again, with whatever signature, costs no second replay. `last` is the hash of
    the newest leaf and `refused` that of the one after it, None without one; `dated` is the first fault of
    an entry's date (`statelog.dating`) as from Unix second `since` on: what was only looked at then, in time,
    has been seen by nobody else, and is judged by the witness's clock anew. `believed` are the witnesses
    whose word is taken for that entry.
    """

    replay: Replay
    since: float
    last: bytes | None = None
    refused: bytes | None = None
    dated: Finding | None = None
    believed: WitnessSet | None = None


class _Stop(Exception):  # noqa: N818 - not an error: the answer of a step that ends the request
    def __init__(self, status: int, finding: Finding) -> None:
        super().__init__(str(finding))
        self.outcome = _Outcome(status, f"{finding}\n".encode())


def _stop(status: int, code: str, sentence: str, *, expected: object = "", found: object = "") -> _Stop:
    return _Stop(status, Finding(code, sentence, expected=str(expected), found=str(found)))


# --- the machine -------------------------------------------------------------------------------------------


class Witness:
    """Serves one log, one request at a time; a few more wait.

    `name` is the witness's key name in the witness set; `replay` a replay of the log with the pinned anchor,
    at most at `state.size` (it catches up by `Fetch`); `state` what was persisted last, None for nothing.
    """

    def __init__(
        self, origin: str, name: str, signer: signing.Signer, replay: Replay, state: WitnessState | None
    ) -> None:
        self.name = name
        self.state = state or WitnessState(origin, 0, EMPTY_ROOT, 0)
        if self.state.origin != origin or replay.size > self.state.size:
            raise ValueError("the replay is ahead of what the witness cosigned, or of another log")
        self.replay = replay
        self._ahead: _Ahead | None = None
        self._signer = signer
        self._now = 0.0
        self._waiting: deque[Request] = deque()
        self._serving: int | None = None
        self._steps: _Steps | None = None

    def handle(self, now: float, event: Event) -> list[Effect]:
        """Take one event at Unix second `now`. Answers of effects that nobody waits for are ignored."""
        self._now = now
        if isinstance(event, Request):
            if len(self._waiting) >= MAX_WITNESS_QUEUE:
                busy = _stop(UNAVAILABLE, "SL-WITNESS", "too many requests wait for this witness").outcome
                return [self._reply(event.request_id, busy)]
            self._waiting.append(event)
            return [] if self._serving is not None else self._next()
        if event.request_id != self._serving or self._steps is None:
            return []
        return self._advance(event)

    def _next(self) -> list[Effect]:
        effects: list[Effect] = []
        while self._waiting and self._serving is None:
            request = self._waiting.popleft()
            self._serving = request.request_id
            self._steps = self._serve(request.request_id, request.body)
            effects += self._advance(None)
        return effects

    def _advance(self, answer: _Answer | None) -> list[Effect]:
        steps, serving = self._steps, self._serving
        if steps is None or serving is None:
            return []
        try:
            # Priming and resuming a generator are one call for us; only typing tells them apart.
            return [next(steps) if answer is None else steps.send(answer)]
        except StopIteration as done:
            outcome: _Outcome = done.value
        except _Stop as stop:
            outcome = stop.outcome
        self._serving = self._steps = None
        return [self._reply(serving, outcome), *self._next()]

    @staticmethod
    def _reply(request_id: int, outcome: _Outcome) -> Reply:
        return Reply(request_id, outcome.status, outcome.content_type, outcome.body)

    # --- one request, in the order of C2SP tlog-witness ---

    def _serve(self, request_id: int, body: bytes) -> _Steps:
        try:
            request = parse_add_checkpoint(body)
        except Refused as error:
            raise _Stop(BAD_REQUEST, error.finding) from error
        if request.checkpoint.origin != self.state.origin:
            raise _stop(
                NOT_FOUND, "SL-WITNESS", "this witness does not know the log", expected=self.state.origin
            )
        yield from self._catch_up(request_id)
        candidate: Replay | None = None
        if not self._is_trusted(request.note):
            if 0 < request.checkpoint.size <= self.replay.size:
                raise _stop(FORBIDDEN, "SL-CHECKPOINT", "no sequencer of the log signed the checkpoint")
            # A new term's sequencer is known only from the entries that its head covers: learn them first.
            if request.checkpoint.size >= self.replay.first_checkpoint_size:
                yield from self._check_not_a_stranger(request_id, request)
            candidate = yield from self._candidate(request_id, request, FORBIDDEN)
        if request.old_size > request.checkpoint.size:
            raise _stop(BAD_REQUEST, "SL-WITNESS", "the old size is beyond the checkpoint")
        if request.old_size != self.state.size:
            return self._conflict()
        if request.checkpoint.size == self.state.size and request.checkpoint.root != self.state.root:
            return self._conflict()  # C2SP: another root at the same size is a conflict, not a bad proof
        self._check_consistency(request)
        if candidate is None:
            candidate = yield from self._candidate(request_id, request, UNAVAILABLE)
        self._check_clock(candidate)
        self._check_lag(candidate)
        self._check_pen(candidate)
        self._check_join(request.note, candidate)
        return (yield from self._persist(request_id, request, candidate))

    def _catch_up(self, request_id: int) -> Generator[_Ask, _Answer, None]:
        """After a start, replay up to what was cosigned before; a source that tells another story is of no
        use.
        """
        if self.replay.size == self.state.size:
            return
        read = _Ahead(self.replay.copy(), self._now)
        finding = yield from self._replay_to(request_id, read, self.state.size, UNAVAILABLE)
        if finding is not None or read.replay.root() != self.state.root:
            raise _stop(
                UNAVAILABLE, "SL-ROOT", "the source does not hold the entries that this witness has cosigned"
            )
        self.replay = read.replay

    def _is_trusted(self, note: Note) -> bool:
        """Whether a sequencer of the term in force signed; False when only entries not seen yet can
        say so.
        """
        if not self.replay.size:
            return False
        try:
            if _signed_by(note, self.replay.sequencer_keys()):
                return True
        except Refused as error:
            raise _Stop(FORBIDDEN, error.finding) from error
        if _names(note, self.replay.past_sequencer_keys()):
            raise _earlier_term(self.replay.term)
        return False

    def _check_not_a_stranger(
        self, request_id: int, request: AddCheckpoint
    ) -> Generator[_Ask, _Answer, None]:
        """Whether one of the log's sequencers signed, as far as the source tells who they are."""
        ahead = yield from self._read_ahead(request_id, request.checkpoint.size)
        known = ahead.replay
        keys = [*known.sequencer_keys(), *known.past_sequencer_keys()] if known.started else []
        try:
            if _signed_by(request.note, keys):
                return
        except Refused as error:
            raise _Stop(FORBIDDEN, error.finding) from error
        if known.size < request.checkpoint.size and ahead.refused is None:
            raise _absent(FORBIDDEN, known.size)
        raise _stop(FORBIDDEN, "SL-CHECKPOINT", "no sequencer of the log signed the checkpoint")

    def _read_ahead(self, request_id: int, size: int) -> Generator[_Ask, _Answer, _Ahead]:
        """Entries up to `size`, or as far as the source has them and they pass; read once, whoever asks."""
        ahead = self._ahead
        if ahead is not None:
            # A suffix that was never final may have been replaced by a new term's: look at its end again.
            known = [hash_ for hash_ in (ahead.last, ahead.refused) if hash_ is not None]
            start = ahead.replay.size - (ahead.last is not None)
            leaves = yield from self._fetch(request_id, start, start + len(known))
            if [leaf_hash(leaf) for leaf in leaves[: len(known)]] != known:
                ahead = None
        if ahead is None:
            ahead = self._ahead = _Ahead(self.replay.copy(), self._now)
        while ahead.replay.size < size and ahead.refused is None:
            end = min(size, ahead.replay.size + STORE_BATCH_ENTRIES)
            leaves = yield from self._fetch(request_id, ahead.replay.size, end)
            if not leaves:
                break
            for leaf in leaves[: end - ahead.replay.size]:
                try:
                    self._append(ahead, leaf)
                except Refused:
                    ahead.refused = leaf_hash(leaf)
                    break
        return ahead

    def _candidate(
        self, request_id: int, request: AddCheckpoint, when_absent: int
    ) -> Generator[_Ask, _Answer, Replay]:
        """The replay at the head's size: its entries judged, their root the head's root, the head's signer
        right.

        `when_absent` is the status when the source does not have that many entries.
        """
        size = request.checkpoint.size
        if size < self.replay.first_checkpoint_size:
            raise _stop(UNPROCESSABLE, "SL-CHECKPOINT", "there is no checkpoint before the first term")
        known = self._known_ahead(size)
        if known is None:
            read = _Ahead(self.replay.copy(), self._now)
        else:
            read = replace(known, replay=known.replay.copy())
        finding = yield from self._replay_to(request_id, read, size, when_absent)
        try:
            read.replay.check_head(request.checkpoint)
        except Refused as error:
            if known is not None:  # the source held another story when it was read
                self._ahead = None
                return (yield from self._candidate(request_id, request, when_absent))
            raise _Stop(UNPROCESSABLE, error.at(size - 1).finding) from error
        if finding is not None:
            # The root is the signed one: the refused entry is the sequencer's, not an invention of the
            # source.
            raise _Stop(UNPROCESSABLE, finding)
        if read.dated is not None and not is_vouched_for(request.note, read.believed):
            if known is not None:  # or this witness's clock was wrong
                self._ahead = None
                return (yield from self._candidate(request_id, request, when_absent))
            raise _Stop(UNPROCESSABLE, read.dated)
        self._ahead = read
        _check_signed(request.note, read.replay)
        return read.replay

    def _known_ahead(self, size: int) -> _Ahead | None:
        """What was read on the way to `size`, if its dates were judged by about the same time."""
        ahead = self._ahead
        if ahead is None or ahead.refused is not None or not self.replay.size < ahead.replay.size <= size:
            return None
        rules = (self.replay if self.replay.started else ahead.replay).state.descriptor
        return ahead if abs(self._now - ahead.since) <= rules.clock_skew_s else None

    def _fetch(self, request_id: int, start: int, end: int) -> Generator[_Ask, _Answer, Sequence[bytes]]:
        answer = yield Fetch(request_id, start, end)
        leaves = answer.leaves if isinstance(answer, Fetched) else None
        if leaves is None:
            raise _stop(UNAVAILABLE, "SL-WITNESS", "the witness's source of entries is away")
        return leaves

    def _replay_to(
        self, request_id: int, read: _Ahead, size: int, when_absent: int
    ) -> Generator[_Ask, _Answer, Finding | None]:
        """Append entries up to `size`; the first refusal is returned, and the rest then only counted."""
        finding: Finding | None = None
        replay = read.replay
        while replay.size < size:
            end = min(size, replay.size + STORE_BATCH_ENTRIES)
            leaves = yield from self._fetch(request_id, replay.size, end)
            if not leaves:
                raise _absent(when_absent, replay.size)
            for leaf in leaves[: size - replay.size]:
                if finding is None:
                    try:
                        self._append(read, leaf)
                        continue
                    except Refused as error:
                        finding = error.finding
                replay.skip(leaf)
        return finding

    def _append(self, read: _Ahead, leaf: bytes) -> None:
        """Judge the next entry, and its date by this witness's clock where it is new to it."""
        replay = read.replay
        self._check_seen(replay, leaf)
        judged = read.dated is None and self._judges_date(replay)
        dated = fault_of_date(replay, leaf, self._now) if judged else None
        if dated is not None:
            # Of a set that came with what is judged here nobody knows yet who installed it.
            read.believed = (self.replay if self.state.size else replay).state.witnesses
        read.last = replay.append(leaf).leaf_hash
        if dated is not None:
            read.dated = dated.at(replay.size - 1)

    def _judges_date(self, replay: Replay) -> bool:
        """Whether the next entry's date is compared with this witness's clock: it is new, and sequenced after
        this witness was named as one. Others count on that, also where nothing was cosigned here yet.
        """
        if self.state.size:
            return self.state.size <= replay.size
        return replay.term > 0 and any(self._is_of(one) for _, one in replay.state.witness_history)

    @staticmethod
    def _check_seen(replay: Replay, leaf: bytes) -> None:
        """A partition's entry rests on a final authority head, which may have come to others first."""
        if replay.waits_for_authority(leaf):
            sentence = "this witness has not seen so much of the authority log as final yet"
            raise _stop(UNAVAILABLE, "SL-AUTHORITY", sentence)

    def _conflict(self) -> _Outcome:
        return _Outcome(CONFLICT, f"{self.state.size}\n".encode(), SIZE_CONTENT_TYPE)

    def _check_consistency(self, request: AddCheckpoint) -> None:
        head = request.checkpoint
        if not verify_consistency(self.state.size, self.state.root, head.size, head.root, request.proof):
            raise _stop(
                UNPROCESSABLE,
                "SL-CONSISTENCY",
                "the checkpoint is not proved to extend the one cosigned last",
                expected=f"size {self.state.size}, root {self.state.root.hex()}",
            )

    def _check_clock(self, candidate: Replay) -> None:
        latest = self._now + candidate.state.descriptor.clock_skew_s
        if candidate.last_sequenced_at > latest:
            raise _stop(
                UNPROCESSABLE,
                "SL-FUTURE",
                "the newest entry lies in the future",
                expected=f"at most {int(latest)}",
                found=candidate.last_sequenced_at,
            )

    def _check_lag(self, candidate: Replay) -> None:
        """A partition's new entries do not rest on what the authority log overtook too long ago.

        Else its sequencer could go on for ever with keys that were removed and nodes that were revoked.
        """
        since, allowed = candidate.overtaken_since(), candidate.state.descriptor.max_checkpoint_age_s
        if candidate.size > self.state.size and since is not None and self._now - since > allowed:
            raise _stop(
                UNPROCESSABLE,
                "SL-AUTHORITY",
                "the newest entry rests on an authority head that was overtaken too long ago",
                expected=f"at most {allowed} s ago",
                found=f"{int(self._now - since)} s ago, at authority size {candidate.authority_size}",
            )

    def _check_pen(self, candidate: Replay) -> None:
        """A partition's pen is judged by all of the authority log that is known here to be final.

        A leaf names only so much of it as its sequencer likes, and one whose term has ended would go on
        beside its successor for as long as `_check_lag` lets it. Up to the successor's start it is right.
        """
        start = candidate.succeeded_at() if candidate.size > self.state.size else None
        if start is not None and candidate.size > start:
            raise _earlier_term(candidate.term + 1)

    def _check_join(self, note: Note, candidate: Replay) -> None:
        """Who joins the witnesses cosigns no head over that entry before K of the set before it did.

        Until then a new term may drop the entry, for it starts where that set says; and a witness that has
        cosigned what is dropped cosigns nothing any more, in whatever set it is named again.
        """
        for (_, before), (index, coming) in pairwise(candidate.state.witness_history):
            if index < self.state.size:
                continue
            if self._is_of(before):
                return  # it is one of those that others wait for
            if self._is_of(coming):
                _check_quorum_before(note, before)
                return

    def _is_of(self, witnesses: WitnessSet) -> bool:
        """Whether this witness is one of the set; not if another has only had its name there."""
        key = witnesses.by_name.get(self.name)
        return key is not None and key.public == self._signer.public

    def _persist(self, request_id: int, request: AddCheckpoint, candidate: Replay) -> _Steps:
        head = request.checkpoint
        new = WitnessState(head.origin, head.size, head.root, candidate.term)
        answer = yield Persist(request_id, self.state, new)
        stored = answer.stored if isinstance(answer, Persisted) else self.state
        if stored.size < self.state.size:
            raise _stop(UNAVAILABLE, "SL-WITNESS", "the witness's memory went backwards", found=stored.size)
        if stored != new:
            # Another process with this key moved on: take over its memory and answer as it would.
            self.state = stored
            return self._conflict()
        self.state, self.replay, self._ahead = new, candidate, None
        line = cosign(request.note.text, self.name, self._signer, int(self._now))
        return _Outcome(OK, line.line().encode())


def _check_quorum_before(note: Note, before: WitnessSet) -> None:
    found = final_cosignatures(note, before)
    if not found.met:
        sentence = "the witnesses before this one joined have not cosigned the head"
        raise _stop(UNPROCESSABLE, "SL-FINALITY", sentence, expected=found.threshold, found=len(found.signed))


def _absent(status: int, size: int) -> _Stop:
    return _stop(status, "SL-WITNESS", "the witness's source does not have the entries", found=size)


def _names(note: Note, keys: list[VerifierKey]) -> bool:
    return any(line.is_by(key) for line in note.signatures for key in keys)


def _signed_by(note: Note, keys: list[VerifierKey]) -> bool:
    if not _names(note, keys):
        return False
    verify_sequencer(note, keys)
    return True


def _check_signed(note: Note, replay: Replay) -> None:
    """The sequencer of the term in force at the head must have signed it; one of an earlier term may not."""
    try:
        if _signed_by(note, replay.sequencer_keys()):
            return
    except Refused as error:
        raise _Stop(FORBIDDEN, error.finding) from error
    if _names(note, replay.past_sequencer_keys()):
        raise _earlier_term(replay.term)
    raise _stop(FORBIDDEN, "SL-CHECKPOINT", "no sequencer of the term in force signed the checkpoint")


def _earlier_term(term: int) -> _Stop:
    sentence = "the checkpoint is signed by a sequencer of an earlier term"
    return _stop(UNPROCESSABLE, "SL-TERM", sentence, expected=f"a sequencer of term {term}")
