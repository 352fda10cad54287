# SPDX-License-Identifier: GPL-3.0-or-later
"""Replaying in place: an error leaves nothing half done."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from protocol.commitments import state_root
from protocol.errors import NumericsError
from protocol.execution import Bits, Executor
from protocol.executor import CompiledExecutor
from protocol.reference import ReferenceExecutor
from protocol.task import Run, TaskSpec
from tests.hand_built import case_of, sgd_regression
from verifier.replay import Replay

CASE = case_of(sgd_regression(), wild=False)
SEGMENT = 3


class Spec:
    """What a replay reads of a task."""

    def steps_between(self, first: int, count: int) -> range:
        return range(first * SEGMENT, (first + count) * SEGMENT)


class Failing(Executor):
    """Writes over half a state, once, and fails."""

    def __init__(self, honest: Executor) -> None:
        self.honest = honest
        self.at: int | None = None

    def update(self, state: list[Bits], step: int) -> None:
        if step == self.at:
            self.at = None
            for tensor in state:
                tensor[...] = 0
            raise NumericsError("the machine failed")
        self.honest.update(state, step)


def fetched(_root: bytes) -> list[Bits]:
    return [tensor.copy() for tensor in CASE.state]


def silent(_done: int, _total: int) -> None:
    pass


def wanted(steps: range) -> bytes:
    state: Sequence[Bits] = CASE.state
    executor = ReferenceExecutor(CASE.program, CASE.inputs)
    for step in steps:
        state = executor.step(state, step)
    return state_root(state)


@pytest.mark.parametrize("at", [3, 4, 5, 6, 7, 8])
def test_an_error_leaves_a_replay_as_it_was_and_it_goes_on_from_there(at: int) -> None:
    executor = Failing(CompiledExecutor(CASE.program, CASE.inputs))
    spec: TaskSpec = Spec()  # type: ignore[assignment]
    replay = Replay(spec, executor, [Run(1, 2, 0)], [bytes(32)])
    executor.at = at
    fetches: list[bytes] = []

    def fetch(root: bytes) -> list[Bits]:
        fetches.append(root)
        return fetched(root)

    steps: list[int] = []
    for call in range(3):
        if call == at // SEGMENT - 1:
            with pytest.raises(NumericsError):
                replay.advance(fetch, silent)
            assert (replay.roots, replay.complete) == ([], False)
        else:
            replay.advance(fetch, lambda done, _total: steps.append(done))
    assert replay.complete
    assert steps == [1, 2, 3, 4, 5, 6]  # nothing was counted twice
    assert replay.roots == [wanted(range(3, 9))]
    assert len(fetches) == (2 if at < 2 * SEGMENT else 1)


@pytest.mark.parametrize("make", [CompiledExecutor, ReferenceExecutor])
def test_an_update_is_a_step(make: Callable[..., Executor]) -> None:
    executor = make(CASE.program, CASE.inputs)
    state = fetched(bytes(32))
    arrays = list(state)
    for step in range(3):
        executor.update(state, step)
    assert state_root(state) == wanted(range(3))
    in_place = all(a is b for a, b in zip(arrays, state, strict=True))
    assert in_place is (make is CompiledExecutor)
