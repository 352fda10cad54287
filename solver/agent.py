# SPDX-License-Identifier: GPL-3.0-or-later
"""The solver: bids, trains, commits, opens, defends. What to do next follows from the chain alone.

`Solver.handlers` is the whole behaviour: for each status of a task, what a solver does. `poll` asks
the chain for each task's status and makes the moves that are due, so a solver that was killed at
any moment goes on where the chain says it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protocol import upkeep
from protocol.agent import Agent, Progress, log, silent
from protocol.assessment import Assessment
from protocol.audit import CheckpointLog, in_round
from protocol.bundle import ExecutorFactory, state_layout
from protocol.commitments import state_tree
from protocol.errors import ChainError, InfeasibleError, said
from protocol.feasibility import Limits
from protocol.market import Market, OpenDispute, Posted
from protocol.rules import QUORUM
from protocol.task import Demand, SeatState, Status, TaskState, is_lacking
from protocol.tensor_tree import chunk, tensor_tree
from protocol.witness import Witness
from solver.bidding import Bidder
from solver.checkpoints import Checkpoints


@dataclass
class Settings:
    """What a solver's owner chooses. Amounts are in the smallest unit of the market's currency."""

    directory: Path
    """Where checkpoints are kept."""
    price: Callable[[Posted], int] = lambda posted: posted.spec.budget
    """Bid for a task; no bid is made above its budget. What a task costs this solver is best."""
    by_ask: bool = False
    """Enter the standing ask where it fits, instead of sealing bids."""
    commits: int = 1
    """How many times the checkpoint log is committed in each progress window."""
    tasks: set[int] = field(default_factory=set)
    """Only these tasks; all if empty."""
    limits: Limits = field(default_factory=Limits)
    """What a task may ask for at the most; see also `protocol.feasibility`."""


class Solver(Agent):
    """One solver at one market."""

    bidder_type = Bidder

    def __init__(
        self,
        market: Market,
        executor: ExecutorFactory,
        settings: Settings,
        progress: Progress = silent,
    ) -> None:
        super().__init__(market, executor, progress, settings.directory)
        self.settings = settings
        self.assessment = Assessment(
            market, settings.limits, self.store, self.bundle, self.executor
        )
        self.bidder = self.bidder_type(
            market,
            self.secrets,
            settings.price,
            self.check,
            settings.directory,
            settings.by_ask,
            self.assessment.beside,
        )
        self._checkpoints: dict[int, Checkpoints] = {}
        self._published: set[bytes] = set()

    @property
    def handlers(self) -> dict[Status, Callable[[int, TaskState], bool]]:
        """What to do in each status of a task that this solver trains."""
        return {
            Status.BIDDING: self.train,  # the first commitment ends the bidding
            Status.TRAINING: self.train,
            Status.COMMITTED: self.draw,
            Status.STARTING: self.open_starts,
            Status.SEALING: self.open_ends,
            Status.REVEALING: self.proceed,
            Status.WINDOW: self.wait_for_challenges,
        }

    def act(self, task: int, state: TaskState) -> bool:
        """Makes the moves that are due in one task; True if it made one."""
        if self.settings.tasks and task not in self.settings.tasks:
            return False
        if state.status.final:
            return self.bidder.close(task, state)
        if not self._has_won(task, state):
            return state.status == Status.BIDDING and self.bidder.act(task, state)
        if state.status == Status.CONVICTED:
            return False  # nothing that is still open can change that
        if self._train_again(task, state):
            return True
        moved = self.answer(task, state)
        moved |= self.litigate(task, state)
        return self.handlers[state.status](task, state) or moved

    def check(self, task: int) -> None:
        """Raises unless this machine holds a task, can train it and defend it in time, and its
        owner admits the terms.
        """
        self.assessment.of_solver(task)

    def train(self, task: int, state: TaskState) -> bool:
        """Trains the next segment, and commits the log when all are there that are due.

        Only a segment each time, so that no other task, and no dispute, waits for a whole window.
        """
        spec = self.market.posted(task).spec
        complete = spec.complete(state.settled)
        share = -(-(complete - 1 - state.settled) // self.settings.commits)
        target = min(complete, max(state.log_size, 1) + share)
        try:
            if self._may_decline(task, state):
                self.check(task)  # the ask may have won while this agent did not look
            if self.checkpoints(task).begun < target:
                self._train_segment(task)
                if self.checkpoints(task).begun < target:
                    return True
        except ChainError:
            raise
        except Exception as error:  # whatever keeps it from computing this
            if self.void(task):
                return True
            if not self._may_decline(task, state):
                raise
            return self._decline(task, state, error)
        tree, old = self.log(task, target).tree, state.log_size
        proof = tree.inclusion_proof(0) if old == 0 else tree.consistency_proof(old)
        self.market.send_for("append", task, target, tree.root, proof)
        return True

    def draw(self, task: int, state: TaskState) -> bool:
        """Draws, and opens the start of each drawn run with the same transaction."""
        if self.market.chain.block <= state.draw_block:
            return False
        spec = self.market.posted(task).spec
        runs = self.market.view("draw", task, spec.as_abi(), [])
        replaces = SeatState.SEALED in in_round(self.market.seats(task), state.round)
        starts = [] if replaces else [first for first, _, _ in runs]
        self.market.send_for("draw", task, self.openings(task, state, starts))
        return True

    def open_starts(self, task: int, state: TaskState) -> bool:
        """Serves and opens the checkpoint before each run, if somebody else has drawn."""
        starts = [run.first for run in self.market.runs(task, state.round)]
        self.market.send_for("openStarts", task, self.openings(task, state, starts))
        return True

    def open_ends(self, task: int, state: TaskState) -> bool:
        """Opens the ends when all drawn verifiers have sealed or may not seal any more."""
        states = in_round(self.market.seats(task), state.round)
        if SeatState.DRAWN in states and self.market.chain.now <= state.deadline:
            return False
        if states.count(SeatState.SEALED) < QUORUM:
            return self.proceed(task, state)
        ends = [run.first + run.count for run in self.market.runs(task, state.round)]
        *openings, final = self.openings(task, state, [*ends, state.log_size - 1])
        self.market.send_for("openEnds", task, openings, final)
        return True

    def proceed(self, task: int, state: TaskState) -> bool:
        """Makes the call that the task waits for once the verifiers' time is over."""
        return upkeep.proceed(self.market, task, state)

    def wait_for_challenges(self, task: int, state: TaskState) -> bool:
        """Shows all that was audited, so that anybody can challenge it, and settles afterwards."""
        return self.publish(task, state) or self.proceed(task, state)

    def publish(self, task: int, state: TaskState) -> bool:
        """Serves the progress window's states, and salt and root of every leaf of the log.

        Nothing of this is shown while a verifier may still be drawn for any of it.
        """
        if state.log_root in self._published or is_lacking(self.market.seats(task), state.round):
            return False
        store = self.store(task)
        shows = not store.has_log(state.log_root)
        if shows:
            for leaf in range(state.settled, state.log_size):
                self.serve(task, leaf)
            store.put_log(self.log(task, state.log_size).leaves)
        self._published.add(state.log_root)
        return shows

    def answer(self, task: int, state: TaskState) -> bool:
        """Posts the chunks that were demanded in time."""
        moved = False
        for demand in self.market.demands(task) if state.open else ():
            if self.market.chain.now <= demand.deadline:
                self._answer(task, state, demand)
                moved = True
        return moved

    def _answer(self, task: int, state: TaskState, demand: Demand) -> None:
        tensors = self.checkpoints(task).state(demand.leaf)
        tree = tensor_tree(tensors[demand.tensor])
        (opening,) = self.openings(task, state, [demand.leaf])
        self.market.send(
            "answer",
            demand.id,
            self.market.posted(task).spec.as_abi(),
            opening,
            tree.root,
            state_tree(tensors).inclusion_proof(demand.tensor),
            chunk(tensors[demand.tensor], demand.chunk),
            tree.inclusion_proof(demand.chunk),
        )

    def witness(self, dispute: OpenDispute) -> Witness:
        """What this solver shows of the disputed segments: a replay from its own checkpoint."""
        spec = self.market.posted(dispute.task).spec
        start = self.checkpoints(dispute.task).state(dispute.first)
        return self.replay(dispute.task, start, spec.steps_between(dispute.first, dispute.count))

    def log(self, task: int, size: int) -> CheckpointLog:
        """The checkpoint log with `size` leaves."""
        roots = self.checkpoints(task).roots[:size]
        return CheckpointLog([self.secrets.salt(task, i) for i in range(size)], roots)

    def openings(
        self, task: int, state: TaskState, leaves: Sequence[int]
    ) -> list[tuple[bytes, bytes, list[bytes]]]:
        """Openings of checkpoints in the log that is on chain, after their states are served."""
        for leaf in leaves:
            self.serve(task, leaf)
        log = self.log(task, state.log_size)
        return [log.opening(leaf).as_abi() for leaf in leaves]

    def serve(self, task: int, leaf: int) -> None:
        """Puts the state of a checkpoint into the task's store."""
        program = self.bundle(task).program
        state = self.checkpoints(task).state(leaf)
        self.store(task).put_tensors(state, state_layout(program), program.state_names)

    def checkpoints(self, task: int) -> Checkpoints:
        """This solver's checkpoints of a task, on its own disk."""
        if task not in self._checkpoints:
            self._checkpoints[task] = Checkpoints(self.folder(task), self.bundle(task))
        return self._checkpoints[task]

    def _has_won(self, task: int, state: TaskState) -> bool:
        if state.solver != self.market.address:
            return False
        end = state.deadline + self.market.posted(task).spec.bid_window
        return state.status != Status.BIDDING or self.market.chain.now > end

    def _train_segment(self, task: int) -> None:
        spec, checkpoints, executor = (
            self.market.posted(task).spec,
            self.checkpoints(task),
            self.executor(task),
        )
        segment, state = checkpoints.take()
        for step in spec.steps_between(segment, 1):
            executor.update(state, step)
        checkpoints.begin(state)  # hashed while the next segment is trained
        self.progress("train", segment + 1, spec.segments)

    def _train_again(self, task: int, state: TaskState) -> bool:
        """Trains a segment whose checkpoint was committed and is lost; True if there was one."""
        if state.log_size == 0 or self.checkpoints(task).begun >= state.log_size:
            return False
        self._train_segment(task)
        return True

    def _may_decline(self, task: int, state: TaskState) -> bool:
        if state.status == Status.BIDDING:
            return state.by_ask
        half = self.market.posted(task).spec.train_window // 2
        in_time = self.market.chain.now <= state.deadline - half
        return state.by_ask and state.log_size == 0 and in_time

    def _decline(self, task: int, state: TaskState, error: Exception) -> bool:
        """Gives back a task that somebody entered this solver's ask for, and that it cannot train.

        What keeps it may pass: a quarter of the training window is waited for that, unless the
        error says that this machine can never do it.
        """
        if state.status == Status.BIDDING:
            self.market.send_for("assign", task)
            return True
        left = state.deadline - self.market.chain.now
        passes = not isinstance(error, InfeasibleError)
        if passes and 4 * left > 3 * self.market.posted(task).spec.train_window:
            return False
        log.warning("task %s: declined: %s", task, said(error))
        self.market.send_for("decline", task)
        return True
