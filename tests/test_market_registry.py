# SPDX-License-Identifier: GPL-3.0-or-later
"""Money in and out, and the list of verifiers."""

from __future__ import annotations

import pytest

from protocol.task import Status
from tests.evm import ETHER, EvmReverted
from tests.market_chain import Deployed, Refused
from tests.market_driver import (
    BURN_ADDRESS,
    FUNDS,
    NOBODY,
    RIVAL,
    STAKE,
    STRANGER,
    VERIFIERS,
    World,
    at,
    fresh_world,
    raw,
    role,
)
from tests.market_world import NATIVE

MONTH = 30 * 86_400
ACCEPT, REFUSE, BURN_GAS, REENTER = range(4)
VERIFIER = VERIFIERS[0]
NEWCOMER = role("newcomer")


@pytest.fixture
def world() -> World:
    return fresh_world()


def record(world: World, verifier: bytes) -> tuple[int, int, int, int]:
    """Place plus one, free slots, block of joining, time of leaving."""
    found = world.market.view("verifierOf", verifier)
    return found[0], found[1], found[2], found[3]


# Deployment.


@pytest.mark.parametrize(
    ("stake", "accepted"), [(0, False), (1, True), (1 << 80, True), ((1 << 80) + 1, False)]
)
def test_a_deployment_has_a_stake_that_bonds_can_be_counted_in(
    world: World, stake: int, accepted: bool
) -> None:
    terms = world.game.address, NATIVE, stake
    if accepted:
        code = Deployed(world.evm, "Registry", *terms)
        assert code.view("VERIFIER_STAKE") == stake
        return
    with pytest.raises(EvmReverted) as caught:
        Deployed(world.evm, "Registry", *terms)
    refusal = world.market.refusal(caught.value)
    assert (refusal.error, refusal.arguments) == ("InvalidStake", (stake,))


# Money.


def test_deposits_add_up_and_withdraw_pays_all_of_it(world: World) -> None:
    done = world.send("deposit", sender=STRANGER, value=3)
    assert done.event("Deposited")["amount"] == 3
    assert world.free(STRANGER) == FUNDS + 3
    in_hand = world.evm.balance(STRANGER)
    done = world.send("withdraw", sender=STRANGER)
    assert done.event("Withdrawn")["amount"] == FUNDS + 3
    assert world.free(STRANGER) == 0
    assert world.evm.balance(STRANGER) == in_hand + FUNDS + 3
    world.assert_solvent()


def test_withdrawing_twice_pays_once(world: World) -> None:
    world.send("withdraw", sender=STRANGER)
    with world.refuses("NothingToWithdraw", STRANGER):
        world.send("withdraw", sender=STRANGER)


def test_plain_transfers_are_refused_so_that_no_money_is_nobodys(world: World) -> None:
    with pytest.raises(EvmReverted):
        world.evm.call(world.market.address, b"", sender=STRANGER, value=1)
    world.assert_solvent()


def test_burning_sends_what_was_lost_to_nobody_and_only_that() -> None:
    task = at(Status.TRAINING)
    world = task.world
    world.wait_beyond(task.state.deadline)
    task.call("defaulted")
    assert world.free(BURN_ADDRESS) == task.spec.solver_stake
    in_hand = world.evm.balance(BURN_ADDRESS)
    world.send("burn", sender=STRANGER)
    assert world.evm.balance(BURN_ADDRESS) == in_hand + task.spec.solver_stake
    with world.refuses("NothingToWithdraw", BURN_ADDRESS):
        world.send("burn", sender=STRANGER)
    world.assert_solvent()


def hostile(world: World, behaviour: int, reentry: bytes = b"") -> Deployed:
    """A contract with one ether in the market that misbehaves when it is paid."""
    contract = Deployed(world.evm, "HostileRecipient")
    world.people.append(contract.address)
    deposit = world.market.calldata("deposit")
    contract.send("act", world.market.address, deposit, sender=STRANGER, value=ETHER)
    contract.send("behave", behaviour, reentry, sender=STRANGER)
    assert world.free(contract.address) == ETHER
    return contract


@pytest.mark.parametrize("function", ["withdraw", "deposit", "leaveVerifiers"])
def test_a_recipient_that_reenters_is_paid_once(world: World, function: str) -> None:
    thief = hostile(world, REENTER, world.market.calldata(function))
    withdraw = world.market.calldata("withdraw")
    thief.send("act", world.market.address, withdraw, sender=STRANGER)
    assert thief.view("payments") == 1
    assert thief.view("accepted") == (1 if function == "deposit" else 0)
    assert world.evm.balance(thief.address) == ETHER
    assert world.free(thief.address) == 0
    world.assert_solvent()


def test_a_recipient_that_refuses_keeps_its_balance_and_stops_nobody(world: World) -> None:
    refuser = hostile(world, REFUSE)
    withdraw = world.market.calldata("withdraw")
    with world.refuses("TransferFailed", refuser.address, ETHER):
        refuser.send("act", world.market.address, withdraw, sender=STRANGER)
    world.send("withdraw", sender=VERIFIER)
    refuser.send("behave", ACCEPT, b"", sender=STRANGER)
    refuser.send("act", world.market.address, withdraw, sender=STRANGER)
    assert world.evm.balance(refuser.address) == ETHER
    world.assert_solvent()


def test_a_recipient_that_burns_gas_burns_only_its_own(world: World) -> None:
    burner = hostile(world, BURN_GAS)
    withdraw = world.market.calldata("withdraw")
    before = world.picture()
    with pytest.raises(Refused, match="TransferFailed"):
        burner.send("act", world.market.address, withdraw, sender=STRANGER, gas=200_000)
    assert world.picture() == before


@pytest.mark.parametrize("behaviour", [REFUSE, BURN_GAS, REENTER])
def test_a_hostile_solver_cannot_stop_others_from_being_paid(behaviour: int) -> None:
    task = fresh_world().post()
    world = task.world
    solver = hostile(world, behaviour, world.market.calldata("withdraw"))
    for _ in range(4):
        deposit = world.market.calldata("deposit")
        solver.send("behave", ACCEPT, b"", sender=STRANGER)
        solver.send("act", world.market.address, deposit, sender=STRANGER, value=ETHER)
        solver.send("behave", behaviour, world.market.calldata("withdraw"), sender=STRANGER)
    nonce = bytes(32)

    def act(function: str, *arguments: object) -> None:
        data = world.market.calldata(function, task.id, task.spec.as_abi(), *arguments)
        solver.send("act", world.market.address, data, sender=STRANGER)

    act("bid", world.market.view("bidDigest", task.id, solver.address, 7, nonce))
    task.seal_bid(RIVAL, 6)
    world.wait_beyond(task.state.deadline)
    act("revealBid", 7, nonce)
    task.reveal_bid(RIVAL, 6)  # the outbid stake is credited, not sent
    assert world.free(solver.address) == 5 * ETHER
    world.assert_solvent()


# The list of verifiers.


def test_registering_locks_a_stake_for_each_slot(world: World) -> None:
    world.fund(NEWCOMER)
    done = world.send("registerVerifier", 3, sender=NEWCOMER)
    assert done.event("VerifierRegistered")["slots"] == 3
    assert world.free(NEWCOMER) == FUNDS - 3 * STAKE
    assert record(world, NEWCOMER) == (3, 3, world.evm.number, 0)
    places = range(2 * len(VERIFIERS), 2 * len(VERIFIERS) + 3)
    assert [raw(world.market.view("verifiers", place)) for place in places] == [NEWCOMER] * 3
    world.assert_solvent()


@pytest.mark.parametrize("slots", [0, 65, 2**32 - 1])
def test_registering_an_absurd_number_of_slots_is_refused(world: World, slots: int) -> None:
    world.fund(NEWCOMER)
    with world.refuses("InvalidSlots", slots):
        world.send("registerVerifier", slots, sender=NEWCOMER)


def test_registering_twice_is_refused(world: World) -> None:
    with world.refuses("AlreadyRegistered", VERIFIER):
        world.send("registerVerifier", 1, sender=VERIFIER)


def test_registering_without_the_money_is_refused(world: World) -> None:
    world.fund(NEWCOMER, 2 * STAKE - 1)
    with world.refuses("InsufficientBalance", NEWCOMER, 2 * STAKE, 2 * STAKE - 1):
        world.send("registerVerifier", 2, sender=NEWCOMER)


def test_leaving_takes_a_month_and_frees_the_stakes(world: World) -> None:
    done = world.send("leaveVerifiers", sender=VERIFIER)
    leaves_at = world.evm.timestamp + MONTH
    assert done.event("VerifierLeaving")["leavesAt"] == leaves_at
    world.wait_until(leaves_at)
    free = world.free(VERIFIER)
    done = world.send("removeVerifier", sender=VERIFIER)
    assert done.event("VerifierRemoved")["slots"] == 2
    assert world.free(VERIFIER) == free + 2 * STAKE
    assert record(world, VERIFIER)[:2] == (0, 0)
    assert [raw(world.market.view("verifiers", place)) for place in (0, 1)] == [NOBODY] * 2
    world.assert_solvent()


def test_leaving_again_does_not_restart_the_month(world: World) -> None:
    world.send("leaveVerifiers", sender=VERIFIER)
    before = record(world, VERIFIER)
    world.wait(1000)
    assert world.send("leaveVerifiers", sender=VERIFIER).events == []
    assert record(world, VERIFIER) == before


def test_removal_before_the_month_is_over_is_refused(world: World) -> None:
    with world.refuses("StillBound", VERIFIER, 0):
        world.send("removeVerifier", sender=VERIFIER)
    world.send("leaveVerifiers", sender=VERIFIER)
    leaves_at = world.evm.timestamp + MONTH
    world.wait_until(leaves_at - 1)
    with world.refuses("StillBound", VERIFIER, leaves_at):
        world.send("removeVerifier", sender=VERIFIER)


def test_removal_twice_is_refused(world: World) -> None:
    world.send("leaveVerifiers", sender=VERIFIER)
    world.wait(MONTH)
    world.send("removeVerifier", sender=VERIFIER)
    for function in ("removeVerifier", "leaveVerifiers"):
        with world.refuses("NotRegistered", VERIFIER):
            world.send(function, sender=VERIFIER)


def test_strangers_cannot_leave(world: World) -> None:
    for function in ("removeVerifier", "leaveVerifiers"):
        with world.refuses("NotRegistered", STRANGER):
            world.send(function, sender=STRANGER)


def test_places_never_move_and_vacant_ones_are_taken_again(world: World) -> None:
    def listed() -> list[str]:
        return [world.market.view("verifiers", i) for i in range(2 * len(VERIFIERS))]

    places = listed()
    assert places == ["0x" + v.hex() for v in VERIFIERS for _ in range(2)]  # one for each stake
    world.send("leaveVerifiers", sender=VERIFIERS[1])
    world.wait(MONTH)
    world.send("removeVerifier", sender=VERIFIERS[1])
    places[2:4] = ["0x" + NOBODY.hex()] * 2
    assert listed() == places
    world.fund(NEWCOMER)
    world.send("registerVerifier", 1, sender=NEWCOMER)
    places[2] = "0x" + NEWCOMER.hex()  # the place that was left vacant last
    assert listed() == places
    assert record(world, NEWCOMER)[0] == 1
    world.send("registerVerifier", 3, sender=VERIFIERS[1])  # comes back, partly at the end
    places[3] = "0x" + VERIFIERS[1].hex()
    assert listed() == places
    ends = [world.market.view("verifiers", 2 * len(VERIFIERS) + i) for i in range(2)]
    assert ends == [places[3]] * 2
    assert record(world, VERIFIERS[1])[:2] == (3, 3)
    world.assert_solvent()


def test_a_verifier_that_leaves_while_drawn_gets_its_last_stake_when_the_task_ends() -> None:
    task = at(Status.SEALING)
    world, leaver = task.world, task.drawn[0]
    world.send("leaveVerifiers", sender=leaver)
    task.reach(Status.WINDOW)
    world.wait(MONTH)
    world.send("removeVerifier", sender=leaver)
    world.assert_solvent()
    free = world.free(leaver)
    task.call("settle")
    assert world.free(leaver) == free + STAKE + task.spec.verifier_fee
    assert world.slots(leaver) == 0
    world.assert_solvent()
