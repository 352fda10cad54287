# SPDX-License-Identifier: GPL-3.0-or-later
"""The primitives of one operand on whole columns, in unsigned integers of 64 bits.

A fourth implementation for `tests.exhaustive_float32`: it shares no code with the definition, and
no floating-point instruction decides a bit. Sections are those of IEEE 754-2019.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protocol.ops import Op
from tests.float_vectors import INFINITY, NAN, SIGN, Words

Longs = NDArray[np.uint64]

ROOT_BITS: Final = 26


def _long(number: int) -> np.uint64:
    return np.uint64(number)


def canonical(x: Words) -> Words:
    """Every NaN becomes the protocol's."""
    return np.where((x & ~np.uint32(SIGN)) > INFINITY, np.uint32(NAN), x)


def negated(x: Words) -> Words:
    """The other sign (section 5.5.1), but of a NaN."""
    return canonical(np.where((x & ~np.uint32(SIGN)) > INFINITY, x, x ^ np.uint32(SIGN)))


def absolute(x: Words) -> Words:
    """No sign (section 5.5.1)."""
    return canonical(x & ~np.uint32(SIGN))


def _highest_bit(x: Longs) -> Longs:
    """The number of the highest bit of numbers below 2**32, 0 for zero."""
    top = np.zeros_like(x)
    for half in (16, 8, 4, 2, 1):
        above = (x >> top) >> _long(half) != 0
        top += above.astype(np.uint64) << _long(half.bit_length() - 1)
    return top


def _nearest(x: Longs, dropped: Longs) -> Longs:
    """`x / 2**dropped`, rounded to nearest, ties to even (section 4.3.1)."""
    kept = x >> dropped
    rest = x - (kept << dropped)
    half = (_long(1) << dropped) >> _long(1)  # 0 if nothing is dropped
    up = (rest > half) | (rest == half) & (kept & _long(1) == 1)
    return kept + (up & (dropped > 0)).astype(np.uint64)


def to_float(x: Words) -> Words:
    """A signed integer as a float (section 5.4.1)."""
    negative = x >= SIGN
    magnitude = np.where(negative, _long(1 << 32) - x, x).astype(np.uint64)
    top = _highest_bit(magnitude)
    dropped = np.where(top > 23, top - _long(23), _long(0))
    significand = _nearest(magnitude, dropped) << np.where(top < 23, _long(23) - top, _long(0))
    # The hidden bit, or a carry out of it, goes into the field.
    pattern = (top + _long(126) << _long(23)) + significand
    pattern = np.where(x == 0, _long(0), pattern)
    return (pattern | np.where(negative, _long(SIGN), _long(0))).astype(np.uint32)


def to_integer(x: Words) -> Words:
    """A float truncated to a signed integer (section 5.8), saturated; 0 for a NaN."""
    magnitude, negative = x & ~np.uint32(SIGN), x >= SIGN
    field = (magnitude >> np.uint32(23)).astype(np.int64)
    significand = (magnitude & np.uint32(0x7FFFFF) | np.uint32(1 << 23)).astype(np.int64)
    left = significand << np.clip(field - 150, 0, 32)
    truncated = np.where(field < 127, 0, left >> np.clip(150 - field, 0, 63))
    limit = np.where(negative, 1 << 31, (1 << 31) - 1)
    truncated = np.where(field >= 158, limit, np.minimum(truncated, limit))
    truncated = np.where(magnitude > INFINITY, 0, np.where(negative, -truncated, truncated))
    return truncated.astype(np.uint32)


def square_root(x: Words) -> Words:
    """The square root (section 5.4.1): -0 of -0, NaN of any other negative number."""
    magnitude = (x & ~np.uint32(SIGN)).astype(np.uint64)
    field, fraction = magnitude >> _long(23), magnitude & _long(0x7FFFFF)
    # The value is significand * 2**(exponent - 150), with the hidden bit in place.
    subnormal = field == 0
    top = np.where(subnormal, _highest_bit(fraction), _long(23))
    shift = _long(23) - top
    significand = (fraction | np.where(subnormal, _long(0), _long(1 << 23))) << shift
    exponent = np.where(subnormal, _long(1), field) + _long(256) - shift  # 256: stays positive
    # An even power of two is taken out, so that the root has ROOT_BITS bits.
    odd = ~exponent & _long(1)
    radicand = significand << _long(2 * ROOT_BITS - 25) << odd
    root = _floor_root(radicand)
    sticky = (root * root != radicand).astype(np.uint64)
    rounded = _nearest(root << _long(1) | sticky, np.full_like(root, ROOT_BITS - 23))
    # Half the exponent with its bias, and one less for the hidden bit.
    pattern = (exponent - odd - _long(131) >> _long(1) << _long(23)) + rounded
    pattern = np.where(magnitude == 0, x, np.where(x >= SIGN, _long(NAN), pattern))
    pattern = np.where(x == INFINITY, _long(INFINITY), pattern)
    return np.where(magnitude > INFINITY, _long(NAN), pattern).astype(np.uint32)


def _floor_root(x: Longs) -> Longs:
    """The integer square root. A double only guesses; integers decide."""
    root = np.sqrt(x.astype(np.float64)).astype(np.uint64)
    root -= (root * root > x).astype(np.uint64)
    above = root + _long(1)
    return np.where(above * above <= x, above, root)


IN_INTEGERS: Final[dict[Op, Callable[[Words], Words]]] = {
    Op.SQRT: square_root,
    Op.NEG: negated,
    Op.ABS: absolute,
    Op.F2I: to_integer,
    Op.I2F: to_float,
    Op.F2BITS: canonical,
    Op.BITS2F: canonical,
}
"""All primitives of one operand."""
