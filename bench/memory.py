# SPDX-License-Identifier: GPL-3.0-or-later
"""Peak memory of training against stock PyTorch: `python -m bench.memory SIDE BUNDLE MODEL`.

Each side works in a process of its own and reports how far its resident memory rose above what it
had with everything imported and nothing loaded. All hold parameters, optimizer state and data.

`replay` does steps in place, as solver, verifier and `bitcourt train` do, on a program and tensors
that were traced elsewhere: what a node of the market needs, without torch. `trainer` is all that a
user runs, `bitcourt.Trainer` from the module to the exported model: tracing, the first checkpoint,
one that is hashed while training goes on, the last one. It holds the module and its tracing as
well, which take some ten MiB whatever the model. `eager` trains the same module in stock PyTorch,
and neither saves nor exports it.
"""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from bench.measure import Result

STEPS: Final = 4
SIDES: Final = ("replay", "trainer", "eager")
FIGURES: Final = {"replay": "peak_memory_ratio", "trainer": "trainer_memory_ratio"}


def _resident(field: str) -> int:
    """Return a figure of /proc/self/status in bytes (proc(5)): VmRSS or VmHWM, the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return 1024 * int(value.split()[0])
    raise RuntimeError(f"no {field} in /proc/self/status")


def _replay(bundle: str) -> Callable[[], None]:
    import protocol.bundle  # noqa: F401 - before the measurement begins
    from protocol.executor import CompiledExecutor, self_check

    self_check()

    def train() -> None:
        with Path(bundle).open("rb") as file:
            loaded = pickle.load(file)
        executor = CompiledExecutor(loaded.program, loaded.inputs(bytes(32)))
        state = loaded.state
        for step in range(STEPS):
            executor.update(state, step)

    return train


def _trainer(name: str) -> Callable[[], None]:
    import torch

    from bench.models import model
    from bitcourt import Job, Trainer

    def run(job: Job) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(job, Path(folder), threads=1, checkpoint_every=STEPS // 2)
            trainer.run(STEPS)
            trainer.export(Path(folder) / "model.safetensors")

    # What the first trace loads has nothing to do with the model.
    layer, ones = torch.nn.Linear(2, 2), torch.ones(4, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    run(Job(layer, torch.nn.functional.mse_loss, optimizer, (ones, ones), 2))

    def train() -> None:
        m = model(name)
        run(Job(m.module, m.loss, m.optimizer, m.dataset, m.batch_size))

    return train


def _eager(name: str) -> Callable[[], None]:
    import torch

    from bench.models import model

    torch.set_num_threads(1)
    # What the first backward pass and optimizer step load has nothing to do with the model.
    weight = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()

    def train() -> None:
        step = model(name).eager()
        for _ in range(STEPS):
            step()

    return train


def _measure(side: str, bundle: str, name: str) -> int:
    """Return the bytes by which training raises this process's peak."""
    makers = {"replay": partial(_replay, bundle), "trainer": partial(_trainer, name)}
    train = makers.get(side, partial(_eager, name))()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far (proc(5))
    before = _resident("VmRSS")
    train()
    return _resident("VmHWM") - before


def memory() -> Iterator[Result]:
    """All models, one thread."""
    from bench.models import NAMES, missing, model

    for name in NAMES:
        if missing(name):
            continue
        with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
            pickle.dump(model(name).bundle(), file)
            file.flush()
            rise = {
                side: int(
                    subprocess.run(
                        [sys.executable, "-m", "bench.memory", side, file.name, name],
                        check=True,
                        capture_output=True,
                        text=True,
                    ).stdout
                )
                for side in SIDES
            }
        against = f"torch eager, which takes {rise['eager'] / 2**20:.0f} MiB more than idle"
        for side, figure in FIGURES.items():
            value = rise[side] / rise["eager"]
            yield Result(f"{figure}/{name}", value, "ratio", against, "<= 1.2")


if __name__ == "__main__":
    print(_measure(*sys.argv[1:]))
