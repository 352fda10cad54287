# SPDX-License-Identifier: GPL-3.0-or-later
"""Random programs for tests: `cases()` draws one with a state, inputs and a step number.

Between them the programs have every node kind, primitive, fold and view feature, ranks 0 to 8 and
odd sizes. The hand-built ones are in `tests.hand_built`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import reject
from hypothesis import strategies as st

from protocol.encoding import encode_node
from protocol.errors import ProgramError
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
from tests.hand_built import (
    F32,
    I32,
    SPECIAL_FLOATS,
    SPECIAL_INTEGERS,
    Builder,
    Case,
    _dtype,
    case_of,
)

# Random programs ---------------------------------------------------------------------------------

MAX_WORK = 1500
"""Largest numel * terms of a drawn node."""

dtypes = st.sampled_from([F32, I32])
words = st.one_of(st.sampled_from(SPECIAL_FLOATS + SPECIAL_INTEGERS), st.integers(0, 0xFFFFFFFF))
steps = st.one_of(st.integers(0, 5), st.sampled_from([2**32 - 1, 2**32, 2**63 + 1]))
_SIZES = (1, 1, 2, 3, 4, 5, 7, 16, 17, 33)


@st.composite
def shapes(draw: Any, limit: int = 120, max_rank: int = 8, min_rank: int = 0) -> Shape:
    rank = draw(st.one_of(st.integers(min_rank, 3), st.integers(min_rank, max_rank)))
    shape: list[int] = []
    for _ in range(rank):
        room = limit // max(1, math.prod(shape))
        shape.append(draw(st.sampled_from([size for size in _SIZES if size <= room])))
    return tuple(shape)


@st.composite
def factorizations(draw: Any, numel: int) -> Shape:
    """Sizes of at most eight dims whose product is `numel`."""
    sizes, rest = [], numel
    for _ in range(draw(st.integers(0, 4))):
        divisors = [d for d in range(1, min(rest, 64) + 1) if rest % d == 0]
        sizes.append(draw(st.sampled_from(divisors)))
        rest //= sizes[-1]
    return (*sizes, rest) if rest > 1 or draw(st.booleans()) else tuple(sizes)


@st.composite
def _terms(draw: Any, axes: Sequence[int]) -> tuple[Term, ...]:
    if not axes:
        return ()
    coefs = st.one_of(
        st.sampled_from([1, 1, 1, -1, 2, 3]),
        st.integers(-4, 8),
        st.sampled_from([0x7FFFFFFF, -0x80000000]),
    )
    return tuple(
        Term(draw(st.sampled_from(axes)), draw(coefs)) for _ in range(draw(st.integers(0, 3)))
    )


@st.composite
def _dims(draw: Any, size: int, axes: Sequence[int]) -> Dim:
    if draw(st.integers(0, 2)):  # mostly plain, so that reads are mostly inside
        return Dim(size, (Term(draw(st.sampled_from(axes)), 1),) if axes and size > 1 else ())
    lo = draw(st.integers(0, size - 1)) if draw(st.booleans()) else 0
    hi = draw(st.integers(lo + 1, size)) if draw(st.booleans()) else size
    dilation = draw(st.sampled_from([1, 1, 2, 3, 0xFFFFFFFF]))
    offset = draw(st.one_of(st.integers(-3, size), st.sampled_from([0x7FFFFFFF, -0x80000000])))
    return Dim(size, draw(_terms(axes)), offset, lo, hi, dilation)


@st.composite
def _operands(
    draw: Any, nodes: Sequence[Node], shape: Shape, axes: int, is_map: bool
) -> tuple[list[Operand], list[DType]]:
    operands: list[Operand] = []
    types: list[DType] = []
    for _ in range(draw(st.one_of(st.integers(0, 3), st.integers(0, 8)))):
        indices = [INDIRECT + p for p, dtype in enumerate(types) if dtype is I32]
        usable = [*range(axes), *(draw(st.sampled_from([indices, []])) if indices else [])]
        source = draw(st.integers(0, len(nodes) - 1)) if nodes else None
        mode = draw(st.sampled_from(["flat", "view", "view", "view", "iota"]))
        flat = [i for i, node in enumerate(nodes) if node.numel == math.prod(shape)]
        if source is None or mode == "iota":
            offset = draw(st.one_of(st.integers(-3, 9), st.just(-0x80000000)))
            operands.append(Iota(draw(_terms(usable)), offset))
            types.append(I32)
        elif mode == "flat" and is_map and flat:
            operands.append(Flat(draw(st.sampled_from(flat))))
            types.append(nodes[operands[-1].source].dtype)
        else:
            node = nodes[source]
            own = node.shape if len(node.shape) <= 8 else (node.numel,)
            sizes = draw(st.one_of(st.just(own), factorizations(node.numel)))
            dims = tuple(draw(_dims(size, usable)) for size in sizes)
            operands.append(View(source, dims, draw(words)))
            types.append(node.dtype)
    return operands, types


@st.composite
def expressions(
    draw: Any, nodes: Sequence[Node], shape: Shape, axes: int, is_map: bool, wanted: DType,
    n_results: int,
) -> Expression:  # fmt: skip
    """An expression over `nodes` with results of dtype `wanted`, in which each operand is used."""
    operands, known = draw(_operands(nodes, shape, axes, is_map))
    immediates = draw(st.lists(words, min_size=1, max_size=draw(st.sampled_from([2, 2, 32]))))
    types: list[DType | None] = [*known, *[None] * len(immediates)]

    def register(dtype: DType) -> int:
        fitting = [r for r, t in enumerate(types) if t in (None, dtype)]
        recent = [r for r in fitting if types[r] is not None][-3:] or fitting
        return draw(st.sampled_from(draw(st.sampled_from([recent, fitting]))))

    code = []
    for _ in range(draw(st.one_of(st.integers(0, 4), st.integers(0, 12)))):
        op = draw(st.sampled_from(list(Op)))
        code.append(Instruction(op, tuple(register(_dtype(c)) for c in SIGNATURES[op].operands)))
        types.append(_dtype(SIGNATURES[op].result))
    results = tuple(register(wanted) for _ in range(n_results))
    return without_unused(Expression(tuple(operands), tuple(immediates), tuple(code), results))


def without_unused(body: Expression) -> Expression:
    """The same expression without the operands that nothing uses (the last ones first)."""
    for position in reversed(range(len(body.operands))):
        indices = {t.axis for later in body.operands for t in _terms_of(later)}
        used = {r for code in body.instructions for r in code.args} | set(body.results)
        if position not in used and INDIRECT + position not in indices:
            body = _without_operand(body, position)
    return body


def _terms_of(operand: Operand) -> tuple[Term, ...]:
    if isinstance(operand, View):
        return tuple(t for dim in operand.dims for t in dim.terms)
    return operand.terms if isinstance(operand, Iota) else ()


def _without_operand(body: Expression, gone: int) -> Expression:
    def registers(args: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(r - (r > gone) for r in args)

    def terms(items: tuple[Term, ...]) -> tuple[Term, ...]:
        return tuple(replace(t, axis=t.axis - (t.axis > INDIRECT + gone)) for t in items)

    def renumbered(operand: Operand) -> Operand:
        if isinstance(operand, View):
            dims = tuple(replace(dim, terms=terms(dim.terms)) for dim in operand.dims)
            return replace(operand, dims=dims)
        if isinstance(operand, Iota):
            return replace(operand, terms=terms(operand.terms))
        return operand

    return Expression(
        tuple(renumbered(o) for p, o in enumerate(body.operands) if p != gone),
        body.immediates,
        tuple(replace(code, args=registers(code.args)) for code in body.instructions),
        registers(body.results),
    )


@st.composite
def _computed(draw: Any, nodes: Sequence[Node], like: Node | None = None) -> Node:
    """A MAP or FOLD over `nodes`, with shape and dtype of `like` if that is given."""
    node = draw(_computed_of_any_size(nodes, like))
    try:
        encode_node(node)
    except ProgramError:  # eight operands of eight dims may take more than 1,024 bytes
        reject()
    return node


@st.composite
def _computed_of_any_size(draw: Any, nodes: Sequence[Node], like: Node | None) -> Node:
    dtype = like.dtype if like else draw(dtypes)
    shape = like.shape if like else draw(shapes())
    if draw(st.booleans()):
        body = draw(expressions(nodes, shape, len(shape), True, dtype, 1))
        return Node(Kind.MAP, dtype, shape, expression=body)
    folds = [Fold.ISUM, Fold.IMAX] if dtype is I32 else [Fold.DOT, Fold.SUM, Fold.MAX]
    fold = draw(st.sampled_from(folds))
    room = MAX_WORK // math.prod(shape)
    long = [(k,) for k in (15, 16, 17, 255, 256, 257, 300, 513) if k <= room]
    reduce = draw(shapes(min(room, 40), 8, 1))
    if long and draw(st.booleans()):
        reduce = draw(st.sampled_from(long))
    axes = len(shape) + len(reduce)
    body = draw(expressions(nodes, shape, axes, False, dtype, 2 if fold is Fold.DOT else 1))
    lanes = draw(st.sampled_from([1, 16])) if fold is Fold.SUM else 1
    return Node(Kind.FOLD, dtype, shape, fold=fold, lanes=lanes, reduce=reduce, expression=body)


@st.composite
def programs(draw: Any, max_computed: int = 5) -> Program:
    """A valid program of a few nodes."""
    b = Builder()
    n_state = draw(st.integers(1, 3))
    inputs = [b.leaf(Kind.INPUT, draw(shapes()), draw(dtypes), s) for s in range(n_state)]
    for kind in (Kind.CONST, Kind.DATA):
        for index in range(draw(st.integers(0, 2))):
            b.leaf(kind, draw(shapes()), draw(dtypes), index)
    if draw(st.booleans()):
        b.leaf(Kind.STEP, (), I32)
    if draw(st.booleans()):
        bound = draw(st.sampled_from([1, 3, 10, 0x7FFFFFFF]))
        b.add(Node(Kind.SAMPLE, I32, draw(shapes()), bound=bound, stream=draw(words)))
    if draw(st.booleans()):
        b.add(Node(Kind.RAND, I32, draw(shapes()), stream=draw(words)))
    for _ in range(draw(st.integers(0, max_computed))):
        b.add(draw(_computed(tuple(b.nodes))))
    outputs = []
    for number in inputs:
        if draw(st.integers(0, 3)):
            outputs.append(b.add(draw(_computed(tuple(b.nodes), b.nodes[number]))))
        else:
            outputs.append(number)
    program = b.finish(outputs)
    return replace(program, state_names=(), names={})


@st.composite
def cases(draw: Any, max_computed: int = 5) -> Case:
    """A valid program of a few nodes, with state, inputs and step number."""
    program = draw(programs(max_computed))
    return case_of(program, draw(st.integers(0, 2**32 - 1)), draw(steps), draw(st.booleans()))
