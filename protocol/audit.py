# SPDX-License-Identifier: GPL-3.0-or-later
"""What a solver has shown of its checkpoint log: on chain in the audit, in the store afterwards."""

from __future__ import annotations

from collections.abc import Sequence
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
            if isinstance(values, dict)
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
    events = market.events("StartsOpened", task)
    found = [e.values["stateRoots"] for e in events if e.values["round"] == audit_round]
    return [bytes(root) for root in found[-1]] if found else None


def ends(market: Market, task: int, audit_round: int) -> Ends | None:
    """State roots after the runs of a round, and at the end of the log; None until then."""
    events = market.events("EndsOpened", task)
    found = [e.values for e in events if e.values["round"] == audit_round]
    if not found:
        return None
    return Ends([bytes(root) for root in found[-1]["stateRoots"]], bytes(found[-1]["finalRoot"]))


def final_root(market: Market, task: int) -> bytes | None:
    """The last state of the log that was opened last; None before that."""
    events = market.events("EndsOpened", task)
    return bytes(events[-1].values["finalRoot"]) if events else None


def opened(market: Market, task: int, run: Run) -> tuple[Opening, Opening] | None:
    """Openings of the start and the end of a drawn run, out of the solver's transactions.

    None until both are opened, or if the solver had another contract call the market and the node
    does not trace transactions: then what the solver publishes in the store has to do.
    """
    place = market.runs(task, run.round).index(run)
    found = []
    for event in ("StartsOpened", "EndsOpened"):
        logs = [log for log in market.events(event, task) if log.values["round"] == run.round]
        if not logs:
            return None
        roots = [bytes(root) for root in logs[-1].values["stateRoots"]]
        calls = market.chain.calls_of(market.contracts.market, logs[-1].transaction)
        shown = [
            [Opening.from_abi(values) for values in arguments["openings"]]
            for _, arguments in calls
            if arguments.get("id") == task and "openings" in arguments
        ]
        of_event = [o for o in shown if [opening.state_root for opening in o] == roots]
        if not of_event:
            return None
        found.append(of_event[-1][place])
    return found[0], found[1]


def seat_of(seats: Sequence[Seat], verifier: str, audit_round: int) -> int | None:
    """Number of a verifier's seat in a round; None if it was not drawn for it."""
    for index, seat in enumerate(seats):
        if seat.verifier == verifier and seat.round == audit_round:
            return index
    return None


def in_round(seats: Sequence[Seat], audit_round: int) -> list[SeatState]:
    """The states of a round's seats."""
    return [seat.state for seat in seats if seat.round == audit_round]
