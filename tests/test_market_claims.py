# SPDX-License-Identifier: GPL-3.0-or-later
"""Whistleblowers: sealed challenges, the order of rewards, and bonds that stop spam."""

from __future__ import annotations

import pytest
from eth_utils.crypto import keccak

from protocol.task import NO_SEAT, Status, challenge_digest
from tests.evm import CHAIN_ID
from tests.market_cheats import BOND, REWARD, STAKED, SYBIL, cheated
from tests.market_driver import (
    FUNDS,
    RIVAL,
    SOLVER,
    SPEC,
    STAKE,
    STRANGER,
    VERIFIERS,
    WHISTLEBLOWER,
    Task,
    at,
    nonce,
)

CAP = 32


def sealed_by(task: Task, challenger: bytes) -> tuple[bytes, int, int]:
    """Digest, bond and rank of somebody's sealed challenge."""
    digest, bond, rank, _, _, _ = task.world.market.view("sealedChallenges", task.id, challenger)
    return digest, bond, rank


# Sealing and telling.


def test_anybody_may_challenge_any_segment_in_a_later_block() -> None:
    task = at(Status.WINDOW)
    world = task.world
    for segment in range(8):
        done = task.seal_challenge(WHISTLEBLOWER, segment)
        assert done.event("ChallengeSealed")["bond"] == BOND << (segment // 4)
        world.assert_solvent()
        with world.refuses("WrongSeal", task.id, WHISTLEBLOWER):
            task.tell_challenge(WHISTLEBLOWER, segment)  # in the same block
        world.wait()
        target = task.target(segment)
        done = task.call("challenge", target, nonce(WHISTLEBLOWER), sender=WHISTLEBLOWER)
        event = done.event("DisputeOpened")
        assert (event["first"], event["count"]) == (segment, 1)
        assert event["context"][4:6] == (task.claimed[segment], task.claimed[segment + 1])
        assert sealed_by(task, WHISTLEBLOWER) == (bytes(32), 0, 0)
        assert task.state.open == segment + 1
        world.assert_solvent()


def test_a_sealed_challenge_is_what_the_client_computes_and_binds_its_sender() -> None:
    task = at(Status.WINDOW)
    market = "0x" + task.world.market.address.hex()
    who = "0x" + WHISTLEBLOWER.hex()
    parts = (CHAIN_ID, market, task.id, who, 3, 2, 1, bytes(32))
    digest = challenge_digest(*parts)
    assert digest == task.world.market.view(
        "challengeDigest", task.id, WHISTLEBLOWER, 3, 2, 1, bytes(32)
    )
    others = (1, "0x" + "11" * 20, task.id + 1, "0x" + RIVAL.hex(), 4, 3, NO_SEAT, b"\x01" * 32)
    changed = {
        challenge_digest(*parts[:i], other, *parts[i + 1 :]) for i, other in enumerate(others)
    }
    assert len(changed | {digest}) == 9


def test_a_copied_challenge_is_of_no_use_to_who_copies_it() -> None:
    task = cheated()
    world = task.world
    task.seal_challenge(WHISTLEBLOWER, 2)
    digest, _, rank = sealed_by(task, WHISTLEBLOWER)
    task.call("sealChallenge", digest, False, sender=RIVAL)  # seen in the mempool
    world.wait()
    # The target is told now; whoever sees that can neither use the copied digest
    target = task.target(2)
    for secret in (nonce(WHISTLEBLOWER), nonce(RIVAL)):
        with world.refuses("WrongSeal", task.id, RIVAL):
            task.call("challenge", target, secret, sender=RIVAL)
    # nor seal its own and tell it in the same block
    task.seal_challenge(SYBIL, 2)
    with world.refuses("WrongSeal", task.id, SYBIL):
        task.tell_challenge(SYBIL, 2)
    # nor ever come before who sealed first.
    assert sealed_by(task, SYBIL)[2] > sealed_by(task, RIVAL)[2] > rank
    first = task.tell_challenge(WHISTLEBLOWER, 2)
    world.wait()
    copied = task.tell_challenge(SYBIL, 2)
    world.decide(copied, convicted=True)
    world.decide(first, convicted=True)
    task.call("dropChallenge", RIVAL)
    task.punish()
    free = [world.free(p) for p in (WHISTLEBLOWER, SYBIL, RIVAL)]
    assert free == [FUNDS + REWARD, FUNDS, FUNDS]
    world.assert_solvent()


@pytest.mark.parametrize(
    ("first", "count", "attestor", "secret"),
    [(1, 1, NO_SEAT, WHISTLEBLOWER), (0, 1, 0, WHISTLEBLOWER), (0, 1, NO_SEAT, RIVAL)],
)
def test_another_target_or_nonce_than_the_sealed_one_is_refused(
    first: int, count: int, attestor: int, secret: bytes
) -> None:
    task = at(Status.WINDOW)
    task.seal_challenge(WHISTLEBLOWER, 0)
    task.world.wait()
    with task.world.refuses("WrongSeal", task.id, WHISTLEBLOWER):
        target = task.target(first, count, attestor=attestor)
        task.call("challenge", target, nonce(secret), sender=WHISTLEBLOWER)


def test_who_was_not_drawn_challenges_single_segments() -> None:
    task = at(Status.WINDOW)
    for first, count in ((0, 2), (0, 0), (0, 8)):
        mark = task.world.evm.mark()
        task.seal_challenge(WHISTLEBLOWER, first, count)
        task.world.wait()
        with task.world.refuses("UnknownRun", task.id, first, count):
            task.tell_challenge(WHISTLEBLOWER, first, count)
        task.world.evm.back(mark)


def test_empty_and_second_seals_are_refused() -> None:
    task = at(Status.WINDOW)
    with task.world.refuses("EmptySeal"):
        task.call("sealChallenge", bytes(32), False, sender=WHISTLEBLOWER)
    task.seal_challenge(WHISTLEBLOWER, 0)
    with task.world.refuses("AlreadyChallenged", task.id, WHISTLEBLOWER):
        task.seal_challenge(WHISTLEBLOWER, 1)
    with task.world.refuses("WrongSeal", task.id, STRANGER):
        task.tell_challenge(STRANGER, 0)


def test_a_sealed_challenge_may_be_told_for_one_audit_window_even_after_the_windows_end() -> None:
    task = at(Status.WINDOW)
    world = task.world
    world.wait_until(task.state.deadline)
    task.seal_challenge(WHISTLEBLOWER, 0)
    last = world.evm.timestamp + SPEC.audit_window
    world.wait_beyond(task.state.deadline)
    with world.refuses("StillOpen", task.id, 1):
        task.call("settle")  # the solver's money waits for it
    world.wait_until(last)
    mark = world.evm.mark()
    task.tell_challenge(WHISTLEBLOWER, 0)
    assert task.state.open == 1
    world.evm.back(mark)
    world.wait_beyond(last)
    with world.refuses("TooLate", task.id, last):
        task.tell_challenge(WHISTLEBLOWER, 0)


# Dropping.


def test_a_challenge_that_nobody_tells_is_dropped_by_anybody_and_its_bond_burns() -> None:
    task = at(Status.WINDOW)
    world = task.world
    task.seal_challenge(WHISTLEBLOWER, 0)
    last, burned = world.evm.timestamp + SPEC.audit_window, world.burned()
    with world.refuses("WrongSeal", task.id, STRANGER):
        task.call("dropChallenge", STRANGER)
    world.wait_until(last)
    with world.refuses("TooEarly", task.id, last):
        task.call("dropChallenge", WHISTLEBLOWER)
    world.wait_beyond(last)
    done = task.call("dropChallenge", WHISTLEBLOWER)
    assert done.event("ChallengeDropped")["id"] == task.id
    assert world.burned() == burned + BOND
    assert (task.state.open, world.free(WHISTLEBLOWER)) == (0, FUNDS - BOND)
    with world.refuses("WrongSeal", task.id, WHISTLEBLOWER):
        task.call("dropChallenge", WHISTLEBLOWER)
    with world.refuses("WrongSeal", task.id, WHISTLEBLOWER):
        task.tell_challenge(WHISTLEBLOWER, 0)
    world.assert_solvent()
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    world.assert_solvent()


def test_a_challenge_that_a_conviction_made_needless_gets_its_bond_back() -> None:
    task = cheated()
    world = task.world
    task.seal_challenge(WHISTLEBLOWER, 3)
    world.decide(task.challenge(task.drawn[-1]), convicted=True)
    burned = world.burned()
    task.call("dropChallenge", WHISTLEBLOWER)
    assert (world.free(WHISTLEBLOWER), world.burned()) == (FUNDS, burned)
    world.assert_solvent()
    task.punish()
    world.assert_solvent()


def test_a_told_challenge_cannot_be_dropped() -> None:
    task = at(Status.WINDOW)
    task.whistle(WHISTLEBLOWER)
    task.world.wait(2 * SPEC.audit_window)
    with task.world.refuses("WrongSeal", task.id, WHISTLEBLOWER):
        task.call("dropChallenge", WHISTLEBLOWER)


# The order of rewards.


def test_the_first_to_seal_is_rewarded_among_challengers_that_were_not_drawn() -> None:
    task = cheated()
    world = task.world
    task.seal_challenge(WHISTLEBLOWER, 0)
    task.seal_challenge(RIVAL, 1)
    world.wait()
    second = task.tell_challenge(RIVAL, 1)
    first = task.tell_challenge(WHISTLEBLOWER, 0)
    world.decide(second, convicted=True)
    world.decide(first, convicted=True)
    task.punish()
    assert (world.free(WHISTLEBLOWER), world.free(RIVAL)) == (FUNDS + REWARD, FUNDS)
    world.assert_solvent()


@pytest.mark.parametrize("quick_first", [False, True])
def test_conceding_to_a_sybil_first_does_not_take_the_honest_verifiers_reward(
    quick_first: bool,
) -> None:
    task = cheated()
    world, honest = task.world, task.drawn[-1]
    free = world.free(honest)
    quick, slow = task.whistle(SYBIL), task.challenge(honest)
    for dispute in (quick, slow) if quick_first else (slow, quick):
        world.decide(dispute, convicted=True)
        assert task.state.status == Status.CONVICTED
        assert world.free(SYBIL) <= FUNDS  # its bond; the reward waits
    task.punish()
    assert world.free(SYBIL) == FUNDS
    assert world.free(honest) == free + REWARD + SPEC.verifier_fee
    assert world.free(SOLVER) == FUNDS - STAKED
    world.assert_solvent()


def test_conceding_to_a_sybil_before_anybody_reveals_does_not_take_the_reward_either() -> None:
    task = at(Status.SEALING)
    world, (honest, other) = task.world, task.drawn
    lie = [keccak(root) for root in task.digests()]
    task.seal(honest, lie)
    task.seal(other, lie)
    task.open_ends()
    dispute = task.whistle(RIVAL)  # the solver's own
    world.decide(dispute, convicted=True)
    assert task.state.status == Status.CONVICTED
    with world.refuses("TooEarly", task.id, task.state.deadline + task.spec.audit_window):
        task.call("punish")
    world.wait_until(task.state.deadline)
    task.reveal(honest, lie)
    with world.refuses("NotSealed", task.id, honest):
        task.reveal(honest, lie)
    world.wait()
    with world.refuses("TooLate", task.id, task.state.deadline):
        task.reveal(other, lie)
    world.wait_until(task.state.deadline + task.spec.audit_window)
    first = task.challenge(honest)
    world.decide(first, convicted=True)
    task.punish()
    fee = task.spec.verifier_fee
    assert world.free(honest) == FUNDS - 2 * STAKE + REWARD + fee
    assert (world.free(RIVAL), world.slots(other)) == (FUNDS, 2)
    world.assert_solvent()


def test_priority_after_a_conviction_ends_in_time() -> None:
    task = cheated()
    world, honest = task.world, task.drawn[-1]
    world.decide(task.whistle(RIVAL), convicted=True)
    end = task.state.deadline + task.spec.audit_window
    world.wait_beyond(end)
    with world.refuses("TooLate", task.id, end):
        task.challenge(honest)
    task.punish()
    assert world.free(RIVAL) == FUNDS + REWARD
    world.assert_solvent()


def test_nothing_is_revealed_to_an_audit_whose_ends_are_not_open() -> None:
    task = at(Status.REVEALING, second_audit=255)
    world = task.world
    task.seal_challenge(RIVAL, 0)
    for verifier in task.drawn:
        task.reveal(verifier)
    task.draw()
    task.open_starts()
    for verifier in task.drawn:
        task.seal(verifier)
    world.decide(task.tell_challenge(RIVAL, 0), convicted=True)
    with world.refuses("WrongStatus", task.id, Status.CONVICTED):
        task.reveal(task.drawn[0])


def test_a_challenger_that_does_not_win_its_own_game_is_not_rewarded() -> None:
    task = cheated()
    world, honest = task.world, task.drawn[-1]
    free = world.free(honest)
    first, second = task.challenge(honest), task.whistle(WHISTLEBLOWER)
    world.decide(second, convicted=True)
    world.decide(first, convicted=False)
    task.punish()
    assert world.free(WHISTLEBLOWER) == FUNDS + REWARD
    assert world.free(honest) == free + SPEC.verifier_fee  # its bond is back: the solver did lie
    world.assert_solvent()


def test_a_rank_is_kept_while_a_second_audit_runs() -> None:
    task = at(Status.REVEALING, second_audit=255)
    world = task.world
    task.seal_challenge(WHISTLEBLOWER, 0)
    for verifier in task.drawn:
        task.reveal(verifier)
    assert (task.state.status, task.state.agreed) == (Status.COMMITTED, 1)
    world.wait()
    early = task.tell_challenge(WHISTLEBLOWER, 0)
    task.reach(Status.WINDOW)
    late = task.whistle(RIVAL, 1)
    world.assert_solvent()
    world.decide(late, convicted=True)
    world.decide(early, convicted=True)
    task.punish()
    assert (world.free(WHISTLEBLOWER), world.free(RIVAL)) == (FUNDS + REWARD, FUNDS)
    assert all(world.slots(v) == 2 for v in VERIFIERS)
    world.assert_solvent()


# Spam.


def test_filling_all_places_costs_far_more_than_a_stake_and_shuts_no_drawn_verifier_out() -> None:
    task = cheated()
    world, honest = task.world, task.drawn[-1]
    world.fund(SYBIL, 10_000 * STAKE)
    whole = world.free(SYBIL)
    for i in range(CAP):
        before = world.free(SYBIL)
        task.whistle(SYBIL)
        assert before - world.free(SYBIL) == BOND << (i // 4)
    locked = whole - world.free(SYBIL)
    assert locked == 1020 * BOND
    for challenger in (WHISTLEBLOWER, task.drawn[0]):
        with world.refuses("TooManyDisputes", task.id):
            task.seal_challenge(challenger, 0)
    free = world.free(honest)
    dispute = task.challenge(honest)
    assert world.free(honest) == free  # its seat stands for it
    assert task.state.open == CAP + 1
    world.assert_solvent()
    for i in range(1, CAP + 1):
        world.decide(i, convicted=False)
    assert task.state.forfeited == locked // 2
    world.decide(dispute, convicted=True)
    task.punish()
    assert task.state.status == Status.SLASHED
    assert world.free(honest) == free + REWARD + SPEC.verifier_fee
    world.assert_solvent()


def test_sealed_challenges_fill_places_and_double_bonds_like_open_ones() -> None:
    task = at(Status.WINDOW)
    world = task.world
    for i, verifier in enumerate(VERIFIERS):
        task.seal_challenge(verifier, 0)
        assert sealed_by(task, verifier)[1] == BOND << (i // 4)
    assert task.state.open == len(VERIFIERS)
    world.assert_solvent()


def test_the_longest_run_is_disputed_as_a_whole() -> None:
    task = cheated(steps=16 * 5, window_segments=16, samples=16)
    (run,) = task.runs
    assert (run.first, run.count) == (0, 16)
    dispute = task.challenge(task.drawn[-1])
    context = task.world.game.view("getDispute", dispute)[5]
    assert context[7] == 16 * 5
    assert task.state.open == 1
