# SPDX-License-Identifier: GPL-3.0-or-later
"""An agent is one thread. However busy others keep it, it does in time what its stake hangs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitcourt.lab.stage import ETHER, Stage
from protocol.dispute import Phase
from protocol.feasibility import Speed
from protocol.slices import Slice
from protocol.task import SeatState, Status
from solver.agent import Settings, Solver
from tests.busy import Attacker, Slow, by_chain, slow_solver, two_verifiers
from tests.challenging import reach, reach_window
from tests.staged import a_stage, bundle, end_bidding, make_executor, post, terms
from verifier.agent import Settings as Own
from verifier.agent import Verifier


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step is made only to see how long it takes: here steps are counted."""
    monkeypatch.setattr("protocol.assessment.measure", lambda *_: Speed(0.001, 0, 0))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return a_stage(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("held", [1, 4])
def test_of_many_disputes_the_one_with_the_least_time_left_is_played_first(
    stage: Stage, held: int
) -> None:
    # Three segments take more than the clock of the dispute that is opened last, for another task.
    submitter, roomy = post(stage, dispute_clock=7200, challenge_window=86_400, bond=ETHER // 32)
    solver, slow = slow_solver(stage)
    verifiers = two_verifiers(stage)
    reach_window(stage, roomy, solver, verifiers)
    tight = stage.post(submitter, bundle(), terms(submitter, dispute_clock=600))
    reach_window(stage, tight, solver, verifiers)
    attackers = [Attacker(stage, roomy, segment) for segment in (2, 1, 0)]
    attackers.append(Attacker(stage, tight, 3))
    for attacker in attackers:
        attacker.seal()
    stage.chain.wait(1)
    for attacker in attackers:
        attacker.tell()
    slow.seconds, solver.shelf.held = 60, held  # witnesses in memory; the others are on disk
    replayed = slow.steps

    def attack() -> None:
        for attacker in attackers:
            attacker.point()

    slow.hook = attack
    for _ in range(60):
        solver.poll()
        attack()
        if not any(attacker.waits for attacker in attackers):
            break
    assert slow.steps - replayed == 4 * 5  # no step twice
    slow.seconds, slow.hook = 0, lambda: None
    for task in (roomy, tight):
        state = stage.play(task, submitter, [solver, *verifiers], stage.party("keeper"))
        assert state.status == Status.SETTLED
    assert [attacker.view.phase for attacker in attackers] == [Phase.ACQUITTED] * 4
    spec = submitter.posted(tight).spec
    earned = 2 * (spec.budget + spec.solver_stake)
    assert solver.market.free_balance() > earned  # and half of the bonds


def test_a_long_segment_of_another_task_loses_no_dispute_and_is_not_trained_twice(
    stage: Stage,
) -> None:
    submitter, task = post(stage, dispute_clock=7200)
    solver, slow = slow_solver(stage)
    verifiers = two_verifiers(stage)
    reach_window(stage, task, solver, verifiers)
    evil = stage.party("evil")
    whole = terms(
        evil, segment_steps=20, window_segments=1, samples=1, solver=solver.market.address
    )
    other = evil.post(whole, stage.store.url)
    assert solver.poll()  # accepts
    assert solver.market.state(other).status == Status.TRAINING
    attacker = Attacker(stage, task, 0)
    attacker.seal()
    slow.trained.clear()
    slow.seconds = 600

    def attack() -> None:  # when the segment has begun, which takes 12000 seconds
        if len(slow.trained) == 2 and not submitter.disputes(task):
            attacker.tell()
        attacker.point()

    slow.hook = attack
    for poll in range(1, 4):  # one step in each, and no step twice
        assert solver.poll()
        assert slow.trained == list(range(poll))
    for _ in range(60):
        assert solver.poll()
        if attacker.view.phase is Phase.POINT:
            break
    assert slow.trained == [0, 1, 2]  # a dispute comes before training
    slow.hook = lambda: None
    while solver.market.state(other).status == Status.TRAINING:
        assert solver.poll()
    assert slow.trained == list(range(20))
    assert attacker.view.phase is Phase.ACQUITTED  # its time was over, and the solver has said so
    assert not stage.ledger.events("SolverSlashed")
    assert solver.market.state(task).status in (Status.WINDOW, Status.SETTLED)


def test_a_long_replay_of_a_verifier_goes_on_step_by_step_and_is_not_begun_anew(
    stage: Stage,
) -> None:
    submitter, task = post(stage, segment_steps=20, window_segments=1, samples=1)
    solver, _ = slow_solver(stage)
    slow = Slow(stage, 30)
    verifiers = [Verifier(stage.party(f"verifier {i}"), slow.make) for i in (1, 2)]
    for verifier in verifiers:
        verifier.register()
    reach(stage, task, Status.SEALING, solver, [])
    first, second = verifiers
    second.work.slice = Slice(10**9, lambda: stage.chain.now)
    by_chain(first, stage)
    for poll in range(1, 4):
        assert first.poll()
        assert slow.trained == list(range(poll))
    while submitter.seats(task)[0].state == submitter.seats(task)[1].state == SeatState.DRAWN:
        assert first.poll()
    assert slow.trained == list(range(20))
    assert second.poll()  # in one slice
    assert slow.trained == 2 * list(range(20))
    assert {seat.state for seat in submitter.seats(task)} == {SeatState.SEALED}


@pytest.mark.parametrize("seconds", [60, 250, 400])
def test_a_verifier_leaves_before_the_deadline_what_it_cannot_replay_in_time(
    stage: Stage, seconds: int
) -> None:
    submitter, task = post(stage, segment_steps=20, window_segments=1, samples=1, audit_window=600)
    solver, _ = slow_solver(stage)
    slow = Slow(stage, seconds)
    market = stage.party("verifier 1")
    verifiers = [Verifier(market, slow.make), Verifier(stage.party("verifier 2"), make_executor)]
    for verifier in verifiers:
        verifier.register()
    reach(stage, task, Status.SEALING, solver, [])
    by_chain(verifiers[0], stage)
    for _ in range(20):
        if not verifiers[0].poll():
            break
    (seat,) = (seat for seat in market.seats(task) if seat.verifier == market.address)
    assert seat.state == SeatState.UNAVAILABLE
    assert market.chain.now <= market.state(task).deadline
    assert len(slow.trained) <= 2  # as soon as that is seen
    stage.play(task, submitter, [solver, *verifiers], stage.party("keeper"))
    assert not stage.ledger.events("VerifierSlashed")


def test_a_verifier_stays_where_it_will_be_done_in_time(stage: Stage) -> None:
    submitter, task = post(stage, segment_steps=20, window_segments=1, samples=1, audit_window=600)
    solver, _ = slow_solver(stage)
    slow = Slow(stage, 20)
    verifiers = [Verifier(stage.party(f"verifier {i}"), slow.make) for i in (1, 2)]
    for verifier in verifiers:
        verifier.register()
    reach(stage, task, Status.SEALING, solver, [])
    by_chain(verifiers[0], stage)
    while submitter.seats(task)[0].state == submitter.seats(task)[1].state == SeatState.DRAWN:
        assert verifiers[0].poll()
    assert SeatState.SEALED in {seat.state for seat in submitter.seats(task)}
    assert not stage.ledger.events("Unavailable")


def test_a_restarted_verifier_leaves_in_the_last_eighth_of_the_window(stage: Stage) -> None:
    submitter, task = post(stage, segment_steps=20, window_segments=1, samples=1, audit_window=800)
    solver, _ = slow_solver(stage)
    market = stage.party("verifier 1")
    others = [Verifier(stage.party("verifier 2"), make_executor)]
    place = Own(directory=stage.directory / "verifier")
    for verifier in (Verifier(market, make_executor, place), *others):
        verifier.register()
    reach(stage, task, Status.SEALING, solver, [])
    deadline = market.state(task).deadline
    stage.chain.wait(deadline - 150 - stage.chain.now)
    slow = Slow(stage, 60)
    late = Verifier(market, slow.make, place)
    by_chain(late, stage)
    assert late.poll()
    assert late.poll()
    assert len(slow.trained) == 1
    assert market.chain.now <= deadline
    assert SeatState.UNAVAILABLE in {seat.state for seat in submitter.seats(task)}


def test_training_in_slices_gives_the_same_log(stage: Stage) -> None:
    _, task = post(stage)
    solver, slow = slow_solver(stage)
    solver.poll()
    end_bidding(stage, solver)
    slow.seconds = 10
    polls = 0
    while solver.market.state(task).status != Status.COMMITTED:
        assert solver.poll()
        polls += 1
    assert slow.trained == list(range(20))
    assert polls >= 20
    plain = Solver(solver.market, make_executor, Settings(stage.directory / "other"))
    assert plain.poll()
    while plain.checkpoints(task).begun < 5:
        plain.poll()
    assert plain.checkpoints(task).roots == solver.checkpoints(task).roots
