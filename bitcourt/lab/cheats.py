# SPDX-License-Identifier: GPL-3.0-or-later
"""Executors that lie, for staging what the protocol must catch.

Each is made like an honest executor from (program, inputs) and can be given to a solver in its
place: the solver's own code stays honest, it only believes wrong arithmetic. The lies are
consistent: a trace shows the lie, and everything after it follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from protocol import fold as folds
from protocol.bundle import ExecutorFactory
from protocol.errors import UsageError
from protocol.execution import Bits, Executor, Inputs, Visitor
from protocol.program import INDIRECT, DType, Expression, Fold, Kind, Node, Program, View

When = Callable[[int], bool]
"""Whether to lie in a step, given its number."""


def always(_step: int) -> bool:
    """Lies in every step."""
    return True


class Tampered(Executor):
    """Changes one element of one node's output in some steps and computes honestly from there on.

    The rest of the step runs on a program in which that node is a constant, so it is as fast as an
    honest step and right to the bit. A small lie may be rounded away before it reaches the state:
    then the next element is tried, since a lie that changes nothing is none.
    """

    def __init__(
        self,
        make: ExecutorFactory,
        program: Program,
        inputs: Inputs,
        flip: Flip,
    ) -> None:
        self._honest = make(program, inputs)
        node = flip.node
        self._flip = flip
        target = program.nodes[node]
        constant = Node(Kind.CONST, target.dtype, target.shape, index=program.n_const)
        nodes = (*program.nodes[:node], constant, *program.nodes[node + 1 :])
        # Executors read their constants anew in every step: this one is written before each lie.
        self._output = np.zeros(target.shape, np.uint32)
        constants = [*inputs.constants, self._output]
        self._rest = make(
            replace(program, nodes=nodes, n_const=program.n_const + 1),
            replace(inputs, constants=constants),
        )

    def _executor(self, state: Sequence[Bits], step: int) -> Executor:
        if not self._flip.when(step):
            return self._honest
        honest = self._honest.trace(state, step)[self._flip.node]
        after = self._honest.step(state, step)
        place = self._output.reshape(-1)
        for attempt in range(place.size):
            np.copyto(self._output, honest)
            place[(self._flip.element + attempt) % place.size] ^= np.uint32(self._flip.mask)
            lie = self._rest.step(state, step)
            if any(not np.array_equal(a, b) for a, b in zip(lie, after, strict=True)):
                return self._rest
        return self._honest

    def step(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """One step, with the lie if it is due."""
        return self._executor(state, step).step(state, step)

    def trace(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """The trace of that step."""
        return self._executor(state, step).trace(state, step)

    def visit(
        self,
        state: Sequence[Bits],
        step: int,
        visitor: Visitor,
        nodes: Collection[int] | None = None,
    ) -> None:
        """The same, shown piece by piece."""
        self._executor(state, step).visit(state, step, visitor, nodes)

    def chain_results(
        self, node: int, element: int, outputs: Callable[[int], Bits], level: int, chains: range
    ) -> Bits | None:
        """What chains really come to: the lie is in the outputs alone."""
        return self._honest.chain_results(node, element, outputs, level, chains)


class FalseOutputs(Executor):
    """Claims another state than its own trace ends in: a step that nobody computed."""

    def __init__(
        self,
        honest: Executor,
        change: Callable[[Sequence[Bits], list[Bits]], list[Bits]],
        when: When,
    ) -> None:
        self._honest = honest
        self._change = change
        self._when = when

    def step(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """One step, or the invented one."""
        after = self._honest.step(state, step)
        return self._change(state, after) if self._when(step) else after

    def trace(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """The honest trace, with the claimed state in its OUTPUT nodes."""
        outputs = self._honest.trace(state, step)
        if self._when(step):
            first = len(outputs) - len(state)
            outputs[first:] = self._change(state, outputs[first:])
        return outputs


@dataclass(frozen=True)
class Flip:
    """Flips the bits of `mask` in one element of one node's output: in the first one that matters,
    from `element` on.
    """

    node: int
    element: int
    when: When = always
    mask: int = 1

    def __call__(self, make: ExecutorFactory, program: Program, inputs: Inputs) -> Executor:
        """The lying executor."""
        return Tampered(make, program, inputs, self)


@dataclass(frozen=True)
class Lazy:
    """Skips steps: claims that nothing changed."""

    when: When = always

    def __call__(self, make: ExecutorFactory, program: Program, inputs: Inputs) -> Executor:
        """The lying executor."""
        honest = make(program, inputs)
        return FalseOutputs(honest, lambda before, _after: list(before), self.when)


@dataclass(frozen=True)
class LowPrecision:
    """Rounds the state to bfloat16 after each step, as cheaper hardware would."""

    when: When = always

    def __call__(self, make: ExecutorFactory, program: Program, inputs: Inputs) -> Executor:
        """The lying executor."""
        floats = [program.state_node(s).dtype == DType.F32 for s in range(program.n_state)]

        def change(_before: Sequence[Bits], after: list[Bits]) -> list[Bits]:
            return [
                (bits + np.uint32(0x7FFF)) & np.uint32(0xFFFF0000) if is_float else bits
                for bits, is_float in zip(after, floats, strict=True)
            ]

        return FalseOutputs(make(program, inputs), change, self.when)


@dataclass(frozen=True)
class WrongRate:
    """Trains with another learning rate: the immediates `rate` and `-rate` are multiplied."""

    rate: float
    factor: float = 2.0

    def __call__(self, make: ExecutorFactory, program: Program, inputs: Inputs) -> Executor:
        """The lying executor."""
        nodes = tuple(replace(n, expression=self._edit(n.expression)) for n in program.nodes)
        if nodes == program.nodes:
            raise UsageError(
                f"the program has no immediate {self.rate}: there is nothing to change"
            )
        return make(replace(program, nodes=nodes), inputs)

    def _edit(self, body: Expression | None) -> Expression | None:
        if body is None:
            return None
        instead = {_pattern(r): _pattern(r * self.factor) for r in (self.rate, -self.rate)}
        edited = tuple(instead.get(i, i) for i in body.immediates)
        return replace(body, immediates=edited)


def _pattern(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


@dataclass(frozen=True)
class WrongData:
    """Trains on other data: the rows of the first data tensor in reverse order."""

    def __call__(self, make: ExecutorFactory, program: Program, inputs: Inputs) -> Executor:
        """The lying executor."""
        first, *others = inputs.data
        reversed_rows = np.ascontiguousarray(first[::-1])
        return make(program, replace(inputs, data=[reversed_rows, *others]))


Cheat = Callable[[ExecutorFactory, Program, Inputs], Executor]


def lying(make: ExecutorFactory, cheat: Cheat) -> ExecutorFactory:
    """An executor factory that cheats."""
    return lambda program, inputs: cheat(make, program, inputs)


def find_nodes(program: Program, what: str, wanted: Callable[[Node], bool]) -> list[int]:
    """Numbers of all nodes that are wanted, at least one; `what` names them in the error."""
    found = [number for number, node in enumerate(program.nodes) if wanted(node)]
    if not found:
        raise UsageError(f"the program has no {what}")
    return found


def is_dot(node: Node) -> bool:
    """Whether a node is a matrix product, or another sum of products."""
    return node.kind is Kind.FOLD and node.fold is Fold.DOT


def is_laned(node: Node) -> bool:
    """Whether a node sums in sixteen lanes, most of which have terms."""
    return node.kind is Kind.FOLD and node.lanes > 1 and node.terms > 16


def is_deep(node: Node) -> bool:
    """Whether a node sums so many terms that its chains have several levels."""
    sums = node.kind is Kind.FOLD and node.fold in (Fold.DOT, Fold.SUM)
    return sums and node.lanes == 1 and node.terms > folds.BLOCK


def is_gather(node: Node) -> bool:
    """Whether a node reads another at places that a third one gives."""
    if node.kind is not Kind.MAP:
        return False
    views = [operand for operand in node.body.operands if isinstance(operand, View)]
    return any(t.axis >= INDIRECT for view in views for dim in view.dims for t in dim.terms)


def is_map(node: Node) -> bool:
    """Whether a node computes its elements one by one, with arithmetic."""
    return node.kind is Kind.MAP and bool(node.body.instructions)
