# SPDX-License-Identifier: GPL-3.0-or-later
"""Transcendental functions as compositions of primitives: the referee knows no `exp`.

Every function here appends straight-line code to an expression through an `Emitter` and returns the
value of its result. The stated maximum errors are in units in the last place of the binary32
result, measured against mpmath in `tests/test_mathfn.py` (which with `BITCOURT_SLOW=1` walks
through many more patterns). A NaN gives a NaN.

All polynomials are our own minimax fits: Lawson's iteration in double precision, then the
coefficients rounded to binary32 one by one, lowest power first, refitting the rest.

Argument reduction is that of Cody and Waite, "Software Manual for the Elementary Functions" (1980):
`x = n * c + r` with c split in two constants, the first short enough that n times it is exact.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from protocol.ops import Op
from protocol.program import Expression, Instruction, Operand

Value = TypeVar("Value")


class Emitter(Protocol[Value]):
    """Something that appends primitives to an expression and names their values."""

    def op(self, op: Op, *args: Value) -> Value:
        """Append one primitive and return its result."""
        ...

    def f32(self, value: float) -> Value:
        """Return the immediate that is `value` rounded to binary32."""
        ...

    def i32(self, value: int) -> Value:
        """Return the immediate `value` modulo 2^32."""
        ...


def bits_of(value: float) -> int:
    """Return the pattern of `value` rounded to the nearest binary32, ties to even."""
    try:
        return int(struct.unpack("<I", struct.pack("<f", value))[0])
    except OverflowError:
        return 0x7F800000 if value > 0 else 0xFF800000


class ExpressionBuilder:
    """The plainest emitter: collects an `Expression` over given operands.

    Registers are provisional until `build`, since immediates come before instruction results:
    operands are `0 .. n-1`, immediate i is `-1 - i`, and results are `n, n+1, ..`.
    """

    def __init__(self, operands: Sequence[Operand]) -> None:
        self._operands = tuple(operands)
        self._immediates: dict[int, int] = {}
        self._code: list[Instruction] = []

    def op(self, op: Op, *args: int) -> int:
        """Append one primitive."""
        self._code.append(Instruction(op, args))
        return len(self._operands) + len(self._code) - 1

    def f32(self, value: float) -> int:
        """Return an f32 immediate; equal patterns share one."""
        return self.i32(bits_of(value))

    def i32(self, value: int) -> int:
        """Return an i32 immediate; equal patterns share one."""
        return -1 - self._immediates.setdefault(value % (1 << 32), len(self._immediates))

    def build(self, *results: int) -> Expression:
        """Return the expression with these result registers."""
        n, extra = len(self._operands), len(self._immediates)

        def final(register: int) -> int:
            if register < 0:
                return n - 1 - register
            return register if register < n else register + extra

        code = tuple(Instruction(i.op, tuple(map(final, i.args))) for i in self._code)
        return Expression(self._operands, tuple(self._immediates), code, tuple(map(final, results)))


# Pieces ------------------------------------------------------------------------------------------

LOG2_E: Final = 1.44269504088896340736
LN2_HIGH: Final = float.fromhex("0x1.62e4p-1")  # 15 bits: n times it is exact for |n| < 512
LN2_LOW: Final = float.fromhex("0x1.7f7d1cf79abcap-20")
ROUNDER: Final = 12582912.0  # 1.5 * 2**23: adding it rounds to an integer
INFINITY: Final = float("inf")
NAN: Final = float("nan")

_EXP: Final = (0.5, 0.16666667, 0.041666456, 0.008333207, 0.0013935938, 0.00019945031)
"""(exp(r) - 1 - r) / r^2 on |r| <= 0.35: error below 2^-33 of exp(r)."""
_LOG1P: Final = (
    0.33333337, -0.24999824, 0.19999513, -0.16679488, 0.14306134,
    -0.12196055, 0.107396945, -0.12847513, 0.12053955,
)  # fmt: skip
"""(log(1 + f) - f + f^2 / 2) / f^3 on |f| <= 1/3: error below 2^-30 of log(1 + f)."""
_TANH: Final = (-0.33333328, 0.13333112, -0.053935144, 0.02163869, -0.008028397, 0.0020106658)
"""(tanh(x) / x - 1) / x^2 in powers of x^2 on |x| <= 0.65: error below 2^-31 of tanh(x)."""
_ERF_NEAR: Final = (
    0.12837917, -0.3761263, 0.11283626, -0.026855737, 0.005192438, -0.00080503843, 8.000279e-05,
)  # fmt: skip
"""erf(x) / x - 1 in powers of x^2 on |x| <= 15/16: error below 2^-30 of erf(x)."""
_ERF_FAR: Final = (
    -0.00017902629, 1.1295357, 0.63330525, 0.10832562,
    -0.025148671, 0.004182091, -0.00043672224, 2.1289008e-05,
)  # fmt: skip
"""-log(1 - erf(x)) on 15/16 <= x <= 3.95: error of erf(x) below 2^-34."""

_SIN: Final = (-0.16666667, 0.00833338, -0.00019853511, 2.837512e-06)
"""(sin(r) / r - 1) / r^2 in powers of r^2 on |r| <= 0.7855: error below 2^-32 of sin(r)."""
_COS: Final = (-0.5, 0.041666646, -0.0013887301, 2.4430661e-05)
"""(cos(r) - 1) / r^2 in powers of r^2 on |r| <= 0.7855: error below 2^-32 of cos(r)."""
TWO_OVER_PI: Final = 0.63661977236758134308
HALF_PI: Final = (
    float.fromhex("0x1.921fb6p+0"), float.fromhex("-0x1.777a5cp-25"),
    float.fromhex("-0x1.ee59dap-50"),
)  # fmt: skip
"""pi / 2 as a sum of three binary32 numbers."""
LARGEST_ANGLE: Final = 65536.0
"""Sine and cosine of larger angles are NaN: their reduction would take more of pi."""


def polynomial(e: Emitter[Value], x: Value, coefficients: Sequence[float]) -> Value:
    """Return `sum of coefficients[i] * x^i` by Horner's rule, one FMA a degree."""
    result = e.f32(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = e.op(Op.FMA, result, x, e.f32(coefficient))
    return result


def _reduce_exp(e: Emitter[Value], x: Value) -> tuple[Value, Value]:
    """Return `(n, r)`, n as i32, with `x = n * log 2 + r` and |r| <= 0.35, for |x| <= 180."""
    shifted = e.op(Op.FMA, x, e.f32(LOG2_E), e.f32(ROUNDER))
    whole = e.op(Op.SUB, shifted, e.f32(ROUNDER))
    r = e.op(Op.FMA, whole, e.f32(-LN2_HIGH), x)
    r = e.op(Op.FMA, whole, e.f32(-LN2_LOW), r)
    n = e.op(Op.ISUB, e.op(Op.F2BITS, shifted), e.i32(bits_of(ROUNDER)))
    return n, r


def _power_of_two(e: Emitter[Value], n: Value) -> Value:
    """Return 2^n for -127 < n < 128, and +0 for n = -127."""
    field = e.op(Op.SHL, e.op(Op.IADD, n, e.i32(127)), e.i32(23))
    return e.op(Op.BITS2F, field)


def _scale(e: Emitter[Value], x: Value, n: Value) -> Value:
    """Return `x * 2^n` for -254 <= n < 255, in two steps so that neither factor overflows.

    The first product is exact for x near 1; the second rounds where the result is subnormal. For
    the two lowest n a factor is +0, and so is the result.
    """
    half = e.op(Op.SAR, n, e.i32(1))
    rest = e.op(Op.ISUB, n, half)
    return e.op(Op.MUL, e.op(Op.MUL, x, _power_of_two(e, half)), _power_of_two(e, rest))


def _clamp(e: Emitter[Value], x: Value, low: float, high: float) -> Value:
    return e.op(Op.MIN, e.op(Op.MAX, x, e.f32(low)), e.f32(high))


def _with_sign_of(e: Emitter[Value], magnitude: Value, x: Value) -> Value:
    sign = e.op(Op.AND, e.op(Op.F2BITS, x), e.i32(1 << 31))
    return e.op(Op.BITS2F, e.op(Op.OR, e.op(Op.F2BITS, magnitude), sign))


# Functions ---------------------------------------------------------------------------------------


def exp(e: Emitter[Value], x: Value) -> Value:
    """Return e^x. At most 1 ulp; 26 instructions.

    The argument is clamped to [-176, 89]: from -104 down and from 89 up the result is +0 or
    infinity anyway, so infinite arguments (masks) take the same road and never make inf - inf. At
    -176 a factor is +0. A product that underflows would give the same, but takes CPUs far longer.
    """
    n, r = _reduce_exp(e, _clamp(e, x, -176.0, 89.0))
    tail = e.op(Op.FMA, e.op(Op.MUL, r, r), polynomial(e, r, _EXP), r)
    return _scale(e, e.op(Op.ADD, tail, e.f32(1.0)), n)


def expm1(e: Emitter[Value], x: Value) -> Value:
    """Return e^x - 1, accurate near 0 too. At most 1.4 ulp; 26 instructions."""
    clamped = _clamp(e, x, -40.0, 89.0)
    n, r = _reduce_exp(e, clamped)
    tail = e.op(Op.FMA, e.op(Op.MUL, r, r), polynomial(e, r, _EXP), r)
    # 2^n (1 + tail) - 1, at half scale so that n = 128 does not overflow early.
    half_power = _power_of_two(e, e.op(Op.IADD, n, e.i32(-1)))
    rest = e.op(Op.SUB, half_power, e.f32(0.5))
    half = e.op(Op.FMA, half_power, tail, rest)
    result = e.op(Op.ADD, half, half)
    near = e.op(Op.IEQ, n, e.i32(0))
    return e.op(Op.WHERE, near, _zero_keeps_sign(e, tail, x), result)


def _zero_keeps_sign(e: Emitter[Value], value: Value, x: Value) -> Value:
    """Return `value`, or x where x is +0 or -0."""
    return e.op(Op.WHERE, e.op(Op.EQ, x, e.f32(0.0)), x, value)


def _log_parts(e: Emitter[Value], bits: Value) -> tuple[Value, Value]:
    """Return `(k, m)`, k as f32, of a positive normal number: it is `2^k * m`, 2/3 <= m < 4/3."""
    above = e.op(Op.ISUB, bits, e.i32(bits_of(2 / 3)))
    exponent = e.op(Op.AND, above, e.i32(-1 << 23))
    mantissa = e.op(Op.BITS2F, e.op(Op.ISUB, bits, exponent))
    return e.op(Op.I2F, e.op(Op.SAR, exponent, e.i32(23))), mantissa


def _log_sum(e: Emitter[Value], k: Value, f: Value, correction: Value | None = None) -> Value:
    """Return `k log 2 + log(1 + f)`, for |f| <= 1/3; `correction` is added to the small terms."""
    square = e.op(Op.MUL, f, f)
    cubic = e.op(Op.MUL, e.op(Op.MUL, square, f), polynomial(e, f, _LOG1P))
    small = e.op(Op.FMA, square, e.f32(-0.5), cubic)
    small = e.op(Op.FMA, k, e.f32(LN2_LOW), small)
    if correction is not None:
        small = e.op(Op.ADD, small, correction)
    return e.op(Op.FMA, k, e.f32(LN2_HIGH), e.op(Op.ADD, f, small))


def log(e: Emitter[Value], x: Value) -> Value:
    """Return the natural logarithm; -inf at zeros, NaN below. At most 0.9 ulp; 34 instructions."""
    tiny = e.op(Op.LT, x, e.f32(2.0**-126))
    scaled = e.op(Op.WHERE, tiny, e.op(Op.MUL, x, e.f32(2.0**23)), x)
    k, mantissa = _log_parts(e, e.op(Op.F2BITS, scaled))
    k = e.op(Op.ADD, k, e.op(Op.WHERE, tiny, e.f32(-23.0), e.f32(0.0)))
    result = _log_sum(e, k, e.op(Op.SUB, mantissa, e.f32(1.0)))
    return _outside_log(e, x, x, result)


def _outside_log(e: Emitter[Value], argument: Value, infinite: Value, inside: Value) -> Value:
    """Return `inside` for finite positive arguments, else what a logarithm gives there."""
    zero = e.f32(0.0)
    above = e.op(Op.WHERE, e.op(Op.LT, argument, e.f32(INFINITY)), inside, infinite)
    below = e.op(Op.WHERE, e.op(Op.EQ, argument, zero), e.f32(-INFINITY), e.f32(NAN))
    return e.op(Op.WHERE, e.op(Op.LT, zero, argument), above, below)


def log1p(e: Emitter[Value], x: Value) -> Value:
    """Return log(1 + x), accurate near 0 too. At most 1 ulp; 41 instructions.

    u = 1 + x is rounded; what it lost, `x - (u - 1)` or `1 - (u - x)`, divided by u, is given back
    (Kahan's correction).
    """
    one = e.f32(1.0)
    u = e.op(Op.ADD, x, one)
    k, mantissa = _log_parts(e, e.op(Op.F2BITS, u))
    low = e.op(Op.SUB, x, e.op(Op.SUB, u, one))
    high = e.op(Op.SUB, one, e.op(Op.SUB, u, x))
    lost = e.op(Op.WHERE, e.op(Op.LT, x, one), low, high)
    result = _log_sum(e, k, e.op(Op.SUB, mantissa, one), e.op(Op.DIV, lost, u))
    result = _outside_log(e, u, u, result)
    # Below 2^-24 u is 1 or next to it, and x itself is the nearest number or very near it.
    small = e.op(Op.LT, e.op(Op.ABS, x), e.f32(2.0**-24))
    return e.op(Op.WHERE, small, x, result)


def tanh(e: Emitter[Value], x: Value) -> Value:
    """Return the hyperbolic tangent. At most 1.4 ulp; 47 instructions.

    A polynomial below 5/8, `1 - 2 / (e^2|x| + 1)` above.
    """
    magnitude = e.op(Op.ABS, x)
    square = e.op(Op.MUL, x, x)
    near = e.op(Op.MUL, e.op(Op.MUL, square, magnitude), polynomial(e, square, _TANH))
    near = e.op(Op.ADD, magnitude, near)
    power = exp(e, e.op(Op.ADD, magnitude, magnitude))
    far = e.op(Op.DIV, e.f32(-2.0), e.op(Op.ADD, power, e.f32(1.0)))
    far = e.op(Op.ADD, far, e.f32(1.0))
    is_near = e.op(Op.LT, magnitude, e.f32(0.625))
    return _with_sign_of(e, e.op(Op.WHERE, is_near, near, far), x)


def erf(e: Emitter[Value], x: Value) -> Value:
    """Return the error function. At most 1 ulp; 44 instructions.

    A polynomial up to 15/16, `1 - e^-g(|x|)` with g a polynomial above; 1 from 3.95 on.
    """
    magnitude = e.op(Op.MIN, e.op(Op.ABS, x), e.f32(3.95))
    square = e.op(Op.MUL, magnitude, magnitude)
    near = e.op(Op.FMA, magnitude, polynomial(e, square, _ERF_NEAR), magnitude)
    exponent = e.op(Op.NEG, polynomial(e, magnitude, _ERF_FAR))
    n, r = _reduce_exp(e, exponent)
    tail = e.op(Op.FMA, e.op(Op.MUL, r, r), polynomial(e, r, _EXP), r)
    power = _power_of_two(e, n)
    rest = e.op(Op.SUB, e.f32(1.0), power)
    far = e.op(Op.SUB, rest, e.op(Op.MUL, power, tail))
    is_near = e.op(Op.LT, magnitude, e.f32(0.9375))
    return _with_sign_of(e, e.op(Op.WHERE, is_near, near, far), x)


def sigmoid(e: Emitter[Value], x: Value) -> Value:
    """Return 1 / (1 + e^-x). At most 2.5 ulp; 29 instructions.

    Below -88.7, where the true value is subnormal, e^-x overflows and the result is +0.
    """
    power = exp(e, e.op(Op.NEG, x))
    return e.op(Op.DIV, e.f32(1.0), e.op(Op.ADD, power, e.f32(1.0)))


def rsqrt(e: Emitter[Value], x: Value) -> Value:
    """Return 1 / sqrt(x), both operations rounded. At most 1.5 ulp; 2 instructions."""
    return e.op(Op.DIV, e.f32(1.0), e.op(Op.SQRT, x))


def _quadrant(e: Emitter[Value], x: Value) -> tuple[Value, Value]:
    """Return `(n, r)`, the last bits of n as i32, with `x = n * pi / 2 + r` and |r| <= 0.7855.

    The first FMA is exact: the product has no bits below 2^-23, where those of x end if n is not 0.
    """
    shifted = e.op(Op.FMA, x, e.f32(TWO_OVER_PI), e.f32(ROUNDER))
    whole = e.op(Op.SUB, shifted, e.f32(ROUNDER))
    r = x
    for part in HALF_PI:
        r = e.op(Op.FMA, whole, e.f32(-part), r)
    return e.op(Op.F2BITS, shifted), r


def _wave(e: Emitter[Value], n: Value, r: Value, x: Value) -> Value:
    """Return sin(n * pi / 2 + r), or NaN where x is too large."""
    square = e.op(Op.MUL, r, r)
    sine = e.op(Op.FMA, e.op(Op.MUL, square, r), polynomial(e, square, _SIN), r)
    cosine = e.op(Op.FMA, square, polynomial(e, square, _COS), e.f32(1.0))
    value = e.op(Op.WHERE, e.op(Op.AND, n, e.i32(1)), cosine, sine)
    sign = e.op(Op.SHL, e.op(Op.AND, n, e.i32(2)), e.i32(30))
    value = e.op(Op.BITS2F, e.op(Op.XOR, e.op(Op.F2BITS, value), sign))
    inside = e.op(Op.LE, e.op(Op.ABS, x), e.f32(LARGEST_ANGLE))
    return e.op(Op.WHERE, inside, value, e.f32(NAN))


def sin(e: Emitter[Value], x: Value) -> Value:
    """Return the sine for |x| <= 65,536, else NaN. At most 1.6 ulp; 28 instructions."""
    n, r = _quadrant(e, x)
    return _zero_keeps_sign(e, _wave(e, n, r, x), x)


def cos(e: Emitter[Value], x: Value) -> Value:
    """Return the cosine for |x| <= 65,536, else NaN. At most 1.6 ulp; 27 instructions."""
    n, r = _quadrant(e, x)
    return _wave(e, e.op(Op.IADD, n, e.i32(1)), r, x)
