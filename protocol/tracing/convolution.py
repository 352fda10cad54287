# SPDX-License-Identifier: GPL-3.0-or-later
"""Lowerings of convolutions, transposed ones too: FOLD DOT over views, nothing is unfolded.

All three products of a convolution run over the relation `position = out * stride + tap * dilation
- padding`, which a view states in either direction: `position` as its coordinate, with the padding
outside its bounds (fill +0), or `out = (position - tap * dilation + padding) / stride` as a
coordinate with an interior dilation. A transposed convolution exchanges the roles of forward
product and input gradient. Groups are an axis of the element, merged with its channels by a reshape
that moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from protocol.float32 import POSITIVE_ZERO
from protocol.ops import Op
from protocol.program import Fold, Shape
from protocol.tracing.graph import Value
from protocol.tracing.lowering import Context, lowering
from protocol.tracing.movement import reshape_to
from protocol.tracing.moves import substitute
from protocol.tracing.reductions import reduce
from protocol.tracing.scalars import Affine, Load, Place


def place(size: int, at: Affine) -> Place:
    """Return a source coordinate that is never outside."""
    return Place(size, at if size > 1 else Affine(), 0, size)


def along(axis: int, size: int, coef: int = 1) -> Affine:
    """Return `coef * axis`; an axis of size 1 has no coordinate."""
    return Affine.of(axis, coef) if size > 1 else Affine()


def window(size: int, at: Affine, reach: tuple[int, int], dilation: int = 1) -> Place:
    """Return a source coordinate whose numerator is from `reach`: inside only if it has to be."""
    low, high = reach
    inside = dilation == 1 and low >= 0 and high < size
    if inside:
        return place(size, at)
    return Place(size, at, 0, size, dilation, inside=False)


def stored(ctx: Context, value: Value, places: Sequence[Place], fill: int = POSITIVE_ZERO) -> Load:
    """Return an element of a value, which is stored in its own shape for that."""
    number = ctx.graph.store(value)
    return ctx.s.load(number, tuple(places), fill, value.dtype)


@dataclass(frozen=True)
class Taps:
    """How the axes of a window move: `position = out * stride + tap * dilation - padding`."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]

    def position(self, d: int, size: int, out: tuple[int, int], tap: tuple[int, int]) -> Place:
        """Return the coordinate of axis d at a position; `out`, `tap` are `(axis, size)`."""
        at = along(*out, self.stride[d]).plus(along(*tap, self.dilation[d]))
        at = at.plus(Affine((), -self.padding[d]))
        last = (out[1] - 1) * self.stride[d] + (tap[1] - 1) * self.dilation[d]
        return window(size, at, (-self.padding[d], last - self.padding[d]))

    def out(self, d: int, size: int, position: tuple[int, int], tap: tuple[int, int]) -> Place:
        """Return the coordinate of axis d at the window that has this position at this tap."""
        at = along(*position).plus(along(*tap, -self.dilation[d]))
        at = at.plus(Affine((), self.padding[d]))
        low = self.padding[d] - (tap[1] - 1) * self.dilation[d]
        return window(size, at, (low, position[1] - 1 + self.padding[d]), self.stride[d])


def taps_of(rank: int, *sizes: Sequence[int]) -> Taps:
    """Return the taps of a convolution over `rank` axes; one size may be given for all of them."""
    return Taps(*([*size] * rank if len(size) == 1 else size for size in sizes))


@dataclass(frozen=True)
class Convolution:
    """The three products of images `[N, G A, *]`, kernels `[G B, A, *]`, responses `[N, G B, *]`.

    `ctx.graph` gets one FOLD each; G is 1 in most networks.
    """

    ctx: Context
    taps: Taps
    groups: int

    def _folded(
        self,
        shape: Shape,
        grouped: tuple[Shape, Shape],
        loads: tuple[Load, Load],
        reduce_shape: Shape,
    ) -> Value:
        """Return the DOT of two loads over `before + (G,) + after`, in its merged shape."""
        ctx, (before, after) = self.ctx, grouped
        if self.groups == 1:  # the node has the merged shape at once
            rank, group = len(before) + 1 + len(after) + len(reduce_shape), len(before)
            mapping = [Affine.of(a - (a > group)) for a in range(rank)]
            terms = tuple(substitute(ctx.s, load, mapping) for load in loads)
            number = ctx.graph.fold(Fold.DOT, terms, shape, reduce_shape)
            return Value(shape, ctx.graph.read(number), torch.float32)
        whole = (*before, self.groups, *after)
        number = ctx.graph.fold(Fold.DOT, loads, whole, reduce_shape)
        return reshape_to(ctx, Value(whole, ctx.graph.read(number), torch.float32), shape)

    def _channel(self, group: int, axis: int, size: int) -> Affine:
        """Return the channel `group * size + axis`, both given by their axes."""
        return along(group, self.groups, size).plus(along(axis, size))

    def respond(self, image: Value, kernel: Value, shape: Shape) -> Value:
        """Return the responses `[N, G B, *]` to an image: k is (channel, *taps)."""
        n, inner, rank = shape[0], kernel.shape[1], len(shape) - 2
        many, first = shape[1] // self.groups, 3 + rank  # first axis of k
        places = [place(n, Affine.of(0)), place(image.shape[1], self._channel(1, first, inner))]
        weights = [place(kernel.shape[0], self._channel(1, 2, many))]
        weights += [place(size, Affine.of(first + i)) for i, size in enumerate(kernel.shape[1:])]
        for d in range(rank):
            out, tap = (3 + d, shape[2 + d]), (first + 1 + d, kernel.shape[2 + d])
            places.append(self.taps.position(d, image.shape[2 + d], out, tap))
        loads = stored(self.ctx, image, places), stored(self.ctx, kernel, weights)
        return self._folded(shape, ((n,), (many, *shape[2:])), loads, kernel.shape[1:])

    def spread(self, response: Value, kernel: Value, shape: Shape) -> Value:
        """Return the image `[N, G A, *]` that responses spread to: k is (response, *taps)."""
        n, inner, rank = shape[0], kernel.shape[1], len(shape) - 2
        many, first = response.shape[1] // self.groups, 3 + rank
        places = [place(n, Affine.of(0)), place(response.shape[1], self._channel(1, first, many))]
        weights = [place(kernel.shape[0], self._channel(1, first, many))]
        weights.append(place(inner, Affine.of(2)))
        for d in range(rank):
            position, tap = (3 + d, shape[2 + d]), (first + 1 + d, kernel.shape[2 + d])
            places.append(self.taps.out(d, response.shape[2 + d], position, tap))
            weights.append(place(tap[1], Affine.of(tap[0])))
        loads = stored(self.ctx, response, places), stored(self.ctx, kernel, weights)
        summed = (many, *kernel.shape[2:])
        return self._folded(shape, ((n,), (inner, *shape[2:])), loads, summed)

    def kernel(self, response: Value, image: Value, shape: Shape) -> Value:
        """Return the gradient `[G B, A, *]` of the kernel: k is (n, *places)."""
        n, inner, rank = image.shape[0], shape[1], len(shape) - 2
        many, first = shape[0] // self.groups, 3 + rank
        places = [place(n, Affine.of(first)), place(image.shape[1], self._channel(0, 2, inner))]
        weights = [place(n, Affine.of(first)), place(response.shape[1], self._channel(0, 1, many))]
        for d in range(rank):
            out, tap = (first + 1 + d, response.shape[2 + d]), (3 + d, shape[2 + d])
            places.append(self.taps.position(d, image.shape[2 + d], out, tap))
            weights.append(place(out[1], Affine.of(out[0])))
        loads = stored(self.ctx, response, weights), stored(self.ctx, image, places)
        summed = (n, *response.shape[2:])
        return self._folded(shape, ((), (many, *shape[1:])), loads, summed)


@lowering("convolution.default", dot=True)
def convolution(
    ctx: Context,
    image: Value,
    kernel: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    """Convolution over any number of axes: the product, then the bias."""
    del output_padding  # torch has computed the shape
    taps = taps_of(len(kernel.shape) - 2, stride, padding, dilation)
    product = Convolution(ctx, taps, groups)
    made = (product.spread if transposed else product.respond)(image, kernel, ctx.shape)
    if bias is None:
        return ctx.result(made.scalar)
    column = (bias.shape[0], *(1 for _ in ctx.shape[2:]))
    added = reshape_to(ctx, bias, column)
    offset = ctx.broadcast(added.scalar, column, ctx.shape)
    return ctx.result(ctx.s.op(Op.ADD, made.scalar, offset))


@lowering("convolution_backward.default", dot=True)
def convolution_backward(
    ctx: Context,
    gradient: Value,
    image: Value,
    kernel: Value,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Value | None, Value | None, Value | None]:
    """Gradients of the image, the kernel and the bias, where wanted."""
    del bias_sizes, output_padding
    taps = taps_of(len(kernel.shape) - 2, stride, padding, dilation)
    product = Convolution(ctx, taps, groups)
    of_image = of_kernel = of_bias = None
    if wanted[0]:
        made = product.respond if transposed else product.spread
        of_image = made(gradient, kernel, image.shape)
    if wanted[1]:
        pair = (image, gradient) if transposed else (gradient, image)
        of_kernel = product.kernel(*pair, kernel.shape)
    if wanted[2]:
        ctx.graph.store(gradient)
        axes = [a for a in range(len(gradient.shape)) if a != 1]
        number = reduce(ctx, Fold.SUM, gradient, gradient.scalar, axes)
        of_bias = Value((gradient.shape[1],), ctx.graph.read(number), torch.float32)
    return of_image, of_kernel, of_bias
