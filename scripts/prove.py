# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove the theorems of `tests/proofs/` with halmos: `python -m scripts.prove [NAME ...]`.

halmos executes the compiled bytecode (the settings are those of the shipped contracts) on symbols
and asks an SMT solver whether any values make an assertion fail. It lives in an environment of its
own under `.toolchain/`. What each theorem says, and does not, is in docs/proofs.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from scripts import solc, toolchain
from scripts.solc import CONTRACTS, SETTINGS

HALMOS_VERSION: Final = "0.3.3"
PROOFS: Final = toolchain.ROOT / "tests" / "proofs"
LENGTHS: Final = {"proof": range(9), "children": range(18)}
"""Lengths of the arrays that theorems take: each is tried with every element a symbol."""
SECONDS: Final = 900
"""What the solver may take for one assertion on one path."""
CHILD: Final = """\
import sys
from halmos import sevm
from halmos.__main__ import main
declare = sevm.Function
def function(name, *sorts):
    # halmos 0.3.3 takes the bytes of SHA-256's input for bits.
    if name.startswith("f_sha256_"):
        sorts = (sevm.BitVecSorts[8 * int(name.rsplit("_", 1)[1])], *sorts[1:])
    return declare(name, *sorts)
sevm.Function = function
sys.exit(main())
"""


def theorems() -> dict[str, list[str]]:
    """Return the names of the theorems of each proof contract, as the sources have them."""
    found = {}
    for path in sorted(PROOFS.glob("*Proof.sol")):
        lines = path.read_text().splitlines()
        names = [line.split("(")[0].split()[1] for line in lines if "function check_" in line]
        if names:
            found[path.stem] = names
    return found


def compiled() -> dict[str, dict[str, Any]]:
    """Compile the proofs; contract by name, as Foundry writes it and halmos reads it."""
    files = [*sorted(CONTRACTS.glob("lib/*.sol")), *sorted(PROOFS.glob("*.sol"))]
    names = {path.relative_to(toolchain.ROOT).as_posix(): path.read_text() for path in files}
    wanted = ["abi", "metadata", "evm.bytecode", "evm.deployedBytecode", "evm.methodIdentifiers"]
    settings = SETTINGS | {"outputSelection": {"*": {"*": wanted, "": ["ast"]}}}
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in names.items()},
        "settings": settings,
    }
    output = solc.run(request)
    for message in output.get("errors", []):
        raise RuntimeError(message["formattedMessage"])
    return {
        name: _artifact(output["contracts"][file][name], output["sources"][file]["ast"])
        for file in output["contracts"]
        for name in output["contracts"][file]
        if file.startswith("tests/")
    }


def _artifact(contract: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    evm = contract["evm"]
    return {
        "abi": contract["abi"],
        "ast": tree,
        "metadata": json.loads(contract["metadata"]),
        "methodIdentifiers": evm["methodIdentifiers"],
        "bytecode": evm["bytecode"],
        "deployedBytecode": evm["deployedBytecode"],
    }


def prove(names: list[str]) -> dict[str, dict[str, Any]]:
    """Run halmos on some proof contracts and return its verdict on each theorem by name."""
    python = toolchain.ensure_environment("halmos", "halmos", HALMOS_VERSION)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, artifact in compiled().items():
            (root / "out" / f"{name}.sol").mkdir(parents=True)
            (root / "out" / f"{name}.sol" / f"{name}.json").write_text(json.dumps(artifact))
        # halmos asks Foundry to build; that has been done.
        (root / "forge").write_text("#!/bin/sh\n")
        (root / "forge").chmod(0o755)
        report = root / "report.json"
        lengths = ",".join(f"{n}={{{','.join(map(str, r))}}}" for n, r in LENGTHS.items())
        command = [
            *(
                str(python),
                "-c",
                CHILD,
                "--root",
                folder,
                "--match-contract",
                f"^({'|'.join(names)})$",
            ),
            *("--array-lengths", lengths, "--loop", "64", "--no-status"),
            *("--solver-timeout-assertion", f"{SECONDS}s", "--json-output", str(report)),
        ]
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(command, env=os.environ | {"PATH": path}, check=False)
        contracts = json.loads(report.read_text())["test_results"] if report.exists() else {}
    return {row["name"].split("(")[0]: row for rows in contracts.values() for row in rows}


def proved(verdict: dict[str, Any] | None) -> bool:
    """Whether halmos found no counterexample on any path, and left no path or loop unexplored."""
    return verdict is not None and verdict["exitcode"] == 0 and not verdict["num_bounded_loops"]


def main() -> int:
    """Prove the theorems of the contracts that are named, by default all; 1 if one is not."""
    known = theorems()
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("name", nargs="*", choices=[*known, []], help="by default all")
    names = parser.parse_args().name or list(known)
    verdicts = prove(names)
    wanted = [theorem for name in names for theorem in known[name]]
    missing = [theorem for theorem in wanted if not proved(verdicts.get(theorem))]
    for theorem in missing:
        print(f"not proved: {theorem}")
    print(f"{len(wanted) - len(missing)} of {len(wanted)} theorems proved")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
