# SPDX-License-Identifier: GPL-3.0-or-later
"""Lowering of random masks, and with them of every kind of dropout.

torch composes dropout of a mask (`bernoulli`), a division by the probability to survive and a
product, and differentiates the product, so that the backward pass reads the same mask. Each call of
a training step has a RAND stream of its own, numbered in the order of the captured graph; where a
checkpoint computes a call again, that has the stream of the first. The bits are a function of the
task's seed, the step and the stream (specification, "Philox").
"""

from __future__ import annotations

from typing import Final

from protocol.errors import TraceError
from protocol.ops import Op
from protocol.program import DType, Kind
from protocol.tracing.graph import Value
from protocol.tracing.lowering import Context, lowering

WORDS: Final = 1 << 32
"""Equally likely values of an element of RAND."""


@lowering("bernoulli.p")
def bernoulli(ctx: Context, like: Value, probability: float, generator: object = None) -> Value:
    """1 with this probability, else 0: a random word below `probability * 2^32`, rounded."""
    del like
    s = ctx.s
    if generator is not None:
        raise TraceError("a random generator of its own: the task's seed decides")
    threshold = round(probability * WORDS)
    if not 0 < threshold < WORDS:
        return ctx.result(ctx.scalar(float(threshold > 0), ctx.meta.dtype, ()))
    rand = ctx.graph.leaf(Kind.RAND, DType.I32, ctx.shape, stream=ctx.stream)
    word = ctx.graph.read(rand)
    kept = s.op(Op.ULT, word, s.i32(threshold))
    one, zero = (ctx.scalar(number, ctx.meta.dtype, ()) for number in (1.0, 0.0))
    return ctx.result(s.op(Op.WHERE if one.dtype is DType.F32 else Op.IWHERE, kept, one, zero))
