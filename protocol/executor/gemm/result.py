# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a tile's results go: straight to their places, or through a buffer of whole vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from protocol.executor.emitter import vector
from protocol.executor.gemm.factor import linear
from protocol.executor.gemm.plan import Plan
from protocol.executor.kernel import Context, power_below

Compute = Callable[[list[str], int], None]
"""`compute(first rows of the vectors, stride of rows)` emits the call of the inner loop."""


@dataclass
class Panel:
    """The results of one panel of columns, `lanes` of them, at one place of the other axes."""

    context: Context
    plan: Plan
    base: str
    """Flat index of the results at row and column 0."""
    column: str
    lanes: int
    buffer: str
    """Memory for one tile; empty if none is needed."""
    table: str
    """Memory for the offset of each lane; empty if the lanes lie side by side."""

    def __post_init__(self) -> None:
        em, tile = self.context.em, self.plan.tile
        if self.table:
            with em.loop(0, self.lanes) as lane:
                offset = self._offset(self.plan.right.axes, em.add(self.column, lane))
                place = em.op(f"getelementptr i64, ptr {self.table}, i64 {lane}")
                em.do(f"store i64 {offset}, ptr {place}")
        else:
            firsts = range(0, self.lanes, tile.width)
            columns = [em.add(self.column, first) for first in firsts]
            self.vectors = [self._offset(self.plan.right.axes, c) for c in columns]

    def _offset(self, axes: tuple[int, ...], index: str) -> str:
        """Return how far row or column `index` is from number 0 in the result."""
        em, out, extents = self.context.em, self.context.body.out, self.context.extents
        stride = linear(out, axes, extents)
        if stride is not None:
            return em.mul(index, stride)
        result = "0"
        places = em.unravel(index, tuple(extents[axis] for axis in axes))
        for axis, place in zip(axes, places, strict=True):
            result = em.add(result, em.mul(place, out.coef(axis)))
        return result

    def tile(self, row: str, rows: int, first: str, compute: Compute) -> None:
        """Emit the computation of a tile; `first` is an i1: whether nothing is there to add to."""
        em, stride = self.context.em, self.plan.row_stride
        if not self.buffer and stride is not None:
            start = em.add(self.base, em.mul(row, stride))
            compute([em.element("%out", em.add(start, v)) for v in self.vectors], stride)
            return
        tile = self.plan.tile
        if self.plan.terms > 256:
            with em.when(em.op(f"xor i1 {first}, true")):
                self._copy(row, rows, fetch=True)
        starts = range(0, self.lanes, tile.width)
        compute([em.element(self.buffer, str(start)) for start in starts], tile.columns)
        self._copy(row, rows, fetch=False)

    def _copy(self, row: str, rows: int, fetch: bool) -> None:
        """Copy a tile's results from their places into the buffer, or back."""
        em = self.context.em
        with em.loop(0, rows) as number:
            offset = self._offset(self.plan.left.axes, em.add(row, number))
            start = em.add(self.base, offset)
            near = em.element(self.buffer, em.mul(number, self.plan.tile.columns))
            if self.table:
                with em.loop(0, self.lanes) as lane:
                    slot = em.op(f"getelementptr i64, ptr {self.table}, i64 {lane}")
                    index = em.add(start, em.op(f"load i64, ptr {slot}"))
                    self._move(em.element(near, lane), em.element("%out", index), 1, fetch)
                return
            for number_, vector_ in enumerate(self.vectors):
                first = number_ * self.plan.tile.width
                far, lanes = em.add(start, vector_), self.lanes - first
                done, lanes = 0, min(lanes, self.plan.tile.width)
                while done < lanes:
                    width = power_below(lanes - done)
                    place = em.element(near, str(first + done))
                    self._move(place, em.element("%out", em.add(far, done)), width, fetch)
                    done += width

    def _move(self, near: str, far: str, width: int, fetch: bool) -> None:
        em, kind = self.context.em, vector("i32", width)
        source, target = (far, near) if fetch else (near, far)
        em.store(kind, em.load(kind, source), target)
