"""Whether a witness can vouch for the time that an entry carries.

A log's time is its sequencer's. Delays, vetoes and expiry are judged by it, so a sequencer that obeys nobody
could date an entry back: a recovery whose delay nobody saw run, a record of keys that have expired since.
Witnesses have clocks of their own. What one of them meets for the first time must fit its clock:

- the intent of a recovery comes while the larger part of its delay is still to run: at most
  `clock_skew_s` + min(`max_checkpoint_age_s`, half the delay) after its `sequenced_at`;
- any other entry that is older than `clock_skew_s` + `max_checkpoint_age_s` must pass at the witness's time
  as well. Records whose effect ends with their time are judged at the end of it instead, for once they have
  expired nothing is gained by them, and an outage leaves many such behind.

A witness that was away cannot have seen such entries in time. It believes f + 1 of the witnesses that it
knows: one of them does not lie, and cosigned by this very rule. So it binds also a witness that has cosigned
nothing yet, from the entry on that first names it as one; it believes those in force before the entry that it
cannot vouch for. What was sequenced before it was named it does not judge by age: the first head that needs
it needs K of the old set too.
"""

from __future__ import annotations

from statelog import admission
from statelog.errors import Refused
from statelog.finality import final_cosignatures
from statelog.findings import Finding
from statelog.leaf import split_leaf
from statelog.note import Note
from statelog.replay import Replay
from statelog.state import WitnessSet
from statelog.times import parse_time

_INTENT = b"rap.fabric.authority.recovery_intent.v1"


def fault_of_date(replay: Replay, leaf: bytes, now: float) -> Finding | None:
    """Why the next entry, met for the first time at Unix second `now`, may be dated back; None: it is not.

    `replay` is started and stands just before the leaf; as in `Replay.append`, that of a partition may follow
    the authority log. Raises Refused for a leaf that is refused whatever its time is.
    """
    parts = split_leaf(leaf)
    descriptor, age_s = replay.state.descriptor, int(now) - parts.sequenced_at
    allowed_s = descriptor.clock_skew_s + descriptor.max_checkpoint_age_s
    if age_s <= allowed_s and _INTENT not in parts.record:
        return None
    reading = admission.read(parts.record)
    if reading.kind.schema == _INTENT.decode():
        delay_s = replay.state.recovery_in_force(parts.sequenced_at).delay_s
        allowed_s = descriptor.clock_skew_s + min(descriptor.max_checkpoint_age_s, delay_s // 2)
        if age_s > allowed_s:
            sentence = "nobody here has seen the recovery's delay begin"
            return _fault("SL-RECOVERY", sentence, allowed_s, age_s)
    if age_s <= allowed_s:
        return None
    at = int(now)
    if reading.kind.ends_with_its_time:
        at = min(at, parse_time(reading.record["expires_at"]) - 1)
    try:
        replay.judge_at(leaf, max(at, parts.sequenced_at), reading)
    except Refused as error:
        sentence = f"it passes only at the time that it claims: {error.finding.sentence}"
        return _fault(error.code, sentence, allowed_s, age_s)
    return None


def is_vouched_for(note: Note, known: WitnessSet | None) -> bool:
    """Whether f + 1 of the `known` witnesses cosigned the head, one of whom does not lie."""
    return known is not None and len(final_cosignatures(note, known).signed) > known.faulty


def _fault(code: str, sentence: str, allowed_s: int, age_s: int) -> Finding:
    return Finding(code, sentence, "sequenced_at", f"sequenced at most {allowed_s} s ago", f"{age_s} s ago")
