# SPDX-License-Identifier: GPL-3.0-or-later
"""The drawn runs of one audit, replayed segment by segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protocol.commitments import state_root
from protocol.execution import Bits, Executor
from protocol.task import Run, TaskSpec


class Replay:
    """State roots at the ends of some runs. An error leaves all as it was before the call."""

    def __init__(
        self, spec: TaskSpec, executor: Executor, runs: Sequence[Run], starts: Sequence[bytes]
    ) -> None:
        self.roots: list[bytes] = []
        """Of the runs that are done."""
        self._spec = spec
        self._executor = executor
        self._todo = list(zip(runs, starts, strict=True))
        self._segment = 0
        """How many of the current run's are done."""
        self._state: list[Bits] = []

    @property
    def complete(self) -> bool:
        """True if all runs are done."""
        return len(self.roots) == len(self._todo)

    def advance(
        self, fetch: Callable[[bytes], list[Bits]], progress: Callable[[int, int], None]
    ) -> None:
        """Replays the next segment.

        `fetch` gets the state with the root that a run starts from, in arrays of this replay's own.
        `progress` is called with the steps that are done, and how many there are in all.
        """
        run, start = self._todo[len(self.roots)]
        # A copy is stepped in place, so that an error in between leaves the state as it was.
        current = [tensor.copy() for tensor in self._state] if self._segment else fetch(start)
        done, total = self._steps()
        for step in self._spec.steps_between(run.first + self._segment, 1):
            self._executor.update(current, step)
            done += 1
            progress(done, total)
        self._segment, self._state = self._segment + 1, current
        if self._segment == run.count:
            self.roots.append(state_root(current))
            self._segment, self._state = 0, []

    def _steps(self) -> tuple[int, int]:
        """Steps that are done, and all."""
        between, at = self._spec.steps_between, len(self.roots)
        counts = [len(between(run.first, run.count)) for run, _ in self._todo]
        done = sum(counts[:at])
        if self._segment:
            done += len(between(self._todo[at][0].first, self._segment))
        return done, sum(counts)
