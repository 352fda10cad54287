# SPDX-License-Identifier: GPL-3.0-or-later
"""What a submitter should ask for: the cheapest terms at which nobody gains by cheating.

`recommend` goes through all audits that the market offers (segments drawn, seats, chance of a
second audit), sizes the stake for each, and takes the one that costs the submitter least: the fees
of the verifiers, and the interest on the stake, which whoever bids adds to its price.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from protocol.economics.choices import Task
from protocol.economics.inputs import Assumptions, Demands, Prices
from protocol.economics.reasons import reasons
from protocol.economics.stakes import (
    least_bid_bond,
    least_bond,
    least_verifier_stake,
)
from protocol.economics.windows import speed_at, windows_for
from protocol.errors import EconomicsError, UsageError
from protocol.feasibility import Cut
from protocol.program import Program
from protocol.rules import BOND_SHARE
from protocol.work import Work, program_flops

MAX_AMOUNT: Final = 2**96 - 1
"""Wei that the market can hold for one purpose."""


@dataclass(frozen=True)
class Terms:
    """Recommended terms; amounts in wei. `why` has a sentence for each of them."""

    segments: int
    window_segments: int
    """Segments of a progress window, which is audited and paid by itself."""
    samples: int
    """Segments drawn in each window."""
    committee: int
    second_audit: int
    """Chance that a progress window is audited twice, in 256ths."""
    cost: int
    """Estimate of what honest training costs, gas included."""
    budget: int
    """The highest price that a solver may ask."""
    verifier_fee: int
    """For each seat in each audit; comes on top of the budget."""
    solver_stake: int
    window_stakes: tuple[int, ...]
    """What each progress window needs; `solver_stake` is the highest."""
    verifier_stake: int
    bond: int
    bid_bond: int
    train_window: int
    """Seconds, as the next two: so long that a slow machine accepts them with time to spare."""
    audit_window: int
    dispute_clock: int
    why: dict[str, str]


def recommend(
    step: Program | Work | int,
    steps: int,
    segment_steps: int,
    prices: Prices = Prices(),  # noqa: B008 (frozen, as below)
    assumptions: Assumptions = Assumptions(),  # noqa: B008
    demands: Demands = Demands(),  # noqa: B008
) -> Terms:
    """Return the cheapest terms that make each cheat a loss, whoever wins the bidding.

    `step` is one training step: its program, its work, or its FLOPs. Raises UsageError for numbers
    out of range, EconomicsError if no terms deter under these assumptions or none fit the market.
    """
    if not 1 <= segment_steps <= steps:
        raise UsageError(f"{steps} steps cannot be cut into segments of {segment_steps}")
    if assumptions.slowest_machine < 1:
        raise UsageError("a machine computes at least one FLOP a second")
    flops = step if isinstance(step, int) else _flops(step)
    if min(flops, *vars(prices).values()) < 0:
        raise UsageError("work and prices cannot be negative")
    task = Task(flops, steps, segment_steps, prices, assumptions, demands)
    bid_bond = least_bid_bond(task.budget, task.cost)
    best = task.cheapest()
    cut = Cut(steps, segment_steps, task.segments, task.window_segments, best.samples)
    windows = windows_for(cut, speed_at(step, assumptions.slowest_machine))
    terms = Terms(
        segments=task.segments,
        window_segments=task.window_segments,
        samples=best.samples,
        committee=best.committee,
        second_audit=best.second_audit,
        cost=task.cost,
        budget=task.budget,
        verifier_fee=best.fee,
        solver_stake=best.stake,
        window_stakes=best.stakes,
        verifier_stake=least_verifier_stake(
            saved=best.samples * task.segment_cost,
            # Once it is drawn, a cheater would pay up to what its conviction costs it.
            bribe=ceil(assumptions.shares.lost() * best.stake) + task.budget,
            caught=best.caught,
            fee=best.fee,
            shares=assumptions.shares,
        ),
        bond=max(
            least_bond(task.segment_cost, prices.gas, prices.defence_gas),
            demands.market_stake // BOND_SHARE,
        ),
        bid_bond=bid_bond,
        train_window=windows.train,
        audit_window=windows.audit,
        dispute_clock=windows.clock,
        why={},
    )
    if 0 < demands.market_stake < max(terms.bond, bid_bond):
        raise EconomicsError(
            f"the bond would have to be {max(terms.bond, bid_bond)} wei, and a market whose "
            f"verifiers lock {demands.market_stake} admits no more than that: this job is too large"
        )
    for name, amount in vars(terms).items():
        if isinstance(amount, int) and amount > MAX_AMOUNT:
            raise EconomicsError(
                f"{name} would have to be {amount} wei, more than the market holds"
            )
    return replace(terms, why=reasons(best, terms))


def _flops(step: Program | Work) -> int:
    return step.flops if isinstance(step, Work) else program_flops(step)
