# SPDX-License-Identifier: GPL-3.0-or-later
"""What solvers and verifiers have in common: polling the chain, and what they keep of tasks.

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
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from shutil import disk_usage, rmtree
from tempfile import gettempdir, mkdtemp
from typing import NamedTuple
from weakref import finalize

from protocol import upkeep
from protocol.assessment import Assessment
from protocol.bundle import Bundle, ExecutorFactory
from protocol.endings import Endings
from protocol.errors import ArtifactError
from protocol.execution import Bits, Executor
from protocol.faults import Counts, find_fault
from protocol.feasibility import Limits
from protocol.litigation import Litigant, Progress
from protocol.loaded import Loaded
from protocol.market import Market
from protocol.mirror import Mirror
from protocol.secrets import Secrets
from protocol.slices import SECONDS
from protocol.task import Status, TaskState
from protocol.transfers import Transfers
from protocol.witness import ReplayWitness, Witness

log = logging.getLogger("bitcourt")


def silent(_phase: str, _done: int, _total: int) -> None:
    """Progress that shows nothing."""


class _Duty(NamedTuple):
    """Something that may take long, and waits for the end of a poll."""

    deadline: int
    task: int
    name: str
    make: Callable[[], bool]


class Agent(Litigant):
    """An account that acts in tasks. `poll` makes whatever moves are due."""

    witness_type: type[ReplayWitness] = ReplayWitness

    def __init__(
        self,
        market: Market,
        executor: ExecutorFactory,
        progress: Progress,
        directory: Path | None = None,
        seconds: float = SECONDS,
        limits: Limits | None = None,
    ) -> None:
        """What it fetches is kept in `directory`, or by default as long as the agent lives.

        A poll does long work for about so many `seconds`, and a step at least.
        """
        super().__init__(market, progress, seconds)
        self._directory = directory
        limits = limits or Limits()
        self.assessment = Assessment(
            market, limits, self.store, self.bundle, self.executor, seconds, self._free
        )
        self.secrets = Secrets(market.account, market.chain.chain_id, market.deployment.market)
        self.transfers = Transfers()
        self._make_executor = executor
        self._loaded = Loaded(limits.memory_mib)
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
        self.assessment.begin()
        self.transfers.begin()
        self._later = []
        standing = self._read()
        moved = self.litigate(standing)
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
            self.forget(task)
        return acted

    def forget(self, task: int) -> None:
        """Deletes all that is kept of a task that has ended for good, as far as possible."""
        self._loaded.forget(self.market.posted(task).spec)
        rmtree(self.folder(task), ignore_errors=True)

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
        """All bytes of a task, fetched and checked, and kept as long as there is memory."""
        spec = self.market.posted(task).spec
        return self._loaded.bundle(spec, lambda: Bundle.fetch(self.store(task), spec))

    def executor(self, task: int) -> Executor:
        """The executor of a task's program."""
        spec = self.market.posted(task).spec

        def make() -> Executor:
            bundle = self.bundle(task)
            return self._make_executor(bundle.program, bundle.inputs(spec.seed))

        return self._loaded.executor(spec, make)

    def _free(self) -> int:
        """Bytes that are free on the disk where it keeps what it has."""
        place = self._directory or Path(gettempdir())
        while not place.exists():
            place = place.parent
        return disk_usage(place).free

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

    def move_on(self, task: int, state: TaskState, patience: int = 0) -> bool:
        """Makes a call that the task waits for, if anybody may make it and nobody else did.

        `patience` are the blocks that the solver has for the draw.
        """
        if upkeep.move_on(self.market, task, state, patience):
            return True
        return any(self.expire(dispute) for dispute in self.pending(task, state))
