# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole training steps of eight models against stock PyTorch, eager and compiled."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Iterator, Sequence
from typing import Final

from bench.contestant import Contestant
from bench.measure import Result
from bench.models import NAMES, missing

ROUNDS: Final = 9
TURN: Final = 0.4
"""Seconds that one side works before it is the other's turn."""
WARM_UP: Final = 5


def compare(name: str, sides: Sequence[str], threads: int) -> dict[str, float]:
    """Return the seconds of a step of each side that works here, in medians over the rounds.

    A round has a turn of each side, and the figure of a turn is its median step.
    """
    contestants: list[Contestant] = []
    steps: dict[str, int] = {}
    turns: dict[str, list[float]] = {}
    try:
        for side in sides:
            contestant = Contestant(side, name, threads)
            contestants.append(contestant)
            try:
                once = statistics.median(contestant.run(WARM_UP))
            except RuntimeError:
                continue
            steps[side], turns[side] = max(1, round(TURN / once)), []
        for _ in range(ROUNDS):
            for contestant in contestants:
                if contestant.side in steps:
                    found = contestant.run(steps[contestant.side])
                    turns[contestant.side].append(statistics.median(found))
    finally:
        for contestant in contestants:
            contestant.stop()
    return {side: statistics.median(found) for side, found in turns.items()}


def steps() -> Iterator[Result]:
    """All models on all cores, then each on one thread."""
    yield from _steps(len(os.sched_getaffinity(0)), "", with_compile=True)
    yield from _steps(1, "_one_thread", with_compile=False)


def _steps(threads: int, suffix: str, with_compile: bool) -> Iterator[Result]:
    ratios = []
    count = f"{threads} thread{'s' if threads > 1 else ''}"
    for name in NAMES:
        if missing(name):
            continue
        sides = ("bitcourt", "eager", "compile") if with_compile else ("bitcourt", "eager")
        found = compare(name, sides, threads)
        ours, eager = found["bitcourt"], found["eager"]
        ratios.append(ours / eager)
        baseline = f"torch eager, {count}: {1e3 * eager:.2f} ms against {1e3 * ours:.2f} ms"
        yield Result(f"step_ratio{suffix}/{name}", ours / eager, "ratio", baseline, "<= 1.15")
        if "compile" in found:
            baseline = f"torch.compile, {count}: {1e3 * found['compile']:.2f} ms"
            value = ours / found["compile"]
            yield Result(f"step_vs_compile/{name}", value, "ratio", baseline, "")
    geomean = math.exp(statistics.fmean(map(math.log, ratios)))
    yield Result(f"step_ratio{suffix}_geomean", geomean, "ratio", f"torch eager, {count}", "<= 1.0")
