# SPDX-License-Identifier: GPL-3.0-or-later
"""Lowerings of what picks elements by their order: argmax, max and min of an axis, topk.

Floats are compared by an integer that has their order: the pattern, with the lower bits flipped
where it is negative. A NaN is canonical and so the largest, as in torch, and -0 is made +0 first.
The first of equal elements wins.
"""

from __future__ import annotations

from typing import Final

import torch

from protocol.errors import TraceError
from protocol.ops import Op
from protocol.program import DType, Fold
from protocol.tracing.assembly import joined
from protocol.tracing.graph import Value
from protocol.tracing.lowering import Context, lowering
from protocol.tracing.movement import identity, reshape_to
from protocol.tracing.moves import substitute
from protocol.tracing.reductions import reduce
from protocol.tracing.scalars import Affine, Scalar

LOWEST: Final = -1 << 31
MOST: Final = 32
"""The largest k of topk: each takes two passes over the axis."""


def order(ctx: Context, value: Value, largest: bool) -> Scalar:
    """Return an integer for each element: the largest for the element that is wanted first."""
    s, x = ctx.s, value.scalar
    if value.dtype is DType.I32:
        return x if largest else s.op(Op.XOR, x, s.i32(-1))
    bits = s.op(Op.F2BITS, s.op(Op.ADD, x if largest else s.op(Op.NEG, x), s.f32(0.0)))
    flipped = s.op(Op.SHR, s.op(Op.SAR, bits, s.i32(31)), s.i32(1))
    return s.op(Op.XOR, bits, flipped)


def _kept(ctx: Context, number: int, value: Value, axis: int) -> Value:
    """Return a fold along one axis with that axis as one of size 1."""
    shape = tuple(1 if a == axis else n for a, n in enumerate(value.shape))
    mapping = [Affine.of(a) for a in range(len(shape)) if a != axis]
    found = Value(ctx.graph.nodes[number].shape, ctx.graph.read(number), torch.int64)
    return ctx.moved(found, shape, mapping)


def first(
    ctx: Context, value: Value, axis: int, key: Scalar, alive: Scalar | None = None
) -> tuple[Value, Value]:
    """Return the largest key along an axis and where it is first, both with the axis of size 1.

    Where `alive` is 0 an element is not looked at; some element has to be.
    """
    s = ctx.s
    position = s.index(Affine.of(axis)) if value.shape[axis] > 1 else s.i32(0)
    seen = key if alive is None else s.op(Op.IWHERE, alive, key, s.i32(LOWEST))
    top = _kept(ctx, reduce(ctx, Fold.IMAX, value, seen, [axis]), value, axis)
    hit = s.op(Op.IEQ, key, ctx.broadcast(top.scalar, top.shape, value.shape))
    if alive is not None:
        hit = s.op(Op.AND, hit, alive)
    back = s.op(Op.IWHERE, hit, s.op(Op.ISUB, s.i32(0), position), s.i32(LOWEST))
    found = _kept(ctx, reduce(ctx, Fold.IMAX, value, back, [axis]), value, axis)
    place = s.op(Op.ISUB, s.i32(0), found.scalar)
    return top, Value(found.shape, place, torch.int64)


def taken(ctx: Context, value: Value, axis: int, index: Value) -> Value:
    """Return the elements of a value at these places of an axis."""
    mapping = identity(len(value.shape))
    mapping[axis] = ctx.index(index) if value.shape[axis] > 1 else Affine()
    scalar = substitute(ctx.s, ctx.plain(value), mapping)
    return Value(index.shape, scalar, value.torch_dtype)


def _dropped(ctx: Context, value: Value, axis: int, keep: bool) -> Value:
    shape = tuple(n for a, n in enumerate(value.shape) if a != axis)
    return value if keep else reshape_to(ctx, value, shape)


def _position(ctx: Context, value: Value, dim: int | None, keep: bool, largest: bool) -> Value:
    if dim is None:
        value, dim = reshape_to(ctx, value, (value.numel,)), 0
    elif not value.shape:
        return ctx.result(ctx.s.i32(0))
    axis = dim % len(value.shape)
    _, index = first(ctx, value, axis, order(ctx, value, largest))
    return reshape_to(ctx, _dropped(ctx, index, axis, keep), ctx.shape)


@lowering("argmax.default")
def argmax(ctx: Context, value: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    """Where the largest element is first."""
    return _position(ctx, value, dim, keepdim, largest=True)


@lowering("argmin.default")
def argmin(ctx: Context, value: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    """Where the smallest element is first."""
    return _position(ctx, value, dim, keepdim, largest=False)


def _extreme(
    ctx: Context, value: Value, dim: int, keep: bool, largest: bool
) -> tuple[Value, Value]:
    axis = dim % len(value.shape)
    _, index = first(ctx, value, axis, order(ctx, value, largest))
    found = taken(ctx, value, axis, index)
    return _dropped(ctx, found, axis, keep), _dropped(ctx, index, axis, keep)


@lowering("max.dim")
def max_dim(ctx: Context, value: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    """The largest element of an axis and where it is."""
    return _extreme(ctx, value, dim, keepdim, largest=True)


@lowering("min.dim")
def min_dim(ctx: Context, value: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    """The smallest element of an axis and where it is."""
    return _extreme(ctx, value, dim, keepdim, largest=False)


@lowering("topk.default")
def topk(
    ctx: Context, value: Value, k: int, dim: int = -1, largest: bool = True, sort: bool = True
) -> tuple[Value, Value]:
    """The k largest elements of an axis in order, each found after the one before."""
    del sort  # they come in order anyway
    if k > MOST:
        raise TraceError(f"topk of {k} elements: at most {MOST} are picked one by one")
    axis, s = dim % len(value.shape), ctx.s
    ctx.graph.keep(value)
    key = order(ctx, value, largest)
    here = s.index(Affine.of(axis)) if value.shape[axis] > 1 else s.i32(0)
    pieces: list[Value] = []
    alive: Scalar | None = None
    for _ in range(k):
        top, index = first(ctx, value, axis, key, alive)
        ctx.graph.keep(index)
        pieces.append(index)
        last = ctx.broadcast(top.scalar, top.shape, value.shape)
        place = ctx.broadcast(index.scalar, index.shape, value.shape)
        tied = s.op(Op.AND, s.op(Op.IEQ, key, last), s.op(Op.ILT, place, here))
        alive = s.op(Op.OR, s.op(Op.ILT, key, last), tied)
    indices = joined(ctx, pieces, axis)
    return taken(ctx, value, axis, indices), indices
