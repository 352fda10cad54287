# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare Solidity, Python and the machine on very many vectors: `make fuzz`.

    python -m tests.fuzz_float32 --count 1000000 [--seed N]

Each primitive gets the wide grid of special operands, `count` random vectors and, if it adds,
another `count` that cancel. On every vector the contract and the machine are compared with the
Python definition. The contract runs on anvil, which is far faster than the tests' EVM. Prints one
line per primitive; exit status 1 and the first differing vector on a mismatch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Final

import numpy as np

from protocol.ops import Op
from tests import float_vectors as vectors
from tests.float_anvil import FloatsOnAnvil, floats_on_anvil
from tests.float_harness import in_python

CHUNK: Final = 20_000
ADDING: Final = (Op.ADD, Op.SUB, Op.FMA)


def compare(contract: FloatsOnAnvil, op: Op, columns: list[vectors.Words]) -> str:
    """Return a description of the first mismatch, or an empty string."""
    for start in range(0, len(columns[0]), CHUNK):
        part = [np.ascontiguousarray(column[start : start + CHUNK]) for column in columns]
        defined = in_python(op, part)
        for name, found in (
            ("Solidity", contract.batch(op, part)),
            ("the machine", vectors.expected(op, part)),
        ):
            problem = vectors.mismatch(op, part, found, defined)
            if problem:
                return f"{name}: {problem}"
    return ""


def samples(op: Op, count: int, seed: int) -> Iterator[list[vectors.Words]]:
    """Yield columns of operands until all vectors of a primitive have been given."""
    yield vectors.grid(vectors.arity(op))
    yield vectors.random_columns(op, count, seed)
    if op in ADDING:
        yield vectors.cancelling_columns(op, count, seed)


def main() -> int:
    """Run the comparison and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="random vectors of each")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.count} random vectors each", flush=True)
    compared, began = 0, time.perf_counter()
    with floats_on_anvil() as contract:
        for op in Op:
            started, count = time.perf_counter(), 0
            for columns in samples(op, arguments.count, arguments.seed):
                problem = compare(contract, op, columns)
                if problem:
                    print(f"MISMATCH {problem}")
                    return 1
                count += len(columns[0])
            seconds = time.perf_counter() - started
            print(f"{op.name:8} {count:9} vectors equal in {seconds:.0f} s", flush=True)
            compared += count
    print(f"{compared} vectors, no difference, {time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
