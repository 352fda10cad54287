# SPDX-License-Identifier: GPL-3.0-or-later
"""Replaying in place: an error, or the end of the process, leaves nothing half done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from protocol.bundle import state_layout
from protocol.commitments import state_root
from protocol.errors import ArtifactError, NumericsError
from protocol.execution import Bits, Executor
from protocol.executor import CompiledExecutor
from protocol.mirror import Mirror
from protocol.reference import ReferenceExecutor
from protocol.store import Store
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


def silent(_done: int, _total: int) -> None:
    pass


def advance(
    replay: Replay, executor: Executor, place: Place, progress: Callable[[int, int], None] = silent
) -> None:
    """The next segment, in one go."""
    for _ in replay.advance(CASE.program, executor, place.fetch, progress):
        pass


class Place:
    """Where one verifier keeps what it has, and a store with the state that a run starts from."""

    def __init__(self, directory: Path) -> None:
        layout = state_layout(CASE.program)
        self.start = Store(str(directory / "store")).put_tensors(CASE.state, layout, ())
        self.book = directory / "own" / "round-1.json"
        self.store = Mirror(str(directory / "store"), directory / "own" / "artifacts")
        self.fetched: list[bytes] = []

    def replay(self, *runs: Run) -> Replay:
        """As a new process finds it."""
        spec: TaskSpec = Spec()  # type: ignore[assignment]
        return Replay(spec, runs, [self.start] * len(runs), self.book, self.store)

    def fetch(self, root: bytes) -> list[Bits]:
        self.fetched.append(root)
        return self.store.get_tensors(root, state_layout(CASE.program))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def wanted(steps: range) -> bytes:
    state: Sequence[Bits] = CASE.state
    executor = ReferenceExecutor(CASE.program, CASE.inputs)
    for step in steps:
        state = executor.step(state, step)
    return state_root(state)


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("at", [3, 4, 5, 6, 7, 8])
def test_an_error_leaves_a_replay_as_it_was_and_it_goes_on_from_there(
    place: Place, at: int, restarts: bool
) -> None:
    executor = Failing(CompiledExecutor(CASE.program, CASE.inputs))
    replay = place.replay(Run(1, 2, 0))
    executor.at = at
    steps: list[int] = []
    for call in range(3):
        if restarts:
            replay = place.replay(Run(1, 2, 0))
        if call == at // SEGMENT - 1:
            with pytest.raises(NumericsError):
                advance(replay, executor, place)
            assert (replay.roots, replay.complete) == ([], False)
        else:
            done = lambda n, _total: steps.append(n)  # noqa: E731
            advance(replay, executor, place, done)
    assert replay.complete
    assert steps == [1, 2, 3, 4, 5, 6]  # nothing was counted twice
    assert replay.roots == [wanted(range(3, 9))]
    assert place.fetched.count(place.start) == (2 if at < 2 * SEGMENT else 1)
    assert place.replay(Run(1, 2, 0)).roots == replay.roots


def test_runs_follow_each_other_from_states_of_their_own(place: Place) -> None:
    executor = CompiledExecutor(CASE.program, CASE.inputs)
    replay = place.replay(Run(0, 1, 0), Run(3, 1, 0))
    for _ in range(2):
        advance(replay, executor, place)
    assert replay.complete
    assert replay.roots == [wanted(range(3)), wanted(range(9, 12))]
    assert place.fetched == [place.start] * 2


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"ends": 3}', '{"ends": ["x"], "segments": 0}'])
def test_a_damaged_book_is_named(place: Place, text: str) -> None:
    place.book.parent.mkdir(parents=True)
    place.book.write_text(text)
    with pytest.raises(ArtifactError, match=r"round-1.json is damaged, delete it"):
        place.replay(Run(0, 1, 0))


@pytest.mark.parametrize("make", [CompiledExecutor, ReferenceExecutor])
def test_an_update_is_a_step(make: Callable[..., Executor]) -> None:
    executor = make(CASE.program, CASE.inputs)
    state = [tensor.copy() for tensor in CASE.state]
    arrays = list(state)
    for step in range(3):
        executor.update(state, step)
    assert state_root(state) == wanted(range(3))
    in_place = all(a is b for a, b in zip(arrays, state, strict=True))
    assert in_place is (make is CompiledExecutor)
