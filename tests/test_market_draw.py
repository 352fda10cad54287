# SPDX-License-Identifier: GPL-3.0-or-later
"""The draw of verifiers and segments."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from protocol.task import Run, SeatState, Status
from tests.market_driver import (
    SOLVER,
    SPEC,
    STRANGER,
    SUBMITTER,
    VERIFIERS,
    World,
    at,
    fresh_world,
    raw,
    role,
    states,
)

HASH_BLOCKS = 256
MONTH = 30 * 86_400


# The draw.


def test_the_draw_takes_a_slot_of_each_drawn_verifier_and_starts_the_audit() -> None:
    task = at(Status.COMMITTED)
    done = task.draw()
    assert done.event("Drawn")["deadline"] == task.world.evm.timestamp + SPEC.audit_window
    assert task.state.status == Status.STARTING
    event = done.event("Drawn")
    assert [raw(verifier) for verifier in event["verifiers"]] == task.drawn
    assert [Run(*values) for values in event["runs"]] == task.runs
    assert (event["round"], event["firstSeat"], task.state.round) == (1, 0, 1)
    assert len(set(task.drawn)) == SPEC.committee
    assert len(task.segments_drawn) == SPEC.samples
    assert states(task) == [SeatState.DRAWN] * 2
    assert [task.world.slots(v) for v in VERIFIERS] == [2 - (v in task.drawn) for v in VERIFIERS]
    task.world.assert_solvent()


def test_the_draw_waits_for_its_block_and_happens_once() -> None:
    task = at(Status.COMMITTED)
    block = task.state.draw_block
    for _ in range(2):
        with task.world.refuses("DrawNotReady", task.id, block):
            task.call("draw", [])
        task.world.wait()
    task.call("draw", [])
    with task.world.refuses("WrongStatus", task.id, Status.STARTING):
        task.call("draw", [])


def test_the_draw_is_valid_until_the_last_block_that_knows_the_hash() -> None:
    task = at(Status.COMMITTED)
    task.world.wait(blocks=1 + HASH_BLOCKS)
    task.call("draw", [])
    assert (task.state.status, task.state.retries) == (Status.STARTING, 0)


def test_a_missed_draw_moves_on_with_one_segment_more_and_the_same_deadline() -> None:
    task = at(Status.COMMITTED)
    deadline = task.state.deadline
    for missed in (1, 2):
        task.world.wait(blocks=2 + HASH_BLOCKS)
        task.call("draw", [])
        state = task.state
        assert (state.status, state.round, state.retries) == (Status.COMMITTED, 1, missed)
        assert state.draw_block == task.world.evm.number + 1
        assert state.deadline == deadline
    task.draw()
    assert len(task.segments_drawn) == SPEC.samples + 2
    task.world.assert_solvent()


def test_no_audit_has_more_than_sixteen_segments_whatever_was_missed() -> None:
    many = {"steps": 38, "segment_steps": 1, "window_segments": 38}
    task = at(Status.COMMITTED, samples=16, **many)
    task.world.wait(blocks=2 + HASH_BLOCKS)
    task.call("draw", [])
    task.draw()
    assert len(task.segments_drawn) == 16


def test_a_missed_draw_may_move_on_until_the_last_second_of_its_deadline() -> None:
    task = at(Status.COMMITTED)
    world, deadline = task.world, task.state.deadline
    mark = world.evm.mark()
    world.wait(deadline - world.evm.timestamp + 1, blocks=2 + HASH_BLOCKS)
    with world.refuses("DrawMissed", task.id):
        task.call("draw", [])
    world.evm.back(mark)
    world.wait(deadline - world.evm.timestamp, blocks=2 + HASH_BLOCKS)
    task.call("draw", [])
    assert task.state.retries == 1


def test_a_solver_cannot_let_draws_expire_without_end() -> None:
    task = at(Status.COMMITTED)
    deadline = task.state.deadline
    for _ in range(2):
        task.world.wait(blocks=2 + HASH_BLOCKS)
        task.call("draw", [])
    with task.world.refuses("NoDefault", task.id):
        task.call("defaulted")  # anybody can still draw
    task.world.wait(blocks=2 + HASH_BLOCKS)
    with task.world.refuses("DrawMissed", task.id):
        task.call("draw", [])
    with task.world.refuses("TooEarly", task.id, deadline):
        task.call("defaulted")
    task.world.wait_beyond(deadline)
    task.call("defaulted")
    assert task.state.status == Status.SLASHED
    task.world.assert_solvent()


def test_a_draw_missed_beyond_the_deadline_is_the_solvers_default() -> None:
    task = at(Status.COMMITTED)
    task.world.wait(blocks=2 + HASH_BLOCKS, seconds=SPEC.audit_window + 1)
    with task.world.refuses("DrawMissed", task.id):
        task.call("draw", [])
    task.call("defaulted")
    assert task.state.status == Status.SLASHED


def test_a_late_draw_is_no_default_while_anybody_can_make_it() -> None:
    task = at(Status.COMMITTED)
    task.world.wait(blocks=2, seconds=SPEC.audit_window + 1)
    with task.world.refuses("NoDefault", task.id):
        task.call("defaulted")
    task.call("draw", [])
    assert task.state.status == Status.STARTING


def test_in_the_last_block_that_knows_the_hash_a_late_draw_is_no_default_yet() -> None:
    task = at(Status.COMMITTED)
    world = task.world
    world.wait(blocks=1 + HASH_BLOCKS, seconds=SPEC.audit_window + 1)
    mark = world.evm.mark()
    with world.refuses("NoDefault", task.id):
        task.call("defaulted")
    task.call("draw", [])
    assert task.state.status == Status.STARTING
    world.evm.back(mark)
    world.wait()
    task.call("defaulted")
    assert task.state.status == Status.SLASHED


def test_solver_submitter_and_newcomers_are_never_drawn() -> None:
    task = fresh_world().post(committee=4)
    world = task.world
    for interested in (SOLVER, SUBMITTER):
        world.send("registerVerifier", 64, sender=interested)
    task.reach(Status.TRAINING)
    newcomers = [role(f"newcomer {i}") for i in range(8)]
    for newcomer in newcomers:
        world.fund(newcomer)
    task.append(4)
    for newcomer in newcomers[:4]:
        world.send("registerVerifier", 1, sender=newcomer)  # in the block of the last commitment
    task.append(9)
    for newcomer in newcomers[4:]:
        world.send("registerVerifier", 1, sender=newcomer)
    mark = world.evm.mark()
    for block in range(10):
        world.evm.back(mark)
        world.wait(blocks=2 + HASH_BLOCKS + block)
        task.call("draw", [])  # missed: the next one has another hash
        task.draw()
        assert set(task.drawn) <= set(VERIFIERS)


def test_joining_and_leaving_after_the_hash_is_known_changes_no_draw() -> None:
    task = at(Status.TRAINING, committee=4)
    world = task.world
    for verifier in VERIFIERS[:3]:  # their month is over in time: they may go whenever they like
        world.send("leaveVerifiers", sender=verifier)
    extra = [role(f"sybil {i}") for i in range(5)]
    for sybil in extra:
        world.fund(sybil)
        world.send("registerVerifier", 1, sender=sybil)
    world.wait(MONTH - SPEC.train_window // 2)
    task = task.world.post(committee=4).reach(Status.COMMITTED)
    world.wait(blocks=2, seconds=max(0, SPEC.train_window))
    mark = world.evm.mark()
    task.call("draw", [])
    drawn, runs = task.drawn, task.runs
    world.evm.back(mark)
    for verifier in VERIFIERS[:3]:
        world.send("removeVerifier", sender=verifier)
    for i in range(4):
        world.fund(role(f"late sybil {i}"))
        world.send("registerVerifier", 64, sender=role(f"late sybil {i}"))
    task.call("draw", [])
    assert (task.drawn, task.runs) == (drawn, runs)
    world.assert_solvent()


def test_a_draw_without_enough_verifiers_ends_the_task_and_frees_all_money() -> None:
    task = at(Status.COMMITTED, committee=4)
    world = task.world
    while sum(world.slots(v) > 0 for v in VERIFIERS) >= 4:
        world.post(committee=4).reach(Status.STARTING)
    slots = [world.slots(v) for v in VERIFIERS]
    free = world.free(SOLVER), world.free(SUBMITTER)
    done = task.draw_in_vain()
    assert done.event("TaskEnded")["reason"].rstrip(b"\0") == b"nobody to draw"
    assert task.state.status == Status.EXPIRED
    assert world.free(SOLVER) == free[0] + SPEC.solver_stake
    assert world.free(SUBMITTER) == free[1] + task.spec.escrow
    assert [world.slots(v) for v in VERIFIERS] == slots
    world.assert_solvent()


def test_who_may_remove_itself_at_any_time_is_not_drawn() -> None:
    world = fresh_world()
    leaving = set(VERIFIERS[:3])
    for verifier in leaving:
        world.send("leaveVerifiers", sender=verifier)
    world.wait(MONTH)
    drawn: set[bytes] = set()
    for blocks in range(1, 9):
        mark = world.evm.mark()
        world.wait(blocks=blocks)
        task = world.post().reach(Status.STARTING)
        drawn |= set(task.drawn)
        world.evm.back(mark)
        world.tasks.pop()
    assert drawn == set(VERIFIERS) - leaving


def test_a_market_without_verifiers_ends_its_tasks_unpaid() -> None:
    task = World(verifiers=0).post().reach(Status.COMMITTED)
    done = task.draw_in_vain()
    assert done.event("TaskEnded")["reason"].rstrip(b"\0") == b"nobody to draw"
    task.world.assert_solvent()


def test_a_draw_that_fills_only_some_seats_gives_their_slots_back() -> None:
    task = fresh_world().post(committee=4)
    world = task.world
    for verifier in VERIFIERS[:3]:
        world.send("leaveVerifiers", sender=verifier)
    world.wait(MONTH)
    for verifier in VERIFIERS[:3]:
        world.send("removeVerifier", sender=verifier)
    task = world.post(committee=4).reach(Status.COMMITTED)
    task.draw_in_vain()
    assert task.state.status == Status.EXPIRED
    assert [world.slots(v) for v in VERIFIERS[3:]] == [2, 2, 2]
    world.assert_solvent()


def test_draws_are_uniform_and_runs_are_the_maximal_ones() -> None:
    task = at(Status.TRAINING, samples=3)
    world, mark = task.world, task.world.evm.mark()
    segments: Counter[int] = Counter()
    verifiers: Counter[bytes] = Counter()
    lengths: Counter[int] = Counter()
    rounds = 100
    for block in range(rounds):
        world.evm.back(mark)
        world.wait(blocks=1 + block, seconds=1)
        task.append(9)
        task.draw()
        runs = task.runs
        assert sum(run.count for run in runs) == 3
        for run, following in pairwise(runs):
            assert run.first + run.count < following.first  # sorted, and no two could be merged
        assert runs[-1].first + runs[-1].count <= 8
        segments.update(task.segments_drawn)
        verifiers.update(task.drawn)
        lengths.update(run.count for run in runs)
    # The draws depend on block numbers alone here, so these bounds never flicker.
    expected = rounds * 3 / 8
    assert sum((segments[i] - expected) ** 2 / expected for i in range(8)) < 14.1  # 95 %, 7 dof
    expected = rounds * 2 / 6
    assert sum((verifiers[v] - expected) ** 2 / expected for v in VERIFIERS) < 11.1  # 95 %, 5 dof
    # Of the 56 sets of three out of eight segments, 6 are one run, 30 two and 20 three.
    assert lengths[3] / rounds == pytest.approx(6 / 56, abs=0.07)
    assert lengths[2] / rounds == pytest.approx(30 / 56, abs=0.12)


def test_drawing_every_segment_makes_one_run_of_the_whole_training() -> None:
    task = at(Status.STARTING, samples=8)
    assert [(run.first, run.count) for run in task.runs] == [(0, 8)]


# Drawing and opening the starts in one transaction.


def test_drawing_and_opening_at_once_equals_doing_both() -> None:
    task = at(Status.COMMITTED)
    world, mark = task.world, task.world.evm.mark()
    drawn, apart = task.draw(), task.open_starts()
    after = task.state, task.runs, task.seats
    world.evm.back(mark)
    done = task.draw_and_open()
    assert (task.state, task.runs, task.seats) == after
    assert task.state.status == Status.SEALING
    assert done.event("StartsOpened") == apart.event("StartsOpened")
    assert done.gas < drawn.gas + apart.gas
    world.assert_solvent()


def test_only_the_solver_draws_with_openings_and_only_with_the_right_ones() -> None:
    task = at(Status.COMMITTED)
    world = task.world
    world.wait(blocks=2)
    runs = world.market.view("draw", task.id, task.spec.as_abi(), [])
    openings = [task.opening(run[0]) for run in runs]
    with world.refuses("NotSolver", task.id, STRANGER):
        task.call("draw", openings)
    with world.refuses("WrongCount", 1, 2):
        task.call("draw", openings[:1], sender=SOLVER)
    with world.refuses("BadProof", task.id, "checkpoint"):
        task.call("draw", openings[::-1], sender=SOLVER)
    task.call("draw", openings, sender=SOLVER)
    assert task.state.status == Status.SEALING


def test_openings_for_a_draw_that_was_missed_open_nothing() -> None:
    task = at(Status.COMMITTED)
    task.world.wait(blocks=2)
    runs = task.world.market.view("draw", task.id, task.spec.as_abi(), [])
    openings = [task.opening(run[0]) for run in runs]
    task.world.wait(blocks=HASH_BLOCKS)
    done = task.call("draw", openings, sender=SOLVER)
    assert [name for name, _ in done.events] == ["LogCompleted"]
    assert (task.state.status, task.state.retries) == (Status.COMMITTED, 1)
