# SPDX-License-Identifier: GPL-3.0-or-later
"""What an agent keeps of tasks, in memory and on disk, is bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from protocol.bundle import Bundle
from protocol.endings import KEPT_BLOCKS
from protocol.execution import Executor
from protocol.loaded import Loaded
from protocol.task import Status, TaskSpec
from tests.challenging import play_until, registered
from tests.staged import a_solver, a_stage, bundle, honest_executor, post

SIZES = [1, 2, 3, 5, 8, 13]
LIMIT = 10


def spec_of(number: int) -> TaskSpec:
    spec = bundle().spec(seed=bytes(32), steps=1, segment_steps=1, submitter="0x" + "11" * 20)
    return replace(spec, memory_mib=SIZES[number])


@given(st.lists(st.tuples(st.integers(0, len(SIZES) - 1), st.booleans()), max_size=60))
def test_what_was_not_used_for_longest_goes_before_there_is_too_much(
    uses: Sequence[tuple[int, bool]],
) -> None:
    loaded, made = Loaded(LIMIT), Counter[int]()
    recent: list[int] = []
    for number, forgets in uses:
        spec = spec_of(number)
        if forgets:
            loaded.forget(spec)
            recent = [n for n in recent if n != number]
            continue

        def fetch(number: int = number) -> Bundle:
            made[number] += 1
            return bundle()

        before = made[number]
        assert loaded.bundle(spec, fetch) is bundle()
        assert made[number] == before + (number not in recent)
        recent = [n for n in recent if n != number]
        while recent and SIZES[number] + sum(SIZES[n] for n in recent) > LIMIT:
            recent.pop(0)
        recent.append(number)


def test_bundle_and_executor_of_a_task_count_once_and_go_together() -> None:
    loaded, made = Loaded(LIMIT), []

    def make() -> Executor:
        loaded.bundle(spec_of(3), bundle)
        made.append("executor")
        return honest_executor()

    for _ in range(2):
        loaded.executor(spec_of(3), make)
        loaded.executor(spec_of(2), make)  # 5 and 3 of 10 MiB
    assert len(made) == 2
    loaded.bundle(spec_of(4), bundle)
    loaded.executor(spec_of(3), make)
    assert len(made) == 3


def test_checkpoints_are_deleted_when_their_task_has_ended_for_good(tmp_path: Path) -> None:
    stage = a_stage(tmp_path)
    _, task = post(stage)
    solver = a_solver(stage.party("solver"), stage.directory)
    agents = [solver, *registered(stage)]
    play_until(stage, task, agents, Status.SETTLED)
    folder = solver.folder(task)
    solver.poll()
    assert len(list(folder.glob("tensors/*"))) == 5  # a reorganization could take the end back
    for _ in range(KEPT_BLOCKS):
        stage.chain.wait(1)
    solver.poll()
    assert not folder.exists()
    assert not solver.poll()


def test_a_slice_is_used_up_by_short_segments(tmp_path: Path) -> None:
    stage = a_stage(tmp_path)
    _, task = post(stage, segment_steps=1)
    solver = a_solver(stage.party("solver"), stage.directory)
    solver.poll()
    stage.chain.wait(601)
    solver.poll()
    stage.chain.wait(601)
    polls = 0
    while solver.market.state(task).log_size == 0:
        solver.poll()
        polls += 1
    assert polls < 10  # for twenty segments of a few milliseconds
