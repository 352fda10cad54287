# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls that anybody may make, and that move a task on when whoever should have made them did not.

So nobody's silence keeps another's money. `due` says which call a task waits for; agents make it
when it is in their interest, and the scenario lab has a keeper that makes all of them.
"""

from __future__ import annotations

from typing import Any

from protocol.audit import in_round
from protocol.market import Market
from protocol.rules import HASH_BLOCKS, MAX_ROUNDS, QUORUM
from protocol.task import SeatState, Status, TaskState, is_audited_again

Call = tuple[str, tuple[Any, ...]]
"""A function of the market and its arguments after the task's number and terms."""


def due(market: Market, task: int, state: TaskState, patience: int = 0) -> Call | None:
    """The call that a task waits for now, if anybody may make it.

    `patience` are the blocks that the solver has for the draw before anybody makes it.
    """
    now, audit = market.chain.now, market.posted(task).spec.audit_window
    late = now > state.deadline
    match state.status:
        case Status.BIDDING:
            if now > state.deadline + market.posted(task).spec.bid_window:
                return "assign", ()
        case Status.TRAINING | Status.STARTING:
            if late:
                return "defaulted", ()
        case Status.COMMITTED:
            return _draw(market, task, state, late, patience)
        case Status.SEALING:
            return _after_sealing(market, task, state, late, now > state.deadline + audit)
        case Status.REVEALING:
            if late:
                return "openWindow", ()
        case Status.WINDOW:
            if late:
                return _after_window(market, task, state)
        case Status.CONVICTED:
            if state.open:
                return _untold(market, task, state)
            # Drawn verifiers have their time first.
            return ("punish", ()) if now > state.deadline + audit else None
    return None


def move_on(market: Market, task: int, state: TaskState, patience: int = 0) -> bool:
    """Makes the call that a task or a demand waits for; True if there was one."""
    demand = unanswered(market, task, state)
    if demand is not None:
        market.send("unanswered", demand, market.posted(task).spec.as_abi())
        return True
    return proceed(market, task, state, patience)


def proceed(market: Market, task: int, state: TaskState, patience: int = 0) -> bool:
    """Makes the call that a task waits for, but says nothing of demands; True if there was one."""
    call = due(market, task, state, patience)
    if call is None:
        return False
    function, arguments = call
    market.send_for(function, task, *arguments)
    return True


def unanswered(market: Market, task: int, state: TaskState) -> int | None:
    """A demand that was not answered in time, or that a conviction has made needless."""
    if not state.open:
        return None
    needless, now = state.status >= Status.CONVICTED, market.chain.now
    over = (d.id for d in market.demands(task) if needless or now > d.deadline)
    return next(over, None)


def forfeited(market: Market, task: int, state: TaskState) -> str | None:
    """Who sealed a bid that can be revealed no more."""
    window = market.posted(task).spec.bid_window
    if state.status == Status.BIDDING and market.chain.now <= state.deadline + window:
        return None
    for event in market.events("BidSealed", task):
        bidder = str(event.values["solver"])
        if any(market.view("sealedBids", task, bidder)):
            return bidder
    return None


def is_busy(market: Market, task: int, state: TaskState) -> bool:
    """Whether a draw found too few verifiers with a free stake, and would find too few again.

    Every draw from its seed is the same but for who is free, until the deadline ends the task.
    """
    late = market.chain.now > state.deadline
    return not late and bool(market.view("drawSeeds", task)) and not _finds_enough(market, task)


def _finds_enough(market: Market, task: int) -> bool:
    return bool(market.view("draw", task, market.posted(task).spec.as_abi(), []))


def _draw(market: Market, task: int, state: TaskState, late: bool, patience: int) -> Call | None:
    passed = market.chain.block - state.draw_block
    if market.view("drawSeeds", task):
        again = passed > 0 and (late or _finds_enough(market, task))
        return ("draw", ([],)) if again else None
    if passed <= HASH_BLOCKS:
        return ("draw", ([],)) if passed > patience else None
    if late:
        return "defaulted", ()
    return ("draw", ([],)) if state.retries + 1 < MAX_ROUNDS else None


def _after_sealing(
    market: Market, task: int, state: TaskState, late: bool, solver_late: bool
) -> Call | None:
    states = in_round(market.seats(task), state.round)
    if states.count(SeatState.SEALED) >= QUORUM:
        return ("defaulted", ()) if solver_late else None
    over = late or SeatState.DRAWN not in states
    # The last redraw ends the task, which waits for everything that is open.
    if over and not (state.open and state.retries + 1 >= MAX_ROUNDS):
        return "redraw", ()
    return None


def _after_window(market: Market, task: int, state: TaskState) -> Call | None:
    if state.open:
        return _untold(market, task, state)
    again = is_audited_again(market.posted(task).spec, state, market.seats(task))
    return ("redraw" if again else "settle"), ()


def _untold(market: Market, task: int, state: TaskState) -> Call | None:
    """A sealed challenge that was not told in time, or that a conviction has made needless."""
    if not state.open:
        return None
    needless, window = state.status >= Status.CONVICTED, market.posted(task).spec.audit_window
    for event in market.events("ChallengeSealed", task):
        challenger = event.values["challenger"]
        digest, _, _, _, sealed_at, _ = market.view("sealedChallenges", task, challenger)
        if any(digest) and (needless or market.chain.now > sealed_at + window):
            return "dropChallenge", (challenger,)
    return None
