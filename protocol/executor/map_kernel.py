# SPDX-License-Identifier: GPL-3.0-or-later
"""MAP: a loop nest over the merged output axes for each of its boxes, vectors along the innermost.

An operand that lies side by side along another axis instead (a transposed matrix) is read in square
tiles: vectors along its own axis, turned in registers and laid out in a small buffer line by line.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from protocol.executor.access import Body
from protocol.executor.emitter import vector
from protocol.executor.evaluation import Evaluation
from protocol.executor.kernel import Context, Shape, power_below, store, window, windows
from protocol.executor.primitives import ELEMENT, Value, bits_of
from protocol.executor.regions import Region, regions, used_registers
from protocol.executor.target import Target
from protocol.program import Expression

SMALLEST_TILE = 4


@dataclass(frozen=True)
class Turn:
    """Operands to read in tiles, and the axis along which their elements lie side by side."""

    axis: int
    operands: tuple[int, ...]
    width: int


def find_turn(region: Region, width: int) -> Turn | None:
    """Return the axis along which the most operands are turned, if any is."""
    body, last = region.body, len(region.body.extents) - 1
    used = used_registers(region.expression, body.accesses)
    found: dict[int, list[int]] = {}
    for number, access in enumerate(body.accesses):
        plain = not (access.tests or access.quotients or access.address.values or access.outside)
        if number in used and access.source >= 0 and plain and access.address.coef(last) > 1:
            for axis, coef in access.address.axes:
                if coef == 1:
                    found.setdefault(axis, []).append(number)
    if not found:
        return None
    axis = max(found, key=lambda one: len(found[one]))
    width = power_below(min(width, body.extents[axis], body.extents[last]))
    return Turn(axis, tuple(found[axis]), width) if width >= SMALLEST_TILE else None


def overwritable(body: Body, expression: Expression, target: Target) -> frozenset[int]:
    """Return the parameters whose memory a MAP kernel may overwrite with its result.

    Every element is read where the result goes, and only before it is written: no window overlaps
    its neighbour, and nothing else of that source is read.
    """
    elsewhere = {
        access.source
        for access in body.accesses
        if access.address != body.out or access.tests or access.quotients or access.outside
    }
    nodes = [source.node for source in body.sources]
    own = frozenset(
        parameter
        for parameter, source in enumerate(body.sources)
        if parameter not in elsewhere and source.offset == 0 and nodes.count(source.node) == 1
    )
    if own and all(_Steps(box, target).exact for box in regions(body, expression, target.width)):
        return own
    return frozenset()


def emit_map(context: Context) -> Shape:
    """Emit the body of a MAP kernel. Units are positions of the outermost loop of each box."""
    em, units = context.em, 0
    boxes = regions(context.body, context.node.body, context.target.width)
    for box in boxes:
        generator = _Box(context, box)
        count = generator.steps.units
        begin, end = "%begin", "%end"
        if len(boxes) > 1:
            begin, end = (
                em.least(em.most(em.add(limit, -units), 0), count) for limit in (begin, end)
            )
        generator.emit(begin, end)
        units += count
    return Shape(units)


class _Steps:
    """How far the loop over each axis of a box advances."""

    def __init__(self, region: Region, target: Target) -> None:
        self.extents = region.body.extents
        self.last = len(self.extents) - 1
        self.turn = find_turn(region, target.width)
        widest = self.turn.width if self.turn else target.width
        self.width = power_below(min(widest, self.extents[self.last])) if self.extents else 1

    def along(self, axis: int) -> int:
        """Return the step along an axis."""
        vectors = axis == self.last or (self.turn is not None and axis == self.turn.axis)
        return self.width if vectors else 1

    @property
    def units(self) -> int:
        """Positions of the outermost loop."""
        return windows(self.extents[0], self.along(0)) if self.extents else 1

    @property
    def exact(self) -> bool:
        """Whether no window overlaps another."""
        return not any(extent % self.along(axis) for axis, extent in enumerate(self.extents))


class _Box:
    """Generator of the loops over one box."""

    def __init__(self, context: Context, region: Region) -> None:
        self.context = replace(context, body=region.body)
        self.em = context.em
        self.region = region
        self.steps = _Steps(region, context.target)
        self.last, self.width = self.steps.last, self.steps.width

    def emit(self, begin: str, end: str) -> None:
        """Emit the loops over units begin .. end-1."""
        em, coordinates = self.em, []
        with ExitStack() as nest:
            for axis, extent in enumerate(self.steps.extents):
                step = self.steps.along(axis)
                limits = (begin, end) if axis == 0 else (0, windows(extent, step))
                index = nest.enter_context(em.loop(*limits))
                coordinates.append(window(em, index, extent, step))
            if not self.steps.extents:
                nest.enter_context(em.loop(begin, end))
            if self.steps.turn is None:
                self._elements(coordinates, {})
            else:
                self._tile(self.steps.turn, coordinates)

    def _at(self, coordinates: list[str], axis: int, known: dict[int, Value]) -> Evaluation:
        body, expression = self.region.body, self.region.expression
        along = axis if self.width > 1 else -1
        return Evaluation(
            self.em, body, expression, coordinates, along, self.width, known=dict(known)
        )

    def _elements(self, coordinates: list[str], known: dict[int, Value]) -> None:
        """Emit a vector of results."""
        letter = "i" if self.context.node.dtype else "f"
        at = self._at(coordinates, self.last, known)
        value = at.value(self.region.expression.results[0], letter)
        store(self.context, bits_of(self.em, value), coordinates, self.last, self.width)

    def _tile(self, turn: Turn, coordinates: list[str]) -> None:
        """Emit a square tile of results, a vector of them for each place of the turned axis."""
        em, width = self.em, turn.width
        buffers = {}
        for operand in turn.operands:
            access = self.region.body.accesses[operand]
            rows = []
            for row in range(width):
                place = list(coordinates)
                place[self.last] = em.add(place[self.last], row)
                rows.append(self._at(place, turn.axis, {}).value(operand, access.letter).name)
            kind = vector(ELEMENT[access.letter], width)
            buffers[operand] = em.alloca(kind, width)
            for number, name in enumerate(_turned(self, kind, rows)):
                em.store(kind, name, em.element(buffers[operand], str(number * width)))
        with em.loop(0, width) as line:
            known = {}
            for operand, buffer in buffers.items():
                access = self.region.body.accesses[operand]
                kind = vector(ELEMENT[access.letter], width)
                name = em.load(kind, em.element(buffer, em.mul(line, width)))
                known[operand] = Value(name, access.letter, width, access.canonical)
            place = list(coordinates)
            place[turn.axis] = em.add(place[turn.axis], line)
            self._elements(place, known)


def _turned(box: _Box, kind: str, rows: list[str]) -> list[str]:
    """Return the columns of a square of as many vectors as lanes: blocks change places, halving."""
    em, width, half = box.em, len(rows), len(rows) // 2
    while half:
        for row in range(width):
            if row & half:
                continue
            upper, lower = rows[row], rows[row + half]
            for place, shift in ((row, 0), (row + half, half)):
                picks = ", ".join(
                    f"i32 {width + lane - half + shift if lane & half else lane + shift}"
                    for lane in range(width)
                )
                rows[place] = em.op(
                    f"shufflevector {kind} {upper}, {kind} {lower}, <{width} x i32> <{picks}>"
                )
        half //= 2
    return rows
