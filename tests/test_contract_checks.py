# SPDX-License-Identifier: GPL-3.0-or-later
"""The tools behind `make analyse`, `make prove` and `make mutate`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from eth_utils.crypto import keccak

from scripts import analyse, mutants, mutate, prove, solc, toolchain
from tests.evm import Evm, EvmReverted

SOURCE = """\
// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity ^0.8.30;

contract Gate {
    error Closed();

    function pass(uint256 a, uint256 b) external pure returns (bool) {
        if (a > 9) revert Closed();
        return a < 5 ? b == 2 : false;
    }
}
"""


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[mutants.Mutant]]:
    """The instrumented bytecode of `Gate`, not linked, and its mutants."""
    root = tmp_path_factory.mktemp("gate")
    (root / "contracts" / "lib").mkdir(parents=True)
    (root / "contracts" / "Gate.sol").write_text(SOURCE)
    text, found = mutants.instrument(root, "contracts/Gate.sol")
    (root / mutants.SWITCH).write_text(mutants.SWITCH_SOURCE)
    (root / "contracts" / "Gate.sol").write_text(text)
    return solc.compile_contracts([root / "contracts" / "Gate.sol"])["Gate"]["bytecode"], found


def answers(bytecode: str, number: int) -> list[str]:
    """What the contract says to a few calls with one mutant on."""
    linked = mutants.PLACEHOLDER.sub(f"{number:040x}", bytecode)
    evm = Evm()
    address = evm.deploy(bytes.fromhex(linked[2:]))
    selector = keccak(text="pass(uint256,uint256)")[:4]
    said = []
    for a, b in ((4, 2), (5, 2), (4, 3), (9, 2), (10, 2)):
        try:
            output, _ = evm.call(address, selector + a.to_bytes(32, "big") + b.to_bytes(32, "big"))
            said.append("yes" if output[-1] else "no")
        except EvmReverted:
            said.append("closed")
    return said


def test_instrument_makes_one_mutant_of_each_place(
    gate: tuple[str, list[mutants.Mutant]],
) -> None:
    _, found = gate
    assert [(m.line, m.what.split(":")[0]) for m in found] == [
        (8, "without the guard"),
        (8, "> becomes >="),
        (9, "always taken"),
        (9, "never taken"),
        (9, "< becomes <="),
        (9, "== becomes !="),
    ]


def test_linking_switches_on_exactly_one_mutant(gate: tuple[str, list[mutants.Mutant]]) -> None:
    bytecode, _ = gate
    assert answers(bytecode, 0) == ["yes", "no", "no", "no", "closed"]
    assert answers(bytecode, 1) == ["yes", "no", "no", "no", "no"]
    assert answers(bytecode, 2) == ["yes", "no", "no", "closed", "closed"]
    assert answers(bytecode, 3) == ["yes", "yes", "no", "yes", "closed"]
    assert answers(bytecode, 4) == ["no", "no", "no", "no", "closed"]
    assert answers(bytecode, 5) == ["yes", "yes", "no", "no", "closed"]
    assert answers(bytecode, 6) == ["no", "no", "yes", "no", "closed"]


def test_every_contract_has_tests_that_must_notice() -> None:
    for file in mutate.files():
        assert mutate.tests_of(file), file


def test_a_finding_needs_a_row_and_a_row_a_finding() -> None:
    page = "| `timestamp` | `Audit\\..*\\|Clock.charge` | Deadlines are times. |\n"
    answers = analyse.read_answers(page)
    clock = analyse.Finding("timestamp", "Low", "Clock.charge", "uses a timestamp")
    other = analyse.Finding("timestamp", "Low", "Market.settle", "uses a timestamp")
    assert analyse.unanswered([clock], answers) == ([], [])
    assert analyse.unanswered([clock, other], answers) == ([other], [])
    assert analyse.unanswered([other], answers) == ([other], answers)


def test_the_page_has_a_reason_in_each_row() -> None:
    rows = analyse.read_answers(analyse.ANSWERS.read_text())
    table = [line for line in Path(analyse.ANSWERS).read_text().splitlines() if line[:3] == "| `"]
    assert len(rows) == len(table) > 0
    assert all(row.reason.endswith((".", ")")) for row in rows)


def test_the_page_on_proofs_states_every_theorem() -> None:
    page = (toolchain.ROOT / "docs" / "proofs.md").read_text()
    stated = re.findall(r"^\| `(check_\w+)` \|", page, re.MULTILINE)
    assert sorted(stated) == sorted(name for names in prove.theorems().values() for name in names)


def test_every_theorem_compiles_with_the_shipped_settings() -> None:
    compiled = prove.compiled()
    for contract, theorems in prove.theorems().items():
        functions = {f.split("(")[0] for f in compiled[contract]["methodIdentifiers"]}
        assert set(theorems) <= functions
        assert compiled[contract]["metadata"]["settings"]["viaIR"]


def test_a_theorem_counts_only_if_nothing_was_left_out() -> None:
    assert prove.proved({"exitcode": 0, "num_bounded_loops": 0})
    assert not prove.proved({"exitcode": 0, "num_bounded_loops": 1})
    assert not prove.proved({"exitcode": 2, "num_bounded_loops": 0})
    assert not prove.proved(None)
