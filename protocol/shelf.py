# SPDX-License-Identifier: GPL-3.0-or-later
"""Witnesses of many disputes in the memory of a few: the states of the others are on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from protocol.execution import Bits
from protocol.witness import Place, ReplayWitness, Witness

HELD: Final = 4
"""Witnesses in memory, each with about two states and what is kept of a trace."""


class _Shelved(NamedTuple):
    roots: list[bytes]
    steps: int
    state: bytes
    """Root of the state after them."""


class Shelf:
    """The witnesses of one agent, by dispute. What one has replayed is not replayed again."""

    def __init__(
        self,
        keep: Callable[[int, Sequence[Bits]], bytes],
        fetch: Callable[[int, bytes], list[Bits]],
        held: int = HELD,
    ) -> None:
        """`keep` puts a state of a task on disk and returns its root, `fetch` brings it back."""
        self.held = held
        self._keep, self._fetch = keep, fetch
        self._witnesses: dict[int, tuple[int, Witness]] = {}
        self._shelved: dict[int, _Shelved] = {}

    def get(self, dispute: int) -> Witness | None:
        """The witness of a dispute, if it is in memory."""
        return self._witnesses[dispute][1] if dispute in self._witnesses else None

    def use(self, task: int, dispute: int, witness: Witness) -> None:
        """A witness, perhaps a new one, is used: then it is the last to be put away."""
        known = self._witnesses.pop(dispute, None)
        shelved = self._shelved.pop(dispute, None)
        if known is None and shelved is not None and isinstance(witness, ReplayWitness):
            state = self._fetch(task, shelved.state)
            witness.resume(Place(shelved.roots, shelved.steps, state))
        self._witnesses[dispute] = task, witness
        while len(self._witnesses) > self.held:
            self._put_away(next(iter(self._witnesses)))

    def forget(self, dispute: int) -> None:
        """The dispute is another now."""
        self._witnesses.pop(dispute, None)
        self._shelved.pop(dispute, None)

    def _put_away(self, dispute: int) -> None:
        task, witness = self._witnesses.pop(dispute)
        if isinstance(witness, ReplayWitness):
            roots, steps, state = witness.place
            self._shelved[dispute] = _Shelved(roots, steps, self._keep(task, state))
