# SPDX-License-Identifier: GPL-3.0-or-later
"""Playing disputes over many tasks at once: the one with the least time left before all others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from protocol.bundle import Bundle, state_layout
from protocol.complaints import Complaints
from protocol.dispute import GameView, Role, next_move, turn_of
from protocol.errors import NotConfirmed
from protocol.execution import Bits
from protocol.market import Market, OpenDispute
from protocol.mirror import Mirror
from protocol.shelf import Shelf
from protocol.slices import Slice, Workbench
from protocol.task import TaskState
from protocol.witness import ReplayWitness, Witness

Progress = Callable[[str, int, int], None]
"""Called with a phase (`train`, `replay`), what is done, and how much there is in all."""


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


class Litigant(ABC):
    """An account that is a party of disputes."""

    def __init__(self, market: Market, progress: Progress, seconds: float) -> None:
        """Replays go on for about so many `seconds` in each poll, and a step at least."""
        self.market = market
        self.progress = progress
        self.work = Workbench(Slice(seconds))
        self.complaints = Complaints()
        self.shelf = Shelf(self._keep, self._fetch)
        self._games: dict[int, _Game] = {}

    @abstractmethod
    def store(self, task: int) -> Mirror:
        """Where a task's artifacts are, and are kept once they were fetched."""

    @abstractmethod
    def bundle(self, task: int) -> Bundle:
        """All bytes of a task, fetched and checked once."""

    def pending(self, task: int, state: TaskState) -> list[OpenDispute]:
        """The disputes of a task that have no verdict yet."""
        if not state.open:
            return []
        return [d for d in self.market.disputes(task) if self.market.pending(d.id)]

    def litigates(self, task: int, state: TaskState) -> bool:
        """True if this agent plays its disputes over a task now."""
        return bool(state.open)

    def litigate(self, standing: dict[int, TaskState]) -> bool:
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

    def _keep(self, task: int, state: Sequence[Bits]) -> bytes:
        return self.store(task).keep(state, state_layout(self.bundle(task).program))

    def _fetch(self, task: int, root: bytes) -> list[Bits]:
        return self.store(task).get_tensors(root, state_layout(self.bundle(task).program))
