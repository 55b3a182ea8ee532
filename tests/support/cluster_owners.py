"""The people of the simulated cluster: they change the witnesses, and hand the pen on when heads stay behind.

A change of the witnesses is a descriptor, submitted like any record. The pen is handed on as the runbook says
(`ops/runbooks/sequencer-failover.md`): the old host is stopped, the witnesses are turned to the new one and
say what they cosigned last, and a term that the control quorum signed starts where nothing final is lost.
Where the old host's site is away or has burnt down, a replica is the standby, and the term starts at its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from statelog.canonical import encode
from statelog.checkpoint import sign_checkpoint
from statelog.errors import Refused
from statelog.finality import takeover_size
from statelog.leaf import split_leaf
from statelog.replay import Replay
from statelog.signing import encode_base64, record_id_of
from tests.support.authority import sequencer_entry, signer
from tests.support.cluster_actors import (
    POOL,
    REPLICAS,
    SEQUENCER,
    Actor,
    BrokenError,
    SequencerActor,
    Submitter,
    short,
)
from tests.support.lying_sequencer import FENCED, FencedSequencer, LyingSequencer

if TYPE_CHECKING:
    from tests.support.cluster_world import ClusterWorld

OWNERS = "owners"
LOOK_S, COUNT_S = 15.0, 20.0
LIE_S, BEHIND_S, HEALED_S = 400.0, 1_500.0, 150.0  # after which owners act
GONE_S = 1_200.0  # longer than any cut: a site that does not answer so long is given up
GRACE_S = 60.0  # until nothing of the old host is on its way any more


def standby(world: ClusterWorld) -> Actor | None:
    """The replica that could go on alone: it holds all that may be final, by what every witness says, and
    enough witnesses have cosigned nothing else. None while there is no such.
    """
    best = max((world.actors[name] for name in REPLICAS), key=lambda one: len(one.disk["leaves"]))
    size = len(best.disk["leaves"])
    if not size or not best.up:
        return None
    witnesses = replayed(world, best.disk["leaves"]).state.witnesses
    states = {one.name: world.actors[short(one.name)].disk["state"] for one in witnesses.keys}
    sizes = {name: 0 if state is None else state.size for name, state in states.items()}
    sound = [name for name, told in sizes.items() if told <= size and not world.strayed(short(name))]
    return best if takeover_size(sizes, witnesses) <= size and len(sound) >= witnesses.threshold else None


def replayed(world: ClusterWorld, leaves: list[bytes]) -> Replay:
    """What is known to be final, without verifying it anew."""
    replay = Replay(world.cluster.anchor)
    for leaf in leaves:
        replay.append(leaf, verify_signatures=False)
    return replay


class Owners(Submitter):
    """See the module."""

    def __init__(self, world: ClusterWorld, name: str) -> None:
        super().__init__(world, name)
        self.final_at = 0.0  # when they last saw that all was final
        self.seen_at = 0.0  # when the sequencer's host last answered them
        self.terms = 1

    def start(self) -> None:
        self.final_at = self.seen_at = self.world.now
        self.later(LOOK_S, self._look)
        self._plan_rotation()

    # -- witnesses --

    def _plan_rotation(self) -> None:
        if self.world.faults.rotations:
            self.later(self.world.chance.expovariate(self.world.faults.rotations / 3_600.0), self._rotate)

    def _rotate(self) -> None:
        """One witness goes, or several, or all; who has strayed goes first."""
        world, chance = self.world, self.world.chance
        if not world.faults.rotations:
            return
        if self.waiting or not self._sequencer().up:
            self._plan_rotation()
            return
        sound = [name for name in POOL if not world.strayed(name)]
        before = [name for name in sound if name in world.quorums[-1].names]
        stay = chance.sample(before, chance.randint(0, min(3, len(before))))
        found = stay + chance.sample([name for name in sound if name not in stay], 4 - len(stay))
        state = self._sequencer().replay.state
        coming = world.cluster.witness_set(*sorted(found))
        epoch, issued_at = state.descriptor.epoch + 1, int(world.now) - 1
        self.submit(world.cluster.descriptor(epoch=epoch, issued_at=issued_at, witnesses=coming))

    def go_on(self) -> None:
        self.world.fired["witnesses changed"] += 1
        self._plan_rotation()

    def _sequencer(self) -> SequencerActor:
        found = self.world.actors[SEQUENCER]
        assert isinstance(found, SequencerActor)
        return found

    # -- the pen --

    def _look(self) -> None:
        """Whether it is time to hand the pen on."""
        world, sequencer = self.world, self._sequencer()
        disk = sequencer.disk
        if disk["final"] == len(disk["leaves"]) or not disk["final"]:
            self.final_at = world.now
        behind_s = world.now - self.final_at
        lies = isinstance(sequencer, LyingSequencer)
        due = behind_s > (HEALED_S if world.healed else BEHIND_S)
        if lies:
            due |= world.healed or world.now - disk.get("lied_at", world.now) > LIE_S
        if sequencer.up and not world.is_cut(SEQUENCER, OWNERS):
            self.seen_at = world.now
        gone = world.burnt or (not due and sequencer.up and world.is_cut(SEQUENCER, OWNERS))
        if gone:
            due = world.now - self.seen_at > (HEALED_S if world.healed else GONE_S)
            due &= standby(world) is not None
        if not due or not disk["final"]:
            self.later(LOOK_S, self._look)
            return
        world.fired["handed on by a liar" if lies else "handed on by an honest one"] += 1
        world.moved()
        sequencer.up, sequencer.life = False, sequencer.life + 1
        nobody = SequencerActor(world, SEQUENCER)
        nobody.up, nobody.disk = False, disk
        world.actors[SEQUENCER] = nobody
        self.later(GRACE_S, self._count_without if gone else self._count)

    def _count(self) -> None:
        """Turn the witnesses to the new host and hear what they cosigned last."""
        world, old = self.world, self.world.actors[SEQUENCER].disk
        told = self._told(old["leaves"][: old["final"]])
        if told is None:
            self.later(COUNT_S, self._count)
            return
        least, sizes = told
        # The old host's disk is at hand: whoever cosigned more of what is true goes on from there as well.
        bad = [n for n, one in enumerate(old["leaves"]) if one in world.lies or world.is_dated_ahead(one)]
        most = min([len(old["leaves"]), *bad])
        start = max(least, old["final"], *(size for size in sizes if size <= most))
        if start > most:
            raise BrokenError(f"a new term must start at {start}, beyond the lie at {most}")
        self._hand_on(old, start)

    def _count_without(self) -> None:
        """The same with a replica's disk alone: the term starts where that ends, or not yet."""
        world = self.world
        found = standby(world)
        told = found and self._told(found.disk["leaves"])
        if not found or not told or told[0] > len(found.disk["leaves"]):
            if not world.burnt:
                self._count()  # after all somebody went there for the disk
                return
            self.later(COUNT_S, self._count_without)
            return
        held = found.disk
        names = [record_id_of(world.decoded(split_leaf(leaf).record)) for leaf in held["leaves"]]
        known = {"final": len(names), "places": {name: at for at, name in enumerate(names)}}
        world.fired[f"handed on from a replica, {'burnt' if world.burnt else 'away'}"] += 1
        self._hand_on({**held, **known}, len(names))

    def _told(self, leaves: list[bytes]) -> tuple[int, list[int]] | None:
        """Where a term may start at the least, and what each witness says; None while too few say it."""
        world = self.world
        witnesses = replayed(world, leaves).state.witnesses
        told: dict[str, int] = {}
        for key in witnesses.keys:
            witness = world.actors[short(key.name)]
            if witness.up and not world.is_cut(SEQUENCER, witness.name):
                witness.life += 1
                world.perform(witness, witness.start)
                told[key.name] = 0 if witness.disk["state"] is None else witness.disk["state"].size
        try:
            return takeover_size(told, witnesses), list(told.values())
        except Refused:
            world.fired["too few witnesses for a new term"] += 1
            return None

    def _hand_on(self, old: dict[str, Any], start: int) -> None:
        world = self.world
        replay = replayed(world, old["leaves"][:start])
        self.terms += 1
        key, term = f"sequencer-{self.terms}", replay.term + 1
        record = world.cluster.log_term(
            start_size=start,
            start_root=encode_base64(replay.root()),
            term=term,
            epoch=term,
            issued_at=int(world.now) - 1,
            sequencers=[sequencer_entry(key, "control-1", world.cluster.cluster_id)],
        )
        leaf = replay.next_leaf(encode(record), int(world.now))
        replay.append(leaf)
        world.forget(start)
        world.note(f"{key} goes on from {start}")
        note = sign_checkpoint(replay.checkpoint(), signer(key))
        kept = {
            "key": key,
            "final": old["final"],
            "leaves": [*old["leaves"][:start], leaf],
            "places": {
                **{name: at for name, at in old["places"].items() if at < start},
                record_id_of(record): start,
            },
            "notes": {**{size: one for size, one in old["notes"].items() if size <= start}, start + 1: note},
            "lines": {size: lines for size, lines in old["lines"].items() if size <= start},
        }
        left = world.actors[SEQUENCER].disk
        world.take_place(SequencerActor(world, SEQUENCER), kept)
        if not world.burnt:
            world.take_place(FencedSequencer(world), left)
            assert world.actors[FENCED].name == FENCED
        world.burnt = False
        self.final_at = self.seen_at = world.now
        self.later(LOOK_S, self._look)
