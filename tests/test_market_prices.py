# SPDX-License-Identifier: GPL-3.0-or-later
"""The second price: against a model that sees all offers at once, and for what it is there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from protocol.task import Status
from tests.market_chain import Refused
from tests.market_driver import (
    BUDGET,
    FUNDS,
    NOBODY,
    RIVAL,
    SOLVER,
    SPEC,
    SUBMITTER,
    VERIFIERS,
    Task,
    World,
    fresh_world,
    raw,
)

MONTH = 30 * 86_400
BIDDERS = (SOLVER, RIVAL, *VERIFIERS[:4])
RECORDS = 8  # slot of the mapping of records


@dataclass(frozen=True)
class Offer:
    """What one solver asks for; `by_ask` enters it for `price` as its standing ask."""

    price: int
    settled: int = 0
    defaulted: int = 0
    by_ask: bool = False


def outcome(offers: list[Offer], budget: int, late_cost: int) -> tuple[int | None, int]:
    """The winner and what it is paid, from all offers at once: asks come before sealed bids."""
    risks = [late_cost * (o.defaulted + 1) // (o.settled + o.defaulted + 2) for o in offers]
    valid = [i for i, offer in enumerate(offers) if offer.price <= budget]
    if not valid:
        return None, 0
    scores = {i: offers[i].price + risks[i] for i in valid}
    winner = min(valid, key=lambda i: (scores[i], not offers[i].by_ask, i))
    others = [scores[i] for i in valid if i != winner]
    return winner, min([budget, *(score - risks[winner] for score in others)])


def remember(world: World, solver: bytes, settled: int, defaulted: int) -> None:
    """Writes a solver's record, which tasks would have taken long to earn."""
    value = settled | defaulted << 32
    world.set_mapping(RECORDS, solver, value)
    assert world.market.view("recordOf", solver)[:2] == (settled, defaulted)


def auction(world: World, offers: list[Offer], budget: int, late_cost: int) -> Task:
    """The auction of these offers, told in their order, up to the end of the bidding."""

    def told(offer: Offer) -> AbstractContextManager[object]:
        fits = offer.price <= budget
        return nullcontext() if fits else pytest.raises(Refused, match="PriceAboveBudget")

    task = world.post(budget=budget, late_cost=late_cost, work=1)
    for bidder, offer in zip(BIDDERS, offers, strict=False):
        remember(world, bidder, offer.settled, offer.defaulted)
        if not offer.by_ask:
            task.seal_bid(bidder, offer.price)
            continue
        world.send("setAsk", offer.price, 1, SPEC.memory_mib, 2**48 - 1, sender=bidder)
        with told(offer):
            task.call("enterAsk", bidder)
    world.wait_beyond(task.state.deadline)
    for bidder, offer in zip(BIDDERS, offers, strict=False):
        if not offer.by_ask:
            with told(offer):
                task.reveal_bid(bidder, offer.price)
    world.wait_beyond(task.state.deadline + task.spec.bid_window)
    return task


budgets = st.one_of(st.just(220), st.integers(1, 220))  # often all offers count
costs = st.one_of(st.just(0), st.integers(0, 300))
counts = st.integers(0, 4)


@st.composite
def all_offers(draw: st.DrawFn) -> list[Offer]:
    offer = st.builds(Offer, st.integers(0, 220), counts, counts, st.booleans())
    return draw(st.lists(offer, max_size=len(BIDDERS)))


@given(offers=all_offers(), budget=budgets, late_cost=costs)
def test_any_auction_ends_as_the_model_says_and_holds_only_the_winners_stake(
    offers: list[Offer], budget: int, late_cost: int
) -> None:
    world = fresh_world()
    free = [world.free(bidder) for bidder in BIDDERS]
    task = auction(world, offers, budget, late_cost)
    world.assert_solvent()
    winner, price = outcome(offers, budget, late_cost)
    state = task.state
    assert raw(state.solver) == (NOBODY if winner is None else BIDDERS[winner])
    for i, offer in enumerate(offers):
        stake = SPEC.solver_stake if i == winner else 0
        bond = SPEC.bond if offer.price > budget and not offer.by_ask else 0  # not revealed
        assert world.free(BIDDERS[i]) == free[i] - stake - bond
        capacity = 1 if offer.by_ask and i != winner else 0
        assert world.market.view("recordOf", BIDDERS[i])[3] == capacity
    refund = world.free(SUBMITTER)
    task.call("assign")
    if winner is None:
        assert task.state.status == Status.EXPIRED
        assert world.free(SUBMITTER) == refund + task.spec.escrow
    else:
        assert state.price == price
        assert state.by_ask == offers[winner].by_ask
        assert offers[winner].price <= price <= budget
    world.assert_solvent()


@given(offers=all_offers(), asked=st.integers(0, 220), late_cost=costs)
def test_of_a_sealed_bid_and_an_ask_of_the_same_solver_the_lower_counts(
    offers: list[Offer], asked: int, late_cost: int
) -> None:
    assume(offers)
    first, *others = offers
    world = fresh_world()
    task = world.post(budget=220, late_cost=late_cost, work=1)
    for bidder, offer in zip(BIDDERS, offers, strict=False):
        remember(world, bidder, offer.settled, offer.defaulted)
        task.seal_bid(bidder, offer.price)
    world.send("setAsk", asked, 1, SPEC.memory_mib, 2**48 - 1, sender=BIDDERS[0])
    task.call("enterAsk", BIDDERS[0])
    world.wait_beyond(task.state.deadline)
    for bidder, offer in zip(BIDDERS, offers, strict=False):
        task.reveal_bid(bidder, offer.price)
    lower = replace(first, price=min(asked, first.price))
    winner, price = outcome([lower, *others], 220, late_cost)
    assert winner is not None
    assert (raw(task.state.solver), task.state.price) == (BIDDERS[winner], price)
    # What won by a bid has not used up the ask.
    by_ask = winner == 0 and asked <= first.price
    assert task.state.by_ask == by_ask
    assert world.market.view("recordOf", BIDDERS[0])[3] == (0 if by_ask else 1)
    world.assert_solvent()


@given(offers=all_offers(), budget=budgets, late_cost=costs)
def test_the_winner_is_paid_exactly_what_would_have_made_it_second(
    offers: list[Offer], budget: int, late_cost: int
) -> None:
    winner, price = outcome(offers, budget, late_cost)
    assume(winner is not None)
    assert winner is not None

    def leads(asked: int) -> bool:
        changed = [*offers]
        changed[winner] = Offer(asked, offers[winner].settled, offers[winner].defaulted)
        state = auction(fresh_world(), changed, budget, late_cost).state
        # What it asks decides whether it wins, never what it is paid.
        assert raw(state.solver) != BIDDERS[winner] or state.price == price
        return raw(state.solver) == BIDDERS[winner]

    assert price == 0 or leads(price - 1)
    assert not leads(price + 1)


@given(offers=all_offers(), budget=budgets, late_cost=costs, lie=st.integers(0, 220))
def test_no_bid_earns_more_than_the_true_one(
    offers: list[Offer], budget: int, late_cost: int, lie: int
) -> None:
    assume(offers and offers[0].price <= budget)
    cost = offers[0].price

    def earned(asked: int) -> int:
        bid = Offer(asked, offers[0].settled, offers[0].defaulted)
        state = auction(fresh_world(), [bid, *offers[1:]], budget, late_cost).state
        return state.price - cost if raw(state.solver) == BIDDERS[0] else 0

    assert earned(cost) >= max(0, earned(lie))


def test_a_single_bid_is_paid_the_budget() -> None:
    task = auction(fresh_world(), [Offer(3)], BUDGET, 0)
    assert task.state.price == BUDGET


def test_who_wins_against_a_riskier_bid_is_paid_the_budget_at_most() -> None:
    offers = [Offer(90), Offer(95, settled=8)]  # risks of 100 and 20: the second's limit is 170
    task = auction(fresh_world(), offers, 100, 200)
    assert (raw(task.state.solver), task.state.price) == (BIDDERS[1], 100)
    task.world.assert_solvent()


def test_of_equal_bids_the_first_revealed_wins_at_its_own_price() -> None:
    task = auction(fresh_world(), [Offer(7), Offer(7), Offer(9)], BUDGET, 0)
    assert (raw(task.state.solver), task.state.price) == (BIDDERS[0], 7)


def test_an_outbid_leader_sets_the_price_and_gets_its_stake_back() -> None:
    world = fresh_world()
    task = auction(world, [Offer(9), Offer(8), Offer(5)], BUDGET, 0)
    assert (raw(task.state.solver), task.state.price) == (BIDDERS[2], 8)
    assert [world.free(b) for b in BIDDERS[:2]] == [FUNDS, FUNDS]
    # Neither had an ask, so neither has one now.
    assert [world.market.view("recordOf", b)[3] for b in BIDDERS[:2]] == [0, 0]


@pytest.mark.parametrize(("late_cost", "winner"), [(0, 1), (24, 1), (36, 0), (1_000, 0)])
def test_a_record_of_lateness_outweighs_a_lower_price(late_cost: int, winner: int) -> None:
    # Of four tasks the second solver settled one: its chance to be late is 4/6, the other's 2/6.
    offers = [Offer(60, settled=3, defaulted=1), Offer(50, settled=1, defaulted=3)]
    task = auction(fresh_world(), offers, 100, late_cost)
    assert raw(task.state.solver) == BIDDERS[winner]


def test_records_are_earned_by_settling_and_by_being_late() -> None:
    world = fresh_world()
    world.post().reach(Status.TRAINING).reach(Status.WINDOW)
    task = world.tasks[-1]
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    assert world.market.view("recordOf", SOLVER)[:2] == (1, 0)
    late = world.post().auction((RIVAL, 5))
    world.wait_beyond(late.state.deadline)
    late.call("defaulted")
    assert world.market.view("recordOf", RIVAL)[:3] == (0, 1, world.evm.timestamp)
    world.wait(MONTH)
    # SOLVER's risk is 1/3, RIVAL's 2/3: 30 more than it saves.
    task = world.post(late_cost=90).auction((RIVAL, 20), (SOLVER, 49))
    assert (raw(task.state.solver), task.state.price) == (SOLVER, 50)
    world.assert_solvent()
