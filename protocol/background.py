# SPDX-License-Identifier: GPL-3.0-or-later
"""States that are hashed and stored by a thread of their own while training goes on.

The copy of a state that this takes is its file: training waits until that is written, as far as the
system's cache, and goes on in the same memory while the file is read again, hashed and named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from protocol.execution import Bits
from protocol.program import Program
from protocol.store import Layout, Store


class StateWriter:
    """Puts states of one program into a store, which is best a directory, one after the other.

    At most one is on its way, so that hashing that is too slow holds training up.
    """

    def __init__(self, store: Store, program: Program, layout: Layout) -> None:
        self._store = store
        self._layout, self._names = layout, program.state_names
        self._thread = ThreadPoolExecutor(1, "bitcourt-checkpoint")
        self._pending: Future[None] | None = None

    def begin(self, state: Sequence[Bits], done: Callable[[bytes], None]) -> None:
        """Begin to store a state, whose arrays are the caller's again when this returns.

        `done`, called in that thread, gets its root when it is stored. Waits for the state before,
        and raises its error if that failed, or ArtifactError if this one cannot be written: then it
        is not begun.
        """
        self.settle()
        draft = self._store.draft_tensors(state, self._layout, self._names)
        self._pending = self._thread.submit(self._finish, draft, done)

    def settle(self) -> None:
        """Wait until what was begun is stored, and `done` with; raise the error if it failed."""
        if self._pending is not None:
            try:
                self._pending.result()
            finally:
                if self._pending.done():  # else the waiting was interrupted
                    self._pending = None

    def _finish(self, draft: str, done: Callable[[bytes], None]) -> None:
        done(self._store.name_tensors(draft, self._layout, threads=1))  # the others are training
