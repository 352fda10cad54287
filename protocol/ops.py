# SPDX-License-Identifier: GPL-3.0-or-later
"""The primitives: the only arithmetic that the referee knows.

Every value is a 32-bit pattern. `f` below is IEEE-754 binary32, `i` two's complement, `u` unsigned.
An f operand that is a NaN is read as the canonical 0x7fc00000, and an f result that is a NaN is
that same pattern (IEEE 754-2019 section 6.2.3 leaves the payload open; the protocol closes it).
Rounding is to nearest, ties to even, with gradual underflow.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Op(IntEnum):
    """One primitive. The value is its byte in a node's encoding (specification, section 3)."""

    ADD = 0x01  # f = f + f
    SUB = 0x02  # f = f - f
    MUL = 0x03  # f = f * f
    FMA = 0x04  # f = f * f + f, one rounding
    DIV = 0x05  # f = f / f
    SQRT = 0x06  # f = square root
    MAX = 0x07  # f = IEEE 754-2019 maximum: NaN propagates, -0 < +0
    MIN = 0x08  # f = IEEE 754-2019 minimum
    NEG = 0x09  # f = sign flipped (a NaN stays canonical)
    ABS = 0x0A  # f = sign cleared
    EQ = 0x0B  # i = 1 if f == f else 0 (false with a NaN; -0 == +0)
    LT = 0x0C  # i = 1 if f < f else 0 (false with a NaN)
    LE = 0x0D  # i = 1 if f <= f else 0 (false with a NaN)
    WHERE = 0x0E  # f = second if first (i) != 0 else third
    F2I = 0x0F  # i = truncated toward zero, saturated, NaN -> 0
    I2F = 0x10  # f = nearest even of signed i
    F2BITS = 0x11  # i = pattern of f (canonical)
    BITS2F = 0x12  # f = pattern of i, canonical

    IADD = 0x20  # i = i + i mod 2^32
    ISUB = 0x21  # i = i - i mod 2^32
    IMUL = 0x22  # i = i * i mod 2^32
    UMULH = 0x23  # i = high 32 bits of u * u
    AND = 0x24  # i = i & i
    OR = 0x25  # i = i | i
    XOR = 0x26  # i = i ^ i
    SHL = 0x27  # i = i << (u mod 32)
    SHR = 0x28  # i = u >> (u mod 32), zeros come in
    SAR = 0x29  # i = i >> (u mod 32), the sign comes in
    IEQ = 0x2A  # i = 1 if i == i else 0
    ILT = 0x2B  # i = 1 if i < i (signed) else 0
    ULT = 0x2C  # i = 1 if u < u else 0
    IWHERE = 0x2D  # i = second if first != 0 else third


class Signature(NamedTuple):
    """Operand and result kinds, `f` or `i`, of one primitive."""

    operands: str
    result: str


SIGNATURES: dict[Op, Signature] = {
    **{op: Signature("ff", "f") for op in (Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.MAX, Op.MIN)},
    Op.FMA: Signature("fff", "f"),
    **{op: Signature("f", "f") for op in (Op.SQRT, Op.NEG, Op.ABS)},
    **{op: Signature("ff", "i") for op in (Op.EQ, Op.LT, Op.LE)},
    Op.WHERE: Signature("iff", "f"),
    Op.F2I: Signature("f", "i"),
    Op.I2F: Signature("i", "f"),
    Op.F2BITS: Signature("f", "i"),
    Op.BITS2F: Signature("i", "f"),
    **{
        op: Signature("ii", "i")
        for op in (
            Op.IADD,
            Op.ISUB,
            Op.IMUL,
            Op.UMULH,
            Op.AND,
            Op.OR,
            Op.XOR,
            Op.SHL,
            Op.SHR,
            Op.SAR,
            Op.IEQ,
            Op.ILT,
            Op.ULT,
        )
    },
    Op.IWHERE: Signature("iii", "i"),
}
