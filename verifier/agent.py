# SPDX-License-Identifier: GPL-3.0-or-later
"""The verifier: replays the runs it is drawn for, seals, reveals, and disputes what differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from protocol.agent import Agent, Progress, silent
from protocol.bundle import ExecutorFactory, state_layout
from protocol.commitments import ZERO_ROOT, receipt_root, state_root
from protocol.errors import ArtifactError, ProgramError
from protocol.execution import Bits
from protocol.market import Market, OpenDispute
from protocol.task import Run, Seat, SeatState, Status, TaskState, receipt_salt, seal_digest
from protocol.witness import Witness

PATIENCE = 64
"""Blocks, of the 256 whose hashes the chain knows, that a solver has to call the draw itself."""


@dataclass
class Settings:
    """What a verifier's owner chooses."""

    slots: int = 1
    """Tasks it may be drawn for at a time; each locks one stake."""


class Verifier(Agent):
    """One verifier at one market."""

    def __init__(
        self,
        market: Market,
        executor: ExecutorFactory,
        settings: Settings | None = None,
        progress: Progress = silent,
    ) -> None:
        super().__init__(market, executor, progress)
        self.settings = settings or Settings()
        self._digests: dict[tuple[int, int], list[bytes]] = {}

    def register(self) -> bool:
        """Locks the stakes and joins the list; False if it has joined already."""
        if self.market.view("verifierOf", self.market.address)[0] != 0:
            return False
        stake = int(self.market.view("VERIFIER_STAKE"))
        self.market.ensure_balance(stake * self.settings.slots)
        self.market.send("registerVerifier", self.settings.slots)
        return True

    def act(self, task: int, state: TaskState) -> bool:
        """Makes the moves that are due in one task; True if it made one."""
        # Also after a conviction by somebody else: the reward follows priority, not speed.
        moved = self.prosecute(task) if state.open_disputes else False
        if state.status == Status.COMMITTED:
            # In the solver's place, long before the block's hash is forgotten.
            return self.draw(task, state, PATIENCE) or moved
        handler = self.handlers.get(state.status)
        if handler is None:
            return moved
        seat = self._seat(task)
        return (seat is not None and handler(task, state, seat)) or moved

    @property
    def handlers(self) -> dict[Status, Callable[[int, TaskState, Seat], bool]]:
        """What to do in each status of a task that this verifier was drawn for."""
        return {
            Status.SEALING: self.seal,
            Status.REVEALING: self.reveal,
            Status.WINDOW: self.challenge,
        }

    def seal(self, task: int, state: TaskState, seat: Seat) -> bool:
        """Replays every run from the start that the solver serves, and seals the end roots.

        What cannot be replayed because bytes are missing or wrong is tried again until half of the
        window is over. Then this verifier reports it and leaves: silence would cost its stake.
        """
        now = self.market.chain.now
        if seat.state != SeatState.DRAWN or now > state.deadline:
            return False
        try:
            roots = self.digests(task, state)
        except (ArtifactError, ProgramError):
            if 2 * (state.deadline - now) > self.market.posted(task).spec.audit_window:
                raise
            self.market.send("reportUnavailable", task)
            return True
        digest = seal_digest(
            self.market.chain.chain_id,
            self.market.deployment.market,
            task,
            state.round,
            self.market.address,
            self.secrets.nonce(task, state.round),
            roots,
        )
        self.market.send("seal", task, digest)
        return True

    def reveal(self, task: int, state: TaskState, seat: Seat) -> bool:
        """Reveals what it sealed; disputes the first run that ends elsewhere."""
        if self.market.chain.now > state.deadline:
            return False
        if seat.state == SeatState.SEALED:
            digests = self.digests(task, state)
            receipt = self.receipt(task, state, digests)
            nonce = self.secrets.nonce(task, state.round)
            self.market.send("reveal", task, nonce, digests, receipt)
            return True
        return self.challenge(task, state, seat)

    def receipt(self, task: int, state: TaskState, digests: list[bytes]) -> bytes:
        """The root that shows that the final state has arrived here.

        Zero, which nobody needs, beside digests that differ; and zero if the bytes are still
        missing or wrong after half of the window: then this verifier does not attest. Until then
        ArtifactError is raised, and the next poll tries again.
        """
        if digests != [run.end_root for run in self.market.runs(task)]:
            return ZERO_ROOT
        layout = state_layout(self.bundle(task).program)
        try:
            final = self.store(task).get_tensors(state.final_root, layout)
        except ArtifactError:
            left = state.deadline - self.market.chain.now
            if 2 * left > self.market.posted(task).spec.audit_window:
                raise
            return ZERO_ROOT
        chain, market = self.market.chain.chain_id, self.market.deployment.market
        return receipt_root(
            final, receipt_salt(chain, market, task, state.round, self.market.address)
        )

    def challenge(self, task: int, state: TaskState, seat: Seat) -> bool:
        """Opens a dispute over the first run with another end than this verifier's."""
        if seat.state != SeatState.MISMATCHED or self.market.chain.now > state.deadline:
            return False
        if any(d.challenger == self.market.address for d in self.market.disputes(task)):
            return False
        spec = self.market.posted(task).spec
        for index, (run, root) in enumerate(
            zip(self.market.runs(task), self.digests(task, state), strict=True)
        ):
            if run.end_root != root:
                self.market.ensure_balance(spec.bond)
                self.market.send("challenge", task, spec.as_abi(), index)
                return True
        return False

    def prosecute(self, task: int) -> bool:
        """Points in every dispute of its own in which it is this verifier's turn."""
        moved = False
        for dispute in self._own_disputes(task):
            moved |= self.play(dispute, partial(self.witness, task, dispute.run))
        return moved

    def witness(self, task: int, run: int) -> Witness:
        """This verifier's own replay of a run."""
        return self.replay_run(task, self.market.runs(task)[run])

    def digests(self, task: int, state: TaskState) -> list[bytes]:
        """State roots at the end of each drawn run, replayed once."""
        key = (task, state.round)
        if key not in self._digests:
            spec = self.market.posted(task).spec
            runs = self.market.runs(task)
            total = sum(len(spec.steps_between(run.first, run.count)) for run in runs)
            done = 0
            executor = self.executor(task)
            roots = []
            for run in runs:
                current = self.start_state(task, run)
                for step in spec.steps_between(run.first, run.count):
                    current = executor.step(current, step)
                    done += 1
                    self.progress("replay", done, total)
                roots.append(state_root(current))
            self._digests[key] = roots
        return self._digests[key]

    def start_state(self, task: int, run: Run) -> list[Bits]:
        """The state before a run, from the task's store, checked against the opened root."""
        layout = state_layout(self.bundle(task).program)
        return self.store(task).get_tensors(run.start_root, layout)

    def replay_run(self, task: int, run: Run) -> Witness:
        """A witness over a run, from the solver's opened start."""
        spec = self.market.posted(task).spec
        steps = spec.steps_between(run.first, run.count)
        return self.replay(task, self.start_state(task, run), steps)

    def _own_disputes(self, task: int) -> list[OpenDispute]:
        return [
            dispute
            for dispute in self.market.disputes(task)
            if dispute.challenger == self.market.address and self.market.pending(dispute.id)
        ]

    def _seat(self, task: int) -> Seat | None:
        mine = (s for s in self.market.seats(task) if s.verifier == self.market.address)
        return next(mine, None)
