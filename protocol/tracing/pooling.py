# SPDX-License-Identifier: GPL-3.0-or-later
"""Lowerings of pooling over the last two axes: folds over a window view, backward over its inverse.

Maxima read -inf outside and are the first match in row-major order, as in torch: the index that the
backward pass needs is found by equality. (A window whose maximum is a NaN has no match; torch names
one of its NaNs.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from protocol.errors import TraceError
from protocol.float32 import POSITIVE_ZERO
from protocol.ops import Op
from protocol.program import Fold, Shape
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


@dataclass(frozen=True)
class Pool:
    """Windows over the last two axes of `whole`; `out` is the shape of one element per window."""

    ctx: Context
    whole: Shape
    out: Shape
    window: tuple[int, int]
    taps: Taps

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
            tap = (rank + d, self.window[d])
            places.append(self.taps.out(d, self.out[rank - 2 + d], position, tap))
        return stored(self.ctx, value, places, fill)

    def fold(self, fold: Fold, term: Scalar, shape: Shape, dtype: torch.dtype) -> Value:
        """Return the fold of a term over k."""
        number = self.ctx.graph.fold(fold, (term,), shape, self.window)
        return Value(shape, self.ctx.graph.read(number), dtype)


# Maxima ------------------------------------------------------------------------------------------


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
    s, taps = ctx.s, Taps(pair(stride, kernel), pair(padding), pair(dilation))
    pool = Pool(ctx, value.shape, ctx.shape, pair(kernel), taps)
    largest = pool.fold(Fold.MAX, pool.over(value, NEGATIVE_INFINITY), pool.out, torch.float32)
    # The padding is no match, even where all of a window is -inf.
    match = s.op(Op.EQ, pool.over(value, NAN), largest.scalar)
    backwards = s.index(Affine().plus(pool.flat(), -1))
    term = s.op(Op.IWHERE, match, backwards, s.i32(-1 << 31))
    first = pool.fold(Fold.IMAX, term, pool.out, torch.int64)
    return largest, Value(pool.out, s.op(Op.ISUB, s.i32(0), first.scalar), torch.int64)


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
    s, taps = ctx.s, Taps(pair(stride, kernel), pair(padding), pair(dilation))
    pool = Pool(ctx, value.shape, gradient.shape, pair(kernel), taps)
    rank = len(value.shape)
    here = along(rank - 2, value.shape[-2], value.shape[-1]).plus(along(rank - 1, value.shape[-1]))
    chosen = s.op(Op.IEQ, pool.back(indices, NO_POSITION), s.index(here))
    term = s.op(Op.WHERE, chosen, pool.back(gradient, POSITIVE_ZERO), s.f32(0.0))
    return ctx.result(pool.fold(Fold.SUM, term, value.shape, torch.float32).scalar)


def _equal_windows(whole: Shape, out: Shape) -> tuple[int, int]:
    """Return the size of the windows that adaptive pooling takes, if all are equal."""
    if any(size % parts for size, parts in zip(whole[-2:], out[-2:], strict=True)):
        raise TraceError(f"{whole[-2:]} does not divide into {out[-2:]} equal windows")
    return (whole[-2] // out[-2], whole[-1] // out[-1])


@lowering("adaptive_max_pool2d.default", dot=True)
def adaptive_max_pool2d(ctx: Context, value: Value, size: Sizes) -> tuple[Value, Value]:
    """The maxima of equal windows and where they are."""
    del size
    return max_pool2d(ctx, value, _equal_windows(value.shape, ctx.shape))  # type: ignore[no-any-return]


@lowering("adaptive_max_pool2d_backward.default", dot=True)
def adaptive_max_pool2d_backward(
    ctx: Context, gradient: Value, value: Value, indices: Value
) -> Value:
    """The gradients, each at the maximum of its window."""
    kernel = _equal_windows(value.shape, gradient.shape)
    still, whole = (0, 0), (1, 1)
    return max_pool2d_backward(ctx, gradient, value, kernel, kernel, still, whole, False, indices)  # type: ignore[no-any-return]


# Means -------------------------------------------------------------------------------------------


def _counted(pool: Pool, whole: bool, d: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return how many positions along axis d each window counts, padding included if `whole`."""
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


def _mean_pool(
    ctx: Context, whole: Shape, out: Shape, kernel: Sizes, stride: Sizes, padding: Sizes
) -> Pool:
    taps = Taps(pair(stride, kernel), pair(padding), (1, 1))
    return Pool(ctx, whole, out, pair(kernel), taps)


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
    pool = _mean_pool(ctx, value.shape, ctx.shape, kernel, stride, padding)
    total = pool.fold(Fold.SUM, pool.over(value, POSITIVE_ZERO), pool.out, torch.float32)
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
    pool = _mean_pool(ctx, value.shape, gradient.shape, kernel, stride, padding)
    divisor = _divisor(pool, count_include_pad, divisor_override)
    return _spread(pool, gradient, divisor)


def _spread(pool: Pool, gradient: Value, divisor: Scalar) -> Value:
    share = pool.ctx.s.op(Op.DIV, gradient.scalar, divisor)
    term = pool.back(Value(pool.out, share, torch.float32), POSITIVE_ZERO)
    return pool.fold(Fold.SUM, term, pool.whole, torch.float32)


def _adaptive(ctx: Context, whole: Shape, out: Shape) -> Pool:
    kernel = _equal_windows(whole, out)
    return _mean_pool(ctx, whole, out, kernel, kernel, (0, 0))


@lowering("_adaptive_avg_pool2d.default", dot=True)
def adaptive_avg_pool2d(ctx: Context, value: Value, size: Sizes) -> Value:
    """The means of equal windows."""
    del size
    pool = _adaptive(ctx, value.shape, ctx.shape)
    total = pool.fold(Fold.SUM, pool.over(value, POSITIVE_ZERO), pool.out, torch.float32)
    return ctx.result(ctx.s.op(Op.DIV, total.scalar, _divisor(pool, True, None)))


@lowering("_adaptive_avg_pool2d_backward.default", dot=True)
def adaptive_avg_pool2d_backward(ctx: Context, gradient: Value, value: Value) -> Value:
    """The share that a position has in its window."""
    pool = _adaptive(ctx, value.shape, gradient.shape)
    return _spread(pool, gradient, _divisor(pool, True, None))
