# SPDX-License-Identifier: GPL-3.0-or-later
"""What a solver has shown of its checkpoint log: on chain in the audit, in the store afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocol.commitments import checkpoint_leaf, checkpoint_log
from protocol.market import Market
from protocol.merkle import HASH_BYTES, Tree
from protocol.store import Store
from protocol.task import Run, Seat, SeatState, TaskState


@dataclass(frozen=True)
class Opening:
    """The opening of one leaf of the checkpoint log."""

    salt: bytes
    state_root: bytes
    proof: tuple[bytes, ...]

    def as_abi(self) -> tuple[bytes, bytes, list[bytes]]:
        """The tuple that web3 encodes as the Solidity struct."""
        return self.salt, self.state_root, list(self.proof)

    @classmethod
    def from_abi(cls, values: Any) -> Opening:
        """From a decoded argument, by name or in Solidity's order."""
        salt, root, proof = (
            (values["salt"], values["stateRoot"], values["proof"])
            if isinstance(values, Mapping)
            else values
        )
        return cls(bytes(salt), bytes(root), tuple(bytes(p) for p in proof))


class CheckpointLog:
    """All leaves of a checkpoint log with what they seal."""

    def __init__(self, salts: Sequence[bytes], roots: Sequence[bytes]) -> None:
        self.salts = list(salts)
        self.roots = list(roots)
        self.leaves = [checkpoint_leaf(s, r) for s, r in zip(salts, roots, strict=True)]
        self.tree: Tree = checkpoint_log(self.leaves)

    def opening(self, leaf: int) -> Opening:
        """The opening of one leaf."""
        proof = tuple(self.tree.inclusion_proof(leaf))
        return Opening(self.salts[leaf], self.roots[leaf], proof)

    @classmethod
    def fetch(cls, store: Store, state: TaskState) -> CheckpointLog:
        """What the solver has published of the log that is on chain; ArtifactError without."""
        leaves = store.get_log(state.log_root, state.log_size)
        return cls([leaf[:HASH_BYTES] for leaf in leaves], [leaf[HASH_BYTES:] for leaf in leaves])


@dataclass(frozen=True)
class Ends:
    """What the solver opened after the verifiers had sealed."""

    roots: list[bytes]
    final_root: bytes


def starts(market: Market, task: int, audit_round: int) -> list[bytes] | None:
    """State roots before the runs of a round; None until they are opened."""
    found = _openings(market, "StartsOpened", task, audit_round)
    return [opening.state_root for opening in found] if found is not None else None


def ends(market: Market, task: int, audit_round: int) -> Ends | None:
    """State roots after the runs of a round, and at the end of the log; None until then."""
    values = _latest(market, "EndsOpened", task, audit_round)
    if values is None:
        return None
    openings = [Opening.from_abi(found) for found in values["openings"]]
    return Ends([opening.state_root for opening in openings], bytes(values["finalRoot"]))


def final_root(market: Market, task: int) -> bytes | None:
    """The last state of the log that was opened last; None before that."""
    events = market.events("EndsOpened", task)
    return bytes(events[-1].values["finalRoot"]) if events else None


def opened(market: Market, task: int, run: Run) -> tuple[Opening, Opening] | None:
    """Openings of the start and the end of a drawn run; None until both are on chain."""
    place = market.runs(task, run.round).index(run)
    before = _openings(market, "StartsOpened", task, run.round)
    after = _openings(market, "EndsOpened", task, run.round)
    if before is None or after is None:
        return None
    return before[place], after[place]


def _openings(market: Market, event: str, task: int, audit_round: int) -> list[Opening] | None:
    values = _latest(market, event, task, audit_round)
    return [Opening.from_abi(found) for found in values["openings"]] if values else None


def _latest(market: Market, event: str, task: int, audit_round: int) -> dict[str, Any] | None:
    """Values of a round's latest event of this name."""
    found = [e.values for e in market.events(event, task) if e.values["round"] == audit_round]
    return found[-1] if found else None


def seat_of(seats: Sequence[Seat], verifier: str, audit_round: int) -> int | None:
    """Number of a verifier's seat in a round; None if it was not drawn for it."""
    for index, seat in enumerate(seats):
        if seat.verifier == verifier and seat.round == audit_round:
            return index
    return None


def in_round(seats: Sequence[Seat], audit_round: int) -> list[SeatState]:
    """The states of a round's seats."""
    return [seat.state for seat in seats if seat.round == audit_round]
