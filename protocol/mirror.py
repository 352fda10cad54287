# SPDX-License-Identifier: GPL-3.0-or-later
"""A store and a directory of one's own, in which all that was fetched and checked is kept.

Whoever has a stake must be able to defend what it computed, with all it was computed from, also if
the store forgets it: who serves the store may be the one who attacks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from protocol.errors import ArtifactError
from protocol.execution import Bits
from protocol.program import Program
from protocol.store import Hole, Layout, Store
from protocol.transfers import Transfers

_Artifact = TypeVar("_Artifact")


class Mirror(Store):
    """A store at `url`; what was checked is kept in `directory`, and read from there first.

    With `transfers`, what is read from the store comes by them: Underway, an ArtifactError, is
    raised while it is on its way.
    """

    def __init__(self, url: str, directory: Path, transfers: Transfers | None = None) -> None:
        super().__init__(url)
        self._transfers = transfers
        self._kept = Store(str(directory.resolve()))

    def get_program(self, root: bytes) -> Program:
        """The program with that root; ArtifactError if it is in neither place."""
        get = self._remote("program", super().get_program)
        return self._get_once(self._kept.get_program, get, root, self._kept.put_program)

    def get_encodings(self, root: bytes) -> list[bytes]:
        """What stands for its nodes; ArtifactError if it is in neither place."""
        try:
            return self._kept.get_encodings(root)
        except ArtifactError:
            return self._remote("encodings", super().get_encodings)(root)

    def get_tensors(self, root: bytes, layout: Layout) -> list[Bits]:
        """The tensors with that root; ArtifactError if they are in neither place."""
        kept, get = self._kept.get_tensors, super().get_tensors
        other = self._remote("tensors", lambda r: get(r, layout))
        return self._get_once(
            lambda r: kept(r, layout), other, root,
            lambda tensors: self.keep(tensors, layout),
        )  # fmt: skip

    def get_log(self, root: bytes, size: int) -> list[bytes]:
        """The leaves of the log with that root; ArtifactError if they are in neither place."""
        kept, get, keep = self._kept.get_log, super().get_log, self._kept.put_log
        other = self._remote("log", lambda r: get(r, size))
        return self._get_once(lambda r: kept(r, size), other, root, keep)

    def get_partial(self, root: bytes, layout: Layout) -> tuple[list[Bits], list[Hole]]:
        """See `Store`."""
        get = super().get_partial
        return self._remote("partial", lambda r: get(r, layout))(root)

    def has_log(self, root: bytes) -> bool:
        """See `Store`."""
        return self._remote("has log", super().has_log)(root)

    def keep(self, tensors: Sequence[Bits], layout: Layout) -> bytes:
        """Keeps tensors that were not found in the store as a whole; returns their root."""
        return self._kept.put_tensors(tensors, layout, ())

    def _remote(self, what: str, get: Callable[[bytes], _Artifact]) -> Callable[[bytes], _Artifact]:
        transfers = self._transfers
        if transfers is None:
            return get
        return lambda root: transfers.run((self.url, what, root), lambda: get(root))

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
