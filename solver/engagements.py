# SPDX-License-Identifier: GPL-3.0-or-later
"""What a solver has promised already: money and time that no other task may take.

All of it follows from the chain, so that a restarted solver knows it too.
"""

from __future__ import annotations

from protocol.market import Market
from protocol.task import Status


def reserved(market: Market, task: int) -> int:
    """Return what revealing all sealed bids of this account locks, apart from one task's.

    A bid that becomes the leading one locks the stake, of which its bond is a part.
    """
    total = 0
    for other in _named(market, "BidSealed") - {task}:
        if _may_reveal(market, other):
            spec = market.posted(other).spec
            total += max(0, spec.solver_stake - spec.bond)
    return total


def engaged(market: Market, task: int) -> list[int]:
    """Return the tasks, apart from one, that this account trains or may still win."""
    named = (_named(market, event) for event in ("BidSealed", "AskEntered", "Assigned"))
    return sorted(other for other in set().union(*named) - {task} if _trains(market, other))


def _named(market: Market, event: str) -> set[int]:
    """Numbers of all tasks with such an event of this account."""
    found = market.events(event)
    return {int(e.values["id"]) for e in found if e.values["solver"] == market.address}


def _may_reveal(market: Market, task: int) -> bool:
    state, spec = market.state(task), market.posted(task).spec
    over = market.chain.now > state.deadline + spec.bid_window
    if state.status != Status.BIDDING or over:
        return False
    return any(market.view("sealedBids", task, market.address))


def _trains(market: Market, task: int) -> bool:
    state, spec = market.state(task), market.posted(task).spec
    if state.solver == market.address and not state.status.final:
        return state.log_size <= spec.segments
    return _may_reveal(market, task)
