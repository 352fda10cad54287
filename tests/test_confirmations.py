# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents that believe an event only some blocks later do nothing twice meanwhile."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from bitcourt.lab.market_agents import PatchySolver
from bitcourt.lab.money import check_money
from bitcourt.lab.stage import ETHER
from protocol.chain.client import CONFIRMATIONS, Chain
from protocol.chain.embedded import embedded_chain
from protocol.errors import NotConfirmed
from protocol.task import Status, TaskState
from solver.agent import Settings
from tests.challenging import play_until, registered
from tests.staged import a_solver, a_stage, bundle, make_executor, post, terms
from tests.test_obligations import LIE, a_hidden_lie, chosen
from verifier.whistleblower import Settings as Whistle
from verifier.whistleblower import Whistleblower


def test_only_local_chains_need_no_confirmations() -> None:
    def usual(chain_id: int) -> int:
        return Chain(SimpleNamespace(eth=SimpleNamespace(chain_id=chain_id))).usual_confirmations  # type: ignore[arg-type]

    assert [usual(chain_id) for chain_id in (1, 10, 11155111, 42161)] == [CONFIRMATIONS] * 4
    assert [usual(chain_id) for chain_id in (1337, 31337)] == [0, 0]
    assert embedded_chain().chain.usual_confirmations == 0


def test_a_task_that_is_not_confirmed_keeps_no_other_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = a_stage(tmp_path)
    submitter, first = post(stage)
    market = stage.party("solver")
    stage.chain.confirmations = 5
    for _ in range(5):
        stage.chain.wait(1)
    second = stage.post(submitter, bundle(), terms(submitter))
    with pytest.raises(NotConfirmed, match=f"task {second}"):
        market.posted(second)
    solver = a_solver(market, tmp_path)
    with caplog.at_level(logging.WARNING, "bitcourt"):
        assert solver.poll()
    sealed = [any(market.view("sealedBids", task, market.address)) for task in (first, second)]
    assert sealed == [True, False]
    assert not [record for record in caplog.records if record.name == "bitcourt"]
    for _ in range(5):
        stage.chain.wait(1)
    assert solver.poll()
    assert any(market.view("sealedBids", second, market.address))


class Noting(PatchySolver):
    """Notes in which block it publishes its log."""

    published = 0

    def publish(self, task: int, state: TaskState) -> bool:
        shown = super().publish(task, state)
        self.published = self.published or shown * self.market.chain.block
        return shown


def test_what_is_not_confirmed_yet_is_neither_demanded_again_nor_published(tmp_path: Path) -> None:
    stage = a_stage(tmp_path)
    submitter, task = post(stage, verifier_fee=ETHER // 10)  # worth many demands
    stage.chain.confirmations = CONFIRMATIONS
    market = stage.party("solver")
    solver = Noting(market, make_executor, Settings(tmp_path / "solver"))
    agents = [solver, *registered(stage)]
    play_until(stage, task, agents, Status.SETTLED)
    asked = stage.ledger.events("Demanded")
    assert asked
    demands = [(e["asker"], e["leaf"], e["tensor"], e["chunk"]) for e in asked]
    assert len(demands) == len(set(demands))
    opened = [r.block for _, r in stage.ledger.receipts if "WindowOpened" in dict(r.events)]
    assert solver.published >= opened[0] + CONFIRMATIONS
    check_money(stage, submitter, set())


def test_a_challenge_that_is_not_confirmed_yet_is_not_sealed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, solver, task = a_hidden_lie(tmp_path)
    stage.chain.confirmations = 4
    market = stage.party("whistleblower")
    chosen(monkeypatch, LIE)
    watcher = Whistleblower(market, make_executor, Whistle(1))
    play_until(stage, task, [watcher, solver], Status.SLASHED)
    assert len(stage.ledger.events("ChallengeSealed")) == 1
    assert market.free_balance() > market.posted(task).spec.bond
    moves = [r for role, r in stage.ledger.receipts if r.function == "commitSteps"]
    assert len(moves) == 1
