# SPDX-License-Identifier: GPL-3.0-or-later
"""Cheating defendants, each with one small lie. The protocol itself contains none.

A lie starts in the executor (`FlippedOutput`: one element of one node, everything downstream
recomputed from it) or in the witness (what the defendant shows about a step). `Story` makes both
for a program: the liar's witness and the honest one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bitcourt.lab.stubborn import StubbornWitness
from protocol.commitments import inputs_root, program_tree, roots_tree
from protocol.execution import Bits, Executor, Inputs
from protocol.merkle import Tree, leaf_hash
from protocol.program import Kind, Program
from protocol.question import Context
from protocol.reference import ReferenceExecutor, element
from protocol.witness import ReplayWitness
from tests.hand_built import Case


class FlippedOutput(Executor):
    """Executes honestly but for one element of one node, from step `since` on (`^= mask`)."""

    def __init__(
        self, program: Program, inputs: Inputs, node: int, index: int, mask: int, since: int
    ) -> None:
        self.program = program
        self.inputs = inputs
        self.lie = (node, index, mask)
        self.since = since
        self.honest = ReferenceExecutor(program, inputs)

    def step(self, state: Sequence[Bits], step: int) -> list[Bits]:
        outputs = self.trace(state, step)
        return [outputs[self.program.output(s)].copy() for s in range(self.program.n_state)]

    def trace(self, state: Sequence[Bits], step: int) -> list[Bits]:
        outputs = self.honest.trace(state, step)
        if step < self.since:
            return outputs
        first, index, mask = self.lie
        outputs[first] = outputs[first].copy()
        outputs[first].reshape(-1)[index] ^= np.uint32(mask)
        for number, node in enumerate(self.program.nodes[first + 1 :], first + 1):
            if node.kind is Kind.OUTPUT:
                outputs[number] = outputs[node.index]
            elif node.kind in (Kind.MAP, Kind.FOLD):
                outputs[number] = self._computed(number, outputs, step)
        return outputs

    def _computed(self, number: int, outputs: list[Bits], step: int) -> Bits:
        node = self.program.nodes[number]

        def fetch(source: int, at: int) -> int:
            return int(outputs[source].reshape(-1)[at])

        values = [element(node, e, fetch, self.inputs.seed, step) for e in range(node.numel)]
        return np.array(values, np.uint32).reshape(node.shape)


class Stubborn(StubbornWitness):
    """Bends the last accumulator and the last result so that all it shows fits its claim."""


class EarlyAccumulators(StubbornWitness):
    """Has every accumulator of the second half of a chain claim the end result."""

    def accumulators(
        self, step: int, node: int, element: int, lane: int, level: int, chain: int
    ) -> list[int]:
        shown = super().accumulators(step, node, element, lane, level, chain)
        half = len(shown) // 2
        return [*shown[:half], *[shown[-1]] * (len(shown) - half)]


class TrueValues(StubbornWitness):
    """Posts what an honest defendant would: the result is then not what was claimed."""

    def values(self, step: int, node: int, element: int, term: int | None) -> list[int]:
        return ReplayWitness.values(self, step, node, element, term)


class FalseOperand(StubbornWitness):
    """Posts another first operand."""

    def values(self, step: int, node: int, element: int, term: int | None) -> list[int]:
        first, *others = super().values(step, node, element, term)
        return [first ^ 0x00400000, *others]


class TooFewValues(StubbornWitness):
    """Posts nothing where values are due."""

    def values(self, step: int, node: int, element: int, term: int | None) -> list[int]:
        return []


class TooManyValues(StubbornWitness):
    """Posts one value more than there is."""

    def values(self, step: int, node: int, element: int, term: int | None) -> list[int]:
        return [*super().values(step, node, element, term), 0]


class FalseState(ReplayWitness):
    """Claims a state that its own, true trace does not produce."""

    def _claims(self, step: int) -> bool:
        return step == self.steps - 1

    def state_tree(self, step: int) -> Tree:
        true = super().state_tree(step)
        if not self._claims(step):
            return true
        leaves = [true.leaf(s) for s in range(true.size)]
        return Tree([leaf_hash(leaves[0]), *leaves[1:]])

    def state_root(self, step: int) -> bytes:
        return self.state_tree(step).root if self._claims(step) else super().state_root(step)


class UnknownPreimage(FalseState):
    """Claims an end state for which it knows no preimage at all."""

    def state_tree(self, step: int) -> Tree:
        return ReplayWitness.state_tree(self, step)

    def state_root(self, step: int) -> bytes:
        true = ReplayWitness.state_root(self, step)
        return leaf_hash(true) if self._claims(step) else true


class OtherEnd(ReplayWitness):
    """Commits to one end state and opens a log that ends in another."""

    def step_log(self) -> Tree:
        roots = [self.state_root(step) for step in range(self.steps)]
        return roots_tree([*roots[:-1], leaf_hash(b"another end")])


class TrueLog(ReplayWitness):
    """Commits to any end state at all, and opens the log of what it really computed."""


WitnessType = Callable[..., ReplayWitness]


@dataclass
class Story:
    """A segment of a program, the honest witness of it, and a liar's."""

    case: Case
    steps: int
    first_step: int = 0

    def _witness(self, make: WitnessType, executor: Executor) -> ReplayWitness:
        case = self.case
        return make(case.program, executor, case.inputs, case.state, self.first_step, self.steps)

    @cached_property
    def honest(self) -> ReplayWitness:
        return self._witness(ReplayWitness, ReferenceExecutor(self.case.program, self.case.inputs))

    def liar(self, make: WitnessType = Stubborn) -> ReplayWitness:
        """A defendant that computes honestly and lies in what it shows."""
        executor = ReferenceExecutor(self.case.program, self.case.inputs)
        return self._witness(make, executor)

    def flipped(
        self, node: int, index: int = 0, *, mask: int = 1 << 23, since: int = 0,
        make: WitnessType = Stubborn,
    ) -> ReplayWitness:  # fmt: skip
        """A defendant whose executor flips bits of one element."""
        case = self.case
        since += self.first_step
        executor = FlippedOutput(case.program, case.inputs, node, index, mask, since)
        return self._witness(make, executor)

    def context(self, defendant: ReplayWitness) -> Context:
        """The dispute about the end state that a defendant claims."""
        program, inputs = self.case.program, self.case.inputs
        return Context(
            program_tree(program).root, inputs_root(inputs.constants), inputs_root(inputs.data),
            inputs.seed, self.honest.state_root(-1), defendant.state_root(self.steps - 1),
            self.first_step, self.steps, len(program.nodes), program.n_state,
            program.n_const, program.n_data,
        )  # fmt: skip


def changes_the_end(story: Story, defendant: ReplayWitness) -> bool:
    """Whether a lie shows in the end state, without which there is nothing to dispute."""
    last = story.steps - 1
    return defendant.state_root(last) != story.honest.state_root(last)
