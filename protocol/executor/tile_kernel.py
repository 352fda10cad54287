# SPDX-License-Identifier: GPL-3.0-or-later
"""FOLD, vectorized over outputs: a tile of rows x vectors, each element its own chain over k.

A matrix product is the case in which one result register does not depend on the column axis and the
other not on the row axis: the first is read as scalars, the second once for all rows of the
tile. If the second is more than a contiguous load (a transposed matrix, a padded window of an
image) its values for the tile's columns are first packed into scratch memory, k-major.
Column sums, reductions of middle axes and everything else without such a row axis have one row.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.executor.emitter import Variable
from protocol.executor.evaluation import Evaluation, dependencies
from protocol.executor.kernel import (
    Context,
    Shape,
    counted,
    current,
    emit_chain,
    levels,
    power_below,
    product,
    result_letter,
    store,
    window,
    windows,
)
from protocol.executor.primitives import Value, finish, step, widened
from protocol.program import Fold

MAX_SCRATCH = 1 << 25
"""Bytes that one kernel may pack into."""
MIN_REUSE = 3
"""Row tiles that must read a packed panel for packing to pay."""
MIN_REUSE_PLAIN = 8
"""The same where the columns lie side by side already: packing only saves cache and TLB misses."""


@dataclass(frozen=True)
class Tile:
    """How the outputs are cut; `row` and `column` are axes, or -1 where there is none."""

    column: int
    width: int
    vectors: int
    row: int
    rows: int

    @property
    def columns(self) -> int:
        """Outputs of a tile along the column axis."""
        return self.width * self.vectors


def _row_axis(context: Context, column: int) -> int:
    """Return the largest axis that one result varies along while the other varies by column."""
    if context.node.fold is not Fold.DOT or column < 0:
        return -1
    registers = dependencies(context.body, context.node.body)
    a, b = (registers[register] for register in context.node.body.results)
    found = -1
    for axis in range(context.rank):
        useful = axis != column and (
            (axis in a and axis not in b and column in b and column not in a)
            or (axis in b and axis not in a and column in a and column not in b)
        )
        if useful and (found < 0 or context.extents[axis] > context.extents[found]):
            found = axis
    return found


def choose_tile(context: Context) -> Tile:
    """Choose the tile: as many accumulators as there are registers, little overlap."""
    column = context.rank - 1
    extent = context.extents[column] if column >= 0 else 1
    width = power_below(min(context.target.width, extent))
    row = _row_axis(context, column)
    if row < 0:
        return Tile(column, width, power_below(min(8, extent // width)), -1, 1)
    vectors = min(2, extent // width)
    most = min(context.target.accumulators // vectors, context.extents[row])
    rows = min(range(1, most + 1), key=lambda r: (windows(context.extents[row], r) * (r + 2), -r))
    return Tile(column, width, vectors, row, rows)


def _packed(context: Context, tile: Tile) -> list[int]:
    """Return the result registers (0 or 1 of them) that are worth packing."""
    body, expression = context.body, context.node.body
    if tile.row < 0 or windows(context.extents[tile.row], tile.rows) < MIN_REUSE:
        return []
    if 4 * context.node.terms * tile.columns > MAX_SCRATCH:
        return []
    registers = dependencies(body, expression)
    result = []
    for register in expression.results:
        if tile.column not in registers[register]:
            continue
        if register < len(body.accesses):
            access = body.accesses[register]
            plain = access.address.coef(tile.column) == 1 and not access.tests
            plain = plain and not access.address.values and len(context.reduce) <= 1
            if plain and windows(context.extents[tile.row], tile.rows) < MIN_REUSE_PLAIN:
                continue
        result.append(register)
    return result


class TileKernel:
    """Generator of one such kernel."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.em = context.em
        self.fold = context.node.fold
        self.tile = choose_tile(context)
        self.packed = _packed(context, self.tile)
        self.letter = result_letter(self.fold)
        self.dependencies = dependencies(context.body, context.node.body)

    def emit(self) -> Shape:
        """Emit the body. Units are tiles of columns at each place of the remaining axes."""
        em, tile, extents = self.em, self.tile, self.context.extents
        others = [a for a in range(self.context.rank) if a not in (tile.column, tile.row)]
        sizes = [extents[axis] for axis in others]
        if tile.column >= 0:
            sizes.append(windows(extents[tile.column], tile.columns))
        with em.loop("%begin", "%end") as unit:
            places = em.unravel(unit, tuple(sizes)) if sizes else []
            coordinates = ["0"] * self.context.rank
            for axis, place in zip(others, places, strict=False):
                coordinates[axis] = place
            if tile.column >= 0:
                extent = extents[tile.column]
                coordinates[tile.column] = window(em, places[-1], extent, tile.columns)
            if self.packed:
                self._pack(coordinates)
            if tile.row < 0:
                self._tile(coordinates)
            else:
                extent = extents[tile.row]
                with em.loop(0, windows(extent, tile.rows)) as index:
                    coordinates[tile.row] = window(em, index, extent, tile.rows)
                    self._tile(coordinates)
        scratch = 4 * self.context.node.terms * tile.columns if self.packed else 0
        return Shape(product(sizes), scratch)

    def _at(self, coordinates: list[str], k: list[str], row: int, column: int) -> Evaluation:
        """Return an evaluation at row `row` and vector `column` of the tile."""
        em, tile = self.em, self.tile
        place = list(coordinates)
        if tile.row >= 0:
            place[tile.row] = em.add(place[tile.row], row)
        if tile.column >= 0:
            place[tile.column] = em.add(place[tile.column], column * tile.width)
        axis = tile.column if tile.width > 1 else -1
        context = self.context
        return Evaluation(em, context.body, context.node.body, place + k, axis, tile.width)

    def _panel(self, item: str, column: int) -> str:
        """Return where vector `column` of term `item` is packed."""
        em, tile = self.em, self.tile
        return em.element("%scratch", em.add(em.mul(item, tile.columns), column * tile.width))

    def _pack(self, coordinates: list[str]) -> None:
        em = self.em
        with counted(em, "0", str(self.context.node.terms), self.context.reduce) as (item, k):
            for column in range(self.tile.vectors):
                value = self._at(coordinates, k, 0, column).value(self.packed[0], self.letter)
                value = widened(em, value, self.tile.width)
                em.store(value.type, value.name, self._panel(item, column))

    def _terms(self, coordinates: list[str], item: str, k: list[str]) -> list[list[Value]]:
        """Return the term of each element of the tile, row by row; equal parts are shared."""
        shared: dict[tuple[int, int, int], Value] = {}
        places: dict[tuple[int, int], Evaluation] = {}
        tile, result = self.tile, []
        for row in range(tile.rows):
            for column in range(tile.vectors):
                term = []
                for register in self.context.node.body.results:
                    key = self._key(register, row, column)
                    if key not in shared:
                        at = places.get(key[1:]) or self._at(coordinates, k, *key[1:])
                        places[key[1:]] = at
                        shared[key] = self._register(at, register, item, column)
                    term.append(shared[key])
                result.append(term)
        return result

    def _key(self, register: int, row: int, column: int) -> tuple[int, int, int]:
        axes = self.dependencies[register]
        return (
            register,
            row if self.tile.row in axes else 0,
            column if self.tile.column in axes else 0,
        )

    def _register(self, at: Evaluation, register: int, item: str, column: int) -> Value:
        if register not in self.packed:
            return at.value(register, self.letter)
        name = f"<{self.tile.width} x float>" if self.tile.width > 1 else "float"
        return Value(self.em.load(name, self._panel(item, column)), "f", self.tile.width)

    def _tile(self, coordinates: list[str]) -> None:
        em, tile, fold = self.em, self.tile, self.fold

        def leaf(start: str, stop: str, variables: list[Variable]) -> None:
            with counted(em, start, stop, self.context.reduce) as (item, k):
                for variable, term in zip(
                    variables, self._terms(coordinates, item, k), strict=True
                ):
                    acc = current(fold, variable, tile.width)
                    variable.set(widened(em, step(em, fold, acc, term), tile.width).name)

        counts = levels(fold, self.context.node.terms)
        widths = [tile.width] * (tile.rows * tile.vectors)
        results = emit_chain(em, fold, counts, widths, leaf)
        for number, value in enumerate(results):
            row, column = divmod(number, tile.vectors)
            place = self._at(coordinates, [], row, column).coordinates
            store(self.context, finish(em, fold, value), place, tile.column, tile.width)


def emit_tile(context: Context) -> Shape:
    """Emit the body of a one-lane FOLD kernel."""
    return TileKernel(context).emit()
