# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents whose steps take the chain's time, and accounts that attack them meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from bitcourt.lab.stage import Stage
from protocol.agent import Agent
from protocol.dispute import Level, Phase, point_at
from protocol.execution import Bits, Executor, Inputs, Visitor
from protocol.game_view import GameView
from protocol.market import Market, OpenDispute
from protocol.program import Program
from protocol.slices import Slice
from protocol.witness import ReplayWitness
from solver.agent import Settings, Solver
from tests.challenging import registered, seal, tell, view_of
from tests.staged import honest_executor, make_executor
from verifier.agent import Verifier


class Slow(Executor):
    """The honest executor. Each step takes `seconds` on the chain, and `hook` is called in it."""

    def __init__(self, stage: Stage, seconds: int = 0) -> None:
        self.stage, self.seconds = stage, seconds
        self.hook: Callable[[], None] = lambda: None
        self.trained: list[int] = []
        """Steps that were made in place: trained, or replayed for an audit."""
        self.steps = 0
        """How many others were made: replayed for a dispute."""

    def make(self, _program: Program, _inputs: Inputs) -> Executor:
        """As the factory of an agent."""
        return self

    def _pass(self) -> None:
        if self.seconds:
            self.stage.chain.wait(self.seconds)
        self.hook()

    def step(self, state: Sequence[Bits], step: int) -> list[Bits]:
        self._pass()
        self.steps += 1
        return honest_executor().step(state, step)

    def update(self, state: list[Bits], step: int) -> None:
        self._pass()
        self.trained.append(step)
        honest_executor().update(state, step)

    def trace(self, state: Sequence[Bits], step: int) -> list[Bits]:
        self._pass()
        return honest_executor().trace(state, step)

    def visit(
        self,
        state: Sequence[Bits],
        step: int,
        visitor: Visitor,
        nodes: Collection[int] | None = None,
    ) -> None:
        self._pass()
        honest_executor().visit(state, step, visitor, nodes)


def by_chain(agent: Agent, stage: Stage) -> None:
    """Lets a slice last until the chain's time moves: a step, if steps take time."""
    agent.work.slice = Slice(1, lambda: stage.chain.now)


def slow_solver(stage: Stage) -> tuple[Solver, Slow]:
    """A solver and its executor, which takes no time yet."""
    slow = Slow(stage)
    solver = Solver(stage.party("solver"), slow.make, Settings(stage.directory / "solver"))
    by_chain(solver, stage)
    return solver, slow


def two_verifiers(stage: Stage) -> list[Verifier]:
    """Two that may be drawn for two tasks at a time."""
    return registered(stage, slots=2)


class Attacker:
    """Challenges one segment, for nothing."""

    def __init__(self, stage: Stage, task: int, segment: int) -> None:
        self.market = stage.party(f"accomplice {segment}")
        self.task, self.segment = task, segment
        self.nonce = b""

    def seal(self) -> None:
        """Seals the challenge."""
        self.nonce = seal(self.market, self.task, self.segment)

    def tell(self) -> None:
        """Opens the dispute."""
        tell(self.market, self.task, self.segment, self.nonce)

    @property
    def dispute(self) -> OpenDispute:
        """The dispute that it has opened."""
        own = self.market.address
        return next(d for d in self.market.disputes(self.task) if d.challenger == own)

    @property
    def view(self) -> GameView:
        """Where that stands."""
        return view_of(self.market, self.dispute)

    @property
    def waits(self) -> bool:
        """True while the defence has still to show the trace of a step."""
        view = self.view
        return not view.finished and view.level is Level.STEPS

    def point(self) -> None:
        """Points at the first step as soon as it can, and claims the time of a defender that is
        late; so that the least delay of the defence loses the game.
        """
        if not self.market.disputes(self.task):
            return
        view = self.view
        if view.finished:
            return
        if view.phase is Phase.POINT and view.level is Level.STEPS:
            move = point_at(view, _NO_WITNESS, 0)
            self.market.send_move(move.function, *move.args())
        elif view.phase in (Phase.COMMIT_STEPS, Phase.COMMIT_TRACE):
            Watch(self.market).expire(self.dispute)


class Watch(Agent):
    """Makes no move of its own."""

    def __init__(self, market: Market) -> None:
        super().__init__(market, make_executor, lambda *_: None)

    def act(self, task: int, state: object) -> bool:
        raise NotImplementedError

    def witness(self, dispute: OpenDispute) -> ReplayWitness:
        raise NotImplementedError


_NO_WITNESS: ReplayWitness = None  # type: ignore[assignment]
"""Nothing of it is needed to point at steps."""
