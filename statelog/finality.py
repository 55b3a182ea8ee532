"""When a head is final, and how fresh its cosignatures are.

Final = cosigned by K witnesses of the set in force; the first head that covers a change of the witness set
needs K of the old set and K of the new (docs/records/, "The log"). A quorum counts distinct witnesses:
distinct keys of distinct issuers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from statelog.checkpoint import verify_cosignature, witness_key
from statelog.errors import Refused, refuse
from statelog.findings import Finding
from statelog.note import Note
from statelog.state import AuthorityState, WitnessSet


@dataclass(frozen=True, slots=True)
class FinalityResult:
    """Who of one witness set cosigned: names, how many are missing, and each one's newest time (Unix s).

    `findings` are cosignatures that name a witness of the set and are wrong (SL-COSIGNATURE); they count for
    nobody and spoil nothing.
    """

    signed: tuple[str, ...]
    missing: int
    threshold: int
    timestamps: dict[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def met(self) -> bool:
        """Whether K witnesses cosigned."""
        return self.missing == 0

    def __str__(self) -> str:
        return f"{len(self.signed)} of {self.threshold}"


def final_cosignatures(note: Note, witnesses: WitnessSet) -> FinalityResult:
    """Count the cosignatures of `note` by `witnesses`. At most one verification a line.

    Lines of others are ignored. A set that protects nobody (`WitnessSet.fault`) is never met.
    """
    times: dict[str, int] = {}
    findings: list[Finding] = []
    for line in note.signatures:
        witness = witnesses.by_name.get(line.name)
        if witness is None:
            continue
        key = witness_key(witness.name, witness.public)
        if not line.is_by(key):
            continue
        try:
            timestamp = verify_cosignature(note.text, line, key)
        except Refused as error:
            findings.append(error.finding)
        else:
            times[line.name] = max(timestamp, times.get(line.name, 0))
    counted: dict[str, str] = {}
    for name in sorted(times):
        counted.setdefault(witnesses.by_name[name].issuer_id, name)
    missing = max(0, witnesses.threshold - len(counted))
    if witnesses.fault is not None:
        missing = max(1, missing)
    return FinalityResult(
        tuple(sorted(counted.values())), missing, witnesses.threshold, times, tuple(findings)
    )


def finality(note: Note, sets: Sequence[WitnessSet]) -> tuple[FinalityResult, ...]:
    """The count for each witness set that the head needs. It is final when all are met (`is_final`)."""
    return tuple(final_cosignatures(note, one) for one in sets)


def is_final(results: Iterable[FinalityResult]) -> bool:
    """Whether every needed set's quorum is met; a head that needs no set is not final."""
    found = list(results)
    return bool(found) and all(one.met for one in found)


def needed_sets(state: AuthorityState, final_size: int, size: int) -> tuple[WitnessSet, ...]:
    """The witness sets that must cosign the head of `size` after the final head of `final_size`.

    `state` is the state after at least `size` entries.
    """
    return state.witnesses_between(final_size, size)


def milestones(
    state: AuthorityState,
    checkpoints: Callable[[int], Iterable[tuple[int, Note]]],
    final_size: int,
    last: int | None = None,
) -> list[tuple[int, Note]]:
    """The final heads that show, one after the other, that the head of `final_size` is final, itself the
    last: the first final head over each change of the witness set, and the newest, or with `last` the first
    final head of so many entries in its place.

    A witness that left the set does not cosign the newest head, so without these nobody could tell whether
    those who remain were ever cosigned by those who left. `checkpoints(start)` gives the heads of `start`
    entries and more, by size; `state` is the state after at least `final_size` entries,
    or what is shown of it, which `last` then lies beyond.

    Raises Refused SL-FINALITY when a change below `final_size` is not covered, or the last head not final.
    """
    found: list[tuple[int, Note]] = []
    since = 0
    end = final_size if last is None else last
    for start in [index + 1 for index, _ in state.witness_history if index < end] + [end]:
        if start <= since:
            continue
        for size, note in checkpoints(start):
            if size > final_size:
                break
            if is_final(finality(note, needed_sets(state, since, size))):
                found.append((size, note))
                since = size
                break
        if since < start:
            raise refuse(
                "SL-FINALITY",
                "no head covers the entry with the cosignatures of the witnesses it needs",
                expected=f"a final head of {start} to {final_size} entries",
            ).at(start - 1)
    return found


def takeover_size(sizes: Mapping[str, int], witnesses: WitnessSet) -> int:
    """The smallest size at which a new term may start, from the sizes that witnesses cosigned last, by name.

    A head above the answer cannot be final: more than N - K witnesses that do not lie have not cosigned it.
    That takes N - K + f + 1 who say less, f of whom may lie. What lies above the answer may be dropped.

    Raises Refused SL-FINALITY when fewer than that many witnesses of the set have answered.
    """
    needed = len(witnesses.keys) - witnesses.threshold + witnesses.faulty + 1
    told = sorted(size for name, size in sizes.items() if name in witnesses.by_name)
    if len(told) < needed:
        raise refuse(
            "SL-FINALITY",
            "too few witnesses say what they cosigned last",
            expected=f"{needed} of {', '.join(sorted(witnesses.by_name))}",
            found=len(told),
        )
    return told[needed - 1]


def freshness(result: FinalityResult, faulty: int) -> int | None:
    """The Unix second from which the age of the head counts: the (f+1)-th newest cosignature.

    So f witnesses that lie about the time cannot make an old head look fresh. None with fewer cosignatures.
    """
    newest = sorted(result.timestamps.values(), reverse=True)
    return newest[faulty] if len(newest) > faulty else None
