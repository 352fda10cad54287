# SPDX-License-Identifier: GPL-3.0-or-later
"""The trees against the RFC's own recursion, pymerkle, published vectors and corrupted proofs."""

from __future__ import annotations

from functools import cache
from hashlib import sha256

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from protocol import merkle, tensor_tree
from protocol.errors import CommitmentError
from protocol.merkle import Tree

LIMIT = 5000
ENTRIES = [i.to_bytes(4, "big") for i in range(LIMIT)]
LEAVES = [merkle.leaf_hash(entry) for entry in ENTRIES]
sizes = st.integers(1, LIMIT)


@cache
def tree_hash(start: int, end: int) -> bytes:
    """Compute MTH(D[start:end]) of RFC 9162 section 2.1.1 as it is written there."""
    if end - start == 1:
        return sha256(b"\x00" + ENTRIES[start]).digest()
    k = 1 << (end - start - 1).bit_length() - 1
    return sha256(b"\x01" + tree_hash(start, start + k) + tree_hash(start + k, end)).digest()


@cache
def tree(size: int) -> Tree:
    return Tree(LEAVES[:size])


@cache
def oracle() -> InmemoryTree:
    return InmemoryTree.init_from_entries(ENTRIES, algorithm="sha256")


# The eight entries, roots and proofs that the certificate transparency projects test with.
CT_ENTRIES = [
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
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CT_INCLUSION_0_OF_8 = [
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
]
CT_CONSISTENCY_6_TO_8 = [
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
]


def test_certificate_transparency_vectors() -> None:
    leaves = [merkle.leaf_hash(entry) for entry in CT_ENTRIES]
    whole = Tree(leaves)
    for size, expected in enumerate(CT_ROOTS, start=1):
        assert merkle.root(leaves[:size]).hex() == expected
        assert whole.subtree_root(0, size).hex() == expected
    assert [item.hex() for item in whole.inclusion_proof(0)] == CT_INCLUSION_0_OF_8
    assert [item.hex() for item in whole.consistency_proof(6)] == CT_CONSISTENCY_6_TO_8


def test_every_root_and_inclusion_proof_up_to_70_leaves_equals_pymerkle() -> None:
    for size in range(1, 71):
        assert tree(size).root == oracle().get_root(size) == tree_hash(0, size)
        for index in range(size):
            proof = tree(size).inclusion_proof(index)
            assert proof == oracle().prove_inclusion(index + 1, size).path[1:]
            assert merkle.verify_inclusion(tree(size).root, size, index, LEAVES[index], proof)


def test_every_consistency_proof_up_to_50_leaves_verifies_and_is_the_rfcs() -> None:
    def subproof(m: int, start: int, end: int, complete: bool) -> list[bytes]:
        """SUBPROOF of RFC 9162 section 2.1.4.1, literally."""
        if m == end - start:
            return [] if complete else [tree_hash(start, end)]
        k = 1 << (end - start - 1).bit_length() - 1
        if m <= k:
            return [*subproof(m, start, start + k, complete), tree_hash(start + k, end)]
        return [*subproof(m - k, start + k, end, False), tree_hash(start, start + k)]

    for new in range(1, 51):
        for old in range(1, new + 1):
            proof = tree(new).consistency_proof(old)
            assert proof == subproof(old, 0, new, True)
            assert merkle.verify_consistency(tree(old).root, old, tree(new).root, new, proof)


@given(sizes, st.data())
def test_proofs_of_large_trees_equal_pymerkle(size: int, data: st.DataObject) -> None:
    whole = tree(LIMIT) if size == LIMIT else Tree(LEAVES[:size])
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    assert whole.root == oracle().get_root(size)
    inclusion = oracle().prove_inclusion(index + 1, size)
    assert whole.inclusion_proof(index) == inclusion.path[1:]
    inclusion.verify(whole.leaf(index), whole.root, index=index + 1, size=size)
    # pymerkle's consistency proofs have a form of their own (it descends to a single leaf where the
    # RFC stops at a complete subtree), so the two meet in the roots that they prove.
    old_root, new_root = oracle().get_root(old), oracle().get_root(size)
    oracle().prove_consistency(old, size).verify(old_root, new_root, old, size)
    proof = whole.consistency_proof(old)
    assert merkle.verify_consistency(old_root, old, new_root, size, proof)
    assert whole.subtree_root(0, old) == old_root


@given(st.integers(1, 300), st.data())
def test_corrupted_inclusion_proof_never_verifies(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    root, leaf, proof = tree(size).root, LEAVES[index], tree(size).inclusion_proof(index)

    def verify(**changed: object) -> bool:
        arguments = {"root": root, "size": size, "index": index, "leaf_hash": leaf, "proof": proof}
        return merkle.verify_inclusion(**(arguments | changed))  # type: ignore[arg-type]

    assert verify()
    flipped = data.draw(st.integers(0, 256 * (len(proof) + 2) - 1))
    parts = _flip([root, leaf, *proof], flipped)
    assert not verify(root=parts[0], leaf_hash=parts[1], proof=parts[2:])
    assert not verify(proof=[*proof, proof[-1] if proof else leaf])
    assert not verify(proof=[leaf, *proof])
    if proof:
        assert not verify(proof=proof[:-1])
        assert not verify(proof=proof[1:])
        assert not verify(proof=[*proof[:-1], proof[-1][:31]])
    other = data.draw(st.integers(-2, size + 2).filter(lambda value: value != index))
    assert not verify(index=other)
    assert not verify(size=index)
    assert not verify(leaf_hash=leaf + b"\x00")


def test_wrong_size_verifies_only_where_the_path_is_the_same() -> None:
    """RFC proofs do not authenticate the size: why it must never come from a party."""

    def sides(index: int, size: int) -> str:
        if size == 1:
            return ""
        k = 1 << (size - 1).bit_length() - 1
        return "L" + sides(index, k) if index < k else "R" + sides(index - k, size - k)

    for size in range(1, 20):
        for index in range(size):
            proof = tree(size).inclusion_proof(index)
            for claimed in range(40):
                for place in range(claimed):
                    accepted = merkle.verify_inclusion(
                        tree(size).root, claimed, place, LEAVES[index], proof
                    )
                    assert accepted == (sides(index, size) == sides(place, claimed))


@given(st.integers(2, 300), st.data())
def test_corrupted_consistency_proof_never_verifies(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new - 1))
    old_root, new_root, proof = tree(old).root, tree(new).root, tree(new).consistency_proof(old)
    check = merkle.verify_consistency
    assert check(old_root, old, new_root, new, proof)
    parts = _flip([old_root, new_root, *proof], data.draw(st.integers(0, 256 * len(proof) + 511)))
    assert not check(parts[0], old, parts[1], new, parts[2:])
    assert not check(old_root, old, new_root, new, proof[:-1])
    assert not check(old_root, old, new_root, new, proof[1:])
    assert not check(old_root, old, new_root, new, [*proof, proof[-1]])
    assert not check(old_root, old, new_root, new, [old_root, *proof])
    assert not check(old_root, 0, new_root, new, proof)
    assert not check(new_root, 0, new_root, new, [])
    assert not check(new_root, new, old_root, old, proof)
    forked = Tree([merkle.leaf_hash(b"fork"), *LEAVES[1:new]])
    assert not check(old_root, old, forked.root, new, forked.consistency_proof(old))
    assert not check(old_root, new, new_root, new, [])
    assert not check(new_root, new, new_root, new, proof)
    assert check(new_root, new, new_root, new, [])


def _flip(hashes: list[bytes], bit: int) -> list[bytes]:
    """Return the list with one bit of one hash inverted."""
    where, bit = divmod(bit, 256)
    changed = (int.from_bytes(hashes[where], "big") ^ (1 << bit)).to_bytes(32, "big")
    return [*hashes[:where], changed, *hashes[where + 1 :]]


def test_opening_combines_to_its_parent_for_every_size_up_to_4200() -> None:
    whole = tree(LIMIT)
    for size in range(2, 4201):
        block = 1
        while block * 16 < size:
            block *= 16
        assert merkle.block_size(size) == block
        count = merkle.child_count(size)
        assert count == -(-size // block)
        assert 2 <= count <= 16
        children = whole.open(0, size)
        assert children == [tree_hash(at, min(at + block, size)) for at in range(0, size, block)]
        assert merkle.combine(children) == tree_hash(0, size)
        assert sum(merkle.child_leaf_count(size, i) for i in range(count)) == size


@given(sizes, st.data())
def test_game_of_openings_ends_at_the_leaf_that_differs(size: int, data: st.DataObject) -> None:
    target = data.draw(st.integers(0, size - 1))
    honest = Tree(LEAVES[:size])
    lying = Tree([*LEAVES[:target], merkle.leaf_hash(b"lie"), *LEAVES[target + 1 : size]])
    start, count, cursor, moves = 0, size, lying.root, 0
    while count > 1:
        children = lying.open(start, count)
        assert merkle.combine(children) == cursor
        pairs = zip(children, honest.open(start, count), strict=True)
        index = next(i for i, (theirs, own) in enumerate(pairs) if theirs != own)
        path = Tree(children).inclusion_proof(index)
        assert len(path) <= 4
        assert merkle.verify_child(cursor, len(children), index, children[index], path)
        assert not merkle.verify_child(cursor, len(children), index ^ 1, children[index], path)
        cursor, moves = children[index], moves + 1
        start += index * merkle.block_size(count)
        count = merkle.child_leaf_count(count, index)
    assert (start, cursor) == (target, merkle.leaf_hash(b"lie"))
    assert moves <= 4  # 16^3 < 5,000 <= 16^4


@given(sizes, st.data())
def test_subtree_root_is_the_rfc_root_of_any_aligned_range(size: int, data: st.DataObject) -> None:
    whole = tree(LIMIT)
    step = 1 << (size - 1).bit_length()
    start = step * data.draw(st.integers(0, (LIMIT - size) // step))
    assert whole.subtree_root(start, size) == tree_hash(start, start + size)


@pytest.mark.parametrize(("start", "size"), [(1, 2), (2, 3), (-4, 2), (0, 0), (8, 3), (0, 11)])
def test_subtree_root_refuses_ranges_without_a_root(start: int, size: int) -> None:
    with pytest.raises(CommitmentError):
        tree(10).subtree_root(start, size)


def test_malformed_trees_and_openings_are_refused() -> None:
    for leaves in ([], [b"\x00" * 31], [LEAVES[0], b"\x00" * 33]):
        with pytest.raises(CommitmentError):
            Tree(leaves)
        with pytest.raises(CommitmentError):
            merkle.root(leaves)
    for count in (0, 17):
        with pytest.raises(CommitmentError, match=f"got {count}"):
            merkle.combine(LEAVES[:count])
    for size in (-1, 0, 1):
        with pytest.raises(CommitmentError):
            merkle.block_size(size)
    with pytest.raises(CommitmentError, match="nothing to open"):
        tree(4).open(2, 1)
    with pytest.raises(CommitmentError, match=r"16 is not in 0\.\.15"):
        merkle.child_leaf_count(16, 16)
    for index in (-1, 4):
        with pytest.raises(CommitmentError):
            tree(4).inclusion_proof(index)
        with pytest.raises(CommitmentError):
            tree(4).leaf(index)
    for old in (0, 5):
        with pytest.raises(CommitmentError):
            tree(4).consistency_proof(old)
    wide = Tree(LEAVES[:17])
    assert merkle.verify_inclusion(wide.root, 17, 3, LEAVES[3], wide.inclusion_proof(3))
    assert not merkle.verify_child(wide.root, 17, 3, LEAVES[3], wide.inclusion_proof(3))


@given(st.one_of(st.integers(1, 3000), st.sampled_from([1, 255, 256, 257, 512])), st.data())
def test_tensor_tree_hashes_1024_byte_chunks_and_a_short_last_one(
    numel: int, data: st.DataObject
) -> None:
    raw = np.random.default_rng(numel).bytes(4 * numel)
    pieces = [raw[at : at + 1024] for at in range(0, len(raw), 1024)]
    built = tensor_tree.tensor_tree(raw, numel)
    assert built.size == tensor_tree.chunk_count(numel) == len(pieces)
    assert built.root == merkle.root([merkle.leaf_hash(piece) for piece in pieces])
    index = data.draw(st.integers(0, len(pieces) - 1))
    assert tensor_tree.chunk(raw, index) == pieces[index]
    assert tensor_tree.chunk_length(numel, index) == len(pieces[index])
    if numel % 256:
        assert tensor_tree.chunk_length(numel, len(pieces) - 1) == 4 * (numel % 256)


def test_tensor_tree_is_the_same_for_every_kind_of_buffer() -> None:
    array = np.arange(1500, dtype=np.float32).reshape(3, 500)
    raw = array.tobytes()
    expected = tensor_tree.tensor_root(raw)
    tensor = torch.from_numpy(array.copy())
    assert sha256(b"\x00" + raw[:1024]).digest() == tensor_tree.tensor_tree(raw).leaf(0)
    for data in (
        bytearray(raw),
        memoryview(raw),
        array,
        array.view(np.int32),
        array.view(np.uint8),
        tensor,
        tensor.view(torch.int32),
        tensor.clone().requires_grad_(),
        torch.nn.Parameter(tensor),
    ):
        assert tensor_tree.tensor_root(data, 1500) == expected
        assert tensor_tree.chunk(data, 5) == raw[5120:]


def test_scalar_tensor_is_one_leaf() -> None:
    expected = merkle.leaf_hash(np.float32(2.5).tobytes())
    for data in (torch.tensor(2.5), np.array(2.5, np.float32), np.float32(2.5)):
        assert tensor_tree.tensor_tree(data, 1).size == 1
        assert tensor_tree.tensor_root(data, 1) == expected


def test_tensor_tree_reads_the_data_in_place() -> None:
    tensor = torch.zeros(300)
    tensor[299] = 1.0
    before = tensor_tree.tensor_root(tensor)
    tensor.view(torch.int32)[299] ^= 1
    assert tensor_tree.tensor_root(tensor) != before


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"12345",
        np.zeros(4, np.float64),
        np.zeros(8, np.float16),
        np.zeros(4, np.bool_),
        np.zeros(4, ">f4"),
        np.zeros(0, np.float32),
        np.zeros((4, 4), np.float32).T[1:],
        torch.zeros(4, 4).t(),
        torch.zeros(4, dtype=torch.bfloat16),
        torch.zeros(4, device="meta"),
        np.zeros(4, "datetime64[s]"),
        "text",
        None,
    ],
    ids=str,
)
def test_unsuitable_buffers_are_refused(data: object) -> None:
    with pytest.raises(CommitmentError):
        tensor_tree.tensor_tree(data)  # type: ignore[arg-type]


def test_wrong_lengths_are_refused_with_both_sizes() -> None:
    with pytest.raises(CommitmentError, match="3 elements have 12 bytes, got 16"):
        tensor_tree.tensor_tree(bytes(16), 3)
    with pytest.raises(CommitmentError, match="at least one element, got 0"):
        tensor_tree.tensor_tree(b"", 0)
    with pytest.raises(CommitmentError):
        tensor_tree.chunk_count(0)
    for index in (-1, 2):
        with pytest.raises(CommitmentError, match=r"not in 0\.\.1 \(300 elements\)"):
            tensor_tree.chunk_length(300, index)
        with pytest.raises(CommitmentError):
            tensor_tree.chunk(bytes(1200), index)
