# SPDX-License-Identifier: GPL-3.0-or-later
"""Matrix products in the specified order of additions, against torch's own sgemm."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from bench.measure import Result, ratio
from protocol.execution import Inputs
from protocol.executor import CompiledExecutor
from protocol.program import Dim, DType, Expression, Fold, Kind, Node, Program, Term, View

SHAPES = [(64, 64, 64), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (64, 1024, 4096)]


def product(m: int, k: int, n: int) -> Program:
    """A program whose one state tensor becomes the product of two data tensors."""
    left = View(1, (Dim(m, (Term(0, 1),)), Dim(k, (Term(2, 1),))))
    right = View(2, (Dim(k, (Term(2, 1),)), Dim(n, (Term(1, 1),))))
    dot = Node(
        Kind.FOLD,
        DType.F32,
        (m, n),
        fold=Fold.DOT,
        reduce=(k,),
        expression=Expression((left, right), results=(0, 1)),
    )
    leaves = (
        Node(Kind.INPUT, DType.F32, (m, n)),
        Node(Kind.DATA, DType.F32, (m, k), index=0),
        Node(Kind.DATA, DType.F32, (k, n), index=1),
    )
    return Program((*leaves, dot, Node(Kind.OUTPUT, DType.F32, (m, n), index=3)), 1, n_data=2)


def gemm() -> Iterator[Result]:
    """One thread each."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(1)
    found = []
    for m, k, n in SHAPES:
        a = generator.standard_normal((m, k), np.float32)
        b = generator.standard_normal((k, n), np.float32)
        data = [a.view(np.uint32), b.view(np.uint32)]
        executor = CompiledExecutor(product(m, k, n), Inputs([], data, bytes(32)))
        state = [np.zeros((m, n), np.uint32)]
        left, right = torch.from_numpy(a), torch.from_numpy(b)
        value, _, _ = ratio(lambda e=executor, s=state: e.step(s, 0), lambda x=left, y=right: x @ y)
        found.append(value)
        yield Result(f"gemm_ratio/{m}x{k}x{n}", value, "ratio", "torch.mm, one thread", "<= 1.0")
    geomean = math.exp(sum(map(math.log, found)) / len(found))
    yield Result("gemm_ratio_geomean", geomean, "ratio", "torch.mm, one thread", "<= 1.0")
