# SPDX-License-Identifier: GPL-3.0-or-later
"""The solver: bids, trains, commits, opens, defends. What to do next follows from the chain alone.

`Solver.handlers` is the whole behaviour: for each status of a task, what a solver does. `poll` asks
the chain for each task's status and makes the moves that are due, so a solver that was killed at
any moment goes on where the chain says it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from protocol.agent import Agent, Progress, silent
from protocol.bundle import ExecutorFactory, state_layout
from protocol.commitments import checkpoint_leaf
from protocol.market import Market, Posted
from protocol.merkle import Tree, leaf_hash
from protocol.task import SeatState, Status, TaskState, is_lacking
from protocol.witness import Witness
from solver.checkpoints import Checkpoints


@dataclass
class Settings:
    """What a solver's owner chooses. Prices are in wei."""

    directory: Path
    """Where checkpoints are kept."""
    price: Callable[[Posted], int] = lambda posted: posted.budget
    """Asked for a task; never above its budget."""
    commits: int = 2
    """How many times the checkpoint log is committed during training."""
    tasks: set[int] = field(default_factory=set)
    """Only these tasks; all if empty."""


class Solver(Agent):
    """One solver at one market."""

    def __init__(
        self,
        market: Market,
        executor: ExecutorFactory,
        settings: Settings,
        progress: Progress = silent,
    ) -> None:
        super().__init__(market, executor, progress)
        self.settings = settings
        self._checkpoints: dict[int, Checkpoints] = {}

    @property
    def handlers(self) -> dict[Status, Callable[[int, TaskState], bool]]:
        """What to do in each status of a task that this solver has a part in."""
        return {
            Status.BIDDING: self.bid_or_assign,
            Status.TRAINING: self.train,
            Status.COMMITTED: self.draw,
            Status.STARTING: self.open_starts,
            Status.SEALING: self.open_ends,
            Status.REVEALING: self.open_window,
            Status.WINDOW: self.settle,
        }

    def act(self, task: int, state: TaskState) -> bool:
        """Makes the moves that are due in one task; True if it made one."""
        if self.settings.tasks and task not in self.settings.tasks:
            return False
        if state.status.final:
            return False  # an open dispute can change nothing any more
        mine = state.solver == self.market.address
        if state.status != Status.BIDDING and not mine:
            return False
        moved = self.defend(task) if mine and state.open_disputes else False
        handler = self.handlers.get(state.status)
        return (handler is not None and handler(task, state)) or moved

    def bid_or_assign(self, task: int, state: TaskState) -> bool:
        """Bids once, then ends the bidding when its time is over."""
        posted = self.market.posted(task)
        if state.solver == self.market.address:
            if self.market.chain.now > state.deadline:
                self.market.send("assign", task, posted.spec.as_abi())
                return True
            return False
        if posted.submitter == self.market.address or self.market.chain.now > state.deadline:
            return False
        price = self.settings.price(posted)
        leading = int(state.solver, 16) != 0
        if price > state.price or (leading and price == state.price):
            return False
        # A bid certifies that every byte is here and checked, and that this machine can compute the
        # program: this raises if it is not so.
        self.executor(task)
        self.market.ensure_balance(posted.spec.solver_stake)
        self.market.send("bid", task, posted.spec.as_abi(), price)
        return True

    def train(self, task: int, state: TaskState) -> bool:
        """Trains the next segments and commits the log when a commitment is due."""
        spec = self.market.posted(task).spec
        checkpoints = self.checkpoints(task)
        executor = self.executor(task)
        share = max(1, -(-spec.segments // self.settings.commits))
        target = min(spec.segments, max(state.log_size - 1, 0) + share)
        current = checkpoints.state(len(checkpoints) - 1)
        for segment in range(len(checkpoints) - 1, target):
            for step in spec.steps_between(segment, 1):
                current = executor.step(current, step)
            checkpoints.begin(current)  # hashed and written while the next segment is trained
            self.progress("train", segment + 1, spec.segments)
        tree = self.log(task, target + 1)
        old = state.log_size
        proof = tree.inclusion_proof(0) if old == 0 else tree.consistency_proof(old)
        self.market.send("append", task, spec.as_abi(), target + 1, tree.root, proof)
        return True

    def open_starts(self, task: int, _state: TaskState) -> bool:
        """Serves and opens the checkpoint before each run."""
        spec = self.market.posted(task).spec
        starts = [run.first for run in self.market.runs(task)]
        for index in starts:
            self.serve(task, index)
        openings = self.openings(task, starts)
        self.market.send("openStarts", task, spec.as_abi(), openings)
        return True

    def open_ends(self, task: int, state: TaskState) -> bool:
        """Opens the ends when all drawn verifiers have sealed or may not seal any more."""
        seats = self.market.seats(task)
        waiting = any(seat.state == SeatState.DRAWN for seat in seats)
        if waiting and self.market.chain.now <= state.deadline:
            return False
        spec = self.market.posted(task).spec
        if all(seat.state != SeatState.SEALED for seat in seats):
            self.market.send("redraw", task, spec.as_abi())
            return True
        ends = [run.first + run.count for run in self.market.runs(task)]
        last = spec.segments
        for index in {*ends, last}:
            self.serve(task, index)
        *openings, final = self.openings(task, [*ends, last])
        self.market.send("openEnds", task, spec.as_abi(), openings, final)
        return True

    def open_window(self, task: int, state: TaskState) -> bool:
        """Opens the challenge window once nobody can reveal any more."""
        waiting = any(seat.state == SeatState.SEALED for seat in self.market.seats(task))
        if waiting and self.market.chain.now <= state.deadline:
            return False
        self.market.send("openWindow", task, self.market.posted(task).spec.as_abi())
        return True

    def settle(self, task: int, state: TaskState) -> bool:
        """Settles after the window, or asks for a new draw if the audit counts for nothing."""
        if state.open_disputes or self.market.chain.now <= state.deadline:
            return False
        spec = self.market.posted(task).spec
        lacking = is_lacking(self.market.seats(task))
        self.market.send("redraw" if lacking else "settle", task, spec.as_abi())
        return True

    def defend(self, task: int) -> bool:
        """Answers in every dispute in which it is this solver's turn."""
        moved = False
        for dispute in self.market.disputes(task):
            if self.market.pending(dispute.id):
                moved |= self.play(dispute, partial(self.witness, task, dispute.run))
        return moved

    def witness(self, task: int, run: int) -> Witness:
        """What this solver shows of a run: a replay from its own checkpoint."""
        spec = self.market.posted(task).spec
        drawn = self.market.runs(task)[run]
        start = self.checkpoints(task).state(drawn.first)
        return self.replay(task, start, spec.steps_between(drawn.first, drawn.count))

    def log(self, task: int, size: int) -> Tree:
        """The checkpoint log with `size` leaves."""
        roots = self.checkpoints(task).roots[:size]
        return Tree(
            [
                leaf_hash(checkpoint_leaf(self.secrets.salt(task, i), root))
                for i, root in enumerate(roots)
            ]
        )

    def openings(self, task: int, indexes: Sequence[int]) -> list[tuple[bytes, bytes, list[bytes]]]:
        """Openings of checkpoints in the complete log."""
        log = self.log(task, self.market.posted(task).spec.segments + 1)
        roots = self.checkpoints(task).roots
        return [(self.secrets.salt(task, i), roots[i], log.inclusion_proof(i)) for i in indexes]

    def serve(self, task: int, index: int) -> None:
        """Puts the state of checkpoint `index` into the task's store."""
        bundle = self.bundle(task)
        state = self.checkpoints(task).state(index)
        program = bundle.program
        self.store(task).put_tensors(state, state_layout(program), program.state_names)

    def checkpoints(self, task: int) -> Checkpoints:
        """This solver's checkpoints of a task, on its own disk."""
        if task not in self._checkpoints:
            where = f"{self.market.chain.chain_id}-{self.market.deployment.market}-{task}"
            directory = self.settings.directory / where
            self._checkpoints[task] = Checkpoints(directory, self.bundle(task))
        return self._checkpoints[task]
