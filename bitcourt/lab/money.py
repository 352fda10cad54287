# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the money of a staged task went: every wei is found again, and only liars lost stake."""

from __future__ import annotations

from dataclasses import dataclass

from bitcourt.lab.stage import Stage
from protocol.errors import BitcourtError
from protocol.market import Market
from protocol.task import TaskSpec

BURN_ADDRESS = "0x000000000000000000000000000000000000dEaD"
"""Its balance in the market is what was burned and has not been sent there yet."""


@dataclass(frozen=True)
class Balance:
    """Wei that an account put into the market, and what of it is there for it now."""

    paid_in: int
    owed: int

    @property
    def gain(self) -> int:
        """What the task brought; negative for a loss. Gas is not in it."""
        return self.owed - self.paid_in


def balances(stage: Stage, market: Market) -> dict[str, Balance]:
    """The balance of each account of a stage whose tasks have all ended."""
    stake = int(market.view("VERIFIER_STAKE"))
    found = {}
    for address, role in stage.ledger.roles.items():
        paid = sum(e["amount"] for e in stage.ledger.events("Deposited") if e["account"] == address)
        for posted in stage.ledger.events("TaskPosted"):
            if posted["submitter"] == address:
                paid += TaskSpec.from_abi(posted["spec"]).escrow
        slots = int(market.view("verifierOf", address)[1])
        owed = market.free_balance(address) + slots * stake
        taken = sum(
            e["amount"] for e in stage.ledger.events("Withdrawn") if e["account"] == address
        )
        found[role] = Balance(paid, owed + taken)
    return found


def check_money(stage: Stage, market: Market, liars: set[str], *, liars_lose: bool = True) -> None:
    """Raises BitcourtError unless all money is conserved and exactly the liars lost some.

    The submitter of an honestly trained task pays its price, which is no loss.
    """
    found = balances(stage, market)
    burned = stage.ledger.burned()
    paid_in = sum(balance.paid_in for balance in found.values())
    owed = sum(balance.owed for balance in found.values())
    if owed + burned != paid_in:
        raise BitcourtError(f"{paid_in} wei went in, {owed} are owed and {burned} burned")
    taken = sum(event["amount"] for event in stage.ledger.events("Withdrawn"))
    held = stage.chain.balance(stage.deployment.market)
    # What was burned stays until somebody sends it away.
    held -= market.free_balance(BURN_ADDRESS)
    if held != owed - taken:
        raise BitcourtError(f"the market holds {held} wei and owes {owed - taken}")
    for role, balance in found.items():
        if role in liars and liars_lose and balance.gain >= 0:
            raise BitcourtError(f"{role} lied and lost nothing")
        if role not in liars and role != "submitter" and balance.gain < 0:
            raise BitcourtError(f"{role} was honest and lost {-balance.gain} wei")
