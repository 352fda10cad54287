# SPDX-License-Identifier: GPL-3.0-or-later
"""States that are hashed and written by a thread of their own while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from protocol.execution import Bits
from protocol.program import Program
from protocol.store import Layout, Store


class StateWriter:
    """Puts states of one program into a store, one after the other, each in the background.

    At most one is on its way, so that a slow disk holds training up instead of filling the memory.
    """

    def __init__(
        self, store: Store, program: Program, layout: Layout, damaged: Container[bytes] = ()
    ) -> None:
        """Write to `store`; files of the roots in `damaged` are replaced."""
        self._store, self._damaged = store, damaged
        self._layout, self._names = layout, program.state_names
        self._thread = ThreadPoolExecutor(1, "bitcourt-checkpoint")
        self._pending: Future[None] | None = None
        self._writing: Sequence[Bits] | None = None

    def begin(self, state: Sequence[Bits], done: Callable[[bytes], None]) -> None:
        """Begin to write a state; `done`, called in that thread, then gets its root.

        Nobody may write to these arrays before it is done: see `writable`. Waits for the state
        before, and raises its error if that failed: then this one is not begun.
        """
        self.settle()
        self._writing = state
        self._pending = self._thread.submit(self._write, state, done)

    def settle(self) -> None:
        """Wait until what was begun is stored, and `done` with; raise the error if it failed."""
        if self._pending is not None:
            try:
                self._pending.result()
            finally:
                if self._pending.done():  # else the waiting was interrupted
                    self._pending = None

    def writable(self, state: list[Bits]) -> list[Bits]:
        """Return a state in arrays that may be written to: a copy only while it is being stored."""
        return [tensor.copy() for tensor in state] if state is self._writing else state

    def _write(self, state: Sequence[Bits], done: Callable[[bytes], None]) -> None:
        try:
            # On one thread: the others are training.
            done(self._store.put_tensors(state, self._layout, self._names, 1, self._damaged))
        finally:
            if self._writing is state:
                self._writing = None
