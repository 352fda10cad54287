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

from protocol import upkeep
from protocol.agent import Agent, silent
from protocol.audit import CheckpointLog, in_round
from protocol.bundle import ExecutorFactory, state_layout
from protocol.commitments import state_tree
from protocol.errors import ArtifactError, ChainError
from protocol.feasibility import Limits
from protocol.litigation import Progress
from protocol.market import Market, OpenDispute, Posted
from protocol.rules import QUORUM
from protocol.slices import SECONDS
from protocol.task import Demand, SeatState, Status, TaskState, is_audited_again
from protocol.tensor_tree import chunk, tensor_tree
from protocol.witness import Witness
from solver.bidding import Bidder
from solver.checkpoints import Checkpoints
from solver.declining import decline, may_decline
from solver.training import Trainer
from solver.uploads import Uploads


@dataclass
class Settings:
    """What a solver's owner chooses. Amounts are in the smallest unit of the market's currency."""

    directory: Path
    """Where checkpoints are kept, until their task has ended for good."""
    price: Callable[[Posted], int] = lambda posted: posted.spec.budget
    """Bid for a task; no bid is made above its budget. What a task costs this solver is best."""
    by_ask: bool = False
    """Enter the standing ask where it fits, instead of sealing bids."""
    commits: int = 1
    """How many times the checkpoint log is committed in each progress window."""
    tasks: set[int] = field(default_factory=set)
    """Bids for these tasks only; for all if empty. It does its part in whatever it has won."""
    slice: float = SECONDS
    """Seconds of training after which everything else is looked at."""
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
        super().__init__(
            market, executor, progress, settings.directory, settings.slice, settings.limits
        )
        self.settings = settings
        self.bidder = self.bidder_type(
            market,
            self.secrets,
            settings.price,
            self.check,
            settings.directory,
            settings.by_ask,
            self.assessment,
        )
        self.trainer = Trainer(market, self.work, self.folder, self.bundle, self.executor, progress)
        self._published: set[bytes] = set()
        self._windows: dict[tuple[bytes, int], int] = {}
        """Block in which the window after a round was first seen open."""
        self.uploads = Uploads(self.serve, lambda: market.chain.now, self.work)
        self._shown: set[tuple[bytes, int, Status]] = set()

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
        if state.status.final:
            self.uploads.forget(task)
            return self.bidder.close(task, state)
        if not self._has_won(task, state):
            wanted = not self.settings.tasks or task in self.settings.tasks
            return state.status == Status.BIDDING and self._bid(task, state, wanted)
        if state.status == Status.CONVICTED:
            return False  # nothing that is still open can change that
        if self.trainer.has_lost(task, state):
            # All else needs them.
            again = partial(self.trainer.advance, task)
            self.later(task, self.market.chain.now, "training", lambda: again() or True)
            return False
        moved = self.answer(task, state)
        self._keep_serving(task, state)
        handler = partial(self.handlers[state.status], task, state)
        return self.complaints.attempt(task, state.status.name, handler) or moved

    def litigates(self, task: int, state: TaskState) -> bool:
        """True if this solver defends itself in a task."""
        over = state.status == Status.CONVICTED or state.status.final
        return bool(state.open) and not over and self._has_won(task, state)

    def _bid(self, task: int, state: TaskState, wanted: bool) -> bool:
        """Bids; what has to be fetched and compiled before waits for the end of the poll."""
        act = partial(self.bidder.act, task, state, wanted)
        if self.market.chain.now > state.deadline:
            return act()
        self.later(task, state.deadline, "bidding", act)
        return False

    def check(self, task: int) -> None:
        """Raises unless this machine holds a task, can train it and defend it in time, and its
        owner admits the terms.
        """
        self.assessment.of_solver(task)

    def train(self, task: int, state: TaskState) -> bool:
        """Commits the log when all checkpoints are there that are due; trains until then."""
        target = self._target(task, state)
        if self.trainer.begun(task) >= target:
            return self._commit(task, state, target)
        self.later(task, state.deadline, "training", partial(self._train_on, task, state, target))
        return False

    def _train_on(self, task: int, state: TaskState, target: int) -> bool:
        """Trains as long as the slice lasts, and commits the log after the last segment."""
        try:
            if may_decline(self.market, task, state):
                self.check(task)  # the ask may have won while this agent did not look
            while self.checkpoints(task).begun < target:
                if not self.trainer.advance(task):
                    return True
        except ChainError:
            raise
        except Exception as error:  # whatever keeps it from computing this
            if self.void(task):
                return True
            if not may_decline(self.market, task, state):
                raise
            return decline(self.market, task, state, error)
        return self._commit(task, state, target)

    def _target(self, task: int, state: TaskState) -> int:
        """How many leaves the log will have that is committed next."""
        complete = self.market.posted(task).spec.complete(state.settled)
        share = -(-(complete - 1 - state.settled) // self.settings.commits)
        return min(complete, max(state.log_size, 1) + share)

    def _commit(self, task: int, state: TaskState, target: int) -> bool:
        tree, old = self.log(task, target).tree, state.log_size
        proof = tree.inclusion_proof(0) if old == 0 else tree.consistency_proof(old)
        self.market.send_for("append", task, target, tree.root, proof)
        return True

    def draw(self, task: int, state: TaskState) -> bool:
        """Draws, and opens the start of each drawn run with the same transaction."""
        if self.market.chain.block <= state.draw_block:
            return False
        if upkeep.is_busy(self.market, task, state):
            return False
        spec = self.market.posted(task).spec
        runs = self.market.view("draw", task, spec.as_abi(), [])
        replaces = SeatState.SEALED in in_round(self.market.seats(task), state.round)
        starts = [] if replaces else [first for first, _, _ in runs]
        self.market.send_for("draw", task, self.openings(task, state, starts))
        self.serve_later(task, starts)
        return True

    def open_starts(self, task: int, state: TaskState) -> bool:
        """Opens and serves the checkpoint before each run, if somebody else has drawn."""
        starts = [run.first for run in self.market.runs(task, state.round)]
        self.market.send_for("openStarts", task, self.openings(task, state, starts))
        self.serve_later(task, starts)
        return True

    def open_ends(self, task: int, state: TaskState) -> bool:
        """Opens the ends when all drawn verifiers have sealed or may not seal any more."""
        states = in_round(self.market.seats(task), state.round)
        if SeatState.DRAWN in states and self.market.chain.now <= state.deadline:
            return False
        if states.count(SeatState.SEALED) < QUORUM:
            return self.proceed(task, state)
        leaves = [*self._ends(task, state), state.log_size - 1]
        *openings, final = self.openings(task, state, leaves)
        self.market.send_for("openEnds", task, openings, final)
        self.serve_later(task, leaves)
        return True

    def _ends(self, task: int, state: TaskState) -> list[int]:
        return [run.first + run.count for run in self.market.runs(task, state.round)]

    def proceed(self, task: int, state: TaskState) -> bool:
        """Makes the call that the task waits for once the verifiers' time is over."""
        return upkeep.proceed(self.market, task, state)

    def wait_for_challenges(self, task: int, state: TaskState) -> bool:
        """Shows all that was audited, so that anybody can challenge it, and settles afterwards."""
        if state.log_root in self._published:
            return self.proceed(task, state)
        self.later(task, state.deadline, "publishing", partial(self._publish_on, task, state))
        return False

    def _publish_on(self, task: int, state: TaskState) -> bool:
        """Publishes or, also if the store refuses what is published, makes the call that is due."""
        publish = partial(self.publish, task, state)
        return self.complaints.attempt(task, "publication", publish) or self.proceed(task, state)

    def publish(self, task: int, state: TaskState) -> bool:
        """Serves the progress window's states, and salt and root of every leaf of the log.

        Nothing of this is shown while a verifier may still be drawn for any of it, nor before the
        window's opening is confirmed: a reorganization could draw anew.
        """
        spec, seats = self.market.posted(task).spec, self.market.seats(task)
        if state.log_root in self._published or is_audited_again(spec, state, seats):
            return False
        seen = self._windows.setdefault((state.log_root, state.round), self.market.chain.block)
        if not self.market.shows(seen):
            return False
        store = self.store(task)
        shows = not store.has_log(state.log_root)
        if shows:
            for leaf in range(state.settled, state.log_size):
                self.serve(task, leaf)
            leaves = self.log(task, state.log_size).leaves
            self.transfers.run((self.folder(task), state.log_root), lambda: store.put_log(leaves))
        self._published.add(state.log_root)
        return shows

    def answer(self, task: int, state: TaskState) -> bool:
        """Posts the chunks that were demanded in time."""
        moved = False
        for demand in self.market.demands(task) if state.open else ():
            if self.market.chain.now <= demand.deadline:
                post = partial(self._answer, task, state, demand)
                moved |= self.complaints.attempt(task, f"demand {demand.id}", post)
        return moved

    def _answer(self, task: int, state: TaskState, demand: Demand) -> bool:
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
        self.serve_later(task, [demand.leaf])
        return True

    def witness(self, dispute: OpenDispute) -> Witness:
        """What this solver shows of the disputed segments: a replay from its own checkpoint."""
        spec, own = self.market.posted(dispute.task).spec, self.checkpoints(dispute.task)
        if dispute.first >= len(own):
            raise ArtifactError(f"checkpoint {dispute.first} is lost, and trained again")
        start = own.state(dispute.first)
        return self.replay(dispute.task, start, spec.steps_between(dispute.first, dispute.count))

    def log(self, task: int, size: int) -> CheckpointLog:
        """The checkpoint log with `size` leaves."""
        posted, roots = self.market.posted(task), self.checkpoints(task).roots[:size]
        return CheckpointLog([self.secrets.salt(posted, i) for i in range(size)], roots)

    def openings(
        self, task: int, state: TaskState, leaves: Sequence[int]
    ) -> list[tuple[bytes, bytes, list[bytes]]]:
        """Openings of checkpoints in the log that is on chain."""
        log = self.log(task, state.log_size)
        return [log.opening(leaf).as_abi() for leaf in leaves]

    def serve_later(self, task: int, leaves: Sequence[int]) -> None:
        """Serves the states of checkpoints at the end of the poll, and again until it succeeds."""
        self.uploads.want(task, leaves)
        offer = partial(self.uploads.offer, task)
        self.later(task, self.market.chain.now, "upload", offer)

    def _keep_serving(self, task: int, state: TaskState) -> None:
        """Sees to it that the store has what was opened: it may have refused it, or another process
        of this solver may have ended in between.
        """
        phase = state.log_root, state.round, state.status
        if state.status in (Status.SEALING, Status.REVEALING) and phase not in self._shown:
            self._shown.add(phase)
            starts = [run.first for run in self.market.runs(task, state.round)]
            opened = state.status == Status.REVEALING
            ends = [*self._ends(task, state), state.log_size - 1] if opened else []
            self.uploads.want(task, [*starts, *ends])
        if self.uploads.due(task):
            self.serve_later(task, [])

    def forget(self, task: int) -> None:
        """Deletes the checkpoints too."""
        self.trainer.forget(task)
        super().forget(task)

    def serve(self, task: int, leaf: int) -> None:
        """Puts the state of a checkpoint into the task's store."""
        program, checkpoints = self.bundle(task).program, self.checkpoints(task)
        store, layout, names = self.store(task), state_layout(program), program.state_names
        root = checkpoints.roots[leaf]
        # Read by the transfer's thread: a large state takes time, and is read once.
        self.transfers.run(
            (self.folder(task), leaf),
            lambda: store.put_tensors(checkpoints.read(root), layout, names),
        )

    def checkpoints(self, task: int) -> Checkpoints:
        """This solver's checkpoints of a task, on its own disk."""
        return self.trainer.checkpoints(task)

    def _has_won(self, task: int, state: TaskState) -> bool:
        if state.solver != self.market.address:
            return False
        end = state.deadline + self.market.posted(task).spec.bid_window
        return state.status != Status.BIDDING or self.market.chain.now > end
