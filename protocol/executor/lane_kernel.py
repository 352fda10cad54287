# SPDX-License-Identifier: GPL-3.0-or-later
"""FOLD, vectorized over k: sixteen neighbouring terms at a time, for several outputs at once.

This is SUM with 16 lanes, where it is the specified order, and any order-free fold whose terms are
neighbours in memory. Lanes that run out of terms go on with the identity. That changes no bit: an
accumulator that began at +0 and only had numbers added to it is never -0 (a sum that is exactly
zero is +0 when rounding to nearest, and no sum of binary32 numbers underflows), so adding +0 keeps
it, and so does one more block of zeros on a higher level.
"""

from __future__ import annotations

from functools import partial

from protocol.executor.emitter import Variable
from protocol.executor.evaluation import Evaluation
from protocol.executor.kernel import (
    Context,
    Shape,
    counted,
    current,
    emit_chain,
    fold_type,
    levels,
    order_free,
    power_below,
    product,
    result_letter,
    store,
    window,
    windows,
)
from protocol.executor.primitives import (
    ELEMENT,
    Value,
    combine,
    finish,
    identity,
    step,
    widened,
)
from protocol.fold import LANES
from protocol.program import Fold

JAM = 4
"""Outputs computed side by side, to hide the latency of the additions."""


def suits(context: Context) -> bool:
    """Whether an order-free fold should run over k rather than over outputs."""
    if not order_free(context.node.fold) or not context.reduce:
        return False
    if len(context.reduce) > 1 and context.reduce[-1] % LANES:
        return False
    last = len(context.extents) - 1
    column = context.rank - 1
    strides = [
        (access.address.coef(last), access.address.coef(column) if column >= 0 else 0)
        for access in context.body.accesses
        if access.source >= 0
    ]
    along_k = any(abs(k) == 1 for k, _ in strides)
    along_columns = any(abs(c) == 1 for _, c in strides)
    return along_k or (not along_columns and context.reduce[-1] >= LANES)


class LaneKernel:
    """Generator of one such kernel."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.em = context.em
        self.fold = context.node.fold
        self.terms = context.node.terms
        self.column = context.rank - 1
        extent = context.extents[self.column] if context.rank else 1
        self.jam = power_below(min(JAM, extent))
        self.letter = result_letter(self.fold)
        reduce = context.reduce
        self.neighbours = bool(reduce) and (len(reduce) == 1 or reduce[-1] % LANES == 0)
        self.buffer = self.em.alloca(ELEMENT[self.letter], LANES)

    def emit(self) -> Shape:
        """Emit the body. Units are windows of outputs at each place of the outer axes."""
        em, extents, rank = self.em, self.context.extents, self.context.rank
        sizes = list(extents[:rank])
        if rank:
            sizes[-1] = windows(extents[rank - 1], self.jam)
        with em.loop("%begin", "%end") as unit:
            coordinates = em.unravel(unit, tuple(sizes)) if sizes else []
            if rank:
                coordinates[-1] = window(em, coordinates[-1], extents[rank - 1], self.jam)
            outputs = [self._output(coordinates, number) for number in range(self.jam)]
            lanes = self._lanes(outputs)
            for output, value in zip(outputs, lanes, strict=True):
                one = finish(em, self.fold, self.halved(value))
                store(self.context, one, output, -1, 1)
        return Shape(product(sizes))

    def _output(self, coordinates: list[str], number: int) -> list[str]:
        """Return the coordinates of one of the jammed outputs."""
        if not number:
            return coordinates
        return [*coordinates[:-1], self.em.add(coordinates[-1], number)]

    def _step(self, variable: Variable, term: list[Value]) -> None:
        em = self.em
        acc = current(self.fold, variable, LANES)
        variable.set(step(em, self.fold, acc, [widened(em, v, LANES) for v in term]).name)

    def _lanes(self, outputs: list[list[str]]) -> list[Value]:
        """Return the sixteen lane results of each output."""
        counts = levels(self.fold, -(-self.terms // LANES))
        leaf = partial(self.steps, outputs)
        return emit_chain(self.em, self.fold, counts, [LANES] * self.jam, leaf)

    def steps(
        self, outputs: list[list[str]], start: str, stop: str, variables: list[Variable]
    ) -> None:
        """Emit the steps of items start .. stop-1, of sixteen terms each, for each output."""
        em = self.em
        full, rest = divmod(self.terms, LANES)
        last = em.least(stop, full) if rest else stop
        if self.neighbours:
            with counted(em, start, last, self.context.reduce, LANES) as (_, k):
                for variable, output in zip(variables, outputs, strict=True):
                    self._step(variable, [self._vector(output, k)])
        else:
            with em.loop(start, last) as item:
                for variable, output in zip(variables, outputs, strict=True):
                    self._step(variable, [self._gathered(output, item, LANES)])
        if rest:
            with em.when(em.op(f"icmp eq i64 {stop}, {full + 1}")):
                for variable, output in zip(variables, outputs, strict=True):
                    self._step(variable, [self._tail(output, full, rest)])

    def _vector(self, output: list[str], k: list[str]) -> Value:
        """Return sixteen terms, the first at coordinates `k`."""
        context = self.context
        axis = len(context.extents) - 1
        at = Evaluation(self.em, context.body, context.node.body, output + k, axis, LANES)
        return at.value(context.node.body.results[0], self.letter)

    def _tail(self, output: list[str], item: int, count: int) -> Value:
        """Return the terms of the last item in the first lanes, the identity in the others."""
        em, context = self.em, self.context
        if not self.neighbours:
            return self._gathered(output, str(item), count)
        axis = len(context.extents) - 1
        coordinates = [*output, str(item * LANES)]
        at = Evaluation(em, context.body, context.node.body, coordinates, axis, LANES, active=count)
        term = widened(em, at.value(context.node.body.results[0], self.letter), LANES)
        empty = widened(em, identity(self.fold), LANES)
        name = em.op(
            f"select <{LANES} x i1> {at.active_mask()}, {term.type} {term.name}, "
            f"{empty.type} {empty.name}"
        )
        return Value(name, self.letter, LANES)

    def _gathered(self, output: list[str], item: str, count: int) -> Value:
        """Return terms 16 * item + lane of lanes below `count`, one by one; identity above.

        They go through memory, and volatile: LLVM 22 crashes on some vectors of single compares
        that it would make of the loop.
        """
        em, context = self.em, self.context
        kind = fold_type(self.fold, LANES)
        if count < LANES:
            empty = widened(em, identity(self.fold), LANES)
            em.do(f"store volatile {kind} {empty.name}, ptr {self.buffer}, align 4")
        with em.loop(0, count) as lane:
            k = em.add(em.mul(item, LANES), lane)
            coordinates = output + (em.unravel(k, context.reduce) if context.reduce else [])
            at = Evaluation(em, context.body, context.node.body, coordinates)
            value = at.value(context.node.body.results[0], self.letter)
            place = em.element(self.buffer, lane)
            em.do(f"store volatile {value.type} {value.name}, ptr {place}, align 4")
        name = em.op(f"load volatile {kind}, ptr {self.buffer}, align 4")
        return Value(name, self.letter, LANES)

    def halved(self, value: Value) -> Value:
        """Return the combined lanes: s[l] = combine(s[l], s[l + h]) for h = 8, 4, 2, 1."""
        em = self.em
        while value.width > 1:
            half = value.width // 2
            parts = []
            for first in (0, half):
                picks = ", ".join(f"i32 {first + lane}" for lane in range(half))
                name = em.op(
                    f"shufflevector {value.type} {value.name}, {value.type} poison, "
                    f"<{half} x i32> <{picks}>"
                )
                if half == 1:
                    name = em.op(f"extractelement <1 x {ELEMENT[self.letter]}> {name}, i64 0")
                parts.append(Value(name, self.letter, half))
            value = combine(em, self.fold, parts[0], parts[1])
        return value


def emit_lanes(context: Context) -> Shape:
    """Emit the body of a FOLD kernel that runs over k in sixteen lanes."""
    return LaneKernel(context).emit()


def is_lane_fold(context: Context) -> bool:
    """Whether `emit_lanes` is the generator for this FOLD."""
    if context.node.fold is Fold.SUM and context.node.lanes == LANES:
        return True
    return suits(context)
