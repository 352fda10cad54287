# SPDX-License-Identifier: GPL-3.0-or-later
"""The canary: a small program whose trace shows whether an executor computes the protocol's bits.

It has every primitive on edge values, each kind of fold across its block boundaries, a matrix
product, a padded and dilated view, a scatter, and all random leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import numpy as np

from protocol.execution import Bits, Executor, Inputs
from protocol.ops import SIGNATURES, Op
from protocol.program import (
    Dim,
    DType,
    Expression,
    Flat,
    Fold,
    Instruction,
    Iota,
    Kind,
    Node,
    Operand,
    Program,
    Shape,
    Term,
    View,
)
from protocol.randomness import philox_array

CANARY_DIGEST: Final = "64e67ec9aa63d50a9adb66ad98f37bd1a64e1cd0f0cfd5dcbbc80f82e38a3799"
"""What `digest` returns for the reference interpreter, hence for every right executor."""

CANARY_STEP: Final = (1 << 32) + 5
_EDGES: Final = (
    0x00000000, 0x80000000, 0x3F800000, 0xBF800001, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFC12345,
    0x00000001, 0x807FFFFF, 0x00800000, 0x7F7FFFFF, 0x4B800001, 0x4EFFFFFF, 0xCF000000, 0x33FFFFFF,
)  # fmt: skip
_MIX: Final = 0x01000193
_TERMS: Final = 300
_SEED: Final = bytes(range(32))


def _digesting(ops: Sequence[Op]) -> Expression:
    """Return code that mixes the bits of all results of `ops` on edge values into one i32.

    Operands: two f32 and two i32 views of the edges, by row and by column.
    """
    row, column = (Term(0, 1),), (Term(1, 1),)
    edges = len(_EDGES)
    operands = [
        View(s, (Dim(edges, t),)) for s, t in ((0, row), (0, column), (1, row), (1, column))
    ]
    code: list[Instruction] = []

    def add(op: Op, *args: int) -> int:
        code.append(Instruction(op, args))
        return len(operands) + len(code)  # after one immediate

    digest = 3
    for op in ops:
        used = {"f": [0, 1, 0], "i": [2, 3, 2]}
        args = [used[letter].pop(0) for letter in SIGNATURES[op].operands]
        result = add(op, *args)
        if SIGNATURES[op].result == "f":
            result = add(Op.F2BITS, result)
        digest = add(Op.XOR, add(Op.IMUL, digest, len(operands)), result)
    read = {register for instruction in code for register in instruction.args}
    for spare in {0, 1, 2} - read:  # an operand that nothing reads is not legal
        digest = add(Op.XOR, digest, add(Op.F2BITS, spare) if spare < 2 else spare)
    return Expression(tuple(operands), (_MIX,), tuple(code), (len(operands) + len(code),))


def _matrix(source: int, rows: int, columns: int, row: int, column: int) -> View:
    return View(source, (Dim(rows, (Term(row, 1),)), Dim(columns, (Term(column, 1),))))


def canary() -> tuple[Program, tuple[Bits, ...], Inputs]:
    """Return the canary program, its state and its inputs."""
    edges = len(_EDGES)
    words = philox_array(_SEED, 1, 0, 8 * _TERMS)
    # Values in (-1, 1) with full significands: rounding happens in every step of every chain.
    numbers = (words & 0x807FFFFF | 0x3E800000 + ((words >> 7 & 1) << 23)).astype(np.uint32)
    targets = (philox_array(_SEED, 2, 0, _TERMS) % 5).astype(np.uint32)
    data = (np.array(_EDGES, np.uint32), np.array(_EDGES, np.uint32), numbers, targets)
    f32, i32 = DType.F32, DType.I32
    nodes = [
        Node(Kind.DATA, f32, (edges,), index=0),
        Node(Kind.DATA, i32, (edges,), index=1),
        Node(Kind.DATA, f32, (8, _TERMS), index=2),
        Node(Kind.DATA, i32, (_TERMS,), index=3),
        Node(Kind.STEP, i32, ()),
        Node(Kind.SAMPLE, i32, (5,), bound=1000, stream=3),
        Node(Kind.RAND, i32, (70,), stream=4),
    ]

    def fold(kind: Fold, shape: Shape, terms: int, body: Expression, lanes: int = 1) -> None:
        dtype = i32 if kind in (Fold.ISUM, Fold.IMAX) else f32
        nodes.append(
            Node(Kind.FOLD, dtype, shape, fold=kind, lanes=lanes, reduce=(terms,), expression=body)
        )

    def mapped(dtype: DType, shape: Shape, body: Expression) -> None:
        nodes.append(Node(Kind.MAP, dtype, shape, expression=body))

    ops = list(Op)
    for chosen in (ops[0:9], ops[9:20], ops[20:]):
        mapped(i32, (edges, edges), _digesting(chosen))
    for op in (Op.SQRT, Op.NEG, Op.BITS2F):
        source = int(op is Op.BITS2F)
        mapped(f32, (edges,), Expression((Flat(source),), (), (Instruction(op, (0,)),), (1,)))
    window: tuple[Operand, ...] = (
        View(
            2, (Dim(8, (Term(0, 1),), -1), Dim(_TERMS, (Term(1, 1),), -2, dilation=2)), 0x3F800000
        ),
    )
    mapped(f32, (10, 33), Expression(window))
    left, right = _matrix(2, 8, _TERMS, 0, 2), _matrix(2, 8, _TERMS, 1, 2)
    fold(Fold.DOT, (8, 8), _TERMS, Expression((left, right), results=(0, 1)))
    flat = View(2, (Dim(8 * _TERMS, (Term(0, 1),)),))
    fold(Fold.SUM, (), 8 * _TERMS, Expression((flat,)), lanes=16)
    fold(Fold.SUM, (_TERMS,), 8, Expression((_matrix(2, 8, _TERMS, 1, 0),)))
    fold(Fold.MAX, (8,), _TERMS, Expression((_matrix(2, 8, _TERMS, 0, 1),)))
    fold(Fold.ISUM, (), _TERMS, Expression((View(3, (Dim(_TERMS, (Term(0, 1),)),)),)))
    scattered = Expression(
        (View(3, (Dim(_TERMS, (Term(2, 1),)),)), Iota((Term(0, 1),)), _matrix(2, 8, _TERMS, 1, 2)),
        (0,),
        (Instruction(Op.IEQ, (0, 1)), Instruction(Op.WHERE, (4, 2, 3))),
        (5,),
    )
    fold(Fold.SUM, (5, 8), _TERMS, scattered)
    nodes.append(Node(Kind.OUTPUT, f32, (5, 8), index=len(nodes) - 1))
    program = Program(tuple(nodes), n_state=1, n_data=len(data))
    state = (np.zeros((5, 8), np.uint32),)
    shaped = tuple(t.reshape(n.shape) for t, n in zip(data, nodes, strict=False))
    return program, state, Inputs((), shaped, _SEED)


def digest(executor: Executor, state: Sequence[Bits]) -> str:
    """Return the SHA-256 of the whole trace of the canary's step, in hexadecimal."""
    hasher = sha256()
    for output in executor.trace(state, CANARY_STEP):
        hasher.update(output.astype("<u4").tobytes())
    return hasher.hexdigest()
