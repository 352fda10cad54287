# SPDX-License-Identifier: GPL-3.0-or-later
"""Splits the columns of a FOLD by their remainder, where its operands are dilated.

The gradient of a strided window reads `(x - k) / 2` where that is whole. Neighbouring columns x
take turns, so a vector of them would be tested and read lane by lane; every second column reads
neighbours, and all lanes pass the test of divisibility or none does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from protocol.executor.access import Access, Affine, Body

SHORTEST: Final = 4
"""Columns of one remainder that are worth a vector."""


def split_phases(body: Body) -> Body:
    """Return the body with the last output axis as two, remainder and quotient, if that helps."""
    column = body.rank - 1
    if column < 0:
        return body
    reads = [a for a in body.accesses if a.source >= 0 and _depends(a, column)]
    dilations = {_dilation(access, column) for access in reads}
    if len(dilations) != 1:
        return body
    (dilation,) = dilations
    extent = body.extents[column]
    if dilation < 2 or extent % dilation or extent // dilation < SHORTEST:
        return body

    def split(affine: Affine) -> Affine:
        axes: list[tuple[int, int]] = []
        for axis, coef in affine.axes:
            if axis == column:
                axes += [(column, coef), (column + 1, coef * dilation)]
            else:
                axes.append((axis + (axis > column), coef))
        return Affine(affine.offset, tuple(axes), affine.values)

    def split_access(access: Access) -> Access:
        return replace(
            access,
            address=split(access.address),
            quotients=tuple((split(a), d, s) for a, d, s in access.quotients),
            tests=tuple(replace(test, affine=split(test.affine)) for test in access.tests),
        )

    extents = (*body.extents[:column], dilation, extent // dilation, *body.extents[column + 1 :])
    return replace(
        body,
        extents=extents,
        rank=body.rank + 1,
        out=split(body.out),
        accesses=tuple(split_access(access) for access in body.accesses),
    )


def _depends(access: Access, axis: int) -> bool:
    return any(affine.coef(axis) for affine in access.affines())


def _dilation(access: Access, axis: int) -> int:
    """Return by what a read is dilated along an axis: 1 if not at all, or in several ways."""
    found = {dilation for affine, dilation, _ in access.quotients if affine.coef(axis)}
    if access.address.coef(axis) or len(found) != 1:
        return 1
    return found.pop()
