# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents survive restarts, missing bytes, hostile tasks and a chain that says no."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

import pytest

from bitcourt.lab.cheats import is_dot, lying
from bitcourt.lab.money import check_money
from bitcourt.lab.scenarios import SCENARIOS, flip
from bitcourt.lab.simulation import run_scenario
from bitcourt.lab.stage import ETHER, Stage
from bitcourt.lab.stubborn import StubbornSolver
from protocol.agent import Agent
from protocol.commitments import inputs_root
from protocol.errors import ChainError, InsufficientFunds, ProgramError, TransactionReverted
from protocol.executor import CompiledExecutor
from protocol.market import Market
from protocol.task import SeatState, Status, TaskState
from solver.agent import Settings, Solver
from tests.staged import (
    SEED,
    Reborn,
    a_solver,
    a_stage,
    bundle,
    end_bidding,
    make_executor,
    post,
    terms,
)
from verifier.agent import Settings as Own
from verifier.agent import Verifier


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return a_stage(tmp_path)


def durable(stage: Stage, market: Market) -> Verifier:
    """A verifier that finds again what another process of the same account has kept."""
    settings = Own(directory=stage.directory / market.address)
    return Verifier(market, make_executor, settings)


def test_agents_that_are_killed_after_every_poll_settle_a_task(stage: Stage) -> None:
    submitter, task = post(stage)
    solver_market = stage.party("solver")
    verifier_markets = [stage.party(f"verifier {i}") for i in (1, 2)]
    for market in verifier_markets:
        Verifier(market, make_executor).register()
    agents = [
        Reborn(lambda: a_solver(solver_market, stage.directory)),
        *(Reborn(functools.partial(durable, stage, market)) for market in verifier_markets),
    ]
    state = stage.play(task, submitter, agents, stage.party("keeper"))
    assert state.status == Status.SETTLED
    check_money(stage, submitter, set())
    counts = {kind: used["count"] for kind, used in stage.ledger.gas().items()}
    once = ("bid", "revealBid", "append", "draw", "openEnds", "settle")
    assert all(counts[kind] == 1 for kind in once)
    assert counts["seal"] == counts["reveal"] == 2
    # The first commitment assigns, the draw opens the starts, the last reveal opens the window.
    assert not {"assign", "openStarts", "openWindow"} & set(counts)


def test_agents_that_are_killed_after_every_poll_convict_a_cheater(stage: Stage) -> None:
    submitter, task = post(stage)
    cheat = flip("matrix product", is_dot)(bundle().program)
    liar = lying(CompiledExecutor, cheat)(bundle().program, bundle().inputs(SEED))
    solver_market = stage.party("solver")
    verifier_markets = [stage.party(f"verifier {i}") for i in (1, 2)]
    for market in verifier_markets:
        Verifier(market, make_executor).register()

    def cheating_solver() -> Agent:
        settings = Settings(stage.directory / "solver")
        return StubbornSolver(solver_market, lambda _p, _i: liar, settings)

    agents = [
        Reborn(cheating_solver),
        *(Reborn(functools.partial(durable, stage, market)) for market in verifier_markets),
    ]
    state = stage.play(task, submitter, agents, stage.party("keeper"))
    assert state.status == Status.SLASHED
    check_money(stage, submitter, {"solver"})
    counts = {kind: used["count"] for kind, used in stage.ledger.gas().items()}
    # Two disputes, and no move twice: whatever was sent was needed.
    for kind in ("challenge", "commitSteps", "commitTrace", "revealChunk", "prove"):
        assert counts[kind] == 2
    assert "timeout" not in counts


def test_a_solver_that_lost_its_checkpoints_trains_again(stage: Stage) -> None:
    _, task = post(stage)
    market = stage.party("solver")
    a_solver(market, stage.directory).poll()
    end_bidding(stage, a_solver(market, stage.directory))
    half = Settings(stage.directory / "solver", commits=2)
    solver = Solver(market, make_executor, half)
    while market.state(task).log_size == 0:
        assert solver.poll()
    assert market.state(task).log_size == 3
    # The last checkpoint, which is committed, was cut short and the index lists it.
    found = sorted(
        (stage.directory / "solver").rglob("*.safetensors"), key=lambda p: p.stat().st_mtime
    )
    found[-1].write_bytes(found[-1].read_bytes()[:100])
    solver = a_solver(market, stage.directory)
    while market.state(task).status != Status.COMMITTED:  # the lost segment, and the other half
        assert solver.poll()


@pytest.mark.parametrize("damage", ["missing", "truncated", "exchanged"])
def test_a_solver_does_not_bid_on_bytes_that_it_has_not(stage: Stage, damage: str) -> None:
    _, task = post(stage)
    root = inputs_root(bundle().data)
    path = stage.directory / "store" / "tensors" / f"{root.hex()}.safetensors"
    good = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(good[:-8])
    else:
        path.write_bytes(good[:-4] + b"\x01\x00\x00\x00")
    market = stage.party("solver")
    solver = a_solver(market, stage.directory)
    before = market.state(task), market.free_balance(), stage.chain.balance(market.address)
    assert not solver.poll()
    after = market.state(task), market.free_balance(), stage.chain.balance(market.address)
    assert before == after
    path.write_bytes(good)
    assert solver.poll()
    assert any(market.view("sealedBids", task, market.address))


def test_a_task_that_lies_about_its_program_keeps_no_other_task_waiting(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    submitter, bad = post(stage, n_nodes=40)
    good = stage.post(submitter, bundle(), terms(submitter))
    market = stage.party("solver")
    with caplog.at_level(logging.WARNING, "bitcourt"):
        solver = a_solver(market, stage.directory)
        assert solver.poll()
        solver.poll()
    sealed = [any(market.view("sealedBids", task, market.address)) for task in (bad, good)]
    assert sealed == [False, True]
    assert len([r for r in caplog.records if f"task {bad}" in r.message]) == 1  # said once


@pytest.mark.parametrize("error", [ProgramError("odd"), MemoryError(), InsufficientFunds("poor")])
def test_an_error_in_one_task_never_stops_an_agent(stage: Stage, error: Exception) -> None:
    submitter, first = post(stage)
    second = stage.post(submitter, bundle(), terms(submitter))
    market = stage.party("solver")

    class Stumbling(Solver):
        def act(self, task: int, state: TaskState) -> bool:
            if task == first:
                raise error
            return super().act(task, state)

    assert Stumbling(market, make_executor, Settings(stage.directory)).poll()
    assert any(market.view("sealedBids", second, market.address))


def test_a_chain_that_does_not_answer_is_told_to_the_caller(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, task = post(stage)
    solver = a_solver(stage.party("solver"), stage.directory)

    def down(*_: object, **__: object) -> None:
        raise ChainError("the RPC endpoint does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(stage.chain, "send", down)
        with pytest.raises(ChainError):
            solver.poll()
    assert solver.poll()  # goes on where it stood
    assert any(solver.market.view("sealedBids", task, solver.market.address))


def test_what_somebody_else_did_first_is_done(stage: Stage) -> None:
    submitter, task = post(stage)
    market = stage.party("solver")
    for i in (1, 2):
        Verifier(stage.party(f"verifier {i}"), make_executor).register()
    solver = a_solver(market, stage.directory)
    solver.poll()
    end_bidding(stage, solver)
    for _ in range(4):
        solver.poll()
    for _ in range(2):
        stage.chain.wait(1)
    stale = market.state(task)
    assert stale.status == Status.COMMITTED
    submitter.send_for("draw", task, [])
    with pytest.raises(TransactionReverted, match="WrongStatus"):
        solver.draw(task, stale)
    assert market.state(task).status != Status.COMMITTED


def test_a_verifier_that_gets_no_bytes_reports_it_and_keeps_its_stake(stage: Stage) -> None:
    outcome = run_scenario(
        SCENARIOS["unserved"],
        stage,
        bundle(),
        make_executor,
        {"seed": SEED, "steps": 20, "segment_steps": 5, "samples": 1},
    )
    verifier = outcome.verifiers[0]
    reports = [r for _, r in stage.ledger.receipts if r.function == "reportUnavailable"]
    assert reports
    assert not stage.ledger.events("VerifierSlashed")
    assert verifier.market.view("verifierOf", verifier.market.address)[1] == 1
    assert all(seat.state != SeatState.SEALED for seat in verifier.market.seats(outcome.task))


def test_a_bid_is_sealed_once_and_the_second_price_is_paid(stage: Stage) -> None:
    _, task = post(stage)
    first, second = stage.party("solver"), stage.party("rival")
    solvers = [
        Solver(first, make_executor, Settings(stage.directory / "solver")),
        Solver(
            second,
            make_executor,
            Settings(stage.directory / "rival", price=lambda posted: posted.spec.budget // 2),
        ),
    ]
    for solver in solvers:
        assert solver.poll()
        assert not solver.poll()
    stage.chain.wait(601)
    for solver in solvers:
        assert solver.poll()
        assert not solver.poll()
    state = first.state(task)
    assert (state.solver, state.price) == (second.address, ETHER)
    assert first.free_balance() == first.posted(task).spec.solver_stake
    first.send("withdraw")
    assert first.free_balance() == 0
    with pytest.raises(TransactionReverted, match="NothingToWithdraw"):
        first.send("withdraw")


def test_a_solver_with_another_price_reveals_the_one_that_it_sealed(stage: Stage) -> None:
    _, task = post(stage)
    market = stage.party("solver")

    def at(price: int) -> Solver:
        settings = Settings(stage.directory / "solver", price=lambda _: price)
        return Solver(market, make_executor, settings)

    at(ETHER // 3).poll()
    stage.chain.wait(601)
    assert at(ETHER // 2).poll()
    assert market.state(task).solver == market.address


def test_a_solver_that_forgot_its_price_says_so(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    _, task = post(stage)
    market = stage.party("solver")

    def at(price: int) -> Solver:
        settings = Settings(stage.directory / "solver", price=lambda _: price)
        return Solver(market, make_executor, settings)

    at(ETHER // 3).poll()
    next((stage.directory / "solver").glob("*-bids.json")).unlink()
    stage.chain.wait(601)
    with caplog.at_level(logging.WARNING, "bitcourt"):
        assert not at(ETHER // 2).poll()
    assert "start the solver with the price that it had" in caplog.text
    assert at(ETHER // 3).poll()  # the nonce follows from the key
    assert market.state(task).solver == market.address


def test_a_cancelled_task_gives_back_escrow_and_bonds(stage: Stage) -> None:
    submitter, task = post(stage)
    market = stage.party("solver")
    solver = a_solver(market, stage.directory)
    solver.poll()
    submitter.send_for("cancel", task)
    assert solver.poll()
    assert submitter.free_balance() == submitter.posted(task).spec.escrow
    check_money(stage, submitter, set())
    assert not solver.poll()
