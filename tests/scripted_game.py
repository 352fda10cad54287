# SPDX-License-Identifier: GPL-3.0-or-later
"""Games on one large toy world that can be stopped at any move, for tests of single moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest

from protocol.dispute import doubt_state, point_at, turn_of
from protocol.game_view import GameView, Level, Phase, Role
from protocol.moves import Move
from protocol.program import Kind
from tests.game_driver import Court, Game, Refused, honest
from tests.players import FUNCTIONS
from tests.toy import FalseEnd, FalseState, Lie, ToyLiar, ToyNode, ToyWitness, TwoLies, World

FOLD_TERMS = 16 * 300  # two levels in each lane
WORLD = World(
    (
        ToyNode(Kind.INPUT, 700, index=0),
        *[ToyNode(Kind.INPUT, 1, index=s) for s in range(1, 18)],
        ToyNode(Kind.MAP, 700),
        *[ToyNode(Kind.FOLD, 1, FOLD_TERMS, 16)] * 17,
        ToyNode(Kind.OUTPUT, 700, index=18),
        *[ToyNode(Kind.OUTPUT, 1, index=19 + s) for s in range(17)],
    ),
    18, 18, 3, bytes(range(32)),
)  # fmt: skip
FOLDED = 20
OWN = ToyWitness(WORLD)
FOLD_LIAR = ToyLiar(WORLD, Lie(17, FOLDED, 0, 99, term=16 * 290 + 5))
MAP_LIAR = ToyLiar(WORLD, Lie(5, 18, 600, 99))
INPUT_LIAR = TwoLies(WORLD, Lie(5, 3, 0, 99), 2)
STATE_LIAR, END_LIAR = FalseState(WORLD), FalseEnd(WORLD)
LIARS = {
    "proveLeaf": INPUT_LIAR, "doubtEnd": END_LIAR, "doubtState": STATE_LIAR, "show": OWN,
    "reveal": MAP_LIAR, "revealChunk": MAP_LIAR, "pointElement": MAP_LIAR,
}  # fmt: skip
"""Against whom each move is made, if not against the liar about a fold."""
EXPECTED_PHASE = {
    "commitSteps": Phase.COMMIT_STEPS, "commitTrace": Phase.COMMIT_TRACE, "point": Phase.POINT,
    "pointNode": Phase.POINT, "doubtEnd": Phase.POINT, "doubtState": Phase.POINT,
    "open": Phase.OPEN, "reveal": Phase.REVEAL, "show": Phase.SHOW,
    "revealChunk": Phase.REVEAL_CHUNK, "pointElement": Phase.POINT_ELEMENT,
    "openLanes": Phase.LANES, "pointLane": Phase.POINT_LANE, "openFold": Phase.FOLD,
    "pointFold": Phase.POINT_FOLD, "postValues": Phase.VALUES, "prove": Phase.PROVE,
    "proveLeaf": Phase.PROVE_LEAF,
}  # fmt: skip


@dataclass
class Turn:
    """A game that waits for `move`."""

    game: Game
    move: Move

    @property
    def sender(self) -> bytes:
        turn = turn_of(self.game.view.phase)
        assert turn is not None
        return self.game.parties[turn]


def next_of(view: GameView, liar: ToyWitness) -> Move:
    """The next move of a game against a liar; what is honest is doubted."""
    turn = turn_of(view.phase)
    assert turn is not None
    if liar is OWN and view.phase is Phase.POINT:
        return doubt_state(view) if view.level is Level.TRACE else point_at(view, OWN, 0)
    move = honest(liar if turn is Role.DEFENDANT else OWN, turn)(view)
    assert move is not None
    return move


def turns(court: Court, liar: ToyWitness) -> list[Move]:
    """The moves of a whole game."""
    game, played = court.open(WORLD.context(liar)), []
    while not game.view.finished:
        played.append(next_of(game.view, liar))
        game.send(played[-1])
    return played


def advance(court: Court, stop: Callable[[GameView, Move], bool], liar: ToyWitness) -> Turn:
    """A new game, played up to the first move for which `stop` holds."""
    game = court.open(WORLD.context(liar))
    game.strict, game.pace = False, 0
    while True:
        move = next_of(game.view, liar)
        if stop(game.view, move):
            return Turn(game, move)
        game.send(move)


def at_function(court: Court, function: str, liar: ToyWitness | None = None) -> Turn:
    liar = liar or LIARS.get(function, FOLD_LIAR)
    return advance(court, lambda _, move: move.function == function, liar)


def refuses(turn: Turn, move: Move, error: str, sender: bytes | None = None) -> tuple[Any, ...]:
    """Assert that the contract refuses a move with this error and that nothing changes."""
    before = turn.game.stored()
    with pytest.raises(Refused) as refused:
        turn.game.send(move, turn.sender if sender is None else sender)
    assert refused.value.error == error, (move.function, refused.value)
    assert turn.game.stored() == before
    return refused.value.arguments


@lru_cache
def sample_moves() -> dict[str, Move]:
    """One real move for every function."""
    court = Court()
    samples = {move.function: move for move in turns(court, FOLD_LIAR)}
    samples |= {function: at_function(court, function).move for function in LIARS}
    assert set(samples) == set(FUNCTIONS)
    return samples
