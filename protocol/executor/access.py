# SPDX-License-Identifier: GPL-3.0-or-later
"""Views reduced to what a kernel has to compute: one address, and only the tests that can fail.

Everything here is exact integer arithmetic at compile time. The range of each affine coordinate
tells which bounds can be violated and how many bits the test needs; a coordinate that is always
inside and is not dilated just adds to the address, so that most views become one affine address.
Axes of extent 1 vanish, and neighbouring axes that every operand walks as one are merged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from protocol.float32 import signed
from protocol.program import INDIRECT, Flat, Iota, Kind, Node, Program, Shape, Term, View

Range = tuple[int, int]
"""Smallest and largest value, both included."""

ANY_I32: Range = (-(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True, slots=True)
class Affine:
    """`offset + sum of coef * x[axis] + sum of coef * value of operand`, exact."""

    offset: int = 0
    axes: tuple[tuple[int, int], ...] = ()
    """(axis, coef), sorted, no coef is 0."""
    values: tuple[tuple[int, int], ...] = ()
    """(operand, coef), likewise."""

    def coef(self, axis: int) -> int:
        """Return the coefficient of an axis."""
        return dict(self.axes).get(axis, 0)

    def scaled(self, factor: int) -> Affine:
        """Return factor (not 0) times this."""
        return Affine(
            self.offset * factor,
            tuple((axis, coef * factor) for axis, coef in self.axes),
            tuple((operand, coef * factor) for operand, coef in self.values),
        )

    def plus(self, other: Affine) -> Affine:
        """Return the sum."""
        return Affine(
            self.offset + other.offset,
            _summed(self.axes + other.axes),
            _summed(self.values + other.values),
        )

    def divided(self, divisor: int) -> Affine | None:
        """Return this divided by `divisor` if that is exact for any x, else None."""
        parts = [self.offset, *(c for _, c in self.axes), *(c for _, c in self.values)]
        if any(part % divisor for part in parts):
            return None
        return Affine(
            self.offset // divisor,
            tuple((axis, coef // divisor) for axis, coef in self.axes),
            tuple((operand, coef // divisor) for operand, coef in self.values),
        )

    def range(self, extents: Sequence[int], values: Sequence[Range]) -> Range:
        """Return bounds of this over all coordinates below `extents` and operand values."""
        low = high = self.offset
        spans = [(coef, (0, extents[axis] - 1)) for axis, coef in self.axes]
        spans += [(coef, values[operand]) for operand, coef in self.values]
        for coef, (first, last) in spans:
            low += coef * (first if coef > 0 else last)
            high += coef * (last if coef > 0 else first)
        return low, high


def _summed(pairs: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    total: dict[int, int] = {}
    for key, coef in pairs:
        total[key] = total.get(key, 0) + coef
    return tuple(sorted((key, coef) for key, coef in total.items() if coef))


@dataclass(frozen=True, slots=True)
class Test:
    """The coordinate is inside iff `low <= affine < high` and `dilation` divides it."""

    affine: Affine
    low: int
    high: int
    dilation: int
    bits: int
    """32, 64 or 128: the true value of `affine` fits in so many bits."""
    bounded: bool
    """Whether a bound can fail at all."""
    stride: int
    """Elements of the source from one coordinate (divided by the dilation) to the next."""


@dataclass(frozen=True, slots=True)
class Access:
    """How an operand is read: `source[address + sum of quotients]` if all tests hold, else fill."""

    letter: str
    """Register kind, `f` or `i`."""
    source: int = -1
    """Parameter number of the source; -1 for an IOTA, whose value is `address` itself."""
    address: Affine = Affine()
    quotients: tuple[tuple[Affine, int, int], ...] = ()
    """(affine, dilation, stride): adds `affine / dilation * stride`."""
    tests: tuple[Test, ...] = ()
    fill: int = 0
    canonical: bool = False
    """Whether the source holds no NaN but the protocol's."""
    outside: bool = False
    """Whether it is never inside: always fill."""

    def affines(self) -> list[Affine]:
        """Return every affine form in this access."""
        return [
            self.address,
            *(affine for affine, _, _ in self.quotients),
            *(test.affine for test in self.tests),
        ]


def _affine(terms: Sequence[Term], offset: int, extents: Sequence[int]) -> Affine:
    axes = tuple((t.axis, t.coef) for t in terms if t.axis < INDIRECT and extents[t.axis] > 1)
    values = tuple((t.axis - INDIRECT, t.coef) for t in terms if t.axis >= INDIRECT)
    return Affine(offset, _summed(axes), _summed(values))


def row_major(shape: Shape, first_axis: int = 0) -> Affine:
    """Return the flat index into `shape` as an affine form of its coordinates."""
    pairs, stride = [], 1
    for axis in reversed(range(len(shape))):
        if shape[axis] > 1:
            pairs.append((first_axis + axis, stride))
        stride *= shape[axis]
    return Affine(0, tuple(sorted(pairs)))


def _bits(bounds: Range) -> int:
    for bits in (32, 64):
        if -(1 << bits - 1) <= bounds[0] and bounds[1] < 1 << bits - 1:
            return bits
    return 128


def _view(view: View, extents: Sequence[int], values: Sequence[Range], base: Access) -> Access:
    address, quotients, tests = Affine(), [], []
    stride = math.prod(dim.size for dim in view.dims)
    for dim in view.dims:
        stride //= dim.size
        affine, dilation = _affine(dim.terms, dim.offset, extents), dim.dilation
        reduced = affine.divided(dilation)
        if reduced is not None:
            affine, dilation = reduced, 1
        low, high = dim.lo * dilation, (dim.hi - 1) * dilation + 1
        bounds = affine.range(extents, values)
        if bounds[1] < low or bounds[0] >= high:
            return Access(base.letter, base.source, fill=view.fill, outside=True)
        bounded = bounds[0] < low or bounds[1] >= high
        if bounded or dilation > 1:
            tests.append(Test(affine, low, high, dilation, _bits(bounds), bounded, stride))
        if dilation > 1:
            quotients.append((affine, dilation, stride))
        else:
            address = address.plus(affine.scaled(stride))
    return Access(
        base.letter, base.source, address, tuple(quotients), tuple(tests), view.fill, base.canonical
    )


def _value_range(program: Program, operand: Flat | View | Iota, access: Access,
                 extents: Sequence[int], values: Sequence[Range]) -> Range:  # fmt: skip
    """Return bounds of an operand as a signed integer."""
    if isinstance(operand, Iota):
        bounds = access.address.range(extents, values)
        return bounds if _bits(bounds) == 32 else ANY_I32
    node = program.nodes[operand.source]
    if node.kind is not Kind.SAMPLE or node.bound > 1 << 31:
        return ANY_I32
    low, high = 0, node.bound - 1
    if isinstance(operand, View) and (access.tests or access.outside):
        fill = signed(operand.fill)
        low, high = min(low, fill), max(high, fill)
    return low, high


class Source(NamedTuple):
    """What a parameter of a kernel points to: element `offset` of a node's output.

    It may lie before the output or after it: what is outside is never read. With offsets in the
    pointers, the kernels of steps through time are one kernel.
    """

    node: int
    offset: int


@dataclass(frozen=True)
class Body:
    """The operands of a MAP or FOLD over merged axes, ready for a kernel."""

    extents: tuple[int, ...]
    """Output axes, then reduce axes; none is 1."""
    rank: int
    """How many of them are output axes."""
    out: Affine
    """Flat index of the output element."""
    accesses: tuple[Access, ...]
    ranges: tuple[Range, ...]
    """Bounds of each operand's value as a signed integer (f32 operands: of no use)."""
    sources: tuple[Source, ...]
    """What each parameter points to."""


def body_of(program: Program, node: Node) -> Body:
    """Reduce the operands of a MAP or FOLD node of a valid program."""
    extents = node.shape + node.reduce
    accesses: list[Access] = []
    ranges: list[Range] = []
    sources: dict[Source, int] = {}
    for operand in node.body.operands:
        if isinstance(operand, Iota):
            access = Access("i", address=_affine(operand.terms, operand.offset, extents))
        else:
            source = program.nodes[operand.source]
            clean = source.kind in (Kind.MAP, Kind.FOLD)
            access = Access("i" if source.dtype else "f", 0, canonical=clean)
            if isinstance(operand, Flat):
                access = replace(access, address=row_major(node.shape))
            else:
                access = _view(operand, extents, ranges, access)
            address = access.address
            place = Source(operand.source, address.offset)
            access = replace(
                access,
                source=sources.setdefault(place, len(sources)),
                address=Affine(0, address.axes, address.values),
            )
        accesses.append(access)
        ranges.append(_value_range(program, operand, access, extents, ranges))
    out = row_major(node.shape)
    return merged(
        Body(extents, len(node.shape), out, tuple(accesses), tuple(ranges), tuple(sources))
    )


def merged(body: Body) -> Body:
    """Drop axes of extent 1, and merge neighbours that every affine form walks as one."""
    affines = [body.out, *(a for access in body.accesses for a in access.affines())]
    groups: list[list[int]] = []
    for axis, extent in enumerate(body.extents):
        if extent == 1:
            continue
        last = groups[-1][-1] if groups else None
        same_part = last is not None and (last < body.rank) == (axis < body.rank)
        if (
            last is not None
            and same_part
            and all(affine.coef(last) == affine.coef(axis) * extent for affine in affines)
        ):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    number = {group[-1]: place for place, group in enumerate(groups)}
    return Body(
        tuple(math.prod(body.extents[axis] for axis in group) for group in groups),
        sum(group[0] < body.rank for group in groups),
        _renumbered(body.out, number),
        tuple(_renumbered_access(access, number) for access in body.accesses),
        body.ranges,
        body.sources,
    )


def _renumbered(affine: Affine, number: Mapping[int, int]) -> Affine:
    axes = tuple((number[axis], coef) for axis, coef in affine.axes if axis in number)
    return Affine(affine.offset, axes, affine.values)


def _renumbered_access(access: Access, number: Mapping[int, int]) -> Access:
    return Access(
        access.letter,
        access.source,
        _renumbered(access.address, number),
        tuple((_renumbered(a, number), d, s) for a, d, s in access.quotients),
        tuple(replace(test, affine=_renumbered(test.affine, number)) for test in access.tests),
        access.fill,
        access.canonical,
        access.outside,
    )
