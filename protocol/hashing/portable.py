# SPDX-License-Identifier: GPL-3.0-or-later
"""Tensor trees with hashlib, for CPUs without SHA instructions and for little data."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

LEAF_BYTES: Final = 1024
HASH_BYTES: Final = 32
LEAF_HASHER: Final = sha256(b"\x00")
"""A SHA-256 that has read the leaf prefix: copying it is cheaper than prefixing the data."""
NODE_HASHER: Final = sha256(b"\x01")


def levels(data: memoryview) -> list[bytes]:
    """Return all levels of the tree over chunks of `data`, packed hashes, from the leaves up."""
    copy = LEAF_HASHER.copy
    digests = []
    for start in range(0, len(data), LEAF_BYTES):
        hasher = copy()
        hasher.update(data[start : start + LEAF_BYTES])
        digests.append(hasher.digest())
    return levels_above(b"".join(digests))


def levels_above(leaves: bytes) -> list[bytes]:
    """Return the levels over packed leaf hashes, these included."""
    result = [leaves]
    while len(result[-1]) > HASH_BYTES:
        result.append(next_level(result[-1]))
    return result


def next_level(level: bytes) -> bytes:
    """Pair the packed hashes of one level; an odd last one moves up unchanged."""
    copy = NODE_HASHER.copy
    pairs_end = len(level) & -64
    digests = []
    for at in range(0, pairs_end, 64):
        hasher = copy()
        hasher.update(level[at : at + 64])
        digests.append(hasher.digest())
    digests.append(level[pairs_end:])
    return b"".join(digests)
