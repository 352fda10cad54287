# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever anybody does in whatever order: the contract holds exactly what it owes.

Calls are random; most are refused, and a refused call must change nothing. After each one the
contract's balance equals the sum of free balances, slots, stakes, escrows, bonds and lost bonds,
and no wei appears or vanishes but by burning.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from eth_utils.crypto import keccak
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from protocol.task import SeatState, Status
from tests.market_chain import Refused
from tests.market_driver import (
    RIVAL,
    SOLVER,
    SPEC,
    STRANGER,
    SUBMITTER,
    VERIFIERS,
    WHISTLEBLOWER,
    Task,
    World,
    fresh_world,
    raw,
)

ACTORS = (SUBMITTER, SOLVER, RIVAL, WHISTLEBLOWER, STRANGER, *VERIFIERS)
HONEST = ("assign", "draw", "redraw", "defaulted", "openWindow", "settle")
PANIC = "4e487b71"
actors = st.sampled_from(ACTORS)


class MarketMachine(RuleBasedStateMachine):
    """Up to three tasks with small windows, everybody free to call anything."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World = fresh_world()
        self.tasks: list[Task] = []
        self.supply = self._supply()
        self.verdicts = 0

    def _supply(self) -> int:
        world = self.world
        held = sum(world.evm.balance(person) for person in world.people)
        return held + world.evm.balance(world.market.address) + world.burned()

    def attempt(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        """Makes a call; refused calls are part of the game if they name a custom error."""
        try:
            done = call(*args, **kwargs)
        except Refused as refusal:
            # A panic (overflow, missing element) is never how the market says no.
            if refusal.error.startswith(PANIC):
                raise
            return None
        return done

    @initialize(samples=st.integers(1, 3), committee=st.integers(1, 3))
    def begin(self, samples: int, committee: int) -> None:
        self.post(samples, committee, 5, SPEC.verifier_fee)

    @rule(
        samples=st.integers(1, 3),
        committee=st.integers(1, 4),
        stake=st.sampled_from([1, 7, SPEC.solver_stake]),
        fee=st.sampled_from([0, 1, SPEC.verifier_fee]),
    )
    def post(self, samples: int, committee: int, stake: int, fee: int) -> None:
        if len(self.tasks) == 3:
            return
        changes = {"samples": samples, "committee": committee, "solver_stake": stake}
        windows = {"bid_window": 60, "train_window": 600, "audit_window": 300}
        task = self.world.post(**changes, verifier_fee=fee, bond=7, **windows)
        self.tasks.append(task)

    @rule(data=st.data(), bidder=actors, price=st.sampled_from([0, 1, 10**18, 10**19]))
    def bid(self, data: st.DataObject, bidder: bytes, price: int) -> None:
        task = data.draw(st.sampled_from(self.tasks))
        self.attempt(task.call, "bid", price, sender=bidder)

    @rule(data=st.data(), sender=actors)
    def cancel(self, data: st.DataObject, sender: bytes) -> None:
        self.attempt(data.draw(st.sampled_from(self.tasks)).plain, "cancel", sender=sender)

    @rule(data=st.data(), function=st.sampled_from(HONEST), sender=actors)
    def move_on(self, data: st.DataObject, function: str, sender: bytes) -> None:
        self.attempt(data.draw(st.sampled_from(self.tasks)).call, function, sender=sender)

    @rule(data=st.data(), size=st.sampled_from([1, 5, 9]))
    def append(self, data: st.DataObject, size: int) -> None:
        task = data.draw(st.sampled_from(self.tasks))
        solver = raw(task.state.solver)
        self.attempt(task.append, size, sender=solver)

    @rule(data=st.data(), seed=st.integers(0, 2**32), patience=st.integers(5, 25))
    def play_on(self, data: st.DataObject, seed: int, patience: int) -> None:
        """A stretch of mostly sensible moves in one task, so that its later states are reached."""
        task = data.draw(st.sampled_from(self.tasks))
        choice = random.Random(seed)
        for _ in range(patience):
            self._sensible(task, choice)
            self.solvent()

    def _sensible(self, task: Task, choice: random.Random) -> None:
        state = task.state
        solver, world = raw(state.solver), self.world
        if state.status != Status.BIDDING and choice.random() < 0.12:
            world.wait(blocks=choice.choice([1, 300]), seconds=choice.choice([12, 400, 4_000]))
            self.attempt(task.call, "defaulted")
        if state.status == Status.BIDDING:
            self.attempt(task.call, "bid", choice.randrange(10**18), sender=choice.choice(ACTORS))
            if choice.random() < 0.5:
                world.wait(61)
            self.attempt(task.call, "assign")
        elif state.status == Status.TRAINING:
            self.attempt(task.append, choice.choice([2, 9, 9]), sender=solver)
        elif state.status == Status.COMMITTED:
            world.wait(blocks=2)
            self.attempt(task.call, "draw")
        elif state.status == Status.STARTING:
            self.attempt(task.call, "openStarts", task.starts(), sender=solver)
        elif state.status == Status.SEALING:
            for verifier in task.drawn:
                digests: list[bytes] | None = choice.choice([None, None, [], [keccak(b"lie")]])
                if choice.random() < 0.8:
                    self.attempt(task.seal, verifier, digests)
                elif choice.random() < 0.5:
                    self.attempt(task.plain, "reportUnavailable", sender=verifier)
            ends, last = task.ends(), task.opening(8)
            self.attempt(task.call, "openEnds", ends, last, sender=solver)
            self.attempt(task.call, "redraw")
        elif state.status == Status.REVEALING:
            for verifier in task.drawn:
                for digests in (None, [], [keccak(b"lie")]):
                    self.attempt(task.reveal, verifier, digests)
            self.attempt(task.call, "openWindow")
        if state.status in (Status.REVEALING, Status.WINDOW) and choice.random() < 0.6:
            challenger = choice.choice([*task.drawn, *ACTORS])
            self.attempt(task.call, "challenge", choice.randrange(3), sender=challenger)
        if choice.random() < 0.4:
            self.verdict(choice.randrange(1, 4), choice.random() < 0.4)
        if state.status == Status.WINDOW:
            world.wait(choice.choice([12, 4_000]))
            self.attempt(task.call, choice.choice(["settle", "redraw"]))

    @rule(dispute=st.integers(1, 8), convicted=st.booleans())
    def verdict(self, dispute: int, convicted: bool) -> None:
        if dispute <= self.world.game.view("disputeCount"):
            done = self.attempt(self.world.decide, dispute, convicted=convicted)
            self.verdicts += done is not None

    @rule(verifier=st.sampled_from((*VERIFIERS, STRANGER, SOLVER)), slots=st.integers(0, 3))
    def register(self, verifier: bytes, slots: int) -> None:
        self.attempt(self.world.send, "registerVerifier", slots, sender=verifier)

    @rule(verifier=actors, remove=st.booleans())
    def leave(self, verifier: bytes, remove: bool) -> None:
        function = "removeVerifier" if remove else "leaveVerifiers"
        self.attempt(self.world.send, function, sender=verifier)

    @rule(person=actors)
    def withdraw(self, person: bytes) -> None:
        self.attempt(self.world.send, "withdraw", sender=person)

    @rule(person=actors, wei=st.integers(0, 10**21))
    def deposit(self, person: bytes, wei: int) -> None:
        if wei <= self.world.evm.balance(person):
            self.attempt(self.world.send, "deposit", sender=person, value=wei)

    @rule(seconds=st.sampled_from([1, 61, 301, 8 * 86_400]), blocks=st.sampled_from([1, 2, 300]))
    def time_passes(self, seconds: int, blocks: int) -> None:
        self.world.wait(seconds, blocks)

    @invariant()
    def solvent(self) -> None:
        self.world.assert_solvent()
        assert self._supply() == self.supply

    @invariant()
    def tasks_make_sense(self) -> None:
        for task in self.tasks:
            state, seats = task.state, task.seats
            if state.status.final:
                assert (state.escrow, state.forfeited) == (0, 0)
            drawn = {seat.verifier for seat in seats}
            assert len(drawn) == len(seats)
            assert not {state.solver, state.submitter} & drawn
            if state.status == Status.SETTLED:
                assert SeatState.ATTESTED in [seat.state for seat in seats]


TestMarket = MarketMachine.TestCase
TestMarket.settings = settings(
    max_examples=max(25, settings().max_examples // 5),  # each is a long story
    stateful_step_count=12,
)


def test_random_stories_conserve_money_and_reach_every_ending() -> None:
    endings: Counter[Status] = Counter()
    verdicts = 0
    for seed in range(14):
        choice = random.Random(seed)
        machine = MarketMachine()
        machine.post(1 + seed % 3, 1 + seed % 4, SPEC.solver_stake, SPEC.verifier_fee)
        machine.post(2, 2, 7, 0)
        for _ in range(40):
            live = [task for task in machine.tasks if not task.state.status.final]
            if not live:
                break
            machine._sensible(choice.choice(live), choice)
            machine.solvent()
            machine.tasks_make_sense()
        endings.update(task.state.status for task in machine.tasks)
        verdicts += machine.verdicts
    for ending in (Status.SETTLED, Status.SLASHED, Status.EXPIRED):
        assert endings[ending] >= 3, endings
    assert verdicts >= 6
