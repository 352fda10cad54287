# SPDX-License-Identifier: GPL-3.0-or-later
"""Training without a chain: same bits whenever and however often it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from bitcourt import Job, Trainer, cli
from protocol.errors import ArtifactError, BitcourtError, NumericsError, UsageError
from protocol.execution import Bits
from protocol.reference import ReferenceExecutor
from protocol.store import Store
from tests.tracing_support import CLASSES, small_mlp

JOB = """
import torch
from bitcourt import Job

def job():
    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    return Job(module, torch.nn.functional.mse_loss, optimizer,
               (torch.ones(6, 3), torch.ones(6, 2)), batch_size=2, steps=7,
               scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 3),
               metric=lambda module: 0.5)
"""


def make_job() -> Job:
    module = small_mlp()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    loss = torch.nn.functional.cross_entropy
    return Job(module, loss, optimizer, CLASSES, batch_size=4)


def make(out: Path, **options: object) -> Trainer:
    return Trainer(make_job(), out, checkpoint_every=4, threads=1, **options)  # type: ignore[arg-type]


def test_a_run_in_pieces_has_the_bits_of_one_in_one_go(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole")
    losses = whole.run(11)
    pieces = make(tmp_path / "pieces")
    found = pieces.run(5)
    again = make(tmp_path / "pieces", resume=True)
    assert again.step == 5
    found += again.run(6)
    assert (found, again.root) == (losses, whole.root)
    assert [c.step for c in whole.checkpoints] == [0, 4, 8, 11]
    assert [c.step for c in again.checkpoints] == [0, 4, 5, 8, 11]


def test_the_bits_are_those_of_the_reference(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    reference = ReferenceExecutor(trainer.program, trainer.inputs)
    state: list[Bits] = trainer.state
    trainer.run(3)
    for step in range(3):
        state = reference.step(state, step)
    assert all((a == b).all() for a, b in zip(state, trainer.state, strict=True))


def test_segments_replay_to_their_roots_and_forged_ones_do_not(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.run(9)
    assert trainer.replay(0, 8)
    assert trainer.replay(8, 9)
    with pytest.raises(UsageError, match="no checkpoint at step 3; there are 0, 4, 8, 9"):
        trainer.replay(3, 8)
    with pytest.raises(UsageError, match="back to"):
        trainer.replay(8, 4)
    lines = (tmp_path / "run.jsonl").read_text().splitlines()
    lines[3] = json.dumps({**json.loads(lines[4]), "step": 8})
    (tmp_path / "run.jsonl").write_text("\n".join(lines))
    assert not make(tmp_path, resume=True).replay(4, 8)


def test_the_trained_module_comes_back_to_torch(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.run(6)
    trainer.export(tmp_path / "model.safetensors")
    loaded = small_mlp()
    loaded.load_state_dict(load_file(tmp_path / "model.safetensors"))
    inputs, targets = CLASSES
    with torch.no_grad():
        before = torch.nn.functional.cross_entropy(small_mlp()(inputs), targets)
        after = torch.nn.functional.cross_entropy(loaded(inputs), targets)
        assert torch.equal(loaded(inputs), trainer.module(inputs))
    assert after < before


def test_an_interrupt_leaves_a_checkpoint_of_the_last_step(tmp_path: Path) -> None:
    trainer = make(tmp_path)

    def interrupt(step: int, loss: float) -> None:
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(50, interrupt)
    resumed = make(tmp_path, resume=True)
    assert (resumed.step, resumed.root) == (6, trainer.root)


# One state in memory ------------------------------------------------------------------------------


def test_steps_are_done_in_place_and_checkpoints_are_hashed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(tmp_path / "whole")
    whole.run(8)
    trainer = make(tmp_path / "gated")
    arrays, gate, name = list(trainer._state), threading.Event(), Store.name_tensors

    def slow(*args: Any, **options: Any) -> bytes:
        assert gate.wait(60)
        return name(*args, **options)

    monkeypatch.setattr(Store, "name_tensors", slow)

    def show(step: int, _loss: float) -> None:
        if step == 7:  # the checkpoint at step 4 has not got its name yet
            assert [c.step for c in trainer._checkpoints] == [0]
            gate.set()

    trainer.run(8, show)
    assert trainer.checkpoints == whole.checkpoints
    assert all(mine is one for mine, one in zip(trainer._state, arrays, strict=True))
    assert all(trainer.state[n] is not mine for n, mine in enumerate(arrays))
    assert trainer.replay(4, 8)


def test_a_step_that_fails_puts_training_back_to_the_newest_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(tmp_path / "whole")
    losses = whole.run(8)
    trainer = make(tmp_path / "failing")
    update = trainer._executor.update

    def fail(state: list[Bits], step: int) -> None:
        if step == 6:
            for tensor in state:
                tensor[...] = 0
            raise NumericsError("the machine failed")
        update(state, step)

    with monkeypatch.context() as patch:
        patch.setattr(trainer._executor, "update", fail)
        with pytest.raises(NumericsError):
            trainer.run(8)
    assert (trainer.step, trainer.losses) == (4, losses[:4])
    assert [c.step for c in trainer.checkpoints] == [0, 4]
    assert trainer.run(4) == losses[4:]
    assert trainer.checkpoints == whole.checkpoints


def test_an_interrupt_within_a_step_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path)
    update = trainer._executor.update

    def interrupted(state: list[Bits], step: int) -> None:
        if step == 5:
            signal.raise_signal(signal.SIGINT)
        update(state, step)

    monkeypatch.setattr(trainer._executor, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(50)
    assert len(trainer.losses) == 6
    resumed = make(tmp_path, resume=True)
    assert (resumed.step, resumed.root) == (6, trainer.root)


def test_the_file_of_the_model_is_the_librarys(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.run(2)
    trainer.export(tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == save(trainer.state_dict())


# What can go wrong with files ---------------------------------------------------------------------


def newest(trainer: Trainer) -> Path:
    return trainer.out / "tensors" / f"{trainer.checkpoints[-1].root.hex()}.safetensors"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone", "pickle"])
def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make(tmp_path)
    trainer.run(8)
    file = newest(trainer)
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[-1] ^= 1
    file.unlink()
    if damage != "gone":
        file.write_bytes(
            content[: len(content) // 2] if damage == "truncated"
            else b"\x80\x04cos\nsystem\n" if damage == "pickle" else content
        )  # fmt: skip
    resumed = make(tmp_path, resume=True)
    assert resumed.step == 4
    assert "the checkpoint at step 8 is skipped" in caplog.text
    assert file.name in caplog.text
    resumed.run(4)
    assert resumed.root == trainer.root
    assert make(tmp_path, resume=True).step == 8, "written anew"


def test_a_directory_without_a_whole_checkpoint_is_refused(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    for file in (tmp_path / "tensors").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"no checkpoint in .* is whole"):
        make(tmp_path, resume=True)
    assert trainer.step == 0


@pytest.mark.parametrize(
    "text",
    ["", "5\n", "[" * 100_000, '{}\n{"step": 1}', "{}\n5", '{}\n{"step": 1, "root": "00"}'],
)
def test_a_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    make(tmp_path)
    (tmp_path / "run.jsonl").write_text(text)
    with pytest.raises(ArtifactError, match=r"run\.jsonl is damaged"):
        make(tmp_path, resume=True)


def test_where_there_is_no_run_none_is_resumed(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="holds no run that could be resumed"):
            make(out, resume=True)
    assert not list(tmp_path.iterdir())


def test_a_run_is_neither_overwritten_nor_taken_for_another_jobs(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(UsageError, match="already holds a run"):
        make(tmp_path)
    with pytest.raises(ArtifactError, match="another seed than this job"):
        make(tmp_path, resume=True, seed=5)
    other = make_job()
    other.batch_size = 5
    with pytest.raises(ArtifactError, match="another program"):
        Trainer(other, tmp_path, resume=True)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path)
    trainer.run(4)
    index = (tmp_path / "run.jsonl").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(BitcourtError, match="No space left on device"):
            trainer.run(4)
    assert (tmp_path / "run.jsonl").read_bytes() == index
    assert not list(tmp_path.rglob("*.part"))
    assert make(tmp_path, resume=True).step == 4


# Commands -----------------------------------------------------------------------------------------


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bitcourt", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0), *capsys.readouterr()


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "some_job.py"
    path.write_text(JOB)
    return path


def test_trace_and_inspect(
    job_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = command(capsys, "trace", job_file, "--out", tmp_path / "store", "--json")
    assert code == 0
    traced = json.loads(out)
    single = tmp_path / "program.bin"
    assert command(capsys, "trace", job_file, "--out", single)[0] == 0
    for target in (job_file, tmp_path / "store", single):
        code, out, _ = command(capsys, "inspect", target, "--json")
        found = json.loads(out)
        assert code == 0
        assert (found["program"], found["nodes"]) == (traced["program"], traced["nodes"])
        assert found["largest"][0]["family"] in found["flops_by_family"]
        assert sum(found["flops_by_family"].values()) == found["flops"]
    assert "matmul" in command(capsys, "inspect", single)[1]
    single.write_bytes(single.read_bytes()[:-3])
    for target, words in ((single, "is not a valid program"), (tmp_path / "no", "neither")):
        code, out, err = command(capsys, "inspect", target)
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert words in err


def test_train_and_resume(
    job_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ("train", job_file, "--out", tmp_path / "run", "--threads", 1, "--json")
    code, out, _ = command(capsys, *run, "--steps", 3)
    *lines, last = map(json.loads, out.splitlines())
    assert code == 0
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert last["loss"] == lines[-1]["loss"]
    code, out, err = command(capsys, *run)
    assert (code, out) == (1, "")
    assert "already holds a run" in err
    code, out, _ = command(capsys, *run, "--resume")  # to the job's seven steps
    resumed = [json.loads(line) for line in out.splitlines()]
    assert [line["step"] for line in resumed[:-1]] == [4, 5, 6, 7]
    assert resumed[-1]["metric"] == 0.5
    other = ("train", job_file, "--out", tmp_path / "other", "--threads", 2, "--steps", 7)
    code, out, _ = command(capsys, *other)
    assert code == 0
    assert resumed[-1]["root"] in out
    assert set(load_file(tmp_path / "other" / "model.safetensors")) == {
        "0.weight", "0.bias", "2.weight", "2.bias",
    }  # fmt: skip


def test_a_loss_that_is_no_number_any_more_is_null_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "diverging.py"
    path.write_text(
        JOB.replace("torch.optim.AdamW(module.parameters(), lr=0.01)",
                    "torch.optim.SGD(module.parameters(), lr=1e30)")
        .replace("metric=lambda module: 0.5", "metric=lambda module: float('inf')")
    )  # fmt: skip

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    code, out, _ = command(capsys, "train", path, "--out", tmp_path / "run", "--json")
    lines = [json.loads(line, parse_constant=refuse) for line in out.splitlines()]
    assert code == 0
    assert lines[0]["loss"] is not None
    assert lines[-2] == {"step": 7, "loss": None}
    assert (lines[-1]["loss"], lines[-1]["metric"]) == (None, None)


def test_resuming_no_run_is_an_error(
    job_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "nothing"
    code, shown, err = command(capsys, "train", job_file, "--out", out, "--resume")
    assert (code, shown, out.exists()) == (1, "", False)
    assert "holds no run that could be resumed" in err
