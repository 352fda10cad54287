# SPDX-License-Identifier: GPL-3.0-or-later
"""What each entry point of the market costs, and a whole honest task."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol.task import Status
from tests.market_cheats import cheated
from tests.market_data import FAULTY, TERMS, answer, demand, unanswered, void
from tests.market_driver import (
    RIVAL,
    SOLVER,
    SPEC,
    STRANGER,
    SUBMITTER,
    WHISTLEBLOWER,
    Task,
    at,
    fresh_world,
    role,
)

pytestmark = pytest.mark.gas
Check = Callable[[str, int], None]


def check(gas_snapshot: Check, task: Task, *functions: str) -> None:
    for function in functions:
        gas_snapshot(f"Market.{function}", task.gas[function])


def play_honestly(task: Task) -> Task:
    """In as few transactions as a task takes; a sealed bid among them, unless the terms name the
    solver.
    """
    if task.spec.solver == SPEC.solver:
        task.seal_bid(SOLVER, SPEC.budget)
        task.world.wait_beyond(task.state.deadline)
        task.reveal_bid(SOLVER, SPEC.budget)
        task.world.wait_beyond(task.state.deadline + SPEC.bid_window)
    else:
        task.call("accept", sender=SOLVER)
    task.append(task.spec.segments + 1)
    task.draw_and_open()
    return task.reach(Status.SETTLED)


def test_gas_of_an_honest_task(gas_snapshot: Check) -> None:
    world = fresh_world()
    play_honestly(world.post())  # from then on accounts and records are in use
    task = play_honestly(world.post())
    check(gas_snapshot, task, *task.gas)
    gas_snapshot("honest_task_total", task.spent)


def test_gas_of_an_honest_task_without_an_auction(gas_snapshot: Check) -> None:
    world = fresh_world()
    play_honestly(world.post())
    task = play_honestly(world.post(solver="0x" + SOLVER.hex()))
    check(gas_snapshot, task, "accept")
    gas_snapshot("honest_task_direct", task.spent)


def test_gas_of_bidding(gas_snapshot: Check) -> None:
    task = at(Status.BIDDING)
    world, ask = task.world, (10**12, 3, 1 << 20, 1 << 40)
    gas_snapshot("Market.setAsk", world.send("setAsk", *ask, sender=SOLVER).gas)
    mark = world.evm.mark()
    task.call("cancel", sender=SUBMITTER)
    world.evm.back(mark)
    task.seal_bid(RIVAL, 1)
    task.call("enterAsk", SOLVER)
    world.wait_beyond(task.state.deadline + SPEC.bid_window)
    task.call("forfeitBid", RIVAL)
    task.call("assign")
    task.call("decline", sender=SOLVER)
    check(gas_snapshot, task, "cancel", "enterAsk", "forfeitBid", "assign", "decline")


def test_gas_of_audits_that_fail(gas_snapshot: Check) -> None:
    task = at(Status.STARTING)
    world, mark = task.world, task.world.evm.mark()
    world.wait_beyond(task.state.deadline)
    task.call("defaulted")
    world.evm.back(mark)
    task.open_starts()
    task.seal(task.drawn[0])
    task.plain("reportUnavailable", task.seat(task.drawn[1]), sender=task.drawn[1])
    task.call("redraw")
    world.evm.back(mark)
    task.reach(Status.REVEALING)
    world.wait_beyond(task.state.deadline)
    task.call("openWindow")
    names = ("openStarts", "reportUnavailable", "redraw", "openWindow", "defaulted")
    check(gas_snapshot, task, *names)


def test_gas_of_disputes(gas_snapshot: Check) -> None:
    task = cheated()
    world, run = task.world, task.runs[0]
    task.gas.clear()
    task.seal_challenge(WHISTLEBLOWER, run.first)
    task.seal_challenge(RIVAL, run.first, run.count, attestor=0)
    world.wait()
    against = task.tell_challenge(RIVAL, run.first, run.count, attestor=0)
    gas_snapshot("Market.challenge, told", task.gas.pop("challenge"))
    dispute = task.challenge(task.drawn[-1])
    mark = world.evm.mark()
    gas_snapshot("Market.onVerdict, acquitted", world.decide(dispute, convicted=False).gas)
    world.evm.back(mark)
    gas_snapshot("Market.onVerdict, attestor", world.decide(against, convicted=True).gas)
    gas_snapshot("Market.onVerdict, convicted", world.decide(dispute, convicted=True).gas)
    task.call("dropChallenge", WHISTLEBLOWER)
    task.punish()
    check(gas_snapshot, task, "sealChallenge", "challenge", "dropChallenge", "punish")


def test_gas_of_demands(gas_snapshot: Check) -> None:
    task = at(Status.WINDOW, **TERMS)
    for _ in range(2):
        demand(task, WHISTLEBLOWER, 3, 0, 1)
    answer(task, 1)
    task.world.wait(SPEC.audit_window + 1)
    unanswered(task, 2)
    check(gas_snapshot, task, "demand", "answer", "unanswered")
    task = at(Status.WINDOW, **FAULTY)
    void(task)
    check(gas_snapshot, task, "voidProgram")


def test_gas_of_accounts(gas_snapshot: Check) -> None:
    world, newcomer = fresh_world(), role("newcomer")
    world.fund(newcomer)
    sends = {
        "deposit": ([], newcomer),
        "registerVerifier": ([2], newcomer),
        "leaveVerifiers": ([], newcomer),
        "removeVerifier": ([], newcomer),
        "withdraw": ([], newcomer),
        "burn": ([], STRANGER),
    }
    task = world.post()
    task.seal_bid(SOLVER, 1)
    world.wait(40 * 86_400)
    task.call("forfeitBid", SOLVER)
    for function, (arguments, sender) in sends.items():
        if function == "removeVerifier":
            world.wait(30 * 86_400)
        done = world.send(function, *arguments, sender=sender)
        gas_snapshot(f"Market.{function}", done.gas)
