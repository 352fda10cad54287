# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints that are hashed and written while training goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.background import StateWriter
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
    """Hashing waits until this is set."""
    event, name = threading.Event(), Store.name_tensors

    def slow(*args: Any, **options: Any) -> bytes:
        assert event.wait(60)
        return name(*args, **options)

    monkeypatch.setattr(Store, "name_tensors", slow)
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
    checkpoints.begin(later(1))  # returns although nothing can be hashed yet
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

        patch.setattr(Store, "_move", full)
        checkpoints.begin(later(1))
        with pytest.raises(ArtifactError, match="disk is full"):
            surfaces(checkpoints)
    assert checkpoints.begun == len(checkpoints) == 1  # raised once
    assert checkpoints.append(later(1)) == state_root(later(1))
    assert len(Checkpoints(tmp_path, BUNDLE)) == 2


def test_a_checkpoint_for_which_there_is_no_room_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, BUNDLE)
    before = sorted(tmp_path.rglob("*"))

    def full(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("protocol.tensor_file.as_bytes", full)
        with pytest.raises(ArtifactError, match="No space left on device"):
            checkpoints.begin(later(1))
    assert sorted(tmp_path.rglob("*")) == before
    number, state = checkpoints.take()
    assert (checkpoints.begun, number) == (1, 0)
    assert state_root(state) == state_root(CASE.state)


# Whose the arrays are ---------------------------------------------------------------------------


def test_what_is_taken_may_be_written_over_while_it_is_being_hashed(
    tmp_path: Path, gate: threading.Event
) -> None:
    checkpoints, given = opened(tmp_path, gate), later(1)
    checkpoints.begin(given)
    number, taken = checkpoints.take()
    assert number == 1
    assert all(mine is theirs for mine, theirs in zip(taken, given, strict=True))  # no copy
    for tensor in taken:
        tensor += np.uint32(7)
    gate.set()
    assert checkpoints.roots[1] == state_root(later(1))
    number, again = checkpoints.take()  # whoever took it has lost it
    assert (number, state_root(again)) == (1, state_root(later(1)))


def test_a_checkpoint_that_is_there_at_once_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, begin = Checkpoints(tmp_path, BUNDLE), StateWriter.begin

    def at_once(self: StateWriter, *args: Any) -> None:
        begin(self, *args)
        self.settle()

    monkeypatch.setattr(StateWriter, "begin", at_once)
    checkpoints.begin(later(1))
    assert checkpoints.begun == len(checkpoints) == 2


def test_nobody_gets_the_arrays_of_the_bundle_or_of_somebody_else(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, BUNDLE)
    first, (_, second), third = checkpoints.state(0), checkpoints.take(), checkpoints.state(0)
    arrays = [*BUNDLE.state, *first, *second, *third]
    assert len({array.ctypes.data for array in arrays}) == len(arrays)
    assert state_root(first) == state_root(second) == state_root(BUNDLE.state)


def test_a_damaged_checkpoint_is_named_and_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = Checkpoints(tmp_path, BUNDLE).append(later(1))
    file = tmp_path / "tensors" / f"{root.hex()}.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    checkpoints = Checkpoints(tmp_path, BUNDLE)
    assert len(checkpoints) == 1
    assert file.name in caplog.text
    assert checkpoints.append(later(1)) == root
    assert state_root(Checkpoints(tmp_path, BUNDLE).state(1)) == root


@pytest.mark.parametrize("torn", [0, 1, 64, 65, 66, 129, 130, 190, 195])
@pytest.mark.parametrize("rest", [b"", b"\n", b"0\n", b"not a root\xff" * 20])
def test_an_index_that_was_torn_is_good_up_to_there_and_goes_on(
    tmp_path: Path, torn: int, rest: bytes
) -> None:
    checkpoints = Checkpoints(tmp_path, BUNDLE)
    for step in (1, 2):
        checkpoints.append(later(step))
    index = tmp_path / "roots"
    index.write_bytes(index.read_bytes()[:torn] + rest)
    whole = max(1, torn // 65)  # the first is the bundle's own
    if rest == b"\n" and torn % 65 == 64:
        whole = torn // 65 + 1
    for step in range(whole, 4):
        again = Checkpoints(tmp_path, BUNDLE)
        assert again.roots == [state_root(later(i)) for i in range(step)]
        again.append(later(step))
    assert Checkpoints(tmp_path, BUNDLE).roots == [state_root(later(i)) for i in range(4)]


def test_an_index_for_which_there_is_no_room_is_an_error_and_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, BUNDLE)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("solver.checkpoints.os.fsync", full)
        with pytest.raises(ArtifactError, match="No space left on device"):
            checkpoints.append(later(1))
    assert len(checkpoints) == 1
    checkpoints.append(later(2))
    assert Checkpoints(tmp_path, BUNDLE).roots == [state_root(later(i)) for i in (0, 2)]
