# SPDX-License-Identifier: GPL-3.0-or-later
"""What anybody can do for a task that everybody has left: calls and time bring it to its end.

`drain` makes only calls that need nobody's permission, and gives the verdicts that the real game
gives when a clock runs out; `everybody_out` then takes all money out of the market.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.market_chain import Refused
from tests.market_driver import BURN_ADDRESS, STRANGER, Task, World

MOVES = ("assign", "draw", "defaulted", "redraw", "openWindow", "settle", "punish")
LEAVE_DELAY = 30 * 86_400
PATIENCE = 120  # attempts; the longest way out takes about sixty


def tried(call: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    """True if the contract did not refuse."""
    try:
        call(*args, **kwargs)
    except Refused:
        return False
    return True


def drain(task: Task, verdict: Callable[[int], bool] = lambda dispute: False) -> None:
    """Brings a task to its end and closes all that was open beside it."""
    world = task.world
    for patience in range(PATIENCE):
        state = task.state
        _close(task, verdict)
        if state.status.final and task.state.open == 0:
            break
        arguments: dict[str, list[Any]] = {"draw": [[]]}
        if not any(tried(task.call, move, *arguments.get(move, [])) for move in MOVES):
            # Nothing can be done yet. A missed draw waits for blocks, all else for seconds.
            due = max(state.deadline - world.evm.timestamp + 1, 300)
            world.wait(due, blocks=300 if patience % 2 else 2)
    else:
        raise AssertionError(f"stuck: {task.state}")
    _close(task, verdict)


def _close(task: Task, verdict: Callable[[int], bool]) -> None:
    """Ends what can be ended of disputes, demands, sealed challenges and sealed bids."""
    world = task.world
    for dispute in range(1, world.game.view("disputeCount") + 1):
        if world.market.view("disputes", dispute)[0] == task.id:
            world.decide(dispute, convicted=verdict(dispute))
    for demand in range(1, world.market.view("demandCount") + 1):
        if world.market.view("demands", demand)[0] == task.id:
            tried(world.send, "unanswered", demand, task.spec.as_abi(), sender=STRANGER)
    for person in world.people:
        if any(world.market.view("sealedChallenges", task.id, person)[0]):
            tried(task.call, "dropChallenge", person)
        if any(world.market.view("sealedBids", task.id, person)):
            tried(task.call, "forfeitBid", person)


def everybody_out(world: World) -> None:
    """Verifiers leave and everybody withdraws: nothing is left in the market."""
    slots = [p for p in world.people if world.market.view("verifierOf", p)[0]]
    for verifier in slots:
        tried(world.send, "leaveVerifiers", sender=verifier)
    world.wait(LEAVE_DELAY)
    for verifier in slots:
        world.send("removeVerifier", sender=verifier)
    for person in world.people:
        if world.free(person):
            world.send("withdraw", sender=person)
    if world.free(BURN_ADDRESS):
        world.send("burn", sender=STRANGER)
    assert world.evm.balance(world.market.address) == world.owed() == 0
