# SPDX-License-Identifier: GPL-3.0-or-later
"""How a matrix product is cut: which factor is the left one, tiles, groups, and what is packed.

None of this changes a bit. The costs are in cycles of one core per element, measured on a Zen 3
and rounded; only their order of magnitude matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.executor.gemm.factor import Factor, find_factors, linear, neighbours
from protocol.executor.gemm.micro import Tile, tiles
from protocol.executor.gemm.sizes import BLOCK, CHUNK, COLUMNS, ROWS, WHOLE
from protocol.executor.kernel import Context, product, windows

MOST_TERMS: Final = BLOCK**3
"""Terms of the largest product that is cut so: its fold has three levels."""
MASKED: Final = 40
"""Terms from which on it pays to look for zeros."""
UNITS: Final = 16
"""Groups that a large product should have at least, so that threads can share them out..."""
UNIT_WORK: Final = 1 << 18
"""... but none with fewer multiplications."""
UNIT_TILES: Final = 4
"""Tiles along a group's columns, at least; twice as many along its rows, which are shorter."""
FEW_UNITS: Final = 4
REPACKED: Final = 0.05
"""Part of the multiplications' time that may go into packing again for more groups..."""
REPACKED_FEW: Final = 0.2
"""... unless there are fewer than `FEW_UNITS`."""
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

    places: int
    """Places of the other axes."""

    @property
    def skips(self) -> bool:
        """Whether zeros at the ends of a block are looked for: in attention, masks leave them."""
        near = self.pack_left != "no" or 1 in (self.left.term, self.left.own)
        return self.places > 1 and self.terms >= MASKED and near and self.pack_right != "no"

    @property
    def gathered(self) -> bool:
        """Whether a unit's results are gathered before they go to their places."""
        return not self.direct or self.row_stride is None or self.terms > BLOCK * BLOCK


@dataclass(frozen=True)
class _Packing:
    """How a factor is packed, and the cycles for each of its elements."""

    kind: str
    cycles: float


def _left_packing(left: Factor, columns: int, tile: Tile) -> _Packing:
    in_place = left.own is not None and left.term is not None
    if in_place and (left.term == 1 or columns <= 3 * tile.columns):
        return _Packing("no", 0.0)
    if in_place and len(left.axes) == 1 and left.own == 1:
        return _Packing("tiles", 0.3)
    return _Packing("rows", 0.3 if left.along >= 4 else 4.0)


def _right_packing(right: Factor, rows: int, columns: int, tile: Tile) -> _Packing:
    in_place = right.own == 1 and right.term is not None and len(right.axes) == 1
    if in_place and columns % tile.columns == 0 and rows <= 2 * tile.rows:
        return _Packing("no", 0.0)
    if right.beside >= 4:
        return _Packing("columns", 0.15 if right.plain else 0.6)
    if right.along >= 4:
        return _Packing("terms", 0.4 if right.plain else 0.8)
    return _Packing("columns", 4.0)


@dataclass(frozen=True)
class _Cut:
    """A product of such sizes cut into such tiles."""

    places: int
    rows: int
    columns: int
    terms: int
    tile: Tile
    left: _Packing
    right: _Packing

    @property
    def chunk(self) -> int:
        """Terms packed at a time."""
        return self.terms if self.terms <= WHOLE else CHUNK

    def cycles(self, scattered: bool) -> float:
        """Return about how many cycles each place takes."""
        tile, blocks = self.tile, windows(self.terms, BLOCK)
        panels, height = windows(self.columns, tile.columns), windows(self.rows, tile.rows)
        full, rest = divmod(self.rows, tile.rows)
        column = full * tile.cycles
        if rest:
            column += Tile(rest, tile.vectors, tile.width).cycles
        result = self.terms * panels * column + CALL * panels * height * blocks
        result += self.terms * self.rows * self.left.cycles
        result += self.terms * self.columns * self.right.cycles
        if scattered:
            result += SCATTERED * self.rows * self.columns
        elif self.columns % tile.width:
            result += SCATTERED * self.rows * tile.columns * blocks
        return result

    def _repacked(self, down: int, across: int) -> float:
        """Return the cycles that so many groups spend on packing again, as part of them all."""
        whole = self.chunk == self.terms
        extra = 0.0 if whole else (down - 1) * self.right.cycles * self.columns
        if down > 1 or not whole:
            extra += (across - 1) * self.left.cycles * self.rows
        return extra / (self.rows * self.columns / self.tile.width)

    def groups(self) -> tuple[int, int]:
        """Return rows and columns of a group: whole tiles, and few that are packed twice."""
        down, across = windows(self.rows, ROWS), windows(self.columns, COLUMNS)
        work = self.places * self.rows * self.columns * self.terms
        while True:
            units = self.places * down * across
            if units >= UNITS or work < UNIT_WORK * 2 * units:
                break
            finer = []
            if self.columns >= UNIT_TILES * self.tile.columns * 2 * across:
                finer.append((down, 2 * across))
            if self.rows >= 2 * UNIT_TILES * self.tile.rows * 2 * down:
                finer.append((2 * down, across))
            if not finer:
                break
            chosen = min(finer, key=lambda pair: self._repacked(*pair))
            if self._repacked(*chosen) > (REPACKED if units >= FEW_UNITS else REPACKED_FEW):
                break
            down, across = chosen
        return (
            _group(self.rows, self.tile.rows, down),
            _group(self.columns, self.tile.columns, across),
        )


def _group(count: int, tile: int, groups: int) -> int:
    """Return the size of so many groups of whole tiles, about equal."""
    return windows(windows(count, groups), tile) * tile


def _candidates(context: Context, left: Factor, right: Factor) -> list[tuple[float, Plan]]:
    extents, out = context.extents, context.body.out
    rows, columns = left.count(extents), right.count(extents)
    places = product(extents[: context.rank]) // (rows * columns)
    direct = neighbours(context, right.axes) == context.target.width
    row_stride = linear(out, left.axes, extents)
    result = []
    for tile in tiles(context.target, rows, columns):
        of_left = _left_packing(left, columns, tile)
        of_right = _right_packing(right, rows, columns, tile)
        cut = _Cut(places, rows, columns, context.node.terms, tile, of_left, of_right)
        row_group, column_group = cut.groups()
        plan = Plan(
            left, right, tile, rows, columns, cut.terms, cut.chunk, row_group, column_group,
            of_left.kind, of_right.kind, row_stride, direct, places,
        )  # fmt: skip
        result.append((cut.cycles(not direct or row_stride is None), plan))
    return result


def find_product(context: Context) -> Plan | None:
    """Return how to compute a DOT as a product of matrices, or None if it is not one."""
    factors = find_factors(context)
    if factors is None or context.node.terms > MOST_TERMS:
        return None
    a, b = factors
    found = _candidates(context, a, b) + _candidates(context, b, a)
    return min(found, key=lambda pair: pair[0])[1]
