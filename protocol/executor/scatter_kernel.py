# SPDX-License-Identifier: GPL-3.0-or-later
"""FOLD that is a scatter: `WHERE(IEQ(index(k), IOTA e_axis), value(e, k), +0)` and its IMAX twin.

Only the matching terms are visited. For SUM the order is that of the specification: an element's
terms of one block of 256 positions are a chain of their own, its blocks are added in order, and so
on upwards; terms that are +0, and chains of them, change no bit (see `lane_kernel`). Each row that
occurs in a block gets a slot; a stamp per row tells whether its slot belongs to the present block.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from protocol.executor.emitter import Variable
from protocol.executor.evaluation import Evaluation, dependencies
from protocol.executor.kernel import (
    Context,
    Shape,
    counted,
    fold_type,
    levels,
    out_index,
    power_below,
    product,
    result_letter,
)
from protocol.executor.primitives import Value, bits_of, combine, constant, widened
from protocol.float32 import signed
from protocol.fold import BLOCK
from protocol.ops import Op
from protocol.program import Fold, Instruction

MAX_SCRATCH = 1 << 30
"""Bytes that a scatter may use; a larger one runs as an ordinary fold."""


@dataclass(frozen=True)
class Scatter:
    """The registers and the output axis of a scatter."""

    axis: int
    index: int
    value: int
    default: int
    """Pattern of a term that does not match."""


def find_scatter(context: Context) -> Scatter | None:
    """Return the scatter that a FOLD is, or None."""
    node, expression = context.node, context.node.body
    select = {Fold.SUM: Op.WHERE, Fold.ISUM: Op.IWHERE, Fold.IMAX: Op.IWHERE}.get(node.fold)
    chosen = _instruction(context, expression.results[0])
    if node.lanes != 1 or chosen is None or chosen.op is not select:
        return None
    condition = _instruction(context, chosen.args[0])
    place = chosen.args[2] - len(expression.operands)
    if condition is None or condition.op is not Op.IEQ or chosen.args[2] >= expression.first_result:
        return None
    if place < 0:
        return None
    default = expression.immediates[place]
    if node.fold is Fold.IMAX:
        if not _at_least(context, chosen.args[1], signed(default)):
            return None
    elif default != 0 or len(levels(node.fold, node.terms)) > 3:
        return None
    for index, iota in (condition.args, condition.args[::-1]):
        axis = _own_coordinate(context, iota)
        if axis is not None and _depends_on_k_only(context, index):
            found = Scatter(axis, index, chosen.args[1], default)
            return found if _scratch(context, found) <= MAX_SCRATCH else None
    return None


def _instruction(context: Context, register: int) -> Instruction | None:
    place = register - context.node.body.first_result
    return context.node.body.instructions[place] if place >= 0 else None


def _at_least(context: Context, register: int, low: int) -> bool:
    """Whether an operand is never below `low`, so that an unmatched term cannot matter."""
    ranges = context.body.ranges
    return register < len(ranges) and ranges[register][0] >= low


def _own_coordinate(context: Context, register: int) -> int | None:
    """Return the output axis whose coordinate an IOTA operand is."""
    accesses = context.body.accesses
    if register >= len(accesses) or accesses[register].source >= 0:
        return None
    address = accesses[register].address
    plain = not accesses[register].outside and address.offset == 0 and not address.values
    if not plain or len(address.axes) != 1 or address.axes[0][1] != 1:
        return None
    axis = address.axes[0][0]
    return axis if axis < context.rank else None


def _depends_on_k_only(context: Context, register: int) -> bool:
    axes = dependencies(context.body, context.node.body)[register]
    return all(axis >= context.rank for axis in axes)


def _rest(context: Context, scatter: Scatter) -> list[int]:
    return [axis for axis in range(context.rank) if axis != scatter.axis]


def _scratch(context: Context, scatter: Scatter) -> int:
    """Return the bytes for slots, their rows, the stamps and, above 65,536 terms, group sums."""
    rows = context.extents[scatter.axis]
    rest = product([context.extents[axis] for axis in _rest(context, scatter)])
    if context.node.fold is not Fold.SUM:
        return 0
    groups = rows * rest if len(levels(Fold.SUM, context.node.terms)) > 2 else 0
    return 4 * (BLOCK * rest + BLOCK + rows + groups)


@dataclass(frozen=True)
class Place:
    """Where a vector of one row lies: the output, or line `line` of a scratch array of rows."""

    row: str
    rest: list[str]
    """Coordinates of the remaining output axes."""
    flat: str
    """Their flat index within a row."""
    width: int


Array = tuple[str, str]
"""(pointer, line) of an array of rows in scratch memory."""


class ScatterKernel:
    """Generator of one such kernel. It has a single unit."""

    def __init__(self, context: Context, scatter: Scatter) -> None:
        self.context = context
        self.scatter = scatter
        self.em = context.em
        self.fold = context.node.fold
        self.letter = result_letter(self.fold)
        self.rest = _rest(context, scatter)
        self.sizes = tuple(context.extents[axis] for axis in self.rest)
        self.row_size = product(self.sizes)
        self.rows = context.extents[scatter.axis]
        self.terms = context.node.terms
        self.levels = len(levels(self.fold, self.terms))
        self.slots = "%scratch"
        self.row_of = self.stamps = self.group = ""

    def emit(self) -> Shape:
        """Emit the body."""
        em = self.em
        default = constant(self.scatter.default, self.letter)
        with em.loop("%begin", "%end"):
            with em.loop(0, self.rows) as row:
                self._each(row, lambda place: self._write(place, default))
            if self.fold is Fold.SUM:
                self._sums()
            else:
                self._order_free()
        return Shape(1, _scratch(self.context, self.scatter))

    def _order_free(self) -> None:
        em = self.em
        with counted(em, "0", str(self.terms), self.context.reduce) as (_, k):
            row = self._index(k)

            def update(place: Place) -> None:
                self._accumulate(place, None, self._value(place, k))

            with em.when(self._hits(row)):
                self._each(row, update)

    def _sums(self) -> None:
        em = self.em
        self.row_of = em.element(self.slots, str(BLOCK * self.row_size))
        self.stamps = em.element(self.row_of, str(BLOCK))
        self.group = em.element(self.stamps, str(self.rows))
        with em.loop(0, self.rows) as row:
            em.store("i32", "-1", em.element(self.stamps, row))
            if self.levels > 2:
                self._clear((self.group, row))
        blocks = -(-self.terms // BLOCK)
        with em.loop(0, blocks) as block:
            used = em.variable("i64", "0")
            self._block(block, used)
            with em.loop(0, used.get()) as slot:
                row = em.op(f"sext i32 {em.load('i32', em.element(self.row_of, slot))} to i64")
                target = (self.group, row) if self.levels > 2 else None
                self._add_line(row, target, (self.slots, slot))
            if self.levels > 2:
                self._flush(block, blocks)
        with em.loop(0, self.rows) as row:
            self._each(row, lambda place: self._write(place, bits_of(em, self._read(place))))

    def _block(self, block: str, used: Variable) -> None:
        """Emit the chains of one block of positions, each in the slot of its row."""
        em = self.em
        start = em.mul(block, BLOCK)
        stop = em.least(em.add(start, BLOCK), self.terms)
        with counted(em, start, stop, self.context.reduce) as (_, k):
            row = self._index(k)
            with em.when(self._hits(row)):
                slot = self._slot(block, row, used)

                def update(place: Place) -> None:
                    self._accumulate(place, (self.slots, slot), self._value(place, k))

                self._each(row, update)

    def _slot(self, block: str, row: str, used: Variable) -> str:
        """Return the slot of a row in this block, a fresh one filled with +0 if it has none."""
        em = self.em
        stamp_place = em.element(self.stamps, row)
        stamp = em.op(f"sext i32 {em.load('i32', stamp_place)} to i64")
        slot = em.variable("i64", em.op(f"and i64 {stamp}, {BLOCK - 1}"))
        stamped = em.op(f"ashr i64 {stamp}, 8")
        with em.when(em.op(f"icmp ne i64 {stamped}, {block}")):
            fresh = used.get()
            slot.set(fresh)
            used.set(em.op(f"add i64 {fresh}, 1"))
            em.store("i32", em.op(f"trunc i64 {row} to i32"), em.element(self.row_of, fresh))
            new = em.op(f"or i64 {em.op(f'shl i64 {block}, 8')}, {fresh}")
            em.store("i32", em.op(f"trunc i64 {new} to i32"), stamp_place)
            self._clear((self.slots, fresh))
        return slot.get()

    def _flush(self, block: str, blocks: int) -> None:
        """After 256 blocks, and after the last, add the group's sums to the result."""
        em = self.em
        full = em.op(f"icmp eq i64 {em.op(f'and i64 {block}, {BLOCK - 1}')}, {BLOCK - 1}")
        last = em.op(f"icmp eq i64 {block}, {blocks - 1}")
        with em.when(em.op(f"or i1 {full}, {last}")), em.loop(0, self.rows) as row:
            self._add_line(row, None, (self.group, row))
            self._clear((self.group, row))

    # Rows ----------------------------------------------------------------------------------------

    def _each(self, row: str, body: Callable[[Place], None]) -> None:
        """Emit `body` for every place of a row: vectors, then what is left one by one.

        Unlike in other kernels no place may come twice, since sums are updated where they stand.
        """
        em, sizes = self.em, self.sizes
        extent = sizes[-1] if sizes else 1
        width = power_below(min(self.context.target.width, extent))
        whole = extent // width * width
        with ExitStack() as nest:
            outer = [nest.enter_context(em.loop(0, size)) for size in sizes[:-1]]
            for start, stop, lanes in ((0, whole, width), (whole, extent, 1)):
                if start == stop:
                    continue
                with em.loop(start, stop, lanes) as place:
                    rest = [*outer, place] if sizes else []
                    flat = "0"
                    for size, coordinate in zip(sizes, rest, strict=True):
                        flat = em.add(em.mul(flat, size), coordinate)
                    body(Place(row, rest, flat, lanes))

    def _address(self, place: Place, array: Array | None) -> str:
        em = self.em
        if array is None:
            return em.element("%out", out_index(self.context, self._coordinates(place)))
        pointer, line = array
        return em.element(pointer, em.add(em.mul(line, self.row_size), place.flat))

    def _read(self, place: Place, array: Array | None = None) -> Value:
        kind = fold_type(self.fold, place.width)
        name = self.em.load(kind, self._address(place, array))
        return Value(name, self.letter, place.width)

    def _write(self, place: Place, value: Value, array: Array | None = None) -> None:
        wide = widened(self.em, value, place.width)
        self.em.store(wide.type, wide.name, self._address(place, array))

    def _accumulate(self, place: Place, array: Array | None, value: Value) -> None:
        acc = self._read(place, array)
        self._write(place, combine(self.em, self.fold, acc, value), array)

    def _add_line(self, row: str, target: Array | None, line: Array) -> None:
        self._each(row, lambda place: self._accumulate(place, target, self._read(place, line)))

    def _clear(self, array: Array) -> None:
        zero = constant(0, self.letter)
        self._each("0", lambda place: self._write(place, zero, array))

    # Terms ---------------------------------------------------------------------------------------

    def _coordinates(self, place: Place) -> list[str]:
        coordinates = ["0"] * self.context.rank
        coordinates[self.scatter.axis] = place.row
        for axis, coordinate in zip(self.rest, place.rest, strict=True):
            coordinates[axis] = coordinate
        return coordinates

    def _evaluation(self, place: Place, k: list[str]) -> Evaluation:
        context, axis = self.context, self.rest[-1] if place.width > 1 else -1
        coordinates = self._coordinates(place) + k
        return Evaluation(self.em, context.body, context.node.body, coordinates, axis, place.width)

    def _value(self, place: Place, k: list[str]) -> Value:
        return self._evaluation(place, k).value(self.scatter.value, self.letter)

    def _index(self, k: list[str]) -> str:
        """Return the row (i64, perhaps out of range) that term `k` goes to."""
        origin = Place("0", ["0"] * len(self.rest), "0", 1)
        value = self._evaluation(origin, k).value(self.scatter.index, "i")
        return self.em.op(f"sext i32 {value.name} to i64")

    def _hits(self, row: str) -> str:
        return self.em.op(f"icmp ult i64 {row}, {self.rows}")


def emit_scatter(context: Context, scatter: Scatter) -> Shape:
    """Emit the body of a FOLD kernel that visits only the matching terms."""
    return ScatterKernel(context, scatter).emit()
