# SPDX-License-Identifier: GPL-3.0-or-later
"""A store and a directory of one's own, in which all that was fetched and checked is kept.

Whoever has a stake must be able to defend what it computed, with all it was computed from, also if
the store forgets it: who serves the store may be the one who attacks.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from protocol.errors import ArtifactError
from protocol.execution import Bits
from protocol.program import Program
from protocol.store import Layout, Store

_Artifact = TypeVar("_Artifact")


class Mirror(Store):
    """A store at `url`; what was checked is kept in `directory`, and read from there first."""

    def __init__(self, url: str, directory: Path) -> None:
        super().__init__(url)
        self._directory = directory
        self._kept = Store(str(directory.resolve()))

    def get_program(self, root: bytes) -> Program:
        """The program with that root; ArtifactError if it is in neither place."""
        get = super().get_program
        return self._get_once(self._kept.get_program, get, root, self._kept.put_program)

    def get_encodings(self, root: bytes) -> list[bytes]:
        """What stands for its nodes; ArtifactError if it is in neither place."""
        try:
            return self._kept.get_encodings(root)
        except ArtifactError:
            return super().get_encodings(root)

    def get_tensors(self, root: bytes, layout: Layout) -> list[Bits]:
        """The tensors with that root; ArtifactError if they are in neither place."""
        kept, other = self._kept.get_tensors, super().get_tensors
        return self._get_once(
            lambda r: kept(r, layout), lambda r: other(r, layout), root,
            lambda tensors: self.keep(tensors, layout),
        )  # fmt: skip

    def get_log(self, root: bytes, size: int) -> list[bytes]:
        """The leaves of the log with that root; ArtifactError if they are in neither place."""
        kept, other, keep = self._kept.get_log, super().get_log, self._kept.put_log
        return self._get_once(lambda r: kept(r, size), lambda r: other(r, size), root, keep)

    def keep(self, tensors: Sequence[Bits], layout: Layout) -> bytes:
        """Keeps tensors that were not found in the store as a whole; returns their root."""
        return self._kept.put_tensors(tensors, layout, ())

    def forget(self) -> None:
        """Deletes what is kept, as far as it can be deleted."""
        shutil.rmtree(self._directory, ignore_errors=True)

    @staticmethod
    def _get_once(
        kept: Callable[[bytes], _Artifact],
        other: Callable[[bytes], _Artifact],
        root: bytes,
        keep: Callable[[_Artifact], object],
    ) -> _Artifact:
        try:
            return kept(root)
        except ArtifactError:
            found = other(root)
        keep(found)
        return found
