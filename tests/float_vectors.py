# SPDX-License-Identifier: GPL-3.0-or-later
"""Test vectors for the primitives and oracles that share no code with `protocol/float32.py`.

Three kinds of oracle: numpy (the machine's own binary32 and wrapping integers, vectorized), a fused
multiply-add out of doubles rounded to odd, and exact rationals rounded by bisection over patterns.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protocol.ops import SIGNATURES, Op

Words = NDArray[np.uint32]

NAN: Final = 0x7FC00000
INFINITY: Final = 0x7F800000
SIGN: Final = 0x80000000

# Magnitudes at which something changes: the signs are added below.
_MAGNITUDES: Final = (
    0x00000000,  # zero
    0x00000001,  # smallest subnormal
    0x00400000,  # half of the smallest normal
    0x007FFFFF,  # largest subnormal
    0x00800000,  # smallest normal
    0x00800001,
    0x33800000,  # 2**-24: half a unit in the last place of 1
    0x33800001,  # just above that tie
    0x34000000,  # 2**-23: a unit in the last place of 1
    0x3EFFFFFF,
    0x3F7FFFFF,  # just below 1
    0x3F800000,  # 1
    0x3F800001,  # just above 1
    0x40490FDB,  # pi
    0x4B800001,  # 2**24 + 2
    0x4F000000,  # 2**31
    0x5FC00000,  # 1.5 * 2**64: times 1 + 2**-23 a tie, which an addend far below must break
    0x7F7FFFFF,  # largest finite
    0x7F800000,  # infinity
)
_NANS: Final = (0x7FC00000, 0x7F800001, 0xFFFFFFFF)  # canonical, signalling, negative with payload

SPECIALS: Final[tuple[int, ...]] = (
    *itertools.chain.from_iterable((m, m | SIGN) for m in _MAGNITUDES),
    *_NANS,
)

# A wider list for operations of one and two operands.
MANY_SPECIALS: Final[tuple[int, ...]] = tuple(
    sorted(
        {
            *SPECIALS,
            *(
                sign | magnitude
                for sign in (0, SIGN)
                for magnitude in (
                    0x00000002, 0x00000003, 0x003FFFFF, 0x00400001, 0x007FFFFE, 0x00FFFFFF,
                    0x01000000, 0x01000001, 0x0CBFFFFF, 0x0CC00000, 0x1F800000, 0x1FFFFFFF,
                    0x20000000, 0x33FFFFFF, 0x34000001, 0x3EAAAAAB, 0x3F000000, 0x3F000001,
                    0x3FFFFFFF, 0x40000000, 0x40400000, 0x4B000000, 0x4B000001, 0x4B7FFFFF,
                    0x4B800000, 0x4EFFFFFF, 0x4F000001, 0x4F7FFFFF, 0x4F800000, 0x5F000000,
                    0x7E800000, 0x7EFFFFFF, 0x7F000000, 0x7F7FFFFE, 0x7FBFFFFF, 0x7FC00001,
                )
            ),
        }
    )
)  # fmt: skip


# A shorter list whose triples are few enough for the contract in an ordinary test run.
FEW_SPECIALS: Final[tuple[int, ...]] = (
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x00800000, 0x5FC00000, 0x33800000,
    0xB3800001, 0x3F7FFFFF, 0x3F800000, 0xBF800000, 0x3F800001, 0xCB800001, 0x7F7FFFFF, 0xFF7FFFFF,
    0x7F800000, 0xFF800000, 0x7FC00000, 0xFF800001,
)  # fmt: skip

# Their roots lie just above a midpoint whose lower neighbour is even: only the sticky bit tells.
HARD_ROOTS: Final[tuple[int, ...]] = (
    0x3FF0D9CE, 0x3FBB61F7, 0x3FC3D4C6, 0x3FB5AD95, 0x406E9372, 0x405AE03B, 0x402A177F, 0x403B8BCC,
)  # fmt: skip


# These quotients lie just above a midpoint, by so little that even 64 spare bits do not show it.
HARD_QUOTIENTS: Final[tuple[tuple[int, int], ...]] = (
    (0x00000001, 0x0A0121FF), (0x00000001, 0x0A0164B0), (0x00000002, 0x0A069913),
    (0x00000003, 0x0A000001), (0x00000003, 0x0A07D666), (0x00000004, 0x0A09BCB0),
    (0x00000005, 0x0A01D463), (0x80000005, 0x0A03FF7E), (0x00000005, 0x8A10FEDD),
)  # fmt: skip


def grid(arity: int, *, wide: bool = True) -> list[Words]:
    """Return one column of operands per position: every tuple of special patterns.

    Wide: 121 single values, all pairs of 113, all triples of 41 values (68,921).
    Narrow: the 121 single values, all pairs of the 41, all triples of 20 values (8,000).
    """
    triples, pairs = (SPECIALS, MANY_SPECIALS) if wide else (FEW_SPECIALS, SPECIALS)
    values = {1: (*MANY_SPECIALS, *HARD_ROOTS), 2: pairs, 3: triples}[arity]
    rows = np.array(list(itertools.product(values, repeat=arity)), dtype=np.uint32)
    return [np.ascontiguousarray(rows[:, position]) for position in range(arity)]


def arity(op: Op) -> int:
    """Number of operands of a primitive."""
    return len(SIGNATURES[op].operands)


def mismatch(op: Op, columns: list[Words], got: Words, wanted: Words) -> str:
    """Describe the first vector on which two implementations differ; empty when none does."""
    different = np.flatnonzero(got != wanted)
    if not len(different):
        return ""
    first = different[0]
    operands = ", ".join(f"0x{column[first]:08x}" for column in columns)
    return (
        f"{op.name}({operands}) gave 0x{got[first]:08x}, not 0x{wanted[first]:08x}; "
        f"{len(different)} of {len(got)} vectors differ"
    )


def random_columns(op: Op, count: int, seed: int) -> list[Words]:
    """Return `count` random operands per position, biased toward where rounding is hard.

    A third are uniform patterns; a third share a binade up to 30 places (sums cancel, products meet
    their addend); a third have sparse significands (ties, exact results, subnormals). Shift
    amounts and conditions are small half of the time.
    """
    generator = np.random.default_rng([seed, int(op), count])
    kinds = SIGNATURES[op].operands
    columns = []
    recipe = generator.integers(0, 3, size=count)
    centre = generator.integers(0, 255, size=count)
    for position, kind in enumerate(kinds):
        uniform = generator.integers(0, 1 << 32, size=count, dtype=np.uint64)
        if kind == "i":
            small = generator.integers(-2, 40, size=count) & 0xFFFFFFFF
            mixed = np.where(generator.random(count) < 0.5, uniform, small.astype(np.uint64))
            columns.append(mixed.astype(np.uint32))
            continue
        shift = generator.integers(-30, 31, size=count)
        # A product of two numbers near 2**(centre - 127) lies near 2**(2 * centre - 254).
        middle = 2 * centre - 127 if op is Op.FMA and position == 2 else centre
        field = np.clip(middle + shift, 0, 254).astype(np.uint64)
        near = uniform & 0x807FFFFF | field << np.uint64(23)
        places = generator.integers(0, 24, size=count).astype(np.uint64)
        sparse = near & ~((np.uint64(1) << places) - np.uint64(1))
        columns.append(np.choose(recipe, [uniform, near, sparse]).astype(np.uint32))
    return columns


def cancelling_columns(op: Op, count: int, seed: int) -> list[Words]:
    """Return operands of ADD, SUB or FMA whose last one nearly undoes what the others make.

    It differs from that only below a random bit, so that any number of leading bits cancels, up to
    all. A tenth of the other operands are zero or subnormal.
    """
    generator = np.random.default_rng([seed, int(op), count, 1])
    columns = []
    for _ in range(arity(op) - 1):
        words = generator.integers(0, 1 << 32, size=count, dtype=np.uint32)
        tiny = words & generator.choice([0, 0x7FFFFF], size=count).astype(np.uint32) | words & SIGN
        columns.append(np.where(generator.random(count) < 0.1, tiny, words).astype(np.uint32))
    made = expected(Op.MUL, columns) if op is Op.FMA else columns[0]
    noise = generator.integers(0, 1 << 32, size=count, dtype=np.uint64)
    noise >>= generator.integers(9, 34, size=count).astype(np.uint64)
    flip = np.uint32(0 if op is Op.SUB else SIGN)
    return [*columns, (made ^ flip ^ noise).astype(np.uint32)]


def meeting_columns() -> list[Words]:
    """Return operands of FMA at each distance at which product and addend can meet, and beyond.

    The place of the addend runs from 80 below to 90 above that of the product (`place` as in
    `contracts/lib/Float32.sol`): with exact ties, the ends of binades, and both signs.
    """
    factors = [(0, 0), (0x7FFFFF, 0x7FFFFF), (1, 0x400000), (3, 0x7FFFFD), (0x2AAAAA, 0x355555)]
    fractions = [0, 1, 0x400000, 0x7FFFFF]
    rows = [
        (x_field << 23 | x, y_field << 23 | y, sign | z_field << 23 | z)
        for apart in range(-80, 91)
        for x_field, y_field in ((127, 140), (60, 60), (200, 190))
        for z_field in (x_field + y_field - 150 + apart,)
        if 0 <= z_field < 255
        for x, y in factors
        for z in fractions
        for sign in (0, SIGN)
    ]
    table = np.array(rows, dtype=np.uint32)
    return [np.ascontiguousarray(table[:, position]) for position in range(3)]


# Oracles ------------------------------------------------------------------------------------------


def canonical(words: Words) -> Words:
    """Replace every NaN by the canonical one."""
    return np.where((words & 0x7FFFFFFF) > INFINITY, np.uint32(NAN), words).astype(np.uint32)


def _floats(words: Words) -> NDArray[np.float32]:
    return canonical(words).view(np.float32)


def _words(values: NDArray[np.float32]) -> Words:
    return canonical(np.ascontiguousarray(values, dtype=np.float32).view(np.uint32))


def fma_by_doubles(x: Words, y: Words, z: Words) -> Words:
    """Fused multiply-add: the double product is exact, its sum with z is rounded to odd.

    Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using
    rounding to odd", IEEE Transactions on Computers 57(4), 2008.
    """
    product = _floats(x).astype(np.float64) * _floats(y).astype(np.float64)
    addend = _floats(z).astype(np.float64)
    total = product + addend
    virtual = total - product
    error = (product - (total - virtual)) + (addend - virtual)
    bits = total.view(np.int64)
    inexact = np.isfinite(total) & (error != 0) & (bits & 1 == 0)
    # Toward zero when the error points there, else away from it: both neighbours are odd.
    inward = (error > 0) == (total < 0)
    bits = np.where(inexact, np.where(inward, bits - 1, bits + 1), bits)
    return _words(bits.view(np.float64).astype(np.float32))


def _extremum(x: Words, y: Words, *, largest: bool) -> Words:
    """The larger or smaller by value, of two zeros by sign; numpy's own rules are not asked."""
    a, b = _floats(x), _floats(y)
    first_wins = (a > b) if largest else (a < b)
    sign_wins = (x < y) if largest else (x > y)  # of two zeros
    both_zero = (a == 0) & (b == 0)
    chosen = np.where(np.where(both_zero, sign_wins, first_wins), x, y)
    return canonical(np.where(np.isnan(a) | np.isnan(b), np.uint32(NAN), chosen).astype(np.uint32))


def _truncate(x: Words) -> Words:
    wide = np.nan_to_num(np.trunc(_floats(x).astype(np.float64)), nan=0.0)
    clipped: NDArray[np.float64] = np.clip(wide, -(2.0**31), 2.0**31 - 1)
    return clipped.astype(np.int64).astype(np.uint32)


def _where(condition: Words, x: Words, y: Words) -> Words:
    return np.where(condition != 0, x, y).astype(np.uint32)


def _flags(truth: NDArray[np.bool_]) -> Words:
    return truth.astype(np.uint32)


def _ints(words: Words) -> NDArray[np.int32]:
    return words.view(np.int32)


def _umulh(x: Words, y: Words) -> Words:
    return (x.astype(np.uint64) * y >> np.uint64(32)).astype(np.uint32)


def _sar(x: Words, y: Words) -> Words:
    return (_ints(x) >> (_ints(y) & 31)).view(np.uint32)


_ORACLES: Final[dict[Op, Callable[..., Words]]] = {
    Op.ADD: lambda x, y: _words(_floats(x) + _floats(y)),
    Op.SUB: lambda x, y: _words(_floats(x) - _floats(y)),
    Op.MUL: lambda x, y: _words(_floats(x) * _floats(y)),
    Op.FMA: fma_by_doubles,
    Op.DIV: lambda x, y: _words(_floats(x) / _floats(y)),
    Op.SQRT: lambda x: _words(np.sqrt(_floats(x))),
    Op.MAX: lambda x, y: _extremum(x, y, largest=True),
    Op.MIN: lambda x, y: _extremum(x, y, largest=False),
    Op.NEG: lambda x: _words(-_floats(x)),
    Op.ABS: lambda x: _words(np.abs(_floats(x))),
    Op.EQ: lambda x, y: _flags(_floats(x) == _floats(y)),
    Op.LT: lambda x, y: _flags(_floats(x) < _floats(y)),
    Op.LE: lambda x, y: _flags(_floats(x) <= _floats(y)),
    Op.WHERE: lambda c, x, y: canonical(_where(c, x, y)),
    Op.F2I: _truncate,
    Op.I2F: lambda x: _words(_ints(x).astype(np.float32)),
    Op.F2BITS: canonical,
    Op.BITS2F: canonical,
    Op.IADD: lambda x, y: x + y,
    Op.ISUB: lambda x, y: x - y,
    Op.IMUL: lambda x, y: x * y,
    Op.UMULH: _umulh,
    Op.AND: lambda x, y: x & y,
    Op.OR: lambda x, y: x | y,
    Op.XOR: lambda x, y: x ^ y,
    Op.SHL: lambda x, y: x << (y & 31),
    Op.SHR: lambda x, y: x >> (y & 31),
    Op.SAR: _sar,
    Op.IEQ: lambda x, y: _flags(x == y),
    Op.ILT: lambda x, y: _flags(_ints(x) < _ints(y)),
    Op.ULT: lambda x, y: _flags(x < y),
    Op.IWHERE: _where,
}


def expected(op: Op, columns: list[Words]) -> Words:
    """Evaluate a primitive on whole columns, one per operand, with the machine's arithmetic."""
    with np.errstate(all="ignore"):
        return _ORACLES[op](*columns)


def value(pattern: int) -> Fraction:
    """The exact value of a finite pattern; the pattern of infinity stands for 2**128."""
    field, fraction = pattern >> 23 & 0xFF, pattern & 0x7FFFFF
    scale = Fraction(2) ** (max(field, 1) - 127)
    magnitude = scale * (Fraction(fraction, 1 << 23) + (1 if field else 0))
    return -magnitude if pattern & SIGN else magnitude


def nearest(exact: Fraction) -> int:
    """Round a nonzero rational by bisection over the ordered patterns: nothing but comparisons."""
    sign, magnitude = (SIGN, -exact) if exact < 0 else (0, exact)
    low, high = 0, INFINITY
    if magnitude >= value(high):
        return sign | INFINITY
    while high - low > 1:
        middle = (low + high) // 2
        if value(middle) <= magnitude:
            low = middle
        else:
            high = middle
    below, above = magnitude - value(low), value(high) - magnitude
    if below == above:
        return sign | (low if low % 2 == 0 else high)
    return sign | (low if below < above else high)


def nearest_root(exact: Fraction) -> int:
    """Round the square root of a positive rational: it can never be a tie."""
    low, high = 0, INFINITY
    while high - low > 1:
        middle = (low + high) // 2
        if value(middle) ** 2 <= exact:
            low = middle
        else:
            high = middle
    tie = (value(low) + value(high)) / 2
    return low if exact < tie**2 or exact == value(low) ** 2 else high
