# SPDX-License-Identifier: GPL-3.0-or-later
"""Streaming traces: every output is shown while it is there, and a dispute needs no more."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.commitments import tensor_roots
from protocol.execution import Bits, Executor, Inputs
from protocol.executor import NativeExecutor, schedule, segments
from protocol.game_view import Role
from protocol.program import Kind, Program
from protocol.reference import ReferenceExecutor
from protocol.trace import Trace, trace_bytes, trace_roots
from protocol.witness import ReplayWitness
from tests.executing import assert_equal, chain_of_maps
from tests.game_driver import Court, honest
from tests.hand_built import Case, case_of, every_primitive, scatter_gather, sgd_regression
from tests.liars import Story, Stubborn, changes_the_end
from tests.programs import cases

SMALL = pytest.mark.parametrize("threads", [1, 3])


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets threads share out even the smallest kernel."""
    monkeypatch.setattr(schedule, "CHUNK_WORK", 1)
    monkeypatch.setattr(schedule, "WAKING", 0)


def shown(executor: Executor, case: Case, nodes: Sequence[int] | None = None) -> dict[int, Bits]:
    """What a visitor sees, which must be each node once."""
    seen: dict[int, Bits] = {}

    def visitor(outputs: Sequence[tuple[int, Bits]]) -> None:
        for number, output in outputs:
            assert number not in seen
            seen[number] = output.copy()

    executor.visit(case.state, case.step, visitor, nodes)
    return seen


@pytest.mark.usefixtures("small_chunks")
@SMALL
@pytest.mark.parametrize("limit", [1, segments.SEGMENT_NODES])
@settings(max_examples=6)
@given(case=cases(max_computed=10))
def test_every_output_is_shown_as_the_reference_has_it(
    threads: int, limit: int, case: Case
) -> None:
    wanted = ReferenceExecutor(case.program, case.inputs).trace(case.state, case.step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "SEGMENT_NODES", limit)
        executor = NativeExecutor(case.program, case.inputs, threads=threads)
    found = shown(executor, case)
    assert sorted(found) == list(range(len(wanted)))
    for number, output in enumerate(wanted):
        assert_equal(found[number], output, number)
    # A step after it is none the worse for it.
    for state, tensor in enumerate(executor.step(case.state, case.step)):
        assert_equal(tensor, wanted[case.program.output(state)], state)


@settings(max_examples=8)
@given(case=cases(), data=st.data())
def test_only_the_nodes_that_are_asked_for_are_shown(case: Case, data: st.DataObject) -> None:
    numbers = data.draw(st.sets(st.integers(0, len(case.program.nodes) - 1)))
    wanted = ReferenceExecutor(case.program, case.inputs).trace(case.state, case.step)
    for executor in (
        NativeExecutor(case.program, case.inputs),
        ReferenceExecutor(case.program, case.inputs),
    ):
        found = shown(executor, case, sorted(numbers))
        assert set(found) == numbers
        for number, output in found.items():
            assert_equal(output, wanted[number], number)


@pytest.mark.parametrize("make", [NativeExecutor, ReferenceExecutor])
def test_trace_roots_are_those_of_a_whole_trace(
    make: Callable[[Program, Inputs], Executor],
) -> None:
    for program in (sgd_regression(), every_primitive(), scatter_gather()):
        case = case_of(program)
        executor = make(case.program, case.inputs)
        wanted = tensor_roots(executor.trace(case.state, case.step))
        assert trace_roots(program, executor, case.state, case.step, threads=2) == wanted
        for keep in (0, 1 << 30):
            trace = Trace(program, executor, case.state, case.step, keep)
            assert trace.roots == wanted
            for number in (len(wanted) - 1, *range(len(wanted))):
                assert tensor_roots([trace[number]]) == [wanted[number]]


def test_hashing_a_trace_takes_little_more_memory_than_a_step() -> None:
    """Of a trace that is fifty times as large."""
    program = chain_of_maps(200, 50_000)
    case = case_of(program, wild=False)
    executor = NativeExecutor(program, case.inputs)

    def peak(work: Callable[[], object]) -> int:
        work()
        tracemalloc.start()
        work()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    arena = executor.plan.size
    plain = arena + peak(lambda: executor.step(case.state, 0))
    streaming = arena + peak(lambda: trace_roots(program, executor, case.state, 0))
    assert trace_bytes(program) > 50 * plain
    assert streaming <= 1.5 * plain
    one = arena + peak(lambda: Trace(program, executor, case.state, 0, keep=0)[100])
    assert one <= 1.5 * plain + 2 * 4 * 50_000  # that output and what it reads


class Forgetful(Stubborn):
    """A liar that keeps no trace."""

    keep = 0


class ForgetfulWitness(ReplayWitness):
    """An honest player that keeps no trace."""

    keep = 0


def test_games_are_won_without_keeping_a_trace() -> None:
    program = sgd_regression()
    court = Court("Referee")
    story = Story(case_of(program, seed=3, wild=False), steps=3)
    case = story.case
    computed = [n for n, node in enumerate(program.nodes) if node.kind in (Kind.MAP, Kind.FOLD)]
    played = 0
    for node in computed:
        liar = story.flipped(node, since=1, make=Forgetful)
        if not changes_the_end(story, liar):
            continue
        executor = NativeExecutor(program, case.inputs)
        own = ForgetfulWitness(program, executor, case.inputs, case.state, 0, 3)
        game = court.open(story.context(liar))
        outcome = game.play(honest(liar, Role.DEFENDANT), honest(own, Role.CHALLENGER))
        assert outcome.convicted
        played += 1
        # What is kept is one node and what it reads, not the trace.
        assert len(own._trace(1)._kept) <= 9
    assert played >= 2


def test_outputs_of_a_forgotten_trace_are_not_overwritten_by_later_steps() -> None:
    case = case_of(sgd_regression(), wild=False)
    executor = NativeExecutor(case.program, case.inputs)
    trace = Trace(case.program, executor, case.state, 0, keep=0)
    last = len(case.program.nodes) - case.program.n_state - 1
    output = trace[last]
    before = output.copy()
    executor.step(case.state, 1)
    executor.trace(case.state, 2)
    assert np.array_equal(output, before)
