# SPDX-License-Identifier: GPL-3.0-or-later
"""Lowerings of operations that make tensors out of nothing but numbers and shapes."""

from __future__ import annotations

import torch

from protocol.tracing.graph import Value
from protocol.tracing.lowering import Context, lowering
from protocol.tracing.scalars import Affine


def _filled(ctx: Context, number: float) -> Value:
    dtype = torch.float32 if ctx.meta.dtype == torch.float64 else ctx.meta.dtype
    return Value(ctx.shape, ctx.scalar(number, dtype, ()), dtype)


@lowering("full.default", "full_like.default", "new_full.default")
def full(ctx: Context, like: object, number: float | Value, **_: object) -> Value:
    """A tensor of one number."""
    del like
    if isinstance(number, Value):
        return ctx.result(ctx.scalar(number, ctx.meta.dtype, ctx.shape))
    return _filled(ctx, number)


@lowering("scalar_tensor.default")
def scalar_tensor(ctx: Context, number: float, **_: object) -> Value:
    """A number as a tensor."""
    return _filled(ctx, number)


@lowering(
    "zeros_like.default", "new_zeros.default", "zeros.default",
    "empty_strided.default", "new_empty_strided.default", "new_empty.default", "empty_like.default",
    "empty.memory_format",
)  # fmt: skip
def zeros(ctx: Context, like: object, *_: object, **__: object) -> Value:
    """A tensor of zeros, or one whose elements are about to be written."""
    del like
    return _filled(ctx, 0)


@lowering("ones_like.default", "new_ones.default", "ones.default")
def ones(ctx: Context, like: object, shape: object = None, **_: object) -> Value:
    """A tensor of ones."""
    del like, shape
    return _filled(ctx, 1)


@lowering("arange.start_step", "arange.default", "arange.start")
def arange(ctx: Context, *bounds: float, **_: object) -> Value:
    """Integers in arithmetic progression."""
    start, _, step = (*((0, *bounds) if len(bounds) == 1 else bounds), 1)[:3]
    if not isinstance(start, int) or not isinstance(step, int):
        raise NotImplementedError("a range of fractions that is no constant")
    at = Affine.of(0, step, start) if ctx.shape[0] > 1 else Affine((), start)
    return ctx.result(ctx.cast(ctx.s.index(at), torch.int64, ctx.meta.dtype))
