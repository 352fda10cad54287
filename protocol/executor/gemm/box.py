# SPDX-License-Identifier: GPL-3.0-or-later
"""A padded or dilated view as a box in scratch memory that is read without tests.

The box has an axis for each axis along which the view just moves in its source (images, channels),
and one for each tested coordinate (rows and columns of an image), over its whole range: padding and
gaps hold the fill value. Filling it costs little where each of its elements is read many times.
Of its outermost axis only a few places are held at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol.executor.access import Access, Affine
from protocol.executor.emitter import Emitter, vector
from protocol.executor.kernel import power_below, product, windows

VECTOR: Final = 8
"""Elements that are copied at a time."""


@dataclass(frozen=True)
class Box:
    """How a view is laid out; the source parameter is `access.source`."""

    access: Access
    rest: Affine
    """What the address in the source owes to everything but the tested coordinates."""
    axes: tuple[int, ...]
    """Axes stored first, of which `axes[0]` is the one held in part."""
    sizes: tuple[int, ...]
    """Extents of those axes, then of the ranges of the tested coordinates."""
    lows: tuple[int, ...]
    """Smallest value of each tested coordinate."""
    address: Affine
    """Where an element is in the box, over the axes of the kernel."""

    @property
    def slice(self) -> int:
        """Elements at one place of the outermost axis."""
        return product(self.sizes[1:])


def find_box(access: Access, fixed: Sequence[int], extents: Sequence[int], most: int) -> Box | None:
    """Return the box of an access with tests; along the axes `fixed` it stays where it is.

    None if the access is indirect, moves along no axis without a test, or wants a box of more
    than `most` elements in all.
    """
    if any(affine.values for affine in access.affines()):
        return None
    rest = access.address
    for test in access.tests:
        if test.dilation == 1:
            rest = rest.plus(test.affine.scaled(-test.stride))
    if any(axis in fixed for test in access.tests for axis, _ in test.affine.axes):
        return None
    free = sorted((a for a, _ in rest.axes if a not in fixed), key=lambda a: -abs(rest.coef(a)))
    if not free:
        return None
    ranges = [test.affine.range(extents, ()) for test in access.tests]
    sizes = [extents[axis] for axis in free] + [last - first + 1 for first, last in ranges]
    if product(sizes) > most:
        return None
    address, stride = Affine(), 1
    for test, (first, last) in zip(reversed(access.tests), reversed(ranges), strict=True):
        address = address.plus(test.affine.plus(Affine(-first)).scaled(stride))
        stride *= last - first + 1
    for axis in reversed(free):
        address = address.plus(Affine(0, ((axis, stride),)))
        stride *= extents[axis]
    lows = tuple(first for first, _ in ranges)
    return Box(access, rest, tuple(free), tuple(sizes), lows, address)


class Filler:
    """Emits the filling of a box at `target` from a source, as far as it is wanted."""

    def __init__(self, em: Emitter, box: Box, source: str, target: str) -> None:
        self.em = em
        self.box = box
        self.source = source
        self.target = target
        self.ranges: Sequence[tuple[str, str]] = ()
        self.fill = str(box.access.fill - (box.access.fill >> 31 << 32))

    def emit(self, fixed: Sequence[tuple[int, str]], ranges: Sequence[tuple[str, str]]) -> None:
        """Fill places `first` .. `stop`-1 of each of the box's axes.

        The first place of the outermost axis lies at the target, those of other axes as if all
        were there. `fixed` are the coordinates of axes along which the box is elsewhere.
        """
        em, rest = self.em, self.box.rest
        start = str(rest.offset)
        for axis, coordinate in fixed:
            start = em.add(start, em.mul(coordinate, rest.coef(axis)))
        self.ranges = ranges
        begin = em.op(f"sub i64 0, {em.mul(ranges[0][0], self.box.slice)}")
        self._axis(0, start, begin, "true")

    def _axis(self, level: int, source: str, target: str, inside: str) -> None:
        """Loop over axis number `level` and those after it, but copy the last as a row."""
        em, box = self.em, self.box
        if level == len(box.sizes) - 1:
            self._row(source, target, inside)
            return
        stride = product(box.sizes[level + 1 :])
        limits = self.ranges[level] if level < len(box.axes) else ("0", str(box.sizes[level]))
        with em.loop(*limits) as index:
            below = em.add(target, em.mul(index, stride))
            number = level - len(box.axes)
            if number < 0:
                step = em.mul(index, box.rest.coef(box.axes[level]))
                self._axis(level + 1, em.add(source, step), below, inside)
            else:
                test = box.access.tests[number]
                place = em.add(index, box.lows[number])
                above = em.op(f"icmp sge i64 {place}, {test.low}")
                under = em.op(f"icmp slt i64 {place}, {test.high}")
                held = em.op(f"and i1 {above}, {under}")
                if test.dilation > 1:
                    gap = em.op(f"srem i64 {place}, {test.dilation}")
                    held = em.op(f"and i1 {held}, {em.op(f'icmp eq i64 {gap}, 0')}")
                    place = em.op(f"sdiv i64 {place}, {test.dilation}")
                step = em.mul(place, test.stride)
                held = em.op(f"and i1 {held}, {inside}")
                self._axis(level + 1, em.add(source, step), below, held)

    def _row(self, source: str, target: str, inside: str) -> None:
        """Write the last tested coordinate's range: copies where it is inside, fill elsewhere."""
        em, box = self.em, self.box
        test, low, size = box.access.tests[-1], box.lows[-1], box.sizes[-1]
        step = test.dilation
        first = -(-max(test.low, low) // step)
        stop = -(-min(test.high, low + size) // step)
        begin, count = first * step - low, max(0, stop - first)
        far = em.element(self.source, em.add(source, str(first * test.stride)))
        near = em.element(self.target, target)
        if step > 1 or not count:
            self._filled(near, size)
        else:
            self._filled(near, begin)
            after = begin + count
            self._filled(em.element(near, str(after)), size - after)
        near = em.element(near, str(begin))
        outside = em.op(f"xor i1 {inside}, true")
        if step == 1 and count:
            with em.when(outside):
                self._filled(near, count)
        if count:
            with em.when(inside):
                if step == 1 and test.stride == 1:
                    self._copied(far, near, count)
                else:
                    with em.loop(0, count) as index:
                        value = em.load("i32", em.element(far, em.mul(index, test.stride)))
                        em.store("i32", value, em.element(near, em.mul(index, step)))

    def _filled(self, target: str, count: int) -> None:
        """Store the fill value; whole vectors overlap at the end."""
        em = self.em
        if count <= 0:
            return
        width = power_below(min(VECTOR, count))
        value = em.splat("i32", self.fill, width)
        with em.loop(0, windows(count, width)) as index:
            place = em.least(em.mul(index, width), count - width)
            em.store(vector("i32", width), value, em.element(target, place))

    def _copied(self, source: str, target: str, count: int) -> None:
        em = self.em
        width = power_below(min(VECTOR, count))
        kind = vector("i32", width)
        with em.loop(0, windows(count, width)) as index:
            place = em.least(em.mul(index, width), count - width)
            value = em.load(kind, em.element(source, place))
            em.store(kind, value, em.element(target, place))
