# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong in one duty of an agent keeps it from no other, and costs no stake."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bitcourt.lab.stage import Stage
from protocol.commitments import program_tree
from protocol.encoding import encode_nodes
from protocol.errors import ArtifactError, ChainError
from protocol.feasibility import Speed
from protocol.market import OpenDispute
from protocol.store import Store
from protocol.task import Demand, SeatState, Status, TaskState
from protocol.witness import Witness
from solver.agent import Settings, Solver
from solver.uploads import PAUSE
from tests.busy import Attacker, two_verifiers
from tests.challenging import reach_window
from tests.staged import a_solver, a_stage, bundle, end_bidding, make_executor, post
from verifier.agent import Verifier


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step is made only to see how long it takes: here steps are counted."""
    monkeypatch.setattr("protocol.assessment.measure", lambda *_: Speed(0.001, 0, 0))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return a_stage(tmp_path)


def train(stage: Stage, task: int, solver: Solver) -> None:
    """Up to the complete log."""
    assert solver.poll()
    end_bidding(stage, solver)
    while solver.market.state(task).status != Status.COMMITTED:
        assert solver.poll()
    stage.chain.wait(1)
    stage.chain.wait(1)


class Refusing:
    """A store that takes no tensors; `error` is what its backend raises."""

    def __init__(self, patch: pytest.MonkeyPatch, stage: Stage, error: Exception) -> None:
        self.patch, self.url, self.error = patch, stage.store.url, error
        self.asked = 0
        self._honest, self._exists = Store._draft, Store._exists

    def __enter__(self) -> Refusing:
        def draft(store: Store, name: str, parts: Any) -> str:
            if store.url != self.url:
                return self._honest(store, name, parts)
            self.asked += 1
            raise self.error

        # Also of what it has: a first start may be the submitter's own.
        exists = self._exists
        self.patch.setattr(Store, "_draft", draft)
        self.patch.setattr(Store, "_exists", lambda s, n: s.url != self.url and exists(s, n))
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.setattr(Store, "_draft", self._honest)
        self.patch.setattr(Store, "_exists", self._exists)


@pytest.mark.parametrize(
    "error",
    [ArtifactError("cannot write"), PermissionError("403"), NotImplementedError("read only")],
)
def test_a_store_that_takes_no_writes_costs_an_honest_solver_nothing_and_gets_all_later(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    submitter, task = post(stage)
    verifiers = two_verifiers(stage)
    solver = a_solver(stage.party("solver"), stage.directory)
    train(stage, task, solver)
    caplog.clear()
    with Refusing(monkeypatch, stage, error) as store:
        while solver.poll():
            pass
        state = solver.market.state(task)
        assert state.status == Status.SEALING  # the starts are open
        solver.poll()
        assert store.asked == 1  # the store rests
        stage.chain.wait(PAUSE)
        solver.poll()
        assert store.asked == 2
        solver.poll()
    assert len([r for r in caplog.records if f"task {task}: " in r.message]) == 1  # said once
    stage.chain.wait(2 * PAUSE)
    ended = stage.play(task, submitter, [solver, *verifiers], stage.party("keeper"))
    assert ended.status == Status.SETTLED
    assert not stage.ledger.events("SolverSlashed")


def test_a_solver_that_cannot_publish_its_log_is_paid_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitter, task = post(stage)
    verifiers = two_verifiers(stage)
    solver = a_solver(stage.party("solver"), stage.directory)
    train(stage, task, solver)
    while solver.market.state(task).status != Status.WINDOW:
        if not sum(agent.poll() for agent in (solver, *verifiers)):
            stage.chain.wait(1)
    with Refusing(monkeypatch, stage, PermissionError("403")):
        solver.poll()
        stage.chain.wait(submitter.posted(task).spec.challenge_window + 1)
        assert solver.poll()
    assert solver.market.state(task).status == Status.SETTLED


def test_a_solver_that_was_killed_before_it_served_what_it_opened_serves_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitter, task = post(stage)
    verifiers = two_verifiers(stage)
    solver = a_solver(stage.party("solver"), stage.directory)
    train(stage, task, solver)
    with Refusing(monkeypatch, stage, PermissionError("403")):
        while solver.poll():
            pass
    again = a_solver(solver.market, stage.directory)
    again.poll()
    run = submitter.runs(task)[0]
    assert stage.store.has_tensors(again.checkpoints(task).roots[run.first])
    ended = stage.play(task, submitter, [again, *verifiers], stage.party("keeper"))
    assert ended.status == Status.SETTLED


def test_a_demand_is_answered_and_a_dispute_won_though_the_store_is_broken(stage: Stage) -> None:
    submitter, task = post(stage)
    spec, verifiers = submitter.posted(task).spec, two_verifiers(stage)
    solver = a_solver(stage.party("solver"), stage.directory)
    reach_window(stage, task, solver, verifiers)
    attacker = Attacker(stage, task, 0)
    attacker.seal()
    stage.chain.wait(1)
    attacker.tell()
    tensors = stage.directory / "store" / "tensors"
    shutil.rmtree(tensors)
    tensors.write_text("read only")
    demand(attacker, spec.n_nodes - spec.n_state)
    assert solver.poll()
    assert {"answer", "commitSteps"} <= functions(stage)
    assert not submitter.demands(task)
    ended = stage.play(task, submitter, [solver, *verifiers], stage.party("keeper"))
    assert ended.status == Status.SETTLED
    assert solver.market.free_balance() > spec.budget + spec.solver_stake


def demand(attacker: Attacker, node: int) -> None:
    """Demands a chunk of the first tensor in leaf 1."""
    program, market = bundle().program, attacker.market
    market.ensure_balance(market.posted(attacker.task).spec.bond)
    proof = program_tree(program).inclusion_proof(node)
    market.send_for("demand", attacker.task, 0, 1, 0, 0, encode_nodes(program)[node], proof)


def functions(stage: Stage) -> set[str]:
    return {receipt.function for _, receipt in stage.ledger.receipts}


class Stumbling(Solver):
    """Fails in whichever duties it is told to."""

    fails: Sequence[str] = ()

    def _answer(self, task: int, state: TaskState, demand: Demand) -> bool:
        if "answer" in self.fails:
            raise ZeroDivisionError
        return super()._answer(task, state, demand)

    def witness(self, dispute: OpenDispute) -> Witness:
        if dispute.first in self.fails or "dispute" in self.fails:
            raise MemoryError
        return super().witness(dispute)

    def publish(self, task: int, state: TaskState) -> bool:
        if "publish" in self.fails:
            raise KeyError(task)
        return super().publish(task, state)


@pytest.mark.parametrize("fails", ["answer", "dispute", "publish", "first dispute"])
def test_an_error_in_one_duty_keeps_from_no_other_of_the_same_task(
    stage: Stage, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    submitter, task = post(stage)
    spec, verifiers = submitter.posted(task).spec, two_verifiers(stage)
    market = stage.party("solver")
    solver = Stumbling(market, make_executor, Settings(stage.directory / "solver"))
    reach_window(stage, task, solver, verifiers)
    attackers = [Attacker(stage, task, segment) for segment in (0, 1)]
    for attacker in attackers:
        attacker.seal()
    stage.chain.wait(1)
    for attacker in attackers:
        attacker.tell()
    demand(attackers[0], spec.n_nodes - spec.n_state)
    shutil.rmtree(stage.directory / "store" / "logs")
    # As after a restart: nothing is known to be published.
    solver = Stumbling(market, make_executor, Settings(stage.directory / "solver"))
    solver.fails = [fails]
    if fails == "first dispute":
        solver.fails = [0]  # type: ignore[list-item]
    caplog.clear()
    for _ in range(3):
        solver.poll()
    done = {
        "answer": not submitter.demands(task),
        "first dispute": attackers[0].view.moves > 0,
        "dispute": attackers[1].view.moves > 0,
        "publish": stage.store.has_log(market.state(task).log_root),
    }
    missing = {"dispute", "first dispute"} if fails == "dispute" else {fails}
    assert {duty for duty, is_done in done.items() if not is_done} == missing
    assert len([r for r in caplog.records if f"task {task}: " in r.message]) == len(missing)


def test_a_verifier_moves_on_though_its_own_duty_fails(stage: Stage) -> None:
    submitter, task = post(stage)
    verifiers = two_verifiers(stage)
    solver = a_solver(stage.party("solver"), stage.directory)
    train(stage, task, solver)
    while submitter.state(task).status != Status.SEALING:
        solver.poll()
    while SeatState.DRAWN in {seat.state for seat in submitter.seats(task)}:
        assert sum(verifier.poll() for verifier in verifiers)
    assert solver.poll()
    assert submitter.state(task).status == Status.REVEALING

    class Broken(Verifier):
        def reveal(self, duty: object) -> bool:
            raise ZeroDivisionError

    stage.chain.wait(submitter.posted(task).spec.audit_window + 1)
    Broken(verifiers[0].market, make_executor).poll()
    assert submitter.state(task).status != Status.REVEALING


def test_no_error_of_a_store_is_taken_for_one_of_the_chain(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, task = post(stage)
    two_verifiers(stage)
    solver = a_solver(stage.party("solver"), stage.directory)
    train(stage, task, solver)

    def down(*_: object, **__: object) -> None:
        raise ChainError("the RPC endpoint does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(stage.chain, "send", down)
        with pytest.raises(ChainError):
            solver.poll()
    assert solver.poll()
    assert solver.market.state(task).status == Status.SEALING
