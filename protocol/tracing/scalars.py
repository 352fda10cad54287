# SPDX-License-Identifier: GPL-3.0-or-later
"""Scalar expressions: what one element of a tensor under construction is made of.

A scalar is a node of a hash-consed graph (equal scalars are the same object, so identity is
equality). Its leaves are immediates, elements of buffers at affine places, affine integers and
numbers that depend on the step alone. Axes are those of the tensor that the scalar belongs to;
moves such as permute only substitute axes (`protocol.tracing.moves`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from protocol import float32
from protocol.mathfn import bits_of
from protocol.ops import SIGNATURES, Op
from protocol.program import DType
from protocol.tracing.numbers import StepNumbers
from protocol.tracing.schedule import OnStep, combine, constant_of, is_schedule_op


@dataclass(frozen=True, slots=True, eq=False)
class Imm:
    """An immediate. `exact` is the number it was rounded from, for schedules."""

    bits: int
    dtype: DType
    exact: float


@dataclass(frozen=True, slots=True)
class Affine:
    """`offset + sum of coef * axis`. An axis is a coordinate, or the value of an i32 `Load`."""

    terms: tuple[tuple[Axis, int], ...] = ()
    offset: int = 0

    @staticmethod
    def of(axis: Axis, coef: int = 1, offset: int = 0) -> Affine:
        """Return `offset + coef * axis`."""
        return Affine(((axis, coef),), offset)

    def plus(self, other: Affine, factor: int = 1) -> Affine:
        """Return `self + factor * other`."""
        terms = dict(self.terms)
        for axis, coef in other.terms:
            terms[axis] = terms.get(axis, 0) + factor * coef
        kept = tuple((axis, coef) for axis, coef in terms.items() if coef)
        return Affine(_ordered(kept), self.offset + factor * other.offset)

    def coef(self, axis: Axis) -> int:
        """Return the coefficient of an axis."""
        return dict(self.terms).get(axis, 0)

    @property
    def direct(self) -> bool:
        """Whether it depends on coordinates only."""
        return all(isinstance(axis, int) for axis, _ in self.terms)


@dataclass(frozen=True, slots=True)
class Place:
    """One source coordinate: `at / dilation`, which has to lie in `[lo, hi)` of `size`.

    `inside` says that it always does, for the coordinates of the tensor at hand.
    """

    size: int
    at: Affine
    lo: int
    hi: int
    dilation: int = 1
    inside: bool = True

    @property
    def plain(self) -> bool:
        """Whether it can't be outside (no bounds, no dilation, no indirect term)."""
        whole = self.lo == 0 and self.hi == self.size and self.dilation == 1
        return self.inside and whole and self.at.direct


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """The element of a buffer at some place, or `fill` outside."""

    buffer: int
    places: tuple[Place, ...]
    fill: int
    dtype: DType


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """The affine integer itself, as i32."""

    at: Affine

    @property
    def dtype(self) -> DType:
        """Always i32."""
        return DType.I32


@dataclass(frozen=True, slots=True, eq=False)
class Prim:
    """A primitive of other scalars."""

    code: Op
    args: tuple[Scalar, ...]

    @property
    def dtype(self) -> DType:
        """Dtype of the primitive's result."""
        return DType.F32 if SIGNATURES[self.code].result == "f" else DType.I32


Axis = int | Load
Scalar = Imm | Load | Index | Prim | OnStep
_Made = TypeVar("_Made", Imm, Load, Index, Prim, OnStep)


def _ordered(terms: tuple[tuple[Axis, int], ...]) -> tuple[tuple[Axis, int], ...]:
    """Coordinates first, in order; indirect terms keep theirs."""
    direct = sorted((t for t in terms if isinstance(t[0], int)), key=lambda t: t[0])  # type: ignore[arg-type, return-value]
    return (*direct, *(t for t in terms if not isinstance(t[0], int)))


class Scalars:
    """Makes scalars, each once; folds constants. Implements `protocol.mathfn.Emitter`."""

    def __init__(self, numbers: StepNumbers | None = None) -> None:
        self._made: dict[Hashable, Scalar] = {}
        self._numbers = numbers or StepNumbers()

    def _once(self, key: Hashable, make: Callable[[], _Made]) -> _Made:
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = make()
        return made  # type: ignore[return-value]

    def f32(self, value: float) -> Imm:
        """Return an f32 immediate: `value` rounded to nearest."""
        return self.imm(bits_of(value), DType.F32, value)

    def number(self, value: float) -> Imm | OnStep:
        """Return a number of the captured graph: an f32 immediate, or what it stands for."""
        formula = self._numbers.formula(value)
        return self.f32(value) if formula is None else self.on_step(formula)

    def i32(self, value: int) -> Imm:
        """Return an i32 immediate, modulo 2^32."""
        return self.imm(value % (1 << 32), DType.I32, value)

    def imm(self, bits: int, dtype: DType, exact: float | None = None) -> Imm:
        """Return an immediate by its pattern."""
        if exact is None:
            exact = _number(bits) if dtype is DType.F32 else float32.signed(bits)
        # repr tells -0.0 from 0.0, which are equal but not the same number.
        return self._once(("imm", bits, dtype, repr(exact)), lambda: Imm(bits, dtype, exact))

    def load(self, buffer: int, places: tuple[Place, ...], fill: int, dtype: DType) -> Load:
        """Return an element of a buffer."""
        places = tuple(p for p in places if p.size > 1 or not p.plain)
        key = ("load", buffer, places, fill)
        return self._once(key, lambda: Load(buffer, places, fill, dtype))

    def index(self, at: Affine) -> Scalar:
        """Return the value of an affine expression."""
        if not at.terms:
            return self.i32(at.offset)
        return self._once(("index", at), lambda: Index(at))

    def on_step(self, schedule: OnStep) -> OnStep:
        """Return a number that depends on the step alone."""
        return self._once(("step", schedule), lambda: schedule)

    def op(self, op: Op, *args: Scalar) -> Scalar:
        """Return a primitive of scalars, folded if it is known."""
        if all(isinstance(arg, Imm) for arg in args):
            dtype = DType.F32 if SIGNATURES[op].result == "f" else DType.I32
            return self.imm(float32.apply(op, *(arg.bits for arg in args)), dtype)  # type: ignore[union-attr]
        if any(isinstance(arg, OnStep) for arg in args) and is_schedule_op(op):
            parts = [_schedule(arg) for arg in args]
            if all(part is not None for part in parts):
                return self.on_step(combine(op, parts))  # type: ignore[arg-type]
        known = self._known(op, args)
        if known is not None:
            return known
        return self._once(("prim", op, *map(id, args)), lambda: Prim(op, args))

    def _known(self, op: Op, args: tuple[Scalar, ...]) -> Scalar | None:
        """Identities that hold for every bit pattern (a NaN is canonical wherever it is read)."""
        first = args[0]
        if op in (Op.WHERE, Op.IWHERE):
            if args[1] is args[2]:
                return args[1]
            if isinstance(first, Imm):
                return args[1] if first.bits else args[2]
        if op in (Op.MUL, Op.DIV) and isinstance(args[1], Imm) and _is_choice(first):
            # A dropout mask over the probability to survive: divide the numbers, not elements.
            test, yes, no = first.args  # type: ignore[union-attr]
            return self.op(Op.WHERE, test, self.op(op, yes, args[1]), self.op(op, no, args[1]))
        one = self.f32(1.0).bits
        if op in (Op.MUL, Op.DIV) and _is(args[1], one):
            return first
        if op is Op.MUL and _is(first, one):
            return args[1]
        if op is Op.FMA and (_is(args[0], one) or _is(args[1], one)):
            return self.op(Op.ADD, args[1] if _is(args[0], one) else args[0], args[2])
        if op is Op.IADD and (_is(first, 0) or _is(args[1], 0)):
            return args[1] if _is(first, 0) else first
        if op is Op.IMUL and (_is(first, 1) or _is(args[1], 1)):
            return args[1] if _is(first, 1) else first
        return self._affine(op, args)

    def _affine(self, op: Op, args: tuple[Scalar, ...]) -> Scalar | None:
        """Sums, differences and multiples of affine integers are affine."""
        if op not in (Op.IADD, Op.ISUB, Op.IMUL):
            return None
        parts = [_affine_of(arg) for arg in args]
        a, b = parts
        if a is None or b is None:
            return None
        if op is Op.IMUL:
            if a.terms and b.terms:
                return None
            a, factor = (a, b.offset) if a.terms else (b, a.offset)
            made = Affine().plus(a, factor)
        else:
            made = a.plus(b, 1 if op is Op.IADD else -1)
        limit = 1 << 31
        fits = all(-limit <= v < limit for v in (made.offset, *(c for _, c in made.terms)))
        return self.index(made) if fits else None


def _is(scalar: Scalar, bits: int) -> bool:
    return isinstance(scalar, Imm) and scalar.bits == bits


def _is_choice(scalar: Scalar) -> bool:
    """Whether a scalar is one of two f32 immediates."""
    if not isinstance(scalar, Prim) or scalar.code is not Op.WHERE:
        return False
    return all(isinstance(arg, Imm) for arg in scalar.args[1:])


def _number(bits: int) -> float:
    if float32.is_nan(float32.Float32(bits)):
        return math.nan
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def _schedule(scalar: Scalar) -> OnStep | None:
    if isinstance(scalar, OnStep):
        return scalar
    if isinstance(scalar, Imm) and scalar.dtype is DType.F32:
        return constant_of(scalar.exact)
    return None


def _affine_of(scalar: Scalar) -> Affine | None:
    if isinstance(scalar, Index):
        return scalar.at
    if isinstance(scalar, Imm) and scalar.dtype is DType.I32:
        return Affine((), float32.signed(scalar.bits))
    return None


def walk(*roots: Scalar) -> Iterator[Scalar]:
    """Yield every scalar below `roots`, operands first, indices of loads included, each once."""
    seen: set[int] = set()
    stack: list[tuple[Scalar, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        scalar, done = stack.pop()
        if done:
            yield scalar
            continue
        if id(scalar) in seen:
            continue
        seen.add(id(scalar))
        stack.append((scalar, True))
        stack.extend((child, False) for child in reversed(children(scalar)))


def children(scalar: Scalar) -> tuple[Scalar, ...]:
    """Return what a scalar is computed from: arguments, or the indices of a load."""
    if isinstance(scalar, Prim):
        return scalar.args
    if isinstance(scalar, Load):
        return tuple(a for p in scalar.places for a, _ in p.at.terms if isinstance(a, Load))
    return ()
