# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures everything and writes bench/results.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from bench.hashing import hashing
from bench.kernels import gemm
from bench.measure import Result
from bench.steps import steps

RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    """Runs all benchmarks, one after the other, and prints each figure as it comes."""
    results: list[Result] = []
    for family in (hashing, gemm, steps):
        for result in family():
            results.append(result)
            print(f"{result.name:32} {result.value:9.3f} {result.unit:8} {result.baseline}")
    RESULTS.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    print(f"wrote {RESULTS.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
