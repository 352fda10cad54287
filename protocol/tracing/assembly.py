# SPDX-License-Identifier: GPL-3.0-or-later
"""Lowerings of operations that put tensors together: concatenation, padding, writing slices.

What lies outside of a piece is the fill of a view where it is one number, else a choice by
position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from protocol.node_encoding import MAX_OPERANDS
from protocol.ops import Op
from protocol.tracing.elementwise import choose
from protocol.tracing.emit import cost
from protocol.tracing.graph import Value
from protocol.tracing.lowering import Context, lowering
from protocol.tracing.movement import identity
from protocol.tracing.scalars import Affine, Imm, Load, Place, Scalar

FEW: Final = 4
"""Pieces that are concatenated by the node that reads them."""


@lowering("cat.default")
def cat(ctx: Context, values: Sequence[Value], dim: int = 0) -> Value:
    """Concatenate along an axis."""
    axis, dtype = dim % len(ctx.shape), ctx.meta.dtype
    pieces = [
        Value(v.shape, ctx.cast(v.scalar, v.torch_dtype, dtype), dtype)
        for v in values
        if v.shape != (0,)
    ]
    if not pieces:
        raise NotImplementedError("an empty concatenation")
    return joined(ctx, pieces, axis)


def joined(ctx: Context, pieces: Sequence[Value], axis: int) -> Value:
    """Return tensors of one dtype side by side: the piece is chosen by the position on the axis.

    Many pieces are joined in groups, and the groups likewise, each stored: an element then costs a
    few choices, not one for each piece.
    """
    if len(pieces) <= FEW:
        return _joined(ctx, pieces, axis)
    while len(pieces) > 1:
        groups = _groups(pieces)
        pieces = [_joined(ctx, group, axis) for group in groups]
        for piece in pieces:
            ctx.graph.store(piece)
    return pieces[0]


def _groups(pieces: Sequence[Value]) -> list[list[Value]]:
    """Cut a list of tensors into runs that one node can read, of two or more where there are."""
    groups: list[list[Value]] = []
    room = 0
    for piece in pieces:
        operands = cost(piece.scalar).operands
        if operands > room and (not groups or len(groups[-1]) > 1):
            groups.append([])
            room = MAX_OPERANDS - 1  # one is the position
        groups[-1].append(piece)
        room -= operands
    return groups


def _joined(ctx: Context, pieces: Sequence[Value], axis: int) -> Value:
    shape = list(pieces[0].shape)
    end = shape[axis] = sum(piece.shape[axis] for piece in pieces)
    parts: list[Scalar] = []
    for piece in reversed(pieces):
        start = end - piece.shape[axis]
        mapping = identity(len(shape))
        mapping[axis] = Affine.of(axis, 1, -start) if piece.shape[axis] > 1 else Affine()
        part = ctx.moved(piece, tuple(shape), mapping).scalar
        if parts:
            before = ctx.s.op(Op.ILT, ctx.s.index(Affine.of(axis)), ctx.s.i32(end))
            part = choose(ctx, before, part, parts[-1])
        parts.append(part)
        end = start
    return Value(tuple(shape), parts[-1], pieces[0].torch_dtype)


def widen(
    ctx: Context, value: Value, axis: int, size: int, start: int, step: int = 1, fill: int = 0
) -> Value:
    """Return `value` inside a larger axis: element i at `start + step * i`, `fill` elsewhere."""
    shape = (*value.shape[:axis], size, *value.shape[axis + 1 :])
    if isinstance(value.scalar, Imm) and value.scalar.bits == fill:
        return Value(shape, value.scalar, value.torch_dtype)
    places = _widened(value, axis, start, step, fill)
    if places is None:
        ctx.graph.store(value)
        places = _widened(value, axis, start, step, fill)
    if places is None or not isinstance(value.scalar, Load):
        raise TypeError("a stored tensor can be seen through any window")
    load = ctx.s.load(value.scalar.buffer, places, fill, value.scalar.dtype)
    return Value(shape, load, value.torch_dtype)


def _widened(value: Value, axis: int, start: int, step: int, fill: int) -> tuple[Place, ...] | None:
    """Return the places of a load with a window on one axis, or None if it has no such form."""
    load, n = value.scalar, value.shape[axis]
    if not isinstance(load, Load):
        return None
    window = Place(n, Affine.of(axis, 1, -start), 0, n, step, inside=False)
    if n == 1:
        return (*load.places, window) if load.fill == fill else None
    places, found = [], 0
    for place in load.places:
        if place.plain and place.at == Affine.of(axis) and place.size == n:
            places.append(window)
            found += 1
        elif place.at.coef(axis) or not (place.plain or load.fill == fill):
            return None
        else:
            places.append(place)
    return tuple(places) if found == 1 else None


@lowering("constant_pad_nd.default")
def constant_pad_nd(ctx: Context, value: Value, pad: Sequence[int], number: float = 0) -> Value:
    """Pad (or, with negative amounts, crop) axes from the last one on."""
    fill = ctx.scalar(number, value.torch_dtype, ())
    if not isinstance(fill, Imm):
        raise TypeError("a number is an immediate")
    result = value
    for i in range(len(pad) // 2):
        axis = len(value.shape) - 1 - i
        before, after = pad[2 * i], pad[2 * i + 1]
        if before < 0 or after < 0:
            size = result.shape[axis] + min(before, 0) + min(after, 0)
            mapping = identity(len(value.shape))
            mapping[axis] = Affine.of(axis, 1, max(-before, 0))
            shape = (*result.shape[:axis], size, *result.shape[axis + 1 :])
            result = ctx.moved(result, shape, mapping)
        if before > 0 or after > 0:
            size = result.shape[axis] + max(before, 0) + max(after, 0)
            result = widen(ctx, result, axis, size, max(before, 0), 1, fill.bits)
    return result


@lowering("slice_scatter.default")
def slice_scatter(
    ctx: Context,
    base: Value,
    source: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    """Write a slice: a window where the base is zero, else a choice by position."""
    axis = dim % len(base.shape)
    size = base.shape[axis]
    first, last, _ = slice(start, end, step).indices(size)
    scalar = ctx.broadcast(source.scalar, source.shape, source.shape)
    source = Value(source.shape, scalar, source.torch_dtype)
    inside = widen(ctx, source, axis, size, first, step)
    if isinstance(base.scalar, Imm) and base.scalar.bits == 0:
        return ctx.result(inside.scalar)
    if step != 1:
        raise NotImplementedError("a strided slice_scatter onto a base that is not zero")
    at = ctx.s.index(Affine.of(axis))
    within = ctx.s.op(
        Op.AND,
        ctx.s.op(Op.ILT, ctx.s.i32(first - 1), at),
        ctx.s.op(Op.ILT, at, ctx.s.i32(last)),
    )
    return ctx.result(choose(ctx, within, inside.scalar, base.scalar))


@lowering("select_scatter.default")
def select_scatter(ctx: Context, base: Value, source: Value, dim: int, index: int) -> Value:
    """Write one position of an axis."""
    axis = dim % len(base.shape)
    index %= base.shape[axis]
    mapping = [Affine.of(a + (a >= axis)) for a in range(len(source.shape))]
    shape = (*base.shape[:axis], 1, *base.shape[axis + 1 :])
    row = ctx.moved(source, shape, mapping)
    return slice_scatter(ctx, base, row, axis, index, index + 1)  # type: ignore[no-any-return]


@lowering("diagonal_scatter.default")
def diagonal_scatter(
    ctx: Context, base: Value, source: Value, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Value:
    """Write the elements where two axes are equal, but for an offset."""
    rank = len(base.shape)
    rows, columns = dim1 % rank, dim2 % rank
    ctx.graph.store(source)
    others = [a for a in range(rank) if a not in (rows, columns)]
    mapping = [*map(Affine.of, others), Affine.of(rows, 1, min(offset, 0))]
    there = ctx.moved(source, base.shape, mapping).scalar
    apart = ctx.s.index(Affine.of(columns).plus(Affine.of(rows), -1))
    return ctx.result(choose(ctx, ctx.s.op(Op.IEQ, apart, ctx.s.i32(offset)), there, base.scalar))
