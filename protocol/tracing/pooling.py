# SPDX-License-Identifier: GPL-3.0-or-later
"""Lowerings of pooling over the last two axes: folds over a window view, backward over its inverse.

Adaptive pooling takes windows of unequal sizes where they do not divide evenly: tables say then at
which position an element of a window is, and which window covers a position.

Maxima read -inf outside and are the first match in row-major order, as in torch: the index that the
backward pass needs is found by equality. (A window whose maximum is a NaN has no match; torch names
one of its NaNs.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from protocol.float32 import POSITIVE_ZERO
from protocol.ops import Op
from protocol.program import DType, Fold, Shape
from protocol.tracing.convolution import Taps, along, place, stored
from protocol.tracing.graph import Value
from protocol.tracing.lowering import Context, constant_value, lowering
from protocol.tracing.scalars import Affine, Load, Place, Scalar

NEGATIVE_INFINITY: Final = 0xFF800000
NAN: Final = 0x7FC00000
NO_POSITION: Final = 0xFFFFFFFF
"""-1: what indices read outside of the windows."""

Sizes = Sequence[int]


def pair(sizes: Sizes, otherwise: Sizes = ()) -> tuple[int, int]:
    """Return two sizes, given as two, as one for both, or left out."""
    sizes = sizes or otherwise
    return (sizes[0], sizes[-1])


Table = np.ndarray[Any, np.dtype[np.int32]]


def _windows(size: int, parts: int) -> Table:
    """Return the positions `[parts, K]` of the windows of adaptive pooling; -1 is none.

    Window i is from `floor(i * size / parts)` to before `ceil((i + 1) * size / parts)`.
    """
    starts = np.arange(parts) * size // parts
    ends = -(-(np.arange(parts) + 1) * size // parts)
    at = starts[:, None] + np.arange((ends - starts).max())
    return np.where(at < ends[:, None], at, -1).astype(np.int32)


def _coverings(windows: Table, size: int) -> Table:
    """Return the windows `[size, K]` that cover each position; -1 is none."""
    found = [np.flatnonzero((windows == position).any(1)) for position in range(size)]
    table = np.full((size, max(map(len, found))), -1, np.int32)
    for position, covering in enumerate(found):
        table[position, : len(covering)] = covering
    return table


@dataclass(frozen=True)
class UnequalTaps:
    """What `Taps` are, by tables: `windows[d]` of positions, `coverings[d]` of windows."""

    ctx: Context
    windows: tuple[Table, Table]
    coverings: tuple[Table, Table]

    def position(self, d: int, size: int, out: tuple[int, int], tap: tuple[int, int]) -> Place:
        """Return the coordinate of axis d at a position; `out`, `tap` are `(axis, size)`."""
        return self._looked_up(self.windows[d], size, out, tap)

    def out(self, d: int, size: int, position: tuple[int, int], tap: tuple[int, int]) -> Place:
        """Return the coordinate of axis d at the k-th window that covers a position."""
        return self._looked_up(self.coverings[d], size, position, tap)

    def _looked_up(self, table: Table, size: int, *axes: tuple[int, int]) -> Place:
        number = self.ctx.graph.constant(table.view(np.uint32), DType.I32)
        places = tuple(place(n, Affine.of(axis)) for axis, n in axes)
        found = self.ctx.s.load(number, places, NO_POSITION, DType.I32)
        return Place(size, Affine.of(found), 0, size, inside=False)


@dataclass(frozen=True)
class Pool:
    """Windows over the last two axes of `whole`; `out` is the shape of one element per window.

    A window has at most `window` positions, and at most `covering` windows cover a position.
    """

    ctx: Context
    whole: Shape
    out: Shape
    window: tuple[int, int]
    taps: Taps | UnequalTaps
    covering: tuple[int, int]

    def _leading(self) -> list[Place]:
        return [place(size, Affine.of(axis)) for axis, size in enumerate(self.whole[:-2])]

    def over(self, value: Value, fill: int) -> Load:
        """Return what element k of each window reads."""
        return stored(self.ctx, value, [*self._leading(), *self._positions()], fill)

    def _positions(self) -> list[Place]:
        rank = len(self.out)
        return [
            self.taps.position(
                d,
                self.whole[rank - 2 + d],
                (rank - 2 + d, self.out[rank - 2 + d]),
                (rank + d, self.window[d]),
            )
            for d in range(2)
        ]

    def flat(self) -> Affine:
        """Return the position that element k of each window reads, row-major in its plane."""
        row, column = self._positions()
        return Affine().plus(row.at, self.whole[-1]).plus(column.at)

    def back(self, value: Value, fill: int) -> Load:
        """Return what the k-th window over each position holds, for a value of one per window."""
        rank, places = len(self.whole), self._leading()
        for d in range(2):
            position = (rank - 2 + d, self.whole[rank - 2 + d])
            tap = (rank + d, self.covering[d])
            places.append(self.taps.out(d, self.out[rank - 2 + d], position, tap))
        return stored(self.ctx, value, places, fill)

    def fold(self, fold: Fold, term: Scalar, dtype: torch.dtype) -> Value:
        """Return the fold of a term over the positions of each window."""
        number = self.ctx.graph.fold(fold, (term,), self.out, self.window)
        return Value(self.out, self.ctx.graph.read(number), dtype)

    def sum_back(self, term: Scalar) -> Value:
        """Return the sum of a term over the windows that cover each position."""
        number = self.ctx.graph.fold(Fold.SUM, (term,), self.whole, self.covering)
        return Value(self.whole, self.ctx.graph.read(number), torch.float32)


def _pool(
    ctx: Context,
    whole: Shape,
    out: Shape,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes = (1, 1),
) -> Pool:
    taps = Taps(pair(stride, kernel), pair(padding), pair(dilation))
    return Pool(ctx, whole, out, pair(kernel), taps, pair(kernel))


def _adaptive(ctx: Context, whole: Shape, out: Shape) -> Pool:
    """Return the windows of adaptive pooling: plain ones if they are equal."""
    sides = list(zip(whole[-2:], out[-2:], strict=True))
    if not any(size % parts for size, parts in sides):
        kernel = [size // parts for size, parts in sides]
        return _pool(ctx, whole, out, kernel, kernel, (0, 0))
    rows, columns = (_windows(size, parts) for size, parts in sides)
    back = _coverings(rows, whole[-2]), _coverings(columns, whole[-1])
    taps = UnequalTaps(ctx, (rows, columns), back)
    window, covering = (rows.shape[1], columns.shape[1]), (back[0].shape[1], back[1].shape[1])
    return Pool(ctx, whole, out, window, taps, covering)


# Maxima ------------------------------------------------------------------------------------------


def _maxima(pool: Pool, value: Value) -> tuple[Value, Value]:
    """Return the largest element of each window and where in its plane it is."""
    s = pool.ctx.s
    largest = pool.fold(Fold.MAX, pool.over(value, NEGATIVE_INFINITY), torch.float32)
    # The padding is no match, even where all of a window is -inf.
    match = s.op(Op.EQ, pool.over(value, NAN), largest.scalar)
    backwards = s.index(Affine().plus(pool.flat(), -1))
    term = s.op(Op.IWHERE, match, backwards, s.i32(-1 << 31))
    first = pool.fold(Fold.IMAX, term, torch.int64)
    return largest, Value(pool.out, s.op(Op.ISUB, s.i32(0), first.scalar), torch.int64)


def _to_maxima(pool: Pool, gradient: Value, indices: Value) -> Value:
    """Return the sum of the gradients of those windows whose maximum a position is."""
    s, rank, (height, width) = pool.ctx.s, len(pool.whole), pool.whole[-2:]
    here = along(rank - 2, height, width).plus(along(rank - 1, width))
    chosen = s.op(Op.IEQ, pool.back(indices, NO_POSITION), s.index(here))
    return pool.sum_back(s.op(Op.WHERE, chosen, pool.back(gradient, POSITIVE_ZERO), s.f32(0.0)))


@lowering("max_pool2d_with_indices.default", dot=True)
def max_pool2d(
    ctx: Context,
    value: Value,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = (0, 0),
    dilation: Sizes = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Value, Value]:
    """The largest element of each window and where in its plane it is."""
    del ceil_mode  # torch has computed the shape
    return _maxima(_pool(ctx, value.shape, ctx.shape, kernel, stride, padding, dilation), value)


@lowering("max_pool2d_with_indices_backward.default", dot=True)
def max_pool2d_backward(
    ctx: Context,
    gradient: Value,
    value: Value,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    indices: Value,
) -> Value:
    """The sum of the gradients of those windows whose maximum a position is."""
    del ceil_mode
    pool = _pool(ctx, value.shape, gradient.shape, kernel, stride, padding, dilation)
    return _to_maxima(pool, gradient, indices)


@lowering("adaptive_max_pool2d.default", dot=True)
def adaptive_max_pool2d(ctx: Context, value: Value, size: Sizes) -> tuple[Value, Value]:
    """The maxima of windows that share the plane, and where they are."""
    del size
    return _maxima(_adaptive(ctx, value.shape, ctx.shape), value)


@lowering("adaptive_max_pool2d_backward.default", dot=True)
def adaptive_max_pool2d_backward(
    ctx: Context, gradient: Value, value: Value, indices: Value
) -> Value:
    """The gradients, each at the maximum of its window."""
    return _to_maxima(_adaptive(ctx, value.shape, gradient.shape), gradient, indices)


# Means -------------------------------------------------------------------------------------------


def _counted(pool: Pool, whole: bool, d: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return how many positions along axis d each window counts, padding included if `whole`."""
    if isinstance(pool.taps, UnequalTaps):
        return np.asarray((pool.taps.windows[d] >= 0).sum(1))
    size, edge = pool.whole[len(pool.whole) - 2 + d], pool.taps.padding[d]
    start = np.arange(pool.out[len(pool.out) - 2 + d]) * pool.taps.stride[d] - edge
    end = np.minimum(start + pool.window[d], size + edge)
    if not whole:
        start, end = np.maximum(start, 0), np.minimum(end, size)
    return (end - start).astype(np.int64)


def _divisor(pool: Pool, whole: bool, override: int | None) -> Scalar:
    """Return what the sum of each window is divided by: one number, or a small constant tensor."""
    plane = np.multiply.outer(_counted(pool, whole, 0), _counted(pool, whole, 1))
    if override is not None:
        plane = np.full_like(plane, override)
    counts = constant_value(pool.ctx.graph, torch.from_numpy(plane).to(torch.float32))
    return pool.ctx.broadcast(counts.scalar, counts.shape, pool.out)


@lowering("avg_pool2d.default", dot=True)
def avg_pool2d(
    ctx: Context,
    value: Value,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """The sum of each window divided by the number of its positions."""
    del ceil_mode
    pool = _pool(ctx, value.shape, ctx.shape, kernel, stride, padding)
    total = pool.fold(Fold.SUM, pool.over(value, POSITIVE_ZERO), torch.float32)
    divisor = _divisor(pool, count_include_pad, divisor_override)
    return ctx.result(ctx.s.op(Op.DIV, total.scalar, divisor))


@lowering("avg_pool2d_backward.default", dot=True)
def avg_pool2d_backward(
    ctx: Context,
    gradient: Value,
    value: Value,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Value:
    """The sum of the shares that a position has in its windows."""
    del ceil_mode
    pool = _pool(ctx, value.shape, gradient.shape, kernel, stride, padding)
    divisor = _divisor(pool, count_include_pad, divisor_override)
    return _spread(pool, gradient, divisor)


def _spread(pool: Pool, gradient: Value, divisor: Scalar) -> Value:
    share = pool.ctx.s.op(Op.DIV, gradient.scalar, divisor)
    return pool.sum_back(pool.back(Value(pool.out, share, torch.float32), POSITIVE_ZERO))


@lowering("_adaptive_avg_pool2d.default", dot=True)
def adaptive_avg_pool2d(ctx: Context, value: Value, size: Sizes) -> Value:
    """The means of windows that share the plane."""
    del size
    pool = _adaptive(ctx, value.shape, ctx.shape)
    total = pool.fold(Fold.SUM, pool.over(value, POSITIVE_ZERO), torch.float32)
    return ctx.result(ctx.s.op(Op.DIV, total.scalar, _divisor(pool, True, None)))


@lowering("_adaptive_avg_pool2d_backward.default", dot=True)
def adaptive_avg_pool2d_backward(ctx: Context, gradient: Value, value: Value) -> Value:
    """The sum of the shares that a position has in its windows."""
    pool = _adaptive(ctx, value.shape, gradient.shape)
    return _spread(pool, gradient, _divisor(pool, True, None))
