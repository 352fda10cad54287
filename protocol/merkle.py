# SPDX-License-Identifier: GPL-3.0-or-later
"""The one Merkle tree of the protocol: RFC 9162 section 2.1 with SHA-256.

`leaf(d) = H(0x00 || d)`, `node(l, r) = H(0x01 || l || r)`, and a tree of n leaves splits at the
largest power of two below n. Pairing hashes level by level and carrying an odd last one up
unchanged builds the same tree, so the node at (level h, position i) is the root of the leaves
`i*2^h .. min(n, (i+1)*2^h) - 1`: every aligned block of leaves already has its root stored.

An **opening** is the only move of the dispute game. A subtree of n > 1 leaves is opened into
`ceil(n/b)` blocks of `b` leaves (the last may be shorter), b being the largest power of 16 below n.
Since b is a power of two, n splits at a multiple of b and all the way down to the blocks, so the
children combine, as if they were leaf hashes, to the parent.

A proof authenticates a *path* in a tree of the *given* size: two sizes may put a leaf on the same
path (leaf 0 of 5 and of 8 leaves). Sizes therefore come from the task or are stored with the root,
never from the party that brings the proof.

All hashes are `bytes` of length 32; `contracts/lib/Merkle.sol` mirrors this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from protocol.errors import CommitmentError
from protocol.hashing.portable import (
    HASH_BYTES,
    LEAF_HASHER,
    NODE_HASHER,
    levels_above,
)

__all__ = [
    "ARITY",
    "HASH_BYTES",
    "Tree",
    "block_size",
    "child_count",
    "child_leaf_count",
    "combine",
    "leaf_hash",
    "node_hash",
    "root",
    "verify_child",
    "verify_consistency",
    "verify_inclusion",
]

ARITY: Final = 16
"""An opening shows at most this many children. A power of two."""

_ARITY_BITS: Final = ARITY.bit_length() - 1


def leaf_hash(data: bytes | bytearray | memoryview) -> bytes:
    """Return the hash of the leaf that holds `data` (any length, also none)."""
    hasher = LEAF_HASHER.copy()
    hasher.update(data)
    return hasher.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the inner node over two 32-byte hashes (lengths are the caller's care)."""
    hasher = NODE_HASHER.copy()
    hasher.update(left + right)
    return hasher.digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root over n >= 1 leaf hashes; one hash is its own root.

    Raises CommitmentError for an empty sequence or a hash that has not 32 bytes.
    """
    return levels_above(_packed(leaf_hashes))[-1]


def _packed(hashes: Iterable[bytes]) -> bytes:
    hashes = list(hashes)
    if not hashes:
        raise CommitmentError("a tree has at least one leaf, got none")
    for index, item in enumerate(hashes):
        if len(item) != HASH_BYTES:
            raise CommitmentError(f"hash {index} has {len(item)} bytes, not {HASH_BYTES}")
    return b"".join(hashes)


class Tree:
    """All levels of one tree: about 64 bytes a leaf, packed, immutable."""

    def __init__(self, leaf_hashes: Iterable[bytes]) -> None:
        """Build the tree over n >= 1 leaf hashes of 32 bytes; CommitmentError otherwise."""
        self._levels = levels_above(_packed(leaf_hashes))

    @classmethod
    def from_levels(cls, levels: list[bytes]) -> Tree:
        """Return the tree with these levels, packed hashes, as `protocol.hashing` makes them."""
        tree = cls.__new__(cls)
        tree._levels = levels
        return tree

    @property
    def size(self) -> int:
        """The number of leaves."""
        return len(self._levels[0]) // HASH_BYTES

    @property
    def root(self) -> bytes:
        """The root over all leaves."""
        return self._levels[-1]

    def leaf(self, index: int) -> bytes:
        """Return the hash of leaf `index`."""
        _check_index(index, self.size)
        return self._node(0, index)

    def _node(self, level: int, position: int) -> bytes:
        return self._levels[level][position * HASH_BYTES : (position + 1) * HASH_BYTES]

    def _width(self, level: int) -> int:
        return len(self._levels[level]) // HASH_BYTES

    def inclusion_proof(self, index: int) -> list[bytes]:
        """Return PATH(index, D_n) of RFC 9162 section 2.1.3.1: the siblings from the leaf up."""
        _check_index(index, self.size)
        proof = []
        for level in range(len(self._levels) - 1):
            if index ^ 1 < self._width(level):
                proof.append(self._node(level, index ^ 1))
            index >>= 1
        return proof

    def consistency_proof(self, old_size: int) -> list[bytes]:
        """Return PROOF(old_size, D_n) of RFC 9162 section 2.1.4.1, empty for old_size = n.

        It shows that the first `old_size` leaves are still those of the older tree.
        Raises CommitmentError unless 0 < old_size <= n.
        """
        if not 0 < old_size <= self.size:
            raise CommitmentError(f"old size {old_size} is not in 1..{self.size}")
        if old_size == self.size:
            return []
        # Start at the largest complete subtree that ends the older tree.
        position, level = old_size - 1, 0
        while position & 1:
            position, level = position >> 1, level + 1
        proof = [self._node(level, position)] if position else []
        for height in range(level, len(self._levels) - 1):
            if position ^ 1 < self._width(height):
                proof.append(self._node(height, position ^ 1))
            position >>= 1
        return proof

    def subtree_root(self, start: int, size: int) -> bytes:
        """Return the root over the leaves `start .. start+size-1`.

        `start` must be a multiple of the smallest power of two >= size (the root of any prefix, as
        an older state of an append-only log, is thus included). Raises CommitmentError if the
        range is empty, not aligned, or leaves the tree.
        """
        if size < 1 or start < 0 or start + size > self.size:
            raise CommitmentError(
                f"leaves {start}..{start + size - 1} are not in 0..{self.size - 1}"
            )
        if start & ((1 << (size - 1).bit_length()) - 1):
            raise CommitmentError(f"a subtree of {size} leaves cannot start at leaf {start}")
        # RFC 9162 splits off complete subtrees of falling heights; they join from the right.
        result = b""
        while size:
            level = (size & -size).bit_length() - 1
            complete = self._node(level, (start + size - 1) >> level)
            result = node_hash(complete, result) if result else complete
            size &= size - 1
        return result

    def open(self, start: int, count: int) -> list[bytes]:
        """Return the children (2 to 16 hashes) of the subtree of `count` leaves at leaf `start`.

        The range is as in `subtree_root`. Raises CommitmentError for count = 1: a leaf is not
        opened but revealed.
        """
        block = block_size(count)
        return [
            self.subtree_root(start + child * block, child_leaf_count(count, child))
            for child in range(child_count(count))
        ]


def verify_inclusion(
    root: bytes, size: int, index: int, leaf_hash: bytes, proof: Sequence[bytes]
) -> bool:
    """Verify `proof` by RFC 9162 section 2.1.3.2; its length must be exactly that of the path.

    False for anything else, malformed hashes and index >= size included.
    """
    if not (0 <= index < size and _are_hashes(root, leaf_hash, *proof)):
        return False
    position, last, result = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            result = node_hash(sibling, result)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and result == root


def verify_consistency(
    old_root: bytes, old_size: int, new_root: bytes, new_size: int, proof: Sequence[bytes]
) -> bool:
    """Verify by RFC 9162 section 2.1.4.2 that the new tree only appends leaves to the old one.

    Equal sizes need equal roots and an empty proof. False for anything else that does not fit,
    sizes outside 0 < old_size <= new_size included.
    """
    if not (0 < old_size <= new_size and _are_hashes(old_root, new_root, *proof)):
        return False
    if old_size == new_size:
        return not proof and old_root == new_root
    path = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    if not path:
        return False
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root


def block_size(leaves: int) -> int:
    """Return b, the largest power of 16 below `leaves`: the leaves of each child but the last.

    Raises CommitmentError for fewer than two leaves.
    """
    if leaves < 2:
        raise CommitmentError(f"a subtree of {leaves} leaves has nothing to open")
    exponent = ((leaves - 1).bit_length() - 1) // _ARITY_BITS
    return 1 << (exponent * _ARITY_BITS)


def child_count(leaves: int) -> int:
    """Return the number of children (2 to 16) that a subtree of `leaves` >= 2 leaves opens into."""
    return (leaves - 1) // block_size(leaves) + 1


def child_leaf_count(leaves: int, index: int) -> int:
    """Return how many leaves child `index` of a subtree of `leaves` >= 2 leaves covers."""
    _check_index(index, child_count(leaves))
    block = block_size(leaves)
    return min(block, leaves - index * block)


def combine(children: Sequence[bytes]) -> bytes:
    """Return the hash of the subtree that these 1 to 16 children open.

    Raises CommitmentError for any other number and for a hash that has not 32 bytes.
    """
    if not 1 <= len(children) <= ARITY:
        raise CommitmentError(f"an opening has 1 to {ARITY} children, got {len(children)}")
    return root(children)


def verify_child(
    parent: bytes, count: int, index: int, child: bytes, path: Sequence[bytes]
) -> bool:
    """Verify that `child` is number `index` of the `count` children of `parent`.

    `path` holds its at most four siblings: the inclusion proof among the children as leaves.
    """
    return 1 <= count <= ARITY and verify_inclusion(parent, count, index, child, path)


def _check_index(index: int, size: int) -> None:
    if not 0 <= index < size:
        raise CommitmentError(f"index {index} is not in 0..{size - 1}")


def _are_hashes(*values: bytes) -> bool:
    return all(len(value) == HASH_BYTES for value in values)
