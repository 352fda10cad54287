# SPDX-License-Identifier: GPL-3.0-or-later
"""States that are opened on chain and belong into the store, which may not take them.

The submitter chose the store. What it refuses, for whatever reason, must not cost the solver its
stake: openings go to the chain first, and uploads are tried again as long as anybody may need them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from protocol.slices import Workbench
from protocol.transfers import Underway

PAUSE: Final = 60
"""Seconds of the chain's time after which a state is offered again, at first."""


class Uploads:
    """What one solver has opened, and the stores of its tasks have not taken yet."""

    def __init__(
        self,
        serve: Callable[[int, int], None],
        now: Callable[[], int],
        work: Workbench,
    ) -> None:
        """`serve` puts the state in a leaf of a task into its store, unless it is there."""
        self._serve, self._now, self._work = serve, now, work
        self._wanted: dict[int, dict[int, None]] = {}
        self._rests: dict[int, tuple[int, int]] = {}
        """By task: until when no state is offered, and for how long next time."""

    def want(self, task: int, leaves: Iterable[int]) -> None:
        """States that are to be in the store."""
        self._wanted.setdefault(task, {}).update(dict.fromkeys(leaves))

    def due(self, task: int) -> bool:
        """True if there is a state to offer, and the store has rested."""
        return bool(self._wanted.get(task)) and self._now() >= self._rests.get(task, (0, 0))[0]

    def offer(self, task: int) -> bool:
        """Offers what is wanted; True if there is more to do.

        Raises whatever the store raises when it refuses a state, and lets it rest then.
        """
        wanted = self._wanted.get(task, {})
        for leaf in list(wanted) if self.due(task) else ():
            if not self._work.slice.take():
                return True
            try:
                self._serve(task, leaf)
            except Underway:
                return False
            except Exception:
                wanted[leaf] = wanted.pop(leaf)  # after all others
                pause = self._rests.get(task, (0, PAUSE))[1]
                self._rests[task] = self._now() + pause, 2 * pause
                raise
            del wanted[leaf]
        if not wanted:
            self._rests.pop(task, None)
        return False

    def forget(self, task: int) -> None:
        """Nobody needs anything of a task any more."""
        self._wanted.pop(task, None)
