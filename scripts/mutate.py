# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutation test of the contracts: `python -m scripts.mutate [FILE ...]`.

Each comparison, connective and guard of a contract is changed, one at a time, and its tests must
notice. It works on a copy of the checkout and writes what it found, survivors with their lines, to
`out/mutation.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from scripts.mutants import SWITCH, SWITCH_SOURCE, Mutant, instrument
from scripts.toolchain import ROOT

REPORT: Final = ROOT / "out" / "mutation.json"


def _market(*pages: str) -> tuple[str, ...]:
    return tuple(f"test_market_{page}" for page in pages)


TESTS: Final[dict[str, tuple[str, ...]]] = {
    "contracts/lib/Float32.sol": ("test_float32_solidity",),
    "contracts/lib/Primitives.sol": ("test_float32_solidity",),
    "contracts/lib/IntegerRoot.sol": ("test_integer_root", "test_float32_solidity"),
    "contracts/lib/FoldShape.sol": ("test_fold_shape",),
    "contracts/lib/Merkle.sol": ("test_merkle_solidity",),
    "contracts/lib/WordTree.sol": ("test_word_tree",),
    "contracts/lib/Clock.sol": ("test_dispute_clocks", "test_dispute_contract"),
    "contracts/lib/": ("test_referee",),
    "contracts/Referee.sol": ("test_referee", "test_dispute_machine"),
    "contracts/game/": ("test_dispute",),
    "contracts/DisputeGame.sol": ("test_dispute",),
    "contracts/market/Auction.sol": _market("auction", "asks", "declining", "prices"),
    "contracts/market/Audit.sol": _market(
        "audit", "draw", "capture", "rounds", "receipts", "redraws", "demands"
    ),
    "contracts/market/Claims.sol": _market(
        "claims", "disputes", "attestors", "settlement", "demands"
    ),
    "contracts/market/DataDemands.sol": _market("demands"),
    "contracts/market/MarketBase.sol": _market(
        *("settlement", "asks", "registry", "auction", "audit", "redraws", "receipts", "endings"),
        *("draw", "disputes", "rounds", "demands", "capture", "faults"),
    ),
    "contracts/market/Registry.sol": _market("asks", "declining", "tasks", "auction", "token"),
    "contracts/market/Remedies.sol": _market(
        "redraws", "draw", "capture", "settlement", "endings", "disputes", "demands", "faults"
    ),
    "contracts/market/Runs.sol": _market("draw", "capture", "redraws", "rounds", "progress"),
    "contracts/market/TaskBook.sol": _market("tasks", "log", "progress", "auction"),
    "contracts/market/Vault.sol": _market("registry", "token", "tasks", "settlement"),
    "contracts/market/Verifier": _market("registry", "draw", "capture", "rounds"),
    "contracts/market/": _market(""),
    "contracts/Market.sol": _market(
        "settlement", "receipts", "disputes", "progress", "capture", "registry", "token", "rounds"
    ),
}
"""How the names of the tests begin that must notice a change in a file; the first that fits."""
NOT_TESTED: Final = ("interfaces", "mocks")


def tests_of(file: str) -> list[str]:
    """Return the test files of a contract, quickest to fail first."""
    stems = next(stems for prefix, stems in TESTS.items() if file.startswith(prefix))
    found = [p for stem in stems for p in sorted((ROOT / "tests").glob(f"{stem}*.py"))]
    # Gas and size change with every switch, so the tests that compare them cannot take part.
    kept = [p for p in dict.fromkeys(found) if "_gas" not in p.stem and "_cost" not in p.stem]
    return [p.relative_to(ROOT).as_posix() for p in kept]


def files() -> list[str]:
    """Return all contracts that are mutated."""
    paths = sorted((ROOT / "contracts").rglob("*.sol"))
    return [p.relative_to(ROOT).as_posix() for p in paths if not set(NOT_TESTED) & set(p.parts)]


def _copy(folder: Path) -> None:
    """Copy what git tracks, and lend it the compiler."""
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in done.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".toolchain").symlink_to(ROOT / ".toolchain")


def _run(folder: Path, file: str, numbers: Sequence[int], log: Path) -> list[dict[str, Any]]:
    environment = os.environ | {
        "BITCOURT_MUTANTS": json.dumps(list(numbers)),
        "BITCOURT_MUTATION_LOG": str(log),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "scripts.mutation_plugin", "-p"]
    done = subprocess.run(
        [*command, "no:cacheprovider", "-m", "not gas and not size", *tests_of(file)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    if len(rows) != len(numbers):
        raise RuntimeError(f"the tests of {file} did not run:\n{done.stdout}\n{done.stderr}")
    return rows


def mutate(file: str, sample: int, workers: int) -> dict[str, Any]:
    """Try the mutants of one file, or `sample` of them, evenly spread."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _copy(folder)
        text, mutants = instrument(folder, file)
        (folder / SWITCH).write_text(SWITCH_SOURCE)
        (folder / file).write_text(text)
        chosen = mutants[:: max(1, len(mutants) // sample)] if sample else mutants
        (control,) = _run(folder, file, [0], folder / "control.log")
        if control["killed"]:
            raise RuntimeError(f"without any mutant, {control['by']} fails for {file}")
        parts = [chosen[i::workers] for i in range(workers)]
        with ThreadPoolExecutor(workers) as pool:
            rows = pool.map(
                lambda i: _run(folder, file, [m.number for m in parts[i]], folder / f"{i}.log"),
                [i for i in range(workers) if parts[i]],
            )
            killed = {row["mutant"] for part in rows for row in part if row["killed"]}
    return _report(file, mutants, chosen, killed)


def _report(
    file: str, mutants: list[Mutant], chosen: list[Mutant], killed: set[int]
) -> dict[str, Any]:
    survivors = [asdict(m) for m in chosen if m.number not in killed]
    sides = [m for m in chosen if m.is_side]
    needed = sum(m.number in killed for m in sides)
    print(f"{file}: {len(mutants)} mutants, {len(chosen)} tried, {len(survivors)} survived")
    print(f"  tests need {needed} of {len(sides)} sides of branches")
    for one in survivors:
        print(f"  line {one['line']}: {one['what']}")
    sys.stdout.flush()
    tried = {"mutants": len(mutants), "tried": len(chosen)}
    return {**tried, "sides": len(sides), "sides_needed": needed, "survivors": survivors}


def main() -> int:
    """Mutate the files that are named, by default all; 1 if a mutant survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="*", help="contracts, such as contracts/lib/Clock.sol")
    parser.add_argument("--sample", type=int, default=0, help="mutants a file, at most about")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.file) - set(files()))
    if unknown:
        parser.error(f"{unknown[0]} is not one of {', '.join(files())}")
    REPORT.parent.mkdir(exist_ok=True)
    report = json.loads(REPORT.read_text()) if REPORT.exists() and arguments.file else {}
    for file in arguments.file or files():
        report[file] = mutate(file, arguments.sample, arguments.workers)
        REPORT.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if any(found["survivors"] for found in report.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
