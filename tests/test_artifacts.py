# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiled contracts that ship are what the sources and the settings give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from protocol import artifacts
from protocol.errors import ArtifactError
from scripts import compile_contracts as command
from scripts import solc, toolchain

SPDX = "// SPDX-License-Identifier: GPL-3.0-or-later\npragma solidity 0.8.30;\n"
COUNTER = SPDX + (
    'import {Step} from "./Step.sol";\n'
    "contract Counter { uint256 public value;\n"
    "function bump() external { value = Step.next(value); } }\n"
)
STEP = SPDX + (
    "library Step { function next(uint256 x) internal pure returns (uint256) { return x + 1; } }\n"
)


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    (tmp_path / "Step.sol").write_text(STEP)
    file = tmp_path / "Counter.sol"
    file.write_text(COUNTER)
    return file


def test_shipped_artifacts_are_what_the_sources_compile_to() -> None:
    contracts = solc.compile_contracts()
    assert command.differences(command.render(contracts)) == []
    assert command.oversized(contracts) == []


def test_brownie_compiles_with_the_same_settings() -> None:
    compiler = yaml.safe_load((toolchain.ROOT / "brownie-config.yaml").read_text())["compiler"]
    assert compiler["solc"]["version"] == toolchain.SOLC_VERSION
    assert compiler["solc"]["viaIR"] is solc.SETTINGS["viaIR"]
    assert compiler["solc"]["optimizer"] == solc.SETTINGS["optimizer"]
    assert compiler["evm_version"] == solc.EVM_VERSION


def test_load_returns_every_shipped_contract_and_no_mock() -> None:
    files = {path.stem: json.loads(path.read_text()) for path in command.COMPILED.glob("*.json")}
    assert artifacts.names() == sorted(files)
    for name, content in files.items():
        artifact = artifacts.load(name)
        assert not content["mock"]
        assert artifact.deployed_bytecode.hex() == content["deployed_bytecode"][2:]
        assert len(artifact.deployed_bytecode) == content["runtime_size"]
        assert artifact.abi == content["abi"]


@pytest.mark.parametrize("name", ["Nonexistent", "../errors", "mocks/Float32Harness", ""])
def test_load_unknown_name_raises(name: str) -> None:
    with pytest.raises(ArtifactError, match="no compiled contract"):
        artifacts.load(name)


@pytest.mark.parametrize("damage", ["not json", '{"abi": []}', '{"abi": [], "bytecode": "0xzz"}'])
def test_load_damaged_file_raises(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "Damaged.json").write_text(damage)
    monkeypatch.setattr(artifacts.resources, "files", lambda _package: tmp_path)
    with pytest.raises(ArtifactError, match="damaged"):
        artifacts.load("Damaged")


def test_compiling_twice_gives_the_same_bytes_from_cache_and_compiler(
    counter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solc, "CACHE", tmp_path / "cache")
    first = solc.compile_contracts([counter])
    cached = solc.compile_contracts([counter])
    monkeypatch.setattr(solc, "CACHE", tmp_path / "other")
    assert first == cached == solc.compile_contracts([counter])
    assert len(list((tmp_path / "cache").glob("*.json"))) == 1


def test_changing_an_imported_file_is_noticed(counter: Path) -> None:
    before = solc.compile_contracts([counter])["Counter"]
    (counter.parent / "Step.sol").write_text(STEP.replace("x + 1", "x + 2"))
    after = solc.compile_contracts([counter])["Counter"]
    assert before["bytecode"] != after["bytecode"]
    assert before["source_hash"] != after["source_hash"]


def test_a_compiler_warning_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "Warned.sol"
    file.write_text(SPDX + "contract Warned { function f() external pure { uint256 unused; } }\n")
    with pytest.raises(solc.CompileError, match=r"Unused local variable[^$]*Warned\.sol:3"):
        solc.compile_contracts([file])


def test_a_missing_import_is_named(tmp_path: Path) -> None:
    file = tmp_path / "Lonely.sol"
    file.write_text(SPDX + 'import "./Gone.sol";\ncontract Lonely {}\n')
    with pytest.raises(solc.CompileError, match=r"Gone\.sol, which does not exist"):
        solc.compile_contracts([file])


def test_two_contracts_of_one_name_are_refused(tmp_path: Path) -> None:
    files = [tmp_path / "One.sol", tmp_path / "Two.sol"]
    for file in files:
        file.write_text(SPDX + "contract Twin { uint256 public x; }\n")
    with pytest.raises(solc.CompileError, match="both define Twin"):
        solc.compile_contracts(files)


def test_check_names_stale_missing_and_superfluous_files(counter: Path, tmp_path: Path) -> None:
    files = command.render(solc.compile_contracts([counter, counter.parent / "Step.sol"]))
    assert list(files) == ["Counter.json"], "a library of internal functions leaves no file"
    folder = tmp_path / "compiled"
    assert command.differences(files, folder) == ["Counter.json is missing"]
    command.write(files, folder)
    assert command.differences(files, folder) == []
    (folder / "Counter.json").write_text("{}")
    (folder / "Old.json").write_text("{}")
    found = command.differences(files, folder)
    assert found == ["Old.json belongs to no contract", "Counter.json is stale"]
    command.write(files, folder)
    assert command.differences(files, folder) == []


def test_a_contract_over_the_code_limit_is_reported(counter: Path) -> None:
    contracts = solc.compile_contracts([counter])
    assert command.oversized(contracts) == []
    contracts["Counter"]["deployed_bytecode"] = "0x" + "00" * (
        command.RUNTIME_LIMIT - command.METADATA + 1
    )
    assert command.oversized(contracts) == [
        "Counter: 24524 bytes of code, the limit is 24576 (EIP-170) with 53 of metadata"
    ]
