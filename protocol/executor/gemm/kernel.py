# SPDX-License-Identifier: GPL-3.0-or-later
"""DOT as a blocked product of matrices, after Goto and van de Geijn ("Anatomy of high-performance
matrix multiplication", 2008), with blocks of terms that are those of the specified fold.

A unit is a group of rows by a group of columns at one place of the other axes. For each chunk of
terms it packs what is worth packing; then, block by block, each panel of columns stays in the
first-level cache while the group's rows pass by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from protocol.executor.gemm.copy import Copier
from protocol.executor.gemm.factor import Factor
from protocol.executor.gemm.memory import Memory
from protocol.executor.gemm.micro import Tile, call
from protocol.executor.gemm.pack import panel_size, row_stride, tile_size
from protocol.executor.gemm.plan import Plan
from protocol.executor.gemm.result import Gathered, Panel
from protocol.executor.gemm.sizes import BLOCK
from protocol.executor.gemm.span import Spans, finite, left_zero, right_zero, shrink, together
from protocol.executor.kernel import Context, Shape, product, windows


@dataclass(frozen=True)
class Place:
    """Where a unit works: coordinates of the other axes, first row and column, and their counts."""

    coordinates: list[str]
    base: str
    """Flat index of the result at row and column 0."""
    row: str
    column: str
    tiles: str
    """How many whole tiles of rows there are."""
    panels: str
    """How many whole panels of columns."""
    rows: str
    columns: str
    last_rows: str
    """An i1: whether the rest of the rows is in this group."""
    last_columns: str


@dataclass(frozen=True)
class Block:
    """A block of terms: its first one, and first and last (excluded) of those packed with it."""

    start: str
    stop: str
    first: str


@dataclass(frozen=True)
class _Product:
    """The product of a block: where, of what, and which terms are left out."""

    place: Place
    block: Block
    sources: tuple[str, str]
    terms: str
    spans: Spans | None
    gathered: Gathered


class ProductKernel:
    """Generator of one such kernel."""

    def __init__(self, context: Context, plan: Plan) -> None:
        self.context = context
        self.em = context.em
        self.plan = plan
        own = {*plan.left.axes, *plan.right.axes}
        self.others = [axis for axis in range(context.rank) if axis not in own]
        self.row_rest = plan.rows % plan.tile.rows
        self.column_rest = plan.columns % plan.tile.columns
        self.memory = Memory(context, plan)
        self.buffer = self.em.alloca("float", plan.tile.rows * plan.tile.columns)

    def emit(self) -> Shape:
        """Emit the body."""
        em, plan = self.em, self.plan
        groups = (windows(plan.rows, plan.row_group), windows(plan.columns, plan.column_group))
        sizes = [self.context.extents[axis] for axis in self.others]
        swapped = plan.pack_right == "no"
        sizes += groups if swapped else reversed(groups)
        self.memory.begin()
        with em.loop("%begin", "%end") as unit:
            *others, first, second = em.unravel(unit, tuple(sizes))
            coordinates = ["0"] * self.context.rank
            base = "0"
            for axis, place in zip(self.others, others, strict=True):
                coordinates[axis] = place
                base = em.add(base, em.mul(place, self.context.body.out.coef(axis)))
            row, column = (first, second) if swapped else (second, first)
            self._unit(self._place(coordinates, base, row, column, groups), (row, column))
        return Shape(product(sizes), 4 * self.memory.size)

    def _place(
        self, coordinates: list[str], base: str, row: str, column: str, groups: tuple[int, int]
    ) -> Place:
        em, plan = self.em, self.plan
        firsts, wholes, counts, last = [], [], [], []
        for index, group, size, count, tile in (
            (row, plan.row_group, groups[0], plan.rows, plan.tile.rows),
            (column, plan.column_group, groups[1], plan.columns, plan.tile.columns),
        ):
            if size == 1:
                firsts.append("0")
                wholes.append(str(count // tile))
                counts.append(str(count))
                last.append("true")
                continue
            first = em.mul(index, group)
            firsts.append(first)
            left = em.op(f"sub i64 {count // tile}, {em.mul(index, group // tile)}")
            wholes.append(em.least(left, group // tile))
            counts.append(em.least(em.op(f"sub i64 {count}, {first}"), group))
            last.append(em.op(f"icmp eq i64 {index}, {size - 1}"))
        return Place(coordinates, base, *firsts, *wholes, *counts, *last)

    def _unit(self, place: Place, groups: tuple[str, str]) -> None:
        em, plan, memory = self.em, self.plan, self.memory
        whole = plan.chunk == plan.terms
        gathered = Gathered(self.context, plan, memory.gathered)
        with em.loop(0, windows(plan.terms, plan.chunk)) as chunk:
            start = "0" if whole else em.mul(chunk, plan.chunk)
            stop = str(plan.terms)
            if not whole:
                stop = em.least(em.add(start, plan.chunk), plan.terms)
            right = memory.source(plan.right, place.coordinates, (place.column, place.columns),
                                  (start, stop))  # fmt: skip
            left = memory.source(plan.left, place.coordinates, (place.row, place.rows),
                                 (start, stop))  # fmt: skip
            if plan.pack_right != "no":
                with self._unless_packed(plan.right, place, groups[1]):
                    packer = memory.packer(plan.right, right, start, stop)
                    packer.panels(
                        place.coordinates, place.column, place.panels, self.column_rest,
                        place.last_columns,
                    )  # fmt: skip
            if plan.pack_left != "no":
                with self._unless_packed(plan.left, place, groups[0]):
                    packer = memory.packer(plan.left, left, start, stop)
                    if plan.pack_left == "rows":
                        packer.rows(place.coordinates, place.row, place.rows)
                    elif isinstance(packer, Copier):
                        packer.tiles(
                            place.coordinates, place.row, place.tiles, self.row_rest,
                            place.last_rows,
                        )  # fmt: skip
            with em.loop(start, stop, BLOCK) as block:
                self._block(place, Block(start, stop, block), (left, right), gathered)
            if gathered.deep:
                self._raise(gathered, place, stop)
        if plan.gathered:
            gathered.store(place.base, place.row, place.rows, place.column, place.columns)

    def _raise(self, gathered: Gathered, place: Place, stop: str) -> None:
        """Go up to the third level after its 256 blocks, or after the last one."""
        em, most = self.em, BLOCK * BLOCK
        rest = em.op(f"urem i64 {stop}, {most}")
        done = em.op(f"icmp eq i64 {rest}, 0")
        done = em.op(f"or i1 {done}, {em.op(f'icmp eq i64 {stop}, {self.plan.terms}')}")
        with em.when(done):
            gathered.raise_(place.rows, em.op(f"icmp ule i64 {stop}, {most}"))

    @contextmanager
    def _unless_packed(self, factor: Factor, place: Place, group: str) -> Iterator[None]:
        """Emit the body so that it runs unless the same group was packed last, with all terms."""
        if self.plan.chunk < self.plan.terms:
            yield
            return
        with self.memory.unless_there(factor, factor.batch, place.coordinates, group):
            yield

    def _block(
        self, place: Place, block: Block, sources: tuple[str, str], gathered: Gathered
    ) -> None:
        em, columns = self.em, self.plan.tile.columns
        terms = em.least(em.op(f"sub i64 {block.stop}, {block.first}"), BLOCK)
        spans = self._spans(place, block, sources[0], terms) if self.plan.skips else None
        product_ = _Product(place, block, sources, terms, spans, gathered)
        with em.loop(0, place.panels) as panel:
            self._panel(product_, panel, columns)
        if self.column_rest:
            with em.when(place.last_columns):
                self._panel(product_, place.panels, self.column_rest)

    # Terms left out ------------------------------------------------------------------------------

    def _each_tile(self, place: Place, work: Callable[[str, int], None]) -> None:
        """Emit work for every tile of rows: `work(number, rows)`."""
        with self.em.loop(0, place.tiles) as index:
            work(index, self.plan.tile.rows)
        if self.row_rest:
            with self.em.when(place.last_rows):
                work(place.tiles, self.row_rest)

    def _spans(self, place: Place, block: Block, source: str, terms: str) -> Spans:
        em, plan = self.em, self.plan
        spans = Spans(em, windows(plan.row_group, plan.tile.rows) + 1, terms)

        def look(index: str, rows: int) -> None:
            pointer, *pair = self._left(place, block, source, index, rows)
            strides = (pair[0], pair[1])
            zero = left_zero(em, pointer, rows, strides)
            spans.set(index, shrink(em, terms, together(strides, rows), zero))

        def right_finite() -> str:
            result = em.variable("i1", "true")
            last = "0"
            if self.column_rest:
                last = em.op(f"zext i1 {place.last_columns} to i64")
            with em.loop(0, em.add(place.panels, last)) as panel:
                pointer = self._packed_panel(block, panel)
                one = finite(em, pointer, em.mul(terms, plan.tile.columns))
                result.set(em.op(f"and i1 {result.get()}, {one}"))
            return result.get()

        self._each_tile(place, look)
        tiles = place.tiles
        if self.row_rest:
            tiles = em.add(tiles, em.op(f"zext i1 {place.last_rows} to i64"))
        spans.confirm(tiles, right_finite)
        return spans

    def _left_finite(self, product_: _Product) -> str:
        em = self.em
        result = em.variable("i1", "true")

        def look(index: str, rows: int) -> None:
            pointer, row, term = self._left(
                product_.place, product_.block, product_.sources[0], index, rows
            )
            if (row, term) == (1, rows):
                lines, step, count = "1", 0, em.mul(product_.terms, rows)
            elif term == 1:
                lines, step, count = str(rows), row, product_.terms
            else:
                lines, step, count = product_.terms, term, str(rows)
            with em.loop(0, lines) as number:
                one = finite(em, em.element(pointer, em.mul(number, step)), count)
                result.set(em.op(f"and i1 {result.get()}, {one}"))

        self._each_tile(product_.place, look)
        return result.get()

    # Tiles ---------------------------------------------------------------------------------------

    def _packed_panel(self, block: Block, panel: str) -> str:
        """Return where the block's terms of a packed panel begin."""
        em, plan = self.em, self.plan
        offset = em.mul(self._packed(block), plan.tile.columns)
        offset = em.add(offset, em.mul(panel, panel_size(plan)))
        return em.element(self.memory.right, offset)

    def _panel(self, product_: _Product, panel: str, lanes: int) -> None:
        em, plan, tile = self.em, self.plan, self.plan.tile
        place, block, spans = product_.place, product_.block, product_.spans
        shift = em.mul(panel, tile.columns)
        column = em.add(place.column, shift)
        if plan.pack_right == "no":
            offset = self._offset(plan.right, place, column, block.first)
            right = (em.element(product_.sources[1], offset), plan.right.term or 0)
        else:
            right = (self._packed_panel(block, panel), tile.columns)
        in_place = None
        if not plan.gathered:
            in_place = Panel(self.context, plan, place.base, column, lanes, self.buffer)
        vectors = windows(lanes, tile.width)
        first = em.op(f"icmp eq i64 {block.first}, 0")
        if product_.gathered.deep:
            rest = em.op(f"urem i64 {block.first}, {BLOCK * BLOCK}")
            first = em.op(f"icmp eq i64 {rest}, 0")
        if spans is not None:
            zero = right_zero(em, right[0], vectors, tile.width, tile.columns)
            span = shrink(em, product_.terms, 1, zero)
            spans.set_panel(span, lambda: self._left_finite(product_))

        def compute(index: str, rows: int) -> None:
            left, own_right, terms = (
                self._left(place, block, product_.sources[0], index, rows), right, product_.terms,
            )  # fmt: skip
            if spans is not None:
                begin, terms = spans.of(index)
                left = (em.element(left[0], em.mul(begin, left[2])), *left[1:])
                own_right = (em.element(right[0], em.mul(begin, right[1])), right[1])
            size = Tile(rows, vectors, tile.width, plan.pack_left == "tiles")

            def emit(places: list[str], stride: int) -> None:
                call(em, size, terms, left, own_right, places, str(stride), first)

            row = em.mul(index, tile.rows)
            if in_place is not None:
                in_place.tile(em.add(place.row, row), rows, first, emit)
            else:
                product_.gathered.tile(row, rows, shift, lanes, emit)

        self._each_tile(place, compute)

    def _packed(self, block: Block) -> str:
        """Return the number of the block's first term among those packed."""
        return self.em.op(f"sub i64 {block.first}, {block.start}")

    def _left(
        self, place: Place, block: Block, source: str, tile: str, rows: int
    ) -> tuple[str, int, int]:
        """Return pointer and strides of a tile of the left factor."""
        em, plan, height = self.em, self.plan, self.plan.tile.rows
        if plan.pack_left == "no":
            row = em.add(place.row, em.mul(tile, height))
            offset = self._offset(plan.left, place, row, block.first)
            return em.element(source, offset), plan.left.own or 0, plan.left.term or 0
        packed = self._packed(block)
        if plan.pack_left == "rows":
            stride = row_stride(plan)
            offset = em.add(em.mul(tile, height * stride), packed)
            return em.element(self.memory.left, offset), stride, 1
        offset = em.add(em.mul(tile, tile_size(plan)), em.mul(packed, rows))
        return em.element(self.memory.left, offset), 1, rows

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
