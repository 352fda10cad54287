# SPDX-License-Identifier: GPL-3.0-or-later
"""What an agent has in memory of the tasks it has looked at: bundles and executors.

Whoever posts tasks must not be able to fill the memory of all who read them: what has not been used
for longest is dropped, and made again from the agent's own directory if it is needed once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from protocol.bundle import Bundle
from protocol.execution import Executor
from protocol.task import TaskSpec


@dataclass
class _Entry:
    mib: int
    bundle: Bundle | None = None
    executor: Executor | None = None


class Loaded:
    """Bundles and executors by terms, which bind all that they are made of."""

    def __init__(self, limit: int) -> None:
        """`limit` are MiB, as the terms of all tasks together state them."""
        self._limit = limit
        self._entries: dict[bytes, _Entry] = {}

    def bundle(self, spec: TaskSpec, fetch: Callable[[], Bundle]) -> Bundle:
        """The bundle of a task, fetched unless it is here."""
        entry = self._use(spec)
        if entry.bundle is None:
            entry.bundle = fetch()
        return entry.bundle

    def executor(self, spec: TaskSpec, make: Callable[[], Executor]) -> Executor:
        """The executor of a task, made unless it is here."""
        entry = self._use(spec)
        if entry.executor is None:
            entry.executor = make()
        return entry.executor

    def forget(self, spec: TaskSpec) -> None:
        """Drops what is here of a task."""
        self._entries.pop(spec.hash, None)

    def _use(self, spec: TaskSpec) -> _Entry:
        """Makes a task the one that was used last, and room for it before it is loaded."""
        entry = self._entries.pop(spec.hash, None) or _Entry(max(1, spec.memory_mib))
        total = entry.mib + sum(other.mib for other in self._entries.values())
        while self._entries and total > self._limit:
            total -= self._entries.pop(next(iter(self._entries))).mib
        self._entries[spec.hash] = entry
        return entry
