# SPDX-License-Identifier: GPL-3.0-or-later
"""Rounds of an audit: who did not seal is replaced, and a second audit is drawn by chance."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from math import comb

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from protocol.task import Run, SeatState, Status
from tests.evm import CHAIN_ID
from tests.market_driver import (
    FUNDS,
    SOLVER,
    SPEC,
    STAKE,
    SUBMITTER,
    VERIFIERS,
    WHISTLEBLOWER,
    Task,
    at,
    nonce,
    raw,
    states,
)

DRAWN, SEALED, ATTESTED, MISMATCHED, DISPUTING, UNAVAILABLE, SLASHED = SeatState
HASH_BLOCKS = 256
BLOCKS = 150


def covered(runs: list[Run]) -> set[int]:
    return {run.first + i for run in runs for i in range(run.count)}


# Replacements for who did not seal.


def test_a_no_show_is_slashed_and_replaced_for_the_same_runs() -> None:
    task = at(Status.SEALING)
    world, (present, absent) = task.world, task.drawn
    runs, digests = task.runs, task.digests()
    task.seal(present)
    deadline = task.state.deadline
    world.wait_until(deadline)
    with world.refuses("TooEarly", task.id, deadline):
        task.call("redraw")
    world.wait_beyond(deadline)
    done = task.call("redraw")
    assert raw(done.event("VerifierSlashed")["verifier"]) == absent
    assert world.burned() == STAKE
    assert (task.state.status, task.state.round, task.state.retries) == (Status.COMMITTED, 1, 1)
    done = task.draw()
    # The starts are known, so that sealing goes on at once.
    assert (task.state.status, task.runs, task.state.round) == (Status.SEALING, runs, 1)
    assert states(task) == [SEALED, SLASHED, DRAWN]
    assert [raw(v) for v in done.event("Drawn")["verifiers"]] == task.drawn[2:]
    assert done.event("Drawn")["firstSeat"] == 2
    replacement = task.drawn[2]
    assert replacement not in (present, absent)
    world.assert_solvent()
    for verifier in (present, absent):
        with world.refuses("AlreadySealed", task.id, verifier):
            task.seal(verifier)
    task.seal(replacement, digests)
    task.open_ends()
    for verifier in (present, replacement):
        task.reveal(verifier)
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    fees = [world.free(v) - FUNDS + 2 * STAKE for v in (present, absent, replacement)]
    assert fees == [SPEC.verifier_fee, 0, SPEC.verifier_fee]
    world.assert_solvent()


def test_replacements_are_drawn_until_enough_have_sealed_or_the_task_expires() -> None:
    task = at(Status.SEALING)
    world = task.world
    task.seal(task.drawn[0])
    for left in (Status.COMMITTED, Status.COMMITTED, Status.EXPIRED):
        world.wait_beyond(task.state.deadline)
        task.call("redraw")
        assert task.state.status == left
        if left == Status.COMMITTED:
            task.draw()
    assert states(task) == [SEALED, SLASHED, SLASHED, SLASHED]
    assert world.burned() == 3 * STAKE
    # Nobody says that the solver was at fault.
    assert (world.free(SOLVER), world.free(SUBMITTER)) == (FUNDS, FUNDS + SPEC.escrow)
    world.assert_solvent()


def test_a_redraw_is_refused_once_enough_have_sealed() -> None:
    task = at(Status.SEALING, committee=3)
    for verifier in task.drawn[:2]:
        task.seal(verifier)
    task.world.wait_beyond(task.state.deadline)
    with task.world.refuses("WrongStatus", task.id, Status.SEALING):
        task.call("redraw")


def test_when_nobody_seals_a_new_round_is_larger_and_keeps_what_was_drawn() -> None:
    task = at(Status.SEALING)
    world, drawn, runs = task.world, task.drawn, task.runs
    world.wait_beyond(task.state.deadline)
    task.call("redraw")
    assert (task.state.status, task.state.round, task.state.retries) == (Status.COMMITTED, 2, 1)
    assert world.burned() == 2 * STAKE
    task.draw()
    assert task.state.status == Status.STARTING
    assert len(task.segments_drawn) == SPEC.samples + 1
    assert covered(runs) < task.segments_drawn
    assert {run.round for run in task.runs} == {2}
    assert not set(task.drawn) & set(drawn)
    # Seats of the round before are no seats any more.
    task.open_starts()
    for verifier in drawn:
        with world.refuses("AlreadySealed", task.id, verifier):
            task.seal(verifier)
    world.assert_solvent()


def test_reporting_unavailable_by_all_needs_no_waiting_and_costs_nobody_anything() -> None:
    task = at(Status.SEALING)
    for verifier in task.drawn:
        task.plain("reportUnavailable", task.seat(verifier), sender=verifier)
    task.call("redraw")
    assert (task.state.status, task.state.round) == (Status.COMMITTED, 2)
    assert task.world.burned() == 0
    assert [task.world.slots(v) for v in VERIFIERS] == [2] * len(VERIFIERS)


# The second audit.


def revealing(chance: int, **changes: int) -> Task:
    """A task in whose first audit one reveal is missing."""
    task = at(Status.REVEALING, second_audit=chance, **changes)
    for verifier in task.drawn[:-1]:
        task.reveal(verifier)
    return task


def revealed(chance: int, **changes: int) -> Task:
    """A task whose first audit has agreed and whose second one awaits its block."""
    task = revealing(chance, **changes)
    task.reveal(task.drawn[-1])
    return task


def draws(chance: int) -> Iterator[bool]:
    """Whether the second audit comes, for reveals that end in one block after the other."""
    task = revealing(chance)
    world, mark = task.world, task.world.evm.mark()
    for block in count(1):
        world.evm.back(mark)
        world.wait(blocks=block)
        task.reveal(task.drawn[-1])
        task.draw()
        assert task.state.status in (Status.STARTING, Status.WINDOW)
        yield task.state.status == Status.STARTING


def test_an_agreed_audit_awaits_a_block_that_decides_on_a_second_one() -> None:
    task = revealed(255)
    state = task.state
    assert (state.status, state.agreed, state.round) == (Status.COMMITTED, 1, 2)
    assert state.draw_block == task.world.evm.number + 1
    assert state.deadline == task.world.evm.timestamp + SPEC.audit_window
    assert states(task) == [ATTESTED, ATTESTED]
    task.world.assert_solvent()


@pytest.mark.parametrize("chance", [32, 128, 224])
def test_collusion_a_second_audit_comes_with_the_chance_that_the_terms_give_it(
    chance: int,
) -> None:
    came = sum(drawn for _, drawn in zip(range(BLOCKS), draws(chance), strict=False))
    p = chance / 256
    chances = [comb(BLOCKS, n) * p**n * (1 - p) ** (BLOCKS - n) for n in range(BLOCKS + 1)]
    below, above = sum(chances[: came + 1]), sum(chances[came:])
    assert min(below, above) > 0.005  # exact tails of the binomial distribution


def byte_of(task: Task) -> int:
    """The byte of the draw that decides on a second audit."""
    state, market = task.state, task.world.market.address
    seed = keccak(state.draw_block.to_bytes(32, "big"))  # hashes of the test's chain
    parts = (seed, CHAIN_ID, market, task.id, state.log_root)
    return keccak(encode(["bytes32", "uint256", "address", "uint256", "bytes32"], parts))[-1]


def test_a_second_audit_comes_exactly_if_a_byte_of_the_draw_is_below_the_terms_chance() -> None:
    byte = byte_of(revealed(1))
    assert 0 < byte < 255
    for chance, status in ((byte, Status.WINDOW), (byte + 1, Status.STARTING)):
        task = revealed(chance)
        assert byte_of(task) == byte
        task.draw()
        assert task.state.status == status


def second_drawn(task: Task) -> Task:
    """The task after its last reveal, in a block that gives it a second audit."""
    mark = task.world.evm.mark()
    for block in range(40):
        task.world.evm.back(mark)
        task.world.wait(blocks=1 + block)
        task.reveal(task.drawn[-1])
        task.draw()
        if task.state.status == Status.STARTING:
            break
    return task


def test_the_second_audit_draws_other_verifiers_and_other_segments() -> None:
    task = revealing(128)
    first, audited = task.drawn, covered(task.runs)
    second_drawn(task)
    assert not set(task.drawn) & set(first)
    assert len(task.drawn) == SPEC.committee
    assert not task.segments_drawn & audited
    assert {run.round for run in task.runs} == {2}
    assert len(task.all_runs) > len(task.runs)
    task.reach(Status.WINDOW)
    world = task.world
    world.wait_beyond(task.state.deadline)
    free = world.free(SUBMITTER)
    task.call("settle")
    assert world.free(SUBMITTER) - free == task.spec.escrow - task.state.price - 4 * 10**17
    assert [world.slots(v) for v in VERIFIERS] == [2] * len(VERIFIERS)
    world.assert_solvent()


def test_collusion_two_that_attest_a_lie_are_found_by_the_second_audit() -> None:
    task = at(Status.SEALING, second_audit=255)
    truth, honest = list(task.truth), keccak(text="what training gives")
    for verifier in task.drawn:
        task.seal(verifier)  # what the solver told them
    task.open_ends()
    task.reveal(task.drawn[0])
    second_drawn(task)
    task.open_starts()
    for run in task.runs:
        truth[run.first + run.count] = keccak(honest + bytes([run.first]))
    task.truth = truth
    witness, *_ = task.drawn
    for verifier in task.drawn:
        task.seal(verifier)
    task.open_ends()
    for verifier in task.drawn:
        assert task.reveal(verifier).event("Revealed")["attested"] is False
    assert task.state.status == Status.WINDOW  # and no third audit
    dispute = task.challenge(witness)
    task.world.decide(dispute, convicted=True)
    task.punish()
    assert task.state.status == Status.SLASHED
    task.world.assert_solvent()


def test_attestors_of_the_first_audit_stay_liable_during_the_second() -> None:
    task = revealing(255)
    world, attestor, run = task.world, task.seats[0], task.runs[0]
    assert world.slots(raw(attestor.verifier)) == 1
    second_drawn(task)
    task.reach(Status.WINDOW)
    # Runs of the second audit are not what the first attestors answer for.
    other = task.runs[0]
    task.seal_challenge(WHISTLEBLOWER, other.first, other.count, attestor=0)
    world.wait()
    with world.refuses("UnknownRun", task.id, other.first, other.count):
        target = task.target(other.first, other.count, attestor=0)
        task.call("challenge", target, nonce(WHISTLEBLOWER), sender=WHISTLEBLOWER)
    stranger = VERIFIERS[-1]
    dispute = task.whistle(stranger, run.first, run.count, attestor=0)
    world.decide(dispute, convicted=True)
    assert states(task)[0] == SLASHED
    world.assert_solvent()


@pytest.mark.parametrize("changes", [{"committee": 4}, {"samples": 8}])
def test_a_second_audit_that_nobody_or_nothing_is_left_for_leaves_the_first_one(
    changes: dict[str, int],
) -> None:
    task = revealed(255, **changes)
    world = task.world
    task.draw()
    assert (task.state.status, task.state.round) == (Status.WINDOW, 1)
    assert task.state.deadline == world.evm.timestamp + SPEC.challenge_window
    assert states(task) == [ATTESTED] * task.spec.committee
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    assert task.state.status == Status.SETTLED
    assert [world.slots(v) for v in VERIFIERS] == [2] * len(VERIFIERS)
    world.assert_solvent()


def test_rerolls_a_missed_second_draw_makes_the_second_audit_certain() -> None:
    task = revealed(1)
    world, mark = task.world, task.world.evm.mark()
    for extra in range(8):
        world.evm.back(mark)
        world.wait(blocks=2 + HASH_BLOCKS + extra)
        task.call("draw", [])
        assert (task.state.status, task.state.retries) == (Status.COMMITTED, 1)
        task.draw()
        assert task.state.status == Status.STARTING
        assert len(task.segments_drawn) == SPEC.samples + 1


def test_a_solver_that_lets_the_second_draw_expire_is_slashed_in_the_end() -> None:
    task = revealed(1)
    world = task.world
    for _ in range(2):
        world.wait(blocks=2 + HASH_BLOCKS)
        task.call("draw", [])
    world.wait(blocks=2 + HASH_BLOCKS, seconds=SPEC.audit_window + 1)
    with world.refuses("DrawMissed", task.id):
        task.call("draw", [])
    task.call("defaulted")
    assert task.state.status == Status.SLASHED
    world.assert_solvent()


def test_an_audit_that_does_not_agree_is_followed_by_no_second_one() -> None:
    task = at(Status.SEALING, second_audit=255, committee=3)
    lie = [keccak(root) for root in task.digests()]
    alone, *others = task.drawn
    for verifier in task.drawn:
        task.seal(verifier, lie if verifier == alone else None)
    task.open_ends()
    task.reveal(alone, lie)
    for verifier in others:
        task.reveal(verifier)
    assert (task.state.status, task.state.agreed) == (Status.WINDOW, 0)


def _fail_second(task: Task) -> None:
    """All six have had their seats then, the last three without sealing."""
    second_drawn(task).open_starts()
    task.world.wait_beyond(task.state.deadline)
    task.call("redraw")
    task.draw_in_vain()


def test_a_solver_cannot_shake_off_a_second_audit_by_using_up_the_verifiers() -> None:
    task = revealing(255, committee=3)
    free = task.world.free(SUBMITTER)
    _fail_second(task)
    assert task.state.status == Status.EXPIRED
    assert states(task) == [ATTESTED] * 3 + [SLASHED] * 3
    assert task.world.free(SUBMITTER) == free + task.spec.escrow
    task.world.assert_solvent()


def test_a_second_audit_that_fails_for_good_ends_no_dispute() -> None:
    task = at(Status.REVEALING, second_audit=255, committee=3)
    world = task.world
    task.seal_challenge(WHISTLEBLOWER, 0)
    world.wait()
    dispute = task.tell_challenge(WHISTLEBLOWER, 0)
    for verifier in task.drawn:
        task.reveal(verifier)
    task.draw()
    task.open_starts()
    world.wait_beyond(task.state.deadline)
    task.call("redraw")
    task.draw_in_vain()
    assert task.state.status == Status.WINDOW
    world.wait_beyond(task.state.deadline)
    with world.refuses("StillOpen", task.id, 1):
        task.call("redraw")
    world.decide(dispute, convicted=False)
    with world.refuses("NotAttested", task.id):
        task.call("settle")
    task.call("redraw")
    if task.state.status == Status.COMMITTED:
        task.draw_in_vain()
    assert task.state.status == Status.EXPIRED
    world.assert_solvent()
