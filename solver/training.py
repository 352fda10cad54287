# SPDX-License-Identifier: GPL-3.0-or-later
"""Training in slices, into checkpoints on the solver's own disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from protocol.bundle import Bundle
from protocol.errors import ArtifactError
from protocol.execution import Executor
from protocol.litigation import Progress
from protocol.market import Market
from protocol.slices import Workbench
from protocol.task import TaskState
from solver.checkpoints import Checkpoints


class Trainer:
    """Trains the tasks of one solver, each from its newest checkpoint on."""

    def __init__(
        self,
        market: Market,
        work: Workbench,
        folder: Callable[[int], Path],
        bundle: Callable[[int], Bundle],
        executor: Callable[[int], Executor],
        progress: Progress,
    ) -> None:
        """`folder`, `bundle` and `executor` are an agent's: see `protocol.agent.Agent`."""
        self._market = market
        self._work = work
        self._folder = folder
        self._bundle = bundle
        self._executor = executor
        self._progress = progress
        self._checkpoints: dict[Path, Checkpoints] = {}

    def checkpoints(self, task: int) -> Checkpoints:
        """The checkpoints of a task; its bundle is fetched if they were not looked for before."""
        place = self._folder(task)
        if place not in self._checkpoints:
            self._checkpoints[place] = Checkpoints(place, self._bundle(task))
        return self._checkpoints[place]

    def begun(self, task: int) -> int:
        """How many checkpoints there are; none before they were looked for."""
        found = self._checkpoints.get(self._folder(task))
        return found.begun if found is not None else 0

    def has_lost(self, task: int, state: TaskState) -> bool:
        """True if a checkpoint that was committed is not there, and has to be trained again."""
        return state.log_size > 0 and self.checkpoints(task).begun < state.log_size

    def advance(self, task: int) -> bool:
        """Goes on with the next segment while the slice lasts; True if it is trained."""
        return self._work.advance(("training", self._folder(task)), partial(self._train, task))

    def _train(self, task: int) -> Iterator[None]:
        spec, checkpoints = self._market.posted(task).spec, self.checkpoints(task)
        executor = self._executor(task)
        segment, state = checkpoints.take()
        for step in spec.steps_between(segment, 1):
            executor.update(state, step)
            yield
        checkpoints.begin(state)  # hashed while the next segment is trained
        self._progress("train", segment + 1, spec.segments)

    def forget(self, task: int) -> None:
        """Does nothing more for a task, whose checkpoints may be deleted then."""
        found = self._checkpoints.pop(self._folder(task), None)
        if found is not None:
            with suppress(ArtifactError):
                found.settle()
