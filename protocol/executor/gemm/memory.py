# SPDX-License-Identifier: GPL-3.0-or-later
"""Scratch memory of a product: packed factors, boxes, gathered results, and what they hold now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from protocol.executor.emitter import Variable
from protocol.executor.gemm.box import Box, Filler
from protocol.executor.gemm.copy import Copier
from protocol.executor.gemm.factor import Factor
from protocol.executor.gemm.pack import Packer, panel_size, row_stride, tile_size
from protocol.executor.gemm.plan import Plan
from protocol.executor.gemm.result import Gathered
from protocol.executor.kernel import Context, product, windows

ALIGNMENT: Final = 16
"""Elements to which every part is rounded up."""


class Memory:
    """The parts, in elements from the start of scratch memory, and what fills them."""

    def __init__(self, context: Context, plan: Plan) -> None:
        self.context = context
        self.em = context.em
        self.plan = plan
        self.size = 0
        panels = windows(plan.column_group, plan.tile.columns)
        right = panels * panel_size(plan) if plan.pack_right != "no" else 0
        tiles = windows(plan.row_group, plan.tile.rows)
        left = {
            "no": 0,
            "rows": plan.row_group * row_stride(plan),
            "tiles": tiles * tile_size(plan),
        }
        self._right = self._part(right)
        self._left = self._part(left[plan.pack_left])
        self._boxes = {
            factor.register: self._part(factor.box.slice * self._held(factor, factor.box))
            for factor in (plan.left, plan.right)
            if factor.box is not None
        }
        self._gathered = self._part(Gathered.size(plan))
        self._held_now: dict[tuple[int, bool], Variable] = {}

    def _part(self, size: int) -> int:
        start = self.size
        self.size += windows(size, ALIGNMENT) * ALIGNMENT
        return start

    def begin(self) -> None:
        """Emit, before the first unit, that nothing is held."""
        em = self.em
        for factor in (self.plan.left, self.plan.right):
            for box in (False, True):
                self._held_now[factor.register, box] = em.variable("i64", "-1")
        self.right = em.element("%scratch", str(self._right))
        self.left = em.element("%scratch", str(self._left))
        self.gathered = em.element("%scratch", str(self._gathered))

    @contextmanager
    def unless_there(
        self, factor: Factor, axes: Sequence[int], coordinates: list[str], key: str,
        box: bool = False,
    ) -> Iterator[None]:  # fmt: skip
        """Emit the body so that it runs unless `key` at these coordinates was the last held."""
        em, held = self.em, self._held_now[factor.register, box]
        for axis in axes:
            key = em.mul(key, self.context.extents[axis])
            key = em.add(key, coordinates[axis])
        with em.when(em.op(f"icmp ne i64 {key}, {held.get()}")):
            held.set(key)
            yield

    def packer(self, factor: Factor, source: str, start: str, stop: str) -> Packer:
        """Return what packs terms `start` .. `stop`-1 of a factor that is read from `source`."""
        target = self.left if factor is self.plan.left else self.right
        if factor.plain:
            return Copier(self.context, self.plan, factor, target, start, stop, source)
        return Packer(self.context, self.plan, factor, target, start, stop)

    # Boxes ---------------------------------------------------------------------------------------

    def _followed(self, factor: Factor, axis: int) -> tuple[str, int, int] | None:
        """Return what an axis of a box follows, places of that a step, and most of them.

        It follows the factor's own rows or columns, or the terms, if it is the outermost axis of
        these; else it is held whole.
        """
        extents, plan = self.context.extents, self.plan
        group = plan.row_group if factor is plan.left else plan.column_group
        reduce = range(self.context.rank, len(extents))
        if axis == factor.axes[0]:
            return "own", product([extents[a] for a in factor.axes[1:]]), group
        if reduce and axis == reduce[0]:
            return "terms", product([extents[a] for a in reduce[1:]]), plan.chunk
        return None

    def _held(self, factor: Factor, box: Box) -> int:
        """Return how many places of its outermost axis a box has room for."""
        whole = self.context.extents[box.axes[0]]
        followed = self._followed(factor, box.axes[0])
        if followed is None:
            return whole
        _, inner, most = followed
        aligned = most % inner == 0 or inner % most == 0
        return min(whole, windows(most, inner) + (not aligned))

    def source(
        self, factor: Factor, coordinates: list[str], own: tuple[str, str], terms: tuple[str, str]
    ) -> str:
        """Return where address 0 of a plain factor is, after filling its box if need be.

        `own` are the first row or column and their count, `terms` the first term and the last.
        """
        em, box = self.em, factor.box
        if box is None:
            return f"%s{factor.source}"
        key, ranges = "0", []
        for axis in box.axes:
            extent = self.context.extents[axis]
            followed = self._followed(factor, axis)
            if followed is None:
                ranges.append(("0", str(extent)))
                continue
            kind, inner, _ = followed
            start, stop = (own[0], em.add(*own)) if kind == "own" else terms
            first = em.op(f"udiv i64 {start}, {inner}")
            last = em.op(f"udiv i64 {em.op(f'sub i64 {stop}, 1')}, {inner}")
            ranges.append((first, em.add(last, 1)))
            for part in (first, last):
                key = em.add(em.mul(key, extent), part)
        target = em.element("%scratch", str(self._boxes[factor.register]))
        fixed = [a for a, _ in box.rest.axes if a not in box.axes]
        with self.unless_there(factor, fixed, coordinates, key, box=True):
            filler = Filler(em, box, f"%s{factor.source}", target)
            filler.emit([(axis, coordinates[axis]) for axis in fixed], ranges)
        return em.element(target, em.op(f"sub i64 0, {em.mul(ranges[0][0], box.slice)}"))
