# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenarios of the market: prices, progress windows, second audits, whistleblowers, demands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bitcourt.lab.cheats import Cheat, Lazy
from bitcourt.lab.market_agents import (
    AbsentVerifier,
    Accomplice,
    BribedVerifier,
    HoardingSolver,
    PatchySolver,
    SilentBidder,
)
from bitcourt.lab.scenario import Bidding, Scenario
from protocol.program import Program
from protocol.task import SeatState, Status
from verifier.agent import Verifier

if TYPE_CHECKING:
    from bitcourt.lab.simulation import Outcome

ETHER: Final = 10**18
SECOND_WINDOW: Final = 10
"""First step of the second progress window of a small job in two of them."""
_WORTH_A_DEMAND: Final = {"verifier_fee": ETHER // 10}
"""No verifier pays more for bytes than it is paid."""


def _lazy(_program: Program) -> Cheat:
    return Lazy()


def _lazy_later(_program: Program) -> Cheat:
    return Lazy(lambda step: step >= SECOND_WINDOW)


def _paid(outcome: Outcome, role: str, reason: str, ether: float) -> bool:
    paid = outcome.stage.ledger.credits().get(role, {}).get(reason, 0)
    return paid == round(ether * ETHER)


def _slashed(outcome: Outcome) -> set[str]:
    ledger = outcome.stage.ledger
    return {ledger.role(event["verifier"]) for event in ledger.events("VerifierSlashed")}


def _all_convicted(outcome: Outcome) -> bool:
    convicted = {d["defendant"] for d in outcome.disputes if d["convicted"]}
    return convicted == {"solver", "verifier 1", "verifier 2"}


def _replaced(outcome: Outcome) -> bool:
    """One did not come, and those who attested are two others, for the same runs."""
    seats = outcome.submitter.seats(outcome.task)
    states = [seat.state for seat in seats]
    one_round = len({seat.round for seat in seats}) == 1
    return one_round and sorted(states) == [SeatState.ATTESTED] * 2 + [SeatState.SLASHED]


def _caught_by_second(outcome: Outcome) -> bool:
    """The first two attested; the two others were drawn for the second audit and did not."""
    states = [seat.state for seat in outcome.submitter.seats(outcome.task)]
    return states[:2] == [SeatState.ATTESTED] * 2 and len(states) == 4


TRADES: Final[dict[str, Scenario]] = {
    "auction": Scenario(
        "two solvers bid; the lower bid wins and is paid the other's",
        Status.SETTLED,
        dispute=False,
        price=0.6,
        rivals=(Bidding(price=0.8),),
        holds=lambda o: _paid(o, "solver", "trained", 0.8) and _paid(o, "rival 1", "trained", 0),
    ),
    "unrevealed-bid": Scenario(
        "the lowest bidder never reveals: its bond burns, and its bid counts for nothing",
        Status.SETTLED,
        dispute=False,
        price=0.6,
        rivals=(Bidding(SilentBidder, 0.1),),
        holds=lambda o: _paid(o, "solver", "trained", 1),
    ),
    "standing-ask": Scenario(
        "a standing ask is lower than the bid of the other solver, and wins",
        Status.SETTLED,
        dispute=False,
        price=0.8,
        rivals=(Bidding(price=0.3, ask=True),),
        holds=lambda o: _paid(o, "rival 1", "trained", 0.8),
    ),
    "direct": Scenario(
        "the terms name the solver: no auction, the whole budget",
        Status.SETTLED,
        dispute=False,
        price=0.7,
        direct=True,
        holds=lambda o: _paid(o, "solver", "trained", 1),
    ),
    "progress-windows": Scenario(
        "a solver is paid for an honest half, and convicted of the lazy one after it",
        Status.SLASHED,
        _lazy_later,
        terms={"window_segments": 2, "solver_stake": ETHER},
        holds=lambda o: _paid(o, "solver", "trained", 0.5),
    ),
    "second-audit": Scenario(
        "the solver bribes whoever is drawn first; a second audit draws two others",
        Status.SLASHED,
        _lazy,
        verifiers=(BribedVerifier,) * 4,
        # Not quite certain: in one of 256 cases the chain draws no second audit.
        terms={"committee": 2, "samples": 1, "second_audit": 255},
        losers=lambda _: {"solver"},
        holds=_caught_by_second,
    ),
    "whistleblower": Scenario(
        "both drawn verifiers compute the same lie; somebody else convicts all three",
        Status.SLASHED,
        _lazy,
        verifiers=(Accomplice,) * 2,
        accomplices=True,
        whistleblower=True,
        holds=_all_convicted,
    ),
    "withheld-chunk": Scenario(
        "the solver serves its states but for some bytes, and posts them on chain on demand",
        Status.SETTLED,
        solver=PatchySolver,
        dispute=False,
        terms=_WORTH_A_DEMAND,
        losers=lambda _: set(),
        holds=lambda o: bool(o.stage.ledger.events("Answered")),
    ),
    "hoarder": Scenario(
        "the solver serves its states but for some bytes, and does not answer the demand",
        Status.SLASHED,
        solver=HoardingSolver,
        dispute=False,
        terms=_WORTH_A_DEMAND,
        holds=lambda o: bool(o.stage.ledger.events("Unanswered")),
    ),
    "no-show": Scenario(
        "a drawn verifier never seals, and is replaced by another",
        Status.SETTLED,
        verifiers=(AbsentVerifier,) * 3,
        dispute=False,
        terms={"committee": 2},
        losers=_slashed,
        holds=_replaced,
    ),
    "watched": Scenario(
        "somebody replays all of an honest task, and finds nothing",
        Status.SETTLED,
        verifiers=(Verifier,) * 2,
        dispute=False,
        whistleblower=True,
    ),
}
