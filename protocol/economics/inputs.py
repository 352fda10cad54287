# SPDX-License-Identifier: GPL-3.0-or-later
"""What a recommendation starts from: prices, who may cheat, and what the submitter wants."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from protocol.economics.stakes import DEFENCE_GAS, Shares
from protocol.economics.windows import SLOWEST_MACHINE


@dataclass(frozen=True)
class Prices:
    """What work, gas and money cost; amounts in wei, the rest per cent."""

    per_teraflop: int = 10**11
    """Of 10^12 FLOPs (`protocol.work`), with whatever the machine costs."""
    gas: int = 20 * 10**9
    defence_gas: int = DEFENCE_GAS
    profit: int = 25
    """What solvers and verifiers earn above their costs."""
    interest: int = 1
    """What locking a stake for the time of the task costs."""

    def cost(self, flops: int) -> int:
        """Return what so many FLOPs cost."""
        return -(-flops * self.per_teraflop // 10**12)

    def with_profit(self, cost: int) -> int:
        """Return the least price at which somebody takes on such a cost."""
        return -(-cost * (100 + self.profit) // 100)


@dataclass(frozen=True)
class Assumptions:
    """Who may cheat, with whom, and what for."""

    gain: int = 0
    """Wei that a false result is worth to the cheater, apart from the work it saves."""
    colluding: Fraction = Fraction(1, 4)
    """Share of the registered verifiers' stake that may be the cheater's."""
    submitter_colludes: bool = False
    sure_of_committee: bool = False
    """The first committee always colludes, and only a second audit can be honest."""
    shares: Shares = field(default_factory=Shares)
    slowest_machine: int = SLOWEST_MACHINE
    """FLOPs a second of a machine that should still be able to take part."""


@dataclass(frozen=True)
class Demands:
    """What the submitter fixes itself; None leaves it to the recommendation."""

    budget: int | None = None
    samples: int | None = None
    committee: int | None = None
    second_audit: int | None = None
    """Chance of a second audit, in 256ths."""
    window_segments: int | None = None
    """Segments of a progress window, which is audited and paid by itself; None: all of them."""
    noticed: Fraction = Fraction(3, 4)
    """Least chance that a real audit notices ..."""
    faked: Fraction = Fraction(1, 2)
    """... that this share of a window's segments is faked. Without force if `samples` is given."""
    market_stake: int = 0
    """What a verifier locks for each draw at the market, which bounds stakes, fees and bonds from
    below, and bonds from above; 0: nothing is bounded.
    """
