"""Gossip: rumours, repair, limits. Small pictures of single machines, then whole networks of them."""

# Long on purpose: one story a rule of the machine, over one shared world.
from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric import gossip, limits
from fabric.gossip import (
    Dropped,
    Gossip,
    HeadAdvanced,
    Item,
    Judge,
    Judged,
    Local,
    Logged,
    PeerDown,
    PeerUp,
    Population,
    Received,
    Refusal,
    Send,
    Timer,
)
from fabric.services.gossip import Digest, Have, Record, Want

ME, PEER, OTHER = "a" * 64, "b" * 64, "c" * 64


def item(name: str, *, subject: str = "", epoch: int = 1, keep: int = 1, urgent: bool = False) -> Item:
    data = f"{name}/{epoch}".encode()
    record_id = hashlib.sha256(data).hexdigest()
    return Item(record_id, data, ("s", subject or name), (epoch, -int(record_id, 16)), 10_000, keep, urgent)


def machine(*peers: str, seed: int = 1) -> Gossip:
    made = Gossip(ME, random.Random(seed))
    for peer in peers:
        made.handle(0.0, PeerUp(peer))
    return made


def run_out(made: Gossip, now: float = 2.0) -> None:
    """Lets the rumours end, so that what follows is not one of their rounds."""
    while made.snapshot().spreading:
        made.handle(now, Timer())
        now += limits.GOSSIP_ROUND_S


def sent(effects: Sequence[gossip.Effect]) -> list[tuple[str, object]]:
    return [(e.peer, e.message) for e in effects if isinstance(e, Send)]


def refused_by(made: Gossip, peer: str) -> dict[str, int]:
    return made.snapshot().refused.get(peer, {})


class TestOneRecord:
    def test_an_offer_is_asked_for_judged_held_and_spread(self) -> None:
        made, new = machine(PEER, OTHER), item("r")
        assert sent(made.handle(1.0, Received(PEER, Have((new.record_id,))))) == [
            (PEER, Want((new.record_id,)))
        ]
        assert made.handle(1.1, Received(PEER, Record(new.record_id, new.data))) == [
            Judge(PEER, new.record_id, new.data)
        ]
        assert not made.holds(new.record_id)
        told = sent(made.handle(1.2, Judged(new.record_id, new)))
        assert made.holds(new.record_id)
        assert sorted(told) == [(PEER, Have((new.record_id,))), (OTHER, Have((new.record_id,)))]

    def test_a_held_record_is_given_to_who_wants_it(self) -> None:
        made, new = machine(PEER), item("r")
        made.handle(1.0, Local(new))
        assert sent(made.handle(1.1, Received(PEER, Want((new.record_id,))))) == [
            (PEER, Record(new.record_id, new.data))
        ]
        assert sent(made.handle(1.1, Received(PEER, Want(("0" * 64,))))) == []

    def test_an_unasked_record_is_not_even_judged(self) -> None:
        made, new = machine(PEER), item("r")
        assert made.handle(1.0, Received(PEER, Record(new.record_id, new.data))) == []
        assert refused_by(made, PEER) == {"GS-UNASKED": 1}

    def test_what_is_held_is_not_asked_for_again(self) -> None:
        made, new = machine(PEER), item("r")
        assert sent(made.handle(0.5, Received(PEER, Have((new.record_id,)))))
        made.handle(1.0, Local(new))
        assert Want((new.record_id,)) not in [
            m for _, m in sent(made.handle(2.0, Received(PEER, Have((new.record_id,)))))
        ]

    def test_strangers_are_not_heard(self) -> None:
        made = machine()
        assert made.handle(1.0, Received(PEER, Have(("0" * 64,)))) == []


class TestAsking:
    def test_an_answer_that_does_not_come_is_asked_of_another(self) -> None:
        made, new = machine(PEER, OTHER), item("r")
        made.handle(1.0, Received(PEER, Have((new.record_id,))))
        assert sent(made.handle(1.0, Received(OTHER, Have((new.record_id,))))) == []
        due = made.deadline()
        assert due == pytest.approx(1.0 + limits.GOSSIP_WANT_TIMEOUT_S)
        assert sent(made.handle(due, Timer())) == [(OTHER, Want((new.record_id,)))]
        assert made.counters["want_timeouts"] == 1

    def test_a_peer_that_leaves_is_replaced_at_once(self) -> None:
        made, new = machine(PEER, OTHER), item("r")
        made.handle(1.0, Received(PEER, Have((new.record_id,))))
        made.handle(1.0, Received(OTHER, Have((new.record_id,))))
        assert sent(made.handle(1.1, PeerDown(PEER))) == [(OTHER, Want((new.record_id,)))]

    def test_a_bad_copy_is_asked_of_another_and_remembered(self) -> None:
        made, new = machine(PEER, OTHER), item("r")
        for peer in (PEER, OTHER):
            made.handle(1.0, Received(peer, Have((new.record_id,))))
        made.handle(1.1, Received(PEER, Record(new.record_id, b"forged")))
        told = sent(made.handle(1.2, Judged(new.record_id, Refusal("SL-SIG", copy_only=True))))
        assert told == [(OTHER, Want((new.record_id,)))]
        assert refused_by(made, PEER) == {"SL-SIG": 1}
        # The same bytes from the other peer are known to be bad: no second verification.
        assert not [
            e
            for e in made.handle(1.3, Received(OTHER, Record(new.record_id, b"forged")))
            if isinstance(e, Judge)
        ]
        assert refused_by(made, OTHER) == {"SL-SIG": 1}
        # A good copy still passes.
        made.handle(1.4, Received(PEER, Have((new.record_id,))))
        assert made.handle(1.5, Received(PEER, Record(new.record_id, new.data))) == [
            Judge(PEER, new.record_id, new.data)
        ]

    def test_a_record_that_this_node_failed_to_judge_is_asked_for_again(self) -> None:
        made, new = machine(PEER, OTHER), item("r")
        made.handle(1.0, Received(PEER, Have((new.record_id,))))
        made.handle(1.1, Received(PEER, Record(new.record_id, new.data)))
        made.handle(1.2, Judged(new.record_id, Refusal("GS-STORE", unjudged=True)))
        told = sent(made.handle(1.3, Received(OTHER, Have((new.record_id,)))))
        assert told == [(OTHER, Want((new.record_id,)))]
        assert made.handle(1.4, Received(OTHER, Record(new.record_id, new.data))) == [
            Judge(OTHER, new.record_id, new.data)
        ]

    def test_a_refused_record_is_left_alone_until_the_head_moves(self) -> None:
        made, new = machine(PEER), item("r")
        made.handle(1.0, Received(PEER, Have((new.record_id,))))
        made.handle(1.1, Received(PEER, Record(new.record_id, new.data)))
        made.handle(1.2, Judged(new.record_id, Refusal("SL-ROLE")))
        assert sent(made.handle(1.3, Received(PEER, Have((new.record_id,))))) == []
        made.handle(1.4, HeadAdvanced())
        assert sent(made.handle(1.5, Received(PEER, Have((new.record_id,))))) == [
            (PEER, Want((new.record_id,)))
        ]

    def test_at_most_so_many_are_asked_of_one_peer_at_once(self) -> None:
        made = machine(PEER)
        new = [item(f"r{i}") for i in range(limits.GOSSIP_MAX_WANTED_PEER + 5)]
        (told,) = sent(made.handle(1.0, Received(PEER, Have(tuple(i.record_id for i in new)))))
        assert told == (PEER, Want(tuple(i.record_id for i in new[: limits.GOSSIP_MAX_WANTED_PEER])))
        effects = made.handle(1.1, Received(PEER, Record(new[0].record_id, new[0].data)))
        assert (PEER, Want((new[limits.GOSSIP_MAX_WANTED_PEER].record_id,))) in sent(effects)


class TestTheSet:
    def test_the_best_of_a_subject_is_kept_in_any_order(self) -> None:
        for order in itertools.permutations([1, 2, 3]):
            made = machine()
            for epoch in order:
                made.handle(1.0, Local(item("r", subject="x", epoch=epoch, keep=2)))
            assert sorted(i.order[0] for i in made.items()) == [2, 3]

    def test_the_log_takes_a_record_and_all_worse_ones_over(self) -> None:
        made = machine(PEER)
        old, new = (item("r", subject="x", epoch=e, keep=2) for e in (1, 2))
        newer = item("r", subject="x", epoch=3, keep=2)
        for one in (old, new):
            made.handle(1.0, Local(one))
        made.handle(2.0, Logged(new.record_id, new.subject, new.order))
        assert made.items() == []
        assert sent(made.handle(3.0, Received(PEER, Have((new.record_id,))))) == []
        made.handle(4.0, Local(newer))
        assert made.holds(newer.record_id)

    def test_a_newer_record_outlives_an_older_ones_logging(self) -> None:
        made = machine()
        new, newer = (item("r", subject="x", epoch=e, keep=2) for e in (2, 3))
        for one in (new, newer):
            made.handle(1.0, Local(one))
        made.handle(2.0, Logged(new.record_id, new.subject, new.order))
        assert made.items() == [newer]

    def test_a_record_that_the_log_refused_does_not_come_back(self) -> None:
        made, new = machine(PEER), item("r")
        made.handle(1.0, Local(new))
        made.handle(2.0, Dropped(new.record_id))
        made.handle(2.5, HeadAdvanced())
        assert not made.holds(new.record_id)
        assert sent(made.handle(3.0, Received(PEER, Have((new.record_id,))))) == []

    def test_expired_records_leave(self) -> None:
        made, new = machine(PEER), item("r")
        made.handle(1.0, Local(new))
        made.handle(10_001.0, Timer())
        assert made.items() == []
        made.handle(10_002.0, Local(new))
        assert made.items() == []

    def test_over_the_bound_what_ends_first_goes_but_never_a_revocation(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "GOSSIP_MAX_ITEMS", 2)
        made = machine()
        revocation = item("revocation", urgent=True)
        for one in (revocation, item("r1"), item("r2")):
            made.handle(1.0, Local(one))
        assert len(made.items()) == 2
        assert made.holds(revocation.record_id)
        assert made.counters["evicted"] == 1

    def test_revocations_are_named_and_sent_first(self) -> None:
        made, plain, urgent = machine(PEER), item("plain"), item("urgent", urgent=True)
        made.handle(0.5, PeerDown(PEER))
        made.handle(1.0, Local(plain))
        made.handle(1.0, Local(urgent))
        told = sent(made.handle(2.0, PeerUp(PEER)))
        assert (PEER, Have((urgent.record_id, plain.record_id))) in told
        wanted = made.handle(2.1, Received(PEER, Want((plain.record_id, urgent.record_id))))
        assert [m.record_id for _, m in sent(wanted) if isinstance(m, Record)] == [
            urgent.record_id,
            plain.record_id,
        ]


class TestLimits:
    def test_offers_of_one_peer_are_rationed(self) -> None:
        made = machine(PEER, OTHER)
        ids = tuple(f"{i:064x}" for i in range(limits.GOSSIP_MAX_IDS))
        for _ in range(limits.GOSSIP_OFFERS_BURST // limits.GOSSIP_MAX_IDS + 1):
            made.handle(1.0, Received(PEER, Have(ids)))
        assert refused_by(made, PEER) == {"GS-RATE": 1}
        made.handle(1.0, Received(OTHER, Have(ids)))
        assert refused_by(made, OTHER) == {}

    def test_one_peer_cannot_fill_the_table_of_wanted_ids(self) -> None:
        made = machine(PEER, OTHER)
        ids = [f"{i:064x}" for i in range(limits.GOSSIP_MAX_OFFERED_PEER + 10)]
        for start in range(0, len(ids), limits.GOSSIP_MAX_IDS):
            made.handle(1.0, Received(PEER, Have(tuple(ids[start : start + limits.GOSSIP_MAX_IDS]))))
        assert refused_by(made, PEER) == {"GS-FULL": 10}
        assert sent(made.handle(1.0, Received(OTHER, Have(("f" * 64,))))) == [(OTHER, Want(("f" * 64,)))]

    def test_serving_one_peer_is_rationed(self) -> None:
        made, new = machine(PEER), item("r")
        made.handle(1.0, Local(new))
        served = 0
        for _ in range(limits.GOSSIP_RECORDS_BURST + 10):
            served += len(sent(made.handle(1.0, Received(PEER, Want((new.record_id,))))))
        assert served == limits.GOSSIP_RECORDS_BURST
        assert refused_by(made, PEER) == {"GS-RATE": 10}

    def test_what_is_remembered_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "GOSSIP_MAX_SETTLED", 3)
        made = machine(PEER)
        for i in range(10):
            made.handle(1.0, Dropped(f"{i:064x}"))
        assert sent(made.handle(2.0, Received(PEER, Have((f"{9:064x}",))))) == []
        assert sent(made.handle(2.0, Received(PEER, Have((f"{0:064x}",))))) != []


class TestRepair:
    def test_the_digest_is_over_sorted_raw_ids_by_first_byte(self) -> None:
        made = machine()
        records = [item(f"r{i}") for i in range(600)]
        for one in records:
            made.handle(1.0, Local(one))
        expected = {}
        for one in records:
            expected.setdefault(int(one.record_id[:2], 16), []).append(bytes.fromhex(one.record_id))
        assert made.digest() == Digest(
            {b: hashlib.sha256(b"".join(sorted(ids))).digest() for b, ids in sorted(expected.items())},
            reply=False,
        )
        for one in records[:599]:
            made.handle(2.0, Dropped(one.record_id))
        assert list(made.digest().buckets) == [int(records[599].record_id[:2], 16)]

    def test_equal_sets_have_nothing_to_say(self) -> None:
        made = machine(PEER)
        made.handle(1.0, Local(item("r")))
        run_out(made)
        assert sent(made.handle(5.0, Received(PEER, made.digest()))) == []

    def test_only_differing_buckets_are_named_and_the_answer_ends_it(self) -> None:
        made = machine(PEER)
        records = [item(f"r{i}") for i in range(40)]
        for one in records:
            made.handle(1.0, Local(one))
        run_out(made)
        bucket = int(records[0].record_id[:2], 16)
        theirs = {b: d for b, d in made.digest().buckets.items() if b != bucket}
        told = [m for _, m in sent(made.handle(9.0, Received(PEER, Digest(theirs, reply=False))))]
        named = sorted(i.record_id for i in records if int(i.record_id[:2], 16) == bucket)
        assert told == [Have(tuple(named)), made.digest(reply=True)]
        again = [m for _, m in sent(made.handle(9.0, Received(PEER, Digest(theirs, reply=True))))]
        assert again == [Have(tuple(named))]

    def test_the_lower_id_opens_the_comparison(self) -> None:
        lower, upper = Gossip("0" * 64, random.Random(1)), Gossip("f" * 64, random.Random(1))
        assert [m for _, m in sent(lower.handle(0.0, PeerUp(ME)))] == [Digest({}, reply=False)]
        assert sent(upper.handle(0.0, PeerUp(ME))) == []

    def test_it_comes_back_about_every_interval(self) -> None:
        made = machine(PEER)
        at = made.deadline()
        assert at == pytest.approx(limits.GOSSIP_REPAIR_S, rel=0.11)
        assert [m for _, m in sent(made.handle(at, Timer()))] == [Digest({}, reply=False)]
        following = made.deadline()
        assert following is not None
        assert following > at


def test_a_rumour_ends_after_rounds_that_grow_with_the_logarithm() -> None:
    for nodes in (5, 100, 10_000):
        made = machine(PEER)
        made.handle(1.0, Population(nodes))
        rounds = len(sent(made.handle(1.0, Local(item("r")))))
        while made.snapshot().spreading:
            at = made.deadline()
            assert at is not None
            rounds += sum(isinstance(m, Have) for _, m in sent(made.handle(at, Timer())))
        assert rounds == math.ceil(4 * math.log10(nodes + 1))


# -- networks ----


class Net:
    """Gossip machines on a virtual clock. `accepts` plays admission; `lost` loses messages."""

    def __init__(self, size: int, degree: int, seed: int, loss: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.loss = loss
        self.now = 0.0
        self.count = itertools.count()
        self.queue: list[tuple[float, int, str, gossip.Event]] = []
        self.names = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(size)]
        self.nodes = {n: Gossip(n, random.Random(f"{seed}/{n}")) for n in self.names}
        self.links: set[tuple[str, str]] = set()
        for i, name in enumerate(self.names):
            self.nodes[name].handle(0.0, Population(size))
            near = {self.names[(i + 1) % size], *self.rng.sample(self.names, min(size, degree // 2))} - {name}
            self.links |= {(min(name, other), max(name, other)) for other in near}
        self.cut: set[tuple[str, str]] = set()
        self.universe: dict[str, Item] = {}
        self.lost = 0

    def connect(self) -> None:
        for a, b in sorted(self.links - self.cut):
            self.do(a, PeerUp(b))
            self.do(b, PeerUp(a))

    def do(self, name: str, event: gossip.Event) -> None:
        for effect in self.nodes[name].handle(self.now, event):
            if isinstance(effect, Judge):
                self.later(0.001, name, Judged(effect.record_id, self.universe[effect.record_id]))
            elif (min(name, effect.peer), max(name, effect.peer)) in self.cut:
                continue
            elif self.rng.random() < self.loss:
                self.lost += 1
            else:
                self.later(self.rng.uniform(0.01, 0.1), effect.peer, Received(name, effect.message))

    def later(self, delay: float, name: str, event: gossip.Event) -> None:
        heapq.heappush(self.queue, (self.now + delay, next(self.count), name, event))

    def publish(self, name: str, new: Item) -> None:
        self.universe[new.record_id] = new
        self.do(name, Local(new))

    def run(self, until: float) -> None:
        while True:
            timers = [(d, n) for n, m in self.nodes.items() if (d := m.deadline()) is not None]
            timer = min(timers, default=(math.inf, ""))
            event = self.queue[0][0] if self.queue else math.inf
            at = min(timer[0], event)
            if at > until:
                self.now = until
                return
            self.now = max(self.now, at)
            if event <= timer[0]:
                _, _, name, what = heapq.heappop(self.queue)
                self.do(name, what)
            else:
                self.do(timer[1], Timer())

    def holders(self, record_id: str) -> int:
        return sum(m.holds(record_id) for m in self.nodes.values())


def test_a_record_reaches_a_hundred_nodes_in_two_virtual_seconds() -> None:
    net = Net(100, 8, seed=7)
    net.connect()
    net.run(0.5)
    new = item("moved")
    net.publish(net.names[0], new)
    net.run(2.5)
    assert net.holders(new.record_id) == 100


def test_repair_finds_what_a_lossy_network_lost() -> None:
    net = Net(20, 4, seed=3, loss=0.3)
    net.connect()
    records = [item(f"r{i}") for i in range(10)]
    for i, one in enumerate(records):
        net.publish(net.names[i], one)
    net.run(600.0)
    assert net.lost > 100
    assert [net.holders(one.record_id) for one in records] == [20] * 10


def test_a_healed_partition_is_equal_after_one_comparison() -> None:
    net = Net(2, 2, seed=5)
    (link,) = net.links
    net.cut = {link}
    left, right = item("left"), item("right")
    net.publish(link[0], left)
    net.publish(link[1], right)
    net.run(1.0)
    assert net.holders(left.record_id) == net.holders(right.record_id) == 1
    net.cut = set()
    net.connect()
    net.run(2.0)
    assert net.holders(left.record_id) == net.holders(right.record_id) == 2


@settings(max_examples=30)
@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=12),
)
def test_all_end_with_the_best_two_of_every_subject(seed: int, moves: list[tuple[int, int, int]]) -> None:
    """Whatever is published where and in whatever order, the sets converge to one function of their union."""
    net = Net(8, 4, seed=seed, loss=0.1)
    net.connect()
    published: dict[int, dict[str, Item]] = {}
    for at, (node, subject, epoch) in enumerate(moves):
        new = item(f"r{subject}", subject=str(subject), epoch=epoch, keep=2)
        published.setdefault(subject, {})[new.record_id] = new
        net.run(at * 0.05)
        net.publish(net.names[node], new)
    net.run(net.now + 200.0)
    expected = {
        i.record_id
        for records in published.values()
        for i in sorted(records.values(), key=lambda i: i.order, reverse=True)[:2]
    }
    assert [{i.record_id for i in m.items()} for m in net.nodes.values()] == [expected] * 8


def test_one_seed_gives_one_history() -> None:
    def trace(seed: int) -> list[tuple[str, list[str], dict[str, int]]]:
        net = Net(12, 4, seed=seed, loss=0.2)
        net.connect()
        for i in range(5):
            net.publish(net.names[i], item(f"r{i}"))
        net.run(40.0)
        return [(n, [i.record_id for i in m.items()], dict(m.counters)) for n, m in net.nodes.items()]

    assert trace(11) == trace(11)
    assert trace(11) != trace(12)
