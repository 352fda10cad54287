# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dispute shows inside one element of a FOLD, against a step that computes that element.

A party to a dispute has about as long as a replay takes, so neither may be much slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from bench.measure import Result, ratio
from protocol import fold as folds
from protocol.execution import Inputs
from protocol.executor import CompiledExecutor
from protocol.ops import Op
from protocol.program import (
    Dim,
    DType,
    Expression,
    Fold,
    Instruction,
    Iota,
    Kind,
    Node,
    Operand,
    Program,
    Term,
    View,
)

TERMS: Final = 1 << 24
CASES: Final = (
    ("sum16", Fold.SUM, 16, 0), ("sum16-of-40", Fold.SUM, 16, 40), ("sum", Fold.SUM, 1, 0),
    ("sum-of-40", Fold.SUM, 1, 40), ("dot", Fold.DOT, 1, 0), ("max", Fold.MAX, 1, 0),
)  # fmt: skip
"""(name, fold, lanes, instructions of a term beside its operand)."""
ROUNDS: Final = 7


def _program(fold: Fold, lanes: int, instructions: int) -> Program:
    """Return a program whose one state tensor, of one element, becomes a fold of its data."""
    operands: list[Operand] = [View(0, (Dim(TERMS, (Term(0, 1),)),)), Iota((Term(0, 1),))]
    code = [Instruction(Op.I2F, (1,))]
    code += [Instruction(Op.FMA, (1 + number, 0, 0)) for number in range(1, instructions)]
    results = (1 + len(code),) if instructions else (0,)
    body = Expression(
        tuple(operands if instructions else operands[:1]),
        (),
        tuple(code if instructions else ()),
        results * (2 if fold is Fold.DOT else 1),
    )
    node = Node(Kind.FOLD, DType.F32, (), fold=fold, lanes=lanes, reduce=(TERMS,), expression=body)
    data = Node(Kind.DATA, DType.F32, (TERMS,))
    return Program((data, node, Node(Kind.OUTPUT, DType.F32, (), index=1)), n_state=1, n_data=1)


def inside() -> Iterator[Result]:
    """Results of all lanes of the one element, on one thread."""
    data = np.random.default_rng(1).standard_normal(TERMS).astype(np.float32).view(np.uint32)
    inputs, state = Inputs([], [data], bytes(32)), [np.zeros((), np.uint32)]
    for name, fold, lanes, instructions in CASES:
        executor = CompiledExecutor(_program(fold, lanes, instructions), inputs)
        top = len(folds.levels(folds.lane_terms(TERMS, lanes, 0))) - 1

        def lane_results(executor: CompiledExecutor = executor, top: int = top) -> object:
            return executor.chain_results(1, 0, lambda _source: data, top, range(1))

        def step(executor: CompiledExecutor = executor) -> object:
            return executor.step(state, 0)

        value, ours, theirs = ratio(lane_results, step, ROUNDS)
        speed = f"{TERMS / ours / 1e6:,.0f}M terms a second"
        against = f"a step, 1 thread: {1e3 * theirs:.1f} ms against {1e3 * ours:.1f} ms, {speed}"
        yield Result(f"inside_ratio/{name}", value, "ratio", against, "<= 2.0")
