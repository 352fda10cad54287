# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures everything, or the families that are named, and writes down what it found."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench.hashing import hashing
from bench.inside import inside
from bench.kernels import convolution, gemm
from bench.latency import latency
from bench.measure import Result
from bench.memory import memory
from bench.page import PAGE, with_table
from bench.steps import steps

RESULTS: Final = Path(__file__).parent / "results.json"
FAMILIES: Final[dict[str, Callable[[], Iterator[Result]]]] = {
    "hashing": hashing,
    "gemm": gemm,
    "convolution": convolution,
    "steps": steps,
    "latency": latency,
    "memory": memory,
    "inside": inside,
}


def main() -> None:
    """Run benchmarks, one after the other, and print each figure as it comes.

    Figures of families that were not asked for stay in the file as they are.
    """
    names = sys.argv[1:] or list(FAMILIES)
    unknown = [name for name in names if name not in FAMILIES]
    if unknown:
        sys.exit(f"no benchmarks are called {unknown[0]!r}: choose from {', '.join(FAMILIES)}")
    kept = [] if len(names) == len(FAMILIES) else json.loads(RESULTS.read_text())
    results = {row["name"]: row for row in kept}
    for name in names:
        for result in FAMILIES[name]():
            results[result.name] = asdict(result)
            print(
                f"{result.name:34} {result.value:9.3f} {result.unit:8} {result.target:8} "
                f"{result.baseline}",
                flush=True,
            )
    RESULTS.write_text(json.dumps(list(results.values()), indent=2) + "\n")
    PAGE.write_text(with_table(PAGE.read_text(), results.values()))
    print(f"wrote {RESULTS.relative_to(Path.cwd())} and {PAGE.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
