# SPDX-License-Identifier: GPL-3.0-or-later
"""Lowerings of reductions: one FOLD whose term is the producer's expression.

A SUM has sixteen lanes where the innermost reduced axis is the innermost axis of its operand (the
elements of a vector register lie side by side), else one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from protocol.errors import TraceError
from protocol.ops import Op
from protocol.program import Fold, Shape
from protocol.tracing.graph import LANES, Value
from protocol.tracing.lowering import Context, lowering
from protocol.tracing.moves import substitute
from protocol.tracing.scalars import Affine, Scalar

Dims = int | Sequence[int] | None


def reduced_axes(value: Value, dims: Dims) -> list[int]:
    """Return the axes that torch's `dim` argument names; none or an empty list means all."""
    rank = len(value.shape)
    if dims is None or (not isinstance(dims, int) and len(dims) == 0):
        return list(range(rank))
    chosen = [dims] if isinstance(dims, int) else dims
    return sorted({d % rank for d in chosen}) if rank else []


def reduce(ctx: Context, fold: Fold, value: Value, term: Scalar, axes: list[int]) -> int:
    """Fold `term`, over the axes of `value`, along `axes`, which the node returned lacks."""
    kept = [a for a in range(len(value.shape)) if a not in axes]
    order = [*kept, *axes]
    mapping = [
        Affine.of(order.index(a)) if value.shape[a] > 1 else Affine()
        for a in range(len(value.shape))
    ]
    sizes = tuple(value.shape[a] for a in axes)
    lanes = 1
    if fold is Fold.SUM and axes and axes[-1] == len(value.shape) - 1:
        lanes = LANES if sizes[-1] >= LANES else 1
    shape: Shape = tuple(value.shape[a] for a in kept)
    return ctx.graph.fold(fold, (substitute(ctx.s, term, mapping),), shape, sizes, lanes)


def with_kept_dims(ctx: Context, number: int, value: Value, axes: list[int], keep: bool) -> Value:
    """Return a reduction's node as the result, with axes of size 1 where `keep` says so."""
    result = ctx.from_node(number)
    if not keep:
        return result
    shape = tuple(1 if a in axes else n for a, n in enumerate(value.shape))
    mapping = [Affine.of(a) for a in range(len(value.shape)) if a not in axes]
    return ctx.moved(result, shape, mapping)


@lowering("sum.dim_IntList", "sum.default", "prims.sum.default")
def sum_(
    ctx: Context, value: Value, dims: Dims = None, keepdim: bool = False, **_: object
) -> Value:
    """Sum over axes; integers and booleans as i32."""
    axes = reduced_axes(value, dims)
    dtype = ctx.meta.dtype
    fold = Fold.SUM if dtype == torch.float32 else Fold.ISUM
    number = reduce(ctx, fold, value, ctx.scalar(value, dtype, value.shape), axes)
    return with_kept_dims(ctx, number, value, axes, keepdim)


@lowering("mean.dim", "mean.default")
def mean(
    ctx: Context, value: Value, dims: Dims = None, keepdim: bool = False, **_: object
) -> Value:
    """The sum divided by the number of elements."""
    total: Value = sum_(ctx, value, dims, keepdim)
    count = math.prod(value.shape[a] for a in reduced_axes(value, dims))
    return ctx.result(ctx.s.op(Op.DIV, total.scalar, ctx.s.f32(float(count))))


@lowering("amax.default", "max.default", "prims.amax.default")
def amax(ctx: Context, value: Value, dims: Dims = None, keepdim: bool = False) -> Value:
    """The largest element; a NaN wins."""
    axes = reduced_axes(value, dims)
    fold = Fold.MAX if ctx.meta.dtype == torch.float32 else Fold.IMAX
    return with_kept_dims(ctx, reduce(ctx, fold, value, value.scalar, axes), value, axes, keepdim)


@lowering("amin.default", "min.default")
def amin(ctx: Context, value: Value, dims: Dims = None, keepdim: bool = False) -> Value:
    """The smallest element, as the negated largest of the negated."""
    if ctx.meta.dtype != torch.float32:
        raise TraceError("the smallest integer")
    axes = reduced_axes(value, dims)
    number = reduce(ctx, Fold.MAX, value, ctx.s.op(Op.NEG, value.scalar), axes)
    largest = with_kept_dims(ctx, number, value, axes, keepdim)
    return ctx.result(ctx.s.op(Op.NEG, largest.scalar))


@lowering("any.default", "any.dim", "any.dims")
def any_(ctx: Context, value: Value, dims: Dims = None, keepdim: bool = False) -> Value:
    """Whether some element is nonzero."""
    axes = reduced_axes(value, dims)
    term = ctx.scalar(value, torch.bool, value.shape)
    return with_kept_dims(ctx, reduce(ctx, Fold.IMAX, value, term, axes), value, axes, keepdim)


@lowering("prims.var.default", "var.correction")
def variance(
    ctx: Context,
    value: Value,
    dims: Dims = None,
    correction: float | None = 1,
    keepdim: bool = False,
    **_: object,
) -> Value:
    """Mean square of the distances from the mean, in two passes; `correction` is taken off n."""
    s, axes = ctx.s, reduced_axes(value, dims)
    ctx.graph.keep(value)
    count = math.prod(value.shape[a] for a in axes)
    total = reduce(ctx, Fold.SUM, value, value.scalar, axes)
    centre = with_kept_dims(ctx, total, value, axes, keep=True)
    middle = s.op(Op.DIV, ctx.broadcast(centre.scalar, centre.shape, value.shape), s.f32(count))
    distance = s.op(Op.SUB, value.scalar, middle)
    number = reduce(ctx, Fold.SUM, value, s.op(Op.MUL, distance, distance), axes)
    squares = with_kept_dims(ctx, number, value, axes, keepdim)
    divisor = max(0.0, count - (1 if correction is None else correction))
    return ctx.result(s.op(Op.DIV, squares.scalar, s.f32(divisor)), squares.shape)


@lowering("linalg_vector_norm.default")
def vector_norm(
    ctx: Context,
    value: Value,
    order: float = 2,
    dims: Dims = None,
    keepdim: bool = False,
    **_: object,
) -> Value:
    """Norms of vectors: Euclidean, sums of magnitudes, the largest magnitude."""
    s, axes, x = ctx.s, reduced_axes(value, dims), value.scalar
    if order not in (1, 2, math.inf):
        raise TraceError(f"the norm of order {order} (only 1, 2 and infinity)")
    term = s.op(Op.MUL, x, x) if order == 2 else s.op(Op.ABS, x)
    number = reduce(ctx, Fold.MAX if order == math.inf else Fold.SUM, value, term, axes)
    found = with_kept_dims(ctx, number, value, axes, keepdim)
    return ctx.result(s.op(Op.SQRT, found.scalar)) if order == 2 else found
