# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile the contracts that ship with the package into `protocol/compiled/`.

Each deployable contract becomes one small JSON file: abi, both bytecodes, size, the settings and
the hash of its sources. Contracts of `contracts/mocks/` go into `protocol/compiled/mocks/`, which
is for tests and not shipped. Interfaces and libraries of internal functions leave no file.

`python -m scripts.compile_contracts` writes; with `--check` it only compares and fails when a file
is stale, missing or superfluous.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scripts.solc import SETTINGS, CompileError, Contract, compile_contracts
from scripts.toolchain import ROOT, SOLC_VERSION, ToolchainError

COMPILED = ROOT / "protocol" / "compiled"
RUNTIME_LIMIT = 24_576  # bytes, EIP-170
METADATA = 53  # bytes that other compilations append, brownie's among them
CREATION_LIMIT = 49_152  # bytes, EIP-3860


def is_deployable(contract: Contract) -> bool:
    """Tell whether a contract has code that somebody can call."""
    entries = {"function", "constructor", "fallback", "receive"}
    has_entry = any(item["type"] in entries for item in contract["abi"])
    return has_entry and contract["bytecode"] != "0x"


def is_mock(contract: Contract) -> bool:
    """Tell whether a contract exists for tests only."""
    return contract["source"].startswith("contracts/mocks/")


def render(contracts: Mapping[str, Contract]) -> dict[str, str]:
    """Return the text of every artifact file, by its path below `protocol/compiled/`."""
    files: dict[str, str] = {}
    for name, contract in sorted(contracts.items()):
        if not is_deployable(contract):
            continue
        mock = is_mock(contract)
        artifact: dict[str, Any] = {
            "name": name,
            "mock": mock,
            "source": contract["source"],
            "source_hash": contract["source_hash"],
            "compiler": {"version": SOLC_VERSION, "settings": SETTINGS},
            "runtime_size": _size(contract["deployed_bytecode"]),
            "abi": contract["abi"],
            "bytecode": contract["bytecode"],
            "deployed_bytecode": contract["deployed_bytecode"],
        }
        # One line for each top-level key: small, and a diff still shows what changed.
        body = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in artifact.items())
        files[f"mocks/{name}.json" if mock else f"{name}.json"] = f"{{\n{body}\n}}\n"
    return files


def oversized(contracts: Mapping[str, Contract]) -> list[str]:
    """Name the shipped contracts that no chain would accept."""
    found = []
    for name, contract in sorted(contracts.items()):
        runtime, creation = _size(contract["deployed_bytecode"]), _size(contract["bytecode"])
        if is_mock(contract):
            continue
        if runtime > RUNTIME_LIMIT - METADATA:
            limit = f"{RUNTIME_LIMIT} (EIP-170) with {METADATA} of metadata"
            found.append(f"{name}: {runtime} bytes of code, the limit is {limit}")
        if creation > CREATION_LIMIT:
            found.append(f"{name}: {creation} bytes to deploy, limit {CREATION_LIMIT} (EIP-3860)")
    return found


def differences(files: Mapping[str, str], folder: Path = COMPILED) -> list[str]:
    """Say what in `folder` is not what `files` wants; an empty list means up to date."""
    present = {path.relative_to(folder).as_posix() for path in _artifacts_in(folder)}
    found = [f"{name} is missing" for name in sorted(files.keys() - present)]
    found += [f"{name} belongs to no contract" for name in sorted(present - files.keys())]
    for name in sorted(present & files.keys()):
        if (folder / name).read_text() != files[name]:
            found.append(f"{name} is stale")
    return found


def write(files: Mapping[str, str], folder: Path = COMPILED) -> None:
    """Make `folder` hold exactly `files`, touching only what changes."""
    for path in _artifacts_in(folder):
        if path.relative_to(folder).as_posix() not in files:
            path.unlink()
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


def report(contracts: Mapping[str, Contract]) -> str:
    """Return a table of runtime sizes against the limit of EIP-170."""
    lines = []
    for name, contract in sorted(contracts.items()):
        if is_deployable(contract):
            size = _size(contract["deployed_bytecode"])
            note = "  mock" if is_mock(contract) else ""
            lines.append(f"{name:<24} {size:>6} bytes {size / RUNTIME_LIMIT:>6.1%}{note}")
    return "\n".join(lines)


def _size(code: str) -> int:
    return len(code) // 2 - 1


def _artifacts_in(folder: Path) -> Iterable[Path]:
    return sorted(folder.rglob("*.json"))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0 if all is well."""
    parser = argparse.ArgumentParser(description="Compile the contracts that ship.")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    options = parser.parse_args(arguments)
    try:
        contracts = compile_contracts()
    except (CompileError, ToolchainError) as error:
        print(error, file=sys.stderr)
        return 1
    print(report(contracts))
    problems = oversized(contracts)
    if options.check:
        stale = differences(render(contracts))
        problems += [f"{line}: run `make contracts`" for line in stale]
    elif not problems:
        write(render(contracts))
    for line in problems:
        print(line, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
