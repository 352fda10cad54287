# SPDX-License-Identifier: GPL-3.0-or-later
"""A task's checkpoints on the solver's disk: what is lost with them is time, never money."""

from __future__ import annotations

import json
from pathlib import Path

from protocol.bundle import Bundle, state_layout
from protocol.errors import ArtifactError
from protocol.execution import Bits
from protocol.store import Store


class Checkpoints:
    """States 0 .. n of a task, one after each segment, kept in a directory by their roots."""

    def __init__(self, directory: Path, bundle: Bundle) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._index = directory / "roots.json"
        self._store = Store(str(directory))
        self._program = bundle.program
        self._layout = state_layout(bundle.program)
        self._latest: list[Bits] = []
        self.roots: list[bytes] = []
        self._recover()
        if not self.roots:
            self.append(bundle.state)

    def __len__(self) -> int:
        return len(self.roots)

    def append(self, state: list[Bits]) -> bytes:
        """Adds the next checkpoint and returns its root; the index is written last."""
        root = self._store.put_tensors(state, self._layout, self._program.state_names)
        self.roots.append(root)
        self._latest = state
        temporary = self._index.with_suffix(".part")
        temporary.write_text(json.dumps([r.hex() for r in self.roots]))
        temporary.replace(self._index)
        return root

    def state(self, index: int) -> list[Bits]:
        """State of checkpoint `index`, checked against its root."""
        if index == len(self.roots) - 1:
            return self._latest
        return self._store.get_tensors(self.roots[index], self._layout)

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
            self.roots = roots
            return
