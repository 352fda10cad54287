# SPDX-License-Identifier: GPL-3.0-or-later
"""The primitives on 32-bit patterns, in Python integers: the living definition of the arithmetic.

Everything else (compiled kernels, `contracts/lib/Float32.sol`) must agree with this file bit for
bit. No result comes from floating-point hardware: a finite number is the exact integer pair
`(significand, exponent)` of its value `significand * 2**exponent`, every operation is done on
such pairs without loss, and `_round` rounds once at the end.

Operands are patterns, `0 <= x < 2**32` (not checked: this is the inner loop of the reference
interpreter). An `f` operand is canonicalized when it is read and an `f` result is canonical, so the
only NaN that comes out of here is `NAN`. Sections named below are those of IEEE 754-2019.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Final, NewType

from protocol.errors import ProgramError
from protocol.ops import Op

Float32 = NewType("Float32", int)
Int32 = NewType("Int32", int)

NAN: Final = Float32(0x7FC00000)
INFINITY: Final = Float32(0x7F800000)
POSITIVE_ZERO: Final = Float32(0)
ONE: Final = Float32(0x3F800000)

SIGN: Final = 0x80000000
WORD: Final = 0xFFFFFFFF
INT_MAX: Final = Int32(0x7FFFFFFF)
INT_MIN: Final = Int32(0x80000000)

PRECISION: Final = 24  # bits of a normal significand, the hidden one included
LOWEST: Final = -149  # exponent of the last place of a subnormal number
SPARE: Final = 64  # extra bits of a quotient or a root: enough to round with a sticky bit


# Representation ----------------------------------------------------------------------------------


def is_nan(x: Float32) -> bool:
    """Whether `x` is any of the NaNs (section 3.4)."""
    return x & ~SIGN > INFINITY


def canonical(x: Float32) -> Float32:
    """Return `x`, or the one NaN of the protocol if it is a NaN (section 6.2.3)."""
    return NAN if is_nan(x) else x


def _is_infinite(x: Float32) -> bool:
    return x & ~SIGN == INFINITY


def _is_zero(x: Float32) -> bool:
    return x & ~SIGN == 0


def _signed(sign: int, magnitude: int) -> Float32:
    return Float32(sign << 31 | magnitude)


def _exact(x: Float32) -> tuple[int, int]:
    """Return `(significand, exponent)` of the magnitude of a finite `x` (section 3.4)."""
    field, fraction = x >> 23 & 0xFF, x & 0x7FFFFF
    if field == 0:
        return fraction, LOWEST
    return 1 << 23 | fraction, field - 1 + LOWEST


def _round(sign: int, significand: int, exponent: int) -> Float32:
    """Round `significand * 2**exponent` to nearest, ties to even (sections 4.3.1, 7.4, 7.5).

    The last place that is kept is that of the 24th significant bit but never below 2**-149: that is
    gradual underflow. Adding the significand to the exponent field lets its hidden bit and a carry
    of the rounding step into the next binade by themselves; past the largest binade is infinity.
    """
    if significand == 0:
        return _signed(sign, 0)
    dropped = max(significand.bit_length() - PRECISION, LOWEST - exponent)
    if dropped > 0:
        odd = significand >> dropped & 1
        kept = (significand + (1 << dropped - 1) - 1 + odd) >> dropped
    else:
        kept = significand << -dropped
    magnitude = (exponent + dropped - LOWEST << 23) + kept
    return _signed(sign, min(magnitude, INFINITY))


def _sum(x_sign: int, x: tuple[int, int], y_sign: int, y: tuple[int, int]) -> Float32:
    """Round the sum of two signed exact numbers; a sum of zero has its sign by section 6.3."""
    exponent = min(x[1], y[1])
    x_term = x[0] << x[1] - exponent
    y_term = y[0] << y[1] - exponent
    total = (-x_term if x_sign else x_term) + (-y_term if y_sign else y_term)
    if total == 0:
        return _signed(x_sign & y_sign, 0)
    return _round(int(total < 0), abs(total), exponent)


# Arithmetic --------------------------------------------------------------------------------------


def add(x: Float32, y: Float32) -> Float32:
    """f = f + f (section 5.4.1). Opposite infinities give NaN; x + (-x) is +0."""
    if is_nan(x) or is_nan(y):
        return NAN
    if _is_infinite(x):
        return NAN if _is_infinite(y) and x != y else x
    if _is_infinite(y):
        return y
    return _sum(x >> 31, _exact(x), y >> 31, _exact(y))


def sub(x: Float32, y: Float32) -> Float32:
    """f = f - f (section 5.4.1), which is x + (-y)."""
    return add(x, neg(y))


def mul(x: Float32, y: Float32) -> Float32:
    """f = f * f (section 5.4.1). Zero times infinity is NaN."""
    return fma(x, y, _signed((x ^ y) >> 31, 0))


def fma(x: Float32, y: Float32, z: Float32) -> Float32:
    """f = f * f + f, rounded once (section 5.4.1). Zero times infinity plus anything is NaN."""
    if is_nan(x) or is_nan(y) or is_nan(z):
        return NAN
    sign = (x ^ y) >> 31
    if _is_infinite(x) or _is_infinite(y):
        if _is_zero(x) or _is_zero(y):
            return NAN
        product = _signed(sign, INFINITY)
        return NAN if _is_infinite(z) and z != product else product
    if _is_infinite(z):
        return z
    (x_significand, x_exponent), (y_significand, y_exponent) = _exact(x), _exact(y)
    exact_product = x_significand * y_significand, x_exponent + y_exponent
    return _sum(sign, exact_product, z >> 31, _exact(z))


def div(x: Float32, y: Float32) -> Float32:
    """f = f / f (section 5.4.1). Zero by zero and infinity by infinity are NaN."""
    if is_nan(x) or is_nan(y):
        return NAN
    sign = (x ^ y) >> 31
    if _is_infinite(x):
        return NAN if _is_infinite(y) else _signed(sign, INFINITY)
    if _is_infinite(y):
        return _signed(sign, 0)
    if _is_zero(y):
        return NAN if _is_zero(x) else _signed(sign, INFINITY)
    (x_significand, x_exponent), (y_significand, y_exponent) = _exact(x), _exact(y)
    quotient, remainder = divmod(x_significand << SPARE, y_significand)
    sticky = int(remainder != 0)
    return _round(sign, quotient | sticky, x_exponent - y_exponent - SPARE)


def sqrt(x: Float32) -> Float32:
    """f = square root (section 5.4.1). That of -0 is -0, of any other negative number NaN."""
    if is_nan(x):
        return NAN
    if _is_zero(x):
        return x
    if x >> 31:
        return NAN
    if _is_infinite(x):
        return x
    significand, exponent = _exact(x)
    odd = exponent & 1
    radicand = significand << SPARE + odd
    root = isqrt(radicand)
    sticky = int(root * root != radicand)
    return _round(0, root | sticky, (exponent - odd - SPARE) // 2)


# Sign and order ----------------------------------------------------------------------------------


def neg(x: Float32) -> Float32:
    """f = x with its sign flipped (section 5.5.1), but a NaN stays canonical."""
    return NAN if is_nan(x) else Float32(x ^ SIGN)


def absolute(x: Float32) -> Float32:
    """f = x with its sign cleared (section 5.5.1)."""
    return NAN if is_nan(x) else Float32(x & ~SIGN)


def _order(x: Float32) -> int:
    """Map a pattern that is no NaN to an integer of the same order, -0 just below +0."""
    return ~(x & ~SIGN) if x >> 31 else x


def _value_order(x: Float32) -> int:
    """Map a pattern that is no NaN to an integer of the same order, both zeros to 0."""
    return -(x & ~SIGN) if x >> 31 else x


def maximum(x: Float32, y: Float32) -> Float32:
    """f = the larger (section 9.6, maximum). NaN wins over everything and -0 < +0."""
    if is_nan(x) or is_nan(y):
        return NAN
    return x if _order(x) >= _order(y) else y


def minimum(x: Float32, y: Float32) -> Float32:
    """f = the smaller (section 9.6, minimum). NaN wins over everything and -0 < +0."""
    if is_nan(x) or is_nan(y):
        return NAN
    return x if _order(x) <= _order(y) else y


def eq(x: Float32, y: Float32) -> Int32:
    """i = 1 if x == y else 0 (section 5.11). A NaN equals nothing; -0 equals +0."""
    unordered = is_nan(x) or is_nan(y)
    return Int32(int(not unordered and _value_order(x) == _value_order(y)))


def lt(x: Float32, y: Float32) -> Int32:
    """i = 1 if x < y else 0 (section 5.11). False with a NaN."""
    unordered = is_nan(x) or is_nan(y)
    return Int32(int(not unordered and _value_order(x) < _value_order(y)))


def le(x: Float32, y: Float32) -> Int32:
    """i = 1 if x <= y else 0 (section 5.11). False with a NaN."""
    unordered = is_nan(x) or is_nan(y)
    return Int32(int(not unordered and _value_order(x) <= _value_order(y)))


def where(condition: Int32, x: Float32, y: Float32) -> Float32:
    """f = x if the integer condition is not zero, else y."""
    return canonical(x if condition else y)


# Conversions -------------------------------------------------------------------------------------


def f2i(x: Float32) -> Int32:
    """i = x truncated toward zero (section 5.8), saturated at both ends; NaN gives 0."""
    if is_nan(x):
        return Int32(0)
    if (x & ~SIGN) >= 0x4F000000:  # 2**31 and above, infinity too
        return INT_MIN if x >> 31 else INT_MAX
    significand, exponent = _exact(x)
    truncated = significand << exponent if exponent >= 0 else significand >> -exponent
    return Int32(-truncated & WORD if x >> 31 else truncated)


def i2f(x: Int32) -> Float32:
    """f = the signed integer x, rounded to nearest even (section 5.4.1)."""
    return _round(x >> 31, abs(signed(x)), 0)


def f2bits(x: Float32) -> Int32:
    """i = the pattern of x, canonical."""
    return Int32(canonical(x))


def bits2f(x: Int32) -> Float32:
    """f = the number whose pattern is x, canonical."""
    return canonical(Float32(x))


# Integers: two's complement, wrapping ------------------------------------------------------------


def signed(x: int) -> int:
    """The value in [-2**31, 2**31) of a pattern."""
    return x - (1 << 32) if x >> 31 else x


def _iadd(x: int, y: int) -> int:
    return x + y & WORD


def _isub(x: int, y: int) -> int:
    return x - y & WORD


def _imul(x: int, y: int) -> int:
    return x * y & WORD


def _umulh(x: int, y: int) -> int:
    return x * y >> 32


def _and(x: int, y: int) -> int:
    return x & y


def _or(x: int, y: int) -> int:
    return x | y


def _xor(x: int, y: int) -> int:
    return x ^ y


def _shl(x: int, y: int) -> int:
    return x << (y & 31) & WORD


def _shr(x: int, y: int) -> int:
    return x >> (y & 31)


def _sar(x: int, y: int) -> int:
    return signed(x) >> (y & 31) & WORD


def _ieq(x: int, y: int) -> int:
    return int(x == y)


def _ilt(x: int, y: int) -> int:
    return int(signed(x) < signed(y))


def _ult(x: int, y: int) -> int:
    return int(x < y)


def _iwhere(condition: int, x: int, y: int) -> int:
    return x if condition else y


TABLE: Final[dict[Op, Callable[..., int]]] = {
    Op.ADD: add,
    Op.SUB: sub,
    Op.MUL: mul,
    Op.FMA: fma,
    Op.DIV: div,
    Op.SQRT: sqrt,
    Op.MAX: maximum,
    Op.MIN: minimum,
    Op.NEG: neg,
    Op.ABS: absolute,
    Op.EQ: eq,
    Op.LT: lt,
    Op.LE: le,
    Op.WHERE: where,
    Op.F2I: f2i,
    Op.I2F: i2f,
    Op.F2BITS: f2bits,
    Op.BITS2F: bits2f,
    Op.IADD: _iadd,
    Op.ISUB: _isub,
    Op.IMUL: _imul,
    Op.UMULH: _umulh,
    Op.AND: _and,
    Op.OR: _or,
    Op.XOR: _xor,
    Op.SHL: _shl,
    Op.SHR: _shr,
    Op.SAR: _sar,
    Op.IEQ: _ieq,
    Op.ILT: _ilt,
    Op.ULT: _ult,
    Op.IWHERE: _iwhere,
}


def apply(op: Op, *operands: int) -> int:
    """Execute one primitive on 32-bit patterns and return its 32-bit pattern.

    Raises ProgramError when `op` is not a primitive.
    """
    try:
        function = TABLE[op]
    except KeyError:
        raise ProgramError(f"0x{op:02x} is not a primitive") from None
    return function(*operands)
