# SPDX-License-Identifier: GPL-3.0-or-later
"""A task's checkpoints on the solver's disk: what is lost with them is time, never money."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from protocol.bundle import Bundle, state_layout
from protocol.errors import ArtifactError
from protocol.execution import Bits
from protocol.files import write_whole
from protocol.store import Store


class Checkpoints:
    """States 0 .. n of a task, one after each segment, kept in a directory by their roots.

    A checkpoint is hashed and written by a thread of its own while training goes on. At most one
    is on its way, so that a slow disk holds training up instead of filling the memory. The index is
    written last: what a killed process leaves is whole up to a checkpoint, from which training goes
    on.
    """

    def __init__(self, directory: Path, bundle: Bundle) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._index = directory / "roots.json"
        self._store = Store(str(directory))
        self._program = bundle.program
        self._layout = state_layout(bundle.program)
        self._latest: list[Bits] = []
        self._roots: list[bytes] = []
        self._writer = ThreadPoolExecutor(1, "bitcourt-checkpoint")
        self._pending: Future[None] | None = None
        self._newest: tuple[int, list[Bits]] | None = None
        self._recover()
        if not self._roots:
            self.append(bundle.state)

    def __len__(self) -> int:
        return len(self.roots)

    @property
    def newest(self) -> tuple[int, list[Bits]]:
        """Number and state of the checkpoint that was begun last; does not wait for its writing."""
        return self._newest or (len(self.roots) - 1, self._latest)

    @property
    def begun(self) -> int:
        """How many checkpoints there are, the one that is being written included."""
        return self.newest[0] + 1

    @property
    def roots(self) -> list[bytes]:
        """The state root of each checkpoint, all of which are on disk."""
        self.settle()
        return self._roots

    def append(self, state: Sequence[Bits]) -> bytes:
        """Adds the next checkpoint and returns its root; it is on disk then."""
        self.begin(state)
        return self.roots[-1]

    def begin(self, state: Sequence[Bits]) -> None:
        """Begins to add the next checkpoint. Nobody may write to these arrays any more.

        Waits for the one before, and raises its error if it failed: then neither is added.
        """
        self.settle()
        self._newest = (len(self._roots), list(state))
        self._pending = self._writer.submit(self._write, self._newest[1])

    def settle(self) -> None:
        """Waits until every checkpoint that was begun is on disk.

        Raises ArtifactError if one could not be written; it is as if it had not been begun.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            self._newest = None
            pending.result()

    def _write(self, state: list[Bits]) -> None:
        # On one thread: the others are training.
        names = self._program.state_names
        root = self._store.put_tensors(state, self._layout, names, threads=1)
        roots = [*self._roots, root]
        write_whole(self._index, json.dumps([r.hex() for r in roots]).encode())
        self._roots, self._latest = roots, state

    def state(self, index: int) -> list[Bits]:
        """State of checkpoint `index`, checked against its root."""
        roots = self.roots
        if index == len(roots) - 1:
            return self._latest
        return self._store.get_tensors(roots[index], self._layout)

    def _recover(self) -> None:
        """Takes up what an earlier process left, as far as it is whole."""
        try:
            roots = [bytes.fromhex(r) for r in json.loads(self._index.read_text())]
        except (FileNotFoundError, ValueError, TypeError):
            return
        while roots:
            try:
                self._latest = self._store.get_tensors(roots[-1], self._layout)
            except ArtifactError:
                roots.pop()
                continue
            self._roots = roots
            return
