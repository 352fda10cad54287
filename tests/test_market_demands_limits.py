# SPDX-License-Identifier: GPL-3.0-or-later
"""How many chunks may be demanded, and what that costs."""

from __future__ import annotations

import pytest

from protocol.rules import PRICE_DOUBLES
from protocol.task import Status
from tests.market_cheats import STAKED, objected
from tests.market_data import (
    PRICE,
    TERMS,
    answer,
    demand,
    in_window,
    unanswered,
)
from tests.market_driver import (
    FUNDS,
    RIVAL,
    SOLVER,
    SPEC,
    VERIFIERS,
    WHISTLEBLOWER,
    Task,
    at,
)

CAP = 16


@pytest.mark.parametrize("status", [Status.SEALING, Status.REVEALING, Status.WINDOW])
def test_the_demands_of_a_phase_and_what_they_prolong_are_bounded(status: Status) -> None:
    task = at(status, **TERMS)
    world, deadline = task.world, task.state.deadline
    asker, leaf = task.drawn[0], 8 if status != Status.SEALING else task.runs[0].first
    for i in range(CAP):
        free = world.free(asker)
        demand(task, asker, leaf, chunk=i % 3, seat=task.seat(asker))
        assert free - world.free(asker) == PRICE << (i // PRICE_DOUBLES)
        assert task.state.deadline == deadline + (i + 1) * SPEC.audit_window
    with world.refuses("TooManyDemands", task.id):
        demand(task, asker, leaf, seat=task.seat(asker))
    for i in range(CAP):
        answer(task, i + 1)
    with world.refuses("TooManyDemands", task.id):
        demand(task, asker, leaf, seat=task.seat(asker))
    world.assert_solvent()


def test_every_phase_has_demands_of_its_own() -> None:
    task = at(Status.SEALING, **TERMS)
    for verifier in task.drawn:
        demand(task, verifier, task.runs[0].first, seat=task.seat(verifier))
    assert task.state.demands == 2
    for phase in (Status.REVEALING, Status.WINDOW):
        assert task.reach(phase).state.demands == 0
        demand(task, task.drawn[0], 8, seat=0)
        assert task.state.demands == 1


def test_every_draw_begins_a_phase_with_demands_of_its_own() -> None:
    task = at(Status.SEALING, **TERMS)
    for verifier in task.drawn:
        demand(task, verifier, task.runs[0].first, seat=task.seat(verifier))
        task.plain("reportUnavailable", task.seat(verifier), sender=verifier)
    assert task.state.demands == 2
    task.call("redraw")
    task.draw()
    assert (task.state.status, task.state.demands) == (Status.STARTING, 0)


def set_open(task: Task, count: int) -> None:
    """Writes how many things are open on a task, which would take many accounts to open."""
    world, evm, address = task.world, task.world.evm, task.world.market.address
    place = 1 + world.place_of(task.id.to_bytes(32), int.from_bytes(task.spec.hash))
    evm.set_storage(address, place, evm.storage(address, place) & ~(255 << 32) | count << 32)
    assert task.state.open == count


def test_a_demand_finds_a_place_among_what_is_open_or_is_refused() -> None:
    task = in_window()
    set_open(task, 128)
    with task.world.refuses("TooManyDemands", task.id):
        demand(task, WHISTLEBLOWER, 3)
    set_open(task, 127)
    demand(task, WHISTLEBLOWER, 3)
    assert task.state.open == 128


def test_exhaustion_by_demands_costs_the_asker_more_than_the_answers() -> None:
    task = in_window()
    demand(task, WHISTLEBLOWER, 3, 0, 1)
    answer(task, 1)
    # The solver earns half of the price. At 50 gwei for a unit of gas it covers the answer.
    assert task.gas["answer"] < 200_000
    assert task.gas["answer"] * 50 * 10**9 < PRICE // 2


def test_a_solver_that_takes_all_demands_itself_pays_bonds_for_it() -> None:
    task = in_window()
    world, burned = task.world, task.world.burned()
    own = (SOLVER, RIVAL)
    money = sum(world.free(person) for person in own)
    for i in range(CAP):
        demand(task, RIVAL, 0, chunk=i % 3)
        answer(task, i + 1)
    with world.refuses("TooManyDemands", task.id):
        demand(task, WHISTLEBLOWER, 3)
    lost = money - sum(world.free(person) for person in own)
    assert lost == world.burned() - burned == 4 * (1 + 2 + 4 + 8) * PRICE // 2 > 3 * SPEC.bond
    world.assert_solvent()


def test_no_demand_shows_an_end_that_a_second_audit_may_yet_draw() -> None:
    task, _ = objected(255, **TERMS)  # the second audit follows
    world = task.world
    for leaf in range(8):
        with world.refuses("WrongStatus", task.id, Status.WINDOW):
            demand(task, WHISTLEBLOWER, leaf)
    demand(task, WHISTLEBLOWER, 8)
    answer(task, 1)
    world.wait_beyond(task.state.deadline)
    task.call("redraw")
    task.reach(Status.WINDOW)
    demand(task, WHISTLEBLOWER, 3)


def test_no_demand_shows_an_end_that_another_round_may_yet_draw() -> None:
    task = at(Status.REVEALING, **TERMS)
    world = task.world
    task.reveal(task.drawn[0])
    task.reveal(task.drawn[1], receipt=bytes(32))
    assert task.state.status == Status.WINDOW  # too few attested
    with world.refuses("WrongStatus", task.id, Status.WINDOW):
        demand(task, WHISTLEBLOWER, 3)
    demand(task, WHISTLEBLOWER, 8)


def test_what_a_conviction_has_made_needless_is_paid_back_instead_of_being_answered() -> None:
    task = in_window()
    world = task.world
    demand(task, WHISTLEBLOWER, 3)
    demand(task, RIVAL, 3)
    world.wait(SPEC.audit_window + 1)
    free = world.free(RIVAL)
    unanswered(task, 1)
    with world.refuses("WrongStatus", task.id, Status.CONVICTED):
        answer(task, 2)
    unanswered(task, 2)
    assert world.free(RIVAL) == free + PRICE
    world.assert_solvent()


def test_ransom_a_final_state_that_is_withheld_from_verifiers_can_be_demanded() -> None:
    task = at(Status.REVEALING, **TERMS)
    world, asker = task.world, task.drawn[0]
    demand(task, asker, 8, 0, 2, seat=task.seat(asker))
    world.wait_beyond(world.market.view("demands", 1)[6])
    unanswered(task, 1)
    task.punish()
    assert world.free(SOLVER) == FUNDS - STAKED
    assert all(world.slots(v) == 2 for v in VERIFIERS)
    world.assert_solvent()


def test_withheld_starts_can_be_demanded_and_cost_the_stake() -> None:
    task = at(Status.SEALING, **TERMS)
    world, asker = task.world, task.drawn[0]
    demand(task, asker, task.runs[0].first, seat=task.seat(asker))
    # Its asker leaves meanwhile, and a redraw is due: the demand outlives it.
    for verifier in task.drawn:
        task.plain("reportUnavailable", task.seat(verifier), sender=verifier)
    task.call("redraw")
    assert (task.state.status, task.state.open) == (Status.COMMITTED, 1)
    world.wait(SPEC.audit_window + 1)
    unanswered(task, 1)
    task.punish()
    assert world.free(SOLVER) == FUNDS - STAKED
    world.assert_solvent()
