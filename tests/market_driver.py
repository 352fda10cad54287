# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks as all their parties see them, on the market of `tests/market_world.py`.

    world = fresh_world()                  # deployed, verifiers registered, everybody funded
    task = world.post()                    # a task
    task.reach(Status.WINDOW)              # everybody honest up to that status
    task.call("settle")

`World.mark` and `World.back` return to an earlier state of the whole chain, which is much faster
than playing up to it again.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_utils.crypto import keccak

from protocol.commitments import checkpoint_leaf_hash
from protocol.merkle import Tree
from protocol.task import NO_SEAT, Run, Seat, SeatState, Status, TaskSpec, TaskState
from tests.market_chain import Done, Mark, raw
from tests.market_world import (
    BUDGET,
    BURN_ADDRESS,
    EVERYBODY,
    FUNDS,
    NOBODY,
    RECEIPT,
    RIVAL,
    SOLVER,
    SPEC,
    STAKE,
    STRANGER,
    SUBMITTER,
    VERIFIERS,
    WHISTLEBLOWER,
    World,
    role,
)

__all__ = [
    "BUDGET",
    "BURN_ADDRESS",
    "EVERYBODY",
    "FUNDS",
    "NOBODY",
    "RECEIPT",
    "RIVAL",
    "SOLVER",
    "SPEC",
    "STAKE",
    "STRANGER",
    "SUBMITTER",
    "VERIFIERS",
    "WHISTLEBLOWER",
    "Task",
    "World",
    "at",
    "fresh_world",
    "nonce",
    "outsider",
    "raw",
    "role",
    "salt",
    "states",
]


@dataclass
class Task:
    """One task as all its parties see it; `claimed` is the solver's log, `truth` the verifiers'."""

    world: World
    id: int
    spec: TaskSpec
    claimed: list[bytes] = field(default_factory=list)
    truth: list[bytes] = field(default_factory=list)
    gas: dict[str, int] = field(default_factory=dict)
    spent: int = 0  # gas of all its transactions

    def __post_init__(self) -> None:
        ends = [keccak(text=f"state {i}") for i in range(1, self.spec.segments + 1)]
        self.claimed = self.claimed or [self.spec.initial_root, *ends]
        self.truth = self.truth or list(self.claimed)

    # What the chain says.

    @property
    def state(self) -> TaskState:
        return TaskState.from_abi(self.world.market.view("getTask", self.id))

    @property
    def all_runs(self) -> list[Run]:
        """The runs of all rounds of the progress window."""
        return [Run(*values) for values in self.world.market.view("getRuns", self.id)]

    @property
    def runs(self) -> list[Run]:
        """The runs of the current round."""
        return self.all_runs[self.state.first_run :]

    @property
    def seats(self) -> list[Seat]:
        """The seats of all rounds of the progress window."""
        found = self.world.market.view("getSeats", self.id)
        return [Seat(verifier, SeatState(state), round_) for verifier, state, round_ in found]

    @property
    def drawn(self) -> list[bytes]:
        """The verifiers of the current round."""
        current = self.state.round
        return [raw(seat.verifier) for seat in self.seats if seat.round == current]

    def seat(self, verifier: bytes) -> int:
        """Number of the latest of a verifier's seats; NO_SEAT if it has none."""
        places = [i for i, seat in enumerate(self.seats) if raw(seat.verifier) == verifier]
        return places[-1] if places else NO_SEAT

    @property
    def segments_drawn(self) -> set[int]:
        return {run.first + i for run in self.runs for i in range(run.count)}

    # What its parties send.

    def call(self, function: str, *args: Any, sender: bytes = STRANGER) -> Done:
        """An entry point that takes the terms after the id."""
        return self.plain(function, self.spec.as_abi(), *args, sender=sender)

    def plain(self, function: str, *args: Any, sender: bytes = STRANGER) -> Done:
        """An entry point that takes only the id before its other arguments."""
        done = self.world.send(function, self.id, *args, sender=sender)
        self.gas[function] = max(done.gas, self.gas.get(function, 0))
        self.spent += done.gas
        return done

    def log(self, size: int) -> Tree:
        return Tree([checkpoint_leaf_hash(salt(i), self.claimed[i]) for i in range(size)])

    def append(self, size: int, **changes: Any) -> Done:
        """The solver appends up to `size` leaves; `root`, `proof` and `sender` may be changed."""
        old, tree = self.state.log_size, self.log(min(size, self.spec.segments + 1))
        proof = tree.consistency_proof(old) if 0 < old < tree.size else tree.inclusion_proof(0)
        root, proof = changes.get("root", tree.root), changes.get("proof", proof)
        return self.call("append", size, root, proof, sender=changes.get("sender", SOLVER))

    def seal_bid(self, bidder: bytes, price: int) -> Done:
        digest = self.world.market.view("bidDigest", self.id, bidder, price, nonce(bidder))
        return self.call("bid", digest, sender=bidder)

    def reveal_bid(self, bidder: bytes, price: int) -> Done:
        return self.call("revealBid", price, nonce(bidder), sender=bidder)

    def auction(self, *bids: tuple[bytes, int]) -> Task:
        """Seals and reveals these bids, and assigns the task."""
        for bidder, price in bids:
            self.seal_bid(bidder, price)
        self.world.wait_beyond(self.state.deadline)
        for bidder, price in bids:
            self.reveal_bid(bidder, price)
        self.world.wait_beyond(self.state.deadline + self.spec.bid_window)
        self.call("assign")
        return self

    def opening(self, index: int) -> tuple[bytes, bytes, list[bytes]]:
        """Opening of a leaf of the log as it stands."""
        proof = self.log(self.state.log_size).inclusion_proof(index)
        return salt(index), self.claimed[index], proof

    def starts(self) -> list[Any]:
        return [self.opening(run.first) for run in self.runs]

    def ends(self) -> list[Any]:
        return [self.opening(run.first + run.count) for run in self.runs]

    def draw(self, openings: Sequence[Any] = (), sender: bytes = STRANGER) -> Done:
        """Waits for the block after the draw's, and draws."""
        self.world.wait(blocks=2)
        return self.call("draw", list(openings), sender=sender)

    def draw_in_vain(self) -> Done:
        """Draws, finds nobody, and draws once more after the deadline."""
        deadline = self.state.deadline
        self.draw()
        state = self.state
        assert (state.status, state.deadline) == (Status.COMMITTED, deadline)
        self.world.wait(deadline - self.world.evm.timestamp + 1, blocks=2)
        return self.call("draw", [])

    def draw_and_open(self) -> Done:
        """The solver draws and opens the starts in one transaction."""
        self.world.wait(blocks=2)
        runs = self.world.market.view("draw", self.id, self.spec.as_abi(), [])
        return self.call("draw", [self.opening(run[0]) for run in runs], sender=SOLVER)

    def open_starts(self) -> Done:
        return self.call("openStarts", self.starts(), sender=SOLVER)

    def open_ends(self) -> Done:
        last = self.opening(self.state.log_size - 1)
        return self.call("openEnds", self.ends(), last, sender=SOLVER)

    def digests(self) -> list[bytes]:
        return [self.truth[run.first + run.count] for run in self.runs]

    def seal(self, verifier: bytes, digests: list[bytes] | None = None) -> Done:
        roots = self.digests() if digests is None else digests
        digest = self.world.market.view("sealOf", self.id, verifier, nonce(verifier), roots)
        return self.plain("seal", self.seat(verifier), digest, sender=verifier)

    def reveal(
        self, verifier: bytes, digests: list[bytes] | None = None, receipt: bytes = RECEIPT
    ) -> Done:
        roots = self.digests() if digests is None else digests
        seat = self.seat(verifier)
        return self.call("reveal", seat, nonce(verifier), roots, receipt, sender=verifier)

    def target(
        self, first: int, count: int = 1, own_seat: int = NO_SEAT, attestor: int = NO_SEAT
    ) -> tuple[Any, ...]:
        """What is disputed, with its openings."""
        openings = self.opening(first), self.opening(first + count)
        return first, count, own_seat, attestor, *openings

    def seal_challenge(
        self, challenger: bytes, first: int, count: int = 1, attestor: int = NO_SEAT
    ) -> Done:
        parts = (self.id, challenger, first, count, attestor, nonce(challenger))
        digest = self.world.market.view("challengeDigest", *parts)
        return self.call("sealChallenge", digest, attestor != NO_SEAT, sender=challenger)

    def tell_challenge(
        self, challenger: bytes, first: int, count: int = 1, attestor: int = NO_SEAT
    ) -> int:
        """Challenges what was sealed; the number of the dispute."""
        target = self.target(first, count, attestor=attestor)
        done = self.call("challenge", target, nonce(challenger), sender=challenger)
        return int(done.event("DisputeOpened")["disputeId"])

    def whistle(
        self, challenger: bytes, first: int = 0, count: int = 1, attestor: int = NO_SEAT
    ) -> int:
        """Somebody who was not drawn disputes any segments; the number of the dispute."""
        self.seal_challenge(challenger, first, count, attestor)
        self.world.wait()
        return self.tell_challenge(challenger, first, count, attestor)

    def challenge(self, verifier: bytes, run: int = 0) -> int:
        """A drawn verifier whose digest differed disputes a run; the number of the dispute."""
        found = self.runs[run]
        target = self.target(found.first, found.count, self.seat(verifier))
        done = self.call("challenge", target, bytes(32), sender=verifier)
        return int(done.event("DisputeOpened")["disputeId"])

    def punish(self) -> Done:
        """Shares out the stake once drawn verifiers have had their time."""
        self.world.wait_beyond(self.state.deadline + self.spec.audit_window)
        return self.call("punish")

    # Everybody honest.

    def _bid(self) -> None:
        if raw(self.spec.solver) == NOBODY:
            self.auction((SOLVER, BUDGET * 8 // 10))
        else:
            self.call("accept", sender=raw(self.spec.solver))

    def _commit(self) -> None:
        self.append(self.spec.complete(self.state.settled))

    def _seal_all(self) -> None:
        for verifier in self.drawn:
            self.seal(verifier)
        self.open_ends()

    def _reveal_all(self) -> None:
        for verifier in self.drawn:
            self.reveal(verifier)

    def _settle(self) -> None:
        self.world.wait_beyond(self.state.deadline)
        self.call("settle")

    def reach(self, status: Status) -> Task:
        """Plays on, everybody honest, until the task has this status; there is one bid, or none
        if the terms name the solver.
        """
        steps = {
            Status.BIDDING: Task._bid,
            Status.TRAINING: Task._commit,
            Status.COMMITTED: Task.draw,
            Status.STARTING: Task.open_starts,
            Status.SEALING: Task._seal_all,
            Status.REVEALING: Task._reveal_all,
            Status.WINDOW: Task._settle,
        }
        while self.state.status != status:
            steps[self.state.status](self)
        return self


def states(task: Task) -> list[SeatState]:
    """What has become of all seats of the progress window."""
    return [seat.state for seat in task.seats]


def outsider(task: Task) -> bytes:
    """A registered verifier that was not drawn."""
    return next(v for v in VERIFIERS if v not in task.drawn)


def salt(index: int) -> bytes:
    """Salt of a checkpoint: zero for leaf 0, which all know."""
    return keccak(text=f"salt {index}") if index else bytes(32)


def nonce(verifier: bytes) -> bytes:
    return keccak(verifier)


@functools.cache
def _base() -> tuple[World, Mark]:
    world = World()
    return world, world.evm.mark()


@functools.cache
def _staged(status: Status, changes: tuple[tuple[str, Any], ...]) -> tuple[Task, Mark]:
    world, base = _base()
    world.evm.back(base)
    if status <= Status.BIDDING:
        task = world.post(**dict(changes)).reach(status)
        return task, world.evm.mark()
    # What is drawn follows from the block of the last commitment, so the draw starts before it. The
    # last reveal opens the window, and no honest task is convicted.
    before = {
        Status.STARTING: Status.TRAINING,
        Status.WINDOW: Status.REVEALING,
        Status.SETTLED: Status.WINDOW,
    }
    earlier, mark = _staged(before.get(status, Status(status - 1)), changes)
    for block in range(20):
        world.evm.back(mark)
        world.wait(blocks=1 + block)
        task = copy.copy(earlier).reach(status)
        # Take a draw that leaves the runs apart, if there may be one.
        if status != Status.STARTING or len(task.runs) == task.spec.samples or block == 19:
            break
    return task, world.evm.mark()


def fresh_world() -> World:
    """The world in which everybody has money and six verifiers have two slots each."""
    world, mark = _base()
    world.evm.back(mark)
    world.people, world.tasks = list(EVERYBODY), []
    return world


def at(status: Status, **changes: Any) -> Task:
    """A task that honest parties have brought to a status, in a world of its own."""
    fresh_world()
    task, mark = _staged(status, tuple(sorted(changes.items())))
    task.world.evm.back(mark)
    task = copy.copy(task)
    task.claimed, task.truth, task.gas = list(task.claimed), list(task.truth), dict(task.gas)
    task.world.tasks = [task]
    return task
