# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which a FOLD adds up: chains, blocks of 256, lanes (specification, "Folds").

A fold over n terms is a chain while n <= 256. Otherwise blocks of 256 terms are a chain each, and
their results are folded by the same rule; so the rounding error grows with the logarithm of n,
and nothing but exact equality is needed to settle which accumulator is wrong.

The **game view** names every chain by (level, block): items of level 0 are terms of one lane, items
of level j > 0 the results of chains (j-1, item). A chain's accumulators are its partial results.
Term indices in this module (`item`) count within one lane; `lane_term` gives k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Final

from protocol import float32
from protocol.float32 import Float32, signed
from protocol.program import Fold

BLOCK: Final = 256
"""Items of a chain."""
LANES: Final = 16
"""Lanes of a SUM that has more than one."""

Terms = Callable[[int], Sequence[int]]
"""Term number `item` of one lane, as the patterns of the result registers."""

NEGATIVE_INFINITY: Final = 0xFF800000

_IDENTITIES: Final = {
    Fold.DOT: 0,
    Fold.SUM: 0,
    Fold.MAX: NEGATIVE_INFINITY,
    Fold.ISUM: 0,
    Fold.IMAX: float32.INT_MIN,
}


def identity(fold: Fold) -> int:
    """Return the accumulator that every chain begins with."""
    return _IDENTITIES[fold]


def combine(fold: Fold, a: int, b: int) -> int:
    """Return the fold of two accumulators: ADD, MAX, IADD or the signed maximum."""
    if fold in (Fold.DOT, Fold.SUM):
        return float32.add(Float32(a), Float32(b))
    if fold is Fold.MAX:
        return float32.maximum(Float32(a), Float32(b))
    if fold is Fold.ISUM:
        return a + b & float32.WORD
    return a if signed(a) >= signed(b) else b


def step(fold: Fold, acc: int, term: Sequence[int]) -> int:
    """Return the accumulator after one more term: two patterns for DOT, else one."""
    if fold is Fold.DOT:
        a, b = term
        return float32.fma(Float32(a), Float32(b), Float32(acc))
    (value,) = term
    return combine(fold, acc, value)


def finish(fold: Fold, s: int) -> int:
    """Return the element's value from the folded result: ADD(+0, s) for DOT and SUM, else s.

    It only turns -0 into +0, so that terms which are exactly zero may be skipped.
    """
    return combine(fold, identity(fold), s) if fold in (Fold.DOT, Fold.SUM) else s


def lane_terms(terms: int, lanes: int, lane: int) -> int:
    """Return how many of `terms` terms fall to `lane` (0 if there are fewer terms than lanes)."""
    return max(0, -(-(terms - lane) // lanes))


def lane_term(lanes: int, lane: int, item: int) -> int:
    """Return k of term number `item` of a lane."""
    return lane + lanes * item


def levels(n: int) -> tuple[int, ...]:
    """Return n_0, n_1, .. n_top: the number of items of each level of a lane with n terms."""
    counts = [n]
    while counts[-1] > BLOCK:
        counts.append(-(-counts[-1] // BLOCK))
    return tuple(counts)


def chain_items(n: int, level: int, block: int) -> range:
    """Return the items of chain (level, block) of a lane with n terms.

    Raises IndexError where there is no such chain.
    """
    counts = levels(n)
    if not 0 <= level < len(counts) or not 0 <= block <= max(0, counts[level] - 1) // BLOCK:
        raise IndexError(f"no chain ({level}, {block}) in a fold of {n} terms")
    return range(BLOCK * block, min(counts[level], BLOCK * (block + 1)))


def accumulators(fold: Fold, n: int, level: int, block: int, term: Terms) -> list[int]:
    """Return acc_1 .. acc_m of chain (level, block) of a lane with n terms; empty if n = 0."""
    acc, result = identity(fold), []
    for item in chain_items(n, level, block):
        if level == 0:
            acc = step(fold, acc, term(item))
        else:
            acc = combine(fold, acc, chain_result(fold, n, level - 1, item, term))
        result.append(acc)
    return result


def chain_result(fold: Fold, n: int, level: int, block: int, term: Terms) -> int:
    """Return the last accumulator of a chain, or the identity if it has no items."""
    result = accumulators(fold, n, level, block, term)
    return result[-1] if result else identity(fold)


def running(fold: Fold, items: Sequence[int]) -> list[int]:
    """Return the accumulators of a chain above level 0 from its items, the results below it."""
    return list(accumulate(items, partial(combine, fold), initial=identity(fold)))[1:]


def blocked(fold: Fold, n: int, term: Terms) -> int:
    """Return the result of a lane with n terms: that of its only chain at the top level."""
    return chain_result(fold, n, len(levels(n)) - 1, 0, term)


def lane_terms_of(term: Terms, lanes: int, lane: int) -> Terms:
    """Return the terms of one lane, by item, from those of the whole fold, by k."""
    return lambda item: term(lane_term(lanes, lane, item))


def lane_results(fold: Fold, terms: int, lanes: int, term: Terms) -> list[int]:
    """Return the result of every lane; `term` takes k. A lane without terms is the identity."""
    return [
        blocked(fold, lane_terms(terms, lanes, lane), lane_terms_of(term, lanes, lane))
        for lane in range(lanes)
    ]


def combine_lanes(fold: Fold, lanes: Sequence[int]) -> int:
    """Return s: `s[l] = combine(s[l], s[l+h])` for l < h, h halving down to 1 (1 or 16 lanes)."""
    s = list(lanes)
    while len(s) > 1:
        half = len(s) // 2
        s = [combine(fold, s[lane], s[lane + half]) for lane in range(half)]
    return s[0]


def empty_lanes_hold(fold: Fold, terms: int, lanes: Sequence[int]) -> bool:
    """Whether each lane that has no term holds the identity, as a claim must."""
    return all(value == identity(fold) for value in lanes[min(terms, len(lanes)) :])


def fold_element(fold: Fold, terms: int, lanes: int, term: Terms) -> int:
    """Return the value of one element of a FOLD over `terms` terms; `term` takes k."""
    return finish(fold, combine_lanes(fold, lane_results(fold, terms, lanes, term)))
