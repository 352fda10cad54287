# SPDX-License-Identifier: GPL-3.0-or-later
"""What solvers and verifiers have in common: polling the chain, and playing disputes.

An agent keeps nothing that it could not find again: each poll reads where the tasks stand and makes
the moves that are due. A call that fails because somebody else was faster, or because the chain
moved on, is looked at again by the next poll.

What it keeps is named by what it is of, never by a number of the chain alone: after a
reorganization the numbers of tasks, rounds and disputes may be others'.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

from protocol import upkeep
from protocol.bundle import Bundle, ExecutorFactory
from protocol.dispute import GameView, Role, next_move, turn_of
from protocol.endings import Endings
from protocol.errors import (
    ArtifactError,
    BitcourtError,
    ChainError,
    InsufficientFunds,
    NotConfirmed,
    TransactionReverted,
)
from protocol.execution import Bits, Executor
from protocol.faults import Counts, find_fault
from protocol.market import Market, OpenDispute
from protocol.mirror import Mirror
from protocol.secrets import Secrets
from protocol.task import Status, TaskState
from protocol.witness import ReplayWitness, Witness

Progress = Callable[[str, int, int], None]
"""Called with a phase (`train`, `replay`), what is done, and how much there is in all."""

log = logging.getLogger("bitcourt")


def silent(_phase: str, _done: int, _total: int) -> None:
    """Progress that shows nothing."""


@dataclass
class _Game:
    """One dispute being played: the view so far and where its next events begin."""

    view: GameView
    witness: Witness
    subject: Any
    """What the witness is of."""
    events: list[tuple[str, dict[str, Any]]]
    moved: int = -1
    """Block of this agent's last move."""


class Agent(ABC):
    """An account that acts in tasks. `poll` makes whatever moves are due."""

    witness_type: type[ReplayWitness] = ReplayWitness

    def __init__(
        self,
        market: Market,
        executor: ExecutorFactory,
        progress: Progress,
        directory: Path | None = None,
    ) -> None:
        """What it fetches is kept in `directory`, or by default as long as the agent lives."""
        self._directory = directory
        self.market = market
        self.progress = progress
        self.secrets = Secrets(market.account, market.chain.chain_id, market.deployment.market)
        self._make_executor = executor
        self._bundles: dict[bytes, Bundle] = {}
        self._executors: dict[bytes, Executor] = {}
        """Bundles and executors by the hash of the terms, which binds all that they are made of."""
        self._games: dict[int, _Game] = {}
        self.statuses: dict[int, Status] = {}
        """Status of each task when it was last polled."""
        self._endings = Endings()
        self._faultless: set[bytes] = set()
        self._complaints: dict[int, str] = {}

    @abstractmethod
    def act(self, task: int, state: TaskState) -> bool:
        """Makes the moves that are due in one task; True if it made one."""

    def poll(self) -> bool:
        """Makes the moves that are due in all tasks; True if it made any.

        An error in one task is logged once and never keeps the others waiting: whoever posts a task
        must not be able to stop those who read it. ChainError is raised if the chain itself does
        not answer.
        """
        moved = False
        for task in range(1, self.market.task_count() + 1):
            if self._endings.stand(task):
                continue
            try:
                state = self.market.state(task)
                self.statuses[task] = state.status
                acted = not self._endings.seen(task, state) and self.act(task, state)
                moved |= acted
                if state.status.final and not state.open and not acted:
                    self._rest(task, state)
                self._complaints.pop(task, None)
            except NotConfirmed:
                continue
            except (TransactionReverted, InsufficientFunds) as error:
                self._complain(task, error)
            except ChainError:
                raise
            except Exception as error:  # a hostile task may break anything that reads it
                self._complain(task, error)
        return moved

    def _rest(self, task: int, state: TaskState) -> None:
        """Forgets a task as soon as nothing can bring it back."""
        if self._endings.note(task, state, self.market.chain.block):
            self.store(task).forget()

    def _complain(self, task: int, error: Exception) -> None:
        known = isinstance(error, BitcourtError)
        text = f"task {task}: {error}" if known else f"task {task}: {type(error).__name__}: {error}"
        if self._complaints.get(task) != text:
            self._complaints[task] = text
            log.warning(text, exc_info=None if known else error)

    def store(self, task: int) -> Mirror:
        """Where a task's artifacts are, and are kept once they were fetched."""
        return Mirror(self.market.posted(task).artifacts, self.folder(task) / "artifacts")

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

    def litigate(self, task: int, state: TaskState) -> bool:
        """Makes the moves that are due in all disputes that this account is a party of."""
        moved = False
        for dispute in self.pending(task, state):
            if self.market.address in (dispute.challenger, dispute.defendant):
                moved |= self.play(dispute, partial(self.witness, dispute))
        return moved

    @abstractmethod
    def witness(self, dispute: OpenDispute) -> Witness:
        """What this agent has to say about the disputed segments: its own replay."""

    def play(self, dispute: OpenDispute, witness: Callable[[], Witness]) -> bool:
        """Makes this agent's next move in a dispute, or claims the opponent's time; True if so."""
        game = self._follow(dispute, witness)
        view = game.view
        own = Role.DEFENDANT if view.defendant == self.market.address else Role.CHALLENGER
        if view.finished:
            return False
        if turn_of(view.phase) is not own:
            return self._end_if_late(view)
        if not self.market.shows(game.moved):
            return False  # the view is that before the own last move
        move = next_move(view, game.witness, own)
        if move is None:
            return False
        self.progress(f"dispute:{move.function}", view.moves, 0)
        game.moved = self.market.send_move(move.function, *move.args()).block
        return True

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
        game = self._games.get(dispute)
        return game.witness if game is not None else None

    def _follow(self, dispute: OpenDispute, witness: Callable[[], Witness]) -> _Game:
        """Brings the view of a dispute up to the chain's events."""
        events = self.market.game_events(dispute)
        if not events:
            raise NotConfirmed(f"dispute {dispute.id} is not confirmed yet")
        game = self._games.get(dispute.id)
        subject = (dispute.task, dispute.first, dispute.count, dispute.context)
        if game is None or game.subject != subject or events[: len(game.events)] != game.events:
            # New, or the chain was reorganized under it: then it may be about something else.
            same = game is not None and game.subject == subject
            kept = game.witness if game and same else witness()
            game = _Game(GameView.created(events[0][1]), kept, subject, events[:1])
            self._games[dispute.id] = game
        for name, values in events[len(game.events) :]:
            game.view.apply(name, values)
        game.events = events
        return game
