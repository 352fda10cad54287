# SPDX-License-Identifier: GPL-3.0-or-later
"""Cuts a MAP into boxes in which bounds tests and choices by index have one outcome.

A concatenation chooses its part by an index, a padded or shifted view tests its bounds: both depend
on one axis and change at a few places of it. Between those places the outcome is known, so that the
kernel of a box reads only what it needs, without masks, and often along fewer axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Final

from protocol.executor.access import ANY_I32, Access, Affine, Body, Range, Test, merged
from protocol.float32 import signed
from protocol.ops import Op
from protocol.program import Expression, Instruction

MAX_REGIONS: Final = 16
MAX_CODE: Final = 512
"""Operands and instructions of all boxes together: beyond, compiling costs more than it saves."""
_COMPARES: Final = (Op.ILT, Op.ULT, Op.IEQ)


@dataclass(frozen=True)
class Region:
    """One box, as a body over its own axes and the expression that is left there."""

    body: Body
    expression: Expression


def regions(body: Body, expression: Expression, width: int) -> list[Region]:
    """Return disjoint boxes that cover the outputs of a MAP.

    Boxes are at least `width` long along the last axis, if that is cut.
    """
    cuts = _cuts(body, expression)
    last = len(body.extents) - 1
    if last in cuts and min(b - a for a, b in pairwise(_places(cuts, body, last))) < width:
        del cuts[last]
    code = len(body.accesses) + len(expression.instructions)
    while cuts:
        count = math.prod(len(places) + 1 for places in cuts.values())
        if count <= MAX_REGIONS and count * code <= MAX_CODE:
            break
        del cuts[max(cuts, key=lambda axis: len(cuts[axis]))]
    if not cuts:
        return [Region(body, expression)]
    pieces = [list(pairwise(_places(cuts, body, axis))) for axis in range(len(body.extents))]
    return [_region(body, expression, box) for box in product(*pieces)]


def _places(cuts: dict[int, set[int]], body: Body, axis: int) -> list[int]:
    return [0, *sorted(cuts.get(axis, ())), body.extents[axis]]


# Where outcomes change ---------------------------------------------------------------------------


def _cuts(body: Body, expression: Expression) -> dict[int, set[int]]:
    """Return the places, per axis, where a test or a comparison of one index changes."""
    found: dict[int, set[int]] = {}

    def cut(affine: Affine, bound: int) -> None:
        """Cut where `affine < bound` changes, if it depends on one axis."""
        if affine.values or len(affine.axes) != 1:
            return
        ((axis, coef),) = affine.axes
        distance = bound - affine.offset
        place = -(-distance // coef) if coef > 0 else distance // coef + 1
        if 0 < place < body.extents[axis]:
            found.setdefault(axis, set()).add(place)

    for access in body.accesses:
        for test in access.tests:
            if test.bounded and test.dilation == 1:
                cut(test.affine, test.low)
                cut(test.affine, test.high)
    for code in expression.instructions:
        if code.op in _COMPARES:
            for index, other in (code.args, code.args[::-1]):
                affine, number = _index(body, index), _immediate(expression, other)
                if affine is not None and number is not None:
                    if code.op is Op.IEQ or index == code.args[0]:
                        cut(affine, number)  # index < number
                    if code.op is Op.IEQ or index == code.args[1]:
                        cut(affine, number + 1)  # number < index
    return found


def _index(body: Body, register: int) -> Affine | None:
    """Return the affine form that an IOTA operand is, if it never wraps."""
    if register >= len(body.accesses) or body.accesses[register].source >= 0:
        return None
    return None if body.ranges[register] == ANY_I32 else body.accesses[register].address


def _immediate(expression: Expression, register: int) -> int | None:
    place = register - len(expression.operands)
    known = 0 <= place < len(expression.immediates)
    return signed(expression.immediates[place]) if known else None


# What is left in a box ---------------------------------------------------------------------------


def _region(body: Body, expression: Expression, box: Sequence[tuple[int, int]]) -> Region:
    starts = [start for start, _ in box]
    extents = tuple(stop - start for start, stop in box)
    accesses = [_moved_access(a, starts, extents, body.ranges) for a in body.accesses]
    ranges = tuple(
        access.address.range(extents, body.ranges)
        if access.source < 0 and bounds != ANY_I32 and not access.outside
        else bounds
        for access, bounds in zip(accesses, body.ranges, strict=True)
    )
    left = _decided(expression, ranges)
    used = used_registers(left, accesses)
    kept = tuple(
        access if number in used else Access(access.letter, access.source, outside=True)
        for number, access in enumerate(accesses)
    )
    whole = Body(extents, body.rank, _moved(body.out, starts), kept, ranges, body.sources)
    return Region(merged(whole), left)


def _moved(affine: Affine, starts: Sequence[int]) -> Affine:
    """Return the form over coordinates that are counted from `starts`."""
    offset = affine.offset + sum(coef * starts[axis] for axis, coef in affine.axes)
    return Affine(offset, affine.axes, affine.values)


def _moved_access(
    access: Access, starts: Sequence[int], extents: Sequence[int], values: Sequence[Range]
) -> Access:
    tests: list[Test] = []
    for old in access.tests:
        test = replace(old, affine=_moved(old.affine, starts))
        low, high = test.affine.range(extents, values)
        if high < test.low or low >= test.high:
            return Access(access.letter, access.source, fill=access.fill, outside=True)
        test = replace(test, bounded=low < test.low or high >= test.high)
        if test.bounded or test.dilation > 1:
            tests.append(test)
    return replace(
        access,
        address=_moved(access.address, starts),
        quotients=tuple((_moved(a, starts), d, s) for a, d, s in access.quotients),
        tests=tuple(tests),
    )


def _decided(expression: Expression, ranges: Sequence[Range]) -> Expression:
    """Return the expression with every choice whose condition is known replaced by its outcome."""
    known: list[Range] = [*ranges]
    known += [(signed(bits), signed(bits)) for bits in expression.immediates]
    same = list(range(len(known)))
    code: list[Instruction] = []
    for instruction in expression.instructions:
        args = tuple(same[register] for register in instruction.args)
        code.append(Instruction(instruction.op, args))
        register = len(same)
        if instruction.op in (Op.WHERE, Op.IWHERE):
            low, high = known[args[0]]
            if low == high == 0:
                register = args[2]
            elif low > 0 or high < 0:
                register = args[1]
        same.append(register)
        bounds = [known[a] for a in args]
        known.append(known[register] if register < len(known) else _outcome(instruction.op, bounds))
    results = tuple(same[register] for register in expression.results)
    return Expression(expression.operands, expression.immediates, tuple(code), results)


def _outcome(op: Op, bounds: Sequence[Range]) -> Range:
    """Return bounds of a comparison or a logical operation of them; anything for the others."""
    if op in (Op.AND, Op.OR) and all(low >= 0 and high <= 1 for low, high in bounds):
        (a, b), (c, d) = bounds
        return (a & c, b & d) if op is Op.AND else (a | c, b | d)
    if op not in _COMPARES:
        return ANY_I32
    (low, high), (least, most) = bounds
    if op is Op.IEQ:
        if high < least or most < low:
            return 0, 0
        return (1, 1) if low == high == least == most else (0, 1)
    if op is Op.ULT and (low < 0 or least < 0):
        return 0, 1
    return int(high < least), int(low < most)


def used_registers(expression: Expression, accesses: Sequence[Access]) -> set[int]:
    """Return the registers that the results need, operands that others are indexed by included."""
    used: set[int] = set()
    stack = list(expression.results)
    while stack:
        register = stack.pop()
        if register in used:
            continue
        used.add(register)
        if register < len(accesses):
            affines = () if accesses[register].outside else accesses[register].affines()
            stack += [operand for affine in affines for operand, _ in affine.values]
        elif register >= expression.first_result:
            stack += expression.instructions[register - expression.first_result].args
    return used
