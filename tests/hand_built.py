# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand-built programs for tests, and a small builder. `HAND_BUILT` has them by name.

`case_of` fills any program's tensors from a seed, with NaNs, infinities, subnormals and signed
zeros next to ordinary numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from protocol.execution import Bits, Inputs
from protocol.ops import SIGNATURES, Op
from protocol.program import (
    INDIRECT,
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

F32, I32 = DType.F32, DType.I32
ONE, HALF = 0x3F800000, 0x3F000000
SPECIAL_FLOATS = (
    0x00000000, 0x80000000, 0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00000,
    0xFFC00001, 0x7F800001, 0x00000001, 0x807FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF,
    0x4B800000, 0x4F000000, 0xCF000000, 0x33800000, 0x3F800001,
)  # fmt: skip
SPECIAL_INTEGERS = (0, 1, 2, 3, 31, 32, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE)


# Building ----------------------------------------------------------------------------------------


def expression(
    operands: Sequence[Operand],
    *code: tuple[Op, tuple[int, ...]],
    immediates: Sequence[int] = (),
    results: tuple[int, ...] | None = None,
) -> Expression:
    """An expression whose result is its last register unless `results` says otherwise."""
    last = len(operands) + len(immediates) + len(code) - 1
    instructions = tuple(Instruction(op, args) for op, args in code)
    return Expression(tuple(operands), tuple(immediates), instructions, results or (last,))


def along(source: int, sizes: Shape, axes: Sequence[int | None], fill: int = 0) -> View:
    """The view that reads dim d at axis `axes[d]`, or at 0 where that is None (broadcast)."""
    return View(
        source,
        tuple(
            Dim(size, () if axis is None else (Term(axis, 1),))
            for size, axis in zip(sizes, axes, strict=True)
        ),
        fill,
    )


class Builder:
    """Collects nodes; every method returns the number of the node it adds."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def leaf(self, kind: Kind, shape: Shape, dtype: DType = F32, index: int = 0) -> int:
        return self.add(Node(kind, dtype, shape, index=index))

    def map(self, shape: Shape, body: Expression, dtype: DType = F32) -> int:
        return self.add(Node(Kind.MAP, dtype, shape, expression=body))

    def fold(
        self, fold: Fold, shape: Shape, reduce: Shape, body: Expression, lanes: int = 1
    ) -> int:
        dtype = I32 if fold in (Fold.ISUM, Fold.IMAX) else F32
        return self.add(
            Node(Kind.FOLD, dtype, shape, fold=fold, lanes=lanes, reduce=reduce, expression=body)
        )

    def finish(self, outputs: Sequence[int], **names: int) -> Program:
        """The program whose state tensors become the nodes `outputs`."""
        for number in outputs:
            aliased = self.nodes[number]
            self.add(Node(Kind.OUTPUT, aliased.dtype, aliased.shape, index=number))

        def count(kind: Kind) -> int:
            return 1 + max((n.index for n in self.nodes if n.kind is kind), default=-1)

        return Program(
            tuple(self.nodes), len(outputs), count(Kind.CONST), count(Kind.DATA), dict(names),
            tuple(f"state.{s}" for s in range(len(outputs))),
        )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A program with everything that one step of it needs."""

    program: Program
    state: tuple[Bits, ...]
    inputs: Inputs
    step: int

    def __repr__(self) -> str:
        return f"Case(step={self.step}, program={self.program})"


def patterns(rng: np.random.Generator, node: Node, wild: bool = True) -> Bits:
    """A tensor for `node`: mostly ordinary values, with specials and any bits where `wild`."""
    numel = node.numel
    if node.dtype is I32:
        bits = rng.integers(0, 12, numel).astype(np.uint32)
        special = np.array(SPECIAL_INTEGERS, np.uint32)
    else:
        bits = rng.standard_normal(numel).astype(np.float32).view(np.uint32)
        special = np.array(SPECIAL_FLOATS, np.uint32)
    if wild:
        kind = rng.integers(0, 8, numel)
        bits = np.where(kind == 0, rng.choice(special, numel), bits)
        bits = np.where(kind == 1, rng.integers(0, 1 << 32, numel, dtype=np.uint32), bits)
    return bits.astype(np.uint32).reshape(node.shape)


def case_of(program: Program, seed: int = 0, step: int = 3, wild: bool = True) -> Case:
    """Fill every tensor that a valid program reads."""
    rng = np.random.default_rng(seed)

    def tensors(kind: Kind, count: int) -> tuple[Bits, ...]:
        nodes = {n.index: n for n in program.nodes if n.kind is kind}
        return tuple(
            patterns(rng, nodes[i], wild) if i in nodes else np.zeros(1, np.uint32)
            for i in range(count)
        )

    state = tuple(patterns(rng, program.state_node(s), wild) for s in range(program.n_state))
    inputs = Inputs(
        tensors(Kind.CONST, program.n_const), tensors(Kind.DATA, program.n_data), rng.bytes(32)
    )
    return Case(program, state, inputs, step)


# Hand-built programs -----------------------------------------------------------------------------


def adder() -> Program:
    """Add data to the state, element by element."""
    b = Builder()
    state = b.leaf(Kind.INPUT, (3, 5))
    data = b.leaf(Kind.DATA, (3, 5))
    total = b.map((3, 5), expression([Flat(state), Flat(data)], (Op.ADD, (0, 1))))
    return b.finish([total], total=total)


def matmul(m: int = 3, k: int = 7, n: int = 5) -> Program:
    """state[m, n] := data0[m, k] @ data1[k, n]."""
    b = Builder()
    left, right = b.leaf(Kind.DATA, (m, k)), b.leaf(Kind.DATA, (k, n), index=1)
    body = expression([along(left, (m, k), (0, 2)), along(right, (k, n), (2, 1))], results=(0, 1))
    return b.finish([b.fold(Fold.DOT, (m, n), (k,), body)])


def reduction(fold: Fold, terms: int, lanes: int = 1, rows: int = 1) -> Program:
    """state[rows] := fold of data[rows, terms]; a DOT multiplies each term with itself."""
    b = Builder()
    dtype = I32 if fold in (Fold.ISUM, Fold.IMAX) else F32
    data = b.leaf(Kind.DATA, (rows, terms), dtype)
    results = (0, 0) if fold is Fold.DOT else (0,)
    body = expression([along(data, (rows, terms), (0, 1))], results=results)
    return b.finish([b.fold(fold, (rows,), (terms,), body, lanes)])


def sgd_regression(batch: int = 4, inputs: int = 6, outputs: int = 3) -> Program:
    """One SGD step of linear regression: W := W - 1/8 * x^T (x W - y), with sampled rows."""
    b = Builder()
    weight = b.leaf(Kind.INPUT, (inputs, outputs))
    rows = 11
    table, target = b.leaf(Kind.DATA, (rows, inputs)), b.leaf(Kind.DATA, (rows, outputs), index=1)
    picked = b.add(Node(Kind.SAMPLE, I32, (batch,), bound=rows, stream=1))
    index = along(picked, (batch,), (0,))

    def gather(source: int, width: int) -> int:
        value = View(source, (Dim(rows, (Term(INDIRECT, 1),)), Dim(width, (Term(1, 1),))))
        return b.map((batch, width), expression([index, value], results=(1,)))

    x, y = gather(table, inputs), gather(target, outputs)
    product = expression(
        [along(x, (batch, inputs), (0, 2)), along(weight, (inputs, outputs), (2, 1))],
        results=(0, 1),
    )
    predicted = b.fold(Fold.DOT, (batch, outputs), (inputs,), product)
    error = b.map((batch, outputs), expression([Flat(predicted), Flat(y)], (Op.SUB, (0, 1))))
    back = expression(
        [along(x, (batch, inputs), (2, 0)), along(error, (batch, outputs), (2, 1))],
        results=(0, 1),
    )
    gradient = b.fold(Fold.DOT, (inputs, outputs), (batch,), back)
    update = expression(
        [Flat(gradient), Flat(weight)], (Op.FMA, (0, 2, 1)), immediates=[0xBE000000]
    )
    new = b.map((inputs, outputs), update)
    squares = expression([along(error, (batch, outputs), (0, 1))], (Op.MUL, (0, 0)))
    loss = b.fold(Fold.SUM, (), (batch, outputs), squares, lanes=16)
    return b.finish([new], loss=loss)


def scatter_gather() -> Program:
    """Gather, scatter-add, and scatter-set (last wins) as the specification writes them."""
    b = Builder()
    rows, places = 5, 9
    table = b.leaf(Kind.INPUT, (rows, 2))
    index, value = b.leaf(Kind.DATA, (places,), I32), b.leaf(Kind.DATA, (places, 2), index=1)
    added = b.fold(
        Fold.SUM,
        (rows, 2),
        (places,),
        expression(
            [along(index, (places,), (2,)), Iota((Term(0, 1),)), along(value, (places, 2), (2, 1))],
            (Op.IEQ, (0, 1)),
            (Op.WHERE, (4, 2, 3)),
            immediates=[0],
        ),
    )
    last = b.fold(
        Fold.IMAX,
        (rows,),
        (places,),
        expression(
            [along(index, (places,), (1,)), Iota((Term(0, 1),)), Iota((Term(1, 1),))],
            (Op.IEQ, (0, 1)),
            (Op.IWHERE, (4, 2, 3)),
            immediates=[0xFFFFFFFF],
        ),
    )
    found = View(value, (Dim(places, (Term(INDIRECT, 1),)), Dim(2, (Term(1, 1),))))
    chosen = b.map(
        (rows, 2),
        expression(
            [along(last, (rows,), (0,)), found, Flat(table), Flat(added)],
            (Op.ILT, (0, 4)),
            (Op.WHERE, (5, 2, 1)),
            (Op.ADD, (6, 3)),
            immediates=[0],
        ),
    )
    return b.finish([chosen])


def every_primitive() -> Program:
    """One MAP for each primitive, over a float and an integer state of 21 elements."""
    b = Builder()
    pools = {
        "f": [b.leaf(Kind.INPUT, (21,)), b.leaf(Kind.CONST, (21,)), b.leaf(Kind.DATA, (21,))],
        "i": [
            b.leaf(Kind.INPUT, (3, 7), I32, 1),
            b.leaf(Kind.CONST, (21,), I32, 1),
            b.leaf(Kind.DATA, (7, 3), I32, 1),
        ],
    }
    for op, signature in SIGNATURES.items():
        operands = [Flat(pools[letter][at]) for at, letter in enumerate(signature.operands)]
        body = expression(operands, (op, tuple(range(len(operands)))))
        b.map((21,) if signature.result == "f" else (3, 7), body, _dtype(signature.result))
    floats = next(i for i, n in enumerate(b.nodes) if n.kind is Kind.MAP and n.dtype is F32)
    integers = max(i for i, n in enumerate(b.nodes) if n.kind is Kind.MAP and n.dtype is I32)
    return b.finish([floats, integers])


def every_view() -> Program:
    """One MAP or FOLD for each feature of views, ranks 0 to 8, and all leaves."""
    b = Builder()
    state = b.leaf(Kind.INPUT, (4, 6))
    scalar = b.leaf(Kind.CONST, ())
    deep = b.leaf(Kind.DATA, (1, 2, 1, 3, 1, 2, 1, 2))
    step = b.leaf(Kind.STEP, (), I32)
    rows = b.add(Node(Kind.SAMPLE, I32, (5,), bound=4, stream=7))
    random = b.add(Node(Kind.RAND, I32, (131,), stream=9))

    def read(shape: Shape, *operands: Operand, dtype: DType = F32) -> int:
        return b.map(shape, expression(operands, results=(len(operands) - 1,)), dtype)

    read((6, 4), along(state, (4, 6), (1, 0)))  # permute
    read((3, 4, 6), along(state, (4, 6), (1, 2)))  # expand
    read((4,), along(state, (4, 6), (0, None)))  # select
    read((4, 6), View(state, (Dim(4, (Term(0, -1),), 3), Dim(6, (Term(1, -1),), 5))))  # flip
    read((2, 3), View(state, (Dim(4, (Term(0, 2),), 1), Dim(6, (Term(1, 2),)))))  # strided slice
    read((24,), View(state, (Dim(24, (Term(0, 5),), -48),), HALF))  # out on both sides
    padded = (Dim(4, (Term(0, 1),), -1), Dim(6, (Term(1, 1),), -2))
    read((7, 9), View(state, padded, 0xFFC12345))  # padding, with a NaN that is not canonical
    read((4, 6), View(state, (Dim(4, (Term(0, 1),), 0, 1, 3), Dim(6, (Term(1, 1),), 0, 0, 5)), 7))
    dilated = (Dim(4, (Term(0, 1),), -1, dilation=2), Dim(6, (Term(1, 1),), 0, dilation=3))
    read((9, 17), View(state, dilated, ONE))
    read((8, 3), along(state, (2, 2, 2, 3), (None, 1, None, None)))  # another factorization
    read((3,), View(state, (Dim(24, (Term(0, 0x7FFFFFFF), Term(0, -0x80000000)), 23),)))
    read((2, 2), along(scalar, (), ()))  # rank 0 source
    read((), View(state, (Dim(4, (), 2), Dim(6, (), 1))))  # rank 0 node
    read((2, 2), Iota((Term(0, 1 << 30), Term(1, -0x80000000)), -5), dtype=I32)
    read(
        (5, 6),
        along(rows, (5,), (0,)),
        View(state, (Dim(4, (Term(INDIRECT, 1),)), Dim(6, (Term(1, 1),)))),
    )
    wild = View(state, (Dim(4, (Term(INDIRECT, 1),)), Dim(6, (Term(INDIRECT, 3),), 1)), HALF)
    read((131,), Flat(random), wild)  # an index that is mostly outside, and negative
    read((3,), along(step, (), ()), Iota((Term(INDIRECT, 2), Term(0, 1))), dtype=I32)
    read((2, 1, 2, 1, 3, 1, 2, 1), along(deep, deep_shape(b, deep), (1, 0, 3, 4, 5, 6, 7, None)))
    window = View(
        state, (Dim(4, (Term(0, 1), Term(2, 1)), -1), Dim(6, (Term(1, 2), Term(3, 1)), -1))
    )
    kernel = along(scalar, (), ())
    b.fold(Fold.DOT, (4, 3), (3, 3), expression([window, kernel], results=(0, 1)))
    low = View(state, window.dims, 0xFF800000)
    b.fold(Fold.MAX, (4, 3), (3, 3), expression([low]))
    b.fold(Fold.SUM, (2,), (1, 2, 1, 3, 1, 2, 1, 1), expression([
        along(deep, deep_shape(b, deep), (1, 2, 3, 4, 5, 6, 7, 0))
    ]), lanes=16)  # fmt: skip
    return b.finish([state])


def deep_shape(b: Builder, source: int) -> Shape:
    return b.nodes[source].shape


def _dtype(letter: str) -> DType:
    return F32 if letter == "f" else I32


def constants_only() -> Program:
    """MAPs without operands: their result is an immediate, a NaN among them; no data."""
    b = Builder()
    nan = b.map((2,), expression([], immediates=[0xFFFFFFFF]))
    raw = b.map((2,), expression([], immediates=[0xFFFFFFFF]), I32)
    return b.finish([nan, raw])


HAND_BUILT: dict[str, Callable[[], Program]] = {
    "adder": adder,
    "matmul": matmul,
    "matmul of 300 terms": lambda: matmul(2, 300, 2),
    "sgd regression": sgd_regression,
    "scatter gather": scatter_gather,
    "every primitive": every_primitive,
    "every view": every_view,
    "constants only": constants_only,
    "sum of 1 in 16 lanes": lambda: reduction(Fold.SUM, 1, 16),
    "sum of 4,113 in 16 lanes": lambda: reduction(Fold.SUM, 4113, 16),
    "sum of 513": lambda: reduction(Fold.SUM, 513, 1, 2),
    "max of 257": lambda: reduction(Fold.MAX, 257),
    "integer sum of 256": lambda: reduction(Fold.ISUM, 256),
    "integer maximum of 300": lambda: reduction(Fold.IMAX, 300),
}
