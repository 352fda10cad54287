# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents that misbehave, as small changes of honest ones; and the keeper, who only cleans up."""

from __future__ import annotations

from protocol.market import Market
from protocol.task import SeatState, Status, TaskState
from solver.agent import Solver
from verifier.agent import Verifier


class StallingSolver(Solver):
    """Stops answering as soon as it is disputed."""

    def defend(self, task: int) -> bool:
        """Does nothing."""
        return False


class ForgetfulSolver(Solver):
    """Commits its log and then opens nothing."""

    def open_starts(self, task: int, _state: TaskState) -> bool:
        """Does nothing."""
        return False


class LazyVerifier(Verifier):
    """Does not replay: seals noise, and stands by it."""

    def digests(self, task: int, state: TaskState) -> list[bytes]:
        """As many invented roots as there are runs."""
        count = len(self.market.runs(task))
        return [self.secrets.derive("noise", task, state.round, i) for i in range(count)]


class Keeper:
    """Anybody: makes the calls that move a stuck task on once a deadline has passed."""

    def __init__(self, market: Market) -> None:
        self.market = market

    def poll(self, task: int) -> bool:
        """Makes such a call if one is due; True if it did."""
        state = self.market.state(task)
        spec = self.market.posted(task).spec
        function = self._due(task, state, spec.audit_window)
        if function is None:
            return False
        self.market.send(function, task, spec.as_abi())
        return True

    def _due(self, task: int, state: TaskState, audit_window: int) -> str | None:
        now = self.market.chain.now
        if now <= state.deadline:
            return None
        sealed = [s for s in self.market.seats(task) if s.state != SeatState.DRAWN]
        if state.status in (Status.TRAINING, Status.STARTING):
            return "defaulted"
        if state.status == Status.SEALING and not sealed:
            return "redraw"
        if state.status == Status.SEALING and now > state.deadline + audit_window:
            return "defaulted"
        return {Status.BIDDING: "assign", Status.REVEALING: "openWindow"}.get(state.status)
