# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a new process takes to finish its first step: `python -m bench.latency BUNDLE THREADS`.

That is importing the executor, its self-check, validation, code generation, compilation or loading,
and the step. Cold: nothing has been compiled before. Warm: a process before it has done the same.
"""

from __future__ import annotations

import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.measure import Result

MODEL: Final = "chargpt-5M"
ROUNDS: Final = 3


def _first_step(bundle: str, threads: int) -> float:
    import protocol.bundle  # noqa: F401 - unpickling needs it, an executor does not

    with Path(bundle).open("rb") as file:
        loaded = pickle.load(file)
    began = time.perf_counter()
    from protocol.executor import CompiledExecutor

    executor = CompiledExecutor(loaded.program, loaded.inputs(bytes(32)), threads)
    executor.step(loaded.state, 0, out=loaded.state)
    return time.perf_counter() - began


def _child(bundle: str, threads: int, cache: str) -> float:
    found = subprocess.run(
        [sys.executable, "-m", "bench.latency", bundle, str(threads)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "BITCOURT_KERNEL_CACHE": cache},
    )
    return float(found.stdout)


def latency() -> Iterator[Result]:
    """The char-GPT of five million parameters, on all cores."""
    from bench.models import model

    threads = len(os.sched_getaffinity(0))
    cold, warm = [], []
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        bundle.write_bytes(pickle.dumps(model(MODEL).bundle()))
        for round_ in range(ROUNDS):
            cache = str(Path(folder) / f"kernels{round_}")
            cold.append(_child(str(bundle), threads, cache))
            warm.append(_child(str(bundle), threads, cache))
    what = f"{MODEL}, first step of a new process"
    yield Result("jit_cold_seconds", statistics.median(cold), "seconds", what, "<= 5")
    yield Result("jit_warm_seconds", statistics.median(warm), "seconds", what, "<= 1.5")


if __name__ == "__main__":
    print(_first_step(sys.argv[1], int(sys.argv[2])))
