# SPDX-License-Identifier: GPL-3.0-or-later
"""Why recommended terms are what they are: one sentence for each value."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

from protocol.economics.audit import detection
from protocol.economics.choices import SECOND_AUDIT_UNIT, Choice
from protocol.rules import MAX_SAMPLES

if TYPE_CHECKING:
    from protocol.economics.terms import Terms


def ether(wei: int) -> str:
    """Return an amount for people, with six digits."""
    return f"{wei / 10**18:.6g} ether"


def percent(share: Fraction) -> str:
    """Return a share for people, with four digits."""
    return f"{float(100 * share):.4g} %"


def reasons(choice: Choice, terms: Terms) -> dict[str, str]:
    """Return a sentence for each of the terms, under their names, in the order of the table."""
    task, demands, prices = choice.task, choice.task.demands, choice.task.prices
    size = task.windows[0]
    faked = ceil(demands.faked * size)
    some, one = (percent(detection(size, choice.samples, j)) for j in (faked, 1))
    colluding = percent(task.assumptions.colluding)
    cheapest = "the cheapest in fees and interest on the stake"
    why = {
        "cost": f"the FLOPs at {ether(prices.per_teraflop)} for 10^12, and the solver's gas",
        "budget": (
            f"{_given(demands.budget, 'cost and profit')}; the highest price that a solver may ask"
        ),
        "window_segments": (
            f"{_given(demands.window_segments, 'all at once')}; each window is audited and paid by "
            "itself"
        ),
        "samples": (
            f"{_given(demands.samples, cheapest)}; a real audit notices {faked} faked segments of "
            f"{size} with {some}, a single one with {one}"
        ),
        "committee": (
            f"{_given(demands.committee, cheapest)}; with {colluding} of the verifiers' stake "
            f"colluding, an audit is real with {percent(choice.real)}"
        ),
        "second_audit": f"{_given(demands.second_audit, cheapest)}; {_alone(choice)}",
        "verifier_fee": (
            "for each seat in each audit, on top of the budget: the replay, the gas, and "
            f"{prices.profit} % of profit"
        ),
        "solver_stake": _stake(choice),
        "verifier_stake": (
            "the market sets it for all tasks; attesting to a faked segment is noticed with "
            f"{percent(choice.caught)}, saves the replay, and is worth as much to the solver as "
            "its stake and price"
        ),
        "bond": (
            "half of a lost bond goes to the solver and must pay for replaying one segment and for "
            f"{prices.defence_gas:,} gas of the defence at {prices.gas / 10**9:g} gwei"
        ),
        "bid_bond": "what a bidder could win by not revealing one of several sealed bids",
        "train_window": (
            "honest machines refuse what they cannot do in time: a day, or twice what one that "
            f"does {task.assumptions.slowest_machine:.3g} FLOPs a second asks for"
        ),
        "audit_window": "the same for replaying the drawn segments, but at least an hour",
        "dispute_clock": (
            f"the same for defending {min(MAX_SAMPLES, terms.segments)} segments at once, which "
            "anybody may challenge, but at least two hours"
        ),
    }
    if len(terms.window_stakes) > 1:
        why["window_stakes"] = (
            "what earlier windows have paid is out of reach, what later ones would pay is no loss: "
            "against each stand its own part of the price and the whole stake"
        )
    return why


def _given(demand: int | None, otherwise: str) -> str:
    return otherwise if demand is None else "given"


def _stake(choice: Choice) -> str:
    assumed, size = choice.task.assumptions, choice.task.windows[0]
    every, one = (
        percent(choice.real * detection(size, choice.samples, faked)) for faked in (size, 1)
    )
    gain = f" and gains {ether(assumed.gain)} elsewhere" if assumed.gain else ""
    lost = percent(assumed.shares.lost(assumed.submitter_colludes))
    price = (
        "of the price nothing, as it may go back to an accomplice"
        if assumed.submitter_colludes
        else "the price" if len(choice.task.windows) == 1 else "the price of the window"
    )  # fmt: skip
    return (
        f"who fakes all segments is noticed with {every}, who fakes one with {one}; it saves that "
        f"work{gain}, and loses {lost} of the stake, even if it convicts itself, and {price}"
    )


def _alone(choice: Choice) -> str:
    needed = choice.second_audit_alone
    units = SECOND_AUDIT_UNIT if needed is None else ceil(SECOND_AUDIT_UNIT * needed)
    if units >= SECOND_AUDIT_UNIT:
        return "a solver sure of its first committee would take more stake than this"
    return f"{units} of {SECOND_AUDIT_UNIT} would deter even a solver sure of its first committee"
