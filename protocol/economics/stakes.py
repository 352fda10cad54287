# SPDX-License-Identifier: GPL-3.0-or-later
"""The least stakes and bonds at which no cheat gains, in wei.

Each of them solves one inequality: what a cheat gains is at most the chance that it is noticed
times what it then loses. Whatever its author might get back through a second account, as the
challenger or as the submitter, is no loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Final

from protocol.economics.audit import Audit
from protocol.errors import EconomicsError, UsageError
from protocol.rules import CHALLENGER_SHARE, COMPENSATION_SHARE

DEFENCE_GAS: Final = 2_200_000
"""Gas of all moves of the largest dispute, both sides' (tests/snapshots/gas.json), rounded up."""


@dataclass(frozen=True)
class Shares:
    """Per cent of a slashed stake that go to the challenger and to the submitter; the rest burns.

    Raises UsageError unless both lie in 0..100.
    """

    challenger: int = CHALLENGER_SHARE
    compensation: int = COMPENSATION_SHARE

    def __post_init__(self) -> None:
        if not (0 <= self.challenger <= 100 and 0 <= self.compensation <= 100):
            raise UsageError("shares of a stake are per cent, from 0 to 100")

    def lost(self, submitter_colludes: bool = False) -> Fraction:
        """Return the share of its stake that a solver loses even if its own account convicts it.

        1 - w, or 1 - w - c if the submitter is its accomplice. Raises EconomicsError if nothing is
        lost, since then slashing oneself is free and no stake deters.
        """
        back = self.challenger + (self.compensation if submitter_colludes else 0)
        if back >= 100:
            raise EconomicsError(f"{back} % of a slashed stake come back, so no stake deters")
        return Fraction(100 - back, 100)


def least_solver_stake(
    audit: Audit,
    cost: int,
    gain: int = 0,
    reward: int = 0,
    submitter_colludes: bool = False,
    shares: Shares = Shares(),
) -> int:
    """Return the least S >= 1 with (1 - w) S + R >= max over f of (f*C + G) / (a*d(f)).

    `reward` is R, the part of the price that a conviction takes away; `cost` and `gain` are as in
    `Audit.least_loss`. If the submitter may collude, a reward that goes back to it is no loss: it
    does not count, and the solver is left without 1 - w - c of its stake.
    """
    if reward < 0:
        raise UsageError("a reward cannot be negative")
    missing = audit.least_loss(cost, gain) - (0 if submitter_colludes else reward)
    return max(1, ceil(missing / shares.lost(submitter_colludes)))


def window_stakes(
    segments: int,
    window_segments: int,
    samples: int,
    probability: Fraction,
    cost: int,
    gain: int = 0,
    price: int = 0,
    submitter_colludes: bool = False,
    shares: Shares = Shares(),
) -> tuple[int, ...]:
    """Return the least solver stake in each progress window of `window_segments` segments.

    Each window is audited and paid by itself: `samples` of its segments are drawn, with the chance
    `probability` by somebody honest, and its part of the price vests once it has passed. What has
    vested is out of reach of a later conviction, and what would have been paid for later windows is
    no loss, since their work is not done either. So only the window's own part of `price` and the
    stake, which stays whole, stand against its part of `cost`, and against all of `gain`.
    """
    sizes = window_sizes(segments, window_segments)
    least = {
        size: least_solver_stake(
            Audit(size, min(samples, size), probability),
            window_part(cost, size, segments, upwards=True),
            gain,
            window_part(price, size, segments),
            submitter_colludes,
            shares,
        )
        for size in set(sizes)
    }
    return tuple(least[size] for size in sizes)


def window_sizes(segments: int, window_segments: int) -> list[int]:
    """Return the number of segments of each progress window; the last may be shorter."""
    if not 1 <= window_segments <= segments:
        raise UsageError(f"{segments} segments cannot be cut into windows of {window_segments}")
    starts = range(0, segments, window_segments)
    return [min(window_segments, segments - start) for start in starts]


def window_part(amount: int, size: int, segments: int, upwards: bool = False) -> int:
    """Return the part of an amount that belongs to `size` of `segments` segments, in wei."""
    return -(-amount * size // segments) if upwards else amount * size // segments


def least_verifier_stake(
    saved: int,
    bribe: int,
    caught: Fraction,
    fee: int = 0,
    shares: Shares = Shares(),
) -> int:
    """Return the least stake at which attesting to a faked segment does not pay.

    A verifier that does so saves its replay and may be bribed; with the chance `caught`
    (`catch_probability`) somebody honest convicts it, which costs it fee and stake, less what a
    second account of its own gets as the challenger. Raises EconomicsError if it is never caught.
    """
    if min(saved, bribe, fee) < 0:
        raise UsageError("amounts cannot be negative")
    if caught == 0:
        raise EconomicsError(
            "nobody honest ever looks at what a verifier attests: draw at least two, or audit twice"
        )
    return max(1, ceil(((saved + bribe) / caught - fee) / shares.lost()))


def least_second_audit(
    second: Audit,
    stake: int,
    cost: int,
    gain: int = 0,
    reward: int = 0,
    submitter_colludes: bool = False,
    shares: Shares = Shares(),
) -> Fraction:
    """Return the least chance of a second audit that deters a solver sure of its first committee.

    `second` is the second audit by itself, real if its own committee has somebody honest; the other
    arguments are as in `least_solver_stake`. Raises EconomicsError if even a second audit of every
    task would not deter.
    """
    if min(stake, reward) < 0:
        raise UsageError("amounts cannot be negative")
    at_risk = shares.lost(submitter_colludes) * stake + (0 if submitter_colludes else reward)
    needed = second.least_loss(cost, gain)
    if needed > at_risk:
        raise EconomicsError(
            f"{stake} wei do not deter a solver that is sure of its committee, however often there "
            "is a second audit: ask for a higher stake"
        )
    return needed / at_risk if needed else Fraction(0)


def least_bond(
    segment_cost: int, gas_price: int, gas: int = DEFENCE_GAS, returned: Fraction = Fraction(1, 2)
) -> int:
    """Return the least bond of a challenger, in wei.

    When a challenger loses, the part `returned` of its bond goes to the solver (the rest burns),
    and must pay for replaying one segment and for the gas of the defence. So what it loses covers
    the harm, and the solver that was wrongly accused is out of pocket by nothing.
    """
    if min(segment_cost, gas_price, gas) < 0 or not 0 < returned <= 1:
        raise UsageError("costs cannot be negative, and some of the bond must reach the solver")
    return max(1, ceil((segment_cost + gas * gas_price) / returned))


def least_bid_bond(budget: int, cost: int) -> int:
    """Return the least bond of a sealed bid, in wei; who does not reveal loses it.

    Somebody with several sealed bids could wait for the others' and reveal only the dearest one
    that still wins. All that can win by this is the span of prices from its cost to the budget.
    """
    if cost > budget:
        raise EconomicsError(
            f"nobody honest bids: training costs {cost} wei, the budget is {budget}"
        )
    return max(1, budget - cost)
