# SPDX-License-Identifier: GPL-3.0-or-later
"""How a matrix product is cut: which factor is the left one, tiles, groups, and what is packed.

None of this changes a bit. The costs are in cycles of one core per element, measured on a Zen 3
and rounded; only their order of magnitude matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.executor.gemm.factor import BLOCK, Factor, find_factors, linear, neighbours
from protocol.executor.gemm.micro import Tile, tiles
from protocol.executor.kernel import Context, windows

MOST_TERMS: Final = BLOCK * BLOCK
"""Terms of the largest product that is cut so: its fold has two levels."""
COLUMNS: Final = 128
"""Columns of a group, at most: the right factor is packed for one group at a time."""
ROWS: Final = 192
"""Rows of a group, at most; those of one block must fit the second-level cache."""
CHUNK: Final = 4 * BLOCK
"""Terms that are packed at a time where all of them would take more than..."""
WHOLE: Final = 8 * BLOCK
"""... so many."""
CALL: Final = 30.0
"""Cycles to call the inner loop and to add up its results."""
SCATTERED: Final = 3.0
"""Cycles to store one result that does not lie beside its neighbours."""


@dataclass(frozen=True)
class Plan:
    """A product of rows x terms by terms x columns, at each place of the other axes."""

    left: Factor
    right: Factor
    tile: Tile
    rows: int
    columns: int
    terms: int
    chunk: int
    """Terms packed at a time: a multiple of the block unless it is all of them."""
    row_group: int
    column_group: int
    pack_left: str
    """`no`; `rows`: row by row, terms side by side; `tiles`: term by term, rows side by side."""
    pack_right: str
    """`no`; `columns`: read as vectors of columns; `terms`: as vectors of terms, transposed."""
    row_stride: int | None
    """Stride of the rows in the result, if they have one."""
    direct: bool
    """Whether the columns of a vector lie side by side in the result."""


def _left_packing(context: Context, left: Factor, columns: int, width: int) -> tuple[str, float]:
    """Return how to pack the left factor, and the cycles for each of its elements."""
    in_place = left.own is not None and left.term is not None
    if in_place and (left.term == 1 or columns <= 3 * width):
        return "no", 0.0
    if in_place and len(left.axes) == 1 and left.own == 1:
        return "tiles", 0.3
    return "rows", 0.3 if left.along >= 4 else 4.0


def _right_packing(context: Context, right: Factor, rows: int, tile: Tile) -> tuple[str, float]:
    if right.own == 1 and right.term is not None and len(right.axes) == 1:
        whole = right.count(context) % tile.columns == 0
        if whole and rows <= 3 * tile.rows:
            return "no", 0.0
    if right.beside >= 4:
        return "columns", 0.15 if right.plain else 0.6
    if right.along >= 4:
        return "terms", 0.4 if right.plain else 0.8
    return "columns", 4.0


def _candidates(context: Context, left: Factor, right: Factor) -> list[tuple[float, Plan]]:
    extents, out = context.extents, context.body.out
    rows, columns = left.count(context), right.count(context)
    terms = context.node.terms
    direct = neighbours(context, right.axes) == context.target.width
    row_stride = linear(out, left.axes, extents)
    result = []
    for tile in tiles(context.target, rows, columns):
        pack_left, left_cost = _left_packing(context, left, columns, tile.columns)
        pack_right, right_cost = _right_packing(context, right, rows, tile)
        chunk = terms if terms <= WHOLE else CHUNK
        panels = windows(columns, tile.columns)
        full, rest = divmod(rows, tile.rows)
        cycles = full * tile.cycles
        if rest:
            cycles += Tile(rest, tile.vectors, tile.width).cycles
        calls = panels * windows(rows, tile.rows) * windows(terms, BLOCK)
        cost = panels * cycles * terms + CALL * calls
        cost += terms * (rows * left_cost + columns * right_cost)
        if not direct or row_stride is None:
            cost += SCATTERED * rows * columns * windows(terms, BLOCK)
        elif columns % tile.width:
            cost += SCATTERED * rows * tile.columns * windows(terms, BLOCK)
        row_group = _group(rows, tile.rows, ROWS)
        column_group = _group(columns, tile.columns, COLUMNS)
        plan = Plan(
            left, right, tile, rows, columns, terms, chunk, row_group, column_group,
            pack_left, pack_right, row_stride, direct,
        )  # fmt: skip
        result.append((cost, plan))
    return result


def _group(count: int, tile: int, most: int) -> int:
    """Return the size of equal groups, whole tiles, of at most about `most`."""
    groups = windows(count, most)
    return windows(windows(count, groups), tile) * tile


def find_product(context: Context) -> Plan | None:
    """Return how to compute a DOT as a product of matrices, or None if it is not one."""
    factors = find_factors(context)
    if factors is None or context.node.terms > MOST_TERMS:
        return None
    a, b = factors
    found = _candidates(context, a, b) + _candidates(context, b, a)
    return min(found, key=lambda pair: pair[0])[1]
