# SPDX-License-Identifier: GPL-3.0-or-later
"""Lowerings of matrix products: FOLD DOT over two plain views.

Operands are stored first if they have to be computed, so that an executor sees a matrix product and
nothing else; biases and whatever follows go into the next MAP.
"""

from __future__ import annotations

from protocol.program import Fold
from protocol.tracing.graph import Value
from protocol.tracing.lowering import Context, lowering
from protocol.tracing.moves import substitute
from protocol.tracing.scalars import Affine, Scalar


def dot(ctx: Context, value: Value, axes: list[int]) -> Scalar:
    """Return an operand of a DOT: its axis i is axis `axes[i]` of (e, k)."""
    load = ctx.plain(value)
    mapping = [
        Affine.of(a) if size > 1 else Affine() for a, size in zip(axes, value.shape, strict=True)
    ]
    return substitute(ctx.s, load, mapping)


@lowering("mm.default", dot=True)
def mm(ctx: Context, a: Value, b: Value) -> Value:
    """`[M, K] x [K, N]`."""
    terms = dot(ctx, a, [0, 2]), dot(ctx, b, [2, 1])
    return ctx.from_node(ctx.graph.fold(Fold.DOT, terms, ctx.shape, (a.shape[1],)))


@lowering("bmm.default", dot=True)
def bmm(ctx: Context, a: Value, b: Value) -> Value:
    """`[B, M, K] x [B, K, N]`."""
    terms = dot(ctx, a, [0, 1, 3]), dot(ctx, b, [0, 3, 2])
    return ctx.from_node(ctx.graph.fold(Fold.DOT, terms, ctx.shape, (a.shape[2],)))


@lowering("mv.default", dot=True)
def mv(ctx: Context, a: Value, b: Value) -> Value:
    """`[M, K] x [K]`."""
    terms = dot(ctx, a, [0, 1]), dot(ctx, b, [1])
    return ctx.from_node(ctx.graph.fold(Fold.DOT, terms, ctx.shape, b.shape))


@lowering("dot.default", dot=True)
def inner(ctx: Context, a: Value, b: Value) -> Value:
    """`[K] x [K]`."""
    terms = dot(ctx, a, [0]), dot(ctx, b, [0])
    return ctx.from_node(ctx.graph.fold(Fold.DOT, terms, (), a.shape))
