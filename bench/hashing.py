# SPDX-License-Identifier: GPL-3.0-or-later
"""What commitments cost: hashing against OpenSSL, checkpoints and traces against plain steps."""

from __future__ import annotations

import hashlib
import os
import re
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from bench.measure import Result, ratio, seconds
from bench.models import Bundle, model
from protocol.background import StateWriter
from protocol.bundle import state_layout
from protocol.executor import CompiledExecutor
from protocol.store import Store
from protocol.tensor_tree import tensor_roots
from protocol.trace import Trace

MODELS: Final = ("mlp", "chargpt-5M")
"""The figures without a model's name are those of the last."""
INTERVAL: Final = 100
"""Steps from one checkpoint to the next."""
ROUNDS: Final = 7
OPENSSL: Final = (
    "openssl", "speed", "-elapsed", "-seconds", "1", "-bytes", "16384", "sha256",
)  # fmt: skip
"""By the clock, like everything else here: by default OpenSSL counts CPU time only."""


def hashing() -> Iterator[Result]:
    """Tensor trees, then one checkpoint per hundred steps, then the trace of a step."""
    cores = len(os.sched_getaffinity(0))
    yield from _rates(cores)
    for name in MODELS:
        bundle = model(name).bundle()
        inputs = bundle.inputs(bytes(32))
        executor = CompiledExecutor(bundle.program, inputs, cores)
        last = "" if name == MODELS[-1] else f"/{name}"
        yield from _commitments(last, name, bundle, executor)
        yield _trace(last, name, bundle, executor)


def _trace(suffix: str, name: str, bundle: Bundle, executor: CompiledExecutor) -> Result:
    """A step with the roots of all nodes, as disputes ask for them, beside a plain step."""

    def traced() -> object:
        state, inputs = bundle.state, executor.inputs
        return Trace(bundle.program, executor, state, 7, inputs=inputs).roots

    slower, mine, step = ratio(traced, lambda: executor.step(bundle.state, 7), ROUNDS)
    baseline = f"{name}, plain step: {1e3 * step:.2f} ms against {1e3 * mine:.2f} ms, all hashed"
    return Result(f"trace_ratio{suffix}", slower, "ratio", baseline, "<= 2.5")


def _openssl(view: memoryview) -> tuple[float, str]:
    """Return OpenSSL's rate on one core in bytes per second, and how it was measured."""
    try:
        out = subprocess.run(OPENSSL, capture_output=True, text=True, check=True).stdout
        found = re.search(r"^sha256\s+([\d.]+)k", out, re.MULTILINE)
        if found:
            return 1e3 * float(found[1]), "openssl speed sha256"
    except (OSError, subprocess.CalledProcessError):
        pass
    best = min(seconds(lambda: hashlib.sha256(view).digest()) for _ in range(ROUNDS))
    return len(view) / best, "hashlib, one buffer"


def _rates(cores: int) -> Iterator[Result]:
    """A 64 MiB tensor on one core and on all, beside OpenSSL on as many buffers as cores."""
    data = np.random.default_rng(0).integers(0, 2**32, 1 << 24, dtype=np.uint32)
    view = memoryview(data).cast("B")
    tensor_roots([data])
    with ThreadPoolExecutor(cores) as pool:

        def theirs() -> object:
            return list(pool.map(lambda _: hashlib.sha256(view).digest(), range(cores)))

        theirs()
        rounds = [
            (
                seconds(lambda: tensor_roots([data], 1)),
                seconds(lambda: tensor_roots([data])),
                seconds(theirs),
                _openssl(view),
            )
            for _ in range(ROUNDS)
        ]
    how = rounds[0][3][1]
    one, every, both = (len(view) / statistics.median(r[i] for r in rounds) for i in range(3))
    single = statistics.median(r[3][0] for r in rounds)
    yield Result(
        "hash_fraction_of_openssl", every / (cores * single), "ratio",
        f"{how}, {single / 1e9:.2f} GB/s x {cores} cores", ">= 0.8",
    )  # fmt: skip
    yield Result(
        "hash_fraction_of_openssl_one_core", one / single, "ratio",
        f"{how}, {single / 1e9:.2f} GB/s", ">= 0.8",
    )  # fmt: skip
    yield Result(
        "hash_fraction_of_openssl_all_cores", every / (cores * both), "ratio",
        f"hashlib on {cores} cores at once: {cores * both / 1e9:.2f} GB/s", ">= 0.8",
    )  # fmt: skip


def _commitments(
    suffix: str, name: str, bundle: Bundle, executor: CompiledExecutor
) -> Iterator[Result]:
    """One checkpoint, hashed from its file while the next steps run, in % of a hundred steps.

    As in `bitcourt train` and in a solver, steps are done in place and `protocol.background` does
    the rest. So few steps are run that the checkpoint is done by their end: what it adds to them is
    its cost. Every round trains on, so that each checkpoint is another.
    """
    state = [tensor.copy() for tensor in bundle.state]
    executor.update(state, 0)
    with tempfile.TemporaryDirectory() as folder:
        layout = state_layout(bundle.program)
        writer = StateWriter(Store(folder), bundle.program, layout)

        def commit() -> None:
            writer.begin(state, lambda root: None)

        alone = seconds(lambda: (commit(), writer.settle()))
        step = min(seconds(lambda: executor.update(state, 1)) for _ in range(3))
        steps = min(INTERVAL, 1 + round(2 * alone / step))

        def train(commits: bool) -> None:
            executor.update(state, 0)
            if commits:
                commit()
            for number in range(steps):
                executor.update(state, number)
            writer.settle()

        slower, _, plain = ratio(lambda: train(True), lambda: train(False), ROUNDS)
    value = 100 * (slower - 1) * (steps + 1) / INTERVAL
    yield Result(
        f"commit_overhead_percent{suffix}", value, "%",
        f"{name}, {INTERVAL} steps of {1e3 * plain / (steps + 1):.2f} ms, one checkpoint", "<= 1",
    )  # fmt: skip
