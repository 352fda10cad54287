# SPDX-License-Identifier: GPL-3.0-or-later
"""Every transition that docs/protocol.md lists happens, and no other does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from eth_utils.crypto import keccak

from protocol.task import Status
from tests import market_data as data
from tests.market_driver import (
    RIVAL,
    SOLVER,
    STRANGER,
    SUBMITTER,
    VERIFIERS,
    WHISTLEBLOWER,
    Task,
    World,
    fresh_world,
)
from tests.market_table import Transition, cells, transitions, watched

LIE = keccak(text="lie")


def task_at(world: World, status: Status, **changes: Any) -> Task:
    world.wait(31 * 86_400)  # whoever was slashed may bid again
    return world.post(**changes).reach(status)


def lie(task: Task, verifier: bytes) -> None:
    """Seals a digest that no solver has."""
    task.seal(verifier, [LIE] * len(task.runs))


def agree(task: Task, liars: int = 0) -> None:
    """From Sealing to Revealing; some verifiers have another digest."""
    for number, verifier in enumerate(task.drawn):
        lie(task, verifier) if number < liars else task.seal(verifier)
    task.open_ends()


def bidding(world: World) -> None:
    world.post().call("cancel", sender=SUBMITTER)
    task = world.post()
    task.seal_bid(RIVAL, 1)
    world.wait_beyond(task.state.deadline + task.spec.bid_window)
    task.call("forfeitBid", RIVAL)
    task.call("assign")
    world.post(solver="0x" + SOLVER.hex()).call("accept", sender=SOLVER)
    world.send("setAsk", 1, 5, 1_000, 10**10, sender=RIVAL)
    task = world.post()
    task.call("enterAsk", RIVAL)
    task.call("decline", sender=RIVAL)
    world.send("setAsk", 1, 5, 1_000, 10**10, sender=RIVAL)
    task.call("enterAsk", RIVAL)
    world.wait_beyond(task.state.deadline + task.spec.bid_window)
    task.call("assign")
    task.call("decline", sender=RIVAL)
    for size in (4, 9):
        task = world.post()
        task.seal_bid(SOLVER, 1)
        world.wait_beyond(task.state.deadline)
        task.reveal_bid(SOLVER, 1)
        world.wait_beyond(task.state.deadline + task.spec.bid_window)
        task.append(size)
    task = task_at(world, Status.TRAINING)
    task.append(4)
    task.append(9)


def honest(world: World) -> None:
    task_at(world, Status.SETTLED, window_segments=4)
    task = task_at(world, Status.COMMITTED)
    task.draw_and_open()
    task.reach(Status.SETTLED)


def defaults(world: World) -> None:
    for status in (Status.TRAINING, Status.STARTING):
        task = task_at(world, status)
        world.wait_beyond(task.state.deadline)
        task.call("defaulted")
    task = task_at(world, Status.SEALING)
    for verifier in task.drawn:
        task.seal(verifier)
    world.wait_beyond(task.state.deadline + task.spec.audit_window)
    task.call("defaulted")
    task = task_at(world, Status.COMMITTED)
    world.wait(blocks=300)
    task.call("draw", [])
    world.wait(blocks=300)
    world.wait_beyond(task.state.deadline)
    task.call("defaulted")


def nobody_seals(world: World) -> None:
    task = task_at(world, Status.SEALING)
    task.seal(task.drawn[0])
    world.wait_beyond(task.state.deadline)
    task.call("redraw")
    task.draw()
    assert task.state.status == Status.SEALING
    task = task_at(world, Status.SEALING)
    for last in (False, False, True):
        for verifier in task.drawn:
            task.plain("reportUnavailable", task.seat(verifier), sender=verifier)
        task.call("redraw")
        if not last:
            task.draw_and_open()


def unwilling(world: World) -> None:
    task = task_at(world, Status.STARTING)
    task.plain("reportUnavailable", 0, sender=task.drawn[0])


def nobody_attests(world: World) -> None:
    task = task_at(world, Status.COMMITTED, samples=1)
    for _ in range(3):
        task.draw_and_open()
        agree(task)
        for verifier in task.drawn:
            task.reveal(verifier, receipt=bytes(32))
        world.wait_beyond(task.state.deadline)
        task.call("redraw")


def nobody_to_draw(world: World) -> None:
    for verifier in VERIFIERS[1:]:
        world.send("leaveVerifiers", sender=verifier)
    world.wait(30 * 86_400)
    for verifier in VERIFIERS[1:]:
        world.send("removeVerifier", sender=verifier)
    task = task_at(world, Status.COMMITTED)
    task.draw_in_vain()
    assert task.state.status == Status.EXPIRED


def second_audits(world: World) -> None:
    """Drawn and not, after the last reveal and after the deadline."""
    for late in (False, True):
        outcomes: set[Status] = set()
        while not {Status.STARTING, Status.WINDOW} <= outcomes:
            blocks = world.evm.number
            fresh_world()
            world.wait(blocks=blocks)  # the chance follows from the block
            task = task_at(world, Status.SEALING, second_audit=128, committee=2 + late)
            agree(task)
            for verifier in task.drawn[late:]:
                task.reveal(verifier)
            if late:
                world.wait_beyond(task.state.deadline)
                task.call("openWindow")
            task.draw()
            outcomes.add(task.state.status)
    task = task_at(world, Status.SEALING)
    agree(task)
    world.wait_beyond(task.state.deadline)
    task.call("openWindow")


def disputes(world: World) -> None:
    task = task_at(world, Status.SEALING)
    agree(task, liars=1)
    task.reveal(task.drawn[0], [LIE] * len(task.runs))
    task.seal_challenge(WHISTLEBLOWER, 3)
    task.seal_challenge(RIVAL, 4)
    lost = task.challenge(task.drawn[0])
    task.reveal(task.drawn[1])
    task.seal_challenge(STRANGER, 5)
    world.wait()
    won = task.tell_challenge(WHISTLEBLOWER, 3)
    world.decide(lost, convicted=False)
    world.wait_beyond(world.evm.timestamp + task.spec.audit_window)
    task.call("dropChallenge", RIVAL)
    world.decide(won, convicted=True)
    task.call("dropChallenge", STRANGER)
    task.punish()
    task = task_at(world, Status.SEALING)
    agree(task, liars=1)
    task.reveal(task.drawn[0], [LIE] * len(task.runs))
    task.reveal(task.drawn[1])
    task.challenge(task.drawn[0])


def priority_after_a_conviction(world: World) -> None:
    task = task_at(world, Status.SEALING)
    agree(task, liars=1)
    world.decide(task.whistle(WHISTLEBLOWER), convicted=True)
    task.reveal(task.drawn[0], [LIE] * len(task.runs))
    task.challenge(task.drawn[0])


def _under_dispute(world: World, status: Status) -> Task:
    """A task whose second audit has come to a status while a dispute of the first is open."""
    task = task_at(world, Status.SEALING, second_audit=255)
    agree(task)
    task.seal_challenge(WHISTLEBLOWER, 0)
    world.wait()
    for verifier in task.drawn:
        task.reveal(verifier)
    task.tell_challenge(WHISTLEBLOWER, 0)
    if status > Status.COMMITTED:
        task.draw()
    if status > Status.STARTING:
        task.open_starts()
        for verifier in task.drawn:
            task.seal(verifier)
    return task if task.state.status == status else _under_dispute(world, status)


def defaults_under_dispute(world: World) -> None:
    for status in (Status.COMMITTED, Status.STARTING, Status.SEALING):
        task = _under_dispute(world, status)
        world.wait(blocks=300)
        world.wait_beyond(task.state.deadline + task.spec.audit_window)
        task.call("defaulted")
        assert task.state.status == Status.CONVICTED


def demands(world: World) -> None:
    """In every phase that has them, answered and not; and a program that is none."""
    task = task_at(world, Status.SEALING, **data.TERMS)
    verifier = task.drawn[0]
    data.demand(task, verifier, task.runs[0].first, seat=task.seat(verifier))
    data.answer(task, 1)
    for drawn in task.drawn:
        task.seal(drawn)
    task.open_ends()
    data.demand(task, verifier, task.spec.segments, seat=task.seat(verifier))
    data.answer(task, 2)
    for drawn in task.drawn:
        task.reveal(drawn)
    data.demand(task, STRANGER, 0)
    data.demand(task, STRANGER, 1)
    world.wait_beyond(world.evm.timestamp + task.spec.audit_window)
    data.unanswered(task, 3)
    data.unanswered(task, 4)
    task = task_at(world, Status.TRAINING, **data.FAULTY)
    data.void(task)


STORIES: tuple[Callable[[World], None], ...] = (
    bidding,
    honest,
    defaults,
    nobody_seals,
    unwilling,
    nobody_attests,
    nobody_to_draw,
    second_audits,
    disputes,
    priority_after_a_conviction,
    defaults_under_dispute,
    demands,
)


@pytest.fixture(scope="module")
def seen() -> set[Transition]:
    with watched() as found:
        for story in STORIES:
            world = fresh_world()
            story(world)
            world.assert_solvent()
    return found


def test_every_transition_of_the_table_happens(seen: set[Transition]) -> None:
    missing = transitions() - {(Status.NONE, "post", Status.BIDDING)} - seen
    assert not missing, sorted((a.name, call, b.name) for a, call, b in missing)


def test_every_call_that_ends_what_is_open_happens(seen: set[Transition]) -> None:
    ended = {(call, "unchanged" if before == after else after.name) for before, call, after in seen}
    for row in cells("call"):
        for following in row[3].split(","):
            name = following.strip()
            assert (row[0].strip("`"), name if name == "unchanged" else name.upper()) in ended, row
