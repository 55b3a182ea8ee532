"""A cluster of the log under faults and lies: what must always hold does, after every step of every seed.

python -m tests.simulation.test_cluster 200 24      200 further seeds of 24 simulated hours each; prints JSON
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import fabric.sync
from statelog import witness
from statelog.state import AuthorityState, WitnessSet
from tests.support import cluster_actors, cluster_owners
from tests.support.byzantine import BEHAVIOURS, LyingReplica
from tests.support.cluster_actors import REPLICAS, Actor, BrokenError
from tests.support.cluster_world import NONE, ClusterWorld, Faults
from tests.support.lying_sequencer import LIES

SEEDS = Path(__file__).parent / "cluster_seeds.txt"
HEALED_H = 0.15
USUAL, QUIET = Faults(), replace(NONE, rotations=12.0)
NETWORK = ("loss", "double", "spike", "cut", "nobody home")
PROCESSES = ("crash before write", "crash after write", "disk full", "replaced")
SEEN = ("source away", "refresh", "split view proved", "witness answers 409", "witness answers 503")
OWNERS = (
    "witnesses changed",
    "final over a change of witnesses",
    "handed on by a liar",
    "handed on by an honest one",
    "site away",
    "site burnt",
    "handed on from a replica, away",
    "handed on from a replica, burnt",
    "a fenced sequencer is refused",
    "final with a bent date",  # the lies within the bound
)


def play(seed: int, hours: float, faults: Faults = USUAL) -> ClusterWorld:
    """One seed with everything that can go wrong, and then the time to mend."""
    world = ClusterWorld(seed, faults, liar=LyingReplica)
    try:
        world.run(hours)
        world.heal()
        world.run(HEALED_H)
    except AssertionError as error:
        raise BrokenError(f"seed {seed}, {hours} h: {error}") from error
    assert world.settled(), f"seed {seed}: the cluster did not mend"
    return world


def play_all() -> list[ClusterWorld]:
    return [play(seed, hours) for seed, hours in corpus()]


def corpus() -> list[tuple[int, float]]:
    lines = (line.split("#")[0].split() for line in SEEDS.read_text().splitlines())
    return [(int(line[0]), float(line[1])) for line in lines if line]


def test_the_seed_corpus() -> None:
    """Every fault and every lie that the campaign is about happened, or it proves nothing."""
    fired: Counter[str] = Counter()
    acknowledged = 0
    for world in play_all():
        fired += world.fired
        acknowledged += len(world.acknowledged)
    lies = (f"lie {name}" for name in (*BEHAVIOURS, *LIES))
    claimed = (*NETWORK, *PROCESSES, *SEEN, *OWNERS, *lies)
    missing = [name for name in claimed if not fired[name]]
    assert missing == [], fired
    assert len(BEHAVIOURS) >= 12
    assert acknowledged > 10 * len(corpus())


def test_without_faults_and_lies_nothing_is_refused() -> None:
    """The positive twin: honest actors on a good network never refuse one another, and nothing is stale."""
    world = ClusterWorld(3, QUIET)
    world.run(0.5)
    assert world.settled()
    # A 422 is of a witness that joins, and waits for those before it.
    unwanted = ("refused", "lie", "split", "handed on", "site", "witness answers 409", "witness answers 5")
    assert not [one for one in world.fired if one.startswith(unwanted)]
    assert not [one for one in (*NETWORK, *PROCESSES) if world.fired[one]]
    assert len(world.acknowledged) > 2
    assert world.fired["witnesses changed"] > 2


def test_followers_that_count_no_cosignatures_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the follower's check of finality a stolen sequencer key forks them, and the world sees it."""
    monkeypatch.setattr(fabric.sync, "check_final", lambda *_: ())
    with pytest.raises(BrokenError, match=r"accepted other entries|conflicts|to be final by"):
        play_all()


def test_followers_that_ask_the_new_witnesses_alone_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who join must not make themselves witnesses: the world counts the quorums on its own."""

    def newest(state: AuthorityState, final_size: int, size: int) -> tuple[WitnessSet, ...]:
        return state.witnesses_between(final_size, size)[-1:]

    monkeypatch.setattr(fabric.sync, "needed_sets", newest)
    monkeypatch.setattr(cluster_actors, "needed_sets", newest)
    with pytest.raises(BrokenError, match=r"holds .* to be final by"):
        play_all()


def test_owners_that_ask_no_witness_where_a_term_starts_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest replica may lack what is final, while the site of the one who has it is away."""

    def longest(world: ClusterWorld) -> Actor:
        return max((world.actors[name] for name in REPLICAS), key=lambda one: len(one.disk["leaves"]))

    faults = replace(USUAL, sites=6.0, liars=0.3)
    assert play(62_033, 1.0, faults).fired["site away"]  # who asks waits until it is back
    monkeypatch.setattr(cluster_owners, "standby", longest)
    monkeypatch.setattr(cluster_owners.Owners, "_told", lambda *_: (0, [0]))
    with pytest.raises(BrokenError, match=r"a new term drops what .* holds to be final"):
        play(62_033, 1.0, faults)


@pytest.mark.parametrize(
    ("where", "name", "lie"),
    [(witness, "fault_of_date", "back"), (witness.Witness, "_check_clock", "ahead")],
    ids=["back", "ahead"],
)
def test_witnesses_without_a_clock_are_caught(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, lie: str
) -> None:
    monkeypatch.setattr(where, name, lambda *_: None)
    with pytest.raises(BrokenError, match=rf"holds a lie to be final: .*{lie}|beyond the lie"):
        play_all()


def test_witnesses_that_forget_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers before its state is durable is found by the first crash, or by the check itself."""

    def persisted(machine: witness.Witness, request_id: int, request: object, candidate: object) -> object:
        new = machine.state
        del request_id, request, candidate, new
        raise AssertionError("answered before it remembered")
        yield

    monkeypatch.setattr(witness.Witness, "_persist", persisted)
    with pytest.raises(BrokenError, match="before it remembered"):
        play(1, 0.1)


def test_one_seed_gives_one_history() -> None:
    first, second, other = (ClusterWorld(seed, liar=LyingReplica) for seed in (4, 4, 5))
    for world in (first, second, other):
        world.run(0.2)
    assert (first.digest(), first.fired, first.steps) == (second.digest(), second.fired, second.steps)
    assert first.digest() != other.digest()


def test_a_history_is_the_same_in_every_process() -> None:
    """Sets of strings have another order under another hash seed; nothing may hang on it."""
    code = "from tests.simulation.test_cluster import *\n"
    code += "world = ClusterWorld(4, liar=LyingReplica); world.run(0.2); print(world.digest())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def main(seeds: int, hours: float) -> None:
    """A campaign; ends at the first seed that breaks something, with its number."""
    fired: Counter[str] = Counter()
    steps, began = 0, time.process_time()
    for seed in range(1_000, 1_000 + seeds):
        world = play(seed, hours)
        fired += world.fired
        steps += world.steps
    spent = time.process_time() - began
    simulated = seeds * (hours + HEALED_H)
    report = {
        "schema": "statelog.campaign.v1",
        "seeds": seeds,
        "simulated_h": simulated,
        "cpu_s": round(spent, 1),
        "simulated_h_per_cpu_h": round(simulated * 3600 / spent),
        "steps": steps,
        "fired": dict(sorted(fired.items())),
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
