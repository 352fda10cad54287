# SPDX-License-Identifier: GPL-3.0-or-later
"""A commitment to posted 32-bit words, of which one word is shown cheaply.

The same as `contracts/lib/WordTree.sol`: a binary keccak256 tree whose leaves are eight words
behind the word before them (36 bytes), so that one leaf shows a word *and* its predecessor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from eth_utils.crypto import keccak

WORD_BYTES: Final = 4
LEAF_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Excerpt:
    """One leaf: eight words as posted, the word before them, and the siblings from the bottom."""

    before: int
    eight: bytes
    path: tuple[bytes, ...]


class WordTree:
    """The tree over a string of words, `before` standing before the first of them."""

    def __init__(self, data: bytes, before: int = 0) -> None:
        padded = before.to_bytes(WORD_BYTES, "big") + data
        padded += bytes(-len(data) % LEAF_BYTES)
        self._source = padded
        leaves = [
            keccak(padded[at : at + LEAF_BYTES + WORD_BYTES])
            for at in range(0, len(padded) - WORD_BYTES, LEAF_BYTES)
        ]
        width = 1 << (len(leaves) - 1).bit_length()
        self._levels = [leaves + [bytes(32)] * (width - len(leaves))]
        while len(self._levels[-1]) > 1:
            below = self._levels[-1]
            pairs = zip(below[::2], below[1::2], strict=True)
            self._levels.append([keccak(left + right) for left, right in pairs])

    @property
    def root(self) -> bytes:
        """The root."""
        return self._levels[-1][0]

    def show(self, index: int) -> Excerpt:
        """Return what shows word `index` and the one before it."""
        place = index * WORD_BYTES // LEAF_BYTES
        start = place * LEAF_BYTES
        leaf = self._source[start : start + WORD_BYTES + LEAF_BYTES]
        path = [level[(place >> h) ^ 1] for h, level in enumerate(self._levels[:-1])]
        return Excerpt(int.from_bytes(leaf[:WORD_BYTES], "big"), leaf[WORD_BYTES:], tuple(path))


def words(data: bytes) -> tuple[int, ...]:
    """Return the big-endian 32-bit words of posted lanes, accumulators or values."""
    return tuple(int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4))


def packed(patterns: tuple[int, ...] | list[int]) -> bytes:
    """Return patterns as posted: big-endian 32-bit words."""
    return b"".join(pattern.to_bytes(4, "big") for pattern in patterns)
