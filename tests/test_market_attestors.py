# SPDX-License-Identifier: GPL-3.0-or-later
"""Disputes with a verifier over the digest that it attested."""

from __future__ import annotations

import pytest

from protocol.rules import BOND_DOUBLES
from protocol.task import NO_SEAT, SeatState, Status
from tests.market_chain import label
from tests.market_cheats import (
    BOND,
    BURNED,
    COMPENSATION,
    STAKED,
    VERIFIER_REWARD,
    cheated,
)
from tests.market_driver import (
    FUNDS,
    RIVAL,
    SOLVER,
    SPEC,
    STAKE,
    STRANGER,
    SUBMITTER,
    VERIFIERS,
    WHISTLEBLOWER,
    Task,
    at,
    nonce,
    raw,
    role,
)

CLOCK = SPEC.dispute_clock
LEAST_BOND = STAKE // 32
MAX_OPEN = 32


def accuse(task: Task, challenger: bytes, attestor: bytes, run: int = 0) -> int:
    """Somebody who was not drawn disputes what a verifier attested."""
    found = task.runs[run]
    return task.whistle(challenger, found.first, found.count, task.seat(attestor))


def test_the_attestor_of_a_lie_is_the_defendant_of_a_game_of_its_own() -> None:
    task = cheated()
    world, attestor, run = task.world, task.drawn[0], task.runs[0]
    seat = task.seat(attestor)
    task.seal_challenge(WHISTLEBLOWER, run.first, run.count, seat)
    world.wait()
    target = task.target(run.first, run.count, attestor=seat)
    done = task.call("challenge", target, nonce(WHISTLEBLOWER), sender=WHISTLEBLOWER)
    event = done.event("DisputeOpened")
    assert (raw(event["defendant"]), raw(event["challenger"])) == (attestor, WHISTLEBLOWER)
    ends = (task.claimed[run.first], task.claimed[run.first + run.count])
    assert event["context"][4:6] == ends
    parties = world.game.view("getDispute", event["disputeId"])
    assert raw(parties[1]) == attestor
    assert parties[3:5] == (CLOCK, CLOCK)
    world.assert_solvent()


def test_convicting_an_attestor_slashes_it_alone_and_pays_forty_per_cent() -> None:
    task = cheated()
    world, (attestor, other, honest) = task.world, task.drawn
    free, burned = world.free(attestor), world.burned()
    done = world.decide(accuse(task, WHISTLEBLOWER, attestor), convicted=True)
    event = done.event("VerifierSlashed")
    assert (raw(event["verifier"]), event["amount"]) == (attestor, STAKE)
    assert world.free(WHISTLEBLOWER) == FUNDS + VERIFIER_REWARD
    assert world.burned() == burned + STAKE - VERIFIER_REWARD
    assert done.event("Burned")["reason"] == label("verifier")
    assert (world.free(attestor), world.slots(attestor)) == (free, 1)
    # Neither the solver nor anybody else is touched.
    states = [SeatState.SLASHED, SeatState.ATTESTED, SeatState.MISMATCHED]
    assert [seat.state for seat in task.seats] == states
    assert (task.state.status, task.state.open) == (Status.WINDOW, 0)
    assert task.state.forfeited == 0
    world.assert_solvent()
    for run in task.runs:
        with world.refuses("NotAttestor", task.id, task.seat(attestor)):
            target = task.target(run.first, run.count, task.seat(honest), task.seat(attestor))
            task.call("challenge", target, bytes(32), sender=honest)
    # The solver's own conviction comes on top and frees the other stakes.
    world.decide(task.challenge(honest), convicted=True)
    task.punish()
    assert [world.slots(v) for v in (attestor, other, honest)] == [1, 2, 2]
    world.assert_solvent()


def test_the_priority_of_a_mismatched_verifier_is_for_the_solver_only() -> None:
    # It would not save its stake by convicting an attestor.
    task = cheated()
    world, (attestor, _, honest), run = task.world, task.drawn, task.runs[0]
    free = world.free(honest)
    target = task.target(run.first, run.count, task.seat(honest), task.seat(attestor))
    with world.refuses("NotAttestor", task.id, task.seat(attestor)):
        task.call("challenge", target, bytes(32), sender=honest)
    dispute = task.whistle(honest, run.first, run.count, task.seat(attestor))  # with a bond
    world.decide(dispute, convicted=True)
    assert world.free(honest) == free + VERIFIER_REWARD
    world.decide(task.challenge(honest), convicted=True)
    assert task.state.status == Status.CONVICTED


def test_whoever_accuses_an_attestor_that_was_slashed_meanwhile_gets_its_bond_back() -> None:
    task = cheated()
    world, (attestor, *_), run = task.world, task.drawn, task.runs[0]
    seat = task.seat(attestor)
    ready = task.whistle(STRANGER, run.first, run.count, seat)
    task.seal_challenge(WHISTLEBLOWER, run.first, run.count, seat)
    free = world.free(WHISTLEBLOWER)
    # Somebody else, with a game that was ready to be won, comes first.
    world.decide(ready, convicted=True)
    world.wait()
    disputes = world.game.view("disputeCount")
    target = task.target(run.first, run.count, attestor=seat)
    done = task.call("challenge", target, nonce(WHISTLEBLOWER), sender=WHISTLEBLOWER)
    assert raw(done.event("ChallengeDropped")["challenger"]) == WHISTLEBLOWER
    assert world.free(WHISTLEBLOWER) == free + BOND
    assert (task.state.open, world.game.view("disputeCount")) == (0, disputes)
    world.assert_solvent()


def test_exhaustion_sealing_against_an_attestor_that_was_convicted_before_costs_the_bond() -> None:
    task = cheated()
    world, (attestor, *_), run = task.world, task.drawn, task.runs[0]
    seat = task.seat(attestor)
    world.decide(task.whistle(STRANGER, run.first, run.count, seat), convicted=True)
    task.seal_challenge(WHISTLEBLOWER, run.first, run.count, seat)
    world.wait()
    with world.refuses("NotAttestor", task.id, seat):
        task.tell_challenge(WHISTLEBLOWER, run.first, run.count, seat)
    world.wait(SPEC.audit_window + 1)
    task.call("dropChallenge", WHISTLEBLOWER)
    assert world.free(WHISTLEBLOWER) == FUNDS - BOND


def test_exhaustion_games_against_ones_own_attestor_take_no_place_of_other_challengers() -> None:
    task = cheated(bond=LEAST_BOND)
    world, attestor, run = task.world, task.drawn[0], task.runs[0]
    sybils = [role(f"sybil {i}") for i in range(MAX_OPEN + 1)]
    for sybil in sybils:
        world.fund(sybil)
    target = run.first, run.count, task.seat(attestor)
    for i, sybil in enumerate(sybils[:MAX_OPEN]):
        free = world.free(sybil)
        task.seal_challenge(sybil, *target)
        assert free - world.free(sybil) == LEAST_BOND << (i // BOND_DOUBLES)
    with world.refuses("TooManyDisputes", task.id):
        task.seal_challenge(sybils[MAX_OPEN], *target)
    state = task.state
    assert (state.open, state.accusations, state.challenges) == (MAX_OPEN, MAX_OPEN, 0)
    # At the price of a first one.
    free = world.free(WHISTLEBLOWER)
    dispute = task.whistle(WHISTLEBLOWER)
    assert (free - world.free(WHISTLEBLOWER), task.state.challenges) == (LEAST_BOND, 1)
    first = task.tell_challenge(sybils[0], *target)
    world.decide(first, convicted=True)
    for sybil in sybils[1:MAX_OPEN]:
        told = task.target(run.first, run.count, attestor=task.seat(attestor))
        task.call("challenge", told, nonce(sybil), sender=sybil)
    state = task.state
    assert (state.open, state.accusations, state.challenges) == (1, 0, 1)
    world.decide(dispute, convicted=True)
    assert task.state.status == Status.CONVICTED
    state = task.state
    assert (state.open, state.accusations, state.challenges) == (0, 0, 0)
    world.assert_solvent()


def test_what_was_sealed_against_one_kind_of_party_cannot_be_told_against_the_other() -> None:
    task = cheated()
    world, run, seat = task.world, task.runs[0], task.seat(task.drawn[0])
    parts = (task.id, WHISTLEBLOWER, run.first, run.count, seat, nonce(WHISTLEBLOWER))
    digest = world.market.view("challengeDigest", *parts)
    task.call("sealChallenge", digest, False, sender=WHISTLEBLOWER)
    world.wait()
    with world.refuses("WrongSeal", task.id, WHISTLEBLOWER):
        task.tell_challenge(WHISTLEBLOWER, run.first, run.count, seat)
    parts = (task.id, RIVAL, run.first, 1, NO_SEAT, nonce(RIVAL))
    digest = world.market.view("challengeDigest", *parts)
    task.call("sealChallenge", digest, True, sender=RIVAL)
    world.wait()
    with world.refuses("WrongSeal", task.id, RIVAL):
        task.tell_challenge(RIVAL, run.first)


def test_an_attestor_is_slashed_once_however_many_games_it_loses() -> None:
    task = cheated()
    world, attestor = task.world, task.drawn[0]
    games = [accuse(task, who, attestor) for who in (WHISTLEBLOWER, RIVAL)]
    burned = world.burned()
    for game in games:
        world.decide(game, convicted=True)
        world.assert_solvent()
    assert world.burned() == burned + STAKE - VERIFIER_REWARD
    assert world.free(WHISTLEBLOWER) == FUNDS + VERIFIER_REWARD
    assert world.free(RIVAL) == FUNDS
    assert world.slots(attestor) == 1


def test_a_lost_challenge_pays_the_attestor_half_the_bond_and_burns_half() -> None:
    task = at(Status.WINDOW, bond=BOND - 1)
    world, attestor = task.world, task.drawn[0]
    free, burned = world.free(attestor), world.burned()
    world.decide(accuse(task, WHISTLEBLOWER, attestor), convicted=False)
    kept = (BOND - 1) // 2
    assert world.free(attestor) == free + kept
    assert world.burned() == burned + kept + 1
    assert (task.state.forfeited, world.free(WHISTLEBLOWER)) == (0, FUNDS - BOND + 1)
    assert task.seats[0].state == SeatState.ATTESTED
    world.assert_solvent()
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    assert world.free(attestor) == free + kept + SPEC.verifier_fee
    world.assert_solvent()


def test_convicting_the_solver_slashes_no_attestor() -> None:
    # A solver may lose on purpose to its own Sybil: those who attested keep their stakes.
    task = at(Status.WINDOW)
    world, drawn = task.world, task.drawn
    world.decide(task.whistle(RIVAL), convicted=True)
    done = task.punish()
    assert done.all("VerifierSlashed") == []
    assert [world.slots(v) for v in drawn] == [2, 2]
    world.assert_solvent()


def test_convicting_an_attestor_convicts_no_solver() -> None:
    task = at(Status.WINDOW, committee=3)
    world = task.world
    world.decide(accuse(task, WHISTLEBLOWER, task.drawn[0]), convicted=True)
    world.wait_beyond(task.state.deadline)
    task.call("settle")  # two attestations are left
    assert world.free(SOLVER) == FUNDS + task.state.price
    world.assert_solvent()


def test_a_redraw_is_due_when_convictions_leave_too_few_attestations() -> None:
    task = at(Status.WINDOW)
    world, attestor = task.world, task.drawn[0]
    world.decide(accuse(task, WHISTLEBLOWER, attestor), convicted=True)
    world.wait_beyond(task.state.deadline)
    with world.refuses("NotAttested", task.id):
        task.call("settle")
    task.call("redraw")
    world.assert_solvent()
    task.reach(Status.SETTLED)
    fees = [SPEC.verifier_fee] * 3
    earned = [world.free(raw(s.verifier)) - FUNDS + 2 * STAKE for s in task.seats]
    assert earned == [0, *fees]  # the other one's attestation of the first round counts too
    assert world.free(SOLVER) == FUNDS + task.state.price
    world.assert_solvent()


@pytest.mark.parametrize("convicted", [False, True])
def test_a_game_with_an_attestor_counts_until_the_solvers_stake_is_shared_out(
    convicted: bool,
) -> None:
    task = cheated()
    world, attestor = task.world, task.drawn[0]
    game = accuse(task, WHISTLEBLOWER, attestor)
    world.decide(task.challenge(task.drawn[-1]), convicted=True)
    burned = world.burned()
    done = world.decide(game, convicted=convicted)
    assert len(done.all("VerifierSlashed")) == convicted
    reward = VERIFIER_REWARD if convicted else 0
    assert world.free(WHISTLEBLOWER) == FUNDS + reward
    assert world.burned() == burned + (STAKE - reward if convicted else 0)
    task.punish()
    assert world.slots(attestor) == 2 - convicted
    assert world.free(SUBMITTER) == FUNDS + task.spec.escrow + COMPENSATION - SPEC.verifier_fee
    assert world.free(SOLVER) == FUNDS - STAKED
    assert world.burned() == burned + BURNED + (STAKE - reward if convicted else 0)
    world.assert_solvent()


# Who may be accused of what.


def test_only_who_attested_can_be_accused() -> None:
    task = cheated()
    run, honest = task.runs[0], task.drawn[-1]
    for seat in (task.seat(honest), len(task.seats), NO_SEAT - 1):
        mark = task.world.evm.mark()
        task.seal_challenge(WHISTLEBLOWER, run.first, run.count, seat)
        task.world.wait()
        with task.world.refuses("NotAttestor", task.id, seat):
            task.tell_challenge(WHISTLEBLOWER, run.first, run.count, seat)
        task.world.evm.back(mark)


def test_an_attestor_answers_only_for_the_runs_of_its_round() -> None:
    task = at(Status.REVEALING, second_audit=255)
    early = task.drawn[0]
    for verifier in task.drawn:
        task.reveal(verifier)
    first_runs = task.all_runs
    task.reach(Status.WINDOW)
    late = task.drawn[0]
    assert task.state.agreed
    assert task.seat(early) < 2 <= task.seat(late)
    runs: dict[int, list[tuple[int, int]]] = {task.seat(early): [], task.seat(late): []}
    for run in task.all_runs:
        runs[task.seat(early if run in first_runs else late)].append((run.first, run.count))
    assert all(runs.values())
    every = {run for found in runs.values() for run in found} | {(0, 8), (0, 1), (3, 2)}
    for seat, own in runs.items():
        for first, count in every:
            mark = task.world.evm.mark()
            task.seal_challenge(WHISTLEBLOWER, first, count, seat)
            task.world.wait()
            if (first, count) in own:
                task.tell_challenge(WHISTLEBLOWER, first, count, seat)
                task.world.assert_solvent()
            else:
                with task.world.refuses("UnknownRun", task.id, first, count):
                    task.tell_challenge(WHISTLEBLOWER, first, count, seat)
            task.world.evm.back(mark)


def test_an_attestor_may_not_accuse_itself() -> None:
    task = at(Status.WINDOW)
    verifier, run = task.drawn[0], task.runs[0]
    assert verifier in VERIFIERS
    task.seal_challenge(verifier, run.first, run.count, task.seat(verifier))
    task.world.wait()
    with task.world.refuses("InvalidParties", verifier, verifier):
        task.tell_challenge(verifier, run.first, run.count, task.seat(verifier))


def test_slashing_oneself_as_attestor_burns_sixty_per_cent() -> None:
    task = at(Status.WINDOW)
    world, attestor = task.world, task.drawn[0]
    gang = (attestor, WHISTLEBLOWER)
    before = sum(world.free(p) for p in gang)
    world.decide(accuse(task, WHISTLEBLOWER, attestor), convicted=True)
    assert sum(world.free(p) for p in gang) == before + STAKE * 40 // 100
    assert world.slots(attestor) == 1


def test_who_attested_a_window_that_was_paid_answers_for_it_no_more() -> None:
    task = at(Status.SEALING, window_segments=4)
    world, first = task.world, task.drawn[0]
    task.seal(first)
    world.wait_beyond(task.state.deadline)
    task.call("redraw")
    task.draw()  # a third seat, for who did not come
    third = task.drawn[-1]
    task.seal(third)
    task.open_ends()
    task.reveal(first)
    task.reveal(third)
    assert [seat.state for seat in task.seats][2] == SeatState.ATTESTED
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    task.reach(Status.WINDOW)
    assert len(task.seats) == 2
    run = task.runs[0]
    task.seal_challenge(WHISTLEBLOWER, run.first, run.count, 2)
    world.wait()
    with world.refuses("NotAttestor", task.id, 2):
        task.tell_challenge(WHISTLEBLOWER, run.first, run.count, 2)
