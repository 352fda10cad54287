# SPDX-License-Identifier: GPL-3.0-or-later
"""A market whose currency is an ERC-20 token, honest or not."""

from __future__ import annotations

import functools

import pytest

from protocol.task import Status
from tests.market_chain import Deployed, Done, Mark, Refused
from tests.market_driver import (
    BUDGET,
    BURN_ADDRESS,
    EVERYBODY,
    FUNDS,
    SOLVER,
    SPEC,
    STAKE,
    STRANGER,
    SUBMITTER,
    VERIFIERS,
    WHISTLEBLOWER,
    World,
    fresh_world,
)
from tests.market_world import NATIVE

LOT = 1_000


class TokenWorld(World):
    """The same market, whose currency is a token."""

    def __init__(self, token: str) -> None:
        self.token_name = token
        super().__init__(verifiers=0 if token == "FeeToken" else len(VERIFIERS))

    def _deploy_currency(self) -> bytes:
        self.token = Deployed(self.evm, self.token_name)
        return self.token.address

    def wealth(self, account: bytes) -> int:
        return int(self.token.view("balanceOf", account))

    def fund(self, person: bytes, wei: int = FUNDS) -> None:
        """Gives an account tokens, and puts half of them into the market if it takes them."""
        self.token.send("mint", person, 2 * wei, sender=STRANGER)
        self.token.send("approve", self.market.address, 2 * wei, sender=person)
        if self.token_name != "FeeToken":
            self.send("depositToken", wei, sender=person)

    def send(self, function: str, *args: object, sender: bytes, value: int = 0) -> Done:
        """Nothing is ever sent along: who posts pays from its free balance."""
        return super().send(function, *args, sender=sender)


@functools.cache
def _deployed(token: str) -> tuple[TokenWorld, Mark]:
    world = TokenWorld(token)
    return world, world.evm.mark()


def token_world(token: str) -> TokenWorld:
    world, mark = _deployed(token)
    world.evm.back(mark)
    world.people, world.tasks = list(EVERYBODY), []
    return world


@pytest.mark.parametrize("token", ["PlainToken", "SilentToken", "FalseToken", "ReentrantToken"])
def test_deposits_and_withdrawals_move_tokens(token: str) -> None:
    world = token_world(token)
    done = world.send("depositToken", LOT, sender=STRANGER)
    assert done.event("Deposited")["amount"] == LOT
    assert (world.free(STRANGER), world.wealth(STRANGER)) == (FUNDS + LOT, FUNDS - LOT)
    world.assert_solvent()
    assert world.send("withdraw", sender=STRANGER).event("Withdrawn")["amount"] == FUNDS + LOT
    assert (world.free(STRANGER), world.wealth(STRANGER)) == (0, 2 * FUNDS)
    with world.refuses("NothingToWithdraw", STRANGER):
        world.send("withdraw", sender=STRANGER)
    world.assert_solvent()


@pytest.mark.parametrize("token", ["PlainToken", "SilentToken", "FalseToken", "ReentrantToken"])
def test_a_whole_honest_task_is_paid_in_tokens(token: str) -> None:
    world = token_world(token)
    task = world.post(second_audit=255, window_segments=4)
    assert world.free(SUBMITTER) == FUNDS - task.spec.escrow
    while task.state.status != Status.SETTLED:
        task.reach(Status.WINDOW)
        world.assert_solvent()
        world.wait_beyond(task.state.deadline)
        task.call("settle")
    assert world.free(SOLVER) == FUNDS + BUDGET
    earned = sum(world.free(v) + STAKE * world.slots(v) - FUNDS for v in VERIFIERS)
    assert world.free(SUBMITTER) == FUNDS - BUDGET - earned
    world.send("withdraw", sender=SOLVER)
    assert world.wealth(SOLVER) == 2 * FUNDS + BUDGET
    world.assert_solvent()


def test_a_conviction_burns_tokens_for_good() -> None:
    world = token_world("PlainToken")
    task = world.post().reach(Status.WINDOW)
    dispute = task.whistle(WHISTLEBLOWER, 2)
    world.assert_solvent()
    world.decide(dispute, convicted=True)
    task.punish()
    assert world.free(WHISTLEBLOWER) == FUNDS + SPEC.solver_stake * 2 // 5
    assert world.free(BURN_ADDRESS) == SPEC.solver_stake * 2 // 5
    world.assert_solvent()
    world.send("burn", sender=STRANGER)
    assert world.wealth(BURN_ADDRESS) == SPEC.solver_stake * 2 // 5
    with world.refuses("NothingToWithdraw", BURN_ADDRESS):
        world.send("burn", sender=STRANGER)
    world.assert_solvent()


def test_posting_without_the_tokens_is_refused() -> None:
    world = token_world("PlainToken")
    world.send("withdraw", sender=SUBMITTER)
    with world.refuses("InsufficientBalance", SUBMITTER, SPEC.escrow, 0):
        world.post()


def test_the_chains_own_money_is_refused_where_tokens_are_due() -> None:
    world = token_world("PlainToken")
    world.evm.set_balance(SUBMITTER, FUNDS)
    for function, arguments in (("deposit", []), ("post", [SPEC.as_abi(), "store"])):
        for value in (1, SPEC.escrow):
            with world.refuses("WrongCurrency", world.token.address):
                world.market.send(function, *arguments, sender=SUBMITTER, value=value)
    with world.refuses("WrongCurrency", world.token.address):
        world.send("deposit", sender=SUBMITTER)
    assert world.evm.balance(world.market.address) == 0


def test_tokens_are_refused_where_the_chains_own_money_is_due() -> None:
    world = fresh_world()
    with world.refuses("WrongCurrency", NATIVE):
        world.send("depositToken", LOT, sender=SUBMITTER)


def test_depositing_more_than_was_approved_or_is_there_is_refused() -> None:
    world = token_world("PlainToken")
    for amount in (FUNDS + 1, 2**256 - 1):
        with world.refuses("TransferFailed", STRANGER, amount):
            world.send("depositToken", amount, sender=STRANGER)
    world.token.send("approve", world.market.address, 0, sender=STRANGER)
    with world.refuses("TransferFailed", STRANGER, 1):
        world.send("depositToken", 1, sender=STRANGER)


def test_a_token_that_takes_a_fee_is_refused() -> None:
    world = token_world("FeeToken")
    with world.refuses("WrongAmountReceived", LOT * 99 // 100, LOT):
        world.send("depositToken", LOT, sender=STRANGER)


def test_a_token_that_says_false_is_believed() -> None:
    world = token_world("FalseToken")
    world.token.send("refuse", True, sender=STRANGER)
    with world.refuses("TransferFailed", STRANGER, LOT):
        world.send("depositToken", LOT, sender=STRANGER)
    with world.refuses("TransferFailed", STRANGER, FUNDS):
        world.send("withdraw", sender=STRANGER)
    world.token.send("refuse", False, sender=STRANGER)
    world.send("withdraw", sender=STRANGER)
    assert world.wealth(STRANGER) == 2 * FUNDS


def thief(world: TokenWorld, deposit: int) -> Deployed:
    """A contract with this in the market and a lot in its hand, which the token tells of moves."""
    contract = Deployed(world.evm, "HostileRecipient")
    world.people.append(contract.address)
    world.token.send("mint", contract.address, LOT + deposit, sender=STRANGER)
    approve = world.token.calldata("approve", world.market.address, 2**255)
    contract.send("act", world.token.address, approve, sender=STRANGER)
    act(world, contract, "depositToken", deposit)
    return contract


def act(world: TokenWorld, contract: Deployed, function: str, *arguments: object) -> None:
    data = world.market.calldata(function, *arguments)
    contract.send("act", world.market.address, data, sender=STRANGER)


def plan(world: TokenWorld, contract: Deployed, function: str, *arguments: object) -> None:
    """What the thief will do in the middle of the next move."""
    data = world.market.calldata(function, *arguments)
    message = contract.calldata("act", world.market.address, data)
    world.token.send("tell", contract.address, message, sender=STRANGER)


def test_a_token_that_reenters_is_withdrawn_once() -> None:
    world = token_world("ReentrantToken")
    contract = thief(world, LOT)
    plan(world, contract, "withdraw")
    act(world, contract, "withdraw")
    assert world.token.view("accepted") is False
    assert (world.wealth(contract.address), world.free(contract.address)) == (2 * LOT, 0)
    world.assert_solvent()


@pytest.mark.parametrize(
    ("function", "amounts", "received"),
    [("depositToken", [LOT // 2], LOT // 2 + LOT // 4), ("withdraw", [], LOT // 4 - LOT // 5)],
)
def test_what_moves_in_the_middle_of_a_deposit_is_not_counted_twice(
    function: str, amounts: list[int], received: int
) -> None:
    world = token_world("ReentrantToken")
    contract = thief(world, LOT // 5)
    plan(world, contract, function, *amounts)
    before = world.picture()
    with pytest.raises(Refused) as caught:
        act(world, contract, "depositToken", LOT // 4)
    assert caught.value.error == "WrongAmountReceived"
    assert caught.value.arguments == (received, LOT // 4)
    assert world.picture() == before


def test_moves_within_moves_that_change_no_balance_harm_nobody() -> None:
    world = token_world("ReentrantToken")
    contract = thief(world, LOT)
    plan(world, contract, "setAsk", 1, 1, 1, 1)
    act(world, contract, "depositToken", LOT // 2)
    assert world.token.view("accepted") is True
    assert world.free(contract.address) == LOT + LOT // 2
    world.assert_solvent()
