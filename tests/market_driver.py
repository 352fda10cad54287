# SPDX-License-Identifier: GPL-3.0-or-later
"""The market on a bare EVM, with a mock game, roles with money, and time that tests move.

    world = World()                        # deployed, verifiers registered, everybody funded
    task = world.post()                    # a task as its parties see it
    task.reach(Status.WINDOW)              # everybody honest up to that status
    task.call("settle")

`World.mark` and `World.back` return to an earlier state of the whole chain, which is much faster
than playing up to it again.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from eth_utils.crypto import keccak

from protocol.commitments import checkpoint_leaf_hash
from protocol.merkle import Tree
from protocol.task import Run, Seat, SeatState, Status, TaskSpec, TaskState
from tests.evm import ETHER, EvmReverted
from tests.market_chain import GAS, Chain, Deployed, Done, Mark, Refused, as_argument, raw

STAKE = ETHER  # of a verifier's slot
FUNDS = 1_000 * ETHER  # what everybody has deposited
BUDGET = 10 * ETHER
BURN_ADDRESS = bytes.fromhex("dead".zfill(40))
NOBODY = bytes(20)
RECEIPT = keccak(text="the final state arrived")
BLOCK_SECONDS = 12


def role(name: str) -> bytes:
    """The address of an account that plays a role."""
    return keccak(text=name)[:20]


SUBMITTER = role("submitter")
SOLVER = role("solver")
RIVAL = role("rival solver")
WHISTLEBLOWER = role("whistleblower")
STRANGER = role("stranger")
VERIFIERS = tuple(role(f"verifier {i}") for i in range(6))
EVERYBODY = (SUBMITTER, SOLVER, RIVAL, WHISTLEBLOWER, STRANGER, *VERIFIERS)

SPEC = TaskSpec(
    program_root=role("program") + bytes(12),
    const_root=bytes(32),
    data_root=role("data") + bytes(12),
    seed=role("seed") + bytes(12),
    initial_root=b"\x01" * 32,
    n_nodes=9,
    n_state=2,
    n_const=0,
    n_data=1,
    steps=38,
    segment_steps=5,  # eight segments, the last one shorter
    committee=2,
    samples=2,
    solver_stake=5 * ETHER,
    verifier_fee=ETHER // 10,
    bond=ETHER,
    bid_window=600,
    train_window=86_400,
    audit_window=3_600,
    challenge_window=3_600,
    dispute_clock=7_200,
)


class World:
    """A chain with the market, a mock game and people with money."""

    def __init__(self, verifiers: int = len(VERIFIERS), slots: int = 2) -> None:
        self.evm = Chain()
        self.game = Deployed(self.evm, "MockGame")
        self.market = Deployed(self.evm, "Market", self.game.address, STAKE)
        self.people = list(EVERYBODY)
        self._layout_checked = False
        for person in EVERYBODY:
            self.fund(person)
        for verifier in VERIFIERS[:verifiers]:
            self.send("registerVerifier", slots, sender=verifier)
        self.evm.mine()

    def fund(self, person: bytes, wei: int = FUNDS) -> None:
        """Gives an account wei in its hand and as much in the market."""
        if person not in self.people:
            self.people.append(person)
        self.evm.set_balance(person, 2 * wei)
        self.send("deposit", sender=person, value=wei)

    def send(self, function: str, *args: Any, sender: bytes, value: int = 0) -> Done:
        return self.market.send(function, *args, sender=sender, value=value)

    def free(self, person: bytes) -> int:
        return int(self.market.view("balanceOf", person))

    def slots(self, verifier: bytes) -> int:
        return int(self.market.view("verifierOf", verifier)[1])

    def burned(self) -> int:
        return self.evm.balance(BURN_ADDRESS)

    def wait(self, seconds: int = BLOCK_SECONDS, blocks: int = 1) -> None:
        self.evm.mine(blocks=blocks, seconds=seconds)

    def wait_beyond(self, timestamp: int) -> None:
        """Goes to the first second after a deadline."""
        self.wait(timestamp - self.evm.timestamp + 1)

    def wait_until(self, timestamp: int) -> None:
        """Goes to the last second of a deadline."""
        self.wait(timestamp - self.evm.timestamp)

    def decide(self, dispute: int, *, convicted: bool) -> Done:
        """The mock game's verdict; the market's events."""
        data = self.game.calldata("decide", dispute, convicted)
        try:
            _, used = self.evm.call(self.game.address, data, sender=STRANGER, gas=GAS)
        except EvmReverted as error:
            raise self.market.refusal(error) from None
        logs = [log for log in self.evm.logs if bytes(log[0]) == self.market.address]
        return Done(21_000 + used, [self.market.event(log) for log in logs])

    def post(self, *, budget: int = BUDGET, **changes: Any) -> Task:
        """Posts a task that differs from SPEC in these fields; the fees come on top."""
        spec = TaskSpec(**{**vars(SPEC), **changes})
        value = budget + spec.committee * spec.verifier_fee
        done = self.send("post", spec.as_abi(), "store", sender=SUBMITTER, value=value)
        return Task(
            self, done.event("TaskPosted")["id"], spec, gas={"post": done.gas}, spent=done.gas
        )

    def picture(self) -> dict[str, Any]:
        """All that a refused call could have changed."""
        tasks, views = (
            range(1, self.market.view("taskCount") + 1),
            ("getTask", "getRuns", "getSeats"),
        )
        return {
            "contract": self.evm.balance(self.market.address),
            "burned": self.burned(),
            "people": [(self.free(p), self.evm.balance(p)) for p in self.people],
            "verifiers": [self.market.view("verifierOf", p) for p in self.people],
            "tasks": [[self.market.view(view, task) for view in views] for task in tasks],
            "disputes": self.game.view("disputeCount"),
        }

    @contextmanager
    def refuses(self, error: str, *arguments: Any) -> Iterator[None]:
        """Asserts that the call inside is refused with that error and has changed nothing."""
        before = self.picture()
        with pytest.raises(Refused) as caught:
            yield
        expected = tuple(as_argument(argument) for argument in arguments)
        assert (caught.value.error, caught.value.arguments) == (error, expected)
        assert self.picture() == before

    def owed(self) -> int:
        """All wei that the contract must hold for somebody."""
        total = sum(self._stored(p) for p in self.people)
        for number in range(1, self.market.view("taskCount") + 1):
            total += self._held(number)
        for number in range(1, self.game.view("disputeCount") + 1):
            total += self.market.view("disputes", number)[3]
        return total

    def _stored(self, person: bytes) -> int:
        """Free wei and unused slots of an account, read from storage: far faster than by calls."""
        free, slots = self._slot(person, 0), self._slot(person, 3) >> 32 & (2**32 - 1)
        if not self._layout_checked:
            assert (free, slots) == (self.free(person), self.slots(person))
            self._layout_checked = slots > 0
        return free + slots * STAKE

    def _slot(self, person: bytes, mapping: int) -> int:
        place = keccak(person.rjust(32, b"\0") + mapping.to_bytes(32, "big"))
        return self.evm.storage(self.market.address, int.from_bytes(place, "big"))

    def _held(self, number: int) -> int:
        state = TaskState.from_abi(self.market.view("getTask", number))
        total = state.escrow + state.forfeited
        if state.status == Status.SLASHED and state.open_disputes:
            return total + state.stake * 40 // 100  # the reward waits for the last verdict
        if not state.status.final:
            total += state.stake if raw(state.solver) != NOBODY else 0
            seats = self.market.view("getSeats", number)
            total += sum(STAKE for _, seat, _ in seats if seat != SeatState.UNAVAILABLE)
        return total

    def assert_solvent(self) -> None:
        assert self.evm.balance(self.market.address) == self.owed()


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
    def runs(self) -> list[Run]:
        return [Run(*values) for values in self.world.market.view("getRuns", self.id)]

    @property
    def seats(self) -> list[Seat]:
        found = self.world.market.view("getSeats", self.id)
        return [Seat(verifier, SeatState(state)) for verifier, state, _ in found]

    @property
    def drawn(self) -> list[bytes]:
        return [raw(seat.verifier) for seat in self.seats]

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

    def opening(self, index: int) -> tuple[bytes, bytes, list[bytes]]:
        proof = self.log(self.spec.segments + 1).inclusion_proof(index)
        return salt(index), self.claimed[index], proof

    def starts(self) -> list[Any]:
        return [self.opening(run.first) for run in self.runs]

    def ends(self) -> list[Any]:
        return [self.opening(run.first + run.count) for run in self.runs]

    def draw(self) -> Done:
        """Waits for the block after the draw's, and draws."""
        self.world.wait(blocks=2)
        return self.call("draw")

    def open_starts(self) -> Done:
        return self.call("openStarts", self.starts(), sender=SOLVER)

    def open_ends(self) -> Done:
        last = self.opening(self.spec.segments)
        return self.call("openEnds", self.ends(), last, sender=SOLVER)

    def digests(self) -> list[bytes]:
        return [self.truth[run.first + run.count] for run in self.runs]

    def seal(self, verifier: bytes, digests: list[bytes] | None = None) -> Done:
        roots = self.digests() if digests is None else digests
        digest = self.world.market.view("sealOf", self.id, verifier, nonce(verifier), roots)
        return self.plain("seal", digest, sender=verifier)

    def reveal(
        self, verifier: bytes, digests: list[bytes] | None = None, receipt: bytes = RECEIPT
    ) -> Done:
        roots = self.digests() if digests is None else digests
        return self.plain("reveal", nonce(verifier), roots, receipt, sender=verifier)

    def challenge(self, challenger: bytes, run: int = 0) -> int:
        done = self.call("challenge", run, sender=challenger)
        return int(done.event("DisputeOpened")["disputeId"])

    # Everybody honest.

    def _train(self) -> None:
        self.world.wait_beyond(self.state.deadline)
        self.call("assign")

    def _commit(self) -> None:
        self.append(4)
        self.append(self.spec.segments + 1)

    def _seal_all(self) -> None:
        for verifier in self.drawn:
            self.seal(verifier)
        self.open_ends()

    def _reveal_all(self) -> None:
        for verifier in self.drawn:
            self.reveal(verifier)
        self.call("openWindow")

    def _settle(self) -> None:
        self.world.wait_beyond(self.state.deadline)
        self.call("settle")

    def reach(self, status: Status) -> Task:
        """Plays on, everybody honest, until the task has this status; BIDDING has one bid."""
        steps = {
            Status.BIDDING: Task._train,
            Status.TRAINING: Task._commit,
            Status.COMMITTED: Task.draw,
            Status.STARTING: Task.open_starts,
            Status.SEALING: Task._seal_all,
            Status.REVEALING: Task._reveal_all,
            Status.WINDOW: Task._settle,
        }
        if self.state.status == Status.BIDDING and raw(self.state.solver) == NOBODY:
            self.call("bid", BUDGET * 8 // 10, sender=SOLVER)
        while self.state.status != status:
            steps[self.state.status](self)
        return self


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
    # What is drawn follows from the block of the last commitment, so the draw starts before it.
    before = {Status.STARTING: Status.TRAINING, Status.REVEALING: Status.SEALING}
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
    world.people = list(EVERYBODY)
    return world


def at(status: Status, **changes: Any) -> Task:
    """A task that honest parties have brought to a status, in a world of its own."""
    fresh_world()
    task, mark = _staged(status, tuple(sorted(changes.items())))
    task.world.evm.back(mark)
    task = copy.copy(task)
    task.claimed, task.truth, task.gas = list(task.claimed), list(task.truth), dict(task.gas)
    return task
