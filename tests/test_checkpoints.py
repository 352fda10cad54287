# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints that are hashed and written while training goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.bundle import Bundle
from protocol.commitments import state_root
from protocol.errors import ArtifactError
from protocol.execution import Bits
from protocol.store import Store
from solver.checkpoints import Checkpoints
from tests.hand_built import case_of, sgd_regression

CASE = case_of(sgd_regression())
BUNDLE = Bundle(CASE.program, list(CASE.state), list(CASE.inputs.constants), list(CASE.inputs.data))


def later(step: int) -> list[Bits]:
    return [tensor + np.uint32(step) for tensor in CASE.state]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writing waits until this is set."""
    event, put = threading.Event(), Store.put_tensors

    def slow(*args: Any, **options: Any) -> bytes:
        assert event.wait(60)
        return put(*args, **options)

    monkeypatch.setattr(Store, "put_tensors", slow)
    return event


def opened(folder: Path, gate: threading.Event) -> Checkpoints:
    gate.set()
    checkpoints = Checkpoints(folder, BUNDLE)
    gate.clear()
    return checkpoints


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, gate: threading.Event
) -> None:
    checkpoints = opened(tmp_path, gate)
    checkpoints.begin(later(1))  # returns although nothing can be written yet
    assert len(Checkpoints(tmp_path, BUNDLE)) == 1  # what a process that is killed now leaves
    gate.set()
    checkpoints.begin(later(2))
    assert checkpoints.roots == [state_root(later(step)) for step in range(3)]
    assert len(Checkpoints(tmp_path, BUNDLE)) == 3
    for step in range(3):
        for mine, wanted in zip(checkpoints.state(step), later(step), strict=True):
            assert np.array_equal(mine, wanted)


@pytest.mark.parametrize("surfaces", [Checkpoints.settle, len, lambda c: c.begin(later(2))])
def test_a_checkpoint_that_cannot_be_written_is_an_error_and_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surfaces: Callable[[Checkpoints], object]
) -> None:
    checkpoints = Checkpoints(tmp_path, BUNDLE)
    with monkeypatch.context() as patch:

        def full(*_args: Any) -> None:
            raise ArtifactError("the disk is full")

        patch.setattr(Store, "_put", full)
        checkpoints.begin(later(1))
        with pytest.raises(ArtifactError, match="disk is full"):
            surfaces(checkpoints)
    assert len(checkpoints) == 1  # raised once
    assert checkpoints.append(later(1)) == state_root(later(1))
    assert len(Checkpoints(tmp_path, BUNDLE)) == 2
