# SPDX-License-Identifier: GPL-3.0-or-later
"""One side of a comparison as a process: `python -m bench.contestant SIDE MODEL THREADS`.

Torch's thread pool spins for a while after each operation, and would take the cores from whatever
runs beside it in the same process. So each side has a process, and only one of them works at a
time: it reads a number of steps from standard input and answers with the seconds of each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

from bench.measure import seconds

SIDES = ("bitcourt", "eager", "compile")
"""The compiled executor, stock PyTorch, and stock PyTorch with the module under torch.compile."""


def _bitcourt(name: str, threads: int) -> Callable[[], None]:
    from bench.models import model
    from protocol.executor import CompiledExecutor

    bundle = model(name).bundle()
    executor = CompiledExecutor(bundle.program, bundle.inputs(bytes(32)), threads)
    state, count = bundle.state, 0

    def step() -> None:
        nonlocal count
        executor.update(state, count)
        count += 1

    return step


def _work(side: str, name: str, threads: int) -> Callable[[], None]:
    import torch

    torch.set_num_threads(threads)
    if side == "bitcourt":
        return _bitcourt(name, threads)
    from bench.models import model

    chosen = model(name)
    return chosen.eager() if side == "eager" else chosen.compiled()


class Contestant:
    """The parent's end of such a process."""

    def __init__(self, side: str, name: str, threads: int) -> None:
        """Start it; it builds its model at once."""
        self.side = side
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.contestant", side, name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, steps: int) -> list[float]:
        """Return the seconds of each of so many steps; RuntimeError if the process has failed."""
        if self._process.stdin is None or self._process.stdout is None:
            raise TypeError("a contestant has pipes")
        try:
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.side} failed")
        found: list[float] = json.loads(line)
        return found

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Serve one side until standard input ends."""
    side, name, threads = sys.argv[1:]
    work = _work(side, name, int(threads))
    for line in sys.stdin:
        found = [seconds(work) for _ in range(int(line))]
        time.sleep(0.02)  # let a spinning pool go to sleep before the other side's turn
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
