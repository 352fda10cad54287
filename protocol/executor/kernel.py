# SPDX-License-Identifier: GPL-3.0-or-later
"""What all kernel generators share: the calling convention, windows, and the order of a fold.

A kernel is `void (ptr out, ptr s0 .. sn, ptr scratch, i64 begin, i64 end)`. It computes its *units*
begin .. end-1, which write different elements or the same ones with the same bits, so that threads
may share them out. `width` lanes along an axis of n elements are laid in windows
`min(i * width, n - width)`: the last overlaps its neighbour instead of being cut, which is harmless
because an element depends on nothing that the kernel writes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from protocol import fold as folds
from protocol.executor.access import Body
from protocol.executor.emitter import Emitter, Variable, vector
from protocol.executor.primitives import ELEMENT, Value, combine, identity, widened
from protocol.executor.target import Target
from protocol.program import Fold, Node


@dataclass(frozen=True)
class Context:
    """One kernel being generated."""

    em: Emitter
    node: Node
    body: Body
    target: Target

    @property
    def extents(self) -> tuple[int, ...]:
        """Merged output axes, then merged reduce axes."""
        return self.body.extents

    @property
    def rank(self) -> int:
        """Number of merged output axes."""
        return self.body.rank

    @property
    def reduce(self) -> tuple[int, ...]:
        """Extents of the merged reduce axes."""
        return self.body.extents[self.body.rank :]


@dataclass(frozen=True)
class Shape:
    """How a kernel is called: its number of units, and the bytes of scratch memory it wants."""

    units: int
    scratch: int = 0


Leaf = Callable[[str, str, list[Variable]], None]
"""`leaf(start, stop, accumulators)` emits the steps of items start .. stop-1 of level 0."""


def power_below(limit: int) -> int:
    """Return the largest power of two that is at most `limit`, which is at least 1."""
    return 1 << limit.bit_length() - 1


def windows(extent: int, width: int) -> int:
    """Return how many windows of `width` cover an axis."""
    return -(-extent // width)


def window(em: Emitter, index: str, extent: int, width: int) -> str:
    """Return the first coordinate of a window."""
    start = em.mul(index, width)
    return start if extent % width == 0 else em.least(start, extent - width)


def out_index(context: Context, coordinates: Sequence[str]) -> str:
    """Return the flat index of the output element at merged output coordinates."""
    em, result = context.em, str(context.body.out.offset)
    for axis, coef in context.body.out.axes:
        result = em.add(result, em.mul(coordinates[axis], coef))
    return result


def store(
    context: Context, value: Value, coordinates: Sequence[str], axis: int, width: int
) -> None:
    """Store `width` results that lie along an output axis (-1: a single one)."""
    em = context.em
    value = widened(em, value, width)
    place = em.element("%out", out_index(context, coordinates))
    stride = context.body.out.coef(axis)
    if width == 1 or stride == 1:
        em.store(value.type, value.name, place)
        return
    for lane in range(width):
        one = em.op(f"extractelement {value.type} {value.name}, i64 {lane}")
        em.store(ELEMENT[value.letter], one, em.element(place, str(lane * stride)))


# Folds -------------------------------------------------------------------------------------------


def order_free(fold: Fold) -> bool:
    """Whether the order of the terms cannot change a bit: maxima and wrapping integer sums."""
    return fold in (Fold.MAX, Fold.ISUM, Fold.IMAX)


def levels(fold: Fold, items: int) -> tuple[int, ...]:
    """Return the number of items of each level of a fold."""
    return (items,) if order_free(fold) else folds.levels(items)


def accumulator(em: Emitter, fold: Fold, width: int) -> Variable:
    """Return a new accumulator that holds the identity."""
    start = widened(em, identity(fold), width)
    return em.variable(start.type, start.name)


def current(fold: Fold, variable: Variable, width: int) -> Value:
    """Return what an accumulator holds."""
    return Value(variable.get(), identity(fold).letter, width)


def emit_chain(
    em: Emitter, fold: Fold, counts: tuple[int, ...], widths: Sequence[int], leaf: Leaf,
    level: int | None = None, block: str = "0",
) -> list[Value]:  # fmt: skip
    """Emit chain (level, block), by default the top one, for one accumulator per width.

    This is the blocked order of the specification: each item above level 0 is a chain below.
    """
    top = len(counts) - 1
    level = top if level is None else level
    variables = [accumulator(em, fold, width) for width in widths]
    if level == top:
        start, stop = "0", str(counts[level])
    else:
        start = em.mul(block, folds.BLOCK)
        stop = em.least(em.add(start, folds.BLOCK), counts[level])
    if level == 0:
        leaf(start, stop, variables)
    else:
        with em.loop(start, stop) as item:
            below = emit_chain(em, fold, counts, widths, leaf, level - 1, item)
            for variable, value in zip(variables, below, strict=True):
                variable.set(combine(em, fold, current(fold, variable, value.width), value).name)
    return [current(fold, v, width) for v, width in zip(variables, widths, strict=True)]


@contextmanager
def counted(
    em: Emitter, start: str, stop: str, sizes: tuple[int, ...], step: int = 1
) -> Iterator[tuple[str, list[str]]]:
    """Emit a loop over items; yields (item, coordinates of k = step * item in `sizes`).

    Where step > 1 the last size is a multiple of it. The coordinates advance by carrying, so no
    division is left in the loop.
    """
    if len(sizes) <= 1:
        with em.loop(start, stop) as item:
            yield item, [em.mul(item, step)][: len(sizes)]
        return
    variables = [em.variable("i64", x) for x in em.unravel(em.mul(start, step), sizes)]
    with em.loop(start, stop) as item:
        coordinates = [variable.get() for variable in variables]
        yield item, coordinates
        carry = ""
        for place in reversed(range(len(sizes))):
            if place == len(sizes) - 1:
                after = em.op(f"add i64 {coordinates[place]}, {step}")
            else:
                one = em.op(f"zext i1 {carry} to i64")
                after = em.op(f"add i64 {coordinates[place]}, {one}")
            if place:
                carry = em.op(f"icmp eq i64 {after}, {sizes[place]}")
                after = em.op(f"select i1 {carry}, i64 0, i64 {after}")
            variables[place].set(after)


def fold_type(fold: Fold, width: int) -> str:
    """Return the LLVM type of an accumulator."""
    return vector(ELEMENT[identity(fold).letter], width)


def result_letter(fold: Fold) -> str:
    """Return the register kind of a fold's terms."""
    return identity(fold).letter


def product(extents: Sequence[int]) -> int:
    """Return the number of points of a box."""
    return math.prod(extents)
