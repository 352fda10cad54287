# SPDX-License-Identifier: GPL-3.0-or-later
"""What a solver's open bids will still lock: money that no other task may take."""

from __future__ import annotations

from protocol.market import Market
from protocol.task import Status


def reserved(market: Market, task: int) -> int:
    """Return what revealing all sealed bids of this account locks, apart from one task's.

    A bid that becomes the leading one locks the stake, of which its bond is a part.
    """
    sealed = {
        event.values["id"]
        for event in market.events("BidSealed")
        if event.values["solver"] == market.address
    }
    return sum(_open_bid(market, other) for other in sealed - {task})


def _open_bid(market: Market, task: int) -> int:
    state, spec = market.state(task), market.posted(task).spec
    over = market.chain.now > state.deadline + spec.bid_window
    if state.status != Status.BIDDING or over:
        return 0
    if not any(market.view("sealedBids", task, market.address)):
        return 0
    return max(0, spec.solver_stake - spec.bond)
