# SPDX-License-Identifier: GPL-3.0-or-later
"""Lowerings of operations that move elements: they store nothing, but where no view can express it.

Negative dims are as in torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from protocol.program import Shape
from protocol.tracing.graph import Value
from protocol.tracing.lowering import Context, lowering
from protocol.tracing.moves import NotAffine, merge, row_major
from protocol.tracing.scalars import Affine


def identity(rank: int) -> list[Affine]:
    """Return the mapping that changes nothing."""
    return [Affine.of(axis) for axis in range(rank)]


@lowering("view.default", "_unsafe_view.default", "reshape.default", move=True)
def reshape(ctx: Context, value: Value, shape: Sequence[int]) -> Value:
    """Reshape to `ctx.shape`; copies where merged axes do not lie one after the other."""
    del shape
    return reshape_to(ctx, value, ctx.shape)


@lowering("as_strided.default", move=True)
def as_strided(
    ctx: Context, value: Value, shape: Sequence[int], stride: Sequence[int], offset: int = 0
) -> Value:
    """A view of the memory of a contiguous tensor, where that is only a reshape."""
    given = ctx.node.all_input_nodes[0].meta["val"]
    whole = (
        given.is_contiguous() and given.storage_offset() == 0 and math.prod(shape) == value.numel
    )
    expected = row_major(tuple(shape))
    if (
        not whole
        or offset
        or any(n > 1 and a != b for n, a, b in zip(shape, stride, expected, strict=True))
    ):
        raise NotImplementedError("a view of memory with strides of its own")
    return reshape_to(ctx, value, ctx.shape)


def reshape_to(ctx: Context, value: Value, target: Shape) -> Value:
    """Return `value` in another shape with as many elements."""
    if value.shape == target:
        return value
    try:
        return _reshape(ctx, value, target)
    except NotAffine:
        ctx.graph.store(value)
        return _reshape(ctx, value, target)


def _reshape(ctx: Context, value: Value, target: Shape) -> Value:
    squeezed = squeeze_axes(ctx, value, [a for a, n in enumerate(value.shape) if n == 1])
    wanted = tuple(size for size in target if size > 1)
    scalar, shape = squeezed.scalar, squeezed.shape
    mapping: list[Affine] = []
    axis = start = 0
    while axis < len(shape):
        # The fewest old axes that hold as many elements as some number of new ones.
        count, new = 1, 0
        while True:
            old_size = math.prod(shape[axis : axis + count])
            new_size = math.prod(wanted[start : start + new])
            if old_size == new_size:
                break
            if old_size < new_size:
                count += 1
            else:
                new += 1
        scalar = merge(ctx.s, scalar, axis, shape[axis : axis + count])
        shape = (*shape[:axis], old_size, *shape[axis + count :])
        strides = row_major(wanted[start : start + new])
        mapping.append(Affine(tuple((start + i, stride) for i, stride in enumerate(strides))))
        axis, start = axis + 1, start + new
    split = ctx.moved(Value(shape, scalar, value.torch_dtype), wanted, mapping)
    positions = [a for a, size in enumerate(target) if size > 1]
    return ctx.moved(split, target, [Affine.of(a) for a in positions])


def squeeze_axes(ctx: Context, value: Value, axes: Sequence[int]) -> Value:
    """Drop axes of size 1."""
    kept = [a for a in range(len(value.shape)) if a not in axes]
    mapping = [Affine.of(kept.index(a)) if a in kept else Affine() for a in range(len(value.shape))]
    return ctx.moved(value, tuple(value.shape[a] for a in kept), mapping)


@lowering("squeeze.default", "squeeze.dim", "squeeze.dims", move=True)
def squeeze(ctx: Context, value: Value, dims: int | Sequence[int] | None = None) -> Value:
    """Drop the given dims of size 1, or all."""
    rank = len(value.shape)
    chosen = range(rank) if dims is None else [dims] if isinstance(dims, int) else dims
    axes = [d % rank for d in chosen if rank and value.shape[d % rank] == 1]
    return squeeze_axes(ctx, value, axes)


@lowering("unsqueeze.default", move=True)
def unsqueeze(ctx: Context, value: Value, dim: int) -> Value:
    """Insert a dim of size 1."""
    dim %= len(value.shape) + 1
    mapping = [Affine.of(a + (a >= dim)) for a in range(len(value.shape))]
    return ctx.moved(value, ctx.shape, mapping)


@lowering("permute.default", move=True)
def permute(ctx: Context, value: Value, dims: Sequence[int]) -> Value:
    """Axis i of the result is axis `dims[i]` of the argument."""
    return permuted(ctx, value, [d % len(value.shape) for d in dims])


def permuted(ctx: Context, value: Value, order: Sequence[int]) -> Value:
    """Return the tensor whose axis i is axis `order[i]` of `value`."""
    mapping = [Affine.of(order.index(a)) for a in range(len(order))]
    return ctx.moved(value, tuple(value.shape[a] for a in order), mapping)


@lowering("t.default", move=True)
def transpose2(ctx: Context, value: Value) -> Value:
    """Transpose a matrix."""
    return permuted(ctx, value, [1, 0]) if len(value.shape) == 2 else value


@lowering("transpose.int", move=True)
def transpose(ctx: Context, value: Value, first: int, second: int) -> Value:
    """Exchange two dims."""
    rank = len(value.shape)
    places = list(range(rank))
    places[first % rank], places[second % rank] = second % rank, first % rank
    return permuted(ctx, value, places)


@lowering("expand.default", move=True)
def expand(ctx: Context, value: Value, shape: Sequence[int], **_: object) -> Value:
    """Repeat axes of size 1."""
    del shape
    scalar = ctx.broadcast(value.scalar, value.shape, ctx.shape)
    return Value(ctx.shape, scalar, value.torch_dtype)


@lowering("prims.broadcast_in_dim.default", move=True)
def broadcast_in_dim(
    ctx: Context, value: Value, shape: Sequence[int], dims: Sequence[int]
) -> Value:
    """Axis i of the argument becomes axis `dims[i]`; all others are repeated."""
    del shape
    mapping = [Affine.of(d) if n > 1 else Affine() for d, n in zip(dims, value.shape, strict=True)]
    return ctx.moved(value, ctx.shape, mapping)


@lowering("repeat.default", move=True)
def repeat(ctx: Context, value: Value, repeats: Sequence[int]) -> Value:
    """Repeat whole axes, new ones in front: an axis of its own for each, merged with it."""
    extra = len(repeats) - len(value.shape)
    shape: list[int] = []
    mapping: list[Affine] = []
    for position, times in enumerate(repeats):
        shape.append(times)
        if position >= extra:
            mapping.append(Affine.of(len(shape)))
            shape.append(value.shape[position - extra])
    return reshape_to(ctx, ctx.moved(value, tuple(shape), mapping), ctx.shape)


@lowering("slice.Tensor", move=True)
def slice_(
    ctx: Context,
    value: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    """Take every `step`-th element from `start` on."""
    first, _, _ = slice(start, end, step).indices(value.shape[dim % len(value.shape)])
    mapping = identity(len(value.shape))
    mapping[dim % len(value.shape)] = Affine.of(dim % len(value.shape), step, first)
    return ctx.moved(value, ctx.shape, mapping)


@lowering("select.int", move=True)
def select(ctx: Context, value: Value, dim: int, index: int) -> Value:
    """Take one position of an axis."""
    dim %= len(value.shape)
    mapping = [Affine.of(a - (a > dim)) for a in range(len(value.shape))]
    mapping[dim] = Affine((), index % value.shape[dim])
    return ctx.moved(value, ctx.shape, mapping)


@lowering("flip.default", move=True)
def flip(ctx: Context, value: Value, dims: Sequence[int]) -> Value:
    """Reverse axes."""
    mapping = identity(len(value.shape))
    for dim in dims:
        axis = dim % len(value.shape)
        mapping[axis] = Affine.of(axis, -1, value.shape[axis] - 1)
    return ctx.moved(value, ctx.shape, mapping)


@lowering("split_with_sizes.default")
def split_with_sizes(
    ctx: Context, value: Value, sizes: Sequence[int], dim: int = 0
) -> tuple[Value, ...]:
    """Cut an axis into pieces."""
    axis, start, pieces = dim % len(value.shape), 0, []
    for size in sizes:
        mapping = identity(len(value.shape))
        mapping[axis] = Affine.of(axis, 1, start)
        shape = (*value.shape[:axis], size, *value.shape[axis + 1 :])
        pieces.append(ctx.moved(value, shape, mapping))
        start += size
    return tuple(pieces)


@lowering("diagonal.default", move=True)
def diagonal(ctx: Context, value: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    """The elements where two axes are equal, but for an offset, along a new last axis."""
    rank = len(value.shape)
    rows, columns, last = dim1 % rank, dim2 % rank, rank - 2
    others = [a for a in range(rank) if a not in (rows, columns)]
    mapping = [Affine.of(others.index(a)) if a in others else Affine() for a in range(rank)]
    mapping[rows] = Affine.of(last, 1, max(-offset, 0))
    mapping[columns] = Affine.of(last, 1, max(offset, 0))
    return ctx.moved(value, ctx.shape, mapping)


@lowering("unfold.default", move=True)
def unfold(ctx: Context, value: Value, dim: int, size: int, step: int) -> Value:
    """Windows over an axis, their elements along a new last axis."""
    del size
    rank = len(value.shape)
    mapping = identity(rank)
    mapping[dim % rank] = Affine.of(dim % rank, step).plus(Affine.of(rank))
    return ctx.moved(value, ctx.shape, mapping)
