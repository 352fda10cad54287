# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents that misbehave, as small changes of honest ones; and the keeper, who only cleans up."""

from __future__ import annotations

from protocol import audit, upkeep
from protocol.market import Market
from protocol.rules import HASH_BLOCKS
from protocol.task import SeatState, TaskState
from solver.agent import Solver
from verifier.agent import Duty, Verifier


class StallingSolver(Solver):
    """Stops answering as soon as it is disputed."""

    def litigates(self, task: int, state: TaskState) -> bool:
        """Never."""
        return False


class ForgetfulSolver(Solver):
    """Commits its log and then opens nothing."""

    def draw(self, task: int, state: TaskState) -> bool:
        """Draws, and shows nothing."""
        if self.market.chain.block <= state.draw_block:
            return False
        self.market.send_for("draw", task, [])
        return True

    def open_starts(self, task: int, state: TaskState) -> bool:
        """Does nothing."""
        return False


class WithholdingSolver(Solver):
    """Opens its checkpoints on chain and keeps their bytes to itself."""

    def serve(self, task: int, leaf: int) -> None:
        """Sees to it that the store does not have them, the submitter's initial state included."""
        root = self.checkpoints(task).roots[leaf]
        self.store(task).discard_tensors(root)


class RansomingSolver(Solver):
    """Passes the audit and keeps the final state to itself."""

    def serve(self, task: int, leaf: int) -> None:
        """Serves every checkpoint but the last one."""
        if leaf == self.market.posted(task).spec.segments:
            self.store(task).discard_tensors(self.checkpoints(task).roots[leaf])
        else:
            super().serve(task, leaf)


class LateVerifier(Verifier):
    """Is drawn and never seals."""

    def seal(self, duty: Duty) -> bool:
        """Does nothing."""
        return False


class CopyingVerifier(Verifier):
    """Does not replay: seals what another verifier sealed, and reveals what the solver opened."""

    def seal(self, duty: Duty) -> bool:
        """Copies the first seal that it sees in another's transaction."""
        if duty.seat != SeatState.DRAWN:
            return False
        market = self.market
        for event in market.events("Sealed", duty.task):
            _, arguments = market.chain.call_of(market.contracts.market, event.transaction)
            market.send("seal", duty.task, duty.index, arguments["digest"])
            return True
        return False

    def reveal(self, duty: Duty) -> bool:
        """Tries the right roots with its own nonce: the seal binds its sender, so it reverts."""
        opened = audit.ends(self.market, duty.task, duty.round)
        if duty.seat != SeatState.SEALED or opened is None:
            return False
        market = self.market
        receipt = self.secrets.derive("no receipt", duty.task)
        nonce = self.secrets.nonce(market.posted(duty.task), duty.round)
        self.market.send_for("reveal", duty.task, duty.index, nonce, opened.roots, receipt)
        return True


class LazyVerifier(Verifier):
    """Does not replay: seals noise, and stands by it."""

    def digests(self, duty: Duty) -> list[bytes]:
        """As many invented roots as there are runs."""
        count = len(duty.runs)
        return [self.secrets.derive("noise", duty.task, duty.round, i) for i in range(count)]


class Keeper:
    """Anybody: makes the calls that move a stuck task on once a deadline has passed."""

    def __init__(self, market: Market) -> None:
        self.market = market

    def poll(self, task: int) -> bool:
        """Makes such a call if one is due; True if it did."""
        state = self.market.state(task)
        if upkeep.move_on(self.market, task, state, HASH_BLOCKS - 1):
            return True
        bidder = upkeep.forfeited(self.market, task, state)
        if bidder is not None:
            self.market.send_for("forfeitBid", task, bidder)
        return bidder is not None
