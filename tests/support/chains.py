"""Chains of authority as pictures: `run("G1[abc/2] -> D2[bcd/2] -> D3[cde/2] by:ab !SL-QUORUM")`.

A chain is steps with arrows between.  Each is made, signed, and admitted at the log's end, or refused with
the code after ``!`` and then without effect; a step that ends otherwise fails the test and is named.

    G1[abc/2]          the genesis, whose root keys are those of a, b and c, two of whom sign
    D2[bcd/2]          the next descriptor; what is not named stays as it is
    D2*[bcd/2]         the same, drafted only: for an intent to name, and to be landed later as  D2
    I(D2)[pq]          the intent to recover by D2, showing the recovery keys of p and q
    V(I2)              the veto of the intent after which the chain is named: I(D2) is I2
    M[route:xyz/2]     the members of a role, for the whole cluster
    T[st]              the next term of the log, of sequencers s and t
    P                  a record that control signs;   F one that route authority signs;   R a release
    +3d                time passes

In brackets, apart by blanks: ``abc/2`` or ``root:abc/2``, ``control:abc/2``, ``witness:vwxyz/4``,
``recovery:pqr/2~3d`` (the delay), and ``production`` or ``development``.  A letter is a person; its capital
is a second key of the same person.  ``by:abP`` says who signs, with ``role.letter`` where it is another
role's key (``by:ab,control.a``); without it exactly as many as are needed do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from statelog.errors import Refused
from statelog.state import CONTROL, RECOVERY, ROOT, ROUTE, UPDATE, Mode
from tests.support.authority import BASE_TIME, CLUSTER_ID, DAY_S, HOUR_S, Cluster
from tests.support.keys import key_entry, key_id, sequencer_entry

_STEP = re.compile(
    r"(?P<head>[A-Z]\d*|\+)(?P<draft>\*?)(?:\((?P<about>\w+)\))?(?P<wait>\d+[dhs])?(?:\[(?P<says>[^]]*)\])?"
    r"(?:\s+by:(?P<by>\S*))?(?:\s+!(?P<code>\S+))?"
)
_UNITS = {"d": DAY_S, "h": HOUR_S, "s": 1}
_ROLES = {"root": ROOT, "control": CONTROL, "recovery": RECOVERY, "route": ROUTE, "update": UPDATE}
_GENESIS = "root:abc/2 control:abc/2 witness:wxyz/3 recovery:pqr/2~3d"
_TERM_NODE = "control-1"


@dataclass(frozen=True)
class Holders:
    """Whose keys a role has, and how many must sign."""

    role: str
    people: str
    threshold: int
    delay_s: int = 0

    @property
    def names(self) -> list[str]:
        """The names of the keys, as `tests.support.keys` takes them."""
        return [f"{self.role}-{person}" for person in self.people]

    def enough(self, have: Iterable[str] = ()) -> list[str]:
        """Names of a smallest quorum, with as many as there are of those that sign anyhow."""
        kept = [name for name in self.names if name in set(have)]
        rest = [name for name in self.names if name not in kept]
        chosen: dict[str, str] = {}
        for name in (*kept, *rest):
            chosen.setdefault(name.lower(), name)
        return list(chosen.values())[: self.threshold]


@dataclass
class Story:
    """A cluster as a chain has left it; `records` are those that were made, by the name of their step."""

    cluster: Cluster
    sets: dict[str, Holders]
    mode: str
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    drafts: dict[str, list[Holders]] = field(default_factory=dict)  # the sets that a draft will install

    def who(self, role: str) -> str:
        """The people whose keys of ``role`` may sign now, in order."""
        known = {key_id(f"{role}-{letter}"): letter for letter in _LETTERS}
        found = self.cluster.state.key_sets[(_ROLES[role], None)]
        return "".join(sorted(known[key.key_id] for key in found.keys))


_LETTERS = [chr(code) for code in (*range(ord("a"), ord("z") + 1), *range(ord("A"), ord("Z") + 1))]


def run(chain: str, story: Story | None = None) -> Story:
    """Play the chain, on a new cluster (then it begins with G) or on with ``story``."""
    for text in (part.strip() for part in chain.split("->")):
        match = _STEP.fullmatch(" ".join(text.split()))
        assert match, f"not a step: {text!r}"
        if story is None:
            assert match["head"].startswith("G"), f"a chain begins with G, not with {text!r}"
            story = _begin(match["says"] or "")
        elif match["head"] == "+":
            story.cluster.now += _seconds(match["wait"])
        else:
            _play(story, text, match)
    assert story is not None
    return story


def _play(story: Story, text: str, match: re.Match[str]) -> None:
    head, expected = match["head"], match["code"] or "admitted"
    said = (match["says"] or "").split()
    found = "admitted"
    try:
        record, sets, mode = _record(story, match, said)
        if match["draft"]:
            story.records[head], story.drafts[head] = record, sets
            return
        story.cluster.append(record)
    except Refused as refused:
        found = refused.code
        reason = str(refused)
    else:
        story.records[head if head != "I" else f"I{match['about'][1:]}"] = record
        story.sets.update({holders.role: holders for holders in sets})
        story.mode = mode or story.mode
        reason = "it was admitted"
    assert found == expected, f"{text!r}: {reason}"


def _begin(said: str) -> Story:
    sets = {holders.role: holders for holders in _all_holders(f"{_GENESIS} {said}".split())}
    mode: Mode = "development" if "development" in said.split() else "production"
    parts = descriptor_parts(sets)
    by = sets["root"].enough()
    cluster = Cluster(mode, CLUSTER_ID, BASE_TIME, by=by, **parts)
    story = Story(cluster, sets, mode, {"G1": cluster.genesis})
    cluster.append(cluster.log_term(by=sets["control"].enough()))
    return story


def _record(
    story: Story, match: re.Match[str], said: list[str]
) -> tuple[dict[str, Any], list[Holders], str | None]:
    """The record of a step, the sets that it installs, and the mode that it begins."""
    cluster, head, sets = story.cluster, match["head"], _all_holders(said)
    by = _signers(match["by"], head)
    kind = head[0]
    if kind == "D":
        return _descriptor(story, head, sets, said, by, drafted_only=bool(match["draft"]))
    control = by or story.sets["control"].enough()
    if kind == "I":
        shown = [f"recovery-{letter}" for letter in "".join(said)]
        intent = cluster.recovery_intent(story.records[match["about"]], shown=shown, by=by)
        return intent, [], None
    if kind == "V":
        return cluster.veto(story.records[match["about"]], by=by or story.sets["root"].enough()), [], None
    if kind == "M":
        (holders,) = sets
        role = _ROLES[holders.role]
        made = cluster.members(role, *holders.names, threshold=holders.threshold, by=control)
        return made, sets, None
    if kind == "T":
        entries = [sequencer_entry(f"sequencer-{letter}", _TERM_NODE) for letter in "".join(said)]
        return cluster.log_term(by=control, sequencers=entries), [], None
    if kind == "F":
        by = by or story.sets["route"].enough()
        return cluster.fence({"partition": "eu-1"}, by=by), [], None
    if kind == "R":
        return cluster.release(by=by or story.sets["update"].enough()), [], None
    assert kind == "P", f"no such step: {head}"
    return cluster.policy(by=control), [], None


def _descriptor(
    story: Story, head: str, sets: list[Holders], said: list[str], by: list[str] | None, *, drafted_only: bool
) -> tuple[dict[str, Any], list[Holders], str | None]:
    cluster, drafted = story.cluster, story.records.get(head) if head in story.drafts else None
    coming = {**story.sets, **{holders.role: holders for holders in sets}}
    mode = next((word for word in said if word in ("production", "development")), None)
    if drafted is not None and not said:  # land what was drafted, by its recovery keys
        shown = [key.key_id for key in cluster.state.recovery.holders.keys] if cluster.state.recovery else []
        names = [f"recovery-{letter}" for letter in _LETTERS if key_id(f"recovery-{letter}") in shown]
        return cluster.sign(drafted, names if by is None else by), story.drafts[head], None
    if by is None:
        old = story.sets["root"].enough()
        by = list(dict.fromkeys([*old, *coming["root"].enough(old)]))
    role = RECOVERY if drafted_only else ROOT
    made = cluster.descriptor(
        by=[] if drafted_only else by,
        issuer_role=role,
        mode=mode or story.mode,
        **descriptor_parts(coming),
    )
    return made, sets, mode


def descriptor_parts(sets: dict[str, Holders]) -> dict[str, Any]:
    """The fields of a descriptor that name keys."""
    root, control, witness, recovery = (sets[role] for role in ("root", "control", "witness", "recovery"))
    keys = [
        *(key_entry(name, custody="offline") for name in root.names),
        *(key_entry(name) for name in control.names),
    ]
    witnesses = [{**key_entry(name), "name": f"{name}.example"} for name in witness.names]
    return {
        "keys": keys,
        "root": {"threshold": root.threshold, "key_ids": [key_id(name) for name in root.names]},
        "control": {"threshold": control.threshold, "key_ids": [key_id(name) for name in control.names]},
        "witnesses": {"threshold": witness.threshold, "faulty": 1, "keys": witnesses},
        "recovery": {
            "threshold": recovery.threshold,
            "key_sha256": [key_id(name) for name in recovery.names],
            "delay_s": recovery.delay_s,
        },
    }


def _all_holders(said: Sequence[str]) -> list[Holders]:
    return [_holders(word) for word in said if "/" in word]


def _holders(word: str) -> Holders:
    role, _, rest = word.rpartition(":")
    rest, _, delay = rest.partition("~")
    people, _, threshold = rest.partition("/")
    return Holders(role or "root", people, int(threshold), _seconds(delay) if delay else 0)


def _signers(said: str | None, head: str) -> list[str] | None:
    if said is None:
        return None
    default = {"D": "root", "I": "recovery", "V": "root", "F": "route", "R": "update"}.get(head[0], "control")
    names: list[str] = []
    for word in filter(None, said.split(",")):
        role, dot, letters = word.rpartition(".")
        names += [f"{role if dot else default}-{letter}" for letter in letters]
    return names


def _seconds(text: str) -> int:
    return int(text[:-1]) * _UNITS[text[-1]]
