# SPDX-License-Identifier: GPL-3.0-or-later
"""What a caller sees of the executor's runtime: named values, destinations, threads."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import NumericsError, UsageError
from protocol.execution import Bits, Inputs
from protocol.executor import CompiledExecutor, schedule
from protocol.ops import Op
from protocol.program import Flat, Kind
from protocol.reference import ReferenceExecutor
from tests import hand_built as building
from tests.executing import assert_equal
from tests.hand_built import Builder, Case, case_of, expression
from tests.programs import cases

# Values of named nodes ---------------------------------------------------------------------------


@settings(max_examples=20)
@given(case=cases(), choice=st.randoms(use_true_random=False))
def test_watched_nodes_have_the_values_of_the_trace(case: Case, choice: Random) -> None:
    """Whatever else lives in the same memory while the step goes on."""
    numbers = range(len(case.program.nodes))
    chosen = choice.sample(numbers, min(len(numbers), 4))
    program = replace(case.program, names={f"node {n}": n for n in chosen})
    executor = CompiledExecutor(program, case.inputs, watch=tuple(program.names))
    wanted = executor.trace(case.state, case.step)
    executor.step(case.state, case.step)
    for name, number in program.names.items():
        assert_equal(executor.watched(name), wanted[number], name)


def test_watched_values_belong_to_the_caller_and_to_the_last_step() -> None:
    program = building.sgd_regression()
    last = len(program.nodes) - program.n_state - 1
    case = case_of(replace(program, names={"loss": last}), wild=False)
    executor = CompiledExecutor(case.program, case.inputs, watch=("loss",))
    with pytest.raises(UsageError, match="no step"):
        executor.watched("loss")
    first = executor.trace(case.state, 1)[last]
    executor.step(case.state, 0)
    executor.step(case.state, 1)
    executor.watched("loss")[...] = 0
    assert_equal(executor.watched("loss"), first, "loss")
    assert np.any(first)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    case = case_of(replace(building.adder(), names={"loss": 1}))
    with pytest.raises(UsageError, match="'lost'; its names: loss"):
        CompiledExecutor(case.program, case.inputs, watch=("lost",))
    executor = CompiledExecutor(case.program, case.inputs)
    executor.step(case.state, 0)
    with pytest.raises(UsageError, match="watches nothing"):
        executor.watched("loss")


# Where the new state goes ------------------------------------------------------------------------


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets threads share out even the smallest step."""
    monkeypatch.setattr(schedule, "CHUNK_WORK", 1)
    monkeypatch.setattr(schedule, "GROUP_WORK", 1)


def destinations(state: Sequence[Bits], choice: int) -> list[Bits]:
    """In place where a bit of `choice` is set, elsewhere in new memory full of rubbish."""
    return [
        tensor if choice >> index & 1 else np.full_like(tensor, 0xDEADBEEF)
        for index, tensor in enumerate(state)
    ]


def assert_any_destination(case: Case, choice: int, threads: int = 1) -> None:
    executor = CompiledExecutor(case.program, case.inputs, threads)
    reference = ReferenceExecutor(case.program, case.inputs)
    state = [tensor.copy() for tensor in case.state]
    wanted: Sequence[Bits] = case.state
    for step in range(3):
        wanted = reference.step(wanted, step)
        out = destinations(state, choice)
        found = executor.step(state, step, out=out)
        assert all(new is given for new, given in zip(found, out, strict=True))
        for s, (mine, other) in enumerate(zip(found, wanted, strict=True)):
            assert_equal(mine, other, f"step {step}, state {s}")
        state = found


@pytest.mark.usefixtures("small_chunks")
@settings(max_examples=30)
@given(case=cases(max_computed=8), choice=st.integers(0, 7), threads=st.sampled_from([1, 3]))
def test_new_state_goes_where_it_is_wanted_even_over_the_old(
    case: Case, choice: int, threads: int
) -> None:
    assert_any_destination(case, choice, threads)


@pytest.mark.parametrize("choice", range(16))
def test_outputs_that_name_each_others_inputs_are_right_in_place_too(choice: int) -> None:
    """Swapped, left alone, and twice the same node."""
    b = Builder()
    first, second, third, fourth = (b.leaf(Kind.INPUT, (20,), index=i) for i in range(4))
    body = expression([Flat(first), Flat(third)], (Op.ADD, (0, 1)))
    total = b.map((20,), body)
    for outputs in ([second, first, third, fourth], [total, total, first, first]):
        program = b.finish(outputs)
        assert_any_destination(case_of(program, wild=False), choice)
        del b.nodes[total + 1 :]


def test_double_buffering_allocates_nothing_and_keeps_the_bits() -> None:
    case = case_of(building.sgd_regression(), wild=False)
    executor = CompiledExecutor(case.program, case.inputs)
    state, other = [t.copy() for t in case.state], [np.empty_like(t) for t in case.state]
    wanted = list(case.state)
    for step in range(6):
        wanted = executor.step(wanted, step)
        state, other = executor.step(state, step, out=other), state
        for mine, fresh in zip(state, wanted, strict=True):
            assert_equal(mine, fresh, f"step {step}")


def read_only(tensor: Bits) -> Bits:
    copy = tensor.copy()
    copy.flags.writeable = False
    return copy


OTHERWISE: dict[str, Callable[[Sequence[Bits], Inputs], list[Bits]]] = {
    "missing": lambda state, _: list(state)[:-1],
    "read only": lambda state, _: [read_only(t) for t in state],
    "dtype": lambda state, _: [t.astype(np.int32) for t in state],  # type: ignore[misc]
    "shape": lambda state, _: [t.reshape(-1).copy() for t in state],
    "layout": lambda state, _: [np.asfortranarray(np.empty_like(t)) for t in state],
    "same twice": lambda state, _: [np.empty_like(state[0])] * 2,
    "another's": lambda state, _: [state[1], state[0]],
    "a view of its own": lambda state, _: [t[:] for t in state],
    "data": lambda state, inputs: [inputs.data[0], np.empty_like(state[1])],
}


@pytest.mark.parametrize("change", OTHERWISE.values(), ids=OTHERWISE)
def test_destinations_that_cannot_be_written_to_are_refused(
    change: Callable[[Sequence[Bits], Inputs], list[Bits]],
) -> None:
    b = Builder()
    p, q, data = b.leaf(Kind.INPUT, (3, 5)), b.leaf(Kind.INPUT, (3, 5), index=1), 2
    b.leaf(Kind.DATA, (3, 5))
    results = [b.map((3, 5), expression([Flat(n), Flat(data)], (Op.ADD, (0, 1)))) for n in (p, q)]
    case = case_of(b.finish(results))
    executor = CompiledExecutor(case.program, case.inputs)
    before = [tensor.copy() for tensor in case.state]
    with pytest.raises(UsageError):
        executor.step(case.state, 0, out=change(case.state, case.inputs))
    for tensor, copy in zip(case.state, before, strict=True):
        assert_equal(tensor, copy, "an argument")


# Threads -----------------------------------------------------------------------------------------


def helpers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "bitcourt-helper"]


@pytest.mark.usefixtures("small_chunks")
def test_helpers_have_their_own_environment_and_end_with_their_executor() -> None:
    case = case_of(building.sgd_regression(), wild=False)
    wanted = CompiledExecutor(case.program, case.inputs).step(case.state, 0)
    before = set(helpers())
    executor = CompiledExecutor(case.program, case.inputs, threads=3)
    torch.set_flush_denormal(True)  # a thread that is started now inherits it
    try:
        with pytest.raises(NumericsError):
            executor.step(case.state, 0)
    finally:
        torch.set_flush_denormal(False)
    for mine, other in zip(executor.step(case.state, 0), wanted, strict=True):
        assert_equal(mine, other, "state")
    started = set(helpers()) - before
    assert len(started) == 2
    del executor
    gc.collect()
    assert not any(helper.is_alive() for helper in started)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_starts_helpers_of_its_own() -> None:
    case = case_of(building.sgd_regression(), wild=False)
    executor = CompiledExecutor(case.program, case.inputs, threads=2)
    wanted = executor.step(case.state, 0)
    child = os.fork()
    if child == 0:
        found = executor.step(case.state, 0)
        same = all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
        os._exit(0 if same and len(helpers()) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.usefixtures("small_chunks")
@settings(max_examples=15)
@given(case=cases(max_computed=12), threads=st.integers(2, 6))
def test_random_steps_shared_among_many_threads_have_the_same_bits(
    case: Case, threads: int
) -> None:
    """Also where there are more threads than cores, and kernels are cut as finely as they go."""
    wanted = CompiledExecutor(case.program, case.inputs).trace(case.state, case.step)
    executor = CompiledExecutor(case.program, case.inputs, threads)
    for _ in range(5):
        for s, tensor in enumerate(executor.step(case.state, case.step)):
            assert_equal(tensor, wanted[case.program.output(s)], f"state {s}")
    for node, mine, other in zip(
        case.program.nodes, executor.trace(case.state, case.step), wanted, strict=True
    ):
        assert_equal(mine, other, node)
