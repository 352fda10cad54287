# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare every result of every primitive of one operand: `make exhaustive`.

    python -m tests.exhaustive_float32 [SQRT NEG ...]

All 2**32 operands go through the executor's compiled kernel and through `tests.float_integers`. A
sample (a million random operands and both ends of every binade) goes through the Python definition
as well. SQRT, the only one of them about whose Solidity nothing is proved (docs/proofs.md), also
runs on anvil: from 1 to 4, which is every significand with either parity of the exponent, and all
subnormal numbers. One line of progress and one of result a primitive; exit status 1 if they differ.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from protocol.execution import Inputs
from protocol.executor import CompiledExecutor, Target
from protocol.ops import SIGNATURES, Op
from protocol.program import Flat, Kind
from tests.float_anvil import floats_on_anvil
from tests.float_harness import in_python
from tests.float_integers import IN_INTEGERS
from tests.float_vectors import Words, mismatch
from tests.hand_built import F32, I32, Builder, expression

PART: Final = 1 << 24
"""Operands a run of the kernel."""
BLOCK: Final = 1 << 15
"""Operands at a time of the comparison: its arrays stay in the cache."""
SAMPLE: Final = 1_000_000


def kernel(op: Op, size: int, target: Target | None = None) -> Callable[[Words], Words]:
    """Return the executor's primitive on a tensor of `size` elements."""
    b = Builder()
    operand, result = (
        F32 if letter == "f" else I32
        for letter in (SIGNATURES[op].operands[0], SIGNATURES[op].result)
    )
    source = b.leaf(Kind.INPUT, (size,), operand)
    out = b.map((size,), expression([Flat(source)], (op, (0,))), result)
    inputs = Inputs((), (), bytes(32))
    executor = CompiledExecutor(b.finish([source, out]), inputs, target=target)
    unread = np.zeros(size, np.uint32)
    return lambda words: executor.step((words, unread), 0)[1]


ON_CHAIN: Final = ((0x3F800000, 1 << 24), (0, 1 << 23))
"""First operand and number of those whose SQRT is computed in Solidity."""
CALL: Final = 1 << 15
"""Operands a call of the contract."""


def sample() -> Words:
    """Operands for the Python definition: around every power of two and every binade's end."""
    near = np.arange(-8, 9)
    binades = (np.arange(512)[:, None] << 23) + near
    middles = (np.arange(512)[:, None] << 23) + (1 << 22) + near
    powers = (1 << np.arange(33))[:, None] + near
    edges = np.concatenate([part.reshape(-1) for part in (binades, middles, powers, -powers)])
    drawn = np.random.default_rng(9).integers(0, 1 << 32, SAMPLE)
    return np.concatenate([edges, drawn]).astype(np.uint32)


def compare(op: Op, first: int, count: int, run: Callable[[Words], Words]) -> str:
    """Describe the first difference among `count` operands from `first` on; empty if none."""
    words = np.arange(first, first + count, dtype=np.uint64).astype(np.uint32)
    found = run(words)
    for start in range(0, count, BLOCK):
        block = words[start : start + BLOCK]
        wanted = IN_INTEGERS[op](block)
        if not np.array_equal(found[start : start + BLOCK], wanted):
            return mismatch(op, [block], found[start : start + BLOCK], wanted)
    return ""


def compare_sample(op: Op) -> str:
    """Describe the first difference between the integers and the definition on the sample."""
    words = sample()
    return mismatch(op, [words], IN_INTEGERS[op](words), in_python(op, [words]))


def compare_contract(ranges: tuple[tuple[int, int], ...]) -> str:
    """Describe the first difference of SQRT in Solidity from the integers; empty if none."""
    with floats_on_anvil() as contract:
        for first, count in ranges:
            for start in range(first, first + count, CALL):
                problem = compare(
                    Op.SQRT, start, CALL, lambda words: contract.batch(Op.SQRT, [words])
                )
                if problem:
                    return f"Solidity: {problem}"
    return ""


def _exhaust(op: Op) -> str:
    run = kernel(op, PART)
    for first in range(0, 1 << 32, PART):
        print(f"\r{op.name:8} {first / (1 << 32):4.0%}", end="", flush=True)
        problem = compare(op, first, PART, run)
        if problem:
            return problem
    return compare_sample(op) or (compare_contract(ON_CHAIN) if op is Op.SQRT else "")


def main() -> int:
    """Run the comparison and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    names = [op.name for op in IN_INTEGERS]
    parser.add_argument("op", nargs="*", choices=[*names, []], help="by default all")
    for name in parser.parse_args().op or names:
        started = time.perf_counter()
        problem = _exhaust(Op[name])
        if problem:
            print(f"\nMISMATCH {problem}")
            return 1
        seconds = time.perf_counter() - started
        print(f"\r{name:8} {1 << 32} operands equal in {seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
