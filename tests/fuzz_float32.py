# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare machine, Python and Solidity on very many vectors, and report gas: `make fuzz`.

    python -m tests.fuzz_float32 --count 1000000 [--seed N]

First come all wide grids of special operands, then `count` random vectors in all, of which the six
rounding primitives get ten shares each and every other one a share. Prints one line per primitive;
exit status 1 and the first differing vector on a mismatch.
"""

from __future__ import annotations

import argparse
import time
from typing import Final

import numpy as np

from protocol.ops import Op
from tests import float_vectors as vectors
from tests.float_harness import Harness, in_python

CHUNK: Final = 20_000
SHARES: Final = {
    op: 10 if op in (Op.ADD, Op.SUB, Op.MUL, Op.FMA, Op.DIV, Op.SQRT) else 1 for op in Op
}


class _Tally:
    """Vectors and gas of one primitive."""

    def __init__(self, harness: Harness, op: Op) -> None:
        self._harness = harness
        self._op = op
        self._gas = 0.0
        self.vectors = 0

    def compare(self, columns: list[vectors.Words]) -> str:
        """Evaluate columns three times; return a description of a mismatch or an empty string."""
        for start in range(0, len(columns[0]), CHUNK):
            part = [np.ascontiguousarray(column[start : start + CHUNK]) for column in columns]
            wanted = vectors.expected(self._op, part)
            on_chain, gas = self._harness.batch(self._op, part)
            self.vectors += len(wanted)
            self._gas += gas * len(wanted)
            for name, got in (("Python", in_python(self._op, part)), ("Solidity", on_chain)):
                problem = vectors.mismatch(self._op, part, got, wanted)
                if problem:
                    return f"{name}: {problem}"
        return ""

    @property
    def gas(self) -> float:
        """Mean gas per vector, with the loop of the harness."""
        return self._gas / self.vectors


def main() -> int:
    """Run the comparison and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="random vectors in all")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.count} random vectors and the grids", flush=True)

    harness = Harness()
    started = time.perf_counter()
    total = 0
    for op in Op:
        count = -(-arguments.count * SHARES[op] // sum(SHARES.values()))
        tally = _Tally(harness, op)
        problem = tally.compare(vectors.grid(vectors.arity(op)))
        problem = problem or tally.compare(vectors.random_columns(op, count, arguments.seed))
        if problem:
            print(f"MISMATCH {problem}")
            return 1
        total += tally.vectors
        print(f"{op.name:8} {tally.vectors:9} vectors equal, {tally.gas:6.0f} gas each", flush=True)
    print(f"{total} vectors equal in {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
