# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole tasks with honest and lying parties end as they must, and all money is found again."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest

from bitcourt.lab.cheats import Flip, find_nodes, is_dot, lying
from bitcourt.lab.ledger import Ledger
from bitcourt.lab.money import check_money
from bitcourt.lab.origin import source_of
from bitcourt.lab.scenarios import SCENARIOS
from bitcourt.lab.simulation import Outcome, run_scenario
from bitcourt.lab.small import small_job, wide_job
from bitcourt.lab.stage import Stage
from protocol.bundle import Bundle
from protocol.chain.embedded import embedded_chain
from protocol.commitments import inputs_root, state_root
from protocol.errors import BitcourtError, UsageError
from protocol.execution import Executor, Inputs
from protocol.executor import CompiledExecutor
from protocol.program import Program

PATTERN = re.compile(r"0x[0-9a-f]{8}|0x[0-9a-f]{64}")
SEED = bytes(range(32))
LEVELS = {
    "forward": ("FOLD", "RESULT"),
    "backward": ("FOLD", "RESULT"),
    "optimizer": ("MAP", "INSTRUCTION"),
    "gather": ("MAP", "RESULT"),
    "lanes": ("FOLD", "RESULT"),
    "long-sum": ("FOLD", "RESULT"),
    "lazy": ("OUTPUT", "ROOT"),
    "low-precision": ("OUTPUT", "ROOT"),
    "wrong-data": ("DATA", "ROOT"),
}
"""The kind of node and of proof that some scenarios come down to."""


@functools.cache
def bundle_of(wide: bool) -> Bundle:
    return (wide_job() if wide else small_job()).bundle()


@functools.cache
def honest_executor(wide: bool) -> Executor:
    bundle = bundle_of(wide)
    return CompiledExecutor(bundle.program, bundle.inputs(SEED))


def make_executor(program: Program, inputs: Inputs) -> Executor:
    """Honest executors are shared by all tasks with the same program: compiling takes time."""
    for wide in (False, True):
        if program == bundle_of(wide).program and not differs(inputs, bundle_of(wide)):
            return honest_executor(wide)
    return CompiledExecutor(program, inputs)


def differs(inputs: Inputs, bundle: Bundle) -> bool:
    return inputs_root(inputs.data) != inputs_root(bundle.data)


def play(name: str, directory: Path, **changes: Any) -> Outcome:
    scenario = SCENARIOS[name]
    embedded = embedded_chain()
    stage = Stage.build(embedded.chain, embedded.faucet, directory)
    terms = {"seed": SEED, "steps": 20, "segment_steps": 5, "samples": 2, **changes}
    return run_scenario(scenario, stage, bundle_of(scenario.wide), make_executor, terms)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_as_it_must_and_only_liars_lose_money(name: str, tmp_path: Path) -> None:
    # run_scenario raises where the status, the money or a stake is not what it has to be.
    outcome = play(name, tmp_path)
    convicted = [d for d in outcome.disputes if d["convicted"] and not d["timed_out"]]
    for dispute in convicted:
        assert PATTERN.fullmatch(dispute["claimed_bits"])
        assert PATTERN.fullmatch(dispute["recomputed_bits"])
        assert dispute["claimed_bits"] != dispute["recomputed_bits"]
        assert len(dispute["path"]) == dispute["moves"] + 1
    if name in LEVELS:
        assert (convicted[0]["kind"], convicted[0]["proof"]) == LEVELS[name]
    path = "\n".join(line for dispute in outcome.disputes for line in dispute["path"])
    assert ("lane" in path) is (name == "lanes")
    assert ("of level 1" in path) is (name == "long-sum")
    if name in ("first-step", "last-step"):
        assert convicted[0]["step"] % 5 == (0 if name == "first-step" else 4)
    if name == "two-disputes":
        paid = outcome.stage.ledger.credits()
        # Their seats stand for the disputes of drawn verifiers; both are paid for being right.
        assert [paid[f"verifier {i}"]["verified"] for i in (1, 2)] == [10**16] * 2
        assert not any("bond" in paid[f"verifier {i}"] for i in (1, 2))
        assert [("conviction" in paid[f"verifier {i}"]) for i in (1, 2)] == [True, False]


def test_everybody_can_withdraw_all_that_is_owed(tmp_path: Path) -> None:
    outcome = play("two-disputes", tmp_path)
    parties = [outcome.submitter, *(agent.market for agent in outcome.verifiers)]
    for market in parties:
        before = outcome.stage.chain.balance(market.address)
        owed = market.free_balance()
        market.send("withdraw")
        assert market.free_balance() == 0
        assert outcome.stage.chain.balance(market.address) > before + owed // 2
    check_money(outcome.stage, outcome.submitter, {"solver"})


def test_missing_money_and_unpunished_liars_are_noticed(tmp_path: Path) -> None:
    outcome = play("late-verifier", tmp_path)
    with pytest.raises(BitcourtError, match="solver lied and lost nothing"):
        check_money(outcome.stage, outcome.submitter, {"solver", "verifier 3"})
    with pytest.raises(BitcourtError, match="verifier 3 was honest and lost 1000000000000000000"):
        check_money(outcome.stage, outcome.submitter, set())
    # Without the burn of the late verifier's stake a wei is missing.
    kept = [
        (sender, receipt)
        for sender, receipt in outcome.stage.ledger.receipts
        if "Burned" not in [name for name, _ in receipt.events]
    ]
    outcome.stage.ledger = Ledger(outcome.stage.ledger.roles, kept)
    with pytest.raises(BitcourtError, match="wei went in"):
        check_money(outcome.stage, outcome.submitter, {"verifier 3"})


def test_a_lie_that_rounding_would_absorb_moves_to_the_next_element() -> None:
    bundle = bundle_of(False)
    inputs = bundle.inputs(SEED)
    honest = CompiledExecutor(bundle.program, inputs)
    # Half of the first layer's results die in the ReLU: many of these flips change nothing.
    node = find_nodes(bundle.program, "matrix product", is_dot)[0]
    for element in (0, 40, 80, 120):
        liar = lying(CompiledExecutor, Flip(node, element))(bundle.program, inputs)
        lie, truth = (e.step(bundle.state, 0) for e in (liar, honest))
        assert state_root(lie) != state_root(truth)
        trace = liar.trace(bundle.state, 0)
        assert state_root(trace[-len(lie) :]) == state_root(lie)


def test_sources_name_the_part_of_the_step_and_the_tensor_it_serves() -> None:
    program = bundle_of(False).program
    sources = [source_of(program, number) for number in range(len(program.nodes))]
    assert sources[0] == "input: model.0.weight (20, 6)"
    assert "forward pass: sum of products (8, 20), 6 terms" in sources
    assert "backward pass: sum of products (20, 6), 8 terms, for model.0.weight" in sources
    assert sources[-1] == "new state: momentum.2.bias (2), for momentum.2.bias"
    assert sum(source.startswith("optimizer: ") for source in sources) == 8


def test_a_cheat_that_finds_nothing_to_change_is_refused() -> None:
    program = bundle_of(False).program
    with pytest.raises(UsageError, match="no long sum"):
        SCENARIOS["long-sum"].cheat(program)  # type: ignore[misc]
