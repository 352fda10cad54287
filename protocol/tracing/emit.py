# SPDX-License-Identifier: GPL-3.0-or-later
"""Scalars as expressions of nodes, and how much of a node they take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from protocol.node_encoding import MAX_IMMEDIATES, MAX_INSTRUCTIONS, MAX_NODE_BYTES, MAX_OPERANDS
from protocol.ops import Op
from protocol.program import (
    INDIRECT,
    Dim,
    DType,
    Expression,
    Flat,
    Instruction,
    Iota,
    Operand,
    Shape,
    Term,
    View,
)
from protocol.tracing.moves import row_major
from protocol.tracing.scalars import Affine, Imm, Index, Load, Prim, Scalar, walk
from protocol.tracing.schedule import OnStep

SLOW: Final = (Op.DIV, Op.SQRT)
"""Primitives that are worth a buffer of their own rather than computing twice."""
NODE_BYTES: Final = 3 + 4 * 8 + 3 + 4 * 8 + 6
"""Bound on the bytes of a node outside operands, immediates and instructions."""


@dataclass(frozen=True)
class Cost:
    """What a scalar takes of a node's limits."""

    instructions: int
    operands: int
    immediates: int
    bytes: int
    slow: bool
    indirect: bool

    @property
    def fits(self) -> bool:
        """Whether one node can hold it."""
        return (
            self.instructions <= MAX_INSTRUCTIONS
            and self.operands <= MAX_OPERANDS
            and self.immediates <= MAX_IMMEDIATES
            and self.bytes <= MAX_NODE_BYTES
        )

    @property
    def cheap(self) -> bool:
        """Whether computing it again in every consumer is better than storing it."""
        return self.instructions <= 2 and self.operands <= 2 and not self.slow and not self.indirect


def cost(*roots: Scalar) -> Cost:
    """Return what `roots` take together."""
    instructions = operands = size = 0
    immediates: set[tuple[int, DType]] = set()
    slow = indirect = False
    for scalar in walk(*roots):
        if isinstance(scalar, Prim):
            instructions += 1
            slow = slow or scalar.code in SLOW
        elif isinstance(scalar, Imm):
            immediates.add((scalar.bits, scalar.dtype))
        elif isinstance(scalar, Load):
            operands += 1
            size += 10 + sum(21 + 5 * len(place.at.terms) for place in scalar.places)
            indirect = indirect or not all(place.at.direct for place in scalar.places)
        elif isinstance(scalar, Index):
            operands += 1
            size += 6 + 5 * len(scalar.at.terms)
        else:
            operands += 1
            size += 10
    size += NODE_BYTES + 4 * len(immediates) + 4 * instructions
    return Cost(instructions, operands, len(immediates), size, slow, indirect)


def axes_of(scalar: Scalar) -> set[int]:
    """Return the coordinates that a scalar depends on."""
    places = [p.at for s in walk(scalar) if isinstance(s, Load) for p in s.places]
    places += [s.at for s in walk(scalar) if isinstance(s, Index)]
    return {axis for at in places for axis, _ in at.terms if isinstance(axis, int)}


def is_whole(load: Load, shape: Shape) -> bool:
    """Whether a load reads element e of its buffer at element e of a tensor of this shape."""
    if not all(place.plain for place in load.places):
        return False
    if math.prod(place.size for place in load.places) != math.prod(shape):
        return False
    flat = Affine()
    for place in load.places:
        flat = Affine().plus(flat, place.size).plus(place.at)
    strides = row_major(shape)
    wanted = tuple((a, strides[a]) for a in range(len(shape)) if shape[a] > 1)
    return flat.offset == 0 and flat.terms == wanted


def expression(results: tuple[Scalar, ...], shape: Shape, *, fold: bool) -> Expression:
    """Return the expression that computes `results`; a MAP of this shape may use FLAT operands.

    The scalars must fit (`Cost.fits`) and hold no schedules.
    """
    order = list(walk(*results))
    leaves = [s for s in order if isinstance(s, Load | Index)]
    registers: dict[int, int] = {id(leaf): number for number, leaf in enumerate(leaves)}
    operands = tuple(_operand(leaf, registers, None if fold else shape) for leaf in leaves)
    immediates: dict[tuple[int, DType], int] = {}
    for scalar in order:
        if isinstance(scalar, Imm):
            place = immediates.setdefault((scalar.bits, scalar.dtype), len(immediates))
            registers[id(scalar)] = len(leaves) + place
        elif isinstance(scalar, OnStep):
            raise TypeError("a schedule must be stored before an expression can read it")
    code: list[Instruction] = []
    for scalar in order:
        if isinstance(scalar, Prim):
            registers[id(scalar)] = len(leaves) + len(immediates) + len(code)
            code.append(Instruction(scalar.code, tuple(registers[id(a)] for a in scalar.args)))
    found = tuple(registers[id(result)] for result in results)
    return Expression(operands, tuple(bits for bits, _ in immediates), tuple(code), found)


def _operand(leaf: Load | Index, registers: dict[int, int], flat: Shape | None) -> Operand:
    if isinstance(leaf, Index):
        return Iota(_terms(leaf.at, registers), leaf.at.offset)
    if flat is not None and is_whole(leaf, flat):
        return Flat(leaf.buffer)
    dims = tuple(
        Dim(p.size, _terms(p.at, registers), p.at.offset, p.lo, p.hi, p.dilation)
        for p in leaf.places
    )
    return View(leaf.buffer, dims, leaf.fill)


def _terms(at: Affine, registers: dict[int, int]) -> tuple[Term, ...]:
    return tuple(
        Term(axis if isinstance(axis, int) else INDIRECT + registers[id(axis)], coef)
        for axis, coef in at.terms
    )
