# SPDX-License-Identifier: GPL-3.0-or-later
"""Disputes about one element of a long FOLD, before the real referee, with the native executor.

No party may evaluate the terms one by one: that would take longer than any clock. What is counted
is how many Python evaluates, not how long anything takes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from bitcourt.lab.cheats import Flip
from bitcourt.lab.stubborn import StubbornWitness
from protocol import fold as folds
from protocol.commitments import inputs_root, program_tree
from protocol.execution import Bits, Executor
from protocol.executor import NativeExecutor
from protocol.game_view import Role
from protocol.program import Fold
from protocol.question import Context
from protocol.reference import Evaluator
from protocol.witness import ReplayWitness
from tests.game_driver import Court, honest
from tests.hand_built import Case, case_of, reduction
from tests.players import wandering

TERMS = (1 << 20) + 21
MOST_IN_PYTHON = 20_000
"""Terms that a whole game may evaluate in Python: a few chains of 256 and what a liar fits."""
FOLDS = [(Fold.SUM, 16), (Fold.SUM, 1), (Fold.DOT, 1), (Fold.ISUM, 1)]


class OneFalseTerm(Executor):
    """Folds as if one datum were another, consistently at every level, and shows the true data."""

    def __init__(self, case: Case, index: int, mask: int) -> None:
        (data,) = case.inputs.data
        self._true, self._false = data, data.copy()
        self._false.reshape(-1)[index] ^= np.uint32(mask)
        inputs = replace(case.inputs, data=[self._false])
        self._executor = NativeExecutor(case.program, inputs)

    def step(self, state: Sequence[Bits], step: int) -> list[Bits]:
        return self._executor.step(state, step)

    def trace(self, state: Sequence[Bits], step: int) -> list[Bits]:
        _, *others = self._executor.trace(state, step)
        return [self._true, *others]

    def chain_results(
        self, node: int, element: int, outputs: Callable[[int], Bits], level: int, chains: range
    ) -> Bits | None:
        def false(source: int) -> Bits:
            return outputs(source) if source else self._false

        return self._executor.chain_results(node, element, false, level, chains)


@pytest.fixture(scope="module")
def court() -> Court:
    return Court("Referee")


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of elements or terms that Python evaluates, which must stay small."""
    count = [0]
    registers = Evaluator.registers

    def counting(self: Evaluator, *arguments: object) -> list[int]:
        count[0] += 1
        return registers(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Evaluator, "registers", counting)
    yield count
    assert 0 < count[0] < MOST_IN_PYTHON


def witness_of(case: Case, make: type[ReplayWitness], executor: Executor) -> ReplayWitness:
    return make(case.program, executor, case.inputs, case.state, 0, 1)


def honest_witness(case: Case) -> ReplayWitness:
    return witness_of(case, ReplayWitness, NativeExecutor(case.program, case.inputs))


def context_of(case: Case, defendant: ReplayWitness) -> Context:
    return Context(
        program_tree(case.program).root, inputs_root(()), inputs_root(case.inputs.data),
        case.inputs.seed, defendant.state_root(-1), defendant.state_root(0),
        0, 1, len(case.program.nodes), 1, 0, 1,
    )  # fmt: skip


@pytest.mark.parametrize("index", [3, 777_781, TERMS - 1])
@pytest.mark.parametrize(("fold", "lanes"), FOLDS)
def test_a_lie_deep_in_a_lane_is_convicted_by_a_proof(
    court: Court, evaluated: list[int], fold: Fold, lanes: int, index: int
) -> None:
    case = case_of(reduction(fold, TERMS, lanes), seed=6, wild=False)
    case.inputs.data[0][0, index] = 0x49800000  # large enough to show in the sum
    own = honest_witness(case)
    mask = 1 if fold is Fold.ISUM else 1 << 23
    liar = witness_of(case, StubbornWitness, OneFalseTerm(case, index, mask))
    game = court.open(context_of(case, liar))
    outcome = game.play(honest(liar, Role.DEFENDANT), honest(own, Role.CHALLENGER))
    assert outcome.convicted
    assert not outcome.timed_out, outcome.refusals
    view = game.view
    assert view.node == 1
    assert view.lane == index % lanes
    assert view.item // lanes // folds.BLOCK == index // lanes // folds.BLOCK


@pytest.mark.parametrize(("fold", "lanes"), FOLDS)
def test_a_flipped_bit_of_a_long_fold_is_convicted_by_a_proof(
    court: Court, evaluated: list[int], fold: Fold, lanes: int
) -> None:
    case = case_of(reduction(fold, TERMS, lanes), seed=8, wild=False)
    liar = witness_of(case, StubbornWitness, Flip(1, 0)(NativeExecutor, case.program, case.inputs))
    game = court.open(context_of(case, liar))
    outcome = game.play(honest(liar, Role.DEFENDANT), honest(honest_witness(case), Role.CHALLENGER))
    assert outcome.convicted
    assert not outcome.timed_out, outcome.refusals
    assert game.view.node == 1


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("fold", "lanes"), FOLDS)
def test_an_honest_defendant_shows_any_part_of_a_long_fold(
    court: Court, evaluated: list[int], fold: Fold, lanes: int, seed: int
) -> None:
    case = case_of(reduction(fold, TERMS, lanes), seed=7, wild=False)
    own = honest_witness(case)
    rng = random.Random(seed)
    for _ in range(4):
        game = court.open(context_of(case, own))
        game.strict, game.pace = False, 0
        outcome = game.play(honest(own, Role.DEFENDANT), wandering(own, rng))
        assert not outcome.convicted
        if game.view.node == 1 and outcome.functions[-1] != "show":
            return
    pytest.fail("the challenger never came to the fold")
