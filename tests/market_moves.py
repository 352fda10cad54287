# SPDX-License-Identifier: GPL-3.0-or-later
"""What the wild parties of `tests/market_story.py` do: mostly what the rules allow."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from protocol.task import NO_SEAT, SeatState, Status
from tests.market_data import chunks, demand, output, void
from tests.market_driver import (
    BUDGET,
    BURN_ADDRESS,
    NOBODY,
    SOLVER,
    SPEC,
    STAKE,
    STRANGER,
    SUBMITTER,
    WHISTLEBLOWER,
    Task,
    nonce,
    raw,
)
from tests.market_story import ACTORS, HONEST, LIARS, NONSENSE, WILD_VERIFIERS, WINDOW, Story

BIDDERS: Final = (SOLVER, *LIARS)
ASK: Final = (10**17, 2, 1 << 16, 10**12)  # price of a unit of work, tasks, MiB, stake
PLAIN: Final = ("assign", "draw", "redraw", "defaulted", "openWindow", "settle", "punish")
Move = Callable[[], object]


def post(story: Story, choice: random.Random) -> None:
    """A task with any terms that make sense."""
    window = choice.choice([8, 8, 4, 3])
    free = [solver for solver in BIDDERS if may_bid(story, solver)]
    story.post(
        window_segments=window,
        samples=choice.choice([1, 2, 3, 3]),
        committee=2 if story.lazy else choice.choice([2, 2, 3, 4]),  # enough for three draws
        second_audit=choice.choice([0, 0, 128, 255]),
        solver_stake=choice.choice([STAKE // 4, SPEC.solver_stake]),
        verifier_fee=choice.choice([STAKE // 1024, SPEC.verifier_fee]),
        late_cost=choice.choice([0, BUDGET // 10]),
        faulty=choice.random() < 0.15,
        lies=set(choice.choice([[], [0], [1, 4, 6], range(8)])),
        **({"solver": "0x" + choice.choice(free).hex()} if choice.random() < 0.5 else {}),
    )


def may_bid(story: Story, solver: bytes) -> bool:
    """True unless a conviction is less than thirty days ago."""
    slashed_at = story.world.market.view("recordOf", solver)[2]
    return not slashed_at or story.world.evm.timestamp >= slashed_at + 30 * 86_400


def sensible(story: Story, task: Task, choice: random.Random) -> None:
    """One move in a task that its status has, by whoever may make it."""
    state = task.state
    moves = {
        Status.BIDDING: _bidding,
        Status.TRAINING: _training,
        Status.COMMITTED: _committed,
        Status.STARTING: _starting,
        Status.SEALING: _sealing,
        Status.REVEALING: _revealing,
        Status.WINDOW: _window,
        Status.CONVICTED: _convicted,
    }[state.status](story, task, choice)
    if task.spec.program_root != story.tasks[0].spec.program_root and choice.random() < 0.06:
        moves = [lambda: story.attempt("voidProgram", void, task)]
    moves += _anytime(story, task, choice)
    if not moves or choice.random() < 0.1:
        # Nothing is to be done but to wait for a deadline.
        past = state.deadline - story.world.evm.timestamp + 1
        seconds = max(1, past) if choice.random() < 0.8 else choice.choice([1, WINDOW])
        story.pass_time(min(seconds, 9 * WINDOW), choice.choice([1, 1, 1, 100]))
    else:
        choice.choice(moves)()


def _bidding(story: Story, task: Task, choice: random.Random) -> list[Move]:
    state, market = task.state, story.world.market
    now, direct = story.world.evm.timestamp, task.spec.solver != SPEC.solver
    moves: list[Move] = []
    leads = raw(state.solver)
    sealed = [p for p in BIDDERS if any(market.view("sealedBids", task.id, p))]
    if now <= state.deadline:
        if direct and may_bid(story, raw(task.spec.solver)):
            moves += 4 * [lambda: story.call(task, "accept", sender=raw(task.spec.solver))]
        for bidder in BIDDERS:
            if not direct and bidder not in sealed and may_bid(story, bidder):
                moves.append(lambda bidder=bidder: _bid(story, task, bidder, choice))
        if leads == NOBODY and choice.random() < 0.1:
            moves.append(lambda: story.call(task, "cancel", sender=SUBMITTER))
    elif now <= state.deadline + WINDOW:
        for bidder in sealed:
            if bidder not in HONEST:
                price = story.prices[task.id, bidder]
                args = (task, "revealBid", price, nonce(bidder))
                moves.append(lambda args=args, b=bidder: story.call(*args, sender=b))
    else:
        moves += 3 * [lambda: story.call(task, "assign", sender=choice.choice(ACTORS))]
        moves += [lambda b=b: story.call(task, "forfeitBid", b) for b in sealed]
    if not direct and now <= state.deadline + WINDOW:
        for solver in BIDDERS:
            if (
                may_bid(story, solver)
                and story.world.market.view("recordOf", solver)[3]
                and solver != leads
            ):
                moves.append(lambda solver=solver: story.call(task, "enterAsk", solver))
    # Enough has been bid for one day, perhaps.
    return [] if (sealed or leads != NOBODY) and choice.random() < 0.5 else moves


def _bid(story: Story, task: Task, bidder: bytes, choice: random.Random) -> None:
    price = choice.randrange(BUDGET)
    if story.attempt("bid", task.seal_bid, bidder, price):
        story.prices[task.id, bidder] = price


def _training(story: Story, task: Task, choice: random.Random) -> list[Move]:
    state = task.state
    solver = raw(state.solver)
    complete = task.spec.complete(state.settled)
    size = choice.choice([complete, complete, choice.randrange(state.log_size, complete) + 1])
    moves: list[Move] = [lambda: story.append(task, size)] * 4
    if solver != SOLVER and choice.random() < 0.2:
        moves = []  # it lets the time pass
    if state.by_ask and state.log_size == 0:
        moves.append(lambda: story.call(task, "decline", sender=solver))
    return _if_late(story, task, moves)


def _if_late(story: Story, task: Task, moves: list[Move], more: int = 0) -> list[Move]:
    if story.world.evm.timestamp > task.state.deadline + more:
        return [lambda: story.call(task, "defaulted")]
    return moves


def _committed(story: Story, task: Task, choice: random.Random) -> list[Move]:
    state, number = task.state, story.world.evm.number
    if number > state.draw_block + 256:
        late = story.world.evm.timestamp > state.deadline
        return [lambda: story.call(task, "defaulted" if late else "draw", *([] if late else [[]]))]
    if number <= state.draw_block:
        story.world.wait(blocks=2)
    if choice.random() < 0.1:
        return []
    sender = choice.choice([raw(state.solver), STRANGER])
    return [lambda: story.draw(task, sender)]


def _starting(story: Story, task: Task, choice: random.Random) -> list[Move]:
    moves: list[Move] = [lambda: story.open_starts(task)]
    if raw(task.state.solver) != SOLVER and choice.random() < 0.15:
        moves = []
    return _if_late(story, task, moves)


def _current(task: Task, state: SeatState) -> list[bytes]:
    """Wild verifiers of the current round in a state."""
    current = task.state.round
    return [
        raw(seat.verifier)
        for seat in task.seats
        if seat.round == current and seat.state == state and raw(seat.verifier) not in HONEST
    ]


def _sealing(story: Story, task: Task, choice: random.Random) -> list[Move]:
    state = task.state
    late = story.world.evm.timestamp > state.deadline
    current = [seat.state for seat in task.seats if seat.round == state.round]
    moves: list[Move] = []
    if not late:
        for verifier in _current(task, SeatState.DRAWN):
            seat = task.seat(verifier)
            claimed = [task.claimed[run.first + run.count] for run in task.runs]
            lies = choice.choice([claimed, claimed, claimed, story.replayed(task), [NONSENSE], []])
            if not story.lazy or choice.random() < 0.2:
                moves.append(lambda v=verifier, lies=lies: story.seal(task, v, lies))
            if choice.random() < (0.9 if story.lazy else 0.2):
                report = ("reportUnavailable", task.plain, "reportUnavailable", seat)
                moves.append(lambda r=report, v=verifier: story.attempt(*r, sender=v))
            if choice.random() < 0.3 and state.demands < 8:
                start = choice.choice(task.runs).first
                moves.append(lambda v=verifier, at=start: _demand(story, task, v, at, choice))
        if choice.random() < 0.2:
            story.attend()
    if late or SeatState.DRAWN not in current:
        if current.count(SeatState.SEALED) < 2:
            return [lambda: story.call(task, "redraw")]
        moves = [lambda: story.open_ends(task)]
        if raw(state.solver) != SOLVER and choice.random() < 0.15:
            moves = []
    return _if_late(story, task, moves, WINDOW)


def _demand(story: Story, task: Task, who: bytes, leaf: int, choice: random.Random) -> None:
    tensor = choice.randrange(2)
    parts = (leaf, tensor, choice.randrange(chunks(tensor)), task.seat(who))
    story.attempt("demand", demand, task, who, *parts)


def _revealing(story: Story, task: Task, choice: random.Random) -> list[Move]:
    if story.world.evm.timestamp > task.state.deadline:
        return [lambda: story.call(task, "openWindow")]
    moves: list[Move] = []
    for verifier in _current(task, SeatState.SEALED):
        receipt = bytes(32) if choice.random() < (0.8 if story.lazy else 0.1) else NONSENSE
        moves += 2 * [lambda v=verifier, r=receipt: story.reveal(task, v, r)]
        if choice.random() < 0.3 and task.state.demands < 8:
            moves.append(
                lambda v=verifier: _demand(story, task, v, task.state.log_size - 1, choice)
            )
    if choice.random() < 0.3:
        story.attend()
        if task.state.status != Status.REVEALING:
            return []
    return moves + _claims(story, task, choice)


def _claims(story: Story, task: Task, choice: random.Random) -> list[Move]:
    """Disputes by those whose digest differed, and by anybody."""
    moves: list[Move] = []
    attestors = [i for i, seat in enumerate(task.seats) if seat.state == SeatState.ATTESTED]
    for verifier in _current(task, SeatState.MISMATCHED):
        run = choice.randrange(len(task.runs))
        moves.append(lambda v=verifier, run=run: story.dispute(task, v, run))
    who = choice.choice([WHISTLEBLOWER, STRANGER, *WILD_VERIFIERS])
    if choice.random() < 0.4 and not _has_sealed(story, task, who):
        target = choice.randrange(task.state.log_size - 1), 1, NO_SEAT
        if attestors and choice.random() < 0.4:
            seat = choice.choice(attestors)
            runs = [run for run in task.all_runs if run.round == task.seats[seat].round]
            found = choice.choice(runs)
            target = found.first, found.count, seat
        if target[2] == NO_SEAT or raw(task.seats[target[2]].verifier) != who:
            moves.append(lambda: story.whistle(task, who, target))
    return moves


def _has_sealed(story: Story, task: Task, who: bytes) -> bool:
    return any(story.world.market.view("sealedChallenges", task.id, who)[0])


def _window(story: Story, task: Task, choice: random.Random) -> list[Move]:
    state = task.state
    if story.world.evm.timestamp > state.deadline:
        if state.open:
            return []
        good = [s for s in task.seats if s.round == state.round and s.state == SeatState.ATTESTED]
        gone = [
            s for s in task.seats if s.round == state.round and s.state == SeatState.UNAVAILABLE
        ]
        lacking = len(good) < 2 or len(gone) > len(good)
        return [lambda: story.call(task, "redraw" if lacking else "settle")]
    moves = _claims(story, task, choice)
    if choice.random() < 0.1 and state.demands < 8:
        who, leaf = choice.choice(ACTORS), choice.randrange(state.log_size)
        moves.append(lambda: _demand(story, task, who, leaf, choice))
    if not moves and choice.random() < 0.7:
        story.pass_time(max(1, state.deadline - story.world.evm.timestamp + 1))
    return moves


def _convicted(story: Story, task: Task, choice: random.Random) -> list[Move]:
    return [] if task.state.open else [lambda: story.call(task, "punish")]


def _anytime(story: Story, task: Task, choice: random.Random) -> list[Move]:
    """Verdicts, answers, and the ends of what has waited too long."""
    moves: list[Move] = []
    market, now = story.world.market, story.world.evm.timestamp
    over = task.state.status >= Status.CONVICTED
    for number, disputed in story.disputes.items():
        if disputed.task.id == task.id and market.view("disputes", number)[0]:
            moves.append(lambda number=number: decide(story, number))
    for number in story.demands(task):
        late = now > market.view("demands", number)[6]
        if late or over:
            args = ("unanswered", number, task.spec.as_abi())
            moves.append(lambda args=args: story.send(*args, sender=STRANGER))
        elif choice.random() < 0.5:
            moves.append(lambda number=number: story.answer(task, number))
    for who in ACTORS:
        sealed = market.view("sealedChallenges", task.id, who)
        if not any(sealed[0]):
            continue
        if over or now > sealed[4] + WINDOW:
            moves.append(lambda who=who: story.call(task, "dropChallenge", who))
        elif story.world.evm.number > sealed[3] and choice.random() < 0.8:
            moves.append(lambda who=who: story.tell(task, who))
    return moves


def decide(story: Story, dispute: int) -> None:
    """The verdict that the real game would give."""
    convicted = story.verdict(dispute)
    story.attempt("verdict", story.world.decide, dispute, convicted=convicted)


def accounts(story: Story, choice: random.Random) -> None:
    """Something that has to do with no task."""
    world, wild = story.world, choice.choice(ACTORS)
    verifier = choice.choice(WILD_VERIFIERS)
    places, _, _, leaves, _ = world.market.view("verifierOf", verifier)
    moves: list[Move] = [
        lambda: story.send("setAsk", *ASK, sender=choice.choice(BIDDERS)),
        lambda: story.send("deposit", sender=wild, value=world.evm.balance(wild) // 2),
    ]
    if world.free(wild):
        moves.append(lambda: story.send("withdraw", sender=wild))
    if places == 0 and world.free(verifier) >= 3 * 10**18:
        moves += 3 * [lambda: story.send("registerVerifier", 3, sender=verifier)]
    elif leaves == 0 and places:
        moves.append(lambda: story.send("leaveVerifiers", sender=verifier))
    elif places and world.evm.timestamp >= leaves:
        moves.append(lambda: story.send("removeVerifier", sender=verifier))
    if world.burned() != world.evm.balance(BURN_ADDRESS):
        moves.append(lambda: story.send("burn", sender=wild))
    choice.choice(moves)()


def nonsense(story: Story, task: Task, choice: random.Random) -> None:
    """Any call by anybody, with arguments that mean nothing in particular."""
    sender = choice.choice([*ACTORS, *HONEST])
    index = choice.randrange(5)
    verifier = choice.choice(WILD_VERIFIERS)
    node, proof = output(task, 0)
    target = (index, index % 3, choice.choice([index, NO_SEAT]), choice.choice([0, NO_SEAT]))
    log = max(task.state.log_size, 1)
    first, last = task.log(log).inclusion_proof(0), (nonce(sender), task.claimed[0], [])
    opening = (bytes(32), task.claimed[0], first)
    choice.choice(
        [
            lambda: story.call(task, choice.choice(PLAIN[:1] + PLAIN[2:]), sender=sender),
            lambda: story.call(task, "draw", [opening], sender=sender),
            lambda: story.call(task, "openStarts", [opening] * index, sender=sender),
            lambda: story.call(task, "openEnds", [opening] * index, last, sender=sender),
            lambda: story.call(
                task, "challenge", (*target, opening, last), bytes(32), sender=sender
            ),
            lambda: story.call(task, "cancel", sender=sender),
            lambda: story.call(task, "accept", sender=sender),
            lambda: story.call(task, "decline", sender=verifier),
            lambda: story.call(task, "enterAsk", verifier, sender=sender),
            lambda: story.call(task, "forfeitBid", LIARS[0], sender=sender),
            lambda: story.call(task, "revealBid", index, NONSENSE, sender=sender),
            lambda: story.call(task, "dropChallenge", sender, sender=sender),
            lambda: story.call(task, "voidProgram", index, b"\xfe", [], sender=sender),
            lambda: story.call(task, "demand", index, index, 0, 9, node, proof, sender=sender),
            lambda: story.attempt("append", task.append, index + 1, sender=verifier),
            lambda: story.attempt("seal", task.plain, "seal", index, NONSENSE, sender=LIARS[0]),
            lambda: story.reveal(task, verifier),
            lambda: story.send("unanswered", index, task.spec.as_abi(), sender=sender),
            lambda: story.send("onVerdict", index, True, sender=sender),
            lambda: story.send("removeVerifier", sender=sender),
            lambda: story.send("registerVerifier", 65, sender=verifier),
        ]
    )()
