# SPDX-License-Identifier: GPL-3.0-or-later
"""The whistleblower: anybody with a bond, who replays what others have audited already.

When a challenge window opens, the solver publishes salt and root of every leaf of its log. Whoever
finds a segment that ends elsewhere challenges the solver, and each verifier that attested it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import NamedTuple

from protocol.agent import Agent, Progress, log, silent
from protocol.assessment import Assessment
from protocol.audit import CheckpointLog
from protocol.bundle import ExecutorFactory
from protocol.commitments import state_root
from protocol.errors import ArtifactError, InfeasibleError
from protocol.execution import Bits
from protocol.feasibility import Limits
from protocol.market import Market, OpenDispute
from protocol.rules import BOND_DOUBLES
from protocol.task import NO_SEAT, SeatState, Status, TaskState, challenge_digest
from protocol.witness import Witness
from verifier.demands import Demander


@dataclass
class Settings:
    """What a whistleblower's owner chooses."""

    segments: int | None = None
    """Replayed of each progress window, at random, beside the drawn runs; all if None."""
    tasks: set[int] = field(default_factory=set)
    """Only these tasks; all if empty."""
    directory: Path | None = None
    """Where all is kept that its disputes need; None: only while the process lives."""
    limits: Limits = field(default_factory=Limits)
    """What a challenge may lock at the most, and for how long."""


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
        self.settings = settings or Settings()
        super().__init__(market, executor, progress, self.settings.directory)
        self.demander = Demander(market, self.store, self.bundle)
        self.assessment = Assessment(
            market, self.settings.limits, self.store, self.bundle, self.executor
        )
        self._searches: dict[tuple[int, bytes], _Search] = {}
        self._involved: set[int] = set()
        self._feared: set[tuple[int, str]] = set()

    def act(self, task: int, state: TaskState) -> bool:
        """Makes the moves that are due in one task; True if it made one."""
        if self.settings.tasks and task not in self.settings.tasks:
            return False
        early = self.market.chain.now <= state.deadline
        involved = self._has_part(task, state)
        watching = state.status == Status.WINDOW and (early or involved)
        # No dispute ends before all are open: a conviction of the solver would end the rest.
        if watching and self.accuse(task, state, early):
            return True
        return self.litigate(task, state) or (involved and self.move_on(task, state))

    def accuse(self, task: int, state: TaskState, early: bool) -> bool:
        """Replays the next part of the window, seals a challenge, or tells it; True if it did.

        Only `early`, before the end of the window, a challenge may be sealed; it may be told later.
        """
        search = self._search(task, state)
        if search is None:
            return False
        if self._replay_next(task, state, search):
            return True
        left = self._untold(task, search.found)
        if not left:
            return False
        digest, _, _, block, _ = self.market.view("sealedChallenges", task, self.market.address)
        if not any(digest):
            dared = (a for a in left if early and self._dares(task, state, a))
            accused = next(dared, None)
            if accused is not None:
                self._seal(task, state, accused)
            return accused is not None
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
            self.assessment.program(task)
            self._searches[key] = _Search(log, self._parts(task, state, log))
        return self._searches[key]

    def _replay_next(self, task: int, state: TaskState, search: _Search) -> bool:
        """Replays the next part; False if there is none left."""
        try:
            found = next(search.parts, None)
        except BaseException:
            del self._searches[task, state.log_root]  # begins anew
            raise
        search.found += found or []
        return found is not None

    def _parts(self, task: int, state: TaskState, log: CheckpointLog) -> Iterator[list[Accusation]]:
        """Replays the drawn runs, then other segments; yields whom to accuse after each."""
        # One lie convicts the solver, and the bond of each further challenge is at stake.
        seats, accused = self.market.seats(task), False
        for run in self.market.runs(task):
            false, ends_false = self._replay(task, log, run.first, run.count)
            found = [] if accused else [Accusation(s, 1, NO_SEAT) for s in false[:1]]
            for index, seat in enumerate(seats):
                if ends_false and seat.state == SeatState.ATTESTED and seat.round == run.round:
                    found.append(Accusation(run.first, run.count, index))
            accused |= bool(false)
            yield found
        others = list(range(state.settled, state.log_size - 1))
        if self.settings.segments is not None:
            others = SystemRandom().sample(others, min(self.settings.segments, len(others)))
        for segment in others:
            if accused:
                return
            false, _ = self._replay(task, log, segment, 1)
            accused = bool(false)
            yield [Accusation(segment, 1, NO_SEAT) for segment in false]

    def _replay(
        self, task: int, log: CheckpointLog, first: int, count: int
    ) -> tuple[list[int], bool]:
        """Replays some segments from the state before them.

        Returns the first segment that starts as the log says and ends elsewhere, if there is one,
        and whether the last ends elsewhere. Nothing is found where the state is not to be had.
        """
        try:
            current = self._state(task, log, first)
        except ArtifactError:
            return [], False
        false: list[int] = []
        differs = False
        for segment in range(first, first + count):
            self._replay_on(task, current, segment, 1)
            differs = state_root(current) != log.roots[segment + 1]
            if differs and not false:
                false.append(segment)
        return false, differs

    def _state(self, task: int, log: CheckpointLog, leaf: int) -> list[Bits]:
        """The state in a leaf, in new arrays: stored, or computed from the last one that is.

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
        self._replay_on(task, current, near, leaf - near)
        if state_root(current) != log.roots[leaf]:
            raise ArtifactError(f"the state in leaf {leaf} of task {task} is not there")
        return current

    def _replay_on(self, task: int, state: list[Bits], first: int, count: int) -> None:
        """Does the steps of some segments in place."""
        for step in self.market.posted(task).spec.steps_between(first, count):
            self.executor(task).update(state, step)

    def _dares(self, task: int, state: TaskState, accused: Accusation) -> bool:
        """True unless the dispute would be lost in time, or costs more than the owner risks."""
        try:
            self.assessment.of_challenger(task, accused.segments, self._bond(task, state))
        except InfeasibleError as error:
            if (task, str(error)) not in self._feared:
                log.warning("task %s: not challenged: %s", task, error)
                self._feared.add((task, str(error)))
            return False
        return True

    # Accusing -------------------------------------------------------------------------------------

    def _seal(self, task: int, state: TaskState, accused: Accusation) -> None:
        self.market.ensure_balance(self._bond(task, state))
        self.market.send_for("sealChallenge", task, self._digest(task, accused))

    def _bond(self, task: int, state: TaskState) -> int:
        return self.market.posted(task).spec.bond << (state.open // BOND_DOUBLES)

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
