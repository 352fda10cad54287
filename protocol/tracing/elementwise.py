# SPDX-License-Identifier: GPL-3.0-or-later
"""Lowerings of elementwise operations: torch's formula as a composition of primitives.

Every rounding is one primitive's, in the order in which torch's own decomposition or kernel states
the formula; `a + alpha * b` is fused, as in torch's vectorized kernel. Transcendental functions are
those of `protocol.mathfn`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

from protocol import mathfn
from protocol.errors import TraceError
from protocol.ops import Op
from protocol.program import DType
from protocol.tracing.graph import Value
from protocol.tracing.lowering import Context, lowering, name_of
from protocol.tracing.scalars import Imm, Scalar, Scalars

Function = Callable[..., Scalar]


def _square(s: Scalars, x: Scalar) -> Scalar:
    return s.op(Op.MUL, x, x)


def _reciprocal(s: Scalars, x: Scalar) -> Scalar:
    return s.op(Op.DIV, s.f32(1.0), x)


def _relu(s: Scalars, x: Scalar) -> Scalar:
    return s.op(Op.MAX, x, s.f32(0.0))


def _sign(s: Scalars, x: Scalar) -> Scalar:
    up = s.op(Op.I2F, s.op(Op.LT, s.f32(0.0), x))
    return s.op(Op.SUB, up, s.op(Op.I2F, s.op(Op.LT, x, s.f32(0.0))))


def _truncated(s: Scalars, x: Scalar) -> Scalar:
    """Round toward zero; numbers from 2^23 on are whole already, NaN stays."""
    inside = s.op(Op.LT, s.op(Op.ABS, x), s.f32(2.0**23))
    return s.op(Op.WHERE, inside, s.op(Op.I2F, s.op(Op.F2I, x)), x)


def _floor(s: Scalars, x: Scalar) -> Scalar:
    whole = _truncated(s, x)
    return s.op(Op.SUB, whole, s.op(Op.I2F, s.op(Op.LT, x, whole)))


def _ceil(s: Scalars, x: Scalar) -> Scalar:
    whole = _truncated(s, x)
    return s.op(Op.ADD, whole, s.op(Op.I2F, s.op(Op.LT, whole, x)))


def _round(s: Scalars, x: Scalar) -> Scalar:
    """Round to the nearest integer, ties to even: from 2^23 on there are no fractions."""
    magnitude, limit = s.op(Op.ABS, x), s.f32(2.0**23)
    whole = s.op(Op.SUB, s.op(Op.ADD, magnitude, limit), limit)
    whole = s.op(Op.WHERE, s.op(Op.LT, magnitude, limit), whole, magnitude)
    sign = s.op(Op.AND, s.op(Op.F2BITS, x), s.i32(-1 << 31))
    return s.op(Op.BITS2F, s.op(Op.OR, s.op(Op.F2BITS, whole), sign))


def _primitive(op: Op) -> Function:
    return lambda s, *args: s.op(op, *args)


FLOAT_FUNCTIONS: Final[dict[str, Function]] = {
    "abs.default": _primitive(Op.ABS),
    "ceil.default": _ceil,
    "cos.default": mathfn.cos,
    "div.Tensor": _primitive(Op.DIV),
    "div.Scalar": _primitive(Op.DIV),
    "erf.default": mathfn.erf,
    "exp.default": mathfn.exp,
    "expm1.default": mathfn.expm1,
    "floor.default": _floor,
    "log.default": mathfn.log,
    "log1p.default": mathfn.log1p,
    "maximum.default": _primitive(Op.MAX),
    "minimum.default": _primitive(Op.MIN),
    "mul.Scalar": _primitive(Op.MUL),
    "mul.Tensor": _primitive(Op.MUL),
    "neg.default": _primitive(Op.NEG),
    "reciprocal.default": _reciprocal,
    "relu.default": _relu,
    "round.default": _round,
    "rsqrt.default": mathfn.rsqrt,
    "sigmoid.default": mathfn.sigmoid,
    "sign.default": _sign,
    "sin.default": mathfn.sin,
    "sqrt.default": _primitive(Op.SQRT),
    "square.default": _square,
    "tanh.default": mathfn.tanh,
    "trunc.default": _truncated,
}
"""Functions of f32 arguments, all broadcast and converted to the result's dtype."""

INTEGER_FUNCTIONS: Final[dict[str, Function]] = {
    "abs.default": lambda s, x: s.op(
        Op.IWHERE, s.op(Op.ILT, x, s.i32(0)), s.op(Op.ISUB, s.i32(0), x), x
    ),
    "maximum.default": lambda s, x, y: s.op(Op.IWHERE, s.op(Op.ILT, x, y), y, x),
    "minimum.default": lambda s, x, y: s.op(Op.IWHERE, s.op(Op.ILT, x, y), x, y),
    "mul.Scalar": _primitive(Op.IMUL),
    "mul.Tensor": _primitive(Op.IMUL),
    "neg.default": lambda s, x: s.op(Op.ISUB, s.i32(0), x),
    "relu.default": lambda s, x: s.op(Op.IWHERE, s.op(Op.ILT, x, s.i32(0)), s.i32(0), x),
    "square.default": lambda s, x: s.op(Op.IMUL, x, x),
}
"""The same for i32 arguments."""


def _arithmetic(ctx: Context) -> torch.dtype:
    dtype = ctx.meta.dtype
    if dtype in (torch.int8, torch.uint8, torch.int16):
        raise TraceError(f"arithmetic in {dtype} would wrap differently")
    return dtype


@lowering(*sorted(FLOAT_FUNCTIONS))
def function(ctx: Context, *args: Value | float) -> Value:
    """A function of the tables above."""
    name = name_of(ctx.node)
    dtype = _arithmetic(ctx)
    table = FLOAT_FUNCTIONS if dtype == torch.float32 else INTEGER_FUNCTIONS
    if name not in table:
        raise TraceError(f"there is no such function of {dtype}")
    return ctx.result(table[name](ctx.s, *(ctx.scalar(a, dtype, ctx.shape) for a in args)))


def _sum(ctx: Context, a: Value | float, b: Value | float, alpha: float, sign: int) -> Value:
    dtype = _arithmetic(ctx)
    x, y = ctx.scalar(a, dtype, ctx.shape), ctx.scalar(b, dtype, ctx.shape)
    if x.dtype is DType.I32:
        scaled = ctx.s.op(Op.IMUL, y, ctx.s.i32(int(alpha)))
        return ctx.result(ctx.s.op(Op.IADD if sign > 0 else Op.ISUB, x, scaled))
    if alpha == 1:
        return ctx.result(ctx.s.op(Op.ADD if sign > 0 else Op.SUB, x, y))
    return ctx.result(ctx.s.op(Op.FMA, y, ctx.s.number(sign * alpha), x))


@lowering("add.Tensor", "add.Scalar")
def add(ctx: Context, a: Value, b: Value | float, alpha: float = 1) -> Value:
    """`a + alpha * b`."""
    return _sum(ctx, a, b, alpha, 1)


@lowering("sub.Tensor", "sub.Scalar")
def sub(ctx: Context, a: Value, b: Value | float, alpha: float = 1) -> Value:
    """`a - alpha * b`."""
    return _sum(ctx, a, b, alpha, -1)


@lowering("rsub.Scalar", "rsub.Tensor")
def rsub(ctx: Context, a: Value, b: Value | float, alpha: float = 1) -> Value:
    """`b - alpha * a`."""
    return _sum(ctx, b, a, alpha, -1)


@lowering("pow.Tensor_Scalar")
def pow_tensor_scalar(ctx: Context, base: Value, exponent: float) -> Value:
    """Whole and half powers by multiplication, square root and division."""
    dtype = _arithmetic(ctx)
    x = ctx.scalar(base, dtype, ctx.shape)
    s, magnitude = ctx.s, abs(exponent)
    floating = dtype == torch.float32
    times = Op.MUL if floating else Op.IMUL
    one: Scalar = s.f32(1.0) if floating else s.i32(1)
    if magnitude * 2 != int(magnitude * 2) or magnitude > 64 or (exponent < 0 and not floating):
        raise TraceError(f"the exponent {exponent} has no exact composition")
    result, square = one, x
    whole = int(magnitude)
    while whole:
        if whole % 2:
            result = square if result is one else s.op(times, result, square)
        whole //= 2
        if whole:
            square = s.op(times, square, square)
    if magnitude % 1:
        root = s.op(Op.SQRT, x)
        result = root if result is one else s.op(Op.MUL, result, root)
    return ctx.result(s.op(Op.DIV, one, result) if exponent < 0 else result)


# Comparison and choice ---------------------------------------------------------------------------

_COMPARE: Final[dict[str, tuple[Op, Op, bool, bool]]] = {
    # float op, integer op, operands exchanged, result negated (of the integer form)
    "eq": (Op.EQ, Op.IEQ, False, False),
    "ne": (Op.EQ, Op.IEQ, False, True),
    "lt": (Op.LT, Op.ILT, False, False),
    "gt": (Op.LT, Op.ILT, True, False),
    "le": (Op.LE, Op.ILT, False, False),
    "ge": (Op.LE, Op.ILT, True, False),
}


def _promoted(a: Value | float, b: Value | float) -> torch.dtype:
    """The dtype in which torch compares."""

    def sample(x: Value | float) -> Any:
        return (
            torch.empty(x.shape, dtype=x.torch_dtype, device="meta") if isinstance(x, Value) else x
        )

    return torch.result_type(sample(a), sample(b))


def compare(ctx: Context, name: str, a: Value | float, b: Value | float) -> Value:
    """A comparison; a NaN is unequal to everything."""
    dtype, s = _promoted(a, b), ctx.s
    x, y = ctx.scalar(a, dtype, ctx.shape), ctx.scalar(b, dtype, ctx.shape)
    float_op, integer_op, exchanged, negated = _COMPARE[name]
    if x.dtype is DType.I32 and name in ("le", "ge"):
        exchanged, negated = not exchanged, True  # a <= b unless b < a
    if exchanged:
        x, y = y, x
    found = s.op(float_op if x.dtype is DType.F32 else integer_op, x, y)
    return ctx.result(s.op(Op.IEQ, found, s.i32(0)) if negated else found)


@lowering(*(f"{name}.{kind}" for name in _COMPARE for kind in ("Scalar", "Tensor")))
def comparison(ctx: Context, a: Value, b: Value | float) -> Value:
    """eq, ne, lt, gt, le, ge."""
    name = name_of(ctx.node).split(".")[0]
    return compare(ctx, name, a, b)


_LOGIC: Final = {
    "logical_and": Op.AND,
    "logical_or": Op.OR,
    "logical_xor": Op.XOR,
    "bitwise_and": Op.AND,
    "bitwise_or": Op.OR,
    "bitwise_xor": Op.XOR,
}


@lowering(
    "logical_and.default", "logical_or.default", "logical_xor.default",
    "bitwise_and.Tensor", "bitwise_or.Tensor", "bitwise_xor.Tensor",
)  # fmt: skip
def logic(ctx: Context, a: Value, b: Value) -> Value:
    """Logic of booleans (logical_*: of whether operands are nonzero) or of bits."""
    name = name_of(ctx.node).split(".")[0]
    dtype = torch.bool if name.startswith("logical") else ctx.meta.dtype
    x, y = (ctx.scalar(v, dtype, ctx.shape) for v in (a, b))
    return ctx.result(ctx.s.op(_LOGIC[name], x, y))


@lowering("logical_not.default", "bitwise_not.default")
def negation(ctx: Context, a: Value) -> Value:
    """Logical not, or all bits flipped."""
    if ctx.meta.dtype == torch.bool:
        return ctx.result(ctx.s.op(Op.IEQ, ctx.scalar(a, torch.bool, ctx.shape), ctx.s.i32(0)))
    return ctx.result(ctx.s.op(Op.XOR, a.scalar, ctx.s.i32(-1)))


def choose(ctx: Context, condition: Scalar, x: Scalar, y: Scalar) -> Scalar:
    """`x` where the condition is not 0, else `y`."""
    return ctx.s.op(Op.WHERE if x.dtype is DType.F32 else Op.IWHERE, condition, x, y)


@lowering("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(ctx: Context, condition: Value, a: Value | float, b: Value | float) -> Value:
    """Choice between two tensors."""
    dtype = ctx.meta.dtype
    test = ctx.scalar(condition, torch.bool, ctx.shape)
    return ctx.result(
        choose(ctx, test, ctx.scalar(a, dtype, ctx.shape), ctx.scalar(b, dtype, ctx.shape))
    )


@lowering("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(ctx: Context, a: Value, mask: Value, number: Value | float) -> Value:
    """`number` where the mask is true."""
    return where(ctx, mask, number, a)  # type: ignore[no-any-return]


@lowering("clamp.default", "clamp.Tensor")
def clamp(
    ctx: Context, a: Value, low: Value | float | None = None, high: Value | float | None = None
) -> Value:
    """Limit from below, then from above."""
    dtype = _arithmetic(ctx)
    table = FLOAT_FUNCTIONS if dtype == torch.float32 else INTEGER_FUNCTIONS
    x = ctx.scalar(a, dtype, ctx.shape)
    if low is not None:
        x = table["maximum.default"](ctx.s, x, ctx.scalar(low, dtype, ctx.shape))
    if high is not None:
        x = table["minimum.default"](ctx.s, x, ctx.scalar(high, dtype, ctx.shape))
    return ctx.result(x)


@lowering("clamp_min.default")
def clamp_min(ctx: Context, a: Value, low: float) -> Value:
    """Limit from below."""
    return clamp(ctx, a, low)  # type: ignore[no-any-return]


@lowering("clamp_max.default")
def clamp_max(ctx: Context, a: Value, high: float) -> Value:
    """Limit from above."""
    return clamp(ctx, a, None, high)  # type: ignore[no-any-return]


@lowering("softshrink_backward.default", "hardshrink_backward.default")
def shrink_backward(ctx: Context, gradient: Value, a: Value, limit: float) -> Value:
    """The gradient where an element is not within the limit."""
    small = ctx.s.op(Op.LE, ctx.s.op(Op.ABS, a.scalar), ctx.s.f32(limit))
    return ctx.result(choose(ctx, small, ctx.s.f32(0.0), gradient.scalar))


@lowering("isnan.default")
def isnan(ctx: Context, a: Value) -> Value:
    """Whether an element is a NaN."""
    return ctx.result(ctx.s.op(Op.IEQ, ctx.s.op(Op.EQ, a.scalar, a.scalar), ctx.s.i32(0)))


@lowering("_to_copy.default", "prims.convert_element_type.default")
def to_copy(ctx: Context, a: Value, *_: object, **__: object) -> Value:
    """Conversion between dtypes."""
    return ctx.result(ctx.cast(a.scalar, a.torch_dtype, ctx.meta.dtype))


@lowering("copy.default", "copy_.default")
def copy(ctx: Context, a: Value, source: Value, *_: object) -> Value:
    """What an in-place copy leaves in `a`."""
    return ctx.result(ctx.scalar(source, a.torch_dtype, a.shape))


def number_of(value: Value | float) -> float | None:
    """Return the number that a constant value is, if it is one."""
    if isinstance(value, Value):
        return value.scalar.exact if isinstance(value.scalar, Imm) else None
    return value
