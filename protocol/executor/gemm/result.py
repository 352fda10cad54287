# SPDX-License-Identifier: GPL-3.0-or-later
"""Where results go: straight to their places, or into a buffer and from there to their places.

Vectors of columns that lie side by side in the result are added to it in place. The last few
columns, fewer than a vector, go through a buffer of one tile. Where columns do not lie side by side
or the fold has a third level, a whole unit is gathered in scratch memory first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from protocol.executor.emitter import vector
from protocol.executor.gemm.factor import linear
from protocol.executor.gemm.plan import Plan
from protocol.executor.gemm.sizes import BLOCK
from protocol.executor.kernel import Context, power_below
from protocol.executor.primitives import Value, bits_of

Compute = Callable[[list[str], int], None]
"""`compute(first rows of the vectors, stride of rows)` emits the call of the inner loop."""


def offset_in(context: Context, axes: tuple[int, ...], index: str) -> str:
    """Return how far row or column `index` (over `axes`) is from number 0 in the result."""
    em, out, extents = context.em, context.body.out, context.extents
    stride = linear(out, axes, extents)
    if stride is not None:
        return em.mul(index, stride)
    result = "0"
    places = em.unravel(index, tuple(extents[axis] for axis in axes))
    for axis, place in zip(axes, places, strict=True):
        result = em.add(result, em.mul(place, out.coef(axis)))
    return result


@dataclass
class Panel:
    """The results of one panel of `lanes` columns, written in place."""

    context: Context
    plan: Plan
    base: str
    """Flat index of the results at row and column 0."""
    column: str
    lanes: int
    buffer: str
    """Memory for one tile."""

    def __post_init__(self) -> None:
        em, axes = self.context.em, self.plan.right.axes
        firsts = range(0, self.lanes, self.plan.tile.width)
        columns = [em.add(self.column, first) for first in firsts]
        self.vectors = [offset_in(self.context, axes, column) for column in columns]

    def tile(self, row: str, rows: int, first: str, compute: Compute) -> None:
        """Emit the computation of a tile; `first` is an i1: whether nothing is there to add to."""
        em, tile, stride = self.context.em, self.plan.tile, self.plan.row_stride or 0
        start = em.add(self.base, em.mul(row, stride))
        places = [em.element("%out", em.add(start, offset)) for offset in self.vectors]
        if self.lanes % tile.width == 0:
            compute(places, stride)
            return
        if self.plan.terms > BLOCK:
            with em.when(em.op(f"xor i1 {first}, true")):
                self._copy(places, rows, fetch=True)
        starts = range(0, self.lanes, tile.width)
        compute([em.element(self.buffer, str(start)) for start in starts], tile.columns)
        self._copy(places, rows, fetch=False)

    def _copy(self, places: list[str], rows: int, fetch: bool) -> None:
        """Copy a tile's results from their places into the buffer, or back."""
        em, tile, stride = self.context.em, self.plan.tile, self.plan.row_stride or 0
        with em.loop(0, rows) as number:
            near = em.element(self.buffer, em.mul(number, tile.columns))
            for which, place in enumerate(places):
                far = em.element(place, em.mul(number, stride))
                done, stop = which * tile.width, min(self.lanes, (which + 1) * tile.width)
                while done < stop:
                    width = power_below(stop - done)
                    kind = vector("i32", width)
                    ends = (
                        em.element(near, str(done)),
                        em.element(far, str(done - which * tile.width)),
                    )
                    source, target = reversed(ends) if fetch else ends
                    em.store(kind, em.load(kind, source), target)
                    done += width


@dataclass
class Gathered:
    """The results of a unit in scratch memory, each row `column_group` wide."""

    context: Context
    plan: Plan
    memory: str
    """Sums of blocks, then, if there is a third level, sums of those sums."""

    @property
    def deep(self) -> bool:
        """Whether the fold has a third level."""
        return self.plan.terms > BLOCK * BLOCK

    @staticmethod
    def size(plan: Plan) -> int:
        """Elements that a unit wants."""
        levels = 2 if plan.terms > BLOCK * BLOCK else 1
        return plan.row_group * plan.column_group * levels if plan.gathered else 0

    def tile(self, row: str, rows: int, column: str, lanes: int, compute: Compute) -> None:
        """Emit the computation of a tile at a row and column of the unit."""
        del rows
        em, width, tile = self.context.em, self.plan.column_group, self.plan.tile
        start = em.add(em.mul(row, width), column)
        firsts = range(0, lanes, tile.width)
        compute([em.element(self.memory, em.add(start, first)) for first in firsts], width)

    def _second(self) -> str:
        size = self.plan.row_group * self.plan.column_group
        return self.context.em.element(self.memory, str(size))

    def raise_(self, rows: str, first: str) -> None:
        """Add the sums of the blocks to those of the level above; i1 `first`: begin with them."""
        em, width = self.context.em, self.plan.tile.width
        kind = vector("float", width)
        above = self._second()
        count = em.mul(rows, self.plan.column_group // width)
        with em.loop(0, count) as index:
            place = em.mul(index, width)
            near, far = em.element(self.memory, place), em.element(above, place)
            zero = em.splat("float", "0.0", width)
            old = em.op(f"select i1 {first}, {kind} {zero}, {kind} {em.load(kind, far)}")
            total = em.op(f"fadd {kind} {old}, {em.load(kind, near)}")
            bits = bits_of(em, Value(total, "f", width))
            em.store(bits.type, bits.name, far)

    def store(self, base: str, row: str, rows: str, column: str, columns: str) -> None:
        """Copy the unit's results to their places, of which those along one side may be near."""
        em, context, plan = self.context.em, self.context, self.plan
        source = self._second() if self.deep else self.memory
        table = em.alloca("i64", plan.column_group)
        with em.loop(0, columns) as index:
            offset = offset_in(context, plan.right.axes, em.add(column, index))
            slot = em.op(f"getelementptr i64, ptr {table}, i64 {index}")
            em.do(f"store i64 {offset}, ptr {slot}")

        def move(number: str, start: str, index: str, offset: str) -> None:
            near = em.element(source, em.add(em.mul(number, plan.column_group), index))
            far = em.element("%out", em.add(start, offset))
            em.store("i32", em.load("i32", near), far)

        def look_up(index: str) -> str:
            slot = em.op(f"getelementptr i64, ptr {table}, i64 {index}")
            return em.op(f"load i64, ptr {slot}")

        def row_start(number: str) -> str:
            return em.add(base, offset_in(context, plan.left.axes, em.add(row, number)))

        if plan.row_stride == 1:
            with em.loop(0, columns) as index:
                offset = look_up(index)
                with em.loop(0, rows) as number:
                    move(number, row_start(number), index, offset)
            return
        with em.loop(0, rows) as number:
            start = row_start(number)
            with em.loop(0, columns) as index:
                move(number, start, index, look_up(index))
