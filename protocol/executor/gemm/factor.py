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
from protocol.executor.gemm.box import Box, find_box
from protocol.executor.gemm.sizes import BOX, COLUMNS, ROWS, WHOLE
from protocol.executor.kernel import Context, power_below, product, windows
from protocol.program import Fold

WORTH: Final = 2
"""Times that an element of a box must be read for filling it to pay."""


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


_NOWHERE: Final = Affine()


@dataclass(frozen=True)
class Factor:
    """One of the two result registers of a DOT, as a matrix of its own axes and the terms."""

    register: int
    axes: tuple[int, ...]
    """Output axes that only this factor varies along."""
    batch: tuple[int, ...]
    """Output axes that it varies along together with the other."""
    beside: int
    """Rows or columns that can be read as one vector, a power of two; 0 if they do not lie so."""
    along: int
    """The same of terms."""
    plain: bool = False
    """Whether it is read at one affine address, without tests (in a box, if it has one)."""
    address: Affine = _NOWHERE
    source: int = -1
    own: int | None = None
    """Stride of the row-major index over `axes`, if it is plain and has one."""
    term: int | None = None
    """Stride of the terms, likewise."""
    box: Box | None = None

    def count(self, extents: tuple[int, ...]) -> int:
        """Return the number of its rows or columns."""
        return product([extents[axis] for axis in self.axes])


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


def _run(context: Context, axes: tuple[int, ...]) -> int:
    """Return into how long pieces, at most a vector, the row-major index over `axes` can be cut."""
    width, extent = context.target.width, context.extents[axes[-1]]
    return width if len(axes) == 1 else min(width, extent & -extent)


def _computed(context: Context, register: int, axes: tuple[int, ...]) -> int:
    """Return how many values along `axes` can be computed at a time, all their operands read so."""
    if not axes:
        return 0
    for operand in _operands(context, register):
        access = context.body.accesses[operand]
        if access.source < 0 or access.outside:
            continue
        if access.quotients or access.address.values or access.address.coef(axes[-1]) not in (0, 1):
            return 0
    return _run(context, axes)


def _held(
    box: Box, axes: tuple[int, ...], reduce: tuple[int, ...], extents: tuple[int, ...]
) -> int:
    """Return how many elements of a box have to be held at a time, at most."""
    most = extents[box.axes[0]]
    for group, count in ((axes, max(ROWS, COLUMNS)), (reduce, WHOLE)):
        if group and box.axes[0] == group[0]:
            inner = product([extents[axis] for axis in group[1:]])
            most = min(most, windows(count, inner) + 1)
    return most * box.slice


def _factor(
    context: Context, register: int, axes: tuple[int, ...], batch: tuple[int, ...],
    others: tuple[int, ...],
) -> Factor:  # fmt: skip
    accesses, extents = context.body.accesses, context.extents
    reduce = tuple(range(context.rank, len(extents)))
    access = accesses[register] if register < len(accesses) else None
    box = None
    if access is not None and (access.tests or access.quotients):
        reads = product([extents[axis] for axis in (*axes, *reduce)])
        box = find_box(access, others, extents, reads // WORTH)
        if box is not None and _held(box, axes, reduce, extents) > BOX:
            box = None
    if (
        access is None
        or access.source < 0
        or access.address.values
        or (box is None and (access.tests or access.quotients))
    ):
        beside, along = (_computed(context, register, a) for a in (axes, reduce))
        return Factor(register, axes, batch, beside, along)
    address = access.address if box is None else box.address
    beside = _run(context, axes) if address.coef(axes[-1]) == 1 else 0
    along = _run(context, reduce) if reduce and address.coef(reduce[-1]) == 1 else 0
    return Factor(
        register, axes, batch, beside, along, True, address, access.source,
        linear(address, axes, extents), linear(address, reduce, extents), box,
    )  # fmt: skip


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
    others = tuple(a for a in axes if a not in of_first and a not in of_second)
    a, b = context.node.body.results
    return (
        _factor(context, a, of_first, both, others),
        _factor(context, b, of_second, both, others),
    )


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
