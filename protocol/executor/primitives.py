# SPDX-License-Identifier: GPL-3.0-or-later
"""Each primitive as LLVM instructions, on a scalar or on a vector of any width.

Values here may hold NaNs of any payload: which NaN it is can be seen only by F2BITS and by a store,
and those two canonicalize. No other primitive can tell one NaN from another, and none of them
turns a NaN into a number. So canonicalizing every operand and result, as the specification says,
gives the same bits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from protocol.executor.emitter import Emitter, mangled, vector
from protocol.float32 import NAN, Float32, canonical
from protocol.ops import SIGNATURES, Op
from protocol.program import Fold

ELEMENT: Final = {"f": "float", "i": "i32"}
"""LLVM element type of a register kind."""

NAN_TEXT: Final = "0x7FF8000000000000"
"""The protocol's NaN as an LLVM float constant, written as the double of the same value."""
SIGN: Final = 1 << 31
"""Pattern of -0."""


@dataclass(frozen=True)
class Value:
    """A register: its LLVM name, its kind `f` or `i`, and how many lanes it holds.

    `canonical` says that no lane holds a NaN other than the protocol's; `pattern` is that of a
    constant (canonical if it is a float).
    """

    name: str
    letter: str
    width: int
    canonical: bool = False
    pattern: int | None = None

    @property
    def type(self) -> str:
        """LLVM type."""
        return vector(ELEMENT[self.letter], self.width)


def float_text(pattern: int) -> str:
    """Return the LLVM constant of a float pattern, canonical."""
    pattern = canonical(Float32(pattern))
    if pattern == NAN:
        return NAN_TEXT
    (number,) = struct.unpack("<f", struct.pack("<I", pattern))
    (bits,) = struct.unpack("<Q", struct.pack("<d", number))
    return f"0x{bits:016X}"


def constant(pattern: int, letter: str) -> Value:
    """Return a 32-bit pattern as a scalar register of either kind."""
    if letter == "f":
        pattern = canonical(Float32(pattern))
        return Value(float_text(pattern), "f", 1, canonical=True, pattern=pattern)
    text = str(pattern - (1 << 32) if pattern >> 31 else pattern)
    return Value(text, "i", 1, pattern=pattern)


def widened(em: Emitter, value: Value, width: int) -> Value:
    """Return the register with `width` lanes; only a scalar can be widened."""
    if value.width == width:
        return value
    name = em.splat(ELEMENT[value.letter], value.name, width)
    return Value(name, value.letter, width, value.canonical, value.pattern)


def bits_of(em: Emitter, value: Value) -> Value:
    """Return the register's patterns as integers, every NaN replaced by the protocol's.

    The choice is made among integers on purpose: LLVM leaves the payload of a NaN open and does
    drop a choice among floats (it turns `x < 0 ? NaN : sqrt(x)` into `sqrt(x)`).
    """
    if value.letter == "i":
        return value
    kind, words, flags = value.type, vector("i32", value.width), vector("i1", value.width)
    bits = em.op(f"bitcast {kind} {value.name} to {words}")
    if not value.canonical:
        zero = em.splat("float", "0.0", value.width)
        nan = em.op(f"fcmp uno {kind} {value.name}, {zero}")
        fixed = em.splat("i32", str(int(NAN)), value.width)
        bits = em.op(f"select {flags} {nan}, {words} {fixed}, {words} {bits}")
    return Value(bits, "i", value.width)


_BINARY: Final = {
    Op.ADD: "fadd", Op.SUB: "fsub", Op.MUL: "fmul", Op.DIV: "fdiv",
    Op.IADD: "add", Op.ISUB: "sub", Op.IMUL: "mul",
    Op.AND: "and", Op.OR: "or", Op.XOR: "xor",
}  # fmt: skip
_SHIFTS: Final = {Op.SHL: "shl", Op.SHR: "lshr", Op.SAR: "ashr"}
_COMPARES: Final = {
    Op.EQ: "fcmp oeq", Op.LT: "fcmp olt", Op.LE: "fcmp ole",
    Op.IEQ: "icmp eq", Op.ILT: "icmp slt", Op.ULT: "icmp ult",
}  # fmt: skip
_INTRINSICS: Final = {
    Op.FMA: "fma", Op.SQRT: "sqrt", Op.MAX: "maximum", Op.MIN: "minimum", Op.ABS: "fabs",
}  # fmt: skip


def emit(em: Emitter, op: Op, operands: list[Value]) -> Value:
    """Apply one primitive. Scalars are widened to the widest operand."""
    width = max(value.width for value in operands)
    letter = SIGNATURES[op].result
    if op is Op.F2BITS:
        return bits_of(em, operands[0])
    if op in (Op.MAX, Op.MIN):
        for number, other in (operands, operands[::-1]):
            if number.pattern is not None and number.pattern != NAN:
                return _limited(em, op, widened(em, other, width), number)
    a, *rest = [widened(em, value, width).name for value in operands]
    kind = vector(ELEMENT[SIGNATURES[op].operands[-1]], width)
    words, flags = vector("i32", width), vector("i1", width)
    result = vector(ELEMENT[letter], width)
    known = letter == "f" and op is Op.WHERE and all(v.canonical for v in operands[1:])
    if op in _BINARY:
        name = em.op(f"{_BINARY[op]} {kind} {a}, {rest[0]}")
    elif op in _INTRINSICS:
        arguments = [(kind, value) for value in (a, *rest)]
        name = em.call(kind, f"llvm.{_INTRINSICS[op]}.{mangled('float', width)}", arguments)
    elif op in _SHIFTS:
        amount = em.op(f"and {words} {rest[0]}, {em.splat('i32', '31', width)}")
        name = em.op(f"{_SHIFTS[op]} {words} {a}, {amount}")
    elif op in _COMPARES:
        name = em.op(f"zext {flags} {em.op(f'{_COMPARES[op]} {kind} {a}, {rest[0]}')} to {words}")
    elif op in (Op.WHERE, Op.IWHERE):
        chosen = em.op(f"icmp ne {words} {a}, {em.splat('i32', '0', width)}")
        name = em.op(f"select {flags} {chosen}, {kind} {rest[0]}, {kind} {rest[1]}")
    elif op is Op.NEG:
        name = em.op(f"fneg {kind} {a}")
    elif op is Op.F2I:
        suffix = f"{mangled('i32', width)}.{mangled('float', width)}"
        name = em.call(result, f"llvm.fptosi.sat.{suffix}", [(kind, a)])
    elif op is Op.I2F:
        name, known = em.op(f"sitofp {kind} {a} to {result}"), True
    elif op is Op.UMULH:
        name = _high_product(em, a, rest[0], width)
    else:  # BITS2F
        name = em.op(f"bitcast {kind} {a} to {result}")
    return Value(name, letter, width, known)


def _limited(em: Emitter, op: Op, x: Value, limit: Value) -> Value:
    """Return MAX or MIN of `x` and a constant that is no NaN: one comparison and one choice.

    A NaN compares false and stays. Zeros of either sign compare equal, so where the limit is the
    zero that must win (+0 of MAX, -0 of MIN) an equal `x` gives way to it.
    """
    relation = "lt" if op is Op.MAX else "gt"
    if limit.pattern == (0 if op is Op.MAX else SIGN):
        relation = relation[0] + "e"
    bound, flags = widened(em, limit, x.width).name, vector("i1", x.width)
    beyond = em.op(f"fcmp o{relation} {x.type} {x.name}, {bound}")
    name = em.op(f"select {flags} {beyond}, {x.type} {bound}, {x.type} {x.name}")
    return Value(name, "f", x.width, x.canonical)


def _high_product(em: Emitter, a: str, b: str, width: int) -> str:
    words, longs = vector("i32", width), vector("i64", width)
    wide = [em.op(f"zext {words} {x} to {longs}") for x in (a, b)]
    product = em.op(f"mul {longs} {wide[0]}, {wide[1]}")
    high = em.op(f"lshr {longs} {product}, {em.splat('i64', '32', width)}")
    return em.op(f"trunc {longs} {high} to {words}")


# Folds -------------------------------------------------------------------------------------------


def identity(fold: Fold) -> Value:
    """Return the scalar that every chain begins with."""
    patterns = {Fold.MAX: 0xFF800000, Fold.IMAX: 0x80000000}
    return constant(patterns.get(fold, 0), "i" if fold in (Fold.ISUM, Fold.IMAX) else "f")


def combine(em: Emitter, fold: Fold, a: Value, b: Value) -> Value:
    """Return two accumulators (or an accumulator and a term) folded into one."""
    if fold is Fold.IMAX:
        width = max(a.width, b.width)
        pair = [(v.type, v.name) for v in (widened(em, a, width), widened(em, b, width))]
        name = em.call(pair[0][0], f"llvm.smax.{mangled('i32', width)}", pair)
        return Value(name, "i", width)
    return emit(em, {Fold.MAX: Op.MAX, Fold.ISUM: Op.IADD}.get(fold, Op.ADD), [a, b])


def step(em: Emitter, fold: Fold, acc: Value, term: list[Value]) -> Value:
    """Return the accumulator after one more term: two registers for DOT, else one."""
    if fold is Fold.DOT:
        return emit(em, Op.FMA, [*term, acc])
    return combine(em, fold, acc, term[0])


def finish(em: Emitter, fold: Fold, s: Value) -> Value:
    """Return the bits of the element: ADD(+0, s) for DOT and SUM, else s; canonical."""
    if fold in (Fold.DOT, Fold.SUM):
        s = emit(em, Op.ADD, [constant(0, "f"), s])
    return bits_of(em, s)
