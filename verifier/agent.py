# SPDX-License-Identifier: GPL-3.0-or-later
"""The verifier: replays the runs it is drawn for, seals, reveals, and disputes what differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from protocol import audit
from protocol.agent import Agent, log, silent
from protocol.bundle import ExecutorFactory
from protocol.commitments import ZERO_ROOT, receipt_root
from protocol.errors import ArtifactError, ChainError, InfeasibleError
from protocol.feasibility import Limits
from protocol.litigation import Progress
from protocol.market import Market, OpenDispute
from protocol.slices import SECONDS
from protocol.task import NO_SEAT, Run, SeatState, Status, TaskState, receipt_salt, seal_digest
from protocol.witness import Witness
from verifier.demands import Demander
from verifier.pace import Pace
from verifier.replay import Replay, subject

PATIENCE = 64
"""Blocks, of the 256 whose hashes the chain knows, that a solver has to call the draw itself."""


@dataclass
class Settings:
    """What a verifier's owner chooses."""

    slots: int = 1
    """Tasks it may be drawn for at a time; each locks one stake."""
    directory: Path | None = None
    """Where all is kept that it would need to defend itself; None: only while the process lives."""
    slice: float = SECONDS
    """Seconds of a replay after which everything else is looked at."""
    limits: Limits = field(default_factory=Limits)
    """What a task may ask for at the most; `max_stake` does not matter, as the market fixes it."""


@dataclass(frozen=True)
class Duty:
    """A seat in the current round, and what there is to replay."""

    task: int
    state: TaskState
    index: int
    seat: SeatState
    runs: list[Run]

    @property
    def round(self) -> int:
        """The round of the audit."""
        return self.state.round


class Verifier(Agent):
    """One verifier at one market."""

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
        self._replays: dict[Path, Replay] = {}
        self._paces: dict[Replay, Pace] = {}

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
        if state.status == Status.COMMITTED:
            # In the solver's place, long before the block's hash is forgotten.
            return self.move_on(task, state, PATIENCE)
        if state.status < Status.STARTING:
            return False
        seats = self.market.seats(task)
        index = audit.seat_of(seats, self.market.address, state.round)
        handler, moved = self.handlers.get(state.status), False
        if index is not None and handler is not None:
            duty = Duty(task, state, index, seats[index].state, self.market.runs(task, state.round))
            moved = self.complaints.attempt(task, state.status.name, partial(handler, duty))
        # Whoever sits in the audit wants it to end: its stake is locked until then.
        involved = any(seat.verifier == self.market.address for seat in seats)
        return moved or (involved and self.move_on(task, state, PATIENCE))

    @property
    def handlers(self) -> dict[Status, Callable[[Duty], bool]]:
        """What to do in each status of a task that this verifier was drawn for."""
        return {
            Status.STARTING: self.consider,
            Status.SEALING: self.seal,
            Status.REVEALING: self.reveal,
            Status.WINDOW: self.challenge,
            Status.CONVICTED: self.come_first,
        }

    def consider(self, duty: Duty) -> bool:
        """Leaves what it cannot replay or defend in time, even before it could begin."""
        if duty.seat == SeatState.DRAWN and not self._late(duty):
            self.later(duty.task, duty.state.deadline, "terms", partial(self._consider, duty))
        return False

    def _consider(self, duty: Duty) -> bool:
        try:
            self.assessment.of_verifier(duty.task, duty.runs)
        except InfeasibleError as error:
            return self._refuse(duty, error)
        except ChainError:
            raise
        except Exception as error:  # it may pass until the starts are opened
            log.info("task %s: %s", duty.task, error)
        return False

    def seal(self, duty: Duty) -> bool:
        """Replays every run from the start that the solver serves, then seals the end roots.

        Few chunks that are missing are demanded on chain. What cannot be replayed because more is
        missing or wrong is tried again until half of the window is over. Then this verifier reports
        it and leaves, as it does when the replay would not be done in time: silence would cost its
        stake.
        """
        if duty.seat != SeatState.DRAWN or self._late(duty):
            return False
        if self._is_hopeless(duty):
            return self._report(duty)
        if self._is_replayed(duty):
            return self._seal(duty)
        self.later(duty.task, duty.state.deadline, "replay", partial(self._seal, duty))
        return False

    def _seal(self, duty: Duty) -> bool:
        try:
            self.assessment.of_verifier(duty.task, duty.runs)
            roots = self.digests(duty)
        except InfeasibleError as error:
            return self._refuse(duty, error)
        except ArtifactError:
            return self._fetch_rest(duty) or self._leave(duty)
        except ChainError:
            raise
        except Exception as error:  # whatever a hostile program does, the stake must not be lost
            self.complaints.say(duty.task, "replay", error)
            return self._leave(duty)
        if roots is None:
            return True
        digest = seal_digest(
            self.market.chain.chain_id,
            self.market.deployment.market,
            duty.task,
            duty.round,
            self.market.address,
            self._nonce(duty),
            roots,
        )
        self.market.send("seal", duty.task, duty.index, digest)
        return True

    def reveal(self, duty: Duty) -> bool:
        """Reveals what it sealed; disputes the first run that ends elsewhere."""
        if self._late(duty):
            return False
        if duty.seat != SeatState.SEALED:
            return self.challenge(duty)
        opened = audit.ends(self.market, duty.task, duty.round)
        if opened is None:
            return False  # not confirmed yet
        return self._once_replayed(duty, partial(self._reveal, duty, opened))

    def _reveal(self, duty: Duty, opened: audit.Ends, digests: list[bytes]) -> bool:
        receipt = self.receipt(duty, opened, digests)
        if receipt is None:
            return self._fetch_final(duty, opened)
        self.market.send_for("reveal", duty.task, duty.index, self._nonce(duty), digests, receipt)
        return True

    def receipt(self, duty: Duty, opened: audit.Ends, digests: list[bytes]) -> bytes | None:
        """The root that shows that the final state has arrived here.

        Zero, which nobody needs, beside digests that differ; and zero if the bytes are still
        missing or wrong when half of the window is over: then this verifier does not attest.
        None while they may still come.
        """
        if digests != opened.roots:
            return ZERO_ROOT
        try:
            final = self.demander.state(duty.task, opened.final_root)
        except ArtifactError:
            waits = self.demander.waits(duty.task, duty.state)
            return None if waits or not self._hurries(duty) else ZERO_ROOT
        chain, market = self.market.chain.chain_id, self.market.deployment.market
        salt = receipt_salt(chain, market, duty.task, duty.round, self.market.address)
        return receipt_root(final, salt)

    def challenge(self, duty: Duty) -> bool:
        """Opens a dispute over the first run with another end than this verifier's."""
        opened = audit.ends(self.market, duty.task, duty.round)
        late = self.market.chain.now > self._priority_end(duty)
        if duty.seat != SeatState.MISMATCHED or late or opened is None:
            return False
        return self._once_replayed(duty, partial(self._object, duty, opened))

    def _object(self, duty: Duty, opened: audit.Ends, digests: list[bytes]) -> bool:
        for run, theirs, own in zip(duty.runs, opened.roots, digests, strict=True):
            if theirs != own:
                self._challenge(duty, run)
                return True
        return False

    def come_first(self, duty: Duty) -> bool:
        """After a conviction by somebody else: the reward is a drawn verifier's, if its differs."""
        if duty.seat == SeatState.SEALED:
            return self.reveal(duty)
        return self.challenge(duty)

    def _challenge(self, duty: Duty, run: Run) -> None:
        shown = audit.opened(self.market, duty.task, run)
        if shown is None:
            log = audit.CheckpointLog.fetch(self.store(duty.task), duty.state)
            shown = log.opening(run.first), log.opening(run.first + run.count)
        target = (run.first, run.count, duty.index, NO_SEAT, *(o.as_abi() for o in shown))
        self.market.send_for("challenge", duty.task, target, bytes(32))

    def witness(self, dispute: OpenDispute) -> Witness:
        """This verifier's own replay, from the start that both agree about."""
        spec = self.market.posted(dispute.task).spec
        start = self.demander.state(dispute.task, bytes(dispute.context["startRoot"]))
        return self.replay(dispute.task, start, spec.steps_between(dispute.first, dispute.count))

    def digests(self, duty: Duty) -> list[bytes] | None:
        """State roots at the end of each drawn run; None if a part is still to be replayed.

        Replays a segment, or a slice of it, so that no other task waits for a whole audit.
        """
        replay = self._replay(duty)
        if not replay.complete:
            self._paces[replay].begin(self.market.chain.now, replay.done)
            program, executor = self.bundle(duty.task).program, self.executor(duty.task)
            fetch = partial(self.demander.state, duty.task)
            report = partial(self.progress, "replay")
            self.work.advance(replay, partial(replay.advance, program, executor, fetch, report))
        return replay.roots if replay.complete else None

    def _book(self, duty: Duty, starts: list[bytes]) -> Path:
        """Names a replay by what is replayed: a reorganization may give a round other runs."""
        name = subject(duty.runs, starts).hex()[:16]
        return self.folder(duty.task) / f"replay-{name}.json"

    def _replay(self, duty: Duty) -> Replay:
        starts = self.starts(duty)
        book = self._book(duty, starts)
        if book not in self._replays:
            spec = self.market.posted(duty.task).spec
            replay = Replay(spec, duty.runs, starts, book, self.store(duty.task))
            self._replays[book], self._paces[replay] = replay, Pace(spec.audit_window)
        return self._replays[book]

    def _known(self, duty: Duty) -> Replay | None:
        """The replay, if it was begun."""
        try:
            return self._replays.get(self._book(duty, self.starts(duty)))
        except ArtifactError:
            return None  # the starts are not there yet

    def _once_replayed(self, duty: Duty, go_on: Callable[[list[bytes]], bool]) -> bool:
        """Goes on with the digests, now or after more of the replay at the end of the poll."""

        def replay() -> bool:
            digests = self.digests(duty)
            return True if digests is None else go_on(digests)

        if self._is_replayed(duty):
            return replay()
        self.later(duty.task, duty.state.deadline, "replay", replay)
        return False

    def _is_replayed(self, duty: Duty) -> bool:
        found = self._known(duty)
        return found is not None and found.complete

    def _is_hopeless(self, duty: Duty) -> bool:
        """True if the replay is not done in time, as far as can be seen."""
        replay = self._known(duty)
        now, deadline = self.market.chain.now, duty.state.deadline
        if replay is None:
            window = self.market.posted(duty.task).spec.audit_window
            return Pace(window).is_hopeless(now, deadline, 0, 1)
        pace = self._paces[replay]
        return not replay.complete and pace.is_hopeless(now, deadline, replay.done, replay.total)

    def starts(self, duty: Duty) -> list[bytes]:
        """The opened state roots before the runs; ArtifactError if they are not confirmed yet."""
        found = audit.starts(self.market, duty.task, duty.round)
        if found is None:
            raise ArtifactError(f"the starts of task {duty.task} are not opened yet")
        return found

    def _nonce(self, duty: Duty) -> bytes:
        """The nonce of this verifier's seal."""
        return self.secrets.nonce(self.market.posted(duty.task), duty.round)

    def _priority_end(self, duty: Duty) -> int:
        """Until when this verifier may challenge before all others."""
        if duty.state.status != Status.CONVICTED:
            return duty.state.deadline
        return duty.state.deadline + self.market.posted(duty.task).spec.audit_window

    def _late(self, duty: Duty) -> bool:
        return self.market.chain.now > duty.state.deadline

    def _hurries(self, duty: Duty) -> bool:
        """True if half of an audit window, or less, is left."""
        left = duty.state.deadline - self.market.chain.now
        return 2 * left <= self.market.posted(duty.task).spec.audit_window

    def _leave(self, duty: Duty) -> bool:
        """Leaves the seat, with neither fee nor loss, when the time to wait for bytes is over.

        At once, and all with it, if what is posted is no program.
        """
        if self.void(duty.task):
            return True
        if self.demander.waits(duty.task, duty.state) or not self._hurries(duty):
            return False
        return self._report(duty)

    def _report(self, duty: Duty) -> bool:
        self.market.send("reportUnavailable", duty.task, duty.index)
        return True

    def _refuse(self, duty: Duty, error: InfeasibleError) -> bool:
        """Leaves the seat, which nothing that might still come would make it want."""
        log.warning("task %s: left its seat: %s", duty.task, error)
        return self._report(duty)

    def _fetch_rest(self, duty: Duty) -> bool:
        """Demands chunks of the runs' starts that the store lacks."""
        leaves = [run.first for run in duty.runs]
        starts = audit.starts(self.market, duty.task, duty.round) or []
        pairs = zip(leaves, starts, strict=False)
        return any(self.demander.demand(duty.task, duty.state, duty.index, *p) for p in pairs)

    def _fetch_final(self, duty: Duty, opened: audit.Ends) -> bool:
        leaf = duty.state.log_size - 1
        return self.demander.demand(duty.task, duty.state, duty.index, leaf, opened.final_root)
