# SPDX-License-Identifier: GPL-3.0-or-later
"""What a submitter may give as data, and how a job file that fails is told where."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bitcourt import Job, load_job
from protocol.encoding import program_root
from protocol.errors import TraceError, UsageError

INPUTS, TARGETS = torch.arange(12.0).reshape(6, 2), torch.arange(6.0).reshape(6, 1)
PAIRS = [(x, y) for x, y in zip(INPUTS, TARGETS, strict=True)]


class Examples(Dataset[object]):
    def __len__(self) -> int:
        return len(PAIRS)

    def __getitem__(self, index: int) -> object:
        return PAIRS[index]


def job_on(dataset: object, width: int = 2) -> Job:
    torch.manual_seed(0)
    module = torch.nn.Linear(width, 1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    return Job(module, torch.nn.functional.mse_loss, optimizer, dataset, batch_size=2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "dataset",
    [
        [INPUTS, TARGETS],
        TensorDataset(INPUTS, TARGETS),
        (INPUTS.numpy(), TARGETS.numpy()),
        (INPUTS.numpy()[::-1][::-1], TARGETS),
        (INPUTS.flip(0).numpy()[::-1], TARGETS),
        torch.utils.data.default_collate(list(Examples())),
    ],
    ids=["list", "TensorDataset", "arrays", "twice reversed", "reversed", "collated"],
)
def test_data_mean_the_same_however_they_are_given(dataset: object) -> None:
    plain, other = job_on((INPUTS, TARGETS)).bundle(), job_on(dataset).bundle()
    assert program_root(plain.program) == program_root(other.program)
    assert all(np.array_equal(a, b) for a, b in zip(plain.data, other.data, strict=True))


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (INPUTS, r"one tensor: write dataset=\(inputs, targets\)"),
        (INPUTS.numpy(), r"one tensor: write dataset=\(inputs, targets\)"),
        ((INPUTS,), "at least two tensors"),
        ((), "at least two tensors"),
        (PAIRS, r"list of examples.*default_collate"),
        (Examples(), r"a Examples, not tensors.*default_collate"),
        (DataLoader(TensorDataset(INPUTS, TARGETS)), r"DataLoader.*dataset=\(inputs, targets\)"),
        ({"x": INPUTS}, r"a dict: write dataset=\(inputs, targets\)"),
        (None, r"a NoneType: write dataset=\(inputs, targets\)"),
        ((INPUTS, [1.0] * 6), r"dataset\[1\] is a list, neither"),
        ((INPUTS, TARGETS[:5]), r"dataset\[0\] has 6, dataset\[1\] has 5"),
        ((INPUTS, torch.tensor(1.0)), r"dataset\[1\] of shape \(\) has no examples"),
        ((INPUTS[:0], TARGETS[:0]), r"dataset\[0\] of shape \(0, 2\) has no examples"),
        ((INPUTS.numpy().astype(float), TARGETS), r"dataset\[0\] has dtype .*64.*\.float\(\)"),
        ((np.array(["a"] * 6), TARGETS), r"dataset\[0\] has dtype <U1"),
    ],
    ids=range(15),
)
def test_data_of_another_kind_are_refused_with_what_to_write(dataset: object, words: str) -> None:
    with pytest.raises(TraceError, match=words):
        job_on(dataset).bundle()


# Job files ----------------------------------------------------------------------------------------

USES_A_NEIGHBOUR = """
import torch
from job_neighbour import WIDTH, checked
from bitcourt import Job

def job():
    module = torch.nn.Linear(checked(WIDTH), 1)
    return Job(module, torch.nn.functional.mse_loss, torch.optim.SGD(module.parameters(), 0.1),
               (torch.ones(4, WIDTH), torch.ones(4, 1)), batch_size=2)
"""
NEIGHBOUR = """
WIDTH = {}

def checked(width):
    if width < 1:
        raise ValueError("no width")
    return width
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a job and its neighbour, of which nothing stays in the process."""
    monkeypatch.delitem(sys.modules, "job_neighbour", raising=False)
    (tmp_path / "job_with_neighbour.py").write_text(USES_A_NEIGHBOUR)
    (tmp_path / "job_neighbour.py").write_text(NEIGHBOUR.format(3))
    return tmp_path


def test_a_job_imports_what_lies_beside_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(sys.path)
    monkeypatch.chdir(folder)
    assert load_job(Path("job_with_neighbour.py")).module.in_features == 3
    assert sys.path == before


def test_an_error_beside_a_job_is_told_with_its_file_and_line(folder: Path) -> None:
    (folder / "job_neighbour.py").write_text(NEIGHBOUR.format(0))
    before = list(sys.path)
    with pytest.raises(UsageError, match=r"job_neighbour\.py:6: ValueError: no width$"):
        load_job(folder / "job_with_neighbour.py")
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import torch\nimport no_such_thing", r"bad_job\.py:2: ModuleNotFoundError: No module"),
        ("def job():\n    raise ValueError('no\\ndata')", r"bad_job\.py:2: ValueError: no$"),
        ("x = 1\ndef job(:", r"bad_job\.py:2: SyntaxError: invalid syntax$"),
        (
            "import torch\ndef job():\n    return torch.ones(2) @ torch.ones(3)",
            r"bad_job\.py:3: RuntimeError",
        ),
        ("def job():\n    exec('1 / 0')", r"bad_job\.py:2: ZeroDivisionError"),
    ],
)
def test_an_error_in_a_job_is_told_with_its_file_and_line(
    tmp_path: Path, text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad_job.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=rf"bad_job\.py cannot be used: .*{words}"):
        load_job(tmp_path / "bad_job.py")
