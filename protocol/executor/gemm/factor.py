# SPDX-License-Identifier: GPL-3.0-or-later
"""The two factors of a matrix product: which axes each varies along, and how it is read.

A DOT is a product of matrices where one factor does not depend on some output axis (a column) that
the other depends on, and the other way round (a row). The *left* factor is read as scalars, one
per row; the *right* one as vectors of columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.executor.access import Affine
from protocol.executor.evaluation import dependencies
from protocol.executor.kernel import Context, power_below, product
from protocol.program import Fold

BLOCK: Final = 256
"""Terms of a chain, and so of a block of packed factors."""


def linear(affine: Affine, axes: tuple[int, ...], extents: tuple[int, ...]) -> int | None:
    """Return the stride of the row-major index over `axes` in an affine form, None if none fits."""
    if not axes:
        return 0
    stride = affine.coef(axes[-1])
    wanted = stride
    for axis in reversed(axes):
        if affine.coef(axis) != wanted:
            return None
        wanted *= extents[axis]
    return stride


@dataclass(frozen=True)
class Factor:
    """One of the two result registers of a DOT, as a matrix of its own axes and the terms."""

    register: int
    axes: tuple[int, ...]
    """Output axes that only this factor varies along."""
    batch: tuple[int, ...]
    """Output axes that it varies along together with the other."""
    plain: bool
    """Whether it is read at one affine address, without tests."""
    address: Affine
    source: int
    own: int | None
    """Stride of the row-major index over `axes`, if it is plain and has one."""
    term: int | None
    """Stride of the terms, likewise."""
    beside: int
    """How many columns at a time, a power of two, lie side by side; 0 if columns do not."""
    along: int
    """How many terms at a time lie side by side; 0 if terms do not."""

    def count(self, context: Context) -> int:
        """Return the number of its rows or columns."""
        return product([context.extents[axis] for axis in self.axes])


def _operands(context: Context, register: int) -> set[int]:
    """Return the operands that a register is computed from, those of indirect views included."""
    expression, accesses = context.node.body, context.body.accesses
    if register < len(accesses):
        values = {
            operand for affine in accesses[register].affines() for operand, _ in affine.values
        }
        return {register}.union(*(_operands(context, operand) for operand in values))
    if register < expression.first_result:
        return set()
    code = expression.instructions[register - expression.first_result]
    return set().union(*(_operands(context, argument) for argument in code.args))


def _neighbours(context: Context, register: int, axes: tuple[int, ...]) -> int:
    """Return into how long runs, at most a vector, the index over `axes` can be cut to be read.

    Along a run all operands lie side by side or do not vary; 0 if they never do.
    """
    if not axes:
        return 0
    for operand in _operands(context, register):
        access = context.body.accesses[operand]
        if access.source < 0 or access.outside:
            continue
        if access.quotients or access.address.values or access.address.coef(axes[-1]) not in (0, 1):
            return 0
    width, extent = context.target.width, context.extents[axes[-1]]
    return width if len(axes) == 1 else min(width, extent & -extent)


def _factor(
    context: Context, register: int, axes: tuple[int, ...], batch: tuple[int, ...]
) -> Factor:
    accesses, extents = context.body.accesses, context.extents
    reduce = tuple(range(context.rank, len(extents)))
    beside = _neighbours(context, register, axes)
    along = _neighbours(context, register, reduce)
    access = accesses[register] if register < len(accesses) else None
    if access is None or access.source < 0 or access.tests or access.quotients:
        return Factor(register, axes, batch, False, Affine(), -1, None, None, beside, along)
    if access.address.values:
        return Factor(register, axes, batch, False, Affine(), -1, None, None, beside, along)
    own = linear(access.address, axes, extents)
    term = linear(access.address, reduce, extents)
    address, source = access.address, access.source
    return Factor(register, axes, batch, True, address, source, own, term, beside, along)


def find_factors(context: Context) -> tuple[Factor, Factor] | None:
    """Return both factors of a DOT, or None if it is no product of matrices."""
    if context.node.fold is not Fold.DOT:
        return None
    registers = dependencies(context.body, context.node.body)
    first, second = (registers[register] for register in context.node.body.results)
    axes = range(context.rank)
    both = tuple(a for a in axes if a in first and a in second)
    of_first = tuple(a for a in axes if a in first and a not in second)
    of_second = tuple(a for a in axes if a in second and a not in first)
    if not of_first or not of_second:
        return None
    a, b = context.node.body.results
    return _factor(context, a, of_first, both), _factor(context, b, of_second, both)


def neighbours(context: Context, axes: tuple[int, ...]) -> int:
    """Return how many columns at a time lie side by side in the result (at most a vector)."""
    extents, out = context.extents, context.body.out
    run = 1
    for axis in reversed(axes):
        if out.coef(axis) != run:
            break
        run *= extents[axis]
    if run == product([extents[axis] for axis in axes]):
        return context.target.width
    return power_below(min(context.target.width, run & -run))
