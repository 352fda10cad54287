# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents stake on no task that they could only lose. How long a step takes is made up here."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import pytest

from bitcourt.lab.cheats import Lazy, lying
from bitcourt.lab.stage import ETHER, Stage
from bitcourt.lab.stubborn import StubbornSolver
from protocol.bundle import Bundle
from protocol.errors import NumericsError
from protocol.execution import Executor, Inputs
from protocol.executor import CompiledExecutor
from protocol.feasibility import DAY, Limits, Speed
from protocol.market import Market
from protocol.program import Program
from protocol.task import SeatState, Status
from solver.agent import Settings, Solver
from tests.challenging import a_lie_that_all_attest
from tests.staged import (
    SEED,
    a_solver,
    a_stage,
    asking,
    bundle,
    end_bidding,
    make_executor,
    post,
    terms,
)
from tests.test_feasibility import integer_program
from verifier.agent import Settings as Own
from verifier.agent import Verifier
from verifier.whistleblower import Settings as Whistle
from verifier.whistleblower import Whistleblower


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return a_stage(tmp_path)


def slow(agent: Solver | Verifier | Whistleblower, step: float) -> None:
    """Makes an agent believe that a step takes so many seconds."""
    agent.assessment.measure = lambda found, _: Speed.measured(found.program, step, 0.0)


class Usage(NamedTuple):
    """As of `shutil.disk_usage`."""

    total: int
    used: int
    free: int


def sealed(market: Market, *tasks: int) -> list[bool]:
    return [any(market.view("sealedBids", task, market.address)) for task in tasks]


TOO_SHORT = [
    {"train_window": 600},  # 20 steps take 1,200 seconds
    {"dispute_clock": 5_000},  # a defence replays them twice
    {"audit_window": 1_200, "dispute_clock": DAY},  # the verifiers of all four segments could not
]
"""Terms that somebody who takes a minute for a step cannot keep."""
LONG = {"train_window": 7_200, "audit_window": 7_200, "dispute_clock": 7_200}


@pytest.mark.parametrize("changes", TOO_SHORT)
def test_a_solver_does_not_bid_for_what_it_cannot_train_or_defend_in_time(
    stage: Stage, changes: dict[str, int]
) -> None:
    _, task = post(stage, **changes)
    market = stage.party("solver")
    solver = a_solver(market, stage.directory)
    slow(solver, 60)
    assert not solver.poll()
    assert (sealed(market, task), market.free_balance()) == ([False], 0)
    solver = a_solver(market, stage.directory)
    slow(solver, 1)
    assert solver.poll()
    assert sealed(market, task) == [True]


def test_a_solver_accepts_no_task_that_names_it_and_cannot_be_defended(stage: Stage) -> None:
    market = stage.party("solver")
    _, task = post(stage, solver=market.address, dispute_clock=600)
    solver = a_solver(market, stage.directory)
    slow(solver, 60)
    assert not solver.poll()
    assert market.state(task).status == Status.BIDDING


@pytest.mark.parametrize("changes", [{"train_window": 600}, {"dispute_clock": 600}])
def test_an_ask_leaves_at_once_and_for_nothing_what_it_cannot_do_in_time(
    stage: Stage, changes: dict[str, int]
) -> None:
    submitter, task = post(stage, **changes)
    market = stage.party("solver")
    solver = asking(stage, market)
    slow(solver, 60)
    assert not solver.poll()  # enters no ask for it
    submitter.send_for("enterAsk", task, market.address)
    assert solver.poll()
    state = market.state(task)
    assert (state.status, int(state.solver, 16)) == (Status.BIDDING, 0)
    assert market.free_balance() == ETHER


def test_an_ask_that_was_entered_too_often_keeps_what_can_be_trained_in_time(stage: Stage) -> None:
    submitter, first = post(stage, train_window=2_400)
    second = stage.post(submitter, bundle(), terms(submitter, train_window=2_400))
    market = stage.party("solver")
    solver = asking(stage, market)
    slow(solver, 60)
    for task in (first, second):
        submitter.send_for("enterAsk", task, market.address)
    assert solver.poll()
    leads = [market.state(task).solver == market.address for task in (first, second)]
    assert leads == [True, False]


def test_a_task_that_an_ask_has_won_unseen_is_declined_before_it_is_trained(stage: Stage) -> None:
    submitter, task = post(stage, dispute_clock=600)
    market = stage.party("solver")
    solver = asking(stage, market)
    slow(solver, 60)
    submitter.send_for("enterAsk", task, market.address)
    spec = submitter.posted(task).spec
    stage.chain.wait(2 * spec.bid_window + 1)
    assert solver.poll()  # assigns: before, it could not decline any more
    assert solver.poll()
    assert market.state(task).status == Status.EXPIRED
    assert market.record(market.address).capacity == 0
    assert ETHER - spec.bond <= market.free_balance() < ETHER


@pytest.mark.parametrize("error", [MemoryError(), NumericsError("LLVM died"), OSError("disk full")])
def test_an_ask_leaves_for_nothing_whatever_keeps_it_from_computing(
    stage: Stage, error: Exception
) -> None:
    submitter, task = post(stage)
    market = stage.party("solver")

    def broken(_program: Program, _inputs: Inputs) -> NoReturn:
        raise error

    solver = asking(stage, market, broken)
    submitter.send_for("enterAsk", task, market.address)
    assert not solver.poll()  # it may pass
    stage.chain.wait(submitter.posted(task).spec.bid_window // 2 + 1)
    assert solver.poll()
    assert int(market.state(task).solver, 16) == 0
    assert market.free_balance() == ETHER


def test_an_ask_wins_no_program_that_takes_more_memory_than_its_terms_state(stage: Stage) -> None:
    submitter, task = post(stage, memory_mib=0)
    market = stage.party("solver")
    solver = asking(stage, market)
    assert not solver.poll()
    submitter.send_for("enterAsk", task, market.address)
    assert solver.poll()
    assert int(market.state(task).solver, 16) == 0
    assert market.free_balance() == ETHER


def test_an_ask_works_not_for_nothing_where_all_arithmetic_is_of_integers(stage: Stage) -> None:
    submitter, market = stage.party("submitter"), stage.party("solver")
    whole = Bundle(integer_program(1 << 14), [np.arange(16, dtype=np.uint32)], [], [])
    spec = whole.spec(seed=SEED, steps=20, segment_steps=5, submitter=submitter.address, budget=1)
    task = stage.post(submitter, whole, spec)
    solver = asking(stage, market, CompiledExecutor)
    assert spec.work == 0
    assert not solver.poll()
    submitter.send_for("enterAsk", task, market.address)
    assert solver.poll()
    assert int(market.state(task).solver, 16) == 0


def test_a_stake_that_terms_were_sized_to_a_wallet_with_is_not_deposited(stage: Stage) -> None:
    _, task = post(stage, solver_stake=99 * ETHER)
    market = stage.party("solver")
    assert not a_solver(market, stage.directory).poll()
    assert market.free_balance() == 0
    settings = Settings(stage.directory / "solver", limits=Limits(max_stake=99 * ETHER))
    assert Solver(market, make_executor, settings).poll()
    assert sealed(market, task) == [True]


def test_bids_that_could_not_all_be_revealed_are_not_all_sealed(stage: Stage) -> None:
    submitter, first = post(stage, solver_stake=ETHER)
    spec = terms(submitter, solver_stake=ETHER)
    tasks = [first, *(stage.post(submitter, bundle(), spec) for _ in range(3))]
    market = stage.party("solver", 3)  # pays for two stakes, and gas
    solver = a_solver(market, stage.directory)
    for _ in range(3):
        solver.poll()
    assert sealed(market, *tasks) == [True, True, False, False]
    stage.chain.wait(spec.bid_window + 1)
    solver = a_solver(market, stage.directory)  # what is reserved follows from the chain
    for _ in range(3):
        solver.poll()
    assert [market.state(task).solver == market.address for task in tasks[:2]] == [True, True]
    assert market.free_balance() == 0


def test_tasks_that_could_not_all_be_trained_in_time_are_not_all_bid_for(stage: Stage) -> None:
    # Each takes 20 minutes, or 40 with the margin.
    submitter, first = post(stage, train_window=2 * 2_400)
    spec = terms(submitter, train_window=2 * 2_400)
    tasks = [first, *(stage.post(submitter, bundle(), spec) for _ in range(2))]
    market = stage.party("solver")
    solver = a_solver(market, stage.directory)
    slow(solver, 60)
    solver.poll()
    assert sealed(market, *tasks) == [True, True, False]
    again = a_solver(market, stage.directory)  # what is promised follows from the chain
    slow(again, 60)
    again.poll()
    assert sealed(market, *tasks) == [True, True, False]
    for task in tasks[:2]:
        submitter.send_for("cancel", task)
    again.poll()
    assert sealed(market, *tasks) == [False, False, True]


def test_tasks_that_do_not_all_fit_into_memory_are_not_all_bid_for(stage: Stage) -> None:
    needed = terms(stage.party("submitter")).memory_mib
    submitter, first = post(stage)
    second = stage.post(submitter, bundle(), terms(submitter, memory_mib=needed + 1))
    market = stage.party("solver")
    for limit, bids in ((2 * needed, [True, False]), (2 * needed + 1, [True, True])):
        settings = Settings(stage.directory / "solver", limits=Limits(memory_mib=limit))
        Solver(market, make_executor, settings).poll()
        assert sealed(market, first, second) == bids


def test_tasks_whose_checkpoints_do_not_all_fit_on_the_disk_are_not_all_bid_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitter, first = post(stage)
    second = stage.post(submitter, bundle(), terms(submitter))
    state = 4 * sum(tensor.size for tensor in bundle().state)
    both = 2 * (submitter.posted(first).spec.segments + 1) * state
    market = stage.party("solver")
    for free, bids in ((both // 2 - 1, [False, False]), (both - 1, [True, False])):
        monkeypatch.setattr("protocol.agent.disk_usage", lambda _, free=free: Usage(0, 0, free))
        a_solver(market, stage.directory).poll()
        assert sealed(market, first, second) == bids
    monkeypatch.setattr("protocol.agent.disk_usage", lambda _: Usage(0, 0, both))
    a_solver(market, stage.directory).poll()
    assert sealed(market, first, second) == [True, True]


def test_a_flood_of_tasks_is_looked_at_one_by_one(stage: Stage) -> None:
    submitter, first = post(stage)
    tasks = [
        first,
        *(stage.post(submitter, bundle(), terms(submitter, work=w)) for w in (0, 2, 3, 4)),
    ]
    settings = Settings(stage.directory / "solver", slice=0.0)
    solver, checked = Solver(stage.party("solver"), make_executor, settings), []
    program = solver.assessment.program

    def counting(task: int) -> Program:
        checked.append(task)
        return program(task)

    solver.assessment.program = counting  # type: ignore[method-assign]
    for polled in range(1, 2 * len(tasks)):
        solver.poll()
        assert len(checked) <= polled
    assert set(checked) == set(tasks)


def test_windows_of_weeks_lock_neither_solvers_nor_verifiers_money(stage: Stage) -> None:
    _, task = post(stage, audit_window=28 * DAY, challenge_window=28 * DAY)
    market = stage.party("solver")
    assert not a_solver(market, stage.directory).poll()
    assert sealed(market, task) == [False]


def drawn(stage: Stage, **changes: int) -> tuple[Market, int, list[Verifier]]:
    """A task whose solver is patient, and the two verifiers that were drawn for it."""
    submitter, task = post(stage, segment_steps=20, window_segments=1, samples=1, **changes)
    market = stage.party("solver")
    settings = Settings(stage.directory / "solver", limits=Limits(max_lock=1000 * DAY))
    solver = Solver(market, make_executor, settings)
    verifiers = [Verifier(stage.party(f"verifier {i}"), refusing) for i in (1, 2)]
    for verifier in verifiers:
        verifier.register()
    solver.poll()
    end_bidding(stage, solver)
    for _ in range(10):
        if market.state(task).status == Status.SEALING:
            return submitter, task, verifiers
        if not solver.poll():
            stage.chain.wait(1)
    raise AssertionError(market.state(task))


def refusing(program: Program, inputs: Inputs) -> Executor:
    """An executor that must not be used for more than to measure it."""
    return _Refusing()


class _Refusing(Executor):
    def step(self, state: object, step: int) -> NoReturn:
        raise AssertionError("a task that was to be refused is computed")

    def trace(self, state: object, step: int) -> NoReturn:
        raise AssertionError("a task that was to be refused is traced")


@pytest.mark.parametrize("changes", [{"audit_window": 600}, {"dispute_clock": 600}])
def test_a_verifier_leaves_a_seat_that_it_could_not_fill_or_defend_in_time(
    stage: Stage, changes: dict[str, int]
) -> None:
    submitter, task, verifiers = drawn(stage, **{**LONG, **changes})
    for verifier in verifiers:
        slow(verifier, 60)
        assert verifier.poll()
    assert {seat.state for seat in submitter.seats(task)} == {SeatState.UNAVAILABLE}
    assert not stage.ledger.events("VerifierSlashed")
    for verifier in verifiers:
        assert verifier.market.view("verifierOf", verifier.market.address)[1] == 1


def test_a_verifier_leaves_a_seat_that_would_lock_its_stake_for_a_year(stage: Stage) -> None:
    submitter, task, (verifier, _) = drawn(stage, audit_window=28 * DAY)
    assert verifier.poll()
    (seat,) = (s for s in submitter.seats(task) if s.verifier == verifier.market.address)
    assert seat.state == SeatState.UNAVAILABLE


def test_a_verifier_seals_what_its_owner_admits(stage: Stage) -> None:
    submitter, task, (verifier, _) = drawn(stage, audit_window=28 * DAY)
    settings = Own(limits=Limits(max_lock=1000 * DAY))
    verifier = Verifier(verifier.market, make_executor, settings)
    assert verifier.poll()
    (seat,) = (s for s in submitter.seats(task) if s.verifier == verifier.market.address)
    assert seat.state == SeatState.SEALED


@pytest.mark.parametrize(("step", "limits"), [(600, Limits()), (0, Limits(max_stake=ETHER // 100))])
def test_a_whistleblower_challenges_nothing_that_it_would_lose_in_time_or_that_costs_too_much(
    stage: Stage, step: float, limits: Limits
) -> None:
    solver = StubbornSolver(
        stage.party("solver"), lying(CompiledExecutor, Lazy()), Settings(stage.directory / "solver")
    )
    task = a_lie_that_all_attest(stage, solver)
    assert solver.poll()  # publishes
    market = stage.party("whistleblower")
    shy = Whistleblower(market, make_executor, Whistle(limits=limits))
    slow(shy, step)
    while shy.poll():
        pass
    assert not stage.ledger.events("ChallengeSealed")
    bold = Whistleblower(market, make_executor)
    while bold.poll() and not stage.ledger.events("ChallengeSealed"):
        pass
    assert stage.ledger.events("ChallengeSealed")
    assert market.state(task).open == 1
