# SPDX-License-Identifier: GPL-3.0-or-later
"""A hundred steps of training have one digest, whatever runs them, and wherever they are resumed.

The optimizer is AdamW, whose bias corrections make steps differ for a long time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pytest
import torch

from bench.models import VOCABULARY, CharGPT, next_character
from protocol.bundle import Bundle
from protocol.execution import Bits
from protocol.executor import CompiledExecutor, Target, cache, schedule
from protocol.tracing import trace
from tests.executing import USABLE, targets

STEPS = 110
FEW = 30
RESUMED = 47
SEED = bytes(range(32))


@lru_cache(maxsize=1)
def bundle() -> Bundle:
    """A char-GPT with one block of odd sizes."""
    torch.manual_seed(3)
    module = CharGPT(VOCABULARY, width=18, layers=1, heads=2, time=7)
    tokens = torch.randint(VOCABULARY, (40, 8))
    data = (tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    traced = trace(module, next_character, optimizer, dataset=data, batch_size=3)
    return Bundle(traced.program, traced.state, traced.constants, traced.data)


def plain(state: Sequence[Bits]) -> list[Bits]:
    return [tensor.copy() for tensor in state]


def subnormal(state: Sequence[Bits]) -> list[Bits]:
    """Optimizer state and parameters so small that most of the arithmetic is subnormal."""
    return [(t.view(np.float32) * np.float32(1e-38)).view(np.uint32) for t in state]


def wild(state: Sequence[Bits]) -> list[Bits]:
    """NaNs with payloads, infinities and subnormals here and there."""
    patterns = np.array([0x7FC12345, 0xFF800000, 0x00000003, 0x80400000, 0x7F7FFFFF], np.uint32)
    result = plain(state)
    for tensor in result[:: max(1, len(result) // 5)]:
        tensor.reshape(-1)[:: max(1, tensor.size // 3)] = patterns[tensor.size % len(patterns)]
    return result


STARTS = {"plain": plain, "subnormal": subnormal, "wild": wild}


def states(
    executor: CompiledExecutor, start: Sequence[Bits], first: int, last: int, in_place: bool
) -> Iterator[Sequence[Bits]]:
    """The states after steps first .. last-1."""
    state: Sequence[Bits] = plain(start)
    for step in range(first, last):
        state = executor.step(state, step, out=state if in_place else None)
        yield state


def digest(found: Iterator[Sequence[Bits]]) -> list[str]:
    hasher, result = sha256(), []
    for state in found:
        for tensor in state:
            hasher.update(tensor)
        result.append(hasher.hexdigest())
    return result


@lru_cache(maxsize=3)
def wanted(start: str) -> tuple[list[str], list[Bits]]:
    """Digests of the plainest run, and the state to resume from."""
    executor = CompiledExecutor(bundle().program, bundle().inputs(SEED))
    seen = list(states(executor, STARTS[start](bundle().state), 0, STEPS, in_place=False))
    return digest(iter(seen)), plain(seen[RESUMED - 1])


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets threads share out even the smallest kernel."""
    monkeypatch.setattr(schedule, "CHUNK_WORK", 1)
    monkeypatch.setattr(schedule, "GROUP_WORK", 1)


WAYS = [
    *((threads, "this machine") for threads in (1, 2, 4)),
    *((2, name) for name in USABLE if name != "this machine"),
]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("threads", "name"), WAYS)
def test_digests_depend_on_no_target_and_no_number_of_threads(threads: int, name: str) -> None:
    executor = CompiledExecutor(bundle().program, bundle().inputs(SEED), threads, USABLE[name])
    found = digest(states(executor, bundle().state, 0, STEPS, in_place=threads != 1))
    assert found == wanted("plain")[0]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("start", ["subnormal", "wild"])
@targets
def test_digests_from_special_values_depend_on_neither(start: str, target: Target) -> None:
    executor = CompiledExecutor(bundle().program, bundle().inputs(SEED), 2, target)
    begin = STARTS[start](bundle().state)
    assert digest(states(executor, begin, 0, FEW, in_place=True)) == wanted(start)[0][:FEW]


def test_a_run_can_be_resumed_anywhere_by_anyone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all kernels are compiled anew instead of loaded."""
    whole, middle = wanted("plain")
    monkeypatch.setenv(cache.VARIABLE, "off")
    first = CompiledExecutor(bundle().program, bundle().inputs(SEED), 1)
    second = CompiledExecutor(bundle().program, bundle().inputs(SEED), 2, USABLE["plain x86-64"])

    def both() -> Iterator[Sequence[Bits]]:
        yield from states(first, bundle().state, 0, RESUMED, in_place=True)
        yield from states(second, middle, RESUMED, STEPS, in_place=True)

    assert digest(both()) == whole


def test_training_changes_the_state_at_every_step_and_stays_finite() -> None:
    """Otherwise equal digests would say nothing."""
    executor = CompiledExecutor(bundle().program, bundle().inputs(SEED))
    seen = [plain(s) for s in states(executor, bundle().state, 0, STEPS, in_place=False)]
    names = bundle().program.state_names
    for before, after in pairwise(seen):
        assert not np.array_equal(before[0], after[0]), names[0]
    for name, tensor in zip(names, seen[-1], strict=True):
        assert np.isfinite(tensor.view(np.float32)).all(), name
