# SPDX-License-Identifier: GPL-3.0-or-later
"""A chain with the market, a mock game, people with money, and time that tests move."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from eth_utils.crypto import keccak

from protocol.task import SeatState, TaskSpec
from tests.evm import ETHER, EvmReverted
from tests.market_chain import GAS, Chain, Deployed, Done, Refused, as_argument, raw

if TYPE_CHECKING:
    from tests.market_driver import Task

STAKE = ETHER  # of a verifier's slot
MIN_WINDOW = 300  # seconds
FUNDS = 1_000 * ETHER  # what everybody has deposited
BUDGET = 10 * ETHER
BURN_ADDRESS = bytes.fromhex("dead".zfill(40))
NOBODY = bytes(20)
NATIVE = bytes(20)  # instead of a token
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
    submitter="0x" + role("submitter").hex(),
    n_nodes=9,
    n_state=2,
    n_const=0,
    n_data=1,
    steps=38,
    segment_steps=5,  # eight segments, the last one shorter
    window_segments=8,
    work=1_000,
    memory_mib=100,
    budget=BUDGET,
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
        referee = Deployed(self.evm, "Referee")
        self.game = Deployed(self.evm, "MockGame", referee.address)
        terms = (self.game.address, self._deploy_currency(), STAKE)
        codes = [Deployed(self.evm, name, *terms).address for name in ("Remedies", "Registry")]
        self.market = Deployed(self.evm, "Market", *terms, *codes, MIN_WINDOW)
        self.people = list(EVERYBODY)
        self.tasks: list[Task] = []
        self._layout_checked = False
        self.sealers: set[tuple[int, bytes]] = set()  # tasks, and who has ever sealed in them
        for person in EVERYBODY:
            self.fund(person)
        for verifier in VERIFIERS[:verifiers]:
            self.send("registerVerifier", slots, sender=verifier)
        self.evm.mine()

    def _deploy_currency(self) -> bytes:
        return NATIVE

    def wealth(self, account: bytes) -> int:
        """What an account has outside the market, in the market's currency."""
        return self.evm.balance(account)

    def fund(self, person: bytes, wei: int = FUNDS) -> None:
        """Gives an account wei in its hand and as much in the market."""
        if person not in self.people:
            self.people.append(person)
        self.evm.set_balance(person, 2 * wei)
        self.send("deposit", sender=person, value=wei)

    def send(self, function: str, *args: Any, sender: bytes, value: int = 0) -> Done:
        done = self.market.send(function, *args, sender=sender, value=value)
        self.sealers |= {(e["id"], raw(e["solver"])) for e in done.all("BidSealed")}
        self.sealers |= {(e["id"], raw(e["challenger"])) for e in done.all("ChallengeSealed")}
        return done

    def free(self, person: bytes) -> int:
        return int(self.market.view("balanceOf", person))

    def slots(self, verifier: bytes) -> int:
        return int(self.market.view("verifierOf", verifier)[1])

    def burned(self) -> int:
        return self.wealth(BURN_ADDRESS) + self.free(BURN_ADDRESS)

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

    def post(self, claimed: Sequence[bytes] = (), **changes: Any) -> Task:
        """Posts a task that differs from SPEC in these fields; its log will claim these states."""
        from tests.market_driver import Task

        spec = replace(SPEC, **changes)
        done = self.send("post", spec.as_abi(), "store", sender=SUBMITTER, value=spec.escrow)
        number = done.event("TaskPosted")["id"]
        task = Task(self, number, spec, [*claimed], gas={"post": done.gas}, spent=done.gas)
        self.tasks.append(task)
        return task

    def picture(self) -> dict[str, Any]:
        """All that a refused call could have changed."""
        tasks, views = (
            range(1, self.market.view("taskCount") + 1),
            ("getTask", "getRuns", "getSeats"),
        )
        return {
            "contract": self.wealth(self.market.address),
            "burned": self.burned(),
            "people": [(self.free(p), self.wealth(p)) for p in self.people],
            "verifiers": [self.market.view("verifierOf", p) for p in self.people],
            "tasks": [[self.market.view(view, task) for view in views] for task in tasks],
            "disputes": self.game.view("disputeCount"),
            "demands": self.market.view("demandCount"),
            "records": [self.market.view("recordOf", p) for p in self.people],
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
        total = sum(self._stored(p) for p in [*self.people, BURN_ADDRESS, NOBODY])
        for task in self.tasks:
            total += self._held(task)
        for number in range(1, self.game.view("disputeCount") + 1):
            total += self.market.view("disputes", number)[4]
        for number in range(1, self.market.view("demandCount") + 1):
            total += self.market.view("demands", number)[7]
        return total

    def _stored(self, person: bytes) -> int:
        """Free wei and unused slots of an account, read from storage: far faster than by calls."""
        free, slots = self._slot(person, 0), self._slot(person, 3) >> 32 & (2**32 - 1)
        if not self._layout_checked:
            assert (free, slots) == (self.free(person), self.slots(person))
            self._layout_checked = slots > 0
        return free + slots * STAKE

    def _slot(self, person: bytes, mapping: int) -> int:
        return self.evm.storage(self.market.address, _place(person, mapping))

    def place_of(self, key: bytes, word: int) -> int:
        """Where the market's storage holds a word for a key of one of its mappings."""
        places = (_place(key, mapping) for mapping in range(32))
        return next(p for p in places if self.evm.storage(self.market.address, p) == word)

    def set_mapping(self, mapping: int, person: bytes, value: int) -> None:
        """Writes what a mapping of the market holds for an account."""
        self.evm.set_storage(self.market.address, _place(person, mapping), value)

    def _held(self, task: Task) -> int:
        """What a task holds, sealed bids and challenges included."""
        state, spec = task.state, task.spec
        total = 0
        for number, person in self.sealers:
            if number == task.id:
                total += spec.bond * any(self.market.view("sealedBids", number, person))
                total += self.market.view("sealedChallenges", number, person)[1]
        if not state.status.final:
            total += spec.escrow - state.paid + state.forfeited
            total += spec.solver_stake if raw(state.solver) != NOBODY else 0
            total += STAKE * sum(seat.state < SeatState.UNAVAILABLE for seat in task.seats)
        return total

    def assert_solvent(self) -> None:
        assert self.wealth(self.market.address) == self.owed()
        for task in self.tasks:
            assert task.state.challenges + task.state.accusations <= task.state.open


def _place(person: bytes, mapping: int) -> int:
    return int.from_bytes(keccak(person.rjust(32, b"\0") + mapping.to_bytes(32, "big")), "big")
