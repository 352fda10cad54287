# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile Solidity with the project's one set of compiler settings.

`compile_contracts()` gives every contract under `contracts/`, `compile_contracts([path, ...])`
those of some files, which may lie anywhere. Each file that defines a contract is one compilation
unit with its imports, so that its bytecode depends on nothing else, and each unit is cached in
`.toolchain/cache/` under the hash of its sources and settings. Warnings are errors.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

from scripts import toolchain

CONTRACTS = toolchain.ROOT / "contracts"
CACHE = toolchain.TOOLCHAIN / "cache"

# The one place where these are chosen; brownie-config.yaml repeats them and a test compares.
OPTIMIZER_RUNS = 200
EVM_VERSION = "cancun"
SETTINGS: dict[str, Any] = {
    "viaIR": True,
    "optimizer": {"enabled": True, "runs": OPTIMIZER_RUNS},
    "evmVersion": EVM_VERSION,
    # No hash of comments and paths at the end of the code: equal meaning gives equal bytes.
    "metadata": {"bytecodeHash": "none", "appendCBOR": False},
}

ACCEPTED: set[str] = set()
"""Codes of warnings that are none: the mutation test accepts contracts that are too large."""

_IMPORT = re.compile(r"""^\s*import\b[^;"']*["']([^"']+)["']""", re.MULTILINE)
_DEFINES = re.compile(r"^\s*(?:contract|library|interface|abstract\s+contract)\s+\w", re.MULTILINE)


class CompileError(Exception):
    """The compiler reported errors or warnings. The message holds them with file and line."""


class Contract(TypedDict):
    """One compiled contract. Bytecodes are hex strings with a leading 0x.

    `bytecode` deploys, `deployed_bytecode` is what then lies on chain (its immutables still zero).
    Both are "0x" for interfaces and abstract contracts. `source` is the file's name relative to the
    checkout, `source_hash` the SHA-256 of that file and everything that it imports.
    """

    abi: list[dict[str, Any]]
    bytecode: str
    deployed_bytecode: str
    source: str
    source_hash: str


def compile_contracts(paths: Iterable[Path | str] | None = None) -> dict[str, Contract]:
    """Compile files, or all of `contracts/`, and return their contracts by name.

    Libraries, interfaces and abstract contracts defined in these files are included; what they only
    import is not. Raises CompileError on any compiler message or when two files define one name,
    and toolchain.ToolchainError where no compiler can be had.
    """
    files = sorted(CONTRACTS.rglob("*.sol")) if paths is None else [Path(p) for p in paths]
    units = [_unit(file.resolve()) for file in files if _DEFINES.search(file.read_text())]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        compiled = list(pool.map(_compile_unit, units))
    result: dict[str, Contract] = {}
    for contracts in compiled:
        for name, contract in contracts.items():
            if name in result:
                where = f"{result[name]['source']} and {contract['source']}"
                raise CompileError(f"{where} both define {name}: names must be unique")
            result[name] = contract
    return result


def _name(file: Path) -> str:
    """Return the name that a file has for the compiler: relative to the checkout inside it."""
    inside = file.is_relative_to(toolchain.ROOT)
    return file.relative_to(toolchain.ROOT).as_posix() if inside else file.as_posix()


def _unit(file: Path) -> tuple[str, dict[str, str]]:
    """Return a file's name and the text, by name, of it and all that it imports."""
    sources: dict[str, str] = {}
    open_files = [file]
    while open_files:
        current = open_files.pop()
        if _name(current) in sources:
            continue
        text = current.read_text()
        sources[_name(current)] = text
        for target in _IMPORT.findall(text):
            base = current.parent if target.startswith(".") else toolchain.ROOT
            imported = (base / target).resolve()
            if not imported.is_file():
                raise CompileError(f"{_name(current)} imports {target}, which does not exist")
            open_files.append(imported)
    return _name(file), dict(sorted(sources.items()))


def _compile_unit(unit: tuple[str, dict[str, str]]) -> dict[str, Contract]:
    """Compile one unit, or take it from the cache, and return the contracts of its main file."""
    main, sources = unit
    wanted = ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources.items()},
        "settings": SETTINGS | {"outputSelection": {main: {"*": wanted}}},
    }
    key = [toolchain.SOLC_VERSION, main, request]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    cached = CACHE / f"{digest}.json"
    if cached.is_file():
        result: dict[str, Contract] = json.loads(cached.read_text())
        return result

    answer = run(request)
    found = [e for e in answer.get("errors", ()) if e["severity"] != "info"]
    problems = [e["formattedMessage"] for e in found if e.get("errorCode") not in ACCEPTED]
    if problems:
        raise CompileError("\n".join(problems))
    source_hash = hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()
    result = {
        name: Contract(
            abi=output["abi"],
            bytecode="0x" + output["evm"]["bytecode"]["object"],
            deployed_bytecode="0x" + output["evm"]["deployedBytecode"]["object"],
            source=main,
            source_hash=source_hash,
        )
        for name, output in sorted(answer["contracts"].get(main, {}).items())
    }
    CACHE.mkdir(parents=True, exist_ok=True)
    fresh = cached.with_suffix(f".{os.getpid()}.tmp")
    fresh.write_text(json.dumps(result))
    fresh.replace(cached)
    return result


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Return what the compiler answers to a request in its standard JSON, messages included.

    Raises CompileError where it does not answer, and toolchain.ToolchainError where there is none.
    """
    done = subprocess.run(
        [str(_solc()), "--standard-json"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CompileError(f"solc failed with status {done.returncode}:\n{done.stderr.strip()}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@functools.cache
def _solc() -> Path:
    return toolchain.ensure_solc()
