# SPDX-License-Identifier: GPL-3.0-or-later
"""Executors that lie, for staging what the protocol must catch.

Each is made like an honest executor from (program, inputs) and can be given to a solver in its
place: the solver's own code stays honest, it only believes wrong arithmetic. The lies are
consistent: a trace shows the lie, and everything after it follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from protocol.bundle import ExecutorFactory
from protocol.execution import Bits, Executor, Inputs
from protocol.ops import Op
from protocol.program import DType, Expression, Fold, Kind, Node, Program

When = Callable[[int], bool]
"""Whether to lie in a step, given its number."""


def always(_step: int) -> bool:
    """Lies in every step."""
    return True


class Tampered:
    """Changes one node's output in some steps and computes honestly from there on.

    The rest of the step runs on a program in which that node is a constant, so it is as fast as an
    honest step and right to the bit.
    """

    def __init__(
        self,
        make: ExecutorFactory,
        program: Program,
        inputs: Inputs,
        node: int,
        change: Callable[[Bits], Bits],
        when: When,
    ) -> None:
        self._honest = make(program, inputs)
        self._node = node
        self._change = change
        self._when = when
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
        if not self._when(step):
            return self._honest
        output = self._honest.trace(state, step)[self._node]
        np.copyto(self._output, self._change(output.copy()))
        return self._rest

    def step(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """One step, with the lie if it is due."""
        return self._executor(state, step).step(state, step)

    def trace(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """The trace of that step."""
        return self._executor(state, step).trace(state, step)


class FalseOutputs:
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
    """Adds one unit in the last place to one element of one node's output."""

    node: int
    element: int
    when: When = always

    def __call__(self, make: ExecutorFactory, program: Program, inputs: Inputs) -> Executor:
        """The lying executor."""

        def change(output: Bits) -> Bits:
            output.reshape(-1)[self.element % output.size] ^= np.uint32(1)
            return output

        return Tampered(make, program, inputs, self.node, change, self.when)


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
    """Trains with another learning rate: every immediate equal to `rate` becomes `instead`."""

    rate: int
    instead: int

    def __call__(self, make: ExecutorFactory, program: Program, inputs: Inputs) -> Executor:
        """The lying executor."""
        nodes = tuple(replace(n, expression=self._edit(n.expression)) for n in program.nodes)
        return make(replace(program, nodes=nodes), inputs)

    def _edit(self, body: Expression | None) -> Expression | None:
        if body is None:
            return None
        edited = tuple(self.instead if i == self.rate else i for i in body.immediates)
        return replace(body, immediates=edited)


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


def find_node(
    program: Program, kind: Kind, *, fold: Fold | None = None, op: Op | None = None
) -> int:
    """The first node of a kind, with that fold, or whose expression uses that op."""
    for number, node in enumerate(program.nodes):
        if node.kind != kind or (fold is not None and node.fold != fold):
            continue
        if op is not None and all(i.op != op for i in node.body.instructions):
            continue
        return number
    raise LookupError(f"the program has no {kind.name} node with fold {fold} and op {op}")
