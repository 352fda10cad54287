# SPDX-License-Identifier: GPL-3.0-or-later
"""Tensor trees by the quickest way there is: both ways give the same bytes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from protocol.hashing import native, portable

PATIENCE: Final = 1 << 24
"""Bytes that a process hashes with hashlib before native code is worth loading."""


class _Meter:
    """How much has been hashed so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hashed = 0

    def choose(self, size: int) -> native.NativeTrees | None:
        """Count so many bytes more, and return the native code if it is there and worth it."""
        with self._lock:
            self._hashed += size
            return native.load() if self._hashed >= PATIENCE else None


_METER: Final = _Meter()


def roots(views: Sequence[memoryview], threads: int | None = None) -> list[bytes]:
    """Return the root of the tensor tree over each buffer of at least one byte.

    The data is read in place. `threads` (by default one for each CPU) never changes a result.
    """
    chosen = _METER.choose(sum(len(view) for view in views))
    if chosen is None:
        return [portable.levels(view)[-1] for view in views]
    return chosen.roots(views, threads or native.cores()) if views else []


def levels(view: memoryview, threads: int | None = None) -> list[bytes]:
    """Return all levels of the tensor tree over a buffer, packed hashes, from the leaves up."""
    chosen = _METER.choose(len(view))
    if chosen is None:
        return portable.levels(view)
    return chosen.levels(view, threads or native.cores())
