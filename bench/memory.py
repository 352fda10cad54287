# SPDX-License-Identifier: GPL-3.0-or-later
"""Peak memory of training against stock PyTorch: `python -m bench.memory SIDE BUNDLE MODEL`.

Each side trains in a process of its own and reports how far its resident memory rose above what it
had with everything imported and nothing loaded. Both hold parameters, optimizer state and data.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench.measure import Result

STEPS: Final = 4
SIDES: Final = ("bitcourt", "eager")


def _resident(field: str) -> int:
    """Return a figure of /proc/self/status in bytes (proc(5)): VmRSS or VmHWM, the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return 1024 * int(value.split()[0])
    raise RuntimeError(f"no {field} in /proc/self/status")


def _bitcourt(bundle: str) -> Callable[[], None]:
    """Train in place, as a solver does, on a program and tensors that were traced elsewhere."""
    import protocol.bundle  # noqa: F401 - before the measurement begins
    from protocol.executor import CompiledExecutor, self_check

    self_check()

    def train() -> None:
        with Path(bundle).open("rb") as file:
            loaded = pickle.load(file)
        executor = CompiledExecutor(loaded.program, loaded.inputs(bytes(32)))
        state = loaded.state
        for step in range(STEPS):
            state = executor.step(state, step, out=state)

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
    train = _bitcourt(bundle) if side == "bitcourt" else _eager(name)
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
            ours, theirs = (
                int(
                    subprocess.run(
                        [sys.executable, "-m", "bench.memory", side, file.name, name],
                        check=True,
                        capture_output=True,
                        text=True,
                    ).stdout
                )
                for side in SIDES
            )
        yield Result(
            f"peak_memory_ratio/{name}",
            ours / theirs,
            "ratio",
            f"torch eager, which takes {theirs / 2**20:.0f} MiB more than idle",
            "<= 1.2",
        )


if __name__ == "__main__":
    print(_measure(*sys.argv[1:]))
