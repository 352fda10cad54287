# SPDX-License-Identifier: GPL-3.0-or-later
"""MAP: one loop nest over the merged output axes, vectors along the innermost."""

from __future__ import annotations

from contextlib import ExitStack

from protocol.executor.access import Body
from protocol.executor.evaluation import Evaluation
from protocol.executor.kernel import Context, Shape, power_below, store, window, windows
from protocol.executor.primitives import bits_of
from protocol.executor.target import Target


def _width(extents: tuple[int, ...], target: Target) -> int:
    """Return how many elements are computed at a time, along the last axis."""
    return power_below(min(target.width, extents[-1])) if extents else 1


def overwritable(body: Body, target: Target) -> frozenset[int]:
    """Return the parameters whose memory a MAP kernel may overwrite with its result.

    Every element is read where the result goes, and only before it is written: no window overlaps
    its neighbour, and nothing else of that source is read.
    """
    if body.extents and body.extents[-1] % _width(body.extents, target):
        return frozenset()
    elsewhere = {
        access.source
        for access in body.accesses
        if access.address != body.out or access.tests or access.quotients or access.outside
    }
    return frozenset(range(len(body.sources))) - elsewhere


def emit_map(context: Context) -> Shape:
    """Emit the body of a MAP kernel. Units are positions of its outermost loop."""
    em, extents = context.em, context.extents
    axis = len(extents) - 1
    width = _width(extents, context.target)
    coordinates: list[str] = []
    units = 1
    with ExitStack() as nest:
        for place, extent in enumerate(extents):
            count = windows(extent, width) if place == axis else extent
            if place == 0:
                units = count
                index = nest.enter_context(em.loop("%begin", "%end"))
            else:
                index = nest.enter_context(em.loop(0, count))
            coordinates.append(window(em, index, extent, width) if place == axis else index)
        if not extents:
            nest.enter_context(em.loop("%begin", "%end"))
        expression = context.node.body
        lanes_axis = axis if width > 1 else -1
        evaluation = Evaluation(em, context.body, expression, coordinates, lanes_axis, width)
        letter = "i" if context.node.dtype else "f"
        value = evaluation.value(expression.results[0], letter)
        store(context, bits_of(em, value), coordinates, axis, width)
    return Shape(units)
