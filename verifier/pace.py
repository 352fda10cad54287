# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a replay will be done in time. Leaving a seat costs nothing, silence costs the stake."""

from __future__ import annotations

from typing import Final

LAST_SHARE: Final = 8
"""The last eighth of a window is none in which anything is still to be replayed."""


class Pace:
    """How fast one replay is, by the chain's clock: other work of this machine counts, too."""

    def __init__(self, window: int) -> None:
        """`window` are the seconds of the phase in which it must be done."""
        self._window = window
        self._begun: tuple[int, int] | None = None

    def begin(self, now: int, done: int) -> None:
        """Work on it begins, with so many steps done by another process."""
        if self._begun is None:
            self._begun = now, done

    def is_hopeless(self, now: int, deadline: int, done: int, total: int) -> bool:
        """True if it cannot be `total` steps at the deadline, as far as can be seen.

        It is never too late before an eighth of the window was spent on it: the first steps wait
        for bytes and compilers. It always is in the last eighth.
        """
        share = self._window // LAST_SHARE
        left = deadline - now - share
        if left <= 0:
            return True
        if self._begun is None:
            return False
        spent, made = now - self._begun[0], done - self._begun[1]
        return spent >= share and made > 0 and spent * (total - done) > left * made
