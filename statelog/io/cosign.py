"""Collecting cosignatures: asks every witness at once, keeps what verifies, and marks the head final at K.

The transport is the caller's: `ask(witness_name, body)` carries an add-checkpoint body to a witness and
answers with (status, body), over a fabric stream, over HTTPS, or within one process.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from statelog import witness as protocol
from statelog.checkpoint import Checkpoint, parse_signed_checkpoint, verify_cosignature, witness_key
from statelog.errors import Refused, UsageError, refuse
from statelog.finality import FinalityResult, finality, is_final, milestones, needed_sets
from statelog.findings import Finding
from statelog.io.https import HttpsSite
from statelog.io.store import Store, StoredCosignature
from statelog.limits import (
    COSIGN_LEAD_S,
    COSIGN_ROUNDS,
    COSIGN_STRAGGLER_S,
    MAX_CLOCK_SKEW_S,
    WITNESS_ANSWER_BYTES,
    WITNESS_ASK_TIMEOUT_S,
)
from statelog.merkle import ReadNode, consistency_proof, consistency_ranges, nodes_under
from statelog.note import Note, parse_signature_lines
from statelog.replay import Replay
from statelog.state import WitnessKey, WitnessSet

Ask = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]


class HttpsWitnesses:
    """Witnesses that are asked over HTTPS: C2SP tlog-witness submission prefixes by witness key name.

    `ca_file` is a PEM file with the certificates that prove them, None for the system's roots. TLS proves
    who answers and nothing more: what counts is the cosignature. Belongs to the loop that first asks.
    """

    def __init__(self, urls: Mapping[str, str], ca_file: Path | str | None = None) -> None:
        self._sites = {name: HttpsSite(url, ca_file) for name, url in urls.items()}

    def __contains__(self, name: object) -> bool:
        return name in self._sites

    async def ask(self, name: str, body: bytes) -> tuple[int, bytes]:
        """An `Ask` for the witnesses of this group. Raises SourceUnreadable."""
        answer = await self._sites[name].exchange(
            "POST",
            "add-checkpoint",
            content=body,
            headers={"content-type": "text/plain; charset=utf-8"},
            max_bytes=WITNESS_ANSWER_BYTES,
            timeout_s=WITNESS_ASK_TIMEOUT_S,
        )
        if answer.status == protocol.CONFLICT and answer.content_type != protocol.SIZE_CONTENT_TYPE:
            raise refuse(
                "SL-WITNESS", f"{name} answers a conflict without a size", found=answer.content_type[:80]
            )
        return answer.status, answer.body

    async def aclose(self) -> None:
        """Close the connections."""
        for site in self._sites.values():
            await site.aclose()


class _Unprocessable(Refused):
    """A witness's 422: it will not have these entries, as far as it knows."""


class CosignRound:
    """One checkpoint on its way to finality: builds requests, verifies answers, counts. Does no I/O
    itself.
    """

    def __init__(self, note: bytes, sets: Sequence[WitnessSet]) -> None:
        self.checkpoint: Checkpoint
        self.note: Note
        self.checkpoint, self.note = parse_signed_checkpoint(note)
        self.sets = tuple(sets)

    def witnesses(self) -> list[WitnessKey]:
        """All witnesses of the needed sets, each key once."""
        found = {key.key_id: key for one in self.sets for key in one.keys}
        return list(found.values())

    def request(self, witness_size: int, read_node: ReadNode) -> bytes:
        """The add-checkpoint body for a witness that is at `witness_size`; reads O(log n) nodes.

        It carries the cosignatures gathered so far: by those of others, a witness that was away believes the
        times of entries that it did not see in time (`statelog.dating`).
        """
        proof = consistency_proof(witness_size, self.checkpoint.size, read_node)
        return protocol.encode_add_checkpoint(witness_size, proof, self.note.format())

    def accept(self, witness: WitnessKey, body: bytes, now: float) -> StoredCosignature:
        """The verified cosignature in a witness's 200 answer; it counts from `stored` on.

        Lines of other keys are ignored. Raises Refused: SL-NOTE, SL-COSIGNATURE, SL-FUTURE.
        """
        key = witness_key(witness.name, witness.public)
        for line in parse_signature_lines(body):
            if not line.is_by(key):
                continue
            timestamp = verify_cosignature(self.note.text, line, key)
            if timestamp > now + MAX_CLOCK_SKEW_S:
                raise refuse("SL-FUTURE", f"the cosignature of {witness.name} is from the future")
            return StoredCosignature(witness.key_id, witness.name, timestamp, line.line())
        raise refuse("SL-COSIGNATURE", f"the answer of {witness.name} holds no cosignature of its key")

    def stored(self, cosignature: StoredCosignature) -> None:
        """The cosignature is durable and counts: a head is not called final by what a crash would lose."""
        fresh = parse_signature_lines(cosignature.line.encode())
        by = {(line.name, line.key_id) for line in fresh}
        # The newest of each key alone: a refreshed head still fits a request.
        kept = (line for line in self.note.signatures if (line.name, line.key_id) not in by)
        self.note = Note(self.note.text, (*kept, *fresh))

    def results(self) -> tuple[FinalityResult, ...]:
        """The count for each needed set, cosignatures that were there before included."""
        return finality(self.note, self.sets)

    def final(self) -> bool:
        """Whether every needed set's quorum has cosigned."""
        return is_final(self.results())


class _Refusing:
    """Witnesses that will not have the head of `current` as it was when they were asked."""

    def __init__(self, current: CosignRound) -> None:
        self._current = current
        self._waiting: dict[str, WitnessKey] = {}  # by key id
        self._asked_with: Counter[str] = Counter()  # how many quorums had been met then, by key id
        self._led: set[str] = set()  # key ids

    def add(self, witness: WitnessKey) -> None:
        self._waiting[witness.key_id] = witness

    def to_lead(self) -> list[WitnessKey]:
        """Who refused for the first time."""
        found = [one for key_id, one in self._waiting.items() if key_id not in self._led]
        for one in found:
            del self._waiting[one.key_id]
            self._led.add(one.key_id)
        return found

    def to_ask(self) -> list[WitnessKey]:
        """Whom to ask again: another quorum has been met since; with the last one the head is final."""
        if not self._waiting:
            return []
        met = sum(one.met for one in self._current.results())
        found = [one for key_id, one in self._waiting.items() if self._asked_with[key_id] < met]
        for one in found:
            del self._waiting[one.key_id]
            self._asked_with[one.key_id] = met
        return found


@dataclass(slots=True)
class Collected:
    """What a collection came to: the head, whether it is final, the counts, and why witnesses are missing."""

    size: int
    root: bytes
    final: bool
    results: tuple[FinalityResult, ...] = ()
    failures: dict[str, str] = field(default_factory=dict)


async def collect(
    store: Store,
    replay: Replay,
    ask: Ask,
    *,
    refresh: bool = False,
    on_final: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.time,
) -> Collected:
    """Ask the witnesses to cosign the newest checkpoint, all at once, and mark it final when K have.

    `replay` stands at the stored head or beyond: which witness sets the head needs is read from it, at the
    call. Witnesses that have cosigned are asked again only with `refresh`. `on_final(size)` is called as soon
    as the final mark is durable; witnesses slower than that, or than a quorum that refreshes, get
    `COSIGN_STRAGGLER_S` more.

    An `ask` that raises counts as a witness that is away. One that refuses is first led over the final heads
    that it missed, if witnesses changed meanwhile: it may know nobody who cosigns the newest, and those whom
    it waits for may have left. It is asked once more when a quorum is met, for one that joins waits for those
    before it, and when the head is final, with the cosignatures that it carries by then.

    Raises UsageError without a checkpoint or with a replay that is behind, SourceUnreadable when the store
    fails.
    """
    return await _Collecting(store, replay, ask, on_final, clock, refresh=refresh).run()


class _Collecting:
    """One call of `collect`, and what has come of it so far."""

    def __init__(
        self,
        store: Store,
        replay: Replay,
        ask: Ask,
        on_final: Callable[[int], None] | None,
        clock: Callable[[], float],
        *,
        refresh: bool,
    ) -> None:
        self._store = store
        self._replay = replay
        self._ask = ask
        self._on_final = on_final
        self._clock = clock
        self._refresh = refresh
        self._collected, self._round = _begin(store, replay)
        self._lock = asyncio.Lock()
        self._refusing = _Refusing(self._round)
        self._answered: set[str] = set()

    async def run(self) -> Collected:
        known = {one.witness_key_id for one in self._store.cosignatures(self._collected.size)}
        asked = [one for one in self._round.witnesses() if self._refresh or one.key_id not in known]
        self._note_final()
        tasks = {asyncio.ensure_future(self._one(witness)) for witness in asked}
        again: set[asyncio.Task[None]] = set()
        try:
            while tasks:
                longest = COSIGN_LEAD_S if tasks & again else COSIGN_STRAGGLER_S
                grace = longest if self._enough() else None
                done, tasks = await asyncio.wait(tasks, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if not done:
                    break
                more = {asyncio.ensure_future(self._led(one)) for one in self._refusing.to_lead()}
                due = self._refusing.to_ask()
                more |= {asyncio.ensure_future(self._one(witness)) for witness in due}
                again |= more
                tasks |= more
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._collected.results = self._round.results()
        return self._collected

    def _enough(self) -> bool:
        """Whether nobody needs to be waited for: also a refresh is for a quorum of each set."""
        if not self._collected.final or not self._refresh:
            return self._collected.final
        return all(
            sum(key.key_id in self._answered for key in one.keys) >= one.threshold for one in self._round.sets
        )

    def _note_final(self) -> None:
        if self._round.final() and not self._collected.final:
            self._store.set_final(self._collected.size, self._collected.root)
            self._collected.final = True
            if self._on_final is not None:
                self._on_final(self._collected.size)

    async def _one(self, witness: WitnessKey) -> None:
        try:
            cosignature = await self._ask_one(self._round, witness)
        except (Refused, UsageError) as error:
            self._collected.failures[witness.name] = str(error)
            if isinstance(error, _Unprocessable):
                self._refusing.add(witness)
            return
        self._collected.failures.pop(witness.name, None)
        async with self._lock:
            await asyncio.to_thread(self._store.put_cosignatures, self._collected.size, [cosignature])
            self._round.stored(cosignature)
            self._answered.add(witness.key_id)
            self._note_final()

    async def _led(self, witness: WitnessKey) -> None:
        """Lead a witness that has refused, and ask it again if it got anywhere."""
        if await self._lead(witness):
            await self._one(witness)
        else:
            self._refusing.add(witness)

    async def _lead(self, witness: WitnessKey) -> bool:
        """Have a witness cosign the final heads over changes of the witnesses that it missed, one by one:
        each carries cosignatures of the set before it. Whether it cosigned any.
        """
        try:
            passed = await asyncio.to_thread(_milestones, self._store, self._replay)
        except Refused:
            return False  # not all of them are in this store
        history = self._replay.state.witness_history
        named = min(index for index, one in history if any(key.key_id == witness.key_id for key in one.keys))
        known = await asyncio.to_thread(self._store.cosigned_size, witness.key_id)
        led = False
        for size, note in passed:
            if max(known, named) < size < self._collected.size:
                with suppress(Refused):
                    await self._ask_one(CosignRound(note.format(), ()), witness)
                    led = True
        return led

    async def _ask_one(self, current: CosignRound, witness: WitnessKey) -> StoredCosignature:
        """One witness's cosignature; a 409 is answered with the size that it named. Raises Refused when there
        is none.
        """
        known = await asyncio.to_thread(self._store.cosigned_size, witness.key_id)
        size = min(known, current.checkpoint.size)  # another replica may have had a newer head cosigned
        for _ in range(COSIGN_ROUNDS):
            body = await asyncio.to_thread(_request, self._store, current, size)
            try:
                status, answer = await self._ask(witness.name, body)
            except Exception as error:
                # Whatever the caller's transport raises means the same here: this witness is away.
                raise refuse(
                    "SL-WITNESS", f"{witness.name} did not answer", found=repr(error)[:200]
                ) from error
            if status == protocol.OK:
                return current.accept(witness, answer, self._clock())
            if status != protocol.CONFLICT:
                text = answer.decode("utf-8", "replace").strip()[:300]
                refusal = _Unprocessable if status == protocol.UNPROCESSABLE else Refused
                raise refusal(Finding("SL-WITNESS", f"{witness.name} answered {status}", found=text))
            named = protocol.parse_size(answer)
            if named == size == current.checkpoint.size:
                raise refuse(
                    "SL-CONSISTENCY", f"{witness.name} has cosigned another head of this size", found=size
                )
            size = named
            if size > current.checkpoint.size:
                raise refuse("SL-WITNESS", f"{witness.name} has cosigned a larger head", found=size)
        raise refuse(
            "SL-WITNESS", f"{witness.name} keeps moving", expected=f"an answer in {COSIGN_ROUNDS} rounds"
        )


def _begin(store: Store, replay: Replay) -> tuple[Collected, CosignRound]:
    with store.reading() as connection:
        head = store.head(connection)
        size = store.newest_checkpoint_size(connection)
        note = store.checkpoint(size, connection)
    if head is None or note is None:
        raise UsageError("the log has no checkpoint to be cosigned")
    if replay.size < size:
        raise UsageError(f"the replay is at {replay.size}, behind the checkpoint of {size}")
    current = CosignRound(note, needed_sets(replay.state, head.final_size, size))
    return Collected(size, current.checkpoint.root, final=head.final_size >= size), current


def _milestones(store: Store, replay: Replay) -> list[tuple[int, Note]]:
    def heads(start: int) -> Iterator[tuple[int, Note]]:
        return ((size, parse_signed_checkpoint(data)[1]) for size, data in store.checkpoints(start))

    head = store.head()
    return [] if head is None else milestones(replay.state, heads, head.final_size)


def _request(store: Store, current: CosignRound, size: int) -> bytes:
    with store.reading() as connection:
        wanted = nodes_under(consistency_ranges(size, current.checkpoint.size))
        return current.request(size, store.read_nodes(wanted, connection))
