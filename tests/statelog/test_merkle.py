"""The tree against RFC 6962's own definition, written again here as recursively as the RFC states it."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statelog import merkle
from statelog.merkle import CompactRange, leaf_hash, node_hash

MAX_SIZE = 260
LEAVES = [leaf_hash(b"%d" % n) for n in range(MAX_SIZE)]

# The eight leaves of the reference tree of RFC 6962 implementations (transparency-dev/merkle, testonly).
REFERENCE_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
REFERENCE_ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def mth(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = largest_power_below(len(leaves))
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = largest_power_below(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962 section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = largest_power_below(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def largest_power_below(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


class Nodes:
    """The complete subtrees that a CompactRange completed, and how often they were read."""

    def __init__(self, size: int) -> None:
        self.tree = CompactRange()
        self.stored: dict[tuple[int, int], bytes] = {}
        self.reads = 0
        for leaf in LEAVES[:size]:
            for level, index, hash_ in self.tree.append(leaf):
                assert (level, index) not in self.stored
                self.stored[level, index] = hash_

    def read(self, level: int, index: int) -> bytes:
        self.reads += 1
        return self.stored[level, index]


FULL = Nodes(MAX_SIZE)
ROOTS = [mth(LEAVES[:size]) for size in range(MAX_SIZE + 1)]

sizes = st.integers(1, MAX_SIZE)


def test_known_answers() -> None:
    assert merkle.EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf_hash(b"").hex() == REFERENCE_ROOTS[1]
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    expected = "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"
    assert node_hash(b"N123", b"N456").hex() == expected
    assert merkle.root_of(leaf_hash(leaf) for leaf in REFERENCE_LEAVES).hex() == REFERENCE_ROOTS[8]


def test_the_empty_tree_has_the_root_of_nothing() -> None:
    assert CompactRange().root() == merkle.EMPTY_ROOT == merkle.root_of([])


def test_every_root_and_every_completed_subtree_is_the_definition() -> None:
    tree = CompactRange()
    for size, leaf in enumerate(LEAVES, 1):
        for level, index, hash_ in tree.append(leaf):
            assert hash_ == mth(LEAVES[index << level : (index + 1) << level])
        assert tree.size == size
        assert tree.root() == ROOTS[size]


def test_appending_costs_one_inner_hash_on_average() -> None:
    inner = sum(1 for level, _ in FULL.stored if level > 0)
    assert inner < MAX_SIZE
    assert all(len(CompactRange.from_nodes(n, FULL.read).hashes) == n.bit_count() for n in range(MAX_SIZE))


@given(sizes)
def test_the_right_edge_is_read_back_from_stored_nodes(size: int) -> None:
    again = CompactRange.from_nodes(size, FULL.read)
    assert again.root() == ROOTS[size]
    if size < MAX_SIZE:
        again.append(LEAVES[size])
        assert again.root() == ROOTS[size + 1]


def test_a_copy_grows_alone() -> None:
    tree = CompactRange()
    tree.append(LEAVES[0])
    other = tree.copy()
    other.append(LEAVES[1])
    assert (tree.size, tree.root()) == (1, ROOTS[1])
    assert (other.size, other.root()) == (2, ROOTS[2])


@given(sizes, st.data())
def test_inclusion_proofs_are_the_definition_and_verify(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    nodes = Nodes(size)  # only what a store of that size has
    proof = merkle.inclusion_proof(index, size, nodes.read)
    assert proof == path(index, LEAVES[:size])
    assert merkle.verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])
    assert nodes.reads <= 2 * size.bit_length()


@given(sizes, st.data())
def test_consistency_proofs_are_the_definition_and_verify(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new))
    nodes = Nodes(new)
    proof = merkle.consistency_proof(old, new, nodes.read)
    assert proof == subproof(old, LEAVES[:new], True)
    assert merkle.verify_consistency(old, ROOTS[old], new, ROOTS[new], proof)
    assert nodes.reads <= 2 * new.bit_length()


@given(sizes, st.data())
def test_a_proof_reads_the_nodes_that_it_says(size: int, data: st.DataObject) -> None:
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    for ranges, prove in (
        (merkle.inclusion_ranges(index, size), lambda read: merkle.inclusion_proof(index, size, read)),
        (merkle.consistency_ranges(old, size), lambda read: merkle.consistency_proof(old, size, read)),
    ):
        asked: list[tuple[int, int]] = []
        proof = prove(lambda level, at: asked.append((level, at)) or FULL.read(level, at))  # noqa: B023 - used here
        assert merkle.nodes_under(ranges) == asked
        assert len(proof) == len(ranges)


def test_every_pair_of_small_sizes() -> None:
    for new in range(1, 34):
        for old in range(1, new + 1):
            proof = merkle.consistency_proof(old, new, FULL.read)
            assert merkle.verify_consistency(old, ROOTS[old], new, ROOTS[new], proof), (old, new)
        for index in range(new):
            proof = merkle.inclusion_proof(index, new, FULL.read)
            assert merkle.verify_inclusion(LEAVES[index], index, new, proof, ROOTS[new]), (index, new)


def damaged(proof: list[bytes], data: st.DataObject) -> list[bytes]:
    """Another proof: a hash changed, dropped, doubled, added or two swapped."""
    extra = data.draw(st.sampled_from([LEAVES[0], merkle.EMPTY_ROOT, b"\x00" * 32]))
    choices = [[*proof, extra], [extra, *proof]]
    for at in range(len(proof)):
        flipped = bytes([proof[at][0] ^ 1]) + proof[at][1:]
        choices += [
            [*proof[:at], flipped, *proof[at + 1 :]],
            [*proof[:at], *proof[at + 1 :]],
            [*proof[:at], proof[at], *proof[at:]],
            [*proof[:at], proof[at][:31], *proof[at + 1 :]],
        ]
    if len(proof) > 1:
        choices.append([proof[1], proof[0], *proof[2:]])
    return data.draw(st.sampled_from(choices))


@settings(max_examples=300)
@given(sizes, st.data())
def test_damaged_inclusion_proofs_are_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(index, size, FULL.read)
    wrong = damaged(proof, data)
    assert merkle.verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])
    assert not merkle.verify_inclusion(LEAVES[index], index, size, wrong, ROOTS[size])


@given(sizes, st.data())
def test_an_inclusion_proof_proves_one_leaf_at_one_place(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, MAX_SIZE - 1).filter(lambda n: n != index))
    proof = merkle.inclusion_proof(index, size, FULL.read)
    assert not merkle.verify_inclusion(LEAVES[other], index, size, proof, ROOTS[size])
    assert not merkle.verify_inclusion(LEAVES[index], other, size, proof, ROOTS[size])
    if size < MAX_SIZE:
        assert not merkle.verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size + 1])
    assert not merkle.verify_inclusion(LEAVES[index], index, index, proof, ROOTS[size])
    assert not merkle.verify_inclusion(LEAVES[index], -1, size, proof, ROOTS[size])


@settings(max_examples=300)
@given(sizes, st.data())
def test_damaged_consistency_proofs_are_refused(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new))
    proof = merkle.consistency_proof(old, new, FULL.read)
    wrong = damaged(proof, data)
    assert not merkle.verify_consistency(old, ROOTS[old], new, ROOTS[new], wrong)


@given(sizes, st.data())
def test_a_consistency_proof_proves_one_pair_of_trees(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new))
    proof = merkle.consistency_proof(old, new, FULL.read)
    other = data.draw(st.integers(0, MAX_SIZE).filter(lambda n: n not in (old, new)))
    assert not merkle.verify_consistency(old, ROOTS[other], new, ROOTS[new], proof)
    assert not merkle.verify_consistency(old, ROOTS[old], new, ROOTS[other], proof)
    if old != new:
        assert not merkle.verify_consistency(new, ROOTS[new], old, ROOTS[old], proof)


def test_the_empty_tree_is_extended_by_all_and_only_with_an_empty_proof() -> None:
    empty = merkle.EMPTY_ROOT
    assert merkle.consistency_proof(0, 5, FULL.read) == []
    assert merkle.verify_consistency(0, empty, 5, ROOTS[5], [])
    assert merkle.verify_consistency(0, empty, 0, empty, [])
    assert not merkle.verify_consistency(0, empty, 5, ROOTS[5], [ROOTS[5]])
    assert not merkle.verify_consistency(0, ROOTS[1], 5, ROOTS[5], [])
    assert not merkle.verify_consistency(0, empty, 0, ROOTS[1], [])


def test_equal_sizes_need_equal_roots_and_no_proof() -> None:
    assert merkle.verify_consistency(5, ROOTS[5], 5, ROOTS[5], [])
    assert not merkle.verify_consistency(5, ROOTS[5], 5, ROOTS[4], [])
    assert not merkle.verify_consistency(5, ROOTS[5], 5, ROOTS[5], [ROOTS[5]])


def test_what_is_not_a_hash_proves_nothing() -> None:
    for value in (b"", b"x" * 31, b"x" * 33):
        assert not merkle.verify_inclusion(value, 0, 1, [], value)
        assert not merkle.verify_consistency(1, value, 1, value, [])
    assert merkle.verify_inclusion(LEAVES[0], 0, 1, [], LEAVES[0])


def test_an_empty_proof_is_enough_only_where_the_definition_says_so() -> None:
    assert not merkle.verify_consistency(3, ROOTS[3], 5, ROOTS[5], [])
    assert not merkle.verify_consistency(4, ROOTS[4], 5, ROOTS[5], [])
    assert not merkle.verify_consistency(5, ROOTS[5], 4, ROOTS[4], [])
    assert not merkle.verify_inclusion(LEAVES[0], 0, 2, [], ROOTS[2])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5), (0, 2**63)])
def test_there_is_no_proof_for_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion_proof(index, size, FULL.read)


@pytest.mark.parametrize(("old", "new"), [(6, 5), (-1, 5), (1, 2**63)])
def test_there_is_no_proof_backwards(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="does not extend"):
        merkle.consistency_proof(old, new, FULL.read)


def test_a_right_edge_must_fit_its_size() -> None:
    with pytest.raises(ValueError, match="complete subtrees"):
        CompactRange(3, [LEAVES[0]])
    with pytest.raises(ValueError, match="32 bytes"):
        CompactRange(1, [b"short"])
    with pytest.raises(ValueError, match="32 bytes"):
        CompactRange().append(b"short")
    with pytest.raises(ValueError, match="no tree"):
        CompactRange.from_nodes(-1, FULL.read)
