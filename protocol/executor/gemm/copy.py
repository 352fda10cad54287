# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs a factor that is just read: its elements lie at affine addresses, in its source or a box.

An address is what a row or column contributes plus what a term does. The former are kept in a
table where they are not multiples of one stride; the loop over terms is outermost where that reads
memory in its order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from protocol.executor.emitter import vector
from protocol.executor.gemm.factor import Factor
from protocol.executor.gemm.pack import (
    SQUARE,
    Packer,
    panel_size,
    row_stride,
    tile_size,
)
from protocol.executor.gemm.plan import Plan
from protocol.executor.kernel import Context, power_below, windows
from protocol.executor.primitives import Value

LONGEST = 32
"""Terms of a row that are copied at a time."""


class Copier(Packer):
    """Packs such a factor; `source` is where its address 0 is."""

    def __init__(
        self, context: Context, plan: Plan, factor: Factor, target: str, start: str, stop: str,
        source: str,
    ) -> None:  # fmt: skip
        super().__init__(context, plan, factor, target, start, stop)
        self.source = source

    def _origin(self, coordinates: list[str]) -> str:
        """Return the address of row or column 0 at term 0."""
        em, address = self.em, self.factor.address
        offset = str(address.offset)
        for axis in self.factor.batch:
            offset = em.add(offset, em.mul(coordinates[axis], address.coef(axis)))
        return em.element(self.source, offset)

    def _term(self, k: list[str]) -> str:
        """Return what a term contributes to an address."""
        em, offset = self.em, "0"
        for number, place in enumerate(k):
            coef = self.factor.address.coef(self.context.rank + number)
            offset = em.add(offset, em.mul(place, coef))
        return offset

    def _own(self, index: str) -> str:
        """Return what row or column `index` contributes."""
        em, factor = self.em, self.factor
        if factor.own is not None:
            return em.mul(index, factor.own)
        sizes = tuple(self.context.extents[axis] for axis in factor.axes)
        offset = "0"
        for axis, place in zip(factor.axes, em.unravel(index, sizes), strict=True):
            offset = em.add(offset, em.mul(place, factor.address.coef(axis)))
        return offset

    def _table(self, first: str, count: str, most: int, step: int) -> Callable[[str], str]:
        """Return a function to what entry i contributes: row or column `first + step * i`."""
        em = self.em
        if self.factor.own is not None:
            return lambda index: self._own(em.add(first, em.mul(index, step)))
        table = em.alloca("i64", most)
        with em.loop(0, count) as index:
            slot = em.op(f"getelementptr i64, ptr {table}, i64 {index}")
            em.do(f"store i64 {self._own(em.add(first, em.mul(index, step)))}, ptr {slot}")

        def look_up(index: str) -> str:
            slot = em.op(f"getelementptr i64, ptr {table}, i64 {index}")
            return em.op(f"load i64, ptr {slot}")

        return look_up

    def _copy(self, source: str, target: str, count: int, stride: int) -> None:
        """Copy `count` elements that lie `stride` apart to neighbouring places."""
        em, done = self.em, 0
        while done < count:
            width = power_below(min(count - done, self.context.target.width)) if stride == 1 else 1
            kind = vector("i32", width)
            value = em.load(kind, em.element(source, str(done * stride)))
            em.store(kind, value, em.element(target, str(done)))
            done += width

    def panels(
        self, coordinates: list[str], column: str, panels: str, rest: int, last: str
    ) -> None:
        """Pack so many whole panels from number `column` on, then `rest` columns if i1 `last`."""
        if self.plan.pack_right == "terms":
            super().panels(coordinates, column, panels, rest, last)
            return
        em, columns, factor = self.em, self.plan.tile.columns, self.factor
        extent = self.context.extents[factor.axes[-1]]
        run = columns if factor.own is not None else math.gcd(columns, extent)
        pieces = columns // run
        tail = windows(rest, run)
        count = em.mul(panels, pieces)
        if tail:
            count = em.add(count, em.op(f"select i1 {last}, i64 {tail}, i64 0"))
        most = self.plan.column_group // run + tail
        offset = self._table(column, count, most, run)
        origin, stride = self._origin(coordinates), factor.address.coef(factor.axes[-1])
        with self.terms(1) as (item, k):
            source = em.element(origin, self._term(k))
            target = em.element(self.target, em.mul(item, columns))

            def panel(number: str, lanes: int) -> None:
                place = em.element(target, em.mul(number, panel_size(self.plan)))
                for piece in range(windows(lanes, run)):
                    first = piece * run
                    at = offset(em.add(em.mul(number, pieces), piece))
                    far = em.element(source, at)
                    near = em.element(place, str(first))
                    self._copy(far, near, min(run, lanes - first), stride)

            with em.loop(0, panels) as number:
                panel(number, columns)
            if rest:
                with em.when(last):
                    panel(panels, rest)

    def _transposed(self, coordinates: list[str], column: str, base: str, lanes: int) -> None:
        em, width = self.em, min(SQUARE, self.factor.along)
        rest = self.plan.terms % width
        origin = self._origin(coordinates)
        with em.loop(0, windows(lanes, width)) as piece:
            first = em.mul(piece, width)
            columns = [em.add(em.add(column, first), i) for i in range(width)]
            if lanes % width:
                columns = [em.least(c, self.plan.columns - 1) for c in columns]
            sources = [em.element(origin, self._own(c)) for c in columns]
            start = em.add(base, first)
            with self.terms(width) as (item, k):
                term = self._term(k)
                kind = vector("float", width)
                rows = [
                    Value(em.load(kind, em.element(source, term)), "f", width) for source in sources
                ]
                self.square(rows, start, item, width)
            if rest:
                with self.last_terms(width) as (item, k), em.loop(0, rest) as number:
                    term = self._term([em.add(k[0], number)])
                    place = em.mul(em.add(item, number), self.plan.tile.columns)
                    target = em.element(self.target, em.add(start, place))
                    for lane, source in enumerate(sources):
                        self._copy(em.element(source, term), em.element(target, str(lane)), 1, 1)

    def rows(self, coordinates: list[str], row: str, count: str) -> None:
        """Pack `count` rows from number `row`, terms side by side."""
        em, reduce = self.em, self.context.reduce
        run = 1
        if self.factor.along:
            run = LONGEST if len(reduce) == 1 else min(LONGEST, reduce[-1] & -reduce[-1])
        rest = self.plan.terms % run
        offset = self._table(row, count, self.plan.row_group, 1)
        origin = self._origin(coordinates)

        def copy(item: str, k: list[str], terms: int) -> None:
            source = em.element(origin, self._term(k))
            target = em.element(self.target, item)
            with em.loop(0, count) as number:
                near = em.element(target, em.mul(number, row_stride(self.plan)))
                self._copy(em.element(source, offset(number)), near, terms, 1)

        with self.terms(run) as (item, k):
            copy(item, k, run)
        if rest:
            with self.last_terms(run) as (item, k):
                copy(item, k, rest)

    def tiles(self, coordinates: list[str], row: str, tiles: str, rest: int, last: str) -> None:
        """Pack so many whole tiles of rows from number `row`, then `rest` rows if i1 `last`."""
        em, height, size = self.em, self.plan.tile.rows, tile_size(self.plan)
        origin = self._origin(coordinates)
        with self.terms(1) as (item, k):
            source = em.element(em.element(origin, self._term(k)), row)

            def tile(number: str, rows: int) -> None:
                far = em.element(source, em.mul(number, height))
                place = em.add(em.mul(number, size), em.mul(item, rows))
                self._copy(far, em.element(self.target, place), rows, 1)

            with em.loop(0, tiles) as number:
                tile(number, height)
            if rest:
                with em.when(last):
                    tile(tiles, rest)
