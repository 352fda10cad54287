# SPDX-License-Identifier: GPL-3.0-or-later
"""A task's checkpoints on the solver's disk: what is lost with them is time, never money."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from protocol.background import StateWriter
from protocol.bundle import Bundle, state_layout
from protocol.errors import ArtifactError
from protocol.execution import Bits
from protocol.store import Store

log = logging.getLogger("bitcourt")

_LINES = re.compile(rb"(?:[0-9a-f]{64}\n)*")
_WIDTH = 65
"""Bytes of a line of the index: a root and the end of the line."""


class Checkpoints:
    """States 0 .. n of a task, one after each segment, kept in a directory by their roots.

    A checkpoint is hashed by a thread of its own while training goes on. The index is written last:
    what a killed process leaves is whole up to a checkpoint, from which training goes on.
    """

    def __init__(self, directory: Path, bundle: Bundle) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._index = directory / "roots"
        self._store = Store(str(directory))
        self._layout = state_layout(bundle.program)
        self._writer = StateWriter(self._store, bundle.program, self._layout)
        self._roots: list[bytes] = []
        self._begun = 0
        self._held: list[Bits] = []
        """State of the checkpoint that was begun last, until it is taken."""
        self._recover()
        if not self._roots:
            self.append(bundle.state)
            self._held = []  # the bundle's own

    def __len__(self) -> int:
        return len(self.roots)

    @property
    def begun(self) -> int:
        """How many checkpoints there are, the one that is being written included."""
        return self._begun

    @property
    def roots(self) -> list[bytes]:
        """The state root of each checkpoint, all of which are on disk."""
        self.settle()
        return self._roots

    def append(self, state: list[Bits]) -> bytes:
        """Adds the next checkpoint and returns its root; it is on disk then."""
        self.begin(state)
        return self.roots[-1]

    def begin(self, state: list[Bits]) -> None:
        """Begins to add the next checkpoint, and keeps its arrays for whoever takes it.

        Waits for the one before, and raises its error if it failed: then neither is added.
        """
        self.settle()
        begun = len(self._roots) + 1  # it may be there before the writer returns
        self._writer.begin(state, self._add)
        self._begun, self._held = begun, state

    def take(self) -> tuple[int, list[Bits]]:
        """Number and state of the checkpoint that was begun last, to be trained in place.

        The arrays are the caller's own from now on. Does not wait for the writing, unless the
        checkpoint was taken before: then it is read again.
        """
        number, held = self._begun - 1, self._held
        self._held = []
        return number, held or self.state(number)

    def settle(self) -> None:
        """Waits until every checkpoint that was begun is on disk.

        Raises ArtifactError if one could not be written; it is as if it had not been begun.
        """
        try:
            self._writer.settle()
        except Exception:
            self._begun, self._held = len(self._roots), []
            raise

    def _add(self, root: bytes) -> None:
        # One line more, in its place: a long training has many checkpoints, and what an earlier
        # failure left there is not what follows.
        try:
            self._index.touch()
            with self._index.open("r+b") as file:
                file.seek(_WIDTH * len(self._roots))
                file.write(f"{root.hex()}\n".encode())
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ArtifactError(f"cannot write {self._index}: {error}") from None
        self._roots.append(root)

    def state(self, index: int) -> list[Bits]:
        """State of checkpoint `index` in new arrays, checked against its root."""
        return self.read(self.roots[index])

    def read(self, root: bytes) -> list[Bits]:
        """State with that root in new arrays; any thread may read what is on disk."""
        return self._store.get_tensors(root, self._layout)

    def _recover(self) -> None:
        """Takes up what an earlier process left, as far as it is whole."""
        roots = self._listed()
        while roots:
            try:
                self._held = self._store.get_tensors(roots[-1], self._layout)
            except ArtifactError as error:
                log.warning("%s: a checkpoint is trained again: %s", self._index.parent, error)
                roots.pop()
                continue
            break
        self._roots, self._begun = roots, len(roots)

    def _listed(self) -> list[bytes]:
        """The roots in the index, up to a line that was not written to its end."""
        try:
            whole = _LINES.match(self._index.read_bytes())
        except FileNotFoundError:
            return []
        return [bytes.fromhex(line) for line in whole[0].decode().split()] if whole else []
