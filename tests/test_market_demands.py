# SPDX-License-Identifier: GPL-3.0-or-later
"""Chunks that the solver must post on chain: who may ask for what, and what it costs whom."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.task import SeatState, Status
from tests.market_chain import label
from tests.market_cheats import COMPENSATION, REWARD, STAKED
from tests.market_data import (
    FAULTY,
    NODES,
    PRICE,
    SHAPES,
    STATES,
    TERMS,
    answer,
    chunks,
    demand,
    in_window,
    output,
    reply,
    unanswered,
    void,
)
from tests.market_driver import (
    FUNDS,
    RIVAL,
    SOLVER,
    SPEC,
    SUBMITTER,
    VERIFIERS,
    WHISTLEBLOWER,
    at,
    raw,
)

# Asking.


def test_anybody_may_demand_any_chunk_of_any_checkpoint_in_the_challenge_window() -> None:
    task = in_window()
    world, mark = task.world, task.world.evm.mark()
    everything = [(leaf, t, c) for leaf in (0, 3, 8) for t in (0, 1, 2) for c in range(chunks(t))]
    assert len(everything) == 15
    for leaf, tensor, chunk in everything:
        world.evm.back(mark)
        deadline = task.state.deadline
        event = demand(task, WHISTLEBLOWER, leaf, tensor, chunk, seat=77).event("Demanded")
        assert raw(event["asker"]) == WHISTLEBLOWER
        assert (event["leaf"], event["tensor"], event["chunk"]) == (leaf, tensor, chunk)
        assert event["deadline"] == world.evm.timestamp + SPEC.audit_window
        assert world.free(WHISTLEBLOWER) == FUNDS - PRICE
        state = task.state
        assert (state.open, state.demands) == (1, 1)
        assert state.deadline == deadline + SPEC.audit_window
        world.assert_solvent()
        free = world.free(SOLVER)
        done = answer(task, event["demandId"])
        said = {**done.event("Burned"), **done.event("Answered")}
        data = STATES[leaf][tensor].tobytes()[1024 * chunk : 1024 * (chunk + 1)]
        assert (said["chunk"], said["stateRoot"]) == (data, task.claimed[leaf])
        assert world.free(SOLVER) == free + PRICE // 2
        assert said["amount"] == PRICE - PRICE // 2
        assert task.state.open == 0
        world.assert_solvent()


@pytest.mark.parametrize("status", [*list(Status)[1:5], Status.SETTLED])
def test_no_demand_in_any_other_status(status: Status) -> None:
    task = at(status, **TERMS)
    with task.world.refuses("WrongStatus", task.id, status):
        demand(task, WHISTLEBLOWER, 0)


def test_a_drawn_verifier_may_demand_the_start_of_its_runs_before_it_seals() -> None:
    task = at(Status.SEALING, **TERMS)
    world, (asker, other) = task.world, task.drawn
    starts = {run.first for run in task.runs}
    for leaf in starts:
        mark, deadline = world.evm.mark(), task.state.deadline
        demand(task, asker, leaf, seat=task.seat(asker))
        assert task.state.deadline == deadline + SPEC.audit_window
        world.assert_solvent()
        world.evm.back(mark)
    with world.refuses("NotDrawn", task.id, WHISTLEBLOWER):
        demand(task, WHISTLEBLOWER, min(starts), seat=0)
    with world.refuses("NotDrawn", task.id, asker):
        demand(task, asker, min(starts), seat=task.seat(other))
    task.seal(asker)
    with world.refuses("NotDrawn", task.id, asker):
        demand(task, asker, min(starts), seat=task.seat(asker))


def test_no_demand_shows_a_drawn_verifier_an_end_before_it_has_sealed() -> None:
    task = at(Status.SEALING, **TERMS)
    asker = task.drawn[0]
    seat, starts = task.seat(asker), {run.first for run in task.runs}
    hidden = set(range(9)) - starts
    assert {run.first + run.count for run in task.runs} <= hidden | starts
    for leaf in hidden:
        with task.world.refuses("NotDrawn", task.id, asker):
            demand(task, asker, leaf, seat=seat)


def test_a_sealed_verifier_may_demand_the_last_state_alone_before_it_reveals() -> None:
    task = at(Status.REVEALING, **TERMS)
    world, (asker, other) = task.world, task.drawn
    seat = task.seat(asker)
    for leaf in range(8):
        with world.refuses("NotDrawn", task.id, asker):
            demand(task, asker, leaf, seat=seat)
    with world.refuses("NotDrawn", task.id, other):
        demand(task, other, 8, seat=seat)
    deadline = task.state.deadline
    demand(task, asker, 8, seat=seat)
    assert task.state.deadline == deadline + SPEC.audit_window
    answer(task, 1)
    task.reveal(asker)
    with world.refuses("NotDrawn", task.id, asker):
        demand(task, asker, 8, seat=seat)
    world.assert_solvent()


def test_a_demand_for_what_does_not_exist_is_refused() -> None:
    task = in_window()
    world = task.world
    for leaf, tensor, chunk in ((9, 0, 0), (2**32 - 1, 0, 0), (0, 0, 3), (0, 1, 1), (0, 2, 1)):
        with world.refuses("NothingToDemand", task.id, leaf, tensor, chunk):
            demand(task, WHISTLEBLOWER, leaf, tensor, chunk)
    node, proof = output(task, 0)
    other, other_proof = output(task, 1)
    for tensor, part, siblings in (
        (3, other, other_proof),
        (2**32 - 1, other, other_proof),
        (1, node, proof),
        (0, other, proof),
        (0, node, proof[1:]),
        (0, NODES[0], proof),
    ):
        with world.refuses("BadProof", task.id, label("node")):
            task.call("demand", 0, 0, tensor, 0, part, siblings, sender=WHISTLEBLOWER)


def test_a_demand_is_made_by_the_last_second_and_costs_an_eighth_of_the_bond() -> None:
    task = in_window(bond=SPEC.bond - 1)
    world, deadline = task.world, task.state.deadline
    world.wait_until(deadline)
    mark = world.evm.mark()
    demand(task, WHISTLEBLOWER, 8)
    assert world.free(WHISTLEBLOWER) == FUNDS - PRICE  # rounded up
    world.evm.back(mark)
    world.wait_beyond(deadline)
    with world.refuses("TooLate", task.id, deadline):
        demand(task, WHISTLEBLOWER, 8)


def test_a_demand_without_money_is_refused() -> None:
    task = in_window()
    poor = bytes(19) + b"\x07"
    with task.world.refuses("InsufficientBalance", poor, PRICE, 0):
        demand(task, poor, 0)


# Answering.


def test_an_answer_that_is_wrong_short_long_or_foreign_is_refused() -> None:
    task = in_window()
    world, leaf, tensor, last = task.world, 3, 0, 2
    demand(task, WHISTLEBLOWER, leaf, tensor, last)
    opening, _, proof, chunk, chunk_proof = reply(task, leaf, tensor, last)
    full = reply(task, leaf, tensor, 0)
    foreign, other = reply(task, leaf + 1, tensor, last), reply(task, leaf, 1, 0)
    flipped = bytes([chunk[0] ^ 1]) + chunk[1:]
    assert len(chunk) == 4 * SHAPES[0][0] * SHAPES[0][1] - 2048 < len(full[3])
    wrong: dict[str, list[dict[str, Any]]] = {
        "checkpoint": [
            {"opening": foreign[0]},
            {"opening": (bytes(32), *opening[1:])},
            {"opening": (opening[0], foreign[0][1], opening[2])},
        ],
        "tensor": [
            {"root": foreign[1]},
            {"root": other[1], "proof": other[2]},
            {"proof": proof[1:]},
        ],
        "chunk": [
            {"chunk": flipped},
            {"chunk": chunk[:-1]},
            {"chunk": chunk + b"\0"},
            {"chunk": b""},
            {"chunk": full[3]},
            {"chunk": full[3], "chunk_proof": full[4]},
            {"chunk": foreign[3]},
            {"chunk_proof": [*chunk_proof, bytes(32)]},
        ],
    }
    for reason, changes in wrong.items():
        for change in changes:
            with world.refuses("BadProof", task.id, label(reason)):
                answer(task, 1, **change)
    answer(task, 1)
    for number in (0, 1, 2):
        with world.refuses("UnknownDemand", number):
            world.send("answer", number, task.spec.as_abi(), *reply(task, 3), sender=SOLVER)
        with world.refuses("UnknownDemand", number):
            unanswered(task, number)


def test_a_late_answer_is_refused_and_silence_costs_the_whole_stake() -> None:
    task = in_window()
    world = task.world
    demand(task, WHISTLEBLOWER, 5)
    deadline = world.market.view("demands", 1)[6]
    world.wait_until(deadline)
    mark = world.evm.mark()
    answer(task, 1)  # in the last second
    world.evm.back(mark)
    with world.refuses("TooEarly", task.id, deadline):
        unanswered(task, 1)
    world.wait_beyond(deadline)
    with world.refuses("TooLate", task.id, deadline):
        answer(task, 1)
    burned, free = world.burned(), world.free(SUBMITTER)
    unanswered(task, 1)
    assert world.free(WHISTLEBLOWER) == FUNDS  # what it paid comes back; it earns no reward
    assert (task.state.status, task.state.open) == (Status.CONVICTED, 0)
    assert world.market.view("recordOf", SOLVER)[1] == 1
    world.assert_solvent()
    done = task.punish()
    assert done.event("SolverSlashed")["reason"] == label("default")
    assert world.free(SOLVER) == FUNDS - STAKED
    # Nobody has shown that those who attested were wrong: they are paid.
    fees = 2 * SPEC.verifier_fee
    assert world.free(SUBMITTER) == free + task.spec.escrow - fees + COMPENSATION
    assert world.burned() == burned + STAKED - COMPENSATION
    assert all(world.slots(v) == 2 for v in VERIFIERS)
    world.assert_solvent()


def test_nothing_settles_while_a_demand_is_open() -> None:
    task = in_window()
    world = task.world
    demand(task, WHISTLEBLOWER, 5)
    world.wait_beyond(task.state.deadline)
    for function in ("settle", "redraw"):
        with world.refuses("StillOpen", task.id, 1):
            task.call(function)
    unanswered(task, 1)
    task.punish()
    world.assert_solvent()


def test_a_conviction_by_silence_shares_the_stake_with_who_won_a_dispute() -> None:
    task = in_window()
    world = task.world
    demand(task, WHISTLEBLOWER, 5)
    dispute = task.whistle(RIVAL)
    world.wait(SPEC.audit_window + 1)
    unanswered(task, 1)
    with world.refuses("StillOpen", task.id, 1):
        task.call("punish")
    world.decide(dispute, convicted=True)
    task.punish()
    assert world.free(RIVAL) == FUNDS + REWARD
    world.assert_solvent()


@pytest.mark.parametrize("how", ["convicted", "voided"])
def test_a_demand_on_a_task_that_has_ended_goes_back(how: str) -> None:
    task = at(Status.WINDOW, **(FAULTY if how == "voided" else TERMS))
    world = task.world
    demand(task, WHISTLEBLOWER, 5)
    if how == "voided":
        void(task)
    else:
        world.decide(task.whistle(RIVAL), convicted=True)
    assert task.state.open == 1
    free = world.free(SOLVER)
    done = unanswered(task, 1)  # at once
    assert done.event("Credited")["reason"] == label("demand")
    assert world.free(WHISTLEBLOWER) == FUNDS
    assert world.free(SOLVER) == free
    assert world.market.view("recordOf", SOLVER)[1] == (1 if how == "convicted" else 0)
    world.assert_solvent()
    if how == "convicted":
        task.punish()
        world.assert_solvent()


def test_what_a_voided_program_ends_gives_every_stake_and_bond_back() -> None:
    task = at(Status.WINDOW, **FAULTY)
    world = task.world
    dispute = task.whistle(WHISTLEBLOWER)
    run = task.runs[0]
    against = task.whistle(WHISTLEBLOWER, run.first, run.count, attestor=0)
    task.seal_challenge(RIVAL, 1)
    free = world.free(SUBMITTER)
    assert void(task).event("TaskEnded")["reason"] == label("program fault")
    assert world.free(SOLVER) == FUNDS
    assert world.free(SUBMITTER) == free + task.spec.escrow
    assert all(world.slots(v) == 2 for v in VERIFIERS)
    world.assert_solvent()
    burned = world.burned()
    world.decide(dispute, convicted=True)
    world.decide(against, convicted=True)
    task.call("dropChallenge", RIVAL)
    assert (world.free(WHISTLEBLOWER), world.free(RIVAL)) == (FUNDS, FUNDS)
    assert (world.burned(), task.state.status) == (burned, Status.EXPIRED)
    assert [seat.state for seat in task.seats] == [SeatState.ATTESTED] * 2
    world.assert_solvent()
