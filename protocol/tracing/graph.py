# SPDX-License-Identifier: GPL-3.0-or-later
"""The program under construction: buffers that are stored, values that are not yet.

A `Value` is a tensor as a scalar over its axes. Elementwise operations and moves only make bigger
scalars; `Graph.store` turns one into a MAP node, `Graph.fold` into a FOLD. Whatever doesn't fit one
node, or would be computed again and again along an axis it doesn't depend on, gets a node of its
own first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from protocol.errors import TraceError
from protocol.execution import Bits
from protocol.float32 import POSITIVE_ZERO
from protocol.ops import Op
from protocol.program import (
    DType,
    Expression,
    Flat,
    Fold,
    Kind,
    Node,
    Operand,
    Program,
    Shape,
    View,
)
from protocol.tracing import moves, schedule
from protocol.tracing.emit import axes_of, cost, expression, is_whole
from protocol.tracing.numbers import StepNumbers
from protocol.tracing.scalars import (
    Affine,
    Imm,
    Load,
    Place,
    Prim,
    Scalar,
    Scalars,
    walk,
)
from protocol.tracing.schedule import OnStep

LANES: Final = 16
HOIST: Final = 2
"""A part is stored by itself if that computes it at least this many times less often."""


@dataclass
class Value:
    """A tensor: its element at axes `0 .. rank-1` is `scalar`, which storing replaces by a load."""

    shape: Shape
    scalar: Scalar
    torch_dtype: torch.dtype

    @property
    def dtype(self) -> DType:
        """Element type in the program."""
        return self.scalar.dtype

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Graph:
    """Collects nodes, each once, and constants."""

    def __init__(self, numbers: StepNumbers | None = None) -> None:
        """Begin a program; `numbers` stand for formulas of the step."""
        self.scalars = Scalars(numbers)
        self.nodes: list[Node] = []
        self.constants: list[Bits] = []
        self._numbers: dict[Node, int] = {}
        self._constant_numbers: dict[tuple[Shape, bytes, DType], int] = {}

    # Nodes ---------------------------------------------------------------------------------------

    def add(self, node: Node) -> int:
        """Return the number of a node, adding it unless an equal one is there."""
        number = self._numbers.setdefault(node, len(self.nodes))
        if number == len(self.nodes):
            self.nodes.append(node)
        return number

    def leaf(self, kind: Kind, dtype: DType, shape: Shape, **fields: int) -> int:
        """Add a node without operands."""
        return self.add(Node(kind, dtype, shape, **fields))  # type: ignore[arg-type]

    def constant(self, bits: Bits, dtype: DType) -> int:
        """Add a CONST node for a tensor of patterns."""
        key = (bits.shape, bits.tobytes(), dtype)
        index = self._constant_numbers.setdefault(key, len(self.constants))
        if index == len(self.constants):
            self.constants.append(np.ascontiguousarray(bits))
        return self.leaf(Kind.CONST, dtype, bits.shape, index=index)

    def read(self, number: int) -> Load:
        """Return element e of a node, as a scalar over the node's own axes."""
        node = self.nodes[number]
        places = tuple(
            Place(size, Affine.of(axis), 0, size) if size > 1 else Place(1, Affine(), 0, 1)
            for axis, size in enumerate(node.shape)
        )
        return self.scalars.load(number, places, POSITIVE_ZERO, node.dtype)

    # Storing -------------------------------------------------------------------------------------

    def stored(self, value: Value) -> int | None:
        """Return the node whose output is exactly this value, if there is one."""
        scalar = value.scalar
        if isinstance(scalar, Load) and is_whole(scalar, value.shape):
            return scalar.buffer
        return None

    def store(self, value: Value) -> int:
        """Make a node whose output is exactly this value (same shape) and return its number."""
        number = self.stored(value)
        if number is None or self.nodes[number].shape != value.shape:
            number = self._map(value.scalar, value.shape)
        value.scalar = self.read(number)
        return number

    def keep(self, value: Value) -> None:
        """Store a value over the axes that it depends on, unless it is an element of a buffer."""
        if not isinstance(value.scalar, Imm | OnStep) and not _is_direct(value.scalar):
            value.scalar = self._compact(value.scalar, value.shape)

    def fold(
        self, fold: Fold, terms: tuple[Scalar, ...], shape: Shape, reduce: Shape, lanes: int = 1
    ) -> int:
        """Add a FOLD; the terms are over the axes of `shape + reduce`."""
        dtype = DType.I32 if fold in (Fold.ISUM, Fold.IMAX) else DType.F32
        reduce = reduce or (1,)
        terms = self._fitted(terms, shape + reduce)
        body = expression(terms, shape, fold=True)
        return self.add(
            Node(Kind.FOLD, dtype, shape, fold=fold, lanes=lanes, reduce=reduce, expression=body)
        )

    def _map(self, scalar: Scalar, shape: Shape) -> int:
        (scalar,) = self._fitted((scalar,), shape)
        body = expression((scalar,), shape, fold=False)
        return self.add(Node(Kind.MAP, scalar.dtype, shape, expression=body))

    def _compact(self, scalar: Scalar, shape: Shape) -> Load:
        """Store a scalar as a tensor of those axes that it depends on, and return the load."""
        used = sorted(a for a in axes_of(scalar) if shape[a] > 1)
        to_compact = [
            Affine.of(used.index(a)) if a in used else Affine() for a in range(len(shape))
        ]
        small = moves.substitute(self.scalars, scalar, to_compact)
        number = self._map(small, tuple(shape[a] for a in used))
        back = [Affine.of(a) for a in used]
        load = moves.substitute(self.scalars, self.read(number), back)
        if not isinstance(load, Load):
            raise TypeError("a stored element is a load")
        return load

    def _fitted(self, roots: tuple[Scalar, ...], shape: Shape) -> tuple[Scalar, ...]:
        """Store parts of `roots` until the rest fits one node and computes nothing needlessly."""
        for scalar in list(walk(*roots)):
            if isinstance(scalar, OnStep):
                roots = self._replaced(roots, scalar, self._schedule(scalar))
        for part in self._hoistable(roots, shape):
            roots = self._replaced(roots, part, self._compact(part, shape))
        while not cost(*roots).fits:
            part = self._splitting(roots)
            roots = self._replaced(roots, part, self._compact(part, shape))
        return roots

    def _replaced(self, roots: tuple[Scalar, ...], part: Scalar, by: Scalar) -> tuple[Scalar, ...]:
        return tuple(moves.replace(self.scalars, root, part, by) for root in roots)

    def _hoistable(self, roots: tuple[Scalar, ...], shape: Shape) -> list[Scalar]:
        """Return the largest parts that depend on few of the axes and take some computing."""
        total = math.prod(shape)
        found: list[Scalar] = []
        seen: set[int] = set()
        stack = list(roots)
        while stack:
            scalar = stack.pop()
            if id(scalar) in seen or not isinstance(scalar, Prim):
                continue
            seen.add(id(scalar))
            size = math.prod(shape[a] for a in axes_of(scalar))
            if size * HOIST <= total and not cost(scalar).cheap:
                found.append(scalar)
            else:
                stack.extend(scalar.args)
        return found

    def _splitting(self, roots: tuple[Scalar, ...]) -> Scalar:
        """Return the part whose storing frees most of a node that is too full."""
        best, score = None, 0
        for scalar in walk(*roots):
            if not isinstance(scalar, Prim) or scalar in roots:
                continue
            price = cost(scalar)
            worth = price.instructions + 8 * price.operands + price.immediates
            if price.fits and worth > score:
                best, score = scalar, worth
        if best is None:
            raise TraceError("a term needs more than eight operands at places that cannot be split")
        return best

    def _schedule(self, formula: OnStep) -> Scalar:
        """Return a number that depends on the step: from a table, or computed from STEP."""
        scalars = self.scalars
        step = self.read(self.leaf(Kind.STEP, DType.I32, ()))
        found = schedule.table(formula)
        if found is None:
            return self._computed(formula, scalars.op(Op.I2F, step))
        patterns, limit = found
        if not len(patterns):
            return scalars.imm(limit, DType.F32)
        number = self.constant(patterns, DType.F32)
        size = len(patterns)
        place = Place(size, Affine.of(step), 0, size)
        element = scalars.load(number, (place,), limit, DType.F32)
        return self.read(self._map(element, ()))

    def _computed(self, formula: OnStep, step: Scalar) -> Scalar:
        if formula.name == "t":
            return step
        if formula.name == "const":
            return self.scalars.f32(formula.value)
        if formula.name == "table":
            return self._schedule(formula)
        if formula.name == "pow":
            raise TraceError("a power of the step that never settles cannot be lowered")
        parts = [self._computed(part, step) for part in formula.parts]
        return self.scalars.op(Op[formula.name], *parts)

    # Finishing -----------------------------------------------------------------------------------

    def program(
        self, outputs: list[int], names: dict[str, int], n_data: int, state_names: tuple[str, ...]
    ) -> Program:
        """Return the program without the nodes that nothing needs, OUTPUT nodes last."""
        needed = {*outputs, *names.values()}
        for number in reversed(range(len(self.nodes))):
            if number in needed:
                needed.update(_sources(self.nodes[number]))
        renumbered = {old: new for new, old in enumerate(sorted(needed))}
        nodes = [_renumber(self.nodes[old], renumbered) for old in sorted(needed)]
        for number in outputs:
            node = self.nodes[number]
            nodes.append(Node(Kind.OUTPUT, node.dtype, node.shape, index=renumbered[number]))
        nodes, constants = _used_constants(nodes, self.constants)
        self.constants = constants
        return Program(
            tuple(nodes),
            n_state=len(outputs),
            n_const=len(constants),
            n_data=n_data,
            names={name: renumbered[number] for name, number in names.items()},
            state_names=state_names,
        )


def _is_direct(scalar: Scalar) -> bool:
    return isinstance(scalar, Load) and all(place.at.direct for place in scalar.places)


def _operands(node: Node) -> tuple[Operand, ...]:
    return node.expression.operands if node.expression is not None else ()


def _sources(node: Node) -> list[int]:
    return [o.source for o in _operands(node) if isinstance(o, Flat | View)]


def _renumber(node: Node, numbers: dict[int, int]) -> Node:
    if node.expression is None:
        return node
    operands = tuple(
        replace(o, source=numbers[o.source]) if isinstance(o, Flat | View) else o
        for o in node.expression.operands
    )
    body: Expression = replace(node.expression, operands=operands)
    return replace(node, expression=body)


def _used_constants(nodes: list[Node], constants: list[Bits]) -> tuple[list[Node], list[Bits]]:
    used = sorted({n.index for n in nodes if n.kind is Kind.CONST})
    numbers = {old: new for new, old in enumerate(used)}
    kept = [replace(n, index=numbers[n.index]) if n.kind is Kind.CONST else n for n in nodes]
    return kept, [constants[old] for old in used]
