# SPDX-License-Identifier: GPL-3.0-or-later
"""How a solver comes by tasks: sealed bids, a standing ask, or terms that name it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from protocol.assessment import Assessment
from protocol.errors import ChainError, InfeasibleError, UsageError, said
from protocol.files import write_whole
from protocol.market import Market, Posted
from protocol.secrets import Secrets
from protocol.task import NOBODY, TaskState, bid_digest
from solver.engagements import engaged, reserved

log = logging.getLogger("bitcourt")

Price = Callable[[Posted], int]


class Bidder:
    """Bids of one account. `check` raises unless this machine holds and can compute a task."""

    def __init__(
        self,
        market: Market,
        secrets: Secrets,
        price: Price,
        check: Callable[[int], object],
        directory: Path,
        by_ask: bool,
        assessment: Assessment,
    ) -> None:
        """`assessment` says what can be trained beside all that was promised already."""
        self.market = market
        self._secrets = secrets
        self._price = price
        self._check = check
        self._by_ask = by_ask
        self._assessment = assessment
        self._book = directory / f"{market.label}-bids.json"

    def act(self, task: int, state: TaskState, wanted: bool) -> bool:
        """Makes the move that is due in a task that is in its bidding; True if it made one.

        Where a task is not `wanted`, it only goes on with what was begun, by itself or by whoever
        entered its ask.
        """
        posted = self.market.posted(task)
        spec, now = posted.spec, self.market.chain.now
        if spec.submitter == self.market.address:
            return False
        if spec.solver != NOBODY:
            return wanted and now <= state.deadline and self._accept(posted)
        if now > state.deadline:
            return now <= state.deadline + spec.bid_window and self._reveal(posted, state)
        if state.by_ask and state.solver == self.market.address:
            return self._leave(posted, state)
        return wanted and (self._enter(posted, state) if self._by_ask else self._seal(posted))

    def close(self, task: int, state: TaskState) -> bool:
        """Takes back the bond of a bid that was sealed before the task was cancelled."""
        if state.deadline != 0 or not self._sealed(task):
            return False
        self.market.send_for("forfeitBid", task, self.market.address)
        return True

    def _leave(self, posted: Posted, state: TaskState) -> bool:
        """Takes its ask, which leads, out of a task that it cannot check: still for nothing.

        What is missing may come until half of the time is over; what this machine can never do, it
        leaves at once.
        """
        try:
            # What was promised before comes first: of two that cannot both be done, one stays.
            older = [other for other in engaged(self.market, posted.id) if other < posted.id]
            self._check_beside(posted.id, older)
        except ChainError:
            raise
        except Exception as error:  # whatever keeps it from computing this
            left, window = state.deadline - self.market.chain.now, posted.spec.bid_window
            early = 2 * left > window and not isinstance(error, InfeasibleError)
            if early or 4 * left < window:
                return False
            log.warning("task %s: declined: %s", posted.id, said(error))
            self.market.send_for("decline", posted.id)
            return True
        return False

    def _accept(self, posted: Posted) -> bool:
        if posted.spec.solver != self.market.address or self._price(posted) > posted.spec.budget:
            return False
        self._prepare(posted.id, posted.spec.solver_stake)
        self.market.send_for("accept", posted.id)
        return True

    def _seal(self, posted: Posted) -> bool:
        price, spec = self._price(posted), posted.spec
        if price > spec.budget or self._sealed(posted.id):
            return False
        self._prepare(posted.id, max(spec.bond, spec.solver_stake))
        # Written before the bid is sent: a bid whose price was lost costs its bond.
        self._remember(posted, price)
        self.market.send_for("bid", posted.id, self._digest(posted, price))
        return True

    def _reveal(self, posted: Posted, state: TaskState) -> bool:
        sealed, spec = self._sealed(posted.id), posted.spec
        if not sealed:
            return False
        prices = [p for p in (self._remembered(posted), self._price(posted)) if p is not None]
        price = next((p for p in prices if self._digest(posted, p) == sealed), None)
        if price is None:
            raise UsageError(
                f"the price that was sealed for task {posted.id} is not known any more: start the "
                f"solver with the price that it had"
            )
        if state.solver != self.market.address:  # else its ask leads, and the stake is locked
            self.market.ensure_balance(max(0, spec.solver_stake - spec.bond))
        self.market.send_for("revealBid", posted.id, price, self._secrets.bid_nonce(posted))
        return True

    def _enter(self, posted: Posted, state: TaskState) -> bool:
        own, spec = self.market.address, posted.spec
        entered = (e.values["solver"] for e in self.market.events("AskEntered", posted.id))
        # Once more if whoever was lower has left.
        outbid = own in entered and state.solver != NOBODY
        # Nor where it has sealed a bid: the lower of the two would count.
        if outbid or self._sealed(posted.id) or not self.market.record(own).asks(spec):
            return False
        self._prepare(posted.id, spec.solver_stake)
        self.market.send_for("enterAsk", posted.id, own)
        return True

    def _prepare(self, task: int, needed: int) -> None:
        """Makes sure that a task can be trained beside all others, and of the money.

        Whoever takes a task certifies that every byte is here and checked, and that this machine
        can compute the program: this raises if it is not so. Deposits what is missing to lock
        `needed`, and to reveal all that is sealed already. Raises InsufficientFunds if there is not
        enough for all of it: a bid that cannot be revealed costs its bond.
        """
        self._check_beside(task, engaged(self.market, task))
        self.market.ensure_balance(needed + reserved(self.market, task))

    def _check_beside(self, task: int, others: list[int]) -> None:
        self._assessment.room(task, others)
        self._check(task)
        self._assessment.beside(task, others)

    def _sealed(self, task: int) -> bytes:
        """The digest of the own sealed bid; empty if there is none."""
        digest = bytes(self.market.view("sealedBids", task, self.market.address))
        return digest if any(digest) else b""

    def _digest(self, posted: Posted, price: int) -> bytes:
        market = self.market
        return bid_digest(
            market.chain.chain_id,
            market.deployment.market,
            posted.id,
            market.address,
            price,
            self._secrets.bid_nonce(posted),
        )

    def _prices(self) -> dict[str, int]:
        try:
            found = json.loads(self._book.read_text())
            return {str(key): int(price) for key, price in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _remembered(self, posted: Posted) -> int | None:
        return self._prices().get(_key(posted))

    def _remember(self, posted: Posted, price: int) -> None:
        write_whole(self._book, json.dumps({**self._prices(), _key(posted): price}).encode())


def _key(posted: Posted) -> str:
    """Names a task also if a reorganization gives its number to another."""
    return f"{posted.id}-{posted.spec.hash.hex()}"
