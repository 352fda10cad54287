# SPDX-License-Identifier: GPL-3.0-or-later
"""Inclusion proofs in the defendant's trace tree, from what a challenger can know of it.

A one-step proof opens an operand j in the *defendant's* trace, whose leaves from the disputed node
i on the challenger has never seen. What it has: its own leaves below i, which both agree on, and
the children of every opening that the defendant made on the way down to i. That is always enough.

Take the sibling S of a node on the path of leaf j < i. If S lies left of i, it is a complete
subtree of agreed leaves. Otherwise S begins right of j's half, and i is in j's half or in S: so the
parent of S contains i. Let O be the smallest opened subtree that contains this parent, and b its
block size. The parent is no part of one child of O (a child with more than one leaf that contains
i was opened as well, which would be smaller), so it spans two children or more; all are aligned
blocks of b leaves, b a power of two, so its halves are made of whole children. Hence S is combined
from children of O.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.errors import DisputeError
from protocol.merkle import (
    Tree,
    block_size,
    child_count,
    child_leaf_count,
    combine,
    node_hash,
    verify_inclusion,
)


class OpenedTree:
    """What a defendant has shown of a tree of `size` leaves, opening by opening."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._blocks: dict[tuple[int, int], bytes] = {}  # (first leaf, leaves) -> hash

    @property
    def root(self) -> bytes:
        """The root of the whole tree; DisputeError before its first opening."""
        return self._known(0, self.size)

    def record(self, start: int, count: int, children: Sequence[bytes]) -> None:
        """Remember the opening of the subtree of `count` leaves at leaf `start`.

        Raises DisputeError if the number of children is not that of such an opening, or if they do
        not combine to the hash that an earlier opening gave this subtree.
        """
        if start < 0 or start + count > self.size:
            raise DisputeError(f"leaves {start}..{start + count - 1} are not in 0..{self.size - 1}")
        if len(children) != child_count(count):
            raise DisputeError(f"{len(children)} children for a subtree of {count} leaves")
        parent = combine(children)
        if self._blocks.setdefault((start, count), parent) != parent:
            raise DisputeError(f"the children of leaf {start}, {count} leaves, are of another tree")
        block = block_size(count)
        for number, child in enumerate(children):
            self._blocks[start + number * block, child_leaf_count(count, number)] = child

    def inclusion_proof(self, leaf: int, own: Tree) -> tuple[bytes, ...]:
        """Return the siblings of `leaf` from the bottom up.

        `own` is the caller's tree; its leaves up to the disputed one must be those of the
        defendant. Raises DisputeError if the openings so far do not determine the proof, which
        cannot be when they go all the way down to a later leaf.
        """
        if not 0 <= leaf < min(self.size, own.size):
            raise DisputeError(f"leaf {leaf} is not in 0..{min(self.size, own.size) - 1}")
        proof = []
        span = 1
        while span < self.size:
            start = (leaf // span ^ 1) * span
            if start < self.size:
                count = min(span, self.size - start)
                try:
                    proof.append(self._known(start, count))
                except DisputeError:
                    # Left of the disputed leaf; if it is not, the check below finds out.
                    if start + count > own.size:
                        raise
                    proof.append(own.subtree_root(start, count))
            span *= 2
        if not verify_inclusion(self.root, self.size, leaf, own.leaf(leaf), proof):
            raise DisputeError(f"leaf {leaf} is not the same in the defendant's tree")
        return tuple(proof)

    def _known(self, start: int, count: int) -> bytes:
        """Return the hash of a subtree that is a block of an opening, or made of such blocks."""
        block = self._blocks.get((start, count))
        if block is not None:
            return block
        if count == 1:
            raise DisputeError(f"leaf {start} of the defendant's tree has not been opened")
        half = 1 << (count - 1).bit_length() - 1
        return node_hash(self._known(start, half), self._known(start + half, count - half))
