# SPDX-License-Identifier: GPL-3.0-or-later
"""Lowerings of gathers and scatters.

A gather substitutes an axis by the value of an index operand. A scatter is a fold over the
positions whose index is the element's own (specification, "Scatter-add", "Scatter-set"); where
there is just one candidate position, it is a choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from protocol.errors import TraceError
from protocol.ops import Op
from protocol.program import DType, Fold, Kind, Shape
from protocol.tracing.elementwise import choose, number_of
from protocol.tracing.graph import Value
from protocol.tracing.lowering import Context, lowering
from protocol.tracing.movement import identity, permuted, reshape_to
from protocol.tracing.moves import substitute
from protocol.tracing.scalars import Affine, Imm, Index, Load, Scalar


def wrapped(ctx: Context, index: Value, size: int) -> Value:
    """Return an index with negative positions counted from the end, as torch's indexing does."""
    s, scalar = ctx.s, index.scalar
    if isinstance(scalar, Load) and ctx.graph.nodes[scalar.buffer].kind is Kind.SAMPLE:
        return index
    if isinstance(scalar, Index):
        lowest = scalar.at.offset + sum(
            min(0, coef * (index.shape[axis] - 1))
            for axis, coef in scalar.at.terms
            if isinstance(axis, int)
        )
        if lowest >= 0 and scalar.at.direct:
            return index
    back = s.op(Op.IADD, scalar, s.i32(size))
    made = s.op(Op.IWHERE, s.op(Op.ILT, scalar, s.i32(0)), back, scalar)
    return Value(index.shape, made, index.torch_dtype)


def broadcast(values: Sequence[Value]) -> Shape:
    """Return the shape that torch broadcasts these to; it has checked that they fit."""
    rank = max(len(value.shape) for value in values)
    padded = [(1,) * (rank - len(value.shape)) + value.shape for value in values]
    return tuple(max(sizes) for sizes in zip(*padded, strict=True))


def onto(ctx: Context, at: Affine, axes: Sequence[int], shape: Shape) -> Affine:
    """Return an index over its own axes as one over other axes; those of size 1 are repeated."""
    mapping = [Affine.of(a) if n > 1 else Affine() for a, n in zip(axes, shape, strict=True)]
    result = Affine((), at.offset)
    for axis, coef in at.terms:
        if isinstance(axis, int):
            result = result.plus(mapping[axis], coef)
        else:
            load = substitute(ctx.s, axis, mapping)
            if not isinstance(load, Load):
                raise TypeError("an index is a load")
            result = result.plus(Affine.of(load), coef)
    return result


def scalar_of(ctx: Context, at: Affine) -> Scalar:
    """Return the value of an index."""
    if len(at.terms) == 1 and at.offset == 0 and at.terms[0][1] == 1:
        axis = at.terms[0][0]
        if isinstance(axis, Load):
            return axis
    return ctx.s.index(at)


@lowering("embedding.default")
def embedding(ctx: Context, weight: Value, index: Value, *_: object) -> Value:
    """Rows of a matrix by index."""
    rank = len(index.shape)
    row = onto(ctx, ctx.index(index), range(rank), index.shape)
    column = Affine.of(rank) if weight.shape[1] > 1 else Affine()
    return ctx.result(substitute(ctx.s, weight.scalar, [row, column]))


@lowering("index_select.default")
def index_select(ctx: Context, value: Value, dim: int, index: Value) -> Value:
    """Positions of one axis by index."""
    mapping = [Affine.of(a) if n > 1 else Affine() for a, n in enumerate(value.shape)]
    mapping[dim] = onto(ctx, ctx.index(index), [dim], index.shape)
    return ctx.result(substitute(ctx.s, value.scalar, mapping))


@lowering("gather.default")
def gather(ctx: Context, value: Value, dim: int, index: Value, **_: object) -> Value:
    """One element of an axis for each position of the index."""
    rank = len(value.shape)
    if not rank:
        return value
    mapping = [Affine.of(a) if n > 1 else Affine() for a, n in enumerate(index.shape)]
    mapping[dim % rank] = onto(ctx, ctx.index(index), range(rank), index.shape)
    return ctx.result(substitute(ctx.s, value.scalar, mapping))


@lowering("index.Tensor")
def index_tensor(ctx: Context, value: Value, indices: Sequence[Value | None]) -> Value:
    """Indexing by tensors, as in NumPy: index axes go where they stand if they stand together."""
    given = [a for a, index in enumerate(indices) if index is not None]
    tensors = [index for index in indices if index is not None]
    if any(index.torch_dtype == torch.bool for index in tensors):
        raise TraceError("a boolean index has a shape that depends on data")
    common = broadcast(tensors)
    together = given == list(range(given[0], given[-1] + 1))
    first = given[0] if together else 0
    free = [a for a in range(len(value.shape)) if a not in given]
    mapping = [Affine()] * len(value.shape)
    for position, axis in enumerate(free):
        place = position if position < first else position + len(common)
        mapping[axis] = Affine.of(place) if value.shape[axis] > 1 else Affine()
    for axis, index in zip(given, tensors, strict=True):
        shift = first + len(common) - len(index.shape)
        at = ctx.index(wrapped(ctx, index, value.shape[axis]))
        mapping[axis] = onto(ctx, at, range(shift, shift + len(index.shape)), index.shape)
    return ctx.result(substitute(ctx.s, value.scalar, mapping))


# Scatter -----------------------------------------------------------------------------------------


def scatter_sum(ctx: Context, index: Value, source: Value, rows: int) -> int:
    """Return the node `[rows, *rest]` that sums the rows of `source [K, *rest]` by index."""
    rest = source.shape[1:]
    k = 1 + len(rest)
    at = onto(ctx, ctx.index(index), [k], index.shape)
    load = ctx.plain(source)
    mapping = [Affine.of(k) if source.shape[0] > 1 else Affine()]
    mapping += [Affine.of(1 + a) if n > 1 else Affine() for a, n in enumerate(rest)]
    value = substitute(ctx.s, load, mapping)
    term = masked(ctx, at, 0, rows, value)
    return ctx.graph.fold(Fold.SUM, (term,), (rows, *rest), (source.shape[0],))


def masked(ctx: Context, at: Affine, axis: int, size: int, value: Scalar) -> Scalar:
    """Return `value` where the index is the coordinate on `axis`, else +0."""
    here = ctx.s.index(Affine.of(axis) if size > 1 else Affine())
    hit = ctx.s.op(Op.IEQ, scalar_of(ctx, at), here)
    zero = ctx.s.f32(0.0) if value.dtype is DType.F32 else ctx.s.i32(0)
    return choose(ctx, hit, value, zero)


@lowering("embedding_dense_backward.default")
def embedding_dense_backward(
    ctx: Context, gradient: Value, index: Value, rows: int, padding: int, by_frequency: bool
) -> Value:
    """Sums of gradient rows by index; rows of the padding index stay zero."""
    if by_frequency:
        raise TraceError("scale_grad_by_freq has no lowering")
    flat = reshape_to(ctx, index, (index.numel,))
    if padding >= 0:
        s = ctx.s
        hit = s.op(Op.IEQ, flat.scalar, s.i32(padding))
        flat = Value(flat.shape, s.op(Op.IWHERE, hit, s.i32(-1), flat.scalar), flat.torch_dtype)
    rows_of = reshape_to(ctx, gradient, (index.numel, gradient.shape[-1]))
    return ctx.from_node(scatter_sum(ctx, flat, rows_of, rows))


def _flat_index(ctx: Context, indices: Sequence[Value], sizes: Shape) -> tuple[Value, Shape]:
    """Return several indices of leading axes as one into their product, and its shape."""
    common = broadcast(indices)
    total: Scalar = ctx.s.i32(0)
    for index, size in zip(indices, sizes, strict=True):
        one = ctx.scalar(wrapped(ctx, index, size), torch.int64, common)
        total = ctx.s.op(Op.IADD, ctx.s.op(Op.IMUL, total, ctx.s.i32(size)), one)
    return Value(common, total, torch.int64), common


@lowering("index_put.default")
def index_put(
    ctx: Context,
    base: Value,
    indices: Sequence[Value | None],
    source: Value,
    accumulate: bool = False,
) -> Value:
    """Write or add rows by index."""
    tensors = [index for index in indices if index is not None]
    given = [a for a, index in enumerate(indices) if index is not None]
    if any(index.torch_dtype == torch.bool for index in tensors):
        if len(tensors) > 1 or given != [0] or source.numel > 1:
            raise TraceError("a boolean index has a shape that depends on data")
        return _masked_put(ctx, base, tensors[0], source, accumulate)
    if given != list(range(given[0], given[-1] + 1)):
        raise TraceError("the indexed axes do not stand together")
    # Bring the indexed axes to the front, and those of the index likewise.
    rank, first = len(base.shape), given[0]
    order = [*given, *(a for a in range(rank) if a not in given)]
    front = permuted(ctx, base, order)
    sizes, rest = front.shape[: len(given)], front.shape[len(given) :]
    index, common = _flat_index(ctx, tensors, sizes)
    written = (*base.shape[:first], *common, *base.shape[given[-1] + 1 :])
    wide = Value(written, ctx.scalar(source, base.torch_dtype, written), base.torch_dtype)
    moved = list(range(first, first + len(common)))
    wide = permuted(ctx, wide, [*moved, *(a for a in range(len(written)) if a not in moved)])
    count, rows = math.prod(common), math.prod(sizes)
    flat, lines = reshape_to(ctx, index, (count,)), reshape_to(ctx, wide, (count, *rest))
    bottom = reshape_to(ctx, front, (rows, *rest))
    if accumulate:
        if base.dtype is not DType.F32:
            raise TraceError("adding integers by index")
        total: Scalar = ctx.graph.read(scatter_sum(ctx, flat, lines, rows))
        if not (isinstance(bottom.scalar, Imm) and bottom.scalar.bits == 0):
            total = ctx.s.op(Op.ADD, bottom.scalar, total)
    else:
        total = _last_write(ctx, flat, lines, bottom)
    after = Value((rows, *rest), total, base.torch_dtype)
    after = reshape_to(ctx, after, front.shape)
    return permuted(ctx, after, [order.index(a) for a in range(rank)])


def _masked_put(ctx: Context, base: Value, mask: Value, source: Value, accumulate: bool) -> Value:
    """Write or add one number where a mask over the first axes is true."""
    shape = (*mask.shape, *(1 for _ in base.shape[len(mask.shape) :]))
    test = ctx.scalar(reshape_to(ctx, mask, shape), torch.bool, base.shape)
    number = ctx.scalar(reshape_to(ctx, source, ()), base.torch_dtype, base.shape)
    if accumulate:
        number = ctx.s.op(Op.ADD if base.dtype is DType.F32 else Op.IADD, base.scalar, number)
    return ctx.result(choose(ctx, test, number, base.scalar))


def _last_write(ctx: Context, index: Value, source: Value, base: Value) -> Scalar:
    """Return the row of `source [K, ..]` that was written last to each row, or that of `base`."""
    s, rows, count = ctx.s, base.shape[0], source.shape[0]
    at = onto(ctx, ctx.index(index), [1], index.shape)
    here = s.index(Affine.of(0) if rows > 1 else Affine())
    position = s.index(Affine.of(1) if count > 1 else Affine())
    hit = s.op(Op.IEQ, scalar_of(ctx, at), here)
    term = s.op(Op.IWHERE, hit, position, s.i32(-1))
    last = ctx.graph.read(ctx.graph.fold(Fold.IMAX, (term,), (rows,), (count,)))
    mapping = [Affine.of(last) if count > 1 else Affine(), *identity(len(base.shape))[1:]]
    written = substitute(s, source.scalar, mapping)
    return choose(ctx, s.op(Op.ILT, last, s.i32(0)), base.scalar, written)


@lowering("scatter.value", "scatter.src")
def scatter(ctx: Context, base: Value, dim: int, index: Value, source: Value | float) -> Value:
    """Write along one axis where an index says."""
    dim %= len(base.shape)
    others = [a for a in range(len(base.shape)) if a != dim]
    if any(index.shape[a] != base.shape[a] for a in others):
        raise TraceError("the index is smaller than the tensor in another dim")
    number = number_of(source)
    if index.shape[dim] == 1:
        at = onto(ctx, ctx.index(index), range(len(base.shape)), index.shape)
        here = ctx.s.index(Affine.of(dim) if base.shape[dim] > 1 else Affine())
        hit = ctx.s.op(Op.IEQ, scalar_of(ctx, at), here)
        if isinstance(source, Value) and number is None:
            source = ctx.moved(source, index.shape, identity(len(base.shape)))
        value = ctx.scalar(source, base.torch_dtype, base.shape)
        return ctx.result(choose(ctx, hit, value, base.scalar))
    last = _last_along(ctx, index, base.shape, dim)
    if isinstance(source, Value) and number is None:
        mapping = identity(len(base.shape))
        mapping[dim] = Affine.of(last)
        value = substitute(ctx.s, ctx.plain(source), mapping)
    else:
        value = ctx.scalar(source, base.torch_dtype, base.shape)
    return ctx.result(choose(ctx, ctx.s.op(Op.ILT, last, ctx.s.i32(0)), base.scalar, value))


def _last_along(ctx: Context, index: Value, shape: Shape, dim: int) -> Load:
    """Return which position along `dim` of an index names each element last, or -1."""
    s, rank = ctx.s, len(shape)
    axes = [rank if a == dim else a for a in range(rank)]
    at = onto(ctx, ctx.index(index), axes, index.shape)
    here = s.index(Affine.of(dim) if shape[dim] > 1 else Affine())
    hit = s.op(Op.IEQ, scalar_of(ctx, at), here)
    term = s.op(Op.IWHERE, hit, s.index(Affine.of(rank)), s.i32(-1))
    return ctx.graph.read(ctx.graph.fold(Fold.IMAX, (term,), shape, (index.shape[dim],)))


@lowering("scatter_add.default")
def scatter_add(ctx: Context, base: Value, dim: int, index: Value, source: Value) -> Value:
    """Add along one axis where an index says."""
    rank, dim = len(base.shape), dim % len(base.shape)
    if any(index.shape[a] != base.shape[a] for a in range(rank) if a != dim):
        raise TraceError("the index is smaller than the tensor in another dim")
    if base.dtype is not DType.F32:
        raise TraceError("adding integers by index")
    axes = [rank if a == dim else a for a in range(rank)]
    at = onto(ctx, ctx.index(index), axes, index.shape)
    load = ctx.plain(source)
    mapping = [Affine.of(a) if n > 1 else Affine() for a, n in zip(axes, index.shape, strict=True)]
    term = masked(ctx, at, dim, base.shape[dim], substitute(ctx.s, load, mapping))
    number = ctx.graph.fold(Fold.SUM, (term,), base.shape, (index.shape[dim],))
    total: Scalar = ctx.graph.read(number)
    if not (isinstance(base.scalar, Imm) and base.scalar.bits == 0):
        total = ctx.s.op(Op.ADD, base.scalar, total)
    return ctx.result(total)
