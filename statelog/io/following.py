"""The authority log of a source, followed as far as its witnesses made it final.

For whoever judges a partition's log and believes the source nothing: entries are replayed with their
signatures, each head over a change of the witnesses must have both sets' cosignatures, and what is read a
second time must be what was judged.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from statelog.errors import Refused, SourceUnreadable
from statelog.finality import finality, is_final, needed_sets
from statelog.io.entries import EntrySource, leaves_of
from statelog.limits import HASH_BYTES
from statelog.merkle import leaf_hash
from statelog.replay import Replay


class FollowedAuthority:
    """An authority log by its pinned `anchor` (`statelog.partition.AuthorityFeed`).

    Memory is that of a replay, and 32 bytes an entry. For one thread at a time.
    """

    def __init__(self, anchor: str, source: EntrySource) -> None:
        self._source = source
        self._final = Replay(anchor)
        self._hashes = bytearray()  # of the final leaves, one after the other

    @property
    def final(self) -> Replay:
        """The log as far as it is final. What it answers is not to be changed."""
        return self._final

    def final_size(self) -> int:
        """How many entries are final as far as was seen."""
        return self._final.size

    def leaves(self, start: int, end: int) -> Iterator[bytes]:
        """The leaves start … end - 1, read again. Raises SourceUnreadable when they are others by now."""
        for index, leaf in enumerate(leaves_of(self._source, start, end), start):
            if leaf_hash(leaf) != self._hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]:
                raise SourceUnreadable(f"the source has another entry {index} than before")
            yield leaf

    def catch_up(self, cosigned: tuple[int, bytes] | None = None) -> None:
        """Take over what is final by now: the new entries, each judged, and one verification a cosignature.

        Signatures below a head (size, root) that the caller has `cosigned` itself are not verified again.
        Raises SourceUnreadable, and changes nothing then.
        """
        heads = self._source.heads(self._final.size + 1)
        first = next(heads, None)
        if first is None:
            return
        replay, hashes, final_size = self._final.copy(), bytearray(self._hashes), self._final.size
        for size, data in itertools.chain([first], heads):
            trusted = cosigned if cosigned is not None and cosigned[0] <= size else None
            try:
                self._read_to(size, replay, hashes, trusted)
                _, note = replay.verify_head(data)
            except Refused as error:
                raise SourceUnreadable(
                    f"the source's authority log does not hold: {error.finding}"
                ) from error
            if is_final(finality(note, needed_sets(replay.state, final_size, size))):
                final_size = size
        if final_size != replay.size:
            raise SourceUnreadable(
                f"the source calls {replay.size} entries final, and its witnesses made {final_size} so"
            )
        self._final, self._hashes = replay, hashes

    def _read_to(
        self, size: int, replay: Replay, hashes: bytearray, trusted: tuple[int, bytes] | None
    ) -> None:
        known = 0 if trusted is None else trusted[0]
        for leaf in leaves_of(self._source, replay.size, size):
            entry = replay.append(leaf, verify_signatures=replay.size >= known)
            hashes += entry.leaf_hash
            if trusted is not None and replay.size == known and replay.root() != trusted[1]:
                raise SourceUnreadable("the source does not hold the entries that this witness has cosigned")
