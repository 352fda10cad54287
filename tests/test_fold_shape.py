# SPDX-License-Identifier: GPL-3.0-or-later
"""`FoldShape.sol` against `protocol/fold.py`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import fold
from tests.library_harness import LibraryHarness

EDGES = (1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 2**24, 2**24 + 1, 2**31 - 1)


@pytest.fixture(scope="module")
def shape() -> LibraryHarness:
    return LibraryHarness("FoldShapeHarness")


@pytest.mark.parametrize("items", EDGES)
def test_levels_and_chains_are_those_of_the_definition(shape: LibraryHarness, items: int) -> None:
    levels = fold.levels(items)
    assert shape("topLevel", items) == len(levels) - 1
    for level, count in enumerate(levels):
        last = (count - 1) // fold.BLOCK
        for chain in {0, last // 2, max(0, last - 1), last}:
            defined = fold.chain_items(items, level, chain)
            assert shape("chainLength", items, level, chain) == len(defined)


@given(terms=st.integers(1, 2**31 - 1), lane=st.integers(0, 15))
def test_terms_of_a_lane_are_those_of_the_definition(
    shape: LibraryHarness, terms: int, lane: int
) -> None:
    if lane < terms:
        assert shape("laneTerms", terms, 16, lane) == fold.lane_terms(terms, 16, lane)
    assert shape("laneTerms", terms, 1, 0) == terms
