# SPDX-License-Identifier: GPL-3.0-or-later
"""What a whistleblower accuses others of, and the book of what it has sealed.

A sealed challenge whose target was lost costs its bond: chance chose which segments were replayed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from protocol.files import write_whole


class Accusation(NamedTuple):
    """What is challenged, and who has to defend it: a seat, or NO_SEAT for the solver."""

    first: int
    segments: int
    attestor: int


class Book:
    """Accusations of one account in one task, on disk before they are sealed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Accusation]:
        """All that were written; none where nothing is left that makes sense."""
        try:
            found = json.loads(self._path.read_text())
            return [Accusation(*(int(number) for number in accused)) for accused in found]
        except (OSError, ValueError, TypeError):
            return []

    def write(self, accused: Accusation) -> None:
        """Adds one; it is on disk then. ArtifactError if it cannot be written."""
        known = [other for other in self.read() if other != accused]
        write_whole(self._path, json.dumps([*known, accused]).encode())
