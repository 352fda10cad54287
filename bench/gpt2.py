# SPDX-License-Identifier: GPL-3.0-or-later
"""One training step of transformers' GPT-2 with 124M parameters: traced, executed and hashed.

`python -m bench.gpt2 [BATCH [TIME]]` builds the model from its default config (nothing is
downloaded), dropout included, with AdamW, and prints what each part took. It needs about 8 GiB.
"""

from __future__ import annotations

import os
import resource
import sys
import time

import torch

from bench.models import Logits, Model, next_character
from protocol.commitments import state_root
from protocol.executor import CompiledExecutor
from protocol.trace import Trace, trace_bytes

EXAMPLES = 64


def gpt2(batch: int, time_: int) -> Model:
    """Return the model with random tokens to predict."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config()
    module = Logits(GPT2LMHeadModel(config))
    tokens = torch.randint(config.vocab_size, (EXAMPLES, time_ + 1))
    data = (tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)
    return Model("gpt2", module, next_character, optimizer, data, batch)


def _report(what: str, began: float) -> float:
    now = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:44} {now - began:8.2f} s, peak {peak:5.2f} GiB", flush=True)
    return time.perf_counter()


def main() -> None:
    """Measure one step after the other."""
    batch, length = [*(int(word) for word in sys.argv[1:]), 1, 1024][:2]
    threads = len(os.sched_getaffinity(0))
    at = time.perf_counter()
    model = gpt2(batch, length)
    at = _report(f"model, {model.parameters:,} parameters", at)
    bundle = model.bundle()
    nodes = len(bundle.program.nodes)
    size = trace_bytes(bundle.program) / 2**30
    at = _report(f"traced, {nodes} nodes, {size:.1f} GiB of outputs", at)
    del model
    inputs = bundle.inputs(bytes(32))
    executor = CompiledExecutor(bundle.program, inputs, threads, watch=("loss",))
    at = _report(f"compiled for {threads} threads", at)
    state = executor.step(bundle.state, 0)
    at = _report(f"first step, loss {executor.watched('loss').view('f4').item():.4f}", at)
    executor.step(state, 1, out=state)
    at = _report(f"second step, loss {executor.watched('loss').view('f4').item():.4f}", at)
    root = state_root(state)
    at = _report(f"state root {root.hex()[:16]}", at)
    roots = Trace(bundle.program, executor, bundle.state, 0, inputs=inputs).roots
    _report(f"trace of a step, {len(roots)} roots", at)


if __name__ == "__main__":
    main()
