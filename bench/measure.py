# SPDX-License-Identifier: GPL-3.0-or-later
"""Interleaved timing: two ways of doing the same work take turns, and medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Work = Callable[[], object]


@dataclass(frozen=True)
class Result:
    """One figure. `baseline` says what it is relative to, `target` what it should be."""

    name: str
    value: float
    unit: str
    baseline: str
    target: str


def seconds(work: Work) -> float:
    """Duration of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratio(ours: Work, theirs: Work, rounds: int = 15) -> tuple[float, float, float]:
    """`(ours / theirs, ours, theirs)` in medians of interleaved rounds, after one of each."""
    ours()
    theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    mine = statistics.median(a for a, _ in pairs)
    other = statistics.median(b for _, b in pairs)
    return mine / other, mine, other
