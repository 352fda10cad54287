# SPDX-License-Identifier: GPL-3.0-or-later
"""Random stories in the market: honest parties do their duty in time, others do anything.

A story has one honest solver and two that lie about some segments, honest verifiers and wild ones.
The honest act whenever time is about to pass; everybody else makes whatever call comes to mind,
mostly one that the rules allow. A mock game gives the verdict that the real game would give.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from eth_utils.crypto import keccak

from protocol.task import NO_SEAT, SeatState, Status
from tests.market_chain import Done, Refused
from tests.market_data import FAULTY, TERMS, reply
from tests.market_driver import (
    BURN_ADDRESS,
    RIVAL,
    SOLVER,
    SPEC,
    STAKE,
    STRANGER,
    SUBMITTER,
    VERIFIERS,
    WHISTLEBLOWER,
    Task,
    World,
    fresh_world,
    nonce,
    raw,
)

HONEST_VERIFIERS: Final = VERIFIERS[:3]
WILD_VERIFIERS: Final = VERIFIERS[3:]
HONEST: Final = (SOLVER, *HONEST_VERIFIERS)
LIARS: Final = (RIVAL, STRANGER)  # and late, or never to be seen
ACTORS: Final = (SUBMITTER, *LIARS, WHISTLEBLOWER, *WILD_VERIFIERS)
WINDOW: Final = 300  # seconds, of every phase
STRIDE: Final = 250  # seconds that the honest let pass at most before they look again
TRUTH, NONSENSE = keccak(b"another state"), keccak(b"nonsense")
NATURE: Final = {
    "bid_window": WINDOW,
    "train_window": 2 * WINDOW,
    "audit_window": WINDOW,
    "challenge_window": WINDOW,
    "dispute_clock": WINDOW,
    "work": 1,
    "bond": SPEC.bond // 32,
}


class Disputed(NamedTuple):
    """What a dispute is about."""

    task: Task
    first: int
    count: int


class Story:
    """A market, its tasks, and what has happened."""

    def __init__(self, *, lazy: bool = False) -> None:
        self.lazy = lazy  # wild verifiers mostly leave their seats
        self.world: World = fresh_world()
        self.lies: dict[int, set[int]] = {}  # segments that a liar does not compute, by task
        self.prices: dict[tuple[int, bytes], int] = {}
        self.sealed: dict[tuple[int, int], list[bytes]] = {}
        self.told: dict[tuple[int, bytes], tuple[int, int, int]] = {}
        self.disputes: dict[int, Disputed] = {}
        self.reasons: Counter[str] = Counter()
        self.statuses: Counter[Status] = Counter()
        self.calls: Counter[tuple[str, bool]] = Counter()
        self._live: list[Task] = []
        self._unfinished: list[Task] = []  # when all was checked last
        self.supply = self.money()
        self.wealth = {party: self.wealth_of(party) for party in HONEST}

    @property
    def tasks(self) -> list[Task]:
        return self.world.tasks

    @property
    def live(self) -> list[Task]:
        """Tasks that have not ended; one that has never begins again."""
        self._live = [task for task in self._live if not task.state.status.final]
        return self._live

    # Money.

    def money(self) -> int:
        """All wei that there is, burned or not."""
        world = self.world
        held = sum(world.evm.balance(person) for person in world.people)
        return held + world.evm.balance(world.market.address) + world.evm.balance(BURN_ADDRESS)

    def wealth_of(self, party: bytes) -> int:
        """What an account has or gets back: in its hand, free, in slots, stakes and bonds."""
        world = self.world
        total = world.evm.balance(party) + world.free(party) + STAKE * world.slots(party)
        for number, person in world.sealers:
            if person == party and any(world.market.view("sealedBids", number, party)):
                total += self.tasks[number - 1].spec.bond
        for task in self.live:
            state = task.state
            total += task.spec.solver_stake * (raw(state.solver) == party)
            mine = [seat for seat in task.seats if raw(seat.verifier) == party]
            total += STAKE * sum(seat.state < SeatState.UNAVAILABLE for seat in mine)
        for number in self.disputes:
            _, challenger, _, _, bond, _ = world.market.view("disputes", number)
            total += bond if raw(challenger) == party else 0
        return total

    def check(self) -> None:
        """What holds at all times."""
        world = self.world
        world.assert_solvent()
        assert self.money() == self.supply
        for party in HONEST:
            assert self.wealth_of(party) >= self.wealth[party], "an honest party has lost money"
        for task in self._unfinished:
            state, seats = task.state, task.seats
            self.statuses[state.status] += 1
            drawn = {seat.verifier for seat in seats}
            assert len({(seat.verifier, seat.round) for seat in seats}) == len(seats)
            if state.agreed:
                first = {seat.verifier for seat in seats if seat.round == state.agreed}
                assert not any(s.verifier in first for s in seats if s.round > state.agreed)
            assert not {state.solver, "0x" + SUBMITTER.hex()} & drawn
            if raw(state.solver) == SOLVER:
                assert state.status not in (Status.CONVICTED, Status.SLASHED)
            if state.status.final:
                assert state.forfeited == 0
            if state.status == Status.SETTLED:
                attested = [s for s in seats if s.state == SeatState.ATTESTED]
                assert len(attested) >= 2
                assert state.log_size == task.spec.segments + 1
        self._unfinished = list(self.live)

    # Calls.

    def attempt(self, name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
        """Makes a call; a refused one is part of the story if it names a custom error."""
        before = [self.world.free(p) for p in LIARS], self.world.burned()
        try:
            done = call(*args, **kwargs)
        except Refused as refusal:
            # A panic (overflow, missing element) is never how the market says no.
            if not re.fullmatch("[A-Z][A-Za-z]+", refusal.error):
                raise
            self.calls[name, False] += 1
            return False
        self.calls[name, True] += 1
        if isinstance(done, Done):
            self._read(done, *before)
        return True

    def _read(self, done: Done, free: list[int], burned: int) -> None:
        for event in done.all("DisputeOpened"):
            task = self.tasks[event["id"] - 1]
            self.disputes[event["disputeId"]] = Disputed(task, event["first"], event["count"])
        for event in done.all("TaskEnded"):
            self.reasons[event["reason"].rstrip(b"\0").decode()] += 1
        for event in done.all("SolverSlashed"):
            # A convicted solver gets nothing, and two fifths of its stake at least burn.
            solver = raw(event["solver"])
            assert self.world.free(solver) == free[LIARS.index(solver)]
            assert 5 * (self.world.burned() - burned) >= 2 * event["amount"]
        for event in done.all("VerifierSlashed"):
            assert raw(event["verifier"]) not in HONEST

    def send(self, function: str, *args: Any, sender: bytes, **kwargs: Any) -> bool:
        return self.attempt(function, self.world.send, function, *args, sender=sender, **kwargs)

    def call(self, task: Task, function: str, *args: Any, sender: bytes = STRANGER) -> bool:
        return self.attempt(function, task.call, function, *args, sender=sender)

    def post(self, **changes: Any) -> Task:
        terms = FAULTY if changes.pop("faulty", False) else TERMS
        lies = changes.pop("lies", set())
        task = self.world.post(**{**terms, **NATURE, **changes})
        self.lies[task.id] = set(lies)
        self._live.append(task)
        self._unfinished.append(task)
        return task

    # Truth.

    def is_false(self, task: Task, first: int, count: int) -> bool:
        """True if the solver did not compute some of these segments."""
        if raw(task.state.solver) == SOLVER:
            return False
        return any(segment in self.lies[task.id] for segment in range(first, first + count))

    def replayed(self, task: Task) -> list[bytes]:
        """What who replays the current runs finds."""
        return [
            TRUTH
            if self.is_false(task, run.first, run.count)
            else task.claimed[run.first + run.count]
            for run in task.runs
        ]

    def verdict(self, dispute: int) -> bool:
        return self.is_false(*self.disputes[dispute])

    # Moves.

    def seal(self, task: Task, verifier: bytes, digests: list[bytes]) -> bool:
        seat = task.seat(verifier)
        self.sealed[task.id, seat] = digests
        return self.attempt("seal", task.seal, verifier, digests)

    def reveal(self, task: Task, verifier: bytes, receipt: bytes = NONSENSE) -> bool:
        digests = self.sealed.get((task.id, task.seat(verifier)), [])
        return self.attempt("reveal", task.reveal, verifier, digests, receipt)

    def draw(self, task: Task, sender: bytes) -> bool:
        """Draws; the solver opens the starts at once."""
        openings: list[Any] = []
        if raw(task.state.solver) == sender:
            try:
                runs = self.world.market.view("draw", task.id, task.spec.as_abi(), [])
                openings = [task.opening(run[0]) for run in runs]
            except Refused:
                pass
        return self.call(task, "draw", openings, sender=sender)

    def open_starts(self, task: Task) -> bool:
        return self.call(task, "openStarts", task.starts(), sender=raw(task.state.solver))

    def open_ends(self, task: Task) -> bool:
        last = task.opening(task.state.log_size - 1)
        return self.call(task, "openEnds", task.ends(), last, sender=raw(task.state.solver))

    def append(self, task: Task, size: int) -> bool:
        return self.attempt("append", task.append, size, sender=raw(task.state.solver))

    def dispute(self, task: Task, verifier: bytes, run: int, attestor: int = NO_SEAT) -> bool:
        """A verifier whose digest differed uses its priority."""
        found = task.runs[run]
        target = task.target(found.first, found.count, task.seat(verifier), attestor)
        return self.call(task, "challenge", target, bytes(32), sender=verifier)

    def whistle(self, task: Task, who: bytes, target: tuple[int, int, int]) -> bool:
        self.told[task.id, who] = target
        return self.attempt("sealChallenge", task.seal_challenge, who, *target)

    def tell(self, task: Task, who: bytes) -> bool:
        first, count, attestor = self.told[task.id, who]
        target = task.target(first, count, attestor=attestor)
        return self.call(task, "challenge", target, nonce(who), sender=who)

    def demands(self, task: Task) -> list[int]:
        """Demands of a task that wait for an answer."""
        count = self.world.market.view("demandCount")
        view = self.world.market.view
        return [n for n in range(1, count + 1) if view("demands", n)[0] == task.id]

    def answer(self, task: Task, number: int) -> bool:
        asked = self.world.market.view("demands", number)
        parts = reply(task, *asked[2:5])
        return self.send("answer", number, task.spec.as_abi(), *parts, sender=STRANGER)

    # Time, and what the honest do before it passes.

    def pass_time(self, seconds: int, blocks: int = 1) -> None:
        """Lets time pass, in strides after each of which the honest look what is due."""
        self.attend()
        while seconds > 0:
            stride = min(seconds, STRIDE)
            self.world.wait(stride, blocks=blocks)
            self.attend()
            seconds -= stride

    def attend(self) -> None:
        for task in self.live:
            # One move of a party may be what another one waits for.
            while self._attend(task):
                pass

    def _attend(self, task: Task) -> bool:
        """One duty of an honest party in a task; False if there is none now."""
        state, world = task.state, self.world
        if state.status == Status.BIDDING:
            late = world.evm.timestamp - state.deadline
            if late > WINDOW and raw(state.solver) == SOLVER:
                return self._did(self.append(task, task.spec.complete(0)))
            price = self.prices.get((task.id, SOLVER))
            if price is None or not 0 < late <= WINDOW:
                return False
            del self.prices[task.id, SOLVER]
            return self._did(self.call(task, "revealBid", price, nonce(SOLVER), sender=SOLVER))
        if raw(state.solver) == SOLVER and self._solve(task, state.status):
            return True
        for seat in task.seats:
            verifier = raw(seat.verifier)
            serves = seat.round == state.round and verifier in HONEST_VERIFIERS
            if serves and self._verify(task, verifier, seat.state):
                return True
        return False

    def _did(self, done: bool) -> bool:
        assert done, "what an honest party does in time was refused"
        return done

    def _solve(self, task: Task, status: Status) -> bool:
        state, world = task.state, self.world
        for number in self.demands(task):
            return self._did(self.answer(task, number))
        if status == Status.TRAINING:
            return self._did(self.append(task, task.spec.complete(state.settled)))
        if status == Status.COMMITTED and world.evm.number > state.draw_block:
            return self._did(self.draw(task, SOLVER))
        if status == Status.STARTING:
            return self._did(self.open_starts(task))
        current = [seat for seat in task.seats if seat.round == state.round]
        states = [seat.state for seat in current]
        waits = SeatState.DRAWN in states and world.evm.timestamp <= state.deadline
        if status == Status.SEALING and not waits and states.count(SeatState.SEALED) >= 2:
            return self._did(self.open_ends(task))
        return False

    def _verify(self, task: Task, verifier: bytes, seat: SeatState) -> bool:
        state = task.state
        if self.world.evm.timestamp > state.deadline:
            return False
        if state.status == Status.SEALING and seat == SeatState.DRAWN:
            return self._did(self.seal(task, verifier, self.replayed(task)))
        if state.status == Status.REVEALING and seat == SeatState.SEALED:
            return self._did(self.reveal(task, verifier))
        if state.status in (Status.REVEALING, Status.WINDOW) and seat == SeatState.MISMATCHED:
            false = [i for i, r in enumerate(task.runs) if self.is_false(task, r.first, r.count)]
            return self._did(self.dispute(task, verifier, false[0]))
        return False
