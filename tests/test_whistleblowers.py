# SPDX-License-Identifier: GPL-3.0-or-later
"""Whistleblowers: whom they accuse, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitcourt.lab.cheats import Lazy, lying
from bitcourt.lab.stage import Stage
from bitcourt.lab.stubborn import StubbornSolver
from protocol.errors import InsufficientFunds
from protocol.execution import Bits
from protocol.executor import CompiledExecutor
from protocol.task import NO_SEAT, SeatState, Status, TaskState
from solver.agent import Settings
from tests.challenging import a_lie_that_all_attest
from tests.staged import a_solver, a_stage, bundle, make_executor, post
from verifier.agent import Verifier
from verifier.whistleblower import Settings as Whistle
from verifier.whistleblower import Whistleblower


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return a_stage(tmp_path)


class StingySolver(StubbornSolver):
    """Publishes what it sealed, and serves no state that was not drawn."""

    def publish(self, task: int, state: TaskState) -> bool:
        store = self.store(task)
        if store.has_log(state.log_root):
            return False
        store.put_log(self.log(task, state.log_size).leaves)
        return True


def test_a_whistleblower_needs_no_state_but_the_first_and_survives_a_restart(
    stage: Stage,
) -> None:
    settings = Settings(stage.directory / "solver")
    liar = lying(CompiledExecutor, Lazy())
    solver = StingySolver(stage.party("solver"), liar, settings)
    task = a_lie_that_all_attest(stage, solver)
    market = stage.party("whistleblower")
    watcher = Whistleblower(market, make_executor)
    assert not watcher.poll()  # nothing is published yet
    assert solver.poll()
    while not stage.ledger.events("ChallengeSealed"):
        assert watcher.poll()
    # Killed after sealing: another process finds the target of its seal again.
    watcher = Whistleblower(market, make_executor)
    stage.chain.wait(1)
    while not market.disputes(task):
        assert watcher.poll()
    (dispute,) = market.disputes(task)
    assert dispute.challenger == market.address
    assert dispute.defendant in (solver.market.address, *(s.verifier for s in market.seats(task)))
    state = stage.play(task, market, [watcher, solver], stage.party("keeper"))
    assert state.status == Status.SLASHED
    assert len(stage.ledger.events("VerifierSlashed")) == 2


def test_no_attestor_is_accused_whom_somebody_else_has_convicted(stage: Stage) -> None:
    liar = lying(CompiledExecutor, Lazy())
    solver = StubbornSolver(stage.party("solver"), liar, Settings(stage.directory / "solver"))
    task = a_lie_that_all_attest(stage, solver)
    assert solver.poll()  # publishes its log
    first, second = (Whistleblower(stage.party(name), make_executor) for name in ("one", "two"))
    second._dares = lambda *_: False  # type: ignore[method-assign]
    while not any(search.done for search in second._searches.values()):
        second.poll()
    (search,) = second._searches.values()
    accused = {accusation.attestor for accusation in second._untold(task, search.found)}
    assert accused == {0, 1, NO_SEAT}
    while not stage.ledger.events("VerifierSlashed"):
        if not first.poll():
            stage.chain.wait(1_800)  # until the attestors, who do not defend themselves, are late
    slashed = {
        index
        for index, seat in enumerate(first.market.seats(task))
        if seat.state == SeatState.SLASHED
    }
    assert slashed
    left = {accusation.attestor for accusation in second._untold(task, search.found)}
    assert left == accused - slashed


def test_a_whistleblower_that_cannot_accuse_once_more_disputes_what_it_has_opened(
    stage: Stage,
) -> None:
    liar = lying(CompiledExecutor, Lazy())
    solver = StubbornSolver(stage.party("solver"), liar, Settings(stage.directory / "solver"))
    task = a_lie_that_all_attest(stage, solver)
    assert solver.poll()
    watcher = Whistleblower(stage.party("whistleblower"), make_executor)
    while not watcher.market.disputes(task):
        if not watcher.poll():
            stage.chain.wait(1)

    def fails(*_: object) -> bool:
        raise InsufficientFunds("not enough for another bond")

    watcher.accuse = fails  # type: ignore[method-assign]
    state = stage.play(task, watcher.market, [watcher, solver], stage.party("keeper"))
    assert state.status == Status.SLASHED


def test_a_whistleblower_that_replays_few_segments_replays_no_more(stage: Stage) -> None:
    submitter, task = post(stage, samples=1)
    solver = a_solver(stage.party("solver"), stage.directory)
    verifiers = [Verifier(stage.party(f"verifier {i}"), make_executor) for i in (1, 2)]
    for verifier in verifiers:
        verifier.register()
    steps: list[int] = []
    executor = make_executor(bundle().program, bundle().inputs(bytes(32)))

    class Counting:
        def update(self, state: list[Bits], step: int) -> None:
            steps.append(step)
            executor.update(state, step)

    market, counting = stage.party("whistleblower"), lambda *_: Counting()
    watcher = Whistleblower(market, counting, Whistle(segments=2))  # type: ignore[arg-type]
    agents = [solver, *verifiers, watcher]
    state = stage.play(task, submitter, agents, stage.party("keeper"))
    assert state.status == Status.SETTLED
    assert len(steps) == 5 + 2 * 5  # the drawn segment, and two more
    assert not submitter.disputes(task)
