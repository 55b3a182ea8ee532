"""A partition's leases through fences, revocations and takeovers, in seeded worlds without clock or socket.

One authority log and one partition log, several sequencer keys, four of six witnesses, which change and each
see the authority log late, a network that loses requests. Sequencers die with entries that nobody cosigned,
come back and go on; nodes are fenced and revoked in the authority log.

What must hold whenever a head became final:

- what was once final is a prefix of every later final log, whoever wrote it;
- the final log replays from its bytes alone, in one state, each entry in the term in force where it stands;
- every change of the witnesses is passed by a head that both quorums have cosigned;
- no lease stands in that state through a node that was fenced after the lease was issued.

And in the end an audit of both logs finds nothing.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from statelog.audit_logs import audit_logs
from statelog.canonical import encode
from statelog.checkpoint import parse_signed_checkpoint, sign_checkpoint
from statelog.errors import Refused
from statelog.finality import finality, is_final, milestones, needed_sets
from statelog.note import Note, NoteSignature, parse_signature_lines
from statelog.partition import PartitionReplay
from statelog.signing import encode_base64
from statelog.state import Target
from statelog.witness import encode_add_checkpoint
from tests.support.authority import Cluster, make_cluster, node_id, sequencer_entry, signer
from tests.support.logs import WITNESSES, MemorySource, WitnessHost, consistency, source_of, with_lines
from tests.support.partitions import ClusterFeed, Partition

KEYS = ("sequencer-eu", "sequencer-2", "sequencer-3")
POOL = (*WITNESSES, "witness-5", "witness-6")
RELAYS = ("relay-1", "usa-los-1", "node-9")


@dataclass
class Writer:
    """A sequencer of the partition: its own copy of the log, and its own view of the authority log."""

    key: str
    seen: ClusterFeed
    replay: PartitionReplay
    leaves: list[bytes] = field(default_factory=list)


class World:
    """Runs one seed. `final` are the leaves that K witnesses have cosigned; `heads` their notes by size."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.cluster: Cluster = make_cluster()
        self.eu = Partition(self.cluster, writer=KEYS[0])
        self.fired: Counter[str] = Counter()
        self.final: list[bytes] = []
        self.heads: list[tuple[int, bytes]] = []
        self.rotated: list[int] = []  # sizes of the authority log behind each change of the witnesses
        self.waiting: list[str] = []  # routes whose lease was asked for and is not final
        self.epochs: Counter[str] = Counter()
        self.writers = {key: self._writer(key) for key in KEYS}
        self.feeds = [ClusterFeed(self.cluster) for _ in POOL]
        self.current: list[list[bytes]] = [[] for _ in POOL]
        self.witnesses = [self._witness(n, name) for n, name in enumerate(POOL)]

    def _witness(self, number: int, name: str) -> WitnessHost:
        return WitnessHost(
            self.cluster,
            name,
            lambda: self.current[number],
            lambda: self.eu.fresh(self.feeds[number]),
            self.eu.log,
        )

    def _writer(self, key: str) -> Writer:
        seen = ClusterFeed(self.cluster)
        return Writer(key, seen, self.eu.fresh(seen))

    # -- steps --

    def step(self) -> None:
        choices = {
            self.lease: 6,
            self.cosign: 6,
            self.fence_route: 2,
            self.fence_node: 1,
            self.revoke_node: 1,
            self.see: 4,
            self.take_over: 1,
            self.rotate: 1,
            self.recover: 2,
            self.pass_time: 3,
        }
        (chosen,) = self.rng.choices(list(choices), list(choices.values()))
        before = len(self.final)
        chosen()
        if len(self.final) > before:
            self.check()

    def pass_time(self) -> None:
        self.cluster.now += self.rng.randint(1, 40)

    def see(self) -> None:
        """Somebody's view of the authority log advances, or is cut off for a while."""
        feed = self.rng.choice([*self.feeds, *(one.seen for one in self.writers.values())])
        feed.final = None if self.rng.random() < 0.7 else feed.final_size()

    def _believing(self) -> list[Writer]:
        """The sequencers that hold the pen as far as they know, else all of them."""
        found = []
        for writer in self.writers.values():
            trial = writer.replay.copy()
            trial.advance()
            if signer(writer.key).public in {key.public for key in trial.sequencer_keys()}:
                found.append(writer)
        return found or list(self.writers.values())

    def _append(self, record: dict[str, object]) -> bool:
        """The record in some sequencer's copy of the log, whether or not it still has the pen."""
        among = self._believing() if self.rng.random() < 0.8 else list(self.writers.values())
        writer = self.rng.choice(among)
        trial = writer.replay.copy()
        try:
            trial.advance()
            if signer(writer.key).public not in {key.public for key in trial.sequencer_keys()}:
                self.fired["fenced_in_store"] += 1
                return False
            entry = trial.append(trial.next_leaf(encode(dict(record)), self.cluster.now))
        except Refused as error:
            self.fired[error.code] += 1
            return False
        writer.replay = trial
        writer.leaves.append(entry.data)
        return True

    def lease(self) -> None:
        route = f"eu-1/{self.rng.choice('abcd')}"
        self.epochs[route] += 1
        hops = ("phone-a", self.rng.choice(RELAYS), "home-1")
        self._append(self.cluster.lease(route, *hops, partition="eu-1", epoch=self.epochs[route]))

    def fence_route(self) -> None:
        route = f"eu-1/{self.rng.choice('abcd')}"
        self.epochs["fence" + route] += 1
        self._append(self.cluster.fence({"route_id": route}, epoch=self.epochs["fence" + route]))

    def fence_node(self) -> None:
        self.cluster.append(self.cluster.fence({"node_id": node_id(self.rng.choice(RELAYS))}))
        self.fired["node_fenced"] += 1

    def revoke_node(self) -> None:
        name = self.rng.choice(RELAYS[1:])
        if node_id(name) in self.cluster.state.nodes and self.fired["node_revoked"] < 1:
            self.cluster.append(self.cluster.revocation({"node_id": node_id(name)}))
            self.fired["node_revoked"] += 1

    def cosign(self) -> None:
        """A sequencer asks whom it reaches; with K answers its head is final."""
        writer = self.rng.choice(self._believing())
        size = writer.replay.size
        if not size or size < len(self.final) or writer.leaves == self.final:
            return
        _, note = parse_signed_checkpoint(sign_checkpoint(writer.replay.checkpoint(), signer(writer.key)))
        sets = needed_sets(writer.replay.state, len(self.final), size)
        asked = [
            n for n, host in enumerate(self.witnesses) if any(host.key_name in one.by_name for one in sets)
        ]
        # Who joins waits for the others, and who missed a change is led over it.
        for n in [*asked, *asked]:
            if self.rng.random() < 0.25:
                self.fired["lost"] += 1
            elif self.witnesses[n].key_name not in {line.name for line in note.signatures}:
                self.current[n] = writer.leaves
                for passed in self._to_pass(writer):
                    self._ask(n, writer, *passed)
                note = with_lines(note, self._ask(n, writer, size, note))
        if is_final(finality(note, sets)):
            self.fired["changed"] += len(sets) > 1
            self._became_final(writer, size, note.format())

    def _to_pass(self, writer: Writer) -> list[tuple[int, Note]]:
        """The final heads over changes of the witnesses, before the newest."""
        if writer.leaves[: len(self.final)] != self.final or not self.final:
            return []
        heads = [(size, parse_signed_checkpoint(note)[1]) for size, note in self.heads]
        return milestones(
            writer.replay.state, lambda start: [one for one in heads if one[0] >= start], len(self.final)
        )[:-1]

    def _ask(self, n: int, writer: Writer, size: int, note: Note) -> list[NoteSignature]:
        """What a witness answers to a head that is beyond what it has cosigned."""
        host = self.witnesses[n]
        stored = host.stored.size if host.stored is not None else 0
        if stored > size:
            return []
        body = encode_add_checkpoint(stored, consistency(writer.leaves, stored, size), note.format())
        reply = host.ask(body, float(self.cluster.now))
        self.fired[f"answered_{reply.status}"] += 1
        return list(parse_signature_lines(reply.body)) if reply.status == 200 else []

    def rotate(self) -> None:
        """The authority log names other witnesses, also while heads of the partition are not final."""
        coming = self.cluster.witness_set(*sorted(self.rng.sample(POOL, 4)))
        self.cluster.append(self.cluster.descriptor(witnesses=coming))
        self.rotated.append(self.cluster.log.size)

    def _became_final(self, writer: Writer, size: int, note: bytes) -> None:
        assert writer.leaves[: len(self.final)] == self.final, "what was final is no prefix of what is"
        if size > len(self.final):
            self.fired["final"] += 1
            self.final = writer.leaves[:size]
            self.heads.append((size, note))

    def recover(self) -> None:
        """A sequencer learns the final log: what it had appended alone and differently is dropped."""
        self._learn(self.rng.choice(KEYS))

    def _learn(self, key: str) -> None:
        leaves = self.writers[key].leaves
        if leaves[: len(self.final)] == self.final:
            return
        common = min(len(leaves), len(self.final))
        self.fired["suffix_dropped"] += leaves[:common] != self.final[:common]
        self.writers[key] = Writer(key, ClusterFeed(self.cluster), self._replayed(), list(self.final))

    def _replayed(self) -> PartitionReplay:
        """The final log, replayed from its bytes."""
        replay = self.eu.fresh(ClusterFeed(self.cluster))
        for leaf in self.final:
            entry = replay.append(leaf, verify_signatures=False)  # witnesses have; the audit will
            assert entry.term == replay.term
        return replay

    def take_over(self) -> None:
        """A quorum signs the next term, from the largest final head there can be."""
        replay = self._replayed()
        key = self.rng.choice(KEYS)
        entry = sequencer_entry(key, "control-1", self.cluster.cluster_id)
        start = replay.size
        root = replay.root()
        self.cluster.append(
            self.cluster.log_term(
                self.eu.log, start_size=start, start_root=encode_base64(root), sequencers=[entry]
            )
        )
        self.fired["term"] += 1
        self._learn(key)
        for writer in self.writers.values():
            if writer.key != key and self.rng.random() < 0.5:  # and does not hear of it for a while
                writer.seen.final = max(writer.replay.authority_size, writer.seen.final_size() - 1)

    # -- invariants --

    def check(self) -> None:
        replay = self._replayed()
        replay.advance()
        for lease in replay.state.leases.values():
            for hop in lease.hops:
                mark = replay.state.fenced.get(Target("node_id", hop))
                assert mark is None or mark.issued_at < lease.issued_at

    def findings(self) -> list[str]:
        """What an audit of both logs says."""
        authority = source_of(self.cluster, sorted({*self.rotated, self.cluster.log.size}), POOL)
        logs = {"authority": authority, self.eu.log: MemorySource(list(self.final), list(self.heads))}
        if not self.final:
            del logs[self.eu.log]
        reports = audit_logs(logs, self.cluster.anchor)
        assert all(report.complete for report in reports)
        return [str(finding) for report in reports for finding in report.findings]


SEEDS = range(8)


@functools.cache
def played(seed: int) -> World:
    """The world after 60 steps, each checked."""
    world = World(seed)
    for _ in range(60):
        world.step()
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_final_is_lost_and_nothing_fenced_stays(seed: int) -> None:
    assert played(seed).findings() == []


def test_one_seed_is_one_history() -> None:
    again = World(3)
    for _ in range(60):
        again.step()
    assert (again.final, again.fired) == (played(3).final, played(3).fired)


def test_the_faults_were_injected() -> None:
    """A campaign whose faults never fire proves nothing."""
    fired = sum((played(seed).fired for seed in SEEDS), Counter[str]())
    wanted = {
        "final",
        "lost",
        "term",
        "changed",
        "fenced_in_store",
        "node_fenced",
        "node_revoked",
        "suffix_dropped",
    }
    wanted |= {"answered_200", "answered_422", "answered_503", "SL-REVOKED"}
    assert not [fault for fault in wanted if not fired[fault]], fired
