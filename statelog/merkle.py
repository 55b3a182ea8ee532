"""The Merkle tree of RFC 6962 section 2.1: hashes, the right edge that grows, proofs, and their checks.

Only *complete* subtrees are ever stored: node (level, index) is the hash over the leaves
`index << level` up to `(index + 1) << level`, and it never changes once its last leaf is there. Everything
else, the root of any size and every proof, is computed from O(log n) of them. So a store holds immutable rows
only, and so do the tiles of C2SP tlog-tiles.

Hashes are 32 bytes. Sizes and indices are integers in 0 … 2^63 - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from statelog.limits import HASH_BYTES, MAX_TREE_SIZE

EMPTY_ROOT = sha256(b"").digest()

# read_node(level, index) answers the hash of a complete subtree; it raises its own error if the node is
# absent.
ReadNode = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data), the hash of one leaf (RFC 6962 section 2.1)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right), the hash of an inner node (RFC 6962 section 2.1)."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(slots=True)
class CompactRange:
    """The right edge of a tree: the roots of its complete subtrees, largest first.

    One hash per set bit of `size`, so a tree of 2^40 leaves is at most 40 hashes. Appending costs amortised
    one inner hash, at most log2(size).
    """

    size: int = 0
    hashes: list[bytes] = field(default_factory=list)
    _root: bytes | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_TREE_SIZE or len(self.hashes) != self.size.bit_count():
            raise ValueError(
                f"a tree of {self.size} leaves does not have {len(self.hashes)} complete subtrees"
            )
        if any(len(item) != HASH_BYTES for item in self.hashes):
            raise ValueError("a hash is not 32 bytes")

    @classmethod
    def from_nodes(cls, size: int, read_node: ReadNode) -> CompactRange:
        """The right edge of the tree of `size` leaves, from log2(size) stored nodes."""
        if not 0 <= size <= MAX_TREE_SIZE:
            raise ValueError(f"no tree has {size} leaves")
        return cls(size, [read_node(level, index) for level, index in complete_subtrees(0, size)])

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add one leaf hash. Answers the newly complete subtrees as (level, index, hash), the leaf itself
        first.
        """
        if len(leaf) != HASH_BYTES:
            raise ValueError("a leaf hash is 32 bytes")
        index = self.size
        done = [(0, index, leaf)]
        level, current = 0, leaf
        # Each set low bit of the old size is a complete subtree of the same height waiting for its right
        # sibling.
        hashes = self.hashes
        while index & 1:
            current = node_hash(hashes.pop(), current)
            level, index = level + 1, index >> 1
            done.append((level, index, current))
        hashes.append(current)
        self.size += 1
        self._root = None
        return done

    def root(self) -> bytes:
        """The tree's root; of the empty tree, SHA-256 of nothing."""
        if self._root is None:  # a commit asks for it several times
            self._root = _fold_right(self.hashes) if self.hashes else EMPTY_ROOT
        return self._root

    def copy(self) -> CompactRange:
        """An independent tree of the same leaves."""
        return CompactRange(self.size, list(self.hashes))


def root_of(leaf_hashes: Iterable[bytes]) -> bytes:
    """The root over the given leaf hashes, in order."""
    tree = CompactRange()
    for item in leaf_hashes:
        tree.append(item)
    return tree.root()


def complete_subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """The complete subtrees (level, index), left to right, whose fold is the hash of the leaves start … end -
    1.

    `start` must be a multiple of the smallest power of two that is at least `end - start`, which holds for
    every
    range that RFC 6962 hashes.
    """
    found: list[tuple[int, int]] = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return found


def _fold_right(hashes: Sequence[bytes]) -> bytes:
    current = hashes[-1]
    for left in reversed(hashes[:-1]):
        current = node_hash(left, current)
    return current


def _range_hash(start: int, end: int, read_node: ReadNode) -> bytes:
    """MTH(D[start:end]): one read when the range is a complete subtree, log2 of its length otherwise."""
    return _fold_right([read_node(level, index) for level, index in complete_subtrees(start, end)])


def _split(size: int) -> int:
    """The largest power of two smaller than `size` (k of RFC 6962 section 2.1), for size of at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The ranges of leaves [start, end) whose hashes are PATH(index, D[size]) of RFC 6962 section 2.1.1,
    the leaf's sibling first.

    Raises ValueError when the tree of `size` leaves has no leaf `index`.
    """
    if not 0 <= index < size <= MAX_TREE_SIZE:
        raise ValueError(f"no leaf {index} in a tree of {size} leaves")
    ranges: list[tuple[int, int]] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    ranges.reverse()
    return ranges


def consistency_ranges(old_size: int, new_size: int) -> list[tuple[int, int]]:
    """The ranges of leaves [start, end) whose hashes are PROOF(old_size, D[new_size]) of RFC 6962 section
    2.1.2.

    None when the sizes are equal or the old one is 0. Raises ValueError when old_size > new_size.
    """
    if not 0 <= old_size <= new_size <= MAX_TREE_SIZE:
        raise ValueError(f"a tree of {new_size} leaves does not extend one of {old_size}")
    if old_size in (0, new_size):
        return []
    ranges: list[tuple[int, int]] = []
    start, end = 0, new_size
    # Descend towards the right edge of the old tree. At the end [start, end) is a subtree that both trees
    # have.
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    # The verifier knows the old root already; it needs the common subtree only when that is not the whole old
    # tree.
    if start != 0:
        ranges.append((start, end))
    ranges.reverse()
    return ranges


def nodes_under(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The complete subtrees (level, index) that the hashes of `ranges` are made of: at most 2 · log2(size)
    for a proof, so that a store can read them all at once.
    """
    return [node for start, end in ranges for node in complete_subtrees(start, end)]


def inclusion_proof(index: int, size: int, read_node: ReadNode) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962 section 2.1.1, leaf's sibling first. Raises as `inclusion_ranges`."""
    return [_range_hash(start, end, read_node) for start, end in inclusion_ranges(index, size)]


def consistency_proof(old_size: int, new_size: int, read_node: ReadNode) -> list[bytes]:
    """PROOF(old_size, D[new_size]) of RFC 6962 section 2.1.2. Raises as `consistency_ranges`."""
    return [_range_hash(start, end, read_node) for start, end in consistency_ranges(old_size, new_size)]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """True when `proof` shows that leaf hash `leaf` is number `index` of the tree (size, root).

    The algorithm of RFC 9162 section 2.1.3.2; a proof with one hash too many or too few is wrong.
    """
    if not 0 <= index < size <= MAX_TREE_SIZE or not _hashes_only([leaf, root, *proof]):
        return False
    position, last, current = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            current = node_hash(sibling, current)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            current = node_hash(current, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and current == root


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """True when `proof` shows that the tree (new_size, new_root) extends the tree (old_size, old_root).

    The algorithm of RFC 9162 section 2.1.4.2. Equal sizes need equal roots and an empty proof; the empty tree
    is extended by every tree, with an empty proof, and has only one root.
    """
    if not 0 <= old_size <= new_size <= MAX_TREE_SIZE or not _hashes_only([old_root, new_root, *proof]):
        return False
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT and (new_size > 0 or new_root == EMPTY_ROOT)
    if old_size == new_size:
        return not proof and old_root == new_root
    # A power of two is a complete subtree of the new tree: its root is the old root and is left out of the
    # proof.
    path = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    if not path:
        return False
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_current = new_current = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old_current = node_hash(sibling, old_current)
            new_current = node_hash(sibling, new_current)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_current = node_hash(new_current, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and old_current == old_root and new_current == new_root


def _hashes_only(items: Iterable[bytes]) -> bool:
    return all(len(item) == HASH_BYTES for item in items)
