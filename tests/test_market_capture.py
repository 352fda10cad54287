# SPDX-License-Identifier: GPL-3.0-or-later
"""No audit is captured by filling others' stakes, by whom the solver serves, or by an objection."""

from __future__ import annotations

from collections import Counter
from typing import Any

from protocol.task import SeatState, Status
from tests.market_cheats import objected
from tests.market_data import TERMS, demand
from tests.market_driver import (
    SOLVER,
    SPEC,
    STAKE,
    STRANGER,
    SUBMITTER,
    VERIFIERS,
    WHISTLEBLOWER,
    Task,
    World,
    at,
    fresh_world,
    nonce,
    raw,
    role,
    states,
)

NAMED = "0x" + SOLVER.hex()
DECOY = {"solver": NAMED, "solver_stake": STAKE // 4, "verifier_fee": STAKE // 1024, "budget": 1}
UNAVAILABLE, SEALED, ATTESTED = SeatState.UNAVAILABLE, SeatState.SEALED, SeatState.ATTESTED
OWN = (role("own verifier 1"), role("own verifier 2"))


def decoy(world: World, **changes: Any) -> Task:
    """A task that is there to hold its verifiers' stakes, committed and not yet drawn."""
    return world.post(**{**DECOY, **changes}).reach(Status.COMMITTED)


def until_drawn(task: Task) -> Task:
    """Draws, as often as it takes."""
    while task.state.status == Status.COMMITTED:
        task.draw()
    return task


# Filled stakes.


def kept_waiting() -> tuple[Task, list[Task]]:
    """A task whose draw keeps its seed, and those that hold the stakes of all verifiers."""
    world = World(slots=1)
    holding = [decoy(world, committee=4), decoy(world, committee=2)]
    for one in holding:
        until_drawn(one)
    task = world.post().reach(Status.COMMITTED)
    task.draw()
    assert world.market.view("drawSeeds", task.id) != 0
    return task, holding


def test_decoys_that_fill_all_other_stakes_do_not_capture_a_committee() -> None:
    world = World(slots=1)
    decoys = [decoy(world, committee=4), decoy(world, committee=2)]
    # The solver's own accounts come too late to be drawn for its decoys.
    for account in OWN:
        world.fund(account)
        world.send("registerVerifier", 1, sender=account)
    world.wait()
    for one in decoys:
        until_drawn(one)
    assert not any(world.slots(v) for v in VERIFIERS)
    outcomes: Counter[frozenset[bytes]] = Counter()
    for _ in range(40):
        mark = world.evm.mark()
        task = world.post().reach(Status.COMMITTED)
        task.draw()
        outcomes[frozenset(task.drawn)] += 1
        world.evm.back(mark)
        world.tasks.pop()
        world.wait()
    # Of eight stakes they have two. If all busy ones were passed over, every draw would find them.
    assert set(outcomes) == {frozenset(), frozenset(OWN)}
    assert outcomes[frozenset()] > outcomes[frozenset(OWN)]


def test_a_task_waits_until_verifiers_are_free_and_its_draw_keeps_what_it_drew() -> None:
    world = World(slots=1)
    holding = decoy(world, committee=4)
    holding.draw()
    task = world.post(committee=4).reach(Status.COMMITTED)
    deadline = task.state.deadline
    task.draw()
    state = task.state
    assert (state.status, state.deadline, state.retries) == (Status.COMMITTED, deadline, 0)
    assert state.draw_block == world.evm.number + 1
    drawn = task.segments_drawn
    assert len(drawn) == SPEC.samples
    assert task.seats == []
    with world.refuses("DrawNotReady", task.id, state.draw_block):
        task.call("draw", [])
    for verifier in holding.drawn:
        holding.plain("reportUnavailable", holding.seat(verifier), sender=verifier)
    task.draw()
    assert (task.state.status, task.segments_drawn) == (Status.STARTING, drawn)
    world.assert_solvent()


def test_filling_others_stakes_gives_no_second_choice_of_a_committee() -> None:
    task, holding = kept_waiting()
    world = task.world
    seed, deadline = world.market.view("drawSeeds", task.id), task.state.deadline
    mark, seen = world.evm.mark(), set()
    for blocks in (2, 40, 300, 700):
        world.evm.back(mark)
        world.wait(blocks=blocks)
        task.call("draw", [])  # still too few
        state = task.state
        assert (state.status, state.retries, state.deadline) == (Status.COMMITTED, 0, deadline)
        assert world.market.view("drawSeeds", task.id) == seed
        for one in holding:
            for verifier in one.drawn:
                one.plain("reportUnavailable", one.seat(verifier), sender=verifier)
        world.wait(blocks=2)
        task.call("draw", [])
        assert task.state.status == Status.STARTING
        assert world.market.view("drawSeeds", task.id) == 0
        seen.add((tuple(task.drawn), tuple(task.segments_drawn)))
    assert len(seen) == 1


def test_a_solver_whose_verifiers_were_all_busy_is_not_late() -> None:
    world = World(slots=1)
    for one in (decoy(world, committee=4), decoy(world, committee=2)):
        until_drawn(one)
    task = world.post().reach(Status.COMMITTED)
    task.draw()
    world.wait(SPEC.audit_window + 1, blocks=1000)
    with world.refuses("NoDefault", task.id):
        task.call("defaulted")
    done = task.call("draw", [])
    assert done.event("TaskEnded")["reason"].rstrip(b"\0") == b"nobody to draw"
    world.assert_solvent()


def test_who_has_lost_all_its_stakes_is_passed_over_and_keeps_no_draw_waiting() -> None:
    world = World(verifiers=3, slots=1)
    silent = [role(f"silent {i}") for i in range(5)]
    for account in silent:
        world.fund(account)
        world.send("registerVerifier", 1, sender=account)
    world.wait()
    while any(world.slots(account) for account in silent):
        task = decoy(world, committee=2)
        task.draw()
        task.open_starts()
        for verifier in set(task.drawn) - set(silent):
            task.plain("reportUnavailable", task.seat(verifier), sender=verifier)
        world.wait_beyond(task.state.deadline)
        task.call("redraw")
    mark = world.evm.mark()
    for blocks in range(1, 13):
        world.evm.back(mark)
        world.wait(blocks=blocks)
        task = world.post().reach(Status.COMMITTED)
        task.draw()
        assert task.state.status == Status.STARTING
        world.tasks.pop()


def test_a_due_second_audit_is_not_skipped_because_all_verifiers_are_busy() -> None:
    world = World(slots=1)
    task = world.post(second_audit=255).reach(Status.REVEALING)
    decoys = [decoy(world, committee=2) for _ in range(2)]
    for verifier in task.drawn:
        task.reveal(verifier)
    for one in decoys:
        one.draw()
    assert not any(world.slots(v) for v in VERIFIERS)
    deadline = task.state.deadline
    free = world.free(SOLVER)
    for _ in range(3):
        world.wait(blocks=2)
        task.call("draw", [])
        assert (task.state.status, task.state.deadline) == (Status.COMMITTED, deadline)
    world.wait(deadline - world.evm.timestamp, blocks=2)
    task.call("draw", [])  # in the last second
    assert task.state.status == Status.COMMITTED
    world.wait(1, blocks=2)
    done = task.call("draw", [])
    assert done.event("TaskEnded")["reason"].rstrip(b"\0") == b"nobody to draw"
    assert world.free(SOLVER) == free + SPEC.solver_stake  # neither paid nor slashed
    world.assert_solvent()


def test_a_decoy_that_is_abandoned_costs_its_author_most_of_a_stake_that_counts() -> None:
    world = fresh_world()
    task = decoy(world, committee=4)
    task.draw()
    paid = world.free(SOLVER) + world.free(SUBMITTER)
    world.wait_beyond(task.state.deadline)
    task.call("defaulted")
    stake = STAKE // 4
    back = world.free(SOLVER) + world.free(SUBMITTER) - paid - task.spec.escrow
    assert back == stake * 20 // 100
    assert world.burned() == stake - back
    world.assert_solvent()


# Whom the solver serves.


def test_withholding_from_some_verifiers_gets_no_replacements_but_a_new_round() -> None:
    task = at(Status.SEALING)
    world, (first, second), runs = task.world, task.drawn, task.runs
    task.seal(first)
    task.plain("reportUnavailable", task.seat(second), sender=second)
    before = task.state
    task.call("redraw")
    task.draw()
    state = task.state
    assert (state.round, state.status) == (before.round + 1, Status.STARTING)
    assert len(task.drawn) == SPEC.committee
    assert states(task)[:2] == [SEALED, UNAVAILABLE]
    # What was drawn stays drawn, with one segment more.
    old = {run.first + i for run in runs for i in range(run.count)}
    assert old < task.segments_drawn
    # Who sealed can do nothing more, and is paid in the end: it was never shown an end.
    task.reach(Status.REVEALING)
    with world.refuses("NotSealed", task.id, first):
        task.call("reveal", 0, nonce(first), [], bytes(32), sender=first)
    task.reach(Status.WINDOW)
    free, seats = world.free(first), task.seats
    again = sum(raw(seat.verifier) == first for seat in seats[2:])
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    assert world.free(first) == free + SPEC.verifier_fee * (1 + again)
    assert world.slots(first) == 2
    world.assert_solvent()


def test_rounds_that_a_solver_lets_fail_do_not_use_up_the_honest() -> None:
    world = World(verifiers=0)
    honest = [role(f"large {i}") for i in range(3)]
    own = [role(f"small {i}") for i in range(2)]
    for account, slots in [*((a, 8) for a in honest), *((a, 1) for a in own)]:
        world.fund(account, STAKE * 20)
        world.send("registerVerifier", slots, sender=account)
    world.wait()
    task = world.post(second_audit=255).reach(Status.SEALING)
    for _ in range(2):
        drawn = task.drawn
        for verifier in drawn:
            task.plain("reportUnavailable", task.seat(verifier), sender=verifier)
        world.wait()
        mark, again = world.evm.mark(), set()
        for blocks in range(1, 9):
            world.evm.back(mark)
            world.wait(blocks=blocks)
            task.call("redraw")
            task.draw()
            again |= set(task.drawn) & set(drawn)
        assert again  # with the same chance as before
        task.open_starts()


def test_a_verifier_that_only_did_not_come_is_replaced_for_the_same_runs() -> None:
    task = at(Status.SEALING)
    runs = task.runs
    task.seal(task.drawn[0])
    task.world.wait_beyond(task.state.deadline)
    task.call("redraw")
    task.draw()
    assert (task.state.status, task.runs) == (Status.SEALING, runs)
    assert states(task) == [SEALED, SeatState.SLASHED, SeatState.DRAWN]


# Objections.


def test_an_objection_that_convicts_nobody_does_not_buy_off_the_second_audit() -> None:
    task, odd = objected(255)
    world, slots = task.world, task.world.slots(odd)
    world.wait_beyond(task.state.deadline)
    with world.refuses("NotAttested", task.id):
        task.call("settle")
    done = task.call("redraw")
    assert raw(done.event("VerifierSlashed")["verifier"]) == odd
    state = task.state
    assert (state.status, state.agreed, state.retries) == (Status.COMMITTED, 1, 0)
    task.reach(Status.WINDOW)
    assert states(task)[:3].count(ATTESTED) == 2
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    assert task.state.status == Status.SETTLED
    assert world.slots(odd) == slots
    world.assert_solvent()


def test_an_objection_whose_dispute_was_lost_buys_off_no_second_audit_either() -> None:
    task, odd = objected(255)
    world = task.world
    world.decide(task.challenge(odd), convicted=False)
    assert states(task).count(SeatState.SLASHED) == 1
    world.wait_beyond(task.state.deadline)
    with world.refuses("NotAttested", task.id):
        task.call("settle")
    task.call("redraw")
    assert (task.state.status, task.state.agreed) == (Status.COMMITTED, 1)


def test_an_objection_holds_up_no_task_without_second_audits() -> None:
    task, odd = objected(0)
    task.world.wait_beyond(task.state.deadline)
    with task.world.refuses("AlreadyAttested", task.id):
        task.call("redraw")
    done = task.call("settle")
    assert raw(done.event("VerifierSlashed")["verifier"]) == odd


# Rounds whose ends nobody has seen.


def test_who_sealed_in_time_is_not_slashed_if_no_end_was_ever_opened() -> None:
    world = World(verifiers=4)
    task = world.post(second_audit=255).reach(Status.REVEALING)
    task.seal_challenge(WHISTLEBLOWER, 0)
    world.wait()
    dispute = task.tell_challenge(WHISTLEBLOWER, 0)
    for verifier in task.drawn:
        task.reveal(verifier)
    task.reach(Status.SEALING)
    honest, _absent = task.drawn
    task.seal(honest)
    world.wait_beyond(task.state.deadline)
    task.call("redraw")
    drawn = task.segments_drawn
    task.draw_in_vain()  # nobody is left, and the dispute is open
    assert (task.state.status, task.state.ends_hash) == (Status.WINDOW, bytes(32))
    world.decide(dispute, convicted=False)
    world.wait_beyond(task.state.deadline)
    free = world.free(honest)
    task.call("redraw")
    assert task.seats[task.seat(honest)].state == SEALED
    # And what nobody has audited stays drawn.
    assert task.segments_drawn == drawn
    if task.state.status == Status.COMMITTED:
        task.draw_in_vain()
    assert task.state.status == Status.EXPIRED
    assert (world.slots(honest), world.free(honest)) == (2, free)
    world.assert_solvent()


def test_a_second_audit_that_finds_nobody_leaves_no_runs_behind() -> None:
    world = World(verifiers=2)
    task = world.post(second_audit=255).reach(Status.REVEALING)
    for verifier in task.drawn:
        task.reveal(verifier)
    before = task.all_runs
    task.draw()
    assert task.state.status == Status.WINDOW
    assert task.all_runs == before
    assert states(task) == [ATTESTED] * 2
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    assert task.state.status == Status.SETTLED


def test_ends_of_a_paid_window_show_nothing_in_the_next() -> None:
    task = at(Status.WINDOW, window_segments=4, **TERMS)
    world = task.world
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    assert task.state.ends_hash == bytes(32)
    task.reach(Status.SEALING)
    sealed, asker = task.drawn
    task.seal(sealed)
    demand(task, asker, task.runs[0].first, seat=task.seat(asker))
    world.wait(SPEC.audit_window + 1)
    world.send("unanswered", 1, task.spec.as_abi(), sender=STRANGER)
    assert task.state.status == Status.CONVICTED
    with world.refuses("WrongStatus", task.id, Status.CONVICTED):
        task.reveal(sealed)
