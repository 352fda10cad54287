# SPDX-License-Identifier: GPL-3.0-or-later
"""SAMPLE and RAND: everything random in a step, as functions of the task's seed.

SAMPLE draws batch indices with SHA-256. RAND is Philox4x32-10 (Salmon, Moraes, Dror and Shaw,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3), laid out so that sixteen
vector lanes compute sixteen neighbouring blocks and store whole vectors: element e lies in group
`g = e div 64`, word `w = (e mod 64) div 16`, lane `l = e mod 16`, and is word w of the block with
counter `(16 g + l, step mod 2**32, stream, 0)` under the key `seed[0:8]`.

The one-element functions define; the array functions give the same bits to an executor.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import numpy as np
import numpy.typing as npt

from protocol.errors import UsageError
from protocol.execution import Bits
from protocol.float32 import WORD

SEED_BYTES: Final = 32
ROUNDS: Final = 10
MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
WEYL: Final = (0x9E3779B9, 0xBB67AE85)
GROUP: Final = 64
"""Elements of a group: four words of sixteen lanes."""
GROUP_LANES: Final = 16

_CHUNK_BLOCKS: Final = 1 << 14
"""Blocks computed at a time by the array function, so that its temporaries stay in the cache."""

Words = tuple[int, int, int, int]
_U64 = npt.NDArray[np.uint64]


def check_seed(seed: bytes) -> bytes:
    """Return `seed`; raises UsageError unless it has 32 bytes."""
    if len(seed) != SEED_BYTES:
        raise UsageError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
    return seed


def _sample_prefix(seed: bytes, stream: int, step: int) -> bytes:
    return check_seed(seed) + stream.to_bytes(4, "big") + step.to_bytes(8, "big")


def sample(seed: bytes, stream: int, step: int, e: int, bound: int) -> int:
    """Return element `e` of a SAMPLE: `uint256(H(seed ‖ stream ‖ step ‖ e)) mod bound`.

    `stream` and `e` are u32, `step` u64, `bound` >= 1. The bias is below bound / 2**256.
    """
    digest = sha256(_sample_prefix(seed, stream, step) + e.to_bytes(4, "big")).digest()
    return int.from_bytes(digest, "big") % bound


def sample_array(seed: bytes, stream: int, step: int, numel: int, bound: int) -> Bits:
    """Return elements 0 .. numel-1 of a SAMPLE as uint32 of shape (numel,)."""
    hasher = sha256(_sample_prefix(seed, stream, step))
    result = np.empty(numel, np.uint32)
    for e in range(numel):
        copy = hasher.copy()
        copy.update(e.to_bytes(4, "big"))
        result[e] = int.from_bytes(copy.digest(), "big") % bound
    return result


def philox_block(counter: Words, key: tuple[int, int]) -> Words:
    """Return the four words of Philox4x32-10 for a counter of four words and a key of two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & WORD, p0 >> 32 ^ c3 ^ k1, p0 & WORD
        k0, k1 = k0 + WEYL[0] & WORD, k1 + WEYL[1] & WORD
    return c0, c1, c2, c3


def _key(seed: bytes) -> tuple[int, int]:
    check_seed(seed)
    return int.from_bytes(seed[0:4], "big"), int.from_bytes(seed[4:8], "big")


def philox(seed: bytes, stream: int, step: int, e: int) -> int:
    """Return element `e` of a RAND node, an i32 pattern; `stream` is u32 and `step` u64."""
    group, place = divmod(e, GROUP)
    word, lane = divmod(place, GROUP_LANES)
    counter = (GROUP_LANES * group + lane, step & WORD, stream, 0)
    return philox_block(counter, _key(seed))[word]


def philox_array(seed: bytes, stream: int, step: int, numel: int) -> Bits:
    """Return elements 0 .. numel-1 of a RAND node as uint32 of shape (numel,)."""
    groups = -(-numel // GROUP)
    result = np.empty((groups, 4, GROUP_LANES), np.uint32)
    per_chunk = _CHUNK_BLOCKS // GROUP_LANES
    for first in range(0, groups, per_chunk):
        last = min(groups, first + per_chunk)
        counters = np.arange(GROUP_LANES * first, GROUP_LANES * last, dtype=np.uint64)
        words = _philox_blocks(counters, step & WORD, stream, _key(seed))
        for word, column in enumerate(words):
            result[first:last, word] = column.reshape(-1, GROUP_LANES)
    return result.reshape(-1)[:numel].copy()


def _philox_blocks(counters: _U64, c1: int, c2: int, key: tuple[int, int]) -> list[_U64]:
    """Return the four words of one block per first counter word, each below 2**32 in a uint64."""
    low, half = np.uint64(WORD), np.uint64(32)
    m0, m1 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
    x0 = counters
    x1, x2, x3 = (np.full_like(counters, word) for word in (c1, c2, 0))
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = m0 * x0, m1 * x2
        x0, x2 = (p1 >> half) ^ x1 ^ np.uint64(k0), (p0 >> half) ^ x3 ^ np.uint64(k1)
        x1, x3 = p1 & low, p0 & low
        k0, k1 = k0 + WEYL[0] & WORD, k1 + WEYL[1] & WORD
    return [x0, x1, x2, x3]
