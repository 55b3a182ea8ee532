"""The data plane under faults, floods and lies: what must always hold does, after every step of every seed.

python -m tests.simulation.test_fabric 50 300      50 further seeds of 300 virtual seconds each; prints JSON
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from fabric.classes import TrafficClass
from tests.support import rogues
from tests.support.fabric_world import BrokenError, FabricWorld

SEEDS = Path(__file__).parent / "fabric_seeds.txt"
FAULTS = ("cut", "goaway", "fence", "loss", "datagram lost", "resuming", "joined")
TAMPERING = tuple(f"relay {way}" for way in ("alters", "cuts", "moves", "marks", "swaps", "drops"))
TRAFFIC = (
    "direct",
    "route long",
    "route short",
    "route other",
    *(f"{kind} {one.name.lower()}" for kind in ("stream", "datagrams") for one in TrafficClass),
)


def play(seed: int, seconds: float) -> FabricWorld:
    """One seed: honest streams, faults, and rogues or a lying relay; then peace."""
    world = FabricWorld(seed)
    try:
        if seed % 3 == 0:
            rogues.lying_relay(world)
        else:
            rogues.invite(world)
            names = sorted(rogues.BEHAVIOURS)
            world.chance.shuffle(names)
            rogues.play(world, names)
        world.storm(seconds)
        world.peace()
    except AssertionError as error:
        raise BrokenError(f"seed {seed}, {seconds} s: {error}") from error
    return world


def corpus() -> list[tuple[int, float]]:
    lines = (line.split("#")[0].split() for line in SEEDS.read_text().splitlines())
    return [(int(line[0]), float(line[1])) for line in lines if line]


def test_the_seed_corpus() -> None:
    """Every fault, flood and lie that the campaign is about happened, or it proves nothing."""
    fired: Counter[str] = Counter()
    for seed, seconds in corpus():
        fired += play(seed, seconds).fired
    claimed = (*FAULTS, *TAMPERING, *TRAFFIC, *rogues.BEHAVIOURS)
    missing = [name for name in claimed if not fired[name]]
    assert missing == [], fired
    assert len(rogues.BEHAVIOURS) >= 12
    assert fired["ended"] > 20 * len(corpus())
    assert fired["tampering found"] > 0


def test_without_faults_and_rogues_every_stream_opens_and_ends() -> None:
    world = FabricWorld(5, faults=False)
    world.storm(30.0)
    world.peace()
    assert world.fired["ended"] > 20
    assert not [name for name in world.fired if name.startswith(("refused", "never", "cut", "relay"))]


def test_a_relay_that_asks_before_the_next_hop_knows_the_stream_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The campaign can fail: what ADR 0021 forbids ends a session between two honest relays."""
    monkeypatch.setattr("fabric.hopstreams.HopStreams._known", lambda self, stream_id: self.lives(stream_id))
    world = FabricWorld(1, faults=False)
    rogues.invite(world)
    rogues.play(world, ["asks_after_a_stream_before_it_exists"])
    with pytest.raises(BrokenError, match=r"between \[2, 3\] ended: bad_stream_id"):
        world.run_for(20.0)  # without streams that use later ids


def test_tampering_that_nobody_finds_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise: with a cipher that opens anything, changed bytes would reach a reader."""
    monkeypatch.setattr(
        "fabric.seal.StreamKeys.open", lambda self, offset, flags, sealed: bytes(sealed[:-16])
    )
    monkeypatch.setattr(
        "fabric.seal.StreamKeys.seal", lambda self, offset, flags, data: bytes(data) + bytes(16)
    )
    world = FabricWorld(3, faults=False)
    rogues.lying_relay(world)
    with pytest.raises(BrokenError, match="not what was sent"):
        world.storm(40.0)


def test_one_seed_gives_one_history() -> None:
    def told(seed: int) -> str:
        world = FabricWorld(seed)
        world.storm(10.0)
        return world.digest()

    assert told(4) == told(4) != told(5)


def main(seeds: int, seconds: float) -> None:
    """A campaign; ends at the first seed that breaks something, with its number."""
    fired: Counter[str] = Counter()
    virtual, began = 0.0, time.process_time()
    for seed in range(1_000, 1_000 + seeds):
        world = play(seed, seconds)
        fired += world.fired
        virtual += world.now - 1000.0
    spent = time.process_time() - began
    print(
        json.dumps(
            {
                "seeds": seeds,
                "simulated_hours": round(virtual / 3600, 3),
                "cpu_hours": round(spent / 3600, 4),
                "simulated_hours_per_cpu_hour": round(virtual / spent, 1),
                "fired": dict(sorted(fired.items())),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
