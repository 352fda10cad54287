# SPDX-License-Identifier: GPL-3.0-or-later
"""What a submitter writes: a model, a loss, an optimizer and data, as in any PyTorch script."""

from __future__ import annotations

import importlib.util
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from protocol.bundle import Bundle
from protocol.errors import BitcourtError, TraceError, UsageError
from protocol.execution import Bits

if TYPE_CHECKING:  # torch takes seconds to import, and most commands do without it
    import numpy as np
    import torch
    from torch.optim.lr_scheduler import LRScheduler
    from torch.utils.data import TensorDataset

Loss = Callable[..., "torch.Tensor"]
Metric = Callable[["torch.nn.Module"], float]


@dataclass
class Job:
    """A training job.

    `dataset` is `(*inputs, targets)`, tensors or arrays whose first axes are the examples, or a
    `TensorDataset` of them; every step draws `batch_size` at random, with replacement, from the
    task's seed. `metric` scores a
    trained module (such as accuracy on held-out data); `steps` and `segment_steps` are defaults.

    `scheduler` (of `torch.optim.lr_scheduler`, stepped once a step) is tabulated for `steps` steps.
    `accumulate`, `clip_norm` and `clip_value` are as in `protocol.tracing.trace`.
    """

    module: torch.nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    dataset: Sequence[torch.Tensor | np.ndarray] | TensorDataset
    batch_size: int
    steps: int = 1000
    segment_steps: int = 100
    metric: Metric | None = None
    scheduler: LRScheduler | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    clip_value: float | None = None

    def bundle(self) -> Bundle:
        """Traces one training step and packs it with the initial state and the data."""
        from protocol.tracing import trace

        # What goes wrong in it is raised as well: no need for a page of log.
        logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
        try:
            traced = trace(
                self.module,
                self.loss,
                self.optimizer,
                dataset=self.dataset,
                batch_size=self.batch_size,
                scheduler=self.scheduler,
                steps=self.steps,
                accumulate=self.accumulate,
                clip_norm=self.clip_norm,
                clip_value=self.clip_value,
            )
        except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise TraceError(f"the training step itself fails: {_line(error)}") from error
        return Bundle(traced.program, traced.state, traced.constants, traced.data)

    def load_state(self, names: Sequence[str], state: Sequence[Bits]) -> torch.nn.Module:
        """The module with the parameters and buffers of a trained state. Changes it in place."""
        import torch

        own = self.module.state_dict()
        prefix = "model."
        for name, bits in zip(names, state, strict=True):
            if not name.startswith(prefix):
                continue  # the optimizer's
            tensor = own.get(name.removeprefix(prefix))
            if tensor is None or tensor.numel() != bits.size:
                raise UsageError(f"the job's module has no tensor like the trained {name!r}")
            trained = torch.from_numpy(bits.view("int32")).reshape(tensor.shape)
            tensor.copy_(trained.view(torch.float32) if tensor.is_floating_point() else trained)
        return self.module


def load_job(path: Path) -> Job:
    """The job that a Python file's function `job()` returns.

    The file may import what lies beside it, as a script may.
    """
    spec = importlib.util.spec_from_file_location(f"bitcourt_job_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with _importable(path.resolve().parent):
            spec.loader.exec_module(module)
            if not hasattr(module, "job"):
                raise UsageError(f"{path} must define job() -> bitcourt.Job")
            job = module.job()
    except BitcourtError:
        raise
    except Exception as error:  # anything may go wrong in somebody else's file
        place = _place(error, path.resolve().parent)
        raise UsageError(f"{path} cannot be used: {place}{_line(error)}") from error
    if not isinstance(job, Job):
        raise UsageError(f"job() in {path} returned {type(job).__name__}, not bitcourt.Job")
    return job


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Lets modules in a folder be imported, before all others."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(folder))


def _place(error: Exception, folder: Path) -> str:
    """File and line of the innermost call in a file of that folder."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: "
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)  # or a name in angle brackets
        if file.is_file() and file.resolve().parent == folder:
            return f"{frame.filename}:{frame.lineno}: "
    return ""


def _line(error: Exception) -> str:
    """Kind and first line of an error."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {(text.splitlines() or [''])[0]}"
