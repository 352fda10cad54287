# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an operand reads: flat indices, coordinates and affine views (specification, section 2).

Everything here is exact integer arithmetic without a bound: a coordinate may leave 64 bits, since
it sums up to sixteen products of 32-bit numbers.

`x` below is always the tuple of all axes: the coordinates of the output element e, then those of
the fold index k. `values` are the 32-bit patterns of the operands before this one.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.float32 import WORD, signed
from protocol.ops import SIGNATURES
from protocol.program import (
    INDIRECT,
    Dim,
    DType,
    Fold,
    Iota,
    Kind,
    Node,
    Operand,
    Shape,
    Term,
    View,
)


def unravel(index: int, shape: Shape) -> tuple[int, ...]:
    """Return the row-major coordinates of a flat index into `shape`; `()` for rank 0."""
    coordinates = []
    for size in reversed(shape):
        index, coordinate = divmod(index, size)
        coordinates.append(coordinate)
    return tuple(reversed(coordinates))


def ravel(coordinates: Sequence[int], shape: Shape) -> int:
    """Return the row-major flat index of coordinates in `shape`."""
    index = 0
    for coordinate, size in zip(coordinates, shape, strict=True):
        index = index * size + coordinate
    return index


def axes(node: Node, e: int, k: int | None) -> tuple[int, ...]:
    """Return x, the coordinates of element `e` followed, for a FOLD, by those of term `k`."""
    coordinates = unravel(e, node.shape)
    return coordinates if k is None else coordinates + unravel(k, node.reduce)


def affine(terms: Sequence[Term], offset: int, x: Sequence[int], values: Sequence[int]) -> int:
    """Return the exact integer `offset + sum of coef * x[axis]`; indirect values are signed."""
    total = offset
    for term in terms:
        if term.axis < INDIRECT:
            total += term.coef * x[term.axis]
        else:
            total += term.coef * signed(values[term.axis - INDIRECT])
    return total


def iota_value(iota: Iota, x: Sequence[int], values: Sequence[int]) -> int:
    """Return the i32 pattern that an IOTA operand reads."""
    return affine(iota.terms, iota.offset, x, values) & WORD


def coordinate(dim: Dim, x: Sequence[int], values: Sequence[int]) -> int | None:
    """Return the source coordinate of one dim of a view, or None where it is outside."""
    place, rest = divmod(affine(dim.terms, dim.offset, x, values), dim.dilation)
    return place if rest == 0 and dim.lo <= place < dim.hi else None


def element_index(view: View, x: Sequence[int], values: Sequence[int]) -> int | None:
    """Return the flat index into the view's source, or None where the view reads its fill."""
    index = 0
    for dim in view.dims:
        place = coordinate(dim, x, values)
        if place is None:
            return None
        index = index * dim.size + place
    return index


def terms_of(operand: Operand) -> tuple[Term, ...]:
    """Return all affine terms of an operand."""
    if isinstance(operand, View):
        return tuple(term for dim in operand.dims for term in dim.terms)
    return operand.terms if isinstance(operand, Iota) else ()


def result_dtype(node: Node) -> DType:
    """Return the dtype that the result registers of a MAP or FOLD must have."""
    if node.kind is Kind.FOLD:
        return DType.I32 if node.fold in (Fold.ISUM, Fold.IMAX) else DType.F32
    return node.dtype


def register_dtypes(node: Node) -> list[DType | None]:
    """Return the dtype of every register of a MAP or FOLD as its own encoding tells it.

    An instruction's result has the op's dtype. An operand or immediate has that of its first use:
    by an instruction, as an index, or as the node's result; None if nothing uses it. In a valid
    program all uses agree, and every operand is used.
    """
    expression = node.body
    operands, first = len(expression.operands), expression.first_result
    dtypes: list[DType | None] = [None] * first
    dtypes += [
        DType.F32 if SIGNATURES[instruction.op].result == "f" else DType.I32
        for instruction in expression.instructions
    ]

    def use(register: int, dtype: DType) -> None:
        if register < len(dtypes) and dtypes[register] is None:
            dtypes[register] = dtype

    for position, operand in enumerate(expression.operands):
        if isinstance(operand, Iota):
            dtypes[position] = DType.I32
        for term in terms_of(operand):
            if INDIRECT <= term.axis < INDIRECT + operands:
                use(term.axis - INDIRECT, DType.I32)
    for instruction in expression.instructions:
        for register, letter in zip(
            instruction.args, SIGNATURES[instruction.op].operands, strict=True
        ):
            use(register, DType.F32 if letter == "f" else DType.I32)
    for register in expression.results:
        use(register, result_dtype(node))
    return dtypes
