# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents that misbehave, as small changes of honest ones; and the keeper, who only cleans up."""

from __future__ import annotations

from protocol.market import Market
from protocol.task import Seat, SeatState, Status, TaskState
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


class WithholdingSolver(Solver):
    """Opens its checkpoints on chain and keeps their bytes to itself."""

    def serve(self, task: int, index: int) -> None:
        """Sees to it that the store does not have them, the submitter's initial state included."""
        root = self.checkpoints(task).roots[index]
        self.store(task).discard_tensors(root)


class RansomingSolver(Solver):
    """Passes the audit and keeps the final state to itself."""

    def serve(self, task: int, index: int) -> None:
        """Serves every checkpoint but the last one."""
        if index == self.market.posted(task).spec.segments:
            self.store(task).discard_tensors(self.checkpoints(task).roots[index])
        else:
            super().serve(task, index)


class LateVerifier(Verifier):
    """Is drawn and never seals."""

    def seal(self, task: int, state: TaskState, seat: Seat) -> bool:
        """Does nothing."""
        return False


class CopyingVerifier(Verifier):
    """Does not replay: seals what another verifier sealed, and reveals what the solver opened."""

    def seal(self, task: int, state: TaskState, seat: Seat) -> bool:
        """Copies the first seal that it sees."""
        others = [sealed for _, _, sealed in self.market.view("getSeats", task) if any(sealed)]
        if seat.state != SeatState.DRAWN or not others:
            return False
        self.market.send("seal", task, others[0])
        return True

    def reveal(self, task: int, state: TaskState, seat: Seat) -> bool:
        """Tries the right roots with its own nonce: the seal binds its sender, so it reverts."""
        if seat.state != SeatState.SEALED:
            return False
        digest = self.secrets.derive("no receipt", task)
        ends = [run.end_root for run in self.market.runs(task)]
        self.market.send("reveal", task, self.secrets.nonce(task, state.round), ends, digest)
        return True


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
        idle = (SeatState.DRAWN, SeatState.UNAVAILABLE)
        sealed = [s for s in self.market.seats(task) if s.state not in idle]
        if state.status in (Status.TRAINING, Status.STARTING):
            return "defaulted"
        if state.status == Status.SEALING and not sealed:
            return "redraw"
        if state.status == Status.SEALING and now > state.deadline + audit_window:
            return "defaulted"
        return {Status.BIDDING: "assign", Status.REVEALING: "openWindow"}.get(state.status)
