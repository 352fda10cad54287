# SPDX-License-Identifier: GPL-3.0-or-later
"""What a caller sees of the compiled executor's runtime: values of named nodes after a step."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import UsageError
from protocol.executor import CompiledExecutor
from tests import hand_built as building
from tests.executing import assert_equal
from tests.hand_built import Case, case_of
from tests.programs import cases


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
