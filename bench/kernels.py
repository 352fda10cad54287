# SPDX-License-Identifier: GPL-3.0-or-later
"""Matrix products and convolutions in the specified order of additions, against torch's own."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Final

import torch

from bench.measure import Result, Work, seconds
from bench.products import Case, Convolution, matrices
from protocol.execution import Inputs
from protocol.executor import CompiledExecutor

SHAPES: Final = (
    (0, 64, 64, 64), (0, 128, 128, 128), (0, 256, 256, 256), (0, 512, 512, 512),
    (0, 1024, 1024, 1024), (0, 4096, 64, 256), (0, 1024, 128, 512), (0, 128, 1024, 512),
    (0, 64, 1024, 4096), (0, 8, 512, 2048), (0, 64, 512, 10),
    (64, 128, 64, 128), (64, 128, 128, 64), (64, 64, 32, 64),
)  # fmt: skip
"""(batch or 0, m, k, n): cubes, tall and wide ones, a classifier's, and those of attention."""
CONVOLUTIONS: Final = (
    Convolution(64, 1, 8, 16), Convolution(64, 16, 8, 32), Convolution(32, 3, 32, 32),
    Convolution(32, 32, 32, 32), Convolution(32, 64, 16, 64), Convolution(32, 64, 8, 128),
    Convolution(8, 64, 28, 64), Convolution(8, 128, 14, 128), Convolution(32, 32, 32, 64, 3, 2),
    Convolution(32, 64, 16, 128, 1, 1),
)  # fmt: skip
"""Layers of the measured networks first, then sizes that no vector divides, a stride, 1 x 1."""
TURN: Final = 0.02
"""Seconds that one side works before it is the other's turn."""
REST: Final = 0.005
"""Seconds until the threads of torch's pool, which spin after their work, have gone to sleep."""
ROUNDS: Final = 9


def _duration(work: Work, count: int) -> float:
    """Return the shortest of so many calls: whatever else the machine does only adds to it."""
    time.sleep(REST)
    return min(seconds(work) for _ in range(count))


def _ratio(case: Case, threads: int) -> tuple[float, float]:
    """Return ours / theirs and our seconds, each the shortest of interleaved turns."""
    inputs = Inputs([], case.data, bytes(32))
    executor, state = CompiledExecutor(case.program, inputs, threads), case.state

    def ours() -> object:
        return executor.step(state, 0)

    turns = [(work, max(1, round(TURN / _duration(work, 2)))) for work in (ours, case.theirs)]
    rounds = [[_duration(work, count) for work, count in turns] for _ in range(ROUNDS)]
    mine, other = (min(times) for times in zip(*rounds, strict=True))
    return mine / other, mine


def _family(name: str, cases: Iterable[Callable[[], Case]], baseline: str) -> Iterator[Result]:
    """Yield the ratio of each case, and their geometric mean, on one thread and on all cores."""
    counts = {1: "", len(os.sched_getaffinity(0)): "_all_cores"}
    for threads, suffix in counts.items():
        torch.set_num_threads(threads)
        found = []
        on = f"{baseline}, {threads} thread{'s' if threads > 1 else ''}"
        for make in cases:
            case = make()
            if threads > 1 and case.repeats > 1:
                continue  # one such product is too small for several threads
            value, mine = _ratio(case, threads)
            found.append(value)
            rate = f"{on}; ours does {case.operations / mine / 1e9:.1f} GFLOP/s"
            yield Result(f"{name}_ratio{suffix}/{case.name}", value, "ratio", rate, "<= 1.0")
        geomean = math.exp(statistics.fmean(map(math.log, found)))
        yield Result(f"{name}_ratio{suffix}_geomean", geomean, "ratio", on, "<= 1.0")


def gemm() -> Iterator[Result]:
    """Matrix products, each with all four ways of storing the factors."""
    grid = [
        lambda shape=shape, turned=turned: matrices(*shape, *turned)
        for shape, turned in product(SHAPES, product((False, True), repeat=2))
    ]
    yield from _family("gemm", grid, "torch.matmul")


def convolution() -> Iterator[Result]:
    """Convolutions and their two gradients."""
    cases = [
        method
        for chosen in CONVOLUTIONS
        for method in (chosen.forward, chosen.input_gradient, chosen.weight_gradient)
    ]
    yield from _family("conv", cases, "torch (oneDNN)")
