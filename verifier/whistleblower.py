# SPDX-License-Identifier: GPL-3.0-or-later
"""The whistleblower: anybody with a bond, who replays what others have audited already.

When a challenge window opens, the solver publishes salt and root of every leaf of its log. Whoever
finds a segment that ends elsewhere challenges the solver, and each verifier that attested it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import SystemRandom
from typing import NamedTuple

from protocol.agent import Agent, Progress, silent
from protocol.audit import CheckpointLog
from protocol.bundle import ExecutorFactory
from protocol.commitments import state_root
from protocol.errors import ArtifactError
from protocol.execution import Bits
from protocol.market import Market, OpenDispute
from protocol.task import NO_SEAT, Seat, SeatState, Status, TaskState, challenge_digest
from protocol.witness import Witness
from verifier.demands import Demander

BOND_DOUBLES = 4
"""The bond doubles with every so many challenges that are open."""


@dataclass
class Settings:
    """What a whistleblower's owner chooses."""

    segments: int | None = None
    """Replayed of each progress window, at random, beside the drawn runs; all if None."""
    tasks: set[int] = field(default_factory=set)
    """Only these tasks; all if empty."""


class Accusation(NamedTuple):
    """What is challenged, and who has to defend it: a seat, or NO_SEAT for the solver."""

    first: int
    segments: int
    attestor: int


@dataclass
class _Search:
    """A progress window being replayed, part by part."""

    log: CheckpointLog
    parts: Iterator[list[Accusation]]
    found: list[Accusation] = field(default_factory=list)


class Whistleblower(Agent):
    """Somebody who watches one market."""

    def __init__(
        self,
        market: Market,
        executor: ExecutorFactory,
        settings: Settings | None = None,
        progress: Progress = silent,
    ) -> None:
        super().__init__(market, executor, progress)
        self.settings = settings or Settings()
        self.demander = Demander(market, self.store, self.bundle)
        self._searches: dict[tuple[int, bytes], _Search] = {}
        self._involved: set[int] = set()

    def act(self, task: int, state: TaskState) -> bool:
        """Makes the moves that are due in one task; True if it made one."""
        if self.settings.tasks and task not in self.settings.tasks:
            return False
        # No dispute ends before all are open: a conviction of the solver would end the rest.
        early = state.status == Status.WINDOW and self.market.chain.now <= state.deadline
        if (early and self.accuse(task, state)) or self.litigate(task, state):
            return True
        return self._has_part(task, state) and self.move_on(task, state)

    def accuse(self, task: int, state: TaskState) -> bool:
        """Replays the next part of the window, seals a challenge, or tells it; True if it did."""
        search = self._search(task, state)
        if search is None:
            return False
        found = next(search.parts, None)
        if found is not None:
            search.found += found
            return True
        left = self._untold(task, search.found)
        if not left:
            return False
        digest, _, _, block, _ = self.market.view("sealedChallenges", task, self.market.address)
        if not any(digest):
            self._seal(task, state, left[0])
            return True
        if self.market.chain.block <= block:
            return False
        sealed = next((a for a in left if self._digest(task, a) == bytes(digest)), None)
        return sealed is not None and self._tell(task, search.log, sealed)

    def witness(self, dispute: OpenDispute) -> Witness:
        """This account's own replay of the disputed segments."""
        spec = self.market.posted(dispute.task).spec
        log = CheckpointLog.fetch(self.store(dispute.task), self.market.state(dispute.task))
        start = self._state(dispute.task, log, dispute.first)
        return self.replay(dispute.task, start, spec.steps_between(dispute.first, dispute.count))

    # Finding --------------------------------------------------------------------------------------

    def _search(self, task: int, state: TaskState) -> _Search | None:
        key = (task, state.log_root)
        if key not in self._searches:
            try:
                log = CheckpointLog.fetch(self.store(task), state)
            except ArtifactError:
                return None  # not published yet
            self._searches[key] = _Search(log, self._parts(task, state, log))
        return self._searches[key]

    def _parts(self, task: int, state: TaskState, log: CheckpointLog) -> Iterator[list[Accusation]]:
        """Replays the drawn runs, then other segments; yields whom to accuse after each."""
        seats, solver_accused = self.market.seats(task), False
        for run in self.market.runs(task):
            if self._holds(task, log, run.first, run.count):
                yield []
                continue
            accused = [
                Accusation(run.first, run.count, index)
                for index, seat in enumerate(seats)
                if _attested(seat, run.round)
            ]
            if not solver_accused:
                accused.insert(0, Accusation(run.first, run.count, NO_SEAT))
            solver_accused = True
            yield accused
        others = list(range(state.settled, state.log_size - 1))
        if self.settings.segments is not None:
            others = SystemRandom().sample(others, min(self.settings.segments, len(others)))
        for segment in others:
            if solver_accused:
                return  # one lie is enough
            solver_accused = not self._holds(task, log, segment, 1)
            yield [Accusation(segment, 1, NO_SEAT)] if solver_accused else []

    def _holds(self, task: int, log: CheckpointLog, first: int, count: int) -> bool:
        """True if the log is right about the state after these segments, or nobody can tell."""
        try:
            current = self._state(task, log, first)
        except ArtifactError:
            return True
        return state_root(self._replayed(task, current, first, count)) == log.roots[first + count]

    def _state(self, task: int, log: CheckpointLog, leaf: int) -> list[Bits]:
        """The state in a leaf: from the store, or computed from the last one that is there.

        ArtifactError if what was computed is not what the log says.
        """
        near = leaf
        while True:
            try:
                current = self.demander.state(task, log.roots[near])
                break
            except ArtifactError:
                if near == 0:
                    raise
                near -= 1
        current = self._replayed(task, current, near, leaf - near)
        if state_root(current) != log.roots[leaf]:
            raise ArtifactError(f"the state in leaf {leaf} of task {task} is not there")
        return current

    def _replayed(self, task: int, state: list[Bits], first: int, count: int) -> list[Bits]:
        for step in self.market.posted(task).spec.steps_between(first, count):
            state = self.executor(task).step(state, step)
        return state

    # Accusing -------------------------------------------------------------------------------------

    def _seal(self, task: int, state: TaskState, accused: Accusation) -> None:
        bond = self.market.posted(task).spec.bond << (state.open // BOND_DOUBLES)
        self.market.ensure_balance(bond)
        self.market.send_for("sealChallenge", task, self._digest(task, accused))

    def _tell(self, task: int, log: CheckpointLog, accused: Accusation) -> bool:
        first, count, attestor = accused
        openings = (log.opening(leaf).as_abi() for leaf in (first, first + count))
        nonce = self.secrets.challenge_nonce(task, *accused)
        self.market.send_for("challenge", task, (first, count, NO_SEAT, attestor, *openings), nonce)
        return True

    def _digest(self, task: int, accused: Accusation) -> bytes:
        market = self.market
        nonce = self.secrets.challenge_nonce(task, *accused)
        place = (market.chain.chain_id, market.deployment.market, task, market.address)
        return challenge_digest(*place, *accused, nonce)

    def _untold(self, task: int, accused: list[Accusation]) -> list[Accusation]:
        own = self.market.address
        disputes = (d for d in self.market.disputes(task) if d.challenger == own)
        told = {(d.first, d.count, d.defendant) for d in disputes}
        return [a for a in accused if (a.first, a.segments, self._defendant(task, a)) not in told]

    def _defendant(self, task: int, accused: Accusation) -> str:
        if accused.attestor == NO_SEAT:
            return self.market.state(task).solver
        return self.market.seats(task)[accused.attestor].verifier

    def _has_part(self, task: int, state: TaskState) -> bool:
        """True if something of this account's is at stake in the task."""
        if state.status < Status.WINDOW:
            return False
        if task not in self._involved:
            own = self.market.address
            sealed = (e.values["challenger"] for e in self.market.events("ChallengeSealed", task))
            if own in sealed:
                self._involved.add(task)
        return task in self._involved


def _attested(seat: Seat, audit_round: int) -> bool:
    return seat.state == SeatState.ATTESTED and seat.round == audit_round
