# SPDX-License-Identifier: GPL-3.0-or-later
"""`IntegerRoot.sol` against Python's integer square root."""

from __future__ import annotations

from math import isqrt
from random import Random

from tests.library_harness import LibraryHarness

LOWEST, END = 2**75, 2**77


def test_floor_is_exact_around_squares_and_at_both_ends() -> None:
    call = LibraryHarness("IntegerRootHarness")
    draw = Random(5)
    sides = [isqrt(LOWEST) + 1, isqrt(END - 1), *(draw.randrange(2**38, 2**39) for _ in range(60))]
    near = (0, -1, 1, -2, 2, -1000, 1000)
    for radicand in (LOWEST, END - 1, *(side * side + k for side in sides for k in near)):
        if LOWEST <= radicand < END:
            assert call("floor", radicand) == isqrt(radicand)
