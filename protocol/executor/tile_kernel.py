# SPDX-License-Identifier: GPL-3.0-or-later
"""FOLD, vectorized over outputs: several vectors of them, each element its own chain over k.

Column sums, reductions of middle axes, and every other fold of one lane that is no product of
matrices.
"""

from __future__ import annotations

from protocol.executor.emitter import Variable
from protocol.executor.evaluation import Evaluation, dependencies
from protocol.executor.kernel import (
    Context,
    Shape,
    counted,
    current,
    emit_chain,
    levels,
    power_below,
    product,
    result_letter,
    store,
    window,
    windows,
)
from protocol.executor.primitives import Value, finish, step, widened

MOST_VECTORS = 8
"""Vectors of outputs computed side by side, to hide the latency of the additions."""


class TileKernel:
    """Generator of one such kernel."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.em = context.em
        self.fold = context.node.fold
        self.column = context.rank - 1
        extent = context.extents[self.column] if context.rank else 1
        self.width = power_below(min(context.target.width, extent))
        self.vectors = power_below(min(MOST_VECTORS, extent // self.width))
        self.letter = result_letter(self.fold)
        self.dependencies = dependencies(context.body, context.node.body)

    def emit(self) -> Shape:
        """Emit the body. Units are windows of columns at each place of the outer axes."""
        em, extents, rank = self.em, self.context.extents, self.context.rank
        columns = self.width * self.vectors
        sizes = list(extents[:rank])
        if rank:
            sizes[-1] = windows(extents[rank - 1], columns)
        with em.loop("%begin", "%end") as unit:
            coordinates = em.unravel(unit, tuple(sizes)) if sizes else []
            if rank:
                coordinates[-1] = window(em, coordinates[-1], extents[rank - 1], columns)
            self._tile(coordinates)
        return Shape(product(sizes))

    def _at(self, coordinates: list[str], k: list[str], vector: int) -> Evaluation:
        """Return an evaluation at one of the vectors."""
        place = list(coordinates)
        if self.column >= 0:
            place[-1] = self.em.add(place[-1], vector * self.width)
        axis = self.column if self.width > 1 else -1
        context = self.context
        return Evaluation(self.em, context.body, context.node.body, place + k, axis, self.width)

    def _terms(self, coordinates: list[str], k: list[str]) -> list[list[Value]]:
        """Return the term of each vector; what does not depend on the column is shared."""
        shared: dict[int, Value] = {}
        result = []
        for vector in range(self.vectors):
            at = self._at(coordinates, k, vector)
            term = []
            for register in self.context.node.body.results:
                if self.column in self.dependencies[register]:
                    term.append(at.value(register, self.letter))
                    continue
                if register not in shared:
                    shared[register] = at.value(register, self.letter)
                term.append(shared[register])
            result.append(term)
        return result

    def _tile(self, coordinates: list[str]) -> None:
        em, fold, width = self.em, self.fold, self.width

        def leaf(start: str, stop: str, variables: list[Variable]) -> None:
            with counted(em, start, stop, self.context.reduce) as (_, k):
                terms = self._terms(coordinates, k)
                for variable, term in zip(variables, terms, strict=True):
                    acc = current(fold, variable, width)
                    variable.set(widened(em, step(em, fold, acc, term), width).name)

        counts = levels(fold, self.context.node.terms)
        results = emit_chain(em, fold, counts, [width] * self.vectors, leaf)
        for number, value in enumerate(results):
            place = self._at(coordinates, [], number).coordinates
            store(self.context, finish(em, fold, value), place, self.column, width)


def emit_tile(context: Context) -> Shape:
    """Emit the body of a one-lane FOLD kernel."""
    return TileKernel(context).emit()
