# SPDX-License-Identifier: GPL-3.0-or-later
"""What an agent has begun it ends: after a restart, and whichever tasks it was told to look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import verifier.whistleblower
from bitcourt.lab.cheats import is_dot, lying
from bitcourt.lab.scenarios import flip
from bitcourt.lab.stage import ETHER, Stage
from bitcourt.lab.stubborn import StubbornSolver
from protocol.chain.embedded import embedded_chain
from protocol.executor import CompiledExecutor
from protocol.task import Status
from solver.agent import Settings, Solver
from tests.challenging import play_until, registered
from tests.staged import SEED, a_stage, bundle, end_bidding, make_executor, post
from verifier.accusations import Accusation, Book
from verifier.whistleblower import Settings as Whistle
from verifier.whistleblower import Whistleblower

LIE = 3
"""The segment in which a solver lies."""


def chosen(monkeypatch: pytest.MonkeyPatch, segment: int) -> None:
    """What chance chooses from now on."""

    class Chance:
        def sample(self, _segments: Any, _count: int) -> list[int]:
            return [segment]

    monkeypatch.setattr(verifier.whistleblower, "SystemRandom", Chance)


def a_hidden_lie(directory: Path) -> tuple[Stage, StubbornSolver, int]:
    """A solver that lies in a segment that is not drawn, and its task in the challenge window."""
    embedded = embedded_chain()
    stage = Stage.build(embedded.chain, embedded.faucet, directory)
    _, task = post(stage, samples=1)
    cheat = replace(flip("matrix product", is_dot)(bundle().program), when=lambda s: s == 17)
    liar = lying(CompiledExecutor, cheat)(bundle().program, bundle().inputs(SEED))
    settings = Settings(directory / "solver")
    solver = StubbornSolver(stage.party("solver"), lambda _p, _i: liar, settings)
    verifiers = registered(stage)
    solver.poll()
    end_bidding(stage, solver)
    play_until(stage, task, [solver], Status.COMMITTED)
    for seconds in range(1, 40):  # until chance has it so
        snapshot = embedded.tester.take_snapshot()
        stage.chain.wait(seconds)
        stage.chain.wait(1)
        solver.poll()
        if solver.market.runs(task)[0].first != LIE:
            break
        embedded.tester.revert_to_snapshot(snapshot)
    play_until(stage, task, [solver, *verifiers], Status.WINDOW)
    assert solver.poll()  # publishes
    return stage, solver, task


@pytest.mark.parametrize("only", [set(), {99}])
def test_a_whistleblower_tells_what_it_sealed_though_chance_would_choose_otherwise_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: set[int]
) -> None:
    stage, solver, task = a_hidden_lie(tmp_path)
    market = stage.party("whistleblower")
    chosen(monkeypatch, LIE)
    watcher = Whistleblower(market, make_executor, Whistle(1, directory=tmp_path / "own"))
    while not stage.ledger.events("ChallengeSealed"):
        assert watcher.poll()
    chosen(monkeypatch, 0)
    watcher = Whistleblower(market, make_executor, Whistle(1, only, tmp_path / "own"))
    state = stage.play(task, market, [watcher, solver], stage.party("keeper"))
    assert state.status == Status.SLASHED
    assert not stage.ledger.events("ChallengeDropped")
    (dispute,) = market.disputes(task)
    assert (dispute.challenger, dispute.first) == (market.address, LIE)
    assert market.free_balance() > market.posted(task).spec.bond  # and the reward


@pytest.mark.parametrize("text", [None, "", "{}", "7", "[7]", '[["x", 1, 2]]', "[[1, 2]]"])
def test_a_damaged_book_of_accusations_is_empty(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "task" / "accused.json"
    book = Book(path)
    if text is not None:
        path.parent.mkdir()
        path.write_text(text)
    assert book.read() == []
    first, second = Accusation(1, 2, 3), Accusation(4, 1, 255)
    for accused in (first, second, first):
        book.write(accused)
    assert Book(path).read() == [second, first]


def test_a_solver_that_bids_for_one_task_trains_another_that_its_ask_has_won(
    tmp_path: Path,
) -> None:
    stage = a_stage(tmp_path)
    first, mine = post(stage)
    submitter, other = post(stage)
    market = stage.party("solver")
    market.deposit(ETHER)
    market.send("setAsk", 1, 5, 1 << 20, 10**9)
    settings = Settings(tmp_path / "solver", by_ask=True, tasks={mine})
    solver = Solver(market, make_executor, settings)
    solver.poll()
    assert [market.state(task).solver == market.address for task in (mine, other)] == [True, False]
    first.send_for("cancel", mine)
    submitter.send_for("enterAsk", other, market.address)
    state = stage.play(other, submitter, [solver, *registered(stage)], stage.party("keeper"))
    assert state.status == Status.SETTLED
    record = market.record(market.address)
    assert (record.settled, record.defaulted) == (1, 0)


def test_a_solver_that_is_told_its_tasks_reveals_what_it_has_sealed_for_others(
    tmp_path: Path,
) -> None:
    stage = a_stage(tmp_path)
    _, sealed = post(stage)
    _, unwanted = post(stage)
    market = stage.party("solver")
    first = Solver(market, make_executor, Settings(tmp_path / "solver", tasks={sealed}))
    assert first.poll()
    assert not any(market.view("sealedBids", unwanted, market.address))
    second = Solver(market, make_executor, Settings(tmp_path / "solver", tasks={99}, by_ask=True))
    assert not second.poll()
    stage.chain.wait(601)
    assert second.poll()
    assert market.state(sealed).solver == market.address
