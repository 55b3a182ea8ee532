"""Collecting cosignatures: who is asked what, what is kept, when a head is final."""

# Long on purpose: one log with its witnesses, and each way in which one of them is away, slow, new or wrong.
from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from statelog import limits
from statelog.canonical import encode
from statelog.checkpoint import cosign, parse_signed_checkpoint
from statelog.errors import UsageError
from statelog.io.cosign import Collected, CosignRound, collect
from statelog.io.loading import load_replay
from statelog.io.sequencer import Sequencer
from statelog.io.store import Store, StoredCosignature
from statelog.replay import Replay
from statelog.witness import parse_add_checkpoint
from tests.support.authority import Cluster, make_cluster, signer
from tests.support.logs import WITNESSES, WitnessHost, leases, new_store

KEY_NAMES = tuple(f"{name}.example" for name in WITNESSES)
Answer = Callable[[bytes], Awaitable[tuple[int, bytes]]]


class Site:
    """A store, its sequencer, and four witnesses that fetch from it; answers can be replaced by name."""

    def __init__(self, path: Path, cluster: Cluster) -> None:
        self.cluster = cluster
        self.engine, self.sequencer = new_store(path / "state.db", cluster)
        self.store = Store(self.engine)
        self.hosts = {
            f"{name}.example": WitnessHost(cluster, name, self.leaves)
            for name in (*WITNESSES, "witness-5", "witness-6", "witness-7")
        }
        self.asked: list[tuple[str, int]] = []
        self.instead: dict[str, Answer] = {}

    def leaves(self) -> list[bytes]:
        return [row.leaf for row in self.store.entries(0)]

    async def ask(self, name: str, body: bytes) -> tuple[int, bytes]:
        self.asked.append((name, parse_add_checkpoint(body).old_size))
        if name in self.instead:
            return await self.instead[name](body)
        reply = self.hosts[name].ask(body)
        return reply.status, reply.body

    def change_witnesses(self, *numbers: int) -> None:
        """The log comes under these witnesses; nobody is asked yet."""
        coming = self.cluster.witness_set(*(f"witness-{n}" for n in numbers))
        changed = self.cluster.descriptor(witnesses=coming)
        self.sequencer.submit(encode(changed), self.cluster.now)
        self.cluster.append(changed)

    def replay(self) -> Replay:
        return load_replay(self.store, self.cluster.anchor)

    def collect(self, **options: object) -> Collected:
        options.setdefault("clock", lambda: float(self.cluster.now))
        return asyncio.run(collect(self.store, self.replay(), self.ask, **options))  # type: ignore[arg-type]  # by name

    def final_size(self) -> int:
        head = self.store.head()
        return 0 if head is None else head.final_size


def answer(status: int, body: bytes) -> Answer:
    async def reply(_body: bytes) -> tuple[int, bytes]:
        return status, body

    return reply


async def away(_body: bytes) -> tuple[int, bytes]:
    raise ConnectionError("no route to the witness")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, make_cluster())
    yield site
    site.engine.dispose()


@pytest.fixture
def young(tmp_path: Path) -> Iterator[Site]:
    """A log of its first entries alone, which its witnesses have cosigned."""
    site = Site(tmp_path, make_cluster(members=False, nodes=()))
    assert site.collect().final
    yield site
    site.engine.dispose()


def test_a_head_becomes_final(site: Site) -> None:
    told: list[int] = []
    size = site.cluster.log.size
    collected = site.collect(on_final=told.append)
    assert (collected.final, collected.size, collected.failures) == (True, size, {})
    assert collected.results[0].signed == KEY_NAMES
    assert (site.final_size(), told) == (size, [size])
    assert [one.name for one in site.store.cosignatures(size)] == list(KEY_NAMES)
    assert sorted(site.asked) == [(name, 0) for name in KEY_NAMES]


def test_the_next_head_is_asked_from_where_each_witness_is(site: Site) -> None:
    site.collect()
    size = site.cluster.log.size
    site.asked.clear()
    site.sequencer.submit_many(leases(site.cluster, 3), site.cluster.now)
    assert site.collect().final
    assert sorted(site.asked) == [(name, size) for name in KEY_NAMES]
    assert site.final_size() == size + 3


def test_a_witness_that_another_replica_had_cosign_more_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store learns of it while this round is under way."""
    size = site.cluster.log.size
    monkeypatch.setattr(site.store, "cosigned_size", lambda _key_id: size + 1)
    site.instead = {KEY_NAMES[0]: answer(409, b"%d\n" % (size + 1))}
    collected = site.collect()
    assert collected.final
    assert "a larger head" in collected.failures[KEY_NAMES[0]]
    assert all(old <= size for _, old in site.asked)


def test_three_of_four_are_enough_and_two_are_not(site: Site) -> None:
    site.instead = {KEY_NAMES[0]: away, KEY_NAMES[1]: away}
    collected = site.collect()
    assert not collected.final
    assert collected.results[0].missing == 1
    assert set(collected.failures) == set(KEY_NAMES[:2])
    assert "no route" in collected.failures[KEY_NAMES[0]]
    assert site.final_size() == 0
    del site.instead[KEY_NAMES[1]]
    site.asked.clear()
    assert site.collect().final
    assert {name for name, _ in site.asked} == set(KEY_NAMES[:2])  # who has cosigned is not asked again
    assert site.final_size() == site.cluster.log.size


def test_a_conflict_is_answered_with_the_witnesss_size(site: Site) -> None:
    """The store does not know what the witnesses have cosigned, as after a takeover."""
    site.collect()
    with site.store.writing() as connection:
        connection.execute(sa.text("DELETE FROM cosignature"))
    site.sequencer.submit_many(leases(site.cluster, 2), site.cluster.now)
    site.asked.clear()
    assert site.collect().final
    size = site.cluster.log.size
    assert sorted(site.asked) == sorted((name, old) for name in KEY_NAMES for old in (0, size))


def test_a_witness_that_keeps_moving_is_given_up(site: Site) -> None:
    sizes = iter(range(2, 20))

    async def moving(_body: bytes) -> tuple[int, bytes]:
        return 409, f"{next(sizes)}\n".encode()

    site.instead = {KEY_NAMES[0]: moving}
    collected = site.collect()
    assert collected.final
    assert "keeps moving" in collected.failures[KEY_NAMES[0]]
    assert [name for name, _ in site.asked].count(KEY_NAMES[0]) == limits.COSIGN_ROUNDS


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (409, b"999\n", "larger head"),
        (409, b"x\n", "SL-CHECKPOINT"),
        (422, b"SL-QUORUM: too few\n", "SL-QUORUM"),
        (503, b"", "answered 503"),
        (200, b"", "SL-NOTE"),
        (200, b"garbage\n", "SL-NOTE"),
    ],
)
def test_useless_answers_are_reported(site: Site, status: int, body: bytes, reason: str) -> None:
    site.instead = {KEY_NAMES[0]: answer(status, body)}
    collected = site.collect()
    assert collected.final
    assert reason in collected.failures[KEY_NAMES[0]]
    assert len(site.store.cosignatures(collected.size)) == 3


def test_only_what_verifies_is_stored(site: Site) -> None:
    text = site.replay().checkpoint().text()
    now = site.cluster.now
    other = Replay(site.cluster.anchor)
    for leaf in site.cluster.leaves()[:5]:
        other.append(leaf)
    wrong = {
        "of another head": cosign(other.checkpoint().text(), KEY_NAMES[0], signer("witness-1"), now),
        "of another key": cosign(text, KEY_NAMES[0], signer("stranger"), now),
        "of another witness": cosign(text, KEY_NAMES[1], signer("witness-2"), now),
        "from the future": cosign(text, KEY_NAMES[0], signer("witness-1"), now + limits.MAX_CLOCK_SKEW_S + 1),
    }
    codes = {"of another head": "SL-COSIGNATURE", "from the future": "SL-FUTURE"}
    for name, line in wrong.items():
        site.instead = {KEY_NAMES[0]: answer(200, line.line().encode())}
        failures = site.collect().failures
        assert codes.get(name, "SL-COSIGNATURE") in failures[KEY_NAMES[0]], name
    assert {one.name for one in site.store.cosignatures(site.cluster.log.size)} == set(KEY_NAMES[1:])
    good = cosign(text, KEY_NAMES[0], signer("witness-1"), now)
    stray = cosign(text, "mirror.example", signer("stranger"), now)
    site.instead = {KEY_NAMES[0]: answer(200, (stray.line() + good.line()).encode())}
    assert site.collect().failures == {}  # lines of strangers in an answer are ignored
    assert len(site.store.cosignatures(site.cluster.log.size)) == 4


def test_slow_witnesses_do_not_delay_finality(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statelog.io.cosign.COSIGN_STRAGGLER_S", 0.01)
    cancelled: list[bool] = []

    async def slow(_body: bytes) -> tuple[int, bytes]:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)
        return 200, b""

    site.instead = {KEY_NAMES[0]: slow}
    assert site.collect().final
    assert cancelled == [True]


def test_finality_is_told_before_the_last_witness_has_answered(site: Site) -> None:
    final = asyncio.Event()

    async def last(body: bytes) -> tuple[int, bytes]:
        await final.wait()
        reply = site.hosts[KEY_NAMES[3]].ask(body)
        return reply.status, reply.body

    site.instead = {KEY_NAMES[3]: last}
    collected = site.collect(on_final=lambda _size: final.set())
    assert len(collected.results[0].signed) == 4


def test_a_final_head_is_refreshed_when_asked(site: Site) -> None:
    site.collect()
    site.asked.clear()
    again = site.collect()
    assert (again.final, site.asked) == (True, [])
    for host in site.hosts.values():
        host.cluster.now += 60
    refreshed = site.collect(refresh=True)
    assert refreshed.final
    assert set(refreshed.results[0].timestamps.values()) == {site.cluster.now}
    assert {one.timestamp for one in site.store.cosignatures(site.cluster.log.size)} == {site.cluster.now}


def test_a_refresh_waits_for_witnesses_that_take_their_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is final already, and that is no reason to leave before a quorum has answered anew."""
    monkeypatch.setattr("statelog.io.cosign.COSIGN_STRAGGLER_S", 0.01)
    assert site.collect().final
    site.cluster.now += 50

    async def slow(name: str, body: bytes) -> tuple[int, bytes]:
        await asyncio.sleep(30.0 if name == KEY_NAMES[3] else 0.1)  # far away; the last one for good
        reply = site.hosts[name].ask(body)
        return reply.status, reply.body

    site.instead = {name: functools.partial(slow, name) for name in KEY_NAMES}
    refreshed = site.collect(refresh=True).results[0].timestamps
    assert {name for name, at in refreshed.items() if at == site.cluster.now} == set(KEY_NAMES[:3])


def away_for_long(tmp_path: Path, seconds: int) -> tuple[Site, WitnessHost]:
    """A recovery's intent that three of four witnesses see in time; the fourth is asked `seconds` later."""
    site = Site(tmp_path, make_cluster(nodes=("home-1",)))
    assert site.collect().final
    intent = site.cluster.recovery_intent(site.cluster.descriptor())
    site.sequencer.submit(encode(intent), site.cluster.now)
    late = site.hosts[KEY_NAMES[3]]
    late.cluster = make_cluster(nodes=("home-1",))
    late.cluster.now += seconds
    return site, late


def test_a_witness_that_was_away_is_asked_again_when_the_head_is_final(tmp_path: Path) -> None:
    site, late = away_for_long(tmp_path, 2 * 86_400)
    collected = site.collect(clock=lambda: float(late.cluster.now))
    assert (collected.final, collected.failures) == (True, {})
    assert len(site.store.cosignatures(site.cluster.log.size + 1)) == 4
    assert [name for name, _ in site.asked].count(KEY_NAMES[3]) >= 2
    site.engine.dispose()


def test_a_witness_that_refuses_is_not_asked_for_ever(tmp_path: Path) -> None:
    site, _ = away_for_long(tmp_path, 0)
    site.asked.clear()
    site.instead = {KEY_NAMES[3]: answer(422, b"SL-QUORUM: no\n")}
    collected = site.collect()
    assert collected.final
    assert "SL-QUORUM" in collected.failures[KEY_NAMES[3]]
    assert [name for name, _ in site.asked].count(KEY_NAMES[3]) == 2
    site.engine.dispose()


def test_a_witness_that_was_away_while_all_others_left_is_led_there(
    young: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows none of those who cosign now; those it knew cosigned the head over the change."""
    monkeypatch.setattr("statelog.io.cosign.COSIGN_STRAGGLER_S", 0.5)
    young.instead = {KEY_NAMES[3]: away}
    young.sequencer.submit(encode(young.cluster.policy(lifetime_s=3_600)), young.cluster.now)
    assert young.collect().final
    young.change_witnesses(4, 5, 6, 7)
    assert young.collect().final
    young.sequencer.submit(encode(young.cluster.approval("home-1")), young.cluster.now)
    assert young.collect().final
    size = young.final_size()
    joined = {f"witness-{n}.example" for n in (5, 6, 7)}
    assert {one.name for one in young.store.cosignatures(size)} == joined
    late = young.hosts[KEY_NAMES[3]]
    late.cluster = make_cluster(members=False, nodes=())
    late.cluster.now += 2 * 86_400

    async def slow(body: bytes) -> tuple[int, bytes]:
        reply = late.ask(body)
        if reply.status == 200:
            await asyncio.sleep(0.6)  # reading what it missed takes longer than a straggler is waited for
        return reply.status, reply.body

    young.instead = {KEY_NAMES[3]: slow}
    collected = young.collect(clock=lambda: float(late.cluster.now))
    assert collected.failures == {}
    assert {one.name for one in young.store.cosignatures(size)} == {KEY_NAMES[3], *joined}


def test_a_request_carries_the_newest_line_of_each_witness(site: Site) -> None:
    """So a refreshed head of the largest sets still fits a note."""
    site.collect()
    note = site.store.checkpoint()
    assert note is not None
    current = CosignRound(note, (site.replay().state.witnesses,))
    later = cosign(current.note.text, KEY_NAMES[3], signer("witness-4"), site.cluster.now + 60)
    witness = current.sets[0].by_name[KEY_NAMES[3]]
    current.stored(StoredCosignature(witness.key_id, witness.name, site.cluster.now + 60, later.line()))
    sent = parse_add_checkpoint(current.request(current.checkpoint.size, {}.__getitem__)).note.signatures
    assert [line.name for line in sent[1:]] == list(KEY_NAMES)
    assert sent[-1] == later


def test_stored_cosignatures_make_a_head_final_after_a_crash(site: Site) -> None:
    """Killed after the cosignatures were stored and before the final mark was."""
    collected = site.collect()
    with site.store.writing() as connection:
        connection.execute(sa.text("UPDATE log_head SET final_size = 0"))
    site.asked.clear()
    assert site.collect().final
    assert (site.final_size(), site.asked) == (collected.size, [])


def test_a_change_of_witnesses_needs_both_quorums(young: Site) -> None:
    young.change_witnesses(1, 2, 3, 5)
    young.instead = {"witness-1.example": away}
    assert young.collect().final  # 2, 3, 4 of the old set, 2, 3, 5 of the new
    size = young.final_size()
    assert size == 3
    assert {one.name for one in young.store.cosignatures(size)} == {
        f"witness-{n}.example" for n in (2, 3, 4, 5)
    }
    young.sequencer.submit(encode(young.cluster.approval("home-1")), young.cluster.now)
    young.asked.clear()
    assert young.collect().final
    assert "witness-4.example" not in {name for name, _ in young.asked}  # it has left


def test_a_change_of_witnesses_is_not_final_with_one_quorum(young: Site) -> None:
    young.change_witnesses(1, 2, 3, 5)
    young.instead = {"witness-1.example": away, "witness-4.example": away}
    collected = young.collect()
    assert not collected.final
    assert [result.missing for result in collected.results] == [1, 1]
    assert young.final_size() == 2
    assert "SL-FINALITY" in collected.failures["witness-5.example"]


def test_who_joins_is_asked_again_when_those_before_it_have_cosigned(young: Site) -> None:
    """Over two changes that one head covers; who leaves and comes back with the second waits for nobody."""
    for numbers in ((3, 4, 5, 6), (1, 5, 6, 7)):
        young.change_witnesses(*numbers)
    young.instead = {"witness-4.example": away}
    collected = young.collect()
    assert collected.final
    assert set(collected.failures) == {"witness-4.example"}
    asked = Counter(name for name, _ in young.asked[4:])
    assert [asked[f"witness-{n}.example"] for n in range(1, 7)] == [1, 1, 1, 1, 2, 2]


def test_who_was_away_when_it_joined_is_led_over_that_change(young: Site) -> None:
    """The newest head carries nothing of those who were witnesses before it."""
    for numbers in ((2, 3, 4, 5), (3, 4, 5, 6)):
        young.change_witnesses(*numbers)
        young.instead = {"witness-6.example": away}
        assert young.collect().final
    policy = young.cluster.policy()
    young.sequencer.submit(encode(policy), young.cluster.now)
    young.cluster.append(policy)
    young.instead = {}
    collected = young.collect()
    assert (collected.final, collected.failures) == (True, {})
    assert young.hosts["witness-6.example"].stored is not None


def test_who_was_away_when_it_joined_is_led_there_also_while_nothing_is_final_without_it(
    young: Site,
) -> None:
    """All witnesses were exchanged; one of the new was away then, and another is now."""
    young.hosts["witness-8.example"] = WitnessHost(young.cluster, "witness-8", young.leaves)
    young.change_witnesses(5, 6, 7, 8)
    young.instead = {"witness-8.example": away}
    assert young.collect().final
    young.sequencer.submit(encode(young.cluster.policy()), young.cluster.now)
    young.instead = dict.fromkeys(("witness-7.example", *KEY_NAMES), away)
    collected = young.collect()
    assert (collected.final, set(collected.failures)) == (True, {"witness-7.example"})


def test_there_must_be_something_to_cosign(site: Site) -> None:
    behind = Replay(site.cluster.anchor)
    with pytest.raises(UsageError, match="behind"):
        asyncio.run(collect(site.store, behind, site.ask))
    with pytest.raises(UsageError, match="no checkpoint"):
        asyncio.run(collect(Store(site.engine, "routes-eu-1"), site.replay(), site.ask))
    assert site.asked == []


def test_another_replicas_final_mark_is_respected(site: Site) -> None:
    site.collect()
    other = Sequencer(site.store, site.cluster.anchor, signer("sequencer-1"))
    assert other.replay().size == site.final_size()
    note = site.store.checkpoint()
    assert note is not None
    assert len(parse_signed_checkpoint(note)[1].signatures) == 5
