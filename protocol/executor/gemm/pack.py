# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies blocks of the factors into scratch memory, in the order in which they are multiplied.

Whatever a factor is (a transposed matrix, a padded window of an image, an expression) becomes
plain here. The right factor is packed in panels as wide as a tile, term by term; lanes that are
no column hold anything. The left one is packed row by row, or in tiles, term by term.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from protocol.executor.evaluation import Evaluation
from protocol.executor.gemm.factor import Factor
from protocol.executor.gemm.plan import Plan
from protocol.executor.kernel import Context, counted
from protocol.executor.primitives import Value, widened

SQUARE: Final = 8
"""Side of the largest square that is transposed in registers."""
SKEW: Final = 16
"""Elements between packed rows, so that they do not all fall into the same sets of a cache."""


class Packer:
    """Emits the copying of one kernel's factors; terms `start` .. `stop`-1 at a time."""

    def __init__(self, context: Context, plan: Plan, start: str, stop: str) -> None:
        self.context = context
        self.em = context.em
        self.plan = plan
        self.start = start
        self.stop = stop

    def at(self, factor: Factor, coordinates: list[str], index: str) -> list[str]:
        """Return the coordinates with those of row or column `index` of a factor."""
        sizes = tuple(self.context.extents[axis] for axis in factor.axes)
        result = list(coordinates)
        for axis, place in zip(factor.axes, self.em.unravel(index, sizes), strict=True):
            result[axis] = place
        return result

    def _value(
        self, factor: Factor, coordinates: list[str], axis: int, width: int, active: int = -1
    ) -> Value:
        context, body = self.context, self.context.node.body
        lanes = axis if width > 1 else -1
        at = Evaluation(self.em, context.body, body, coordinates, lanes, width, active)
        return widened(self.em, at.value(factor.register, "f"), width)

    def _store(self, value: Value, base: str, index: str) -> None:
        self.em.store(value.type, value.name, self.em.element(base, index))

    def _offset(self, item: str) -> str:
        """Return the place of a term among those packed."""
        return self.em.op(f"sub i64 {item}, {self.start}")

    @contextmanager
    def _terms(self, width: int) -> Iterator[tuple[str, list[str]]]:
        """Emit a loop over runs of `width` terms; yields place and coordinates of the first."""
        em = self.em
        start = em.op(f"udiv i64 {self.start}, {width}") if width > 1 else self.start
        stop = em.op(f"udiv i64 {self.stop}, {width}") if width > 1 else self.stop
        with counted(em, start, stop, self.context.reduce, width) as (item, k):
            yield self._offset(em.mul(item, width)), k

    @contextmanager
    def _last_terms(self, width: int) -> Iterator[tuple[str, list[str]]]:
        """Emit what follows only after the loop above has left a rest; yields as above."""
        em, terms = self.em, self.plan.terms
        with em.when(em.op(f"icmp eq i64 {self.stop}, {terms}")):
            first = str(terms - terms % width)
            yield self._offset(first), [first]

    # The right factor ----------------------------------------------------------------------------

    def right(self, base: str, coordinates: list[str], column: str, lanes: int) -> None:
        """Pack a panel of `lanes` columns, the first being number `column`."""
        if self.plan.pack_right == "terms":
            self._transposed(base, coordinates, column, lanes)
        else:
            self._columns(base, coordinates, column, lanes)

    def _columns(self, base: str, coordinates: list[str], column: str, lanes: int) -> None:
        em, factor, tile = self.em, self.plan.right, self.plan.tile
        width = factor.beside if factor.beside > 1 else 1
        whole, rest = divmod(lanes, width)
        if whole <= 2:
            pieces = [(i * width, -1) for i in range(whole)] + [(whole * width, rest)] * (rest > 0)
            places = [self.at(factor, coordinates, em.add(column, first)) for first, _ in pieces]
            with self._terms(1) as (item, k):
                row = em.element(base, em.mul(item, tile.columns))
                for (first, active), place in zip(pieces, places, strict=True):
                    value = self._value(factor, place + k, factor.axes[-1], width, active)
                    self._store(value, row, str(first))
            return
        with em.loop(0, whole) as piece:
            self._piece(base, coordinates, column, em.mul(piece, width), width, -1)
        if rest:
            self._piece(base, coordinates, column, str(whole * width), width, rest)

    def _piece(
        self, base: str, coordinates: list[str], column: str, first: str, width: int, active: int
    ) -> None:
        em, factor = self.em, self.plan.right
        place = self.at(factor, coordinates, em.add(column, first))
        start = em.element(base, first)
        with self._terms(1) as (item, k):
            value = self._value(factor, place + k, factor.axes[-1], width, active)
            self._store(value, start, em.mul(item, self.plan.tile.columns))

    def _transposed(self, base: str, coordinates: list[str], column: str, lanes: int) -> None:
        """Read vectors of terms, one for each column of a square; lanes beyond repeat the last."""
        em, factor, tile = self.em, self.plan.right, self.plan.tile
        width = min(SQUARE, factor.along)
        last = self.context.rank + len(self.context.reduce) - 1
        rest = self.plan.terms % width

        def square(
            places: list[list[str]], item: str, k: list[str], start: str, count: int
        ) -> None:
            active = count if count < width else -1
            rows = [self._value(factor, place + k, last, width, active) for place in places]
            for number, value in enumerate(self._transpose(rows)[:count]):
                self._store(value, start, em.mul(em.add(item, number), tile.columns))

        with em.loop(0, -(-lanes // width)) as piece:
            first = em.mul(piece, width)
            columns = [em.add(em.add(column, first), i) for i in range(width)]
            if lanes % width:
                columns = [em.least(c, self.plan.columns - 1) for c in columns]
            places = [self.at(factor, coordinates, c) for c in columns]
            start = em.element(base, first)
            with self._terms(width) as (item, k):
                square(places, item, k, start, width)
            if rest:
                with self._last_terms(width) as (item, k):
                    square(places, item, k, start, rest)

    def _shuffle(self, a: Value, b: Value, picks: list[int]) -> Value:
        text = ", ".join(f"i32 {pick}" for pick in picks)
        name = self.em.op(
            f"shufflevector {a.type} {a.name}, {b.type} {b.name}, <{len(picks)} x i32> <{text}>"
        )
        return Value(name, "f", len(picks))

    def _transpose(self, rows: list[Value]) -> list[Value]:
        """Transpose a square of side 4 or 8: within quarters of 4 first, then the halves."""
        side = len(rows)
        lanes = range(0, side, 4)

        def zipped(a: Value, b: Value, picks: tuple[int, ...]) -> Value:
            both = [p if p < 4 else p - 4 + side for p in picks]
            return self._shuffle(a, b, [lane + p for lane in lanes for p in both])

        low, high = (0, 4, 1, 5), (2, 6, 3, 7)
        first, second = (0, 1, 4, 5), (2, 3, 6, 7)
        quarters: list[list[Value]] = []
        for start in lanes:
            a, b, c, d = rows[start : start + 4]
            pairs = [zipped(a, b, low), zipped(c, d, low), zipped(a, b, high), zipped(c, d, high)]
            quarters.append(
                [
                    zipped(pairs[0], pairs[1], first),
                    zipped(pairs[0], pairs[1], second),
                    zipped(pairs[2], pairs[3], first),
                    zipped(pairs[2], pairs[3], second),
                ]
            )
        if side == 4:
            return quarters[0]
        halves = [list(range(start, start + 4)) for start in range(0, 16, 4)]
        above = [self._shuffle(a, b, halves[0] + halves[2]) for a, b in zip(*quarters, strict=True)]
        below = [self._shuffle(a, b, halves[1] + halves[3]) for a, b in zip(*quarters, strict=True)]
        return above + below

    # The left factor -----------------------------------------------------------------------------

    @property
    def row_stride(self) -> int:
        """Elements from one packed row to the next."""
        return -(-self.plan.chunk // SQUARE) * SQUARE + SKEW

    def left_rows(self, base: str, coordinates: list[str], row: str, count: str) -> None:
        """Pack `count` rows from number `row`, terms side by side."""
        em, factor = self.em, self.plan.left
        width = factor.along if factor.along >= 4 else 1
        last = self.context.rank + len(self.context.reduce) - 1
        rest = self.plan.terms % width
        with em.loop(0, count) as number:
            place = self.at(factor, coordinates, em.add(row, number))
            start = em.element(base, em.mul(number, self.row_stride))
            with self._terms(width) as (item, k):
                self._store(self._value(factor, place + k, last, width), start, item)
            if rest:
                with self._last_terms(width) as (item, k):
                    self._store(self._value(factor, place + k, last, width, rest), start, item)

    def left_tile(self, base: str, coordinates: list[str], row: str, rows: int) -> None:
        """Pack a tile of `rows` rows, the first being number `row`, term by term."""
        factor = self.plan.left
        place = self.at(factor, coordinates, row)
        with self._terms(1) as (item, k):
            value = self._value(factor, place + k, factor.axes[-1], rows)
            self._store(value, base, self.em.mul(item, rows))
