# SPDX-License-Identifier: GPL-3.0-or-later
"""Lowerings of running sums and products: log2(n) passes, each adding what lies 2^i before."""

from __future__ import annotations

from typing import Final

import torch

from protocol.errors import TraceError
from protocol.float32 import POSITIVE_ZERO
from protocol.mathfn import bits_of
from protocol.ops import Op
from protocol.program import DType
from protocol.tracing.convolution import place, stored
from protocol.tracing.graph import Value
from protocol.tracing.lowering import Context, lowering
from protocol.tracing.scalars import Affine, Place

_SUM: Final = {DType.F32: (Op.ADD, POSITIVE_ZERO), DType.I32: (Op.IADD, 0)}
_PRODUCT: Final = {DType.F32: (Op.MUL, bits_of(1.0)), DType.I32: (Op.IMUL, 1)}


def _scan(ctx: Context, value: Value, dim: int, table: dict[DType, tuple[Op, int]]) -> Value:
    if ctx.meta.dtype not in (torch.float32, torch.int64, torch.int32):
        raise TraceError(f"a running sum in {ctx.meta.dtype}")
    if not value.shape:
        return ctx.result(ctx.scalar(value, ctx.meta.dtype, ()))
    axis, size = dim % len(value.shape), value.shape[dim % len(value.shape)]
    scalar = ctx.scalar(value, ctx.meta.dtype, value.shape)
    result = Value(value.shape, scalar, ctx.meta.dtype)
    op, neutral = table[result.dtype]
    reach = 1
    while reach < size:
        places = [place(n, Affine.of(a)) for a, n in enumerate(value.shape)]
        places[axis] = Place(size, Affine.of(axis, 1, -reach), 0, size, inside=False)
        before = stored(ctx, result, places, neutral)
        result = Value(value.shape, ctx.s.op(op, result.scalar, before), ctx.meta.dtype)
        reach *= 2
    return result


@lowering("cumsum.default")
def cumsum(ctx: Context, value: Value, dim: int, **_: object) -> Value:
    """The sum of all elements up to each along an axis."""
    return _scan(ctx, value, dim, _SUM)


@lowering("cumprod.default")
def cumprod(ctx: Context, value: Value, dim: int, **_: object) -> Value:
    """The product of all elements up to each along an axis."""
    return _scan(ctx, value, dim, _PRODUCT)
