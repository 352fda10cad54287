# SPDX-License-Identifier: GPL-3.0-or-later
"""No audit is captured by filling others' stakes, by whom the solver serves, or by an objection."""

from __future__ import annotations

from collections import Counter
from typing import Any

from eth_utils.crypto import keccak

from protocol.rules import BUSY_DELAY
from protocol.task import SeatState, Status
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
        task.world.wait(blocks=BUSY_DELAY)
    return task


# Filled stakes.


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
    assert state.draw_block == world.evm.number + BUSY_DELAY
    drawn = task.segments_drawn
    assert len(drawn) == SPEC.samples
    assert task.seats == []
    with world.refuses("DrawNotReady", task.id, state.draw_block):
        task.draw()
    for verifier in holding.drawn:
        holding.plain("reportUnavailable", holding.seat(verifier), sender=verifier)
    world.wait(blocks=BUSY_DELAY)
    task.draw()
    assert (task.state.status, task.segments_drawn) == (Status.STARTING, drawn)
    world.assert_solvent()


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
        world.wait(blocks=BUSY_DELAY + 1)
        task.call("draw", [])
        assert (task.state.status, task.state.deadline) == (Status.COMMITTED, deadline)
    world.wait(deadline - world.evm.timestamp, blocks=BUSY_DELAY + 1)
    task.call("draw", [])  # in the last second
    assert task.state.status == Status.COMMITTED
    world.wait(1, blocks=BUSY_DELAY + 1)
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
    assert len(task.drawn) == SPEC.committee  # both are new
    assert states(task)[:2] == [SEALED, UNAVAILABLE]
    # What was drawn stays drawn, with one segment more.
    old = {run.first + i for run in runs for i in range(run.count)}
    assert old < task.segments_drawn
    # Who sealed can do nothing more, and is paid in the end: it was never shown an end.
    task.reach(Status.REVEALING)
    with world.refuses("NotSealed", task.id, first):
        task.reveal(first)
    task.reach(Status.WINDOW)
    free = world.free(first)
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    assert world.free(first) == free + SPEC.verifier_fee
    assert world.slots(first) == 2
    world.assert_solvent()


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


def objected(second_audit: int, **changes: Any) -> tuple[Task, bytes]:
    """Two attested, one has objected; the window is open."""
    task = at(Status.SEALING, committee=3, second_audit=second_audit, **changes)
    *honest, odd = task.drawn
    lie = [keccak(root) for root in task.digests()]
    task.seal(odd, lie)
    for verifier in honest:
        task.seal(verifier)
    task.open_ends()
    task.reveal(odd, lie)
    for verifier in honest:
        task.reveal(verifier)
    assert task.state.status == Status.WINDOW
    return task, odd


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
