# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-C between two steps, never within one."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Held:
    """A block that an interrupt waits for; `handle` is the handler of the signal."""

    def __init__(self, before: Any) -> None:
        self._before = before
        self._inside = False
        self._caught: list[tuple[int, FrameType | None]] = []

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Keep the signal for the end of the block, or pass it on."""
        if self._inside:
            self._caught.append((number, frame))
        else:
            self._before(number, frame)

    def __enter__(self) -> None:
        self._inside = True

    def __exit__(self, *_: object) -> None:
        self._inside = False
        if self._caught:
            self._before(*self._caught.pop())


class Interrupts:
    """While this is entered, what comes in a block `with interrupts.held` is raised at its end.

    A step in place that an exception cut short would leave half a state. Only the main thread gets
    signals; where SIGINT has no handler in Python, nothing is changed.
    """

    def __init__(self) -> None:
        self._before = signal.getsignal(signal.SIGINT)
        self.held = Held(self._before)

    def __enter__(self) -> Interrupts:
        self._active = (
            callable(self._before) and threading.current_thread() is threading.main_thread()
        )
        if self._active:
            signal.signal(signal.SIGINT, self.held.handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._active:
            signal.signal(signal.SIGINT, self._before)
