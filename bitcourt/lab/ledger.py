# SPDX-License-Identifier: GPL-3.0-or-later
"""Who sent which transactions, what they cost, and who was paid."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from protocol.chain.client import Receipt


@dataclass
class Ledger:
    """Every receipt of a run. `roles` gives the accounts names for people."""

    roles: dict[str, str] = field(default_factory=dict)
    receipts: list[tuple[str, Receipt]] = field(default_factory=list)

    def record(self, sender: str, receipt: Receipt) -> None:
        """Called for every mined transaction."""
        self.receipts.append((sender, receipt))

    def role(self, address: str) -> str:
        """Name of an account."""
        return self.roles.get(address, address)

    def gas(self) -> dict[str, dict[str, int]]:
        """Per kind of transaction: how many, the dearest, and all together."""
        kinds: dict[str, list[int]] = defaultdict(list)
        for _, receipt in self.receipts:
            kinds[receipt.function].append(receipt.gas)
        return {
            kind: {"count": len(used), "max": max(used), "total": sum(used)}
            for kind, used in sorted(kinds.items())
        }

    def total_gas(self) -> int:
        """Gas of all transactions."""
        return sum(receipt.gas for _, receipt in self.receipts)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Arguments of all events of that name, oldest first."""
        return [
            arguments
            for _, receipt in self.receipts
            for found, arguments in receipt.events
            if found == name
        ]

    def credits(self) -> dict[str, dict[str, int]]:
        """Wei credited, per role and reason."""
        paid: dict[str, dict[str, int]] = {}
        for event in self.events("Credited"):
            reasons = paid.setdefault(self.role(event["account"]), {})
            reason = event["reason"].rstrip(b"\0").decode()
            reasons[reason] = reasons.get(reason, 0) + event["amount"]
        return paid

    def burned(self) -> int:
        """Wei that left the market for ever."""
        return sum(event["amount"] for event in self.events("Burned"))
