# SPDX-License-Identifier: GPL-3.0-or-later
"""What comes from a store or goes to it, in threads of their own.

Whoever posts a task chooses its store, which may answer as slowly as it likes. An agent waits only
so long in each poll, for what it has asked for in that poll, and looks in the next whether the rest
is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from threading import Thread
from typing import Any, Final, TypeVar

from protocol.errors import ArtifactError

SECONDS: float = 2.0
"""That a poll waits for stores in all."""
MOST: Final = 256
"""Transfers under way at a time."""

_Result = TypeVar("_Result")


class Underway(ArtifactError):
    """A transfer has begun and is not done: ask again."""


class Transfers:
    """Transfers of one agent by what they transfer."""

    def __init__(
        self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`seconds` are those that a poll waits at most, by default SECONDS."""
        self._seconds, self._clock = SECONDS if seconds is None else seconds, clock
        self._end: float | None = None
        self._begun: dict[Hashable, Future[Any]] = {}
        self._done: set[Hashable] = set()
        """Those that were done when the last poll began."""
        self._fresh: set[Hashable] = set()
        """Those that were begun since."""

    def begin(self) -> None:
        """A new poll begins. What was done before the last one, and not asked for, is dropped."""
        self._end = None
        self._fresh.clear()
        done = {key for key, future in self._begun.items() if future.done()}
        for key in done & self._done:
            del self._begun[key]
        self._done = done

    def run(self, key: Hashable, transfer: Callable[[], _Result]) -> _Result:
        """The result of a transfer, or what it raised; begins it unless it has begun.

        Underway is raised while it is not done.
        """
        future = self._begun.get(key)
        if future is None:
            if len(self._begun) >= MOST:
                raise Underway(f"{MOST} transfers from and to stores are under way: no more yet")
            future = self._begun[key] = _started(transfer)
            self._fresh.add(key)
        if key in self._fresh:
            wait([future], self._left())
        if not future.done():
            raise Underway("a store is slow: what it was asked for is still on its way")
        del self._begun[key]
        result: _Result = future.result()
        return result

    def _left(self) -> float:
        """Seconds for which this poll still waits."""
        now = self._clock()
        if self._end is None:
            self._end = now + self._seconds
        return max(0.0, self._end - now)


def _started(transfer: Callable[[], _Result]) -> Future[_Result]:
    """Runs a function in a thread that does not keep the process from ending."""
    future: Future[_Result] = Future()

    def work() -> None:
        try:
            future.set_result(transfer())
        except BaseException as error:  # raised where the result is asked for
            future.set_exception(error)

    Thread(target=work, name="bitcourt-transfer", daemon=True).start()
    return future
