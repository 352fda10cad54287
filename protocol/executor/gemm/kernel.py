# SPDX-License-Identifier: GPL-3.0-or-later
"""DOT as a blocked product of matrices, after Goto and van de Geijn ("Anatomy of high-performance
matrix multiplication", 2008), with blocks of terms that are those of the specified fold.

A unit is a group of rows by a group of columns at one place of the other axes. For each chunk of
terms it packs what is worth packing; then, block by block, each panel of columns stays in the
first-level cache while the group's rows pass by.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from protocol.executor.emitter import Variable
from protocol.executor.gemm.factor import BLOCK, Factor
from protocol.executor.gemm.micro import Tile, call
from protocol.executor.gemm.pack import Packer
from protocol.executor.gemm.plan import Plan
from protocol.executor.gemm.result import Panel
from protocol.executor.kernel import Context, Shape, product, windows

ALIGNMENT = 16
"""Elements to which the packed right factor is rounded up."""


@dataclass(frozen=True)
class Place:
    """Where a unit works: coordinates of the other axes, first row and column, and their counts."""

    coordinates: list[str]
    row: str
    column: str
    rows: str
    """How many whole tiles of rows there are."""
    panels: str
    """How many whole panels of columns."""
    last_rows: str
    """An i1: whether the rest of the rows is in this group."""
    last_columns: str


@dataclass(frozen=True)
class Block:
    """A block of terms: its first one, and first and last (excluded) of those packed with it."""

    start: str
    stop: str
    first: str


class ProductKernel:
    """Generator of one such kernel."""

    def __init__(self, context: Context, plan: Plan) -> None:
        self.context = context
        self.em = context.em
        self.plan = plan
        own = {*plan.left.axes, *plan.right.axes}
        self.others = [axis for axis in range(context.rank) if axis not in own]
        packed = plan.column_group * plan.chunk if plan.pack_right != "no" else 0
        self.left_start = windows(packed, ALIGNMENT) * ALIGNMENT
        self.row_rest = plan.rows % plan.tile.rows
        self.column_rest = plan.columns % plan.tile.columns
        columns = plan.tile.columns
        self.buffer = self.em.alloca("float", plan.tile.rows * columns)
        self.table = self.em.alloca("i64", columns)

    def emit(self) -> Shape:
        """Emit the body."""
        em, plan = self.em, self.plan
        groups = (windows(plan.rows, plan.row_group), windows(plan.columns, plan.column_group))
        sizes = [self.context.extents[axis] for axis in self.others]
        swapped = plan.pack_right == "no"
        sizes += reversed(groups) if not swapped else groups
        memory = [em.variable("i64", "-1") for _ in range(2)]
        with em.loop("%begin", "%end") as unit:
            *others, first, second = em.unravel(unit, tuple(sizes))
            coordinates = ["0"] * self.context.rank
            for axis, place in zip(self.others, others, strict=True):
                coordinates[axis] = place
            row, column = (first, second) if swapped else (second, first)
            self._unit(self._place(coordinates, row, column, groups), memory, (row, column))
        size = self.left_start
        if plan.pack_left == "tiles":
            size += plan.row_group * plan.chunk
        elif plan.pack_left == "rows":
            size += plan.row_group * self._packer("0", "0").row_stride
        return Shape(product(sizes), 4 * size)

    def _packer(self, start: str, stop: str) -> Packer:
        return Packer(self.context, self.plan, start, stop)

    def _place(
        self, coordinates: list[str], row: str, column: str, groups: tuple[int, int]
    ) -> Place:
        em, plan = self.em, self.plan
        firsts, counts, last = [], [], []
        for index, group, size, count, tile in (
            (row, plan.row_group, groups[0], plan.rows, plan.tile.rows),
            (column, plan.column_group, groups[1], plan.columns, plan.tile.columns),
        ):
            first = em.mul(index, group)
            whole = count // tile
            if size == 1:
                firsts.append("0")
                counts.append(str(whole))
                last.append("true")
                continue
            done = em.mul(index, group // tile)
            left = em.op(f"sub i64 {whole}, {done}")
            firsts.append(first)
            counts.append(em.least(left, group // tile))
            last.append(em.op(f"icmp eq i64 {index}, {size - 1}"))
        return Place(coordinates, *firsts, *counts, *last)

    def _unit(self, place: Place, memory: list[Variable], groups: tuple[str, str]) -> None:
        em, plan = self.em, self.plan
        whole = plan.chunk == plan.terms
        with em.loop(0, windows(plan.terms, plan.chunk)) as chunk:
            start = "0" if whole else em.mul(chunk, plan.chunk)
            stop = str(plan.terms)
            if not whole:
                stop = em.least(em.add(start, plan.chunk), plan.terms)
            packer = self._packer(start, stop)
            if plan.pack_right != "no":
                with self._unless_packed(plan.right, place, memory[0], groups[1]):
                    self._pack_right(packer, place)
            if plan.pack_left != "no":
                with self._unless_packed(plan.left, place, memory[1], groups[0]):
                    self._pack_left(packer, place)
            with em.loop(start, stop, BLOCK) as block:
                self._block(place, Block(start, stop, block))

    @contextmanager
    def _unless_packed(
        self, factor: Factor, place: Place, memory: Variable, group: str
    ) -> Iterator[None]:
        """Emit the body so that it runs unless the same group was packed last, with all terms."""
        em = self.em
        if self.plan.chunk < self.plan.terms:
            yield
            return
        key = group
        for axis in factor.batch:
            key = em.mul(key, self.context.extents[axis])
            key = em.add(key, place.coordinates[axis])
        with em.when(em.op(f"icmp ne i64 {key}, {memory.get()}")):
            memory.set(key)
            yield

    def _pack_right(self, packer: Packer, place: Place) -> None:
        em, columns = self.em, self.plan.tile.columns
        size = columns * self.plan.chunk

        def pack(panel: str, lanes: int) -> None:
            column = em.add(place.column, em.mul(panel, columns))
            base = em.element("%scratch", em.mul(panel, size))
            packer.right(base, place.coordinates, column, lanes)

        with em.loop(0, place.panels) as panel:
            pack(panel, columns)
        if self.column_rest:
            with em.when(place.last_columns):
                pack(place.panels, self.column_rest)

    def _pack_left(self, packer: Packer, place: Place) -> None:
        em, plan, height = self.em, self.plan, self.plan.tile.rows
        start = em.element("%scratch", str(self.left_start))
        if plan.pack_left == "rows":
            count = em.mul(place.rows, height)
            if self.row_rest:
                rest = em.op(f"select i1 {place.last_rows}, i64 {self.row_rest}, i64 0")
                count = em.add(count, rest)
            packer.left_rows(start, place.coordinates, place.row, count)
            return

        def pack(tile: str, rows: int) -> None:
            row = em.add(place.row, em.mul(tile, height))
            base = em.element(start, em.mul(tile, height * plan.chunk))
            packer.left_tile(base, place.coordinates, row, rows)

        with em.loop(0, place.rows) as tile:
            pack(tile, height)
        if self.row_rest:
            with em.when(place.last_rows):
                pack(place.rows, self.row_rest)

    def _block(self, place: Place, block: Block) -> None:
        em, columns = self.em, self.plan.tile.columns
        with em.loop(0, place.panels) as panel:
            self._panel(place, block, panel, columns)
        if self.column_rest:
            with em.when(place.last_columns):
                self._panel(place, block, place.panels, self.column_rest)

    def _panel(self, place: Place, block: Block, panel: str, lanes: int) -> None:
        em, plan, tile = self.em, self.plan, self.plan.tile
        column = em.add(place.column, em.mul(panel, tile.columns))
        if plan.pack_right == "no":
            stride = plan.right.term or 0
            offset = self._offset(plan.right, place, column, block.first)
            right = (em.element(f"%s{plan.right.source}", offset), stride)
        else:
            offset = em.mul(panel, tile.columns * plan.chunk)
            offset = em.add(offset, em.mul(self._packed(block), tile.columns))
            right = (em.element("%scratch", offset), tile.columns)
        base = "0"
        for axis in self.others:
            coef = self.context.body.out.coef(axis)
            base = em.add(base, em.mul(place.coordinates[axis], coef))
        side_by_side = plan.direct and plan.row_stride is not None
        through = not side_by_side or lanes % tile.width
        table = "" if plan.direct else self.table
        results = Panel(
            self.context, plan, base, column, lanes, self.buffer if through else "", table
        )
        vectors = windows(lanes, tile.width)

        def compute(index: str, rows: int) -> None:
            left = self._left(place, block, index, rows)
            row = em.add(place.row, em.mul(index, tile.rows))
            size = Tile(rows, vectors, tile.width, plan.pack_left == "tiles")
            first = em.op(f"icmp eq i64 {block.first}, 0")
            terms = em.op(f"sub i64 {block.stop}, {block.first}")
            terms = em.least(terms, BLOCK)

            def emit(places: list[str], stride: int) -> None:
                call(em, size, terms, left, right, places, str(stride), first)

            results.tile(row, rows, first, emit)

        with em.loop(0, place.rows) as index:
            compute(index, tile.rows)
        if self.row_rest:
            with em.when(place.last_rows):
                compute(place.rows, self.row_rest)

    def _packed(self, block: Block) -> str:
        """Return the number of the block's first term among those packed."""
        return self.em.op(f"sub i64 {block.first}, {block.start}")

    def _left(self, place: Place, block: Block, tile: str, rows: int) -> tuple[str, int, int]:
        """Return pointer and strides of a tile of the left factor."""
        em, plan, height = self.em, self.plan, self.plan.tile.rows
        if plan.pack_left == "no":
            row = em.add(place.row, em.mul(tile, height))
            offset = self._offset(plan.left, place, row, block.first)
            pointer = em.element(f"%s{plan.left.source}", offset)
            return pointer, plan.left.own or 0, plan.left.term or 0
        packed = self._packed(block)
        if plan.pack_left == "rows":
            stride = self._packer("0", "0").row_stride
            offset = em.add(em.mul(tile, height * stride), packed)
            return em.element("%scratch", em.add(offset, self.left_start)), stride, 1
        offset = em.add(em.mul(tile, height * plan.chunk), em.mul(packed, rows))
        return em.element("%scratch", em.add(offset, self.left_start)), 1, rows

    def _offset(self, factor: Factor, place: Place, index: str, term: str) -> str:
        """Return the address of row or column `index` of a plain factor at a term."""
        em, address = self.em, factor.address
        result = str(address.offset)
        for axis in factor.batch:
            result = em.add(result, em.mul(place.coordinates[axis], address.coef(axis)))
        result = em.add(result, em.mul(index, factor.own or 0))
        return em.add(result, em.mul(term, factor.term or 0))


def emit_product(context: Context, plan: Plan) -> Shape:
    """Emit the body of a kernel that is planned so."""
    return ProductKernel(context, plan).emit()
