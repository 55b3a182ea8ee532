"""Whoever rotates, recovers, vetoes and waits, in whatever order: admission agrees with a model of a page.

The model knows people and counts; it knows nothing of records, signatures or states. At the end an
independent replay of the log, verified anew, is in the same state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from statelog.errors import Refused
from statelog.replay import Replay
from statelog.state import RECOVERY
from tests.support.authority import DAY_S
from tests.support.chains import Holders, Story, descriptor_parts, run

LETTERS = "abcdefghijklmnopqrstuvwxyz"
choices = st.lists(
    st.integers(0, 999), min_size=2, max_size=4
)  # people, by their place among those there are
SLIPS = st.sampled_from(["", "", "", "one fewer", "a stranger"])


def pick(places: list[int], among: str) -> frozenset[str]:
    """At least two of ``among``."""
    found = dict.fromkeys(among[place % len(among)] for place in places)
    return frozenset([*found, *(one for one in among if one not in found)][: max(2, len(found))])


def slipped(enough: list[str], slip: str) -> frozenset[str]:
    """Who signs: as many as are needed, one fewer, or a stranger besides."""
    if slip == "one fewer":
        return frozenset(enough[1:])
    return frozenset([*enough, "Z"] if slip else enough)


@dataclass(frozen=True)
class Pinned:
    """Recovery as the model sees it."""

    people: frozenset[str]
    delay_s: int


@dataclass
class UnderWay:
    """A recovery as the model sees it: the record that waits, and what it will mean."""

    record: dict[str, Any]
    root: frozenset[str]
    shown: frozenset[str]
    due: int


class AuthorityLife(RuleBasedStateMachine):
    """Two recovery keys are always enough here; root thresholds vary."""

    story: Story

    @initialize()
    def begin(self) -> None:
        self.story = run("G1[abc/2 recovery:pqr/2~3d]")
        self.root, self.threshold = frozenset("abc"), 2
        self.gone: set[str] = set()
        self.pinned = Pinned(frozenset("pqr"), 3 * DAY_S)
        self.coming: tuple[int, Pinned] | None = None  # a change of it that waits, and until when
        self.under_way: UnderWay | None = None

    @rule(places=choices, threshold=st.sampled_from([2, 2, 3]), slip=SLIPS, returning=st.booleans())
    def rotate(self, places: list[int], threshold: int, slip: str, returning: bool) -> None:
        new = pick(places, LETTERS if returning else self._untouched())
        old = sorted(self.root)[: self.threshold]
        by = slipped(list(dict.fromkeys([*old, *sorted(new)[:threshold]])), slip)
        wanted = (
            threshold <= len(new)
            and not new & self.gone
            and by <= self.root | new
            and len(by & self.root) >= self.threshold
            and len(by & new) >= threshold
        )
        record = self._descriptor(new, threshold, self._stated(), by=[f"root-{one}" for one in sorted(by)])
        assert self._admits(record) == wanted
        if wanted:
            self._installed(new, threshold)

    @rule(places=choices, days=st.integers(1, 5))
    def change_recovery(self, places: list[int], days: int) -> None:
        pinned = Pinned(pick(places, LETTERS), days * DAY_S)
        by = [f"root-{one}" for one in sorted(self.root)[: self.threshold]]
        assert self._admits(self._descriptor(self.root, self.threshold, pinned, by=by))
        self._settle()
        if pinned == self.pinned:
            self.coming = None
        elif self.coming is None or self.coming[1] != pinned:
            self.coming = (self._now + self.pinned.delay_s, pinned)
        self.under_way = None

    @rule(places=choices, slip=SLIPS, waiting=st.booleans())
    def begin_recovery(self, places: list[int], slip: str, waiting: bool) -> None:
        self._settle()
        new = pick(places, self._untouched())
        record = self._descriptor(new, 2, self._stated(), by=[], issuer_role=RECOVERY)
        holders = self._stated() if waiting else self.pinned  # those to come may not speak yet
        shown = slipped(sorted(holders.people)[:2], slip)
        wanted = len(shown) >= 2 and shown <= self.pinned.people
        names = [f"recovery-{one}" for one in sorted(shown)]
        assert self._admits(self.story.cluster.recovery_intent(record, shown=names)) == wanted
        if wanted:
            self.under_way = UnderWay(record, new, shown, self._now + self.pinned.delay_s)

    @precondition(lambda self: self.under_way is not None)
    @rule(slip=SLIPS, late=st.booleans())
    def veto(self, slip: str, late: bool) -> None:
        under_way, pending = self.under_way, self.story.cluster.state.recovery
        assert under_way is not None
        assert pending is not None
        if late:
            self.story.cluster.now = max(self._now, under_way.due)
        by = slipped(sorted(self.root)[: self.threshold], slip)
        wanted = self._now < under_way.due and by <= self.root and len(by) >= self.threshold
        names = [f"root-{one}" for one in sorted(by)]
        assert self._admits(self.story.cluster.veto(pending.record_id, by=names)) == wanted
        if wanted:
            self.under_way = None

    @rule(slip=SLIPS, early=st.booleans())
    def finish_recovery(self, slip: str, early: bool) -> None:
        under_way = self.under_way
        if under_way is None:
            assert self.story.cluster.state.recovery is None
            return
        if not early:
            self.story.cluster.now = max(self._now, under_way.due)
        by = slipped(sorted(under_way.shown), slip)
        wanted = not slip and self._now >= under_way.due and not under_way.root & self.gone
        record = self.story.cluster.sign(under_way.record, [f"recovery-{one}" for one in sorted(by)])
        assert self._admits(record) == wanted
        if wanted:
            self._installed(under_way.root, 2)

    @rule(hours=st.integers(1, 60))
    def wait(self, hours: int) -> None:
        self.story.cluster.now += hours * 3_600

    @invariant()
    def nobody_gone_speaks(self) -> None:
        assert self.story.who("root") == "".join(sorted(self.root))
        state = self.story.cluster.state
        assert not state.retired.keys() & state.keys.keys()
        assert all(one.fault is None for one in state.key_sets.values())

    def teardown(self) -> None:
        if hasattr(self, "story"):
            replay = Replay(self.story.cluster.anchor)
            for leaf in self.story.cluster.leaves():
                replay.append(leaf)
            assert replay.state == self.story.cluster.state

    # -- the model's own bookkeeping --

    def _untouched(self) -> str:
        """Who has not been removed, or everybody once hardly anybody is left."""
        left = "".join(one for one in LETTERS if one not in self.gone)
        return left if len(left) > 6 else LETTERS

    @property
    def _now(self) -> int:
        return self.story.cluster.now

    def _settle(self) -> None:
        """A change of the recovery set whose time has come is in force."""
        if self.coming is not None and self.coming[0] <= self._now:
            self.pinned, self.coming = self.coming[1], None

    def _stated(self) -> Pinned:
        """The recovery set that the newest descriptor states, in force or still to come."""
        return self.pinned if self.coming is None else self.coming[1]

    def _installed(self, root: frozenset[str], threshold: int) -> None:
        self.gone |= self.root - root
        self.root, self.threshold, self.under_way = root, threshold, None

    def _descriptor(
        self, root: frozenset[str], threshold: int, pinned: Pinned, **more: Any
    ) -> dict[str, Any]:
        sets = {
            **self.story.sets,
            "root": Holders("root", "".join(sorted(root)), threshold),
            "recovery": Holders("recovery", "".join(sorted(pinned.people)), 2, pinned.delay_s),
        }
        return self.story.cluster.descriptor(**more, **descriptor_parts(sets))

    def _admits(self, record: dict[str, Any]) -> bool:
        try:
            self.story.cluster.append(record)
        except Refused:
            return False
        return True


AuthorityLife.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestAuthorityLife = AuthorityLife.TestCase
