"""A replica that lies: every behaviour by its name, chosen anew for every answer.

It holds a good copy of the log, one node's key, the key of one witness (f = 1), and, for the two behaviours
that say so, the sequencer's own. What it sends is made from the good answer.
"""

from __future__ import annotations

from collections.abc import Callable

from fabric.sync import Entries, Head
from statelog.canonical import encode
from statelog.checkpoint import Checkpoint, cosign, parse_signed_checkpoint, sign_checkpoint
from statelog.finality import final_cosignatures
from statelog.leaf import frame_leaf, split_leaf
from statelog.merkle import CompactRange, leaf_hash
from statelog.note import Note
from tests.support.authority import make_cluster, signer
from tests.support.cluster_actors import REPLICAS, WITNESSES, BrokenError, ReplicaActor
from tests.support.logs import cosigned

Messages = list[Entries | Head]
Behaviour = Callable[["LyingReplica", list[bytes], bytes, int], Messages | None]
BEHAVIOURS: dict[str, Behaviour] = {}
OTHER = make_cluster(cluster_id="other.abcdefghijklmnopqrstuvwxyz")


def behaviour(function: Behaviour) -> Behaviour:
    """Registers a behaviour under its function's name; one that answers None cannot be shown here."""
    BEHAVIOURS[function.__name__] = function
    return function


class LyingReplica(ReplicaActor):
    """Follows honestly, serves dishonestly; what was shown least goes first, so a short run sees it all."""

    def start(self) -> None:
        super().start()
        self.order = sorted(BEHAVIOURS)
        self.world.chance.shuffle(self.order)
        self.order.sort(key=tells_of_another_log.__name__.__ne__)  # only a newcomer can be told that

    def on_pull(self, source: str, stream: int, start: int) -> None:
        head = self.disk["head"]
        if head is None:
            return
        leaves = self.disk["leaves"]

        for name in sorted(self.order, key=lambda name: self.world.fired[f"lie {name}"]):
            messages = BEHAVIOURS[name](self, leaves, head, start)
            if messages is not None:
                self._check_harmless(messages)
                self.send(source, "pulled", stream, messages)
                self.world.fired[f"lie {name}"] += 1
                return

    def _take(self, messages: Messages) -> None:
        before = self.final.size
        super()._take(messages)
        if self.final.size > before:
            for name in REPLICAS:  # be the first to tell
                self.send(name, "news")

    def on_compare(self, source: str, note: bytes) -> None:
        del note
        head = self.disk["head"]
        if head is not None:
            self.send(source, "compared", self.fork_head(len(self.disk["leaves"])))
            self.world.fired["lie another head"] += 1

    def fork_head(self, size: int, extra: bytes = b"a fork") -> bytes:
        """A head of `size` over another history, signed with the sequencer's stolen key."""
        tree = CompactRange()
        for leaf in self.disk["leaves"][: size - 1]:
            tree.append(leaf_hash(leaf))
        tree.append(leaf_hash(extra))
        return sign_checkpoint(Checkpoint(self.world.origin, size, tree.root()), signer("sequencer-1"))

    def _check_harmless(self, messages: Messages) -> None:
        """The world's own premise: with one witness's key nobody makes another head final."""
        for message in messages:
            if isinstance(message, Head) and message.note.startswith(self.world.origin.encode()):
                checkpoint, note = parse_signed_checkpoint(message.note)
                met = final_cosignatures(note, self.world.cluster.state.witnesses).met
                if met and checkpoint.root != self.world.root_at(checkpoint.size):
                    raise BrokenError(f"two final heads of {checkpoint.size}")


def _news(leaves: list[bytes], start: int) -> list[bytes] | None:
    """What the follower lacks, None when that is nothing."""
    return leaves[start:] or None


def _with_lines(head: bytes, keep: int) -> bytes:
    """The head with its log signature and `keep` of the cosignatures."""
    _, note = parse_signed_checkpoint(head)
    return Note(note.text, note.signatures[: 1 + keep]).format()


@behaviour
def withholds_everything(liar: LyingReplica, leaves: list[bytes], head: bytes, start: int) -> Messages:
    return []


@behaviour
def shows_an_old_head(liar: LyingReplica, leaves: list[bytes], head: bytes, start: int) -> Messages | None:
    liar.__dict__.setdefault("old", head)
    return [Head(liar.__dict__["old"])] if start else None


@behaviour
def leaves_an_entry_out(liar: LyingReplica, leaves: list[bytes], head: bytes, start: int) -> Messages | None:
    new = _news(leaves, start)
    return None if new is None or len(new) < 2 else [Entries(start, [*new[:-2], new[-1]]), Head(head)]


@behaviour
def leaves_a_gap(liar: LyingReplica, leaves: list[bytes], head: bytes, start: int) -> Messages | None:
    new = _news(leaves, start)
    return None if new is None else [Entries(start + 1, new), Head(head)]


@behaviour
def swaps_entries(liar: LyingReplica, leaves: list[bytes], head: bytes, start: int) -> Messages | None:
    new = _news(leaves, start)
    return (
        None if new is None or len(new) < 2 else [Entries(start, [*new[:-2], new[-1], new[-2]]), Head(head)]
    )


@behaviour
def changes_a_byte(liar: LyingReplica, leaves: list[bytes], head: bytes, start: int) -> Messages | None:
    new = _news(leaves, start)
    if new is None:
        return None
    at = liar.world.chance.randrange(len(new[0]))
    changed = bytearray(new[0])
    changed[at] ^= 1 << liar.world.chance.randrange(7)
    return [Entries(start, [bytes(changed), *new[1:]]), Head(head)]


@behaviour
def moves_a_time(liar: LyingReplica, leaves: list[bytes], head: bytes, start: int) -> Messages | None:
    """A well-formed leaf, rightly signed record, another time of sequencing."""
    new = _news(leaves, start)
    if new is None or not start:
        return None
    parts = split_leaf(new[0])
    return [
        Entries(start, [frame_leaf(parts.record, parts.sequenced_at + 1, parts.term), *new[1:]]),
        Head(head),
    ]


@behaviour
def adds_a_record_of_too_few_signers(
    liar: LyingReplica, leaves: list[bytes], head: bytes, start: int
) -> Messages | None:
    if start != len(leaves):
        return None
    now = int(liar.world.now)
    forged = liar.world.cluster.lease("route-stolen", epoch=1, issued_at=now, by=["route-1"])
    leaf = frame_leaf(encode(forged), now, 1)
    return [Entries(start, [leaf]), Head(liar.fork_head(start + 1, leaf))]


@behaviour
def repeats_an_entry(liar: LyingReplica, leaves: list[bytes], head: bytes, start: int) -> Messages | None:
    return None if start != len(leaves) else [Entries(start, [leaves[-1]]), Head(head)]


@behaviour
def shows_a_head_without_cosignatures(
    liar: LyingReplica, leaves: list[bytes], head: bytes, start: int
) -> Messages | None:
    new = _news(leaves, start)
    return None if new is None else [Entries(start, new), Head(_with_lines(head, 0))]


@behaviour
def shows_a_head_with_one_cosignature_too_few(
    liar: LyingReplica, leaves: list[bytes], head: bytes, start: int
) -> Messages | None:
    new = _news(leaves, start)
    return None if new is None else [Entries(start, new), Head(_with_lines(head, 2))]


@behaviour
def repeats_one_witness(liar: LyingReplica, leaves: list[bytes], head: bytes, start: int) -> Messages | None:
    """Its own witness, three times, with three times."""
    new = _news(leaves, start)
    if new is None:
        return None
    _, note = parse_signed_checkpoint(_with_lines(head, 1))
    now = int(liar.world.now)
    lines = [cosign(note.text, "witness-4.example", signer("witness-4"), now - n) for n in range(3)]
    return [Entries(start, new), Head(Note(note.text, (note.signatures[0], *lines)).format())]


@behaviour
def forges_cosignatures(liar: LyingReplica, leaves: list[bytes], head: bytes, start: int) -> Messages | None:
    """The names of all witnesses, its own key."""
    new = _news(leaves, start)
    if new is None:
        return None
    _, note = parse_signed_checkpoint(_with_lines(head, 0))
    lines = [
        cosign(note.text, f"{name}.example", signer("witness-4"), int(liar.world.now)) for name in WITNESSES
    ]
    return [Entries(start, new), Head(Note(note.text, (note.signatures[0], *lines)).format())]


@behaviour
def signs_the_head_itself(
    liar: LyingReplica, leaves: list[bytes], head: bytes, start: int
) -> Messages | None:
    new = _news(leaves, start)
    if new is None:
        return None
    checkpoint, note = parse_signed_checkpoint(head)
    own = parse_signed_checkpoint(sign_checkpoint(checkpoint, signer("stranger-1")))[1]
    return [Entries(start, new), Head(Note(note.text, (*own.signatures, *note.signatures[1:])).format())]


@behaviour
def forks_with_the_stolen_sequencer_key(
    liar: LyingReplica, leaves: list[bytes], head: bytes, start: int
) -> Messages | None:
    """A valid entry that the log does not have, a rightly signed head, and the cosignature of f witnesses."""
    if start != len(leaves):
        return None
    now = int(liar.world.now)
    record = liar.world.cluster.lease("route-fork", epoch=1, issued_at=now)
    leaf = frame_leaf(encode(record), now, 1)
    return [Entries(start, [leaf]), Head(cosigned(liar.fork_head(start + 1, leaf), ["witness-4"], now))]


@behaviour
def shows_a_fork_of_what_is_final(
    liar: LyingReplica, leaves: list[bytes], head: bytes, start: int
) -> Messages | None:
    return [Head(liar.fork_head(start))] if 2 < start <= len(leaves) else None


@behaviour
def tells_of_another_log(liar: LyingReplica, leaves: list[bytes], head: bytes, start: int) -> Messages | None:
    return None if start else [Entries(0, OTHER.leaves()), Head(head)]


@behaviour
def shows_a_head_beyond_the_entries(
    liar: LyingReplica, leaves: list[bytes], head: bytes, start: int
) -> Messages | None:
    new = _news(leaves, start)
    return None if new is None or len(new) < 2 else [Entries(start, new[:-1]), Head(head)]


@behaviour
def talks_nonsense(liar: LyingReplica, leaves: list[bytes], head: bytes, start: int) -> Messages:
    data = liar.world.chance.randbytes(200)
    return [Head(data)] if liar.world.chance.random() < 0.5 else [Entries(start, [data])]


@behaviour
def floods_with_known_entries(
    liar: LyingReplica, leaves: list[bytes], head: bytes, start: int
) -> Messages | None:
    return [Entries(0, leaves[:start])] * 20 if start else None
