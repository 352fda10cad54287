# SPDX-License-Identifier: GPL-3.0-or-later
"""What solvers and verifiers have in common: polling the chain, and playing disputes.

An agent keeps nothing that it could not find again: each poll reads where the tasks stand and makes
the moves that are due. A call that fails because somebody else was faster, or because the chain
moved on, is looked at again by the next poll.

What it keeps is named by what it is of, never by a number of the chain alone: after a
reorganization the numbers of tasks, rounds and disputes may be others'.

Every poll does what is most urgent first: moves in disputes, the one with the least time left
before all others; then what each task waits for; then a slice of whatever takes long.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, NamedTuple
from weakref import finalize

from protocol import upkeep
from protocol.bundle import Bundle, ExecutorFactory, state_layout
from protocol.complaints import Complaints
from protocol.dispute import GameView, Role, next_move, turn_of
from protocol.endings import Endings
from protocol.errors import ArtifactError, NotConfirmed
from protocol.execution import Bits, Executor
from protocol.faults import Counts, find_fault
from protocol.market import Market, OpenDispute
from protocol.mirror import Mirror
from protocol.secrets import Secrets
from protocol.shelf import Shelf
from protocol.slices import SECONDS, Slice, Workbench
from protocol.task import Status, TaskState
from protocol.transfers import Transfers
from protocol.witness import ReplayWitness, Witness

Progress = Callable[[str, int, int], None]
"""Called with a phase (`train`, `replay`), what is done, and how much there is in all."""

log = logging.getLogger("bitcourt")


def silent(_phase: str, _done: int, _total: int) -> None:
    """Progress that shows nothing."""


@dataclass
class _Game:
    """One dispute being played: the view so far and where its next events begin."""

    dispute: OpenDispute
    view: GameView
    subject: Any
    """What its witness is of."""
    events: list[tuple[str, dict[str, Any]]]
    moved: int = -1
    """Block of this agent's last move."""

    def role_of(self, player: str) -> Role:
        """The side that an account plays, which is a party."""
        return Role.DEFENDANT if self.view.defendant == player else Role.CHALLENGER


class _Duty(NamedTuple):
    """Something that may take long, and waits for the end of a poll."""

    deadline: int
    task: int
    name: str
    make: Callable[[], bool]


class Agent(ABC):
    """An account that acts in tasks. `poll` makes whatever moves are due."""

    witness_type: type[ReplayWitness] = ReplayWitness

    def __init__(
        self,
        market: Market,
        executor: ExecutorFactory,
        progress: Progress,
        directory: Path | None = None,
        seconds: float = SECONDS,
    ) -> None:
        """What it fetches is kept in `directory`, or by default as long as the agent lives.

        A poll does long work for about so many `seconds`, and a step at least.
        """
        self._directory = directory
        self.market = market
        self.progress = progress
        self.secrets = Secrets(market.account, market.chain.chain_id, market.deployment.market)
        self.work = Workbench(Slice(seconds))
        self.transfers = Transfers()
        self.complaints = Complaints()
        self._make_executor = executor
        self._bundles: dict[bytes, Bundle] = {}
        self._executors: dict[bytes, Executor] = {}
        """Bundles and executors by the hash of the terms, which binds all that they are made of."""
        self._games: dict[int, _Game] = {}
        self.shelf = Shelf(self._keep, self._fetch)
        self._later: list[_Duty] = []
        self.statuses: dict[int, Status] = {}
        """Status of each task when it was last polled."""
        self._endings = Endings()
        self._faultless: set[bytes] = set()

    @abstractmethod
    def act(self, task: int, state: TaskState) -> bool:
        """Makes the moves that are due in one task; True if it made one.

        What may take long it leaves to the end of the poll: see `later`.
        """

    def poll(self) -> bool:
        """Makes the moves that are due in all tasks; True if it made any, or has more to compute.

        An error in one duty is logged once and keeps no other waiting, of the same task or another:
        whoever posts a task must not be able to stop those who read it. ChainError is raised if the
        chain itself does not answer.
        """
        self.work.slice.begin()
        self.transfers.begin()
        self._later = []
        standing = self._read()
        moved = self._litigate(standing)
        if moved:
            standing = self._read()
        for task, state in sorted(standing.items(), key=lambda item: item[1].deadline):
            moved |= self.complaints.attempt(task, "", partial(self._attend, task, state))
        for duty in sorted(self._later, key=lambda duty: duty.deadline):
            moved |= self.complaints.attempt(duty.task, duty.name, duty.make)
        return moved

    def later(self, task: int, deadline: int, name: str, make: Callable[[], bool]) -> None:
        """Leaves what may take long to the end of this poll, where the earliest deadline is first.

        `make` returns True if it moved something or has to go on in the next poll.
        """
        self._later.append(_Duty(deadline, task, name, make))

    def _read(self) -> dict[int, TaskState]:
        """Where all tasks stand that have not ended for good."""
        standing: dict[int, TaskState] = {}
        for task in range(1, self.market.task_count() + 1):
            if not self._endings.stand(task):
                with self.complaints.said_once(task, "state"):
                    standing[task] = self.market.state(task)
                    self.statuses[task] = standing[task].status
        return standing

    def _attend(self, task: int, state: TaskState) -> bool:
        acted = not self._endings.seen(task, state) and self.act(task, state)
        over = state.status.final and not state.open and not acted
        # Forgets a task as soon as nothing can bring it back.
        if over and self._endings.note(task, state, self.market.chain.block):
            self.store(task).forget()
        return acted

    def store(self, task: int) -> Mirror:
        """Where a task's artifacts are, and are kept once they were fetched."""
        place = self.folder(task) / "artifacts"
        return Mirror(self.market.posted(task).artifacts, place, self.transfers)

    def folder(self, task: int) -> Path:
        """Where this agent keeps what belongs to a task, apart from what other accounts keep."""
        if self._directory is None:
            self._directory = Path(mkdtemp(prefix="bitcourt-"))
            finalize(self, rmtree, self._directory, ignore_errors=True)
        terms = self.market.posted(task).spec.hash.hex()
        return self._directory / self.market.label / f"{task}-{terms[:16]}"

    def bundle(self, task: int) -> Bundle:
        """All bytes of a task, fetched and checked once."""
        spec = self.market.posted(task).spec
        if spec.hash not in self._bundles:
            self._bundles[spec.hash] = Bundle.fetch(self.store(task), spec)
        return self._bundles[spec.hash]

    def executor(self, task: int) -> Executor:
        """The executor of a task's program."""
        spec = self.market.posted(task).spec
        if spec.hash not in self._executors:
            bundle = self.bundle(task)
            inputs = bundle.inputs(spec.seed)
            self._executors[spec.hash] = self._make_executor(bundle.program, inputs)
        return self._executors[spec.hash]

    def void(self, task: int) -> bool:
        """Ends a task whose program has a fault that the contract sees; True if it did.

        Nobody is slashed then, and nobody's stake waits any longer. Each program is looked through
        once.
        """
        spec = self.market.posted(task).spec
        if spec.hash in self._faultless:
            return False
        try:
            nodes = self.store(task).get_encodings(spec.program_root)
        except ArtifactError:
            return False  # it may still come
        fault = find_fault(nodes, Counts.of(spec)) if len(nodes) == spec.n_nodes else None
        if fault is None:
            self._faultless.add(spec.hash)
            return False
        self.market.send_for("voidProgram", task, *fault)
        return True

    def replay(self, task: int, start: Sequence[Bits], steps: range) -> Witness:
        """A witness over some steps from a start state."""
        bundle = self.bundle(task)
        inputs = bundle.inputs(self.market.posted(task).spec.seed)
        executor = self.executor(task)
        return self.witness_type(bundle.program, executor, inputs, start, steps.start, len(steps))

    def pending(self, task: int, state: TaskState) -> list[OpenDispute]:
        """The disputes of a task that have no verdict yet."""
        if not state.open:
            return []
        return [d for d in self.market.disputes(task) if self.market.pending(d.id)]

    def litigates(self, task: int, state: TaskState) -> bool:
        """True if this agent plays its disputes over a task now."""
        return bool(state.open)

    def _litigate(self, standing: dict[int, TaskState]) -> bool:
        """Makes the moves that are due in all disputes that this account is a party of.

        Whoever opens many disputes, over this task or another, must not be able to use up the clock
        of one of them with the replays for the rest.
        """
        games: list[_Game] = []
        for task, state in standing.items():
            with self.complaints.said_once(task, "disputes"):
                if self.litigates(task, state):
                    games += self._games_of(task, state)
        moved = False
        for game in sorted(games, key=self._time_left):
            name = f"dispute {game.dispute.id}"
            moved |= self.complaints.attempt(game.dispute.task, name, partial(self.play, game))
        return moved

    def _games_of(self, task: int, state: TaskState) -> list[_Game]:
        games = []
        for dispute in self.pending(task, state):
            if self.market.address in (dispute.challenger, dispute.defendant):
                with self.complaints.said_once(task, f"events of dispute {dispute.id}"):
                    games.append(self._follow(dispute))
        return games

    def _time_left(self, game: _Game) -> int:
        """Seconds of this account's clock, which runs if it is its turn."""
        view, role = game.view, game.role_of(self.market.address)
        runs = turn_of(view.phase) is role
        return view.clocks[role] - runs * (self.market.chain.now - view.moved_at)

    def approach(self, _dispute: OpenDispute) -> Iterator[object]:
        """What takes long before `witness` can be called; yields after each step."""
        return iter(())

    @abstractmethod
    def witness(self, dispute: OpenDispute) -> Witness:
        """What this agent has to say about the disputed segments: its own replay."""

    def play(self, game: _Game) -> bool:
        """Makes this agent's next move in a dispute, or claims the opponent's time.

        True if it did, or has to compute more first.
        """
        view, own = game.view, game.role_of(self.market.address)
        if view.finished:
            return False
        if turn_of(view.phase) is not own:
            return self._end_if_late(view)
        if not self.market.shows(game.moved):
            return False  # the view is that before the own last move
        witness = self._prepared(game)
        if witness is None:
            return True
        move = next_move(view, witness, own)
        if move is None:
            return False
        self.progress(f"dispute:{move.function}", view.moves, 0)
        game.moved = self.market.send_move(move.function, *move.args()).block
        return True

    def _prepared(self, game: _Game) -> Witness | None:
        """Goes on with the replay that the next move is taken from; None until it is there."""
        dispute, witness = game.dispute, self.shelf.get(game.dispute.id)
        if witness is None:
            key = ("dispute", dispute.id, dispute.first, bytes(dispute.context["startRoot"]))
            if not self.work.advance(key, partial(self.approach, dispute)):
                return None
            witness = self.witness(dispute)
        self.shelf.use(dispute.task, dispute.id, witness)
        steps = witness.preparation(game.view) if isinstance(witness, ReplayWitness) else ()
        return witness if all(self.work.slice.take() for _ in steps) else None

    def _keep(self, task: int, state: Sequence[Bits]) -> bytes:
        return self.store(task).keep(state, state_layout(self.bundle(task).program))

    def _fetch(self, task: int, root: bytes) -> list[Bits]:
        return self.store(task).get_tensors(root, state_layout(self.bundle(task).program))

    def move_on(self, task: int, state: TaskState, patience: int = 0) -> bool:
        """Makes a call that the task waits for, if anybody may make it and nobody else did.

        `patience` are the blocks that the solver has for the draw.
        """
        if upkeep.move_on(self.market, task, state, patience):
            return True
        return any(self.expire(dispute) for dispute in self.pending(task, state))

    def expire(self, dispute: OpenDispute) -> bool:
        """Ends a dispute whose time is over, whoever its parties are; True if so."""
        return self._end_if_late(GameView.after(self.market.game_events(dispute)))

    def _end_if_late(self, view: GameView) -> bool:
        """Ends a dispute whose party to move has run out of clock; True if so."""
        late = turn_of(view.phase)
        if late is None or not view.is_late(late, self.market.chain.now):
            return False
        state, history = view.state.as_abi(), view.history.as_abi()
        self.market.send_move("timeout", view.dispute, state, view.program, history)
        return True

    def witness_of(self, dispute: int) -> Witness | None:
        """The witness that this agent played a dispute with."""
        return self.shelf.get(dispute)

    def _follow(self, dispute: OpenDispute) -> _Game:
        """Brings the view of a dispute up to the chain's events."""
        events = self.market.game_events(dispute)
        if not events:
            raise NotConfirmed(f"dispute {dispute.id} is not confirmed yet")
        game = self._games.get(dispute.id)
        subject = (dispute.task, dispute.first, dispute.count, dispute.context)
        if game is None or game.subject != subject or events[: len(game.events)] != game.events:
            # New, or the chain was reorganized under it: then it may be about something else.
            if game is not None and game.subject != subject:
                self.shelf.forget(dispute.id)
            game = _Game(dispute, GameView.created(events[0][1]), subject, events[:1])
            self._games[dispute.id] = game
        for name, values in events[len(game.events) :]:
            game.view.apply(name, values)
        game.events = events
        return game
