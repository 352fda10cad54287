# SPDX-License-Identifier: GPL-3.0-or-later
"""Training on this machine, without any chain: the same bits that a solver would commit to.

The directory of a run is a store (`protocol.store`): the program and every checkpoint's tensors
under their roots, in safetensors. `run.jsonl` says whose run it is and lists the checkpoints, one a
line; it is replaced as a whole after each one has been written, so whatever moment the process dies
at, a resumed run goes on from the newest checkpoint that is whole.

There is one state in memory. Steps are done in place, and a checkpoint is hashed from its file.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcourt.interrupts import Interrupts
from bitcourt.job import Job, load_job
from protocol import tensor_file
from protocol.background import StateWriter
from protocol.bundle import state_layout
from protocol.commitments import inputs_root, state_root
from protocol.encoding import program_root
from protocol.errors import ArtifactError, UsageError
from protocol.execution import Bits, Inputs
from protocol.files import write_whole
from protocol.program import Program
from protocol.store import Store

if TYPE_CHECKING:  # torch takes seconds to import
    import torch

INDEX = "run.jsonl"
MAX_LINE = 500
"""Longest line of the index that is parsed: it also bounds how deep its JSON can nest."""
OnStep = Callable[[int, float], None]

log = logging.getLogger("bitcourt")


@dataclass(frozen=True)
class Checkpoint:
    """A stored state: `step` is the number of steps done, `root` the state root of section 4."""

    step: int
    root: bytes


def seed_of(number: int) -> bytes:
    """Return the 32-byte task seed that a whole number stands for: SHA-256 of its decimal text."""
    return sha256(f"bitcourt seed {number}".encode()).digest()


class Trainer:
    """Trains a job step by step and keeps checkpoints.

    `losses` are those of the steps done by this object.
    """

    def __init__(
        self,
        job: Job | Path | str,
        out: Path | str,
        *,
        seed: int | bytes = 0,
        threads: int | None = None,
        checkpoint_every: int = 100,
        resume: bool = False,
    ) -> None:
        """Trace and compile the job; `job` may be the path of a job file.

        `seed` decides every batch and dropout mask (an integer, or a task's 32 bytes). `threads`
        are as many as there are cores unless given, and never change a bit. Raises UsageError if
        `out` already holds a run and `resume` is false, or holds none and it is true; ArtifactError
        if the run to be resumed is another job's or has no checkpoint that is whole.
        """
        from protocol.executor import CompiledExecutor

        if checkpoint_every < 1:
            raise UsageError(f"checkpoints are at least one step apart, not {checkpoint_every}")
        self.job = job if isinstance(job, Job) else load_job(Path(job))
        self.out = Path(out)
        if self._index.exists() and not resume:
            raise UsageError(f"{self.out} already holds a run: resume it or name another directory")
        if resume and not self._index.exists():
            raise UsageError(f"{self.out} holds no run that could be resumed: begin one there")
        self.seed = seed if isinstance(seed, bytes) else seed_of(seed)
        self.checkpoint_every = checkpoint_every
        self.losses: list[float] = []
        bundle = self.job.bundle()
        self.program: Program = bundle.program
        self.inputs: Inputs = bundle.inputs(self.seed)
        self._state, self._step = bundle.state, 0
        self._checkpoints: list[Checkpoint] = []
        self._identity = {
            "program": program_root(self.program).hex(),
            "constants": inputs_root(bundle.constants).hex(),
            "data": inputs_root(bundle.data).hex(),
            "seed": self.seed.hex(),
        }
        del bundle  # and with it, once another state takes its place, the initial one
        _trim()
        self._layout = state_layout(self.program)
        self._store = Store(str(self.out))
        if resume:
            self._resume()
        self._writer = StateWriter(self._store, self.program, self._layout)
        self._executor = CompiledExecutor(
            self.program,
            self.inputs,
            threads or len(os.sched_getaffinity(0)),
            watch=("loss",),
        )
        if not self._checkpoints:
            self._store.put_program(self.program)
            self.save()

    @property
    def state(self) -> list[Bits]:
        """A copy of the current state tensors: bit patterns, in program order."""
        return [tensor.copy() for tensor in self._state]

    @property
    def step(self) -> int:
        """Number of steps done."""
        return self._step

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints, oldest first. Waits for the one that is being written."""
        self._writer.settle()
        return list(self._checkpoints)

    def run(self, steps: int, on_step: OnStep | None = None) -> list[float]:
        """Do `steps` more steps and return their losses; `on_step(steps done, loss)` after each.

        Checkpoints are made whenever the step count is a multiple of `checkpoint_every`, and at the
        end, even if `on_step` raises or the user interrupts: Ctrl-C waits for the end of a step.
        They are hashed while training goes on. If a step fails, training is back at the newest one.
        """
        first = len(self.losses)
        with Interrupts() as interrupts:
            try:
                for _ in range(steps):
                    with interrupts.held:
                        self._do_step()
                    if self.step % self.checkpoint_every == 0:
                        with interrupts.held:
                            self._begin()
                    if on_step is not None:
                        on_step(self.step, self.losses[-1])
            finally:
                with interrupts.held:
                    self._begin()
                self._writer.settle()
        return self.losses[first:]

    def save(self) -> Checkpoint:
        """Write a checkpoint of the current state, unless there is one, and return it."""
        self._begin()
        return self.checkpoints[-1]

    def _begin(self) -> None:
        """Begin to write a checkpoint of the current state, unless there is one."""
        self._writer.settle()
        step = self._step
        if self._state and (not self._checkpoints or self._checkpoints[-1].step != step):
            self._writer.begin(self._state, lambda root: self._list(Checkpoint(step, root)))

    def _list(self, made: Checkpoint) -> None:
        listed = [*self._checkpoints, made]
        self._write_index(listed)
        self._checkpoints = listed

    def _do_step(self) -> None:
        """Do one step in place."""
        try:
            self._executor.update(self._state, self._step)
        except BaseException:
            self._go_back()
            raise
        self._step += 1
        self.losses.append(float(self._executor.watched("loss").view(np.float32)))

    def _go_back(self) -> None:
        """Go back to the newest checkpoint, since the state may be half written over."""
        self._state = []
        with suppress(ArtifactError):  # of the checkpoint that was being written
            self._writer.settle()
        newest = self._checkpoints[-1]
        lost, self._step = self._step - newest.step, newest.step
        self._state = self.load(newest)
        del self.losses[max(0, len(self.losses) - lost) :]

    @property
    def root(self) -> bytes:
        """State root of the current state."""
        return state_root(self._state)

    @property
    def module(self) -> torch.nn.Module:
        """The job's module with the trained parameters and buffers loaded into it."""
        return self.job.load_state(self.program.state_names, self._state)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the trained module's `state_dict`: a copy, frozen parameters included."""
        return {name: tensor.clone() for name, tensor in self.module.state_dict().items()}

    def export(self, path: Path | str) -> None:
        """Write the trained module's `state_dict` as a safetensors file, which is there at once."""
        tensors = self.module.state_dict()
        arrays = {name: tensor.cpu().contiguous().numpy() for name, tensor in tensors.items()}
        write_whole(Path(path), tensor_file.parts(arrays))

    def load(self, checkpoint: Checkpoint) -> list[Bits]:
        """Return the state of a checkpoint; ArtifactError unless it is what its root says."""
        return self._store.get_tensors(checkpoint.root, self._layout)

    def replay(self, first: int, last: int) -> bool:
        """Execute again from the checkpoint at step `first` to that at `last`; compare roots.

        Raises UsageError where there is no such checkpoint.
        """
        start, end = self._at(first), self._at(last)
        if start.step > end.step:
            raise UsageError(f"cannot replay from step {first} back to step {last}")
        state = self.load(start)
        for step in range(start.step, end.step):
            self._executor.update(state, step)
        return state_root(state) == end.root

    def _at(self, step: int) -> Checkpoint:
        for checkpoint in self.checkpoints:
            if checkpoint.step == step:
                return checkpoint
        known = ", ".join(str(checkpoint.step) for checkpoint in self.checkpoints)
        raise UsageError(f"there is no checkpoint at step {step}; there are {known}")

    # The index ------------------------------------------------------------------------------------

    @property
    def _index(self) -> Path:
        return self.out / INDEX

    def _write_index(self, checkpoints: list[Checkpoint]) -> None:
        listed = [{"step": c.step, "root": c.root.hex()} for c in checkpoints]
        lines = [json.dumps(line) for line in (self._identity, *listed)]
        write_whole(self._index, "".join(f"{line}\n" for line in lines).encode())

    def _resume(self) -> None:
        """Take up the newest checkpoint that is whole."""
        identity, found = _read_index(self._index)
        for name, wanted in self._identity.items():
            if identity.get(name) != wanted:
                raise ArtifactError(f"{self.out} holds a run with another {name} than this job's")
        self._state = []
        while found:
            try:
                self._state, self._step = self.load(found[-1]), found[-1].step
            except ArtifactError as error:
                log.warning("%s: the checkpoint at step %s is skipped: %s",
                            self.out, found[-1].step, error)  # fmt: skip
                found.pop()  # the one before it costs time only
                continue
            self._checkpoints = found
            return
        raise ArtifactError(f"no checkpoint in {self.out} is whole: start anew elsewhere")


def _trim() -> None:
    """Give the memory that tracing has left free back to the system, where the C library can."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _read_index(path: Path) -> tuple[dict[str, Any], list[Checkpoint]]:
    """Return whose run it is, and its checkpoints; ArtifactError for anything but an index."""
    try:
        first, *rest = path.read_text(encoding="utf-8").splitlines()
        if max(map(len, (first, *rest))) > MAX_LINE:
            raise ValueError(f"a line has more than {MAX_LINE} characters")
        identity = dict(json.loads(first))
        entries = [json.loads(line) for line in rest]
        checkpoints = [Checkpoint(int(e["step"]), bytes.fromhex(e["root"])) for e in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged: {error!r}") from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error}") from None
    steps = [checkpoint.step for checkpoint in checkpoints]
    if any(len(c.root) != 32 for c in checkpoints) or steps != sorted(set(steps)):
        raise ArtifactError(f"{path} is damaged: its checkpoints are not in order")
    if steps and not 0 <= steps[0] <= steps[-1] < 1 << 64:
        raise ArtifactError(f"{path} is damaged: a step is not a u64")
    return identity, checkpoints
