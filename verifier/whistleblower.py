# SPDX-License-Identifier: GPL-3.0-or-later
"""The whistleblower: anybody with a bond, who replays what others have audited already.

When a challenge window opens, the solver publishes salt and root of every leaf of its log. Whoever
finds a segment that ends elsewhere challenges the solver, and each verifier that attested it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Any

from protocol.agent import Agent, log, silent
from protocol.audit import CheckpointLog
from protocol.bundle import ExecutorFactory, state_layout
from protocol.commitments import state_root
from protocol.errors import ArtifactError, InfeasibleError
from protocol.execution import Bits
from protocol.feasibility import Limits
from protocol.litigation import Progress
from protocol.market import Market, OpenDispute
from protocol.rules import BOND_DOUBLES
from protocol.slices import SECONDS
from protocol.task import NO_SEAT, SeatState, Status, TaskState, challenge_digest
from protocol.witness import Witness
from verifier.accusations import Accusation, Book
from verifier.demands import Demander


@dataclass
class Settings:
    """What a whistleblower's owner chooses."""

    segments: int | None = None
    """Replayed of each progress window, at random, beside the drawn runs; all if None."""
    tasks: set[int] = field(default_factory=set)
    """Looks for lies in these tasks only; in all if empty. It ends whatever it has begun."""
    directory: Path | None = None
    """Where all is kept that its disputes need; None: only while the process lives."""
    slice: float = SECONDS
    """Seconds of a replay after which everything else is looked at."""
    limits: Limits = field(default_factory=Limits)
    """What a challenge may lock at the most, and for how long."""


@dataclass
class _Search:
    """A progress window being replayed, step by step."""

    log: CheckpointLog
    steps: Iterator[list[Accusation]]
    """Yields whom to accuse after each step; nobody after most."""
    found: list[Accusation] = field(default_factory=list)
    done: bool = False


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
        own = self.settings
        super().__init__(market, executor, progress, own.directory, own.slice, own.limits)
        self.demander = Demander(market, self.store, self.bundle)
        self._searches: dict[Any, _Search] = {}
        """By all that a search depends on: a reorganization may change the draw alone."""
        self._told = market.chain.block
        """Block of the last challenge; of an earlier process there may be one until now."""
        self._involved: set[int] = set()
        self._accusing: set[int] = set()
        self._feared: set[tuple[int, str]] = set()

    def act(self, task: int, state: TaskState) -> bool:
        """Makes the moves that are due in one task; True if it made one."""
        involved = self._has_part(task, state)
        if self.settings.tasks and task not in self.settings.tasks and not involved:
            return False
        early = self.market.chain.now <= state.deadline
        watching = state.status == Status.WINDOW and (early or involved)
        if watching:
            accuse = partial(self._accuse, task, state, early)
            self.later(task, state.deadline, "accusation", accuse)
        else:
            self._accusing.discard(task)
        return involved and self.move_on(task, state)

    def litigates(self, task: int, state: TaskState) -> bool:
        """True if all is open that this account has to dispute in a task.

        No dispute ends before that: a conviction of the solver would end the rest.
        """
        if not state.open or task in self._accusing:
            return False
        return not self.settings.tasks or task in self.settings.tasks or self._has_part(task, state)

    def _accuse(self, task: int, state: TaskState, early: bool) -> bool:
        moved = False
        try:
            moved = self.accuse(task, state, early)
        finally:
            # Whatever keeps it from accusing once more, what it has opened is disputed.
            search = self._searches.get(self._key(task, state))
            if moved and search is not None and search.done:
                self._accusing.add(task)
            else:
                self._accusing.discard(task)
        return moved

    def accuse(self, task: int, state: TaskState, early: bool) -> bool:
        """Replays a slice of the window, seals a challenge, or tells it; True if it did.

        Only `early`, before the end of the window, a challenge may be sealed; it may be told later.
        What is sealed is told first, since its time is short.
        """
        key = self._key(task, state)
        search = self._search(key, task, state)
        digest, _, _, block, _, _ = self.market.view("sealedChallenges", task, self.market.address)
        if any(digest) and self.market.chain.block > block:
            known = self._book(task).read() + (search.found if search else [])
            sealed = next((a for a in known if self._digest(task, a) == bytes(digest)), None)
            if sealed is not None:
                return self._tell(task, state, sealed)
        if search is None:
            return False
        if not search.done:
            # What was found may have been sealed by an earlier process.
            return not self._is_searched(key, search) or self.accuse(task, state, early)
        left = self._untold(task, search.found)
        if not left or any(digest) or not early or not self.market.shows(self._told):
            return False
        accused = next((a for a in left if self._dares(task, state, a)), None)
        if accused is not None:
            self._seal(task, state, accused)
        return accused is not None

    def approach(self, dispute: OpenDispute) -> Iterator[object]:
        """Computes the state before the disputed segments, if nobody serves it, and keeps it."""
        task = dispute.task
        log = CheckpointLog.fetch(self.store(task), self.market.state(task))
        state = yield from self._state(task, log, dispute.first)
        self.store(task).keep(state, state_layout(self.bundle(task).program))

    def witness(self, dispute: OpenDispute) -> Witness:
        """This account's own replay of the disputed segments."""
        spec = self.market.posted(dispute.task).spec
        log = CheckpointLog.fetch(self.store(dispute.task), self.market.state(dispute.task))
        start = self.demander.state(dispute.task, log.roots[dispute.first])
        return self.replay(dispute.task, start, spec.steps_between(dispute.first, dispute.count))

    # Finding --------------------------------------------------------------------------------------

    def _key(self, task: int, state: TaskState) -> Any:
        drawn = tuple((seat.verifier, seat.round) for seat in self.market.seats(task))
        return task, state.log_root, drawn, tuple(self.market.runs(task))

    def _search(self, key: Any, task: int, state: TaskState) -> _Search | None:
        if key not in self._searches:
            try:
                log = CheckpointLog.fetch(self.store(task), state)
            except ArtifactError:
                return None  # not published yet
            self.assessment.program(task)
            self._searches[key] = _Search(log, self._parts(task, state, log))
        return self._searches[key]

    def _is_searched(self, key: Any, search: _Search) -> bool:
        """Goes on with the replay as long as the slice lasts; True if it has come to its end."""
        try:
            while self.work.slice.take():
                found = next(search.steps, None)
                if found is None:
                    search.done = True
                    return True
                search.found += found
        except BaseException:
            del self._searches[key]  # begins anew
            raise
        return False

    def _parts(self, task: int, state: TaskState, log: CheckpointLog) -> Iterator[list[Accusation]]:
        """Replays the drawn runs, then other segments; yields whom to accuse after each, and
        nobody after each step.
        """
        # One lie convicts the solver, and the bond of each further challenge is at stake.
        seats, accused = self.market.seats(task), False
        for run in self.market.runs(task):
            false, ends_false = yield from self._replay(task, log, run.first, run.count)
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
            false, _ = yield from self._replay(task, log, segment, 1)
            accused = bool(false)
            yield [Accusation(segment, 1, NO_SEAT) for segment in false]

    def _replay(
        self, task: int, log: CheckpointLog, first: int, count: int
    ) -> Generator[list[Accusation], None, tuple[list[int], bool]]:
        """Replays some segments from the state before them.

        Returns the first segment that starts as the log says and ends elsewhere, if there is one,
        and whether the last ends elsewhere. Nothing is found where the state is not to be had.
        """
        try:
            current = yield from self._state(task, log, first)
        except ArtifactError:
            return [], False
        false: list[int] = []
        differs = False
        for segment in range(first, first + count):
            yield from self._replay_on(task, current, segment, 1)
            differs = state_root(current) != log.roots[segment + 1]
            if differs and not false:
                false.append(segment)
        return false, differs

    def _state(
        self, task: int, log: CheckpointLog, leaf: int
    ) -> Generator[list[Accusation], None, list[Bits]]:
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
        yield from self._replay_on(task, current, near, leaf - near)
        if state_root(current) != log.roots[leaf]:
            raise ArtifactError(f"the state in leaf {leaf} of task {task} is not there")
        return current

    def _replay_on(
        self, task: int, state: list[Bits], first: int, count: int
    ) -> Iterator[list[Accusation]]:
        """Does the steps of some segments in place; yields after each."""
        for step in self.market.posted(task).spec.steps_between(first, count):
            self.executor(task).update(state, step)
            yield []

    def _dares(self, task: int, state: TaskState, accused: Accusation) -> bool:
        """True unless the dispute would be lost in time, or costs more than the owner risks."""
        try:
            bond = self._bond(task, state, accused)
            self.assessment.of_challenger(task, accused.segments, bond)
        except InfeasibleError as error:
            if (task, str(error)) not in self._feared:
                log.warning("task %s: not challenged: %s", task, error)
                self._feared.add((task, str(error)))
            return False
        return True

    # Accusing -------------------------------------------------------------------------------------

    def _seal(self, task: int, state: TaskState, accused: Accusation) -> None:
        self.market.ensure_balance(self._bond(task, state, accused))
        self._book(task).write(accused)
        digest, accuses = self._digest(task, accused), accused.attestor != NO_SEAT
        self.market.send_for("sealChallenge", task, digest, accuses)

    def _bond(self, task: int, state: TaskState, accused: Accusation) -> int:
        before = state.challenges if accused.attestor == NO_SEAT else state.accusations
        return self.market.posted(task).spec.bond << (before // BOND_DOUBLES)

    def _tell(self, task: int, state: TaskState, accused: Accusation) -> bool:
        first, count, attestor = accused
        log = CheckpointLog.fetch(self.store(task), state)
        openings = (log.opening(leaf).as_abi() for leaf in (first, first + count))
        nonce = self.secrets.challenge_nonce(self.market.posted(task), *accused)
        target = (first, count, NO_SEAT, attestor, *openings)
        self._told = self.market.send_for("challenge", task, target, nonce).block
        return True

    def _book(self, task: int) -> Book:
        return Book(self.folder(task) / "accused.json")

    def _digest(self, task: int, accused: Accusation) -> bytes:
        market = self.market
        nonce = self.secrets.challenge_nonce(self.market.posted(task), *accused)
        place = (market.chain.chain_id, market.deployment.market, task, market.address)
        return challenge_digest(*place, *accused, nonce)

    def _untold(self, task: int, accused: list[Accusation]) -> list[Accusation]:
        """Accusations that are still to be made: no dispute is open, and nobody else has won it."""
        own, seats = self.market.address, self.market.seats(task)
        disputes = (d for d in self.market.disputes(task) if d.challenger == own)
        told = {(d.first, d.count, d.defendant) for d in disputes}
        return [
            a
            for a in accused
            if (a.first, a.segments, self._defendant(task, a)) not in told
            and (a.attestor == NO_SEAT or seats[a.attestor].state == SeatState.ATTESTED)
        ]

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
