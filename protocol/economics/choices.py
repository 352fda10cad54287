# SPDX-License-Identifier: GPL-3.0-or-later
"""All ways to audit a task that the market offers, and what each asks of everybody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import product
from typing import Final

from protocol.economics.audit import Audit, audit_probability, catch_probability, segments_for
from protocol.economics.inputs import Assumptions, Demands, Prices
from protocol.economics.stakes import (
    least_second_audit,
    window_part,
    window_sizes,
    window_stakes,
)
from protocol.errors import EconomicsError, UsageError
from protocol.rules import (
    FEE_SHARE,
    MAX_COMMITTEE,
    MAX_PROGRESS_WINDOWS,
    MAX_SAMPLES,
    QUORUM,
    SOLVER_STAKE_SHARE,
)

GWEI: Final = 10**9
SECOND_AUDIT_UNIT: Final = 256
"""The chance of a second audit is given in 256ths."""
SOLVER_GAS: Final = 200_000
"""Gas of an honest solver for the whole task: bid, withdrawal."""
WINDOW_GAS: Final = 400_000
"""Gas of an honest solver for each progress window: log, openings, settlement."""
VERIFIER_GAS: Final = 200_000
"""Gas of an honest verifier in one audit: seal, reveal, withdrawal."""


@dataclass(frozen=True)
class Task:
    """The task and everything given about it."""

    flops: int
    steps: int
    segment_steps: int
    prices: Prices
    assumptions: Assumptions
    demands: Demands

    @property
    def segments(self) -> int:
        """Segments of the training."""
        return -(-self.steps // self.segment_steps)

    @property
    def window_segments(self) -> int:
        """Segments of a progress window; the last one may have fewer."""
        given = self.demands.window_segments
        return self.segments if given is None else given

    @cached_property
    def windows(self) -> list[int]:
        """Segments of each progress window."""
        return window_sizes(self.segments, self.window_segments)

    @property
    def segment_cost(self) -> int:
        """What training one segment costs."""
        return self.prices.cost(self.flops * self.segment_steps)

    @property
    def cost(self) -> int:
        """What the training costs an honest solver, gas included."""
        gas = SOLVER_GAS + WINDOW_GAS * len(self.windows)
        return self.prices.cost(self.flops * self.steps) + gas * self.prices.gas

    @property
    def budget(self) -> int:
        """The highest price that a solver may ask."""
        if self.demands.budget is not None:
            return self.demands.budget
        # In whole gwei, so that nine digits of an amount in ether say it exactly.
        return -(-self.prices.with_profit(self.cost) // GWEI) * GWEI

    @property
    def winners(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Costs and price of the two most tempted winners of the bidding.

        Whose costs are above the price stays out unless cheating pays, whose costs are below it
        saves less by cheating: in the worst case they are equal. What cheating brings is linear in
        them, so they are as high as the budget, or nothing.
        """
        # The last segment may be shorter: by faking j of the others one saves more than j/N.
        whole = -(-self.budget * self.segments * self.segment_steps // self.steps)
        return (whole, self.budget), (0, 0)

    def cheapest(self) -> Choice:
        """The audit that deters at the least cost; of several such, the smallest."""
        best: Choice | None = None
        for choice in self.choices():
            if best is not None and choice.fees >= best.total:
                continue  # whatever its stake
            if choice.deters and (best is None or choice.total < best.total):
                best = choice
        if best is None:
            raise EconomicsError(
                "nobody honest ever looks at what is attested: let more verifiers be drawn, audit "
                "more often a second time, or assume fewer of them to collude"
            )
        return best

    def choices(self) -> Iterator[Choice]:
        """All audits that the market offers and the submitter admits."""
        demands = self.demands
        _only(len(self.windows), 1, MAX_PROGRESS_WINDOWS, "progress windows")
        most = min(MAX_SAMPLES, self.windows[0])
        if demands.samples is None:
            least = segments_for(self.windows[0], demands.noticed, demands.faked)
            if least > most:
                raise EconomicsError(
                    f"noticing that is as sure as asked takes {least} drawn segments, and the "
                    f"market draws at most {most}: ask for less"
                )
            samples = range(least, most + 1)
        else:
            samples = _only(demands.samples, 1, most, "drawn segments")
        committee = (
            range(QUORUM, MAX_COMMITTEE + 1)
            if demands.committee is None
            else _only(demands.committee, QUORUM, MAX_COMMITTEE, "seats")
        )
        second = (
            range(SECOND_AUDIT_UNIT)
            if demands.second_audit is None
            else _only(demands.second_audit, 0, SECOND_AUDIT_UNIT - 1, "256ths of second audits")
        )
        for choice in product(samples, committee, second):
            yield Choice(self, *choice)


@dataclass(frozen=True)
class Choice:
    """One way to audit the task, and what it asks of everybody."""

    task: Task
    samples: int
    committee: int
    second_audit: int

    @property
    def _odds(self) -> tuple[Fraction, int, Fraction, bool]:
        assumed = self.task.assumptions
        second = Fraction(self.second_audit, SECOND_AUDIT_UNIT)
        return assumed.colluding, self.committee, second, assumed.sure_of_committee

    @property
    def caught(self) -> Fraction:
        """Chance that a verifier who attests to a faked segment is convicted."""
        return catch_probability(*self._odds)

    @property
    def deters(self) -> bool:
        """Whether there are stakes that make every cheat a loss."""
        return self.real > 0 and self.caught > 0

    @cached_property
    def real(self) -> Fraction:
        """Chance that an audit is real."""
        return audit_probability(*self._odds)

    @cached_property
    def stakes(self) -> tuple[int, ...]:
        """Least solver stakes in each progress window, whoever wins the bidding."""
        task, assumed = self.task, self.task.assumptions
        dear, free = (
            window_stakes(
                task.segments, task.window_segments, self.samples, self.real, cost, assumed.gain,
                price, assumed.submitter_colludes, assumed.shares,
            )
            for cost, price in task.winners
        )  # fmt: skip
        return tuple(map(max, dear, free))

    @property
    def stake(self) -> int:
        """The solver stake that deters in all windows, and that the market admits."""
        return max(*self.stakes, self.task.demands.market_stake // SOLVER_STAKE_SHARE)

    @property
    def second_audit_alone(self) -> Fraction | None:
        """Chance of a second audit that would deter even if the first always colluded, if any."""
        task, assumed = self.task, self.task.assumptions
        real = audit_probability(assumed.colluding, self.committee)
        try:
            return max(
                least_second_audit(
                    Audit(size, min(self.samples, size), real),
                    self.stake,
                    window_part(cost, size, task.segments, upwards=True),
                    assumed.gain,
                    window_part(price, size, task.segments),
                    assumed.submitter_colludes,
                    assumed.shares,
                )
                for size, (cost, price) in product(set(task.windows), task.winners)
            )
        except EconomicsError:
            return None

    @property
    def fee(self) -> int:
        """What a verifier is paid for its seat in one audit."""
        replay = self.samples * self.task.segment_cost
        fee = self.task.prices.with_profit(replay + VERIFIER_GAS * self.task.prices.gas)
        return max(fee, self.task.demands.market_stake // FEE_SHARE)

    @cached_property
    def fees(self) -> Fraction:
        """What all verifiers of the task are paid on average."""
        audits = len(self.task.windows) * (1 + Fraction(self.second_audit, SECOND_AUDIT_UNIT))
        return audits * self.committee * self.fee

    @cached_property
    def total(self) -> Fraction:
        """What it costs the submitter, as far as it depends on the choice."""
        return self.fees + Fraction(self.stake * self.task.prices.interest, 100)


def _only(value: int, least: int, most: int, what: str) -> range:
    """Return the range of one value, which must be one that the market admits."""
    if not least <= value <= most:
        raise UsageError(f"{value} {what}: the market admits {least} to {most}")
    return range(value, value + 1)
