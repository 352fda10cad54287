# SPDX-License-Identifier: GPL-3.0-or-later
"""Long work in slices: an agent is one thread, and others' clocks do not wait for its replays.

Whatever takes steps (training, the replay of a drawn run) is an iterator that yields after each of
them. It goes on as long as the slice of a poll lasts, and is kept until the next poll.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from typing import Final

SECONDS: Final = 2.0
"""Of long work in each poll; a step that takes longer is finished all the same."""
HELD: Final = 4
"""Pieces of work that are kept unfinished, each with a state in memory."""

_DONE: Final = object()


class Slice:
    """The time for long work in one poll. It begins with the first step."""

    def __init__(
        self, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._clock = seconds, clock
        self._end: float | None = None

    def begin(self) -> None:
        """A new poll begins."""
        self._end = None

    def take(self) -> bool:
        """True if another step may be made in this poll, as the first always may."""
        now = self._clock()
        if self._end is None:
            self._end = now + self._seconds
            return True
        return now < self._end


class Workbench:
    """Pieces of long work that are not finished yet."""

    def __init__(self, time_slice: Slice, held: int = HELD) -> None:
        self.slice = time_slice
        self._held = held
        self._unfinished: dict[Hashable, Iterator[object]] = {}

    def advance(self, key: Hashable, begin: Callable[[], Iterator[object]]) -> bool:
        """Goes on with a piece of work, or begins it; True if it is finished.

        An error ends it, and the next call begins anew. So it does if so many others were begun
        meanwhile that this one was dropped: the work that was left alone for longest goes first.
        """
        work = self._unfinished.pop(key, None)
        while self.slice.take():
            work = work or begin()
            if next(work, _DONE) is _DONE:
                return True
        if work is not None:
            self._unfinished[key] = work
            while len(self._unfinished) > self._held:
                del self._unfinished[next(iter(self._unfinished))]
        return False
