# SPDX-License-Identifier: GPL-3.0-or-later
"""Folds against an independent implementation, at the sizes where blocks and levels begin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import fold as folds
from protocol.float32 import INT_MIN, NAN
from protocol.fold import (
    accumulators,
    chain_items,
    chain_result,
    combine,
    combine_lanes,
    empty_lanes_hold,
    finish,
    fold_element,
    identity,
    lane_results,
    lane_term,
    lane_terms,
    levels,
    step,
)
from protocol.program import Fold

SIZES = [1, 2, 15, 16, 17, 31, 32, 33, 255, 256, 257, 511, 512, 513, 4095, 4096, 4097]
LARGE_SIZES = [65_535, 65_536, 65_537]


def values(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def bits(value: np.float32) -> int:
    return int(np.float32(value).view(np.uint32))


def hardware_sum(items: list[np.float32]) -> np.float32:
    """The rule for one lane as the specification states it, by recursion on float32 hardware."""
    if len(items) <= 256:
        total = np.float32(0)
        for item in items:
            total = np.float32(total + item)
        return total
    blocks = [hardware_sum(items[at : at + 256]) for at in range(0, len(items), 256)]
    return hardware_sum(blocks)


def hardware_lanes(items: np.ndarray, lanes: int) -> np.float32:
    results = [hardware_sum(list(items[lane::lanes])) for lane in range(lanes)]
    for half in (8, 4, 2, 1):
        if half < len(results):
            results = [np.float32(results[i] + results[i + half]) for i in range(half)]
    return np.float32(np.float32(0) + results[0])


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("n", [*SIZES, 65_537])
def test_sum_equals_an_independent_implementation_bit_for_bit(n: int, lanes: int) -> None:
    items = values(n)
    patterns = items.view(np.uint32).tolist()
    got = fold_element(Fold.SUM, n, lanes, lambda k: (patterns[k],))
    assert got == bits(hardware_lanes(items, lanes))


def test_blocked_sum_differs_from_one_chain() -> None:
    items = values(4097)
    chain = np.float32(0)
    for item in items:
        chain = np.float32(chain + item)
    patterns = items.view(np.uint32).tolist()
    assert fold_element(Fold.SUM, 4097, 1, lambda k: (patterns[k],)) != bits(chain)


@pytest.mark.parametrize("n", SIZES)
def test_dot_equals_exact_products_rounded_once_a_term(n: int) -> None:
    # Factors of 12 bits have products that float64 adds exactly to a float32 accumulator.
    rng = np.random.default_rng(n)
    a, b = (rng.integers(-2048, 2048, n).astype(np.float32) / np.float32(1024) for _ in range(2))

    def dot(lo: int, hi: int) -> np.float32:
        acc = np.float32(0)
        for i in range(lo, hi):
            acc = np.float32(np.float64(a[i]) * np.float64(b[i]) + np.float64(acc))
        return acc

    expected = hardware_sum([dot(at, min(at + 256, n)) for at in range(0, n, 256)])
    if n <= 256:
        expected = dot(0, n)
    terms = list(zip(a.view(np.uint32).tolist(), b.view(np.uint32).tolist(), strict=True))
    assert fold_element(Fold.DOT, n, 1, terms.__getitem__) == bits(np.float32(0) + expected)


@pytest.mark.parametrize("n", [*SIZES, *LARGE_SIZES])
def test_integer_folds_and_maxima_are_those_of_numpy(n: int) -> None:
    rng = np.random.default_rng(n)
    integers = rng.integers(-(2**31), 2**31, n).astype(np.int32)
    patterns = integers.view(np.uint32).tolist()
    total = int(integers.astype(np.int64).sum()) & 0xFFFFFFFF
    assert fold_element(Fold.ISUM, n, 1, lambda k: (patterns[k],)) == total
    largest = int(integers.max()) & 0xFFFFFFFF
    assert fold_element(Fold.IMAX, n, 1, lambda k: (patterns[k],)) == largest
    floats = values(n, n)
    patterns = floats.view(np.uint32).tolist()
    assert fold_element(Fold.MAX, n, 1, lambda k: (patterns[k],)) == bits(floats.max())


def test_identities_are_neutral_and_nan_wins_a_maximum() -> None:
    assert identity(Fold.MAX) == bits(np.float32(-np.inf))
    assert identity(Fold.IMAX) == INT_MIN
    assert step(Fold.MAX, identity(Fold.MAX), (0xFF800000,)) == 0xFF800000
    assert step(Fold.IMAX, identity(Fold.IMAX), (INT_MIN,)) == INT_MIN
    assert fold_element(Fold.MAX, 3, 1, lambda k: ((1, 0xFFC00001, 2)[k],)) == NAN


def test_final_addition_turns_minus_zero_into_zero_for_sums_only() -> None:
    minus_zero = 0x80000000
    assert finish(Fold.SUM, minus_zero) == finish(Fold.DOT, minus_zero) == 0
    assert finish(Fold.MAX, minus_zero) == minus_zero
    assert finish(Fold.ISUM, minus_zero) == finish(Fold.IMAX, minus_zero) == minus_zero


def test_terms_that_are_zero_may_be_skipped() -> None:
    items = [0x80000000, 0x00000001, 0, 0x80000000, 0x80000001, 0x80000000]
    kept = [item for item in items if item & 0x7FFFFFFF]
    whole = fold_element(Fold.SUM, len(items), 1, lambda k: (items[k],))
    assert whole == fold_element(Fold.SUM, len(kept), 1, lambda k: (kept[k],)) == 0


@given(st.integers(1, 5000), st.sampled_from([1, 16]))
def test_lanes_partition_the_terms_in_order(terms: int, lanes: int) -> None:
    seen = []
    for lane in range(lanes):
        ks = [lane_term(lanes, lane, i) for i in range(lane_terms(terms, lanes, lane))]
        assert ks == list(range(lane, terms, lanes))
        seen += ks
    assert sorted(seen) == list(range(terms))


@given(st.one_of(st.integers(0, 200_000), st.integers(2**31 - 9, 2**31 - 1)))
def test_chains_of_a_level_partition_its_items_and_the_top_has_one(n: int) -> None:
    counts = levels(n)
    assert counts[-1] <= 256
    for level, count in enumerate(counts[:3] if n < 300_000 else counts[2:]):
        level += 0 if n < 300_000 else 2
        blocks = counts[level + 1] if level + 1 < len(counts) else 1
        joined = [item for block in range(blocks) for item in chain_items(n, level, block)]
        assert joined == list(range(count))
        with pytest.raises(IndexError):
            chain_items(n, level, blocks)
    with pytest.raises(IndexError):
        chain_items(n, len(counts), 0)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (0, (0,)),
        (256, (256,)),
        (257, (257, 2)),
        (65_536, (65_536, 256)),
        (65_537, (65_537, 257, 2)),
        (2**31 - 1, (2**31 - 1, 2**23, 2**15, 128)),
    ],
)
def test_levels_are_those_of_the_specification(n: int, expected: tuple[int, ...]) -> None:
    assert levels(n) == expected


@pytest.mark.parametrize("n", [1, 256, 257, 4097, 65_537])
def test_game_view_leads_from_the_value_down_to_single_terms(n: int) -> None:
    patterns = values(n).view(np.uint32).tolist()
    calls = []

    def term(k: int) -> tuple[int]:
        calls.append(k)
        return (patterns[k],)

    top = len(levels(n)) - 1
    claimed = fold_element(Fold.SUM, n, 1, term)
    assert finish(Fold.SUM, accumulators(Fold.SUM, n, top, 0, term)[-1]) == claimed
    level, block = top, 0
    while True:
        accs = accumulators(Fold.SUM, n, level, block, term)
        items = chain_items(n, level, block)
        assert len(accs) == len(items) <= 256
        at = len(accs) // 2
        before = accs[at - 1] if at else identity(Fold.SUM)
        if level == 0:
            assert step(Fold.SUM, before, term(items[at])) == accs[at]
            break
        below = chain_result(Fold.SUM, n, level - 1, items[at], term)
        assert combine(Fold.SUM, before, below) == accs[at]
        level, block = level - 1, items[at]
    calls.clear()
    accumulators(Fold.SUM, n, 0, 0, term)
    assert calls == list(range(min(n, 256)))  # a chain of terms reads its own terms only


@pytest.mark.parametrize("terms", [1, 2, 15, 16, 17, 4097])
def test_lane_results_combine_to_the_value_and_empty_lanes_hold_zero(terms: int) -> None:
    patterns = values(terms).view(np.uint32).tolist()
    lanes = lane_results(Fold.SUM, terms, 16, lambda k: (patterns[k],))
    assert empty_lanes_hold(Fold.SUM, terms, lanes)
    whole = fold_element(Fold.SUM, terms, 16, lambda k: (patterns[k],))
    assert finish(Fold.SUM, combine_lanes(Fold.SUM, lanes)) == whole
    if terms < 16:
        lanes[15] = 0x80000000
        assert not empty_lanes_hold(Fold.SUM, terms, lanes)


def test_block_size_and_lanes_are_those_of_the_specification() -> None:
    assert (folds.BLOCK, folds.LANES) == (256, 16)
