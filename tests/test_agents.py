# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents survive restarts, missing bytes, hostile tasks and a chain that says no."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bitcourt.lab.cheats import is_dot, lying
from bitcourt.lab.money import check_money
from bitcourt.lab.scenarios import SCENARIOS, flip
from bitcourt.lab.simulation import run_scenario
from bitcourt.lab.small import small_job
from bitcourt.lab.stage import ETHER, Stage
from bitcourt.lab.stubborn import StubbornSolver
from protocol.agent import Agent
from protocol.bundle import Bundle
from protocol.chain.embedded import embedded_chain
from protocol.errors import ChainError, InsufficientFunds, ProgramError, TransactionReverted
from protocol.execution import Executor, Inputs
from protocol.executor import CompiledExecutor
from protocol.market import Market
from protocol.program import Program
from protocol.task import SeatState, Status, TaskSpec, TaskState
from solver.agent import Settings, Solver
from verifier.agent import Verifier

SEED = bytes(range(32))


@functools.cache
def bundle() -> Bundle:
    return small_job().bundle()


@functools.cache
def honest_executor() -> Executor:
    return CompiledExecutor(bundle().program, bundle().inputs(SEED))


def make_executor(program: Program, inputs: Inputs) -> Executor:
    # Compiled once: a new agent gets the same arithmetic, and nothing else of the old one.
    return honest_executor()


def terms(**changes: int) -> TaskSpec:
    spec = bundle().spec(seed=SEED, steps=20, segment_steps=5, committee=1)
    return replace(spec, **changes)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    embedded = embedded_chain()
    return Stage.build(embedded.chain, embedded.faucet, tmp_path)


def a_solver(market: Market, directory: Path) -> Solver:
    return Solver(market, make_executor, Settings(directory / "solver"))


def post(stage: Stage, spec: TaskSpec) -> tuple[Market, int]:
    submitter = stage.party("submitter")
    return submitter, stage.post(submitter, bundle(), spec, ETHER)


class Reborn(Agent):
    """Throws its agent away after every poll, as if it had been killed there."""

    def __init__(self, make: Callable[[], Agent]) -> None:
        self.make = make
        self.market = make().market

    def poll(self) -> bool:
        return self.make().poll()

    def act(self, task: int, state: TaskState) -> bool:
        raise NotImplementedError


def test_agents_that_are_killed_after_every_poll_settle_a_task(stage: Stage) -> None:
    submitter, task = post(stage, terms())
    markets = {role: stage.party(role) for role in ("solver", "verifier 1")}
    Verifier(markets["verifier 1"], make_executor).register()
    agents = [
        Reborn(lambda: a_solver(markets["solver"], stage.directory)),
        Reborn(lambda: Verifier(markets["verifier 1"], make_executor)),
    ]
    state = stage.play(task, submitter, agents, stage.party("keeper"))
    assert state.status == Status.SETTLED
    check_money(stage, submitter, set())
    counts = {kind: used["count"] for kind, used in stage.ledger.gas().items()}
    once = ("bid", "assign", "draw", "openStarts", "seal", "openEnds", "reveal", "settle")
    assert all(counts[kind] == 1 for kind in once)


def test_agents_that_are_killed_after_every_poll_convict_a_cheater(stage: Stage) -> None:
    submitter, task = post(stage, terms(committee=2))
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
        *(Reborn(functools.partial(Verifier, m, make_executor)) for m in verifier_markets),
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
    _, task = post(stage, terms())
    market = stage.party("solver")
    a_solver(market, stage.directory).poll()
    stage.chain.wait(601)
    a_solver(market, stage.directory).poll()  # assign
    a_solver(market, stage.directory).poll()  # the first half
    assert market.state(task).log_size == 3
    # The last checkpoint was cut short and the index lists it.
    found = sorted(
        (stage.directory / "solver").rglob("*.safetensors"), key=lambda p: p.stat().st_mtime
    )
    found[-1].write_bytes(found[-1].read_bytes()[:100])
    a_solver(market, stage.directory).poll()
    assert market.state(task).status == Status.COMMITTED


@pytest.mark.parametrize("damage", ["missing", "truncated", "exchanged"])
def test_a_solver_does_not_bid_on_bytes_that_it_has_not(stage: Stage, damage: str) -> None:
    _, task = post(stage, terms())
    root = bundle().spec(seed=SEED, steps=1, segment_steps=1).data_root
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
    assert market.state(task).solver == market.address


def test_a_task_that_lies_about_its_program_keeps_no_other_task_waiting(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    submitter, bad = post(stage, terms(n_nodes=40))
    good = stage.post(submitter, bundle(), terms(), ETHER)
    market = stage.party("solver")
    with caplog.at_level(logging.WARNING, "bitcourt"):
        solver = a_solver(market, stage.directory)
        assert solver.poll()
        solver.poll()
    assert int(market.state(bad).solver, 16) == 0
    assert market.state(good).solver == market.address
    assert len([r for r in caplog.records if f"task {bad}" in r.message]) == 1  # said once


@pytest.mark.parametrize("error", [ProgramError("odd"), MemoryError(), InsufficientFunds("poor")])
def test_an_error_in_one_task_never_stops_an_agent(stage: Stage, error: Exception) -> None:
    submitter, first = post(stage, terms())
    second = stage.post(submitter, bundle(), terms(), ETHER)
    market = stage.party("solver")

    class Stumbling(Solver):
        def bid_or_assign(self, task: int, state: TaskState) -> bool:
            if task == first:
                raise error
            return super().bid_or_assign(task, state)

    assert Stumbling(market, make_executor, Settings(stage.directory)).poll()
    assert market.state(second).solver == market.address


def test_a_chain_that_does_not_answer_is_told_to_the_caller(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, task = post(stage, terms())
    solver = a_solver(stage.party("solver"), stage.directory)

    def down(*_: object, **__: object) -> None:
        raise ChainError("the RPC endpoint does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(stage.chain, "send", down)
        with pytest.raises(ChainError):
            solver.poll()
    assert solver.poll()  # goes on where it stood
    assert solver.market.state(task).solver == solver.market.address


def test_what_somebody_else_did_first_is_done(stage: Stage) -> None:
    submitter, task = post(stage, terms())
    market = stage.party("solver")
    solver = a_solver(market, stage.directory)
    solver.poll()
    stage.chain.wait(601)
    stale = market.state(task)
    submitter.send("assign", task, terms().as_abi())
    with pytest.raises(TransactionReverted, match="WrongStatus"):
        solver.bid_or_assign(task, stale)
    assert solver.poll()
    assert market.state(task).log_size > 0


def test_a_verifier_that_gets_no_bytes_reports_it_and_keeps_its_stake(stage: Stage) -> None:
    outcome = run_scenario(
        replace(SCENARIOS["unserved"], verifiers=(Verifier,)),
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


def test_a_bid_is_made_once_and_only_below_the_best(stage: Stage) -> None:
    _, task = post(stage, terms())
    first, second = stage.party("solver"), stage.party("rival")
    a_solver(first, stage.directory).poll()
    for _ in range(2):
        assert not a_solver(first, stage.directory).poll()
        assert not a_solver(second, stage.directory / "rival").poll()
    cheaper = Settings(stage.directory / "rival", price=lambda posted: posted.budget // 2)
    assert Solver(second, make_executor, cheaper).poll()
    assert first.state(task).solver == second.address
    assert first.free_balance() == terms().solver_stake
    first.send("withdraw")
    assert first.free_balance() == 0
    with pytest.raises(TransactionReverted, match="NothingToWithdraw"):
        first.send("withdraw")
