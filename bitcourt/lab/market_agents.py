# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents that misbehave in the market: in its bidding, its draws, and what they serve."""

from __future__ import annotations

from pathlib import Path

from bitcourt.lab.stubborn import StubbornWitness
from protocol.market import Posted
from protocol.task import TaskState
from solver.agent import Solver
from solver.bidding import Bidder
from verifier.agent import Duty, Verifier

CUT = 8
"""Bytes that a patchy solver keeps back of each state."""


class _Silent(Bidder):
    def _reveal(self, posted: Posted, state: TaskState) -> bool:
        return False


class SilentBidder(Solver):
    """Seals a bid and never reveals it."""

    bidder_type = _Silent


class PatchySolver(Solver):
    """Serves its states but for the last bytes."""

    def serve(self, task: int, leaf: int) -> None:
        """Cuts what it serves short, once; not the initial state, which the submitter serves."""
        super().serve(task, leaf)
        root = self.checkpoints(task).roots[leaf]
        served = Path(self.store(task).url) / "tensors" / f"{root.hex()}.safetensors"
        whole = sum(tensor.nbytes for tensor in self.checkpoints(task).state(leaf))
        data = served.read_bytes()
        header = 8 + int.from_bytes(data[:8], "little")
        if leaf > 0 and len(data) == header + whole:
            served.write_bytes(data[:-CUT])


class HoardingSolver(PatchySolver):
    """Serves its states but for the last bytes, and does not answer demands."""

    def answer(self, task: int, state: TaskState) -> bool:
        """Does nothing."""
        return False


class AbsentVerifier(Verifier):
    """Does not seal if it was drawn first."""

    def seal(self, duty: Duty) -> bool:
        """Does nothing in the first seat."""
        return duty.index > 0 and super().seal(duty)


class Accomplice(Verifier):
    """Computes as a cheating solver does, attests it, and defends that."""

    witness_type = StubbornWitness


class BribedVerifier(Verifier):
    """Attests what the solver tells it if it was drawn for the first audit; honest later."""

    briber: Solver

    def digests(self, duty: Duty) -> list[bytes] | None:
        """The solver's roots in the first audit, which nobody has opened yet."""
        committee = self.market.posted(duty.task).spec.committee
        if duty.index >= committee:
            return super().digests(duty)
        roots = self.briber.checkpoints(duty.task).roots
        return [roots[run.first + run.count] for run in duty.runs]
