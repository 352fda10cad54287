# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies blocks of the factors into scratch memory, in the order in which they are multiplied.

The right factor is packed in panels as wide as a tile, term by term; lanes that are no column hold
anything. The left one is packed row by row, or in tiles, term by term. `Packer` computes each
element where the factor is an expression or indirect; `copy` has the way of those just read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from protocol.executor.evaluation import Evaluation
from protocol.executor.gemm.factor import Factor
from protocol.executor.gemm.plan import Plan
from protocol.executor.gemm.transpose import transpose
from protocol.executor.kernel import Context, counted, windows
from protocol.executor.primitives import Value, widened

SQUARE: Final = 8
"""Side of the largest square that is transposed in registers."""
SKEW: Final = 16
"""Elements between packed parts, so that they do not all fall into the same sets of a cache."""


def row_stride(plan: Plan) -> int:
    """Return the elements from one packed row of the left factor to the next."""
    return windows(plan.chunk, SQUARE) * SQUARE + SKEW


def tile_size(plan: Plan) -> int:
    """Return the elements of a packed tile of the left factor."""
    return plan.chunk * plan.tile.rows + SKEW


def panel_size(plan: Plan) -> int:
    """Return the elements of a packed panel of the right factor."""
    return plan.chunk * plan.tile.columns + SKEW


class Packer:
    """Packs terms `start` .. `stop`-1 of a factor into memory that begins at `target`."""

    def __init__(
        self, context: Context, plan: Plan, factor: Factor, target: str, start: str, stop: str
    ) -> None:
        self.context = context
        self.em = context.em
        self.plan = plan
        self.factor = factor
        self.target = target
        self.start = start
        self.stop = stop
        self.last = context.rank + len(context.reduce) - 1

    @contextmanager
    def terms(self, width: int) -> Iterator[tuple[str, list[str]]]:
        """Emit a loop over runs of `width` terms; yields place and coordinates of the first."""
        em = self.em
        start = em.op(f"udiv i64 {self.start}, {width}") if width > 1 else self.start
        stop = em.op(f"udiv i64 {self.stop}, {width}") if width > 1 else self.stop
        with counted(em, start, stop, self.context.reduce, width) as (item, k):
            yield self._offset(em.mul(item, width)), k

    @contextmanager
    def last_terms(self, width: int) -> Iterator[tuple[str, list[str]]]:
        """Emit what follows only after the loop above has left a rest; yields as above."""
        em, terms = self.em, self.plan.terms
        with em.when(em.op(f"icmp eq i64 {self.stop}, {terms}")):
            first = str(terms - terms % width)
            yield self._offset(first), [first]

    def _offset(self, item: str) -> str:
        """Return the place of a term among those packed."""
        return self.em.op(f"sub i64 {item}, {self.start}")

    def store(self, value: Value, index: str) -> None:
        """Store packed elements."""
        self.em.store(value.type, value.name, self.em.element(self.target, index))

    # Factors that are computed -------------------------------------------------------------------

    def _at(self, coordinates: list[str], index: str) -> list[str]:
        """Return the coordinates with those of the factor's row or column `index`."""
        sizes = tuple(self.context.extents[axis] for axis in self.factor.axes)
        result = list(coordinates)
        for axis, place in zip(self.factor.axes, self.em.unravel(index, sizes), strict=True):
            result[axis] = place
        return result

    def _value(self, coordinates: list[str], axis: int, width: int, active: int = -1) -> Value:
        context, body = self.context, self.context.node.body
        lanes = axis if width > 1 else -1
        at = Evaluation(self.em, context.body, body, coordinates, lanes, width, active)
        return widened(self.em, at.value(self.factor.register, "f"), width)

    def panels(
        self, coordinates: list[str], column: str, panels: str, rest: int, last: str
    ) -> None:
        """Pack so many whole panels from number `column` on, then `rest` columns if i1 `last`."""
        em, columns, size = self.em, self.plan.tile.columns, panel_size(self.plan)
        pack = self._transposed if self.plan.pack_right == "terms" else self._columns
        with em.loop(0, panels) as panel:
            start = em.add(column, em.mul(panel, columns))
            pack(coordinates, start, em.mul(panel, size), columns)
        if rest:
            with em.when(last):
                start = em.add(column, em.mul(panels, columns))
                pack(coordinates, start, em.mul(panels, size), rest)

    def _columns(self, coordinates: list[str], column: str, base: str, lanes: int) -> None:
        em, width = self.em, max(1, self.factor.beside)
        whole, rest = divmod(lanes, width)

        def piece(first: str, active: int) -> None:
            place = self._at(coordinates, em.add(column, first))
            start = em.add(base, first)
            with self.terms(1) as (item, k):
                value = self._value(place + k, self.factor.axes[-1], width, active)
                self.store(value, em.add(start, em.mul(item, self.plan.tile.columns)))

        with em.loop(0, whole) as number:
            piece(em.mul(number, width), -1)
        if rest:
            piece(str(whole * width), rest)

    def _transposed(self, coordinates: list[str], column: str, base: str, lanes: int) -> None:
        """Read vectors of terms, one for each column of a square; lanes beyond repeat the last."""
        em, width = self.em, min(SQUARE, self.factor.along)
        rest = self.plan.terms % width
        with em.loop(0, windows(lanes, width)) as piece:
            first = em.mul(piece, width)
            columns = [em.add(em.add(column, first), i) for i in range(width)]
            if lanes % width:
                columns = [em.least(c, self.plan.columns - 1) for c in columns]
            places = [self._at(coordinates, c) for c in columns]
            start = em.add(base, first)

            def square(item: str, k: list[str], count: int) -> None:
                active = count if count < width else -1
                rows = [self._value(place + k, self.last, width, active) for place in places]
                self.square(rows, start, item, count)

            with self.terms(width) as (item, k):
                square(item, k, width)
            if rest:
                with self.last_terms(width) as (item, k):
                    square(item, k, rest)

    def square(self, rows: list[Value], start: str, item: str, count: int) -> None:
        """Store vectors of terms, one for each column, as `count` vectors of columns."""
        em = self.em
        for number, value in enumerate(transpose(em, rows)[:count]):
            place = em.mul(em.add(item, number), self.plan.tile.columns)
            self.store(value, em.add(start, place))

    def rows(self, coordinates: list[str], row: str, count: str) -> None:
        """Pack `count` rows from number `row`, terms side by side."""
        em = self.em
        width = self.factor.along if self.factor.along >= 4 else 1
        rest = self.plan.terms % width
        with em.loop(0, count) as number:
            place = self._at(coordinates, em.add(row, number))
            start = em.mul(number, row_stride(self.plan))
            with self.terms(width) as (item, k):
                self.store(self._value(place + k, self.last, width), em.add(start, item))
            if rest:
                with self.last_terms(width) as (item, k):
                    value = self._value(place + k, self.last, width, rest)
                    self.store(value, em.add(start, item))
