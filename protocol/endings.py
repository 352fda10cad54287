# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tasks have ended for good: a reorganization of the chain can take an end back.

What an agent keeps of a task is evidence until then.
"""

from __future__ import annotations

from typing import Final

from protocol.task import TaskState

KEPT_BLOCKS: Final = 64
"""For so many blocks a task's end must stand: two epochs, after which Ethereum calls it final."""


class Endings:
    """Ends of tasks as they were seen."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[TaskState, int]] = {}
        """State of each task that seems to have ended, and the block in which it was seen first."""
        self._stand: set[int] = set()

    def stand(self, task: int) -> bool:
        """True if a task has ended for good."""
        return task in self._stand

    def seen(self, task: int, state: TaskState) -> bool:
        """True if there was nothing left to do in this state of a task."""
        return task in self._seen and self._seen[task][0] == state

    def note(self, task: int, state: TaskState, block: int) -> bool:
        """Notes that nothing is left to do in a task that has ended; True if that stands now."""
        if not self.seen(task, state):
            self._seen[task] = state, block
        if block - self._seen[task][1] < KEPT_BLOCKS:
            return False
        del self._seen[task]
        self._stand.add(task)
        return True
