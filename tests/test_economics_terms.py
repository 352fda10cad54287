# SPDX-License-Identifier: GPL-3.0-or-later
"""Recommended terms, against cheats that are played out under the market's own arithmetic."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from protocol.economics import Assumptions, Demands, Prices, Shares, Terms, recommend
from protocol.economics.stakes import DEFENCE_GAS
from protocol.errors import EconomicsError, UsageError
from protocol.tracing import trace
from protocol.work import program_flops, work

PLACES, MINE = 4, 1
"""Verifiers to draw from, and how many of them are the cheater's."""
CHEAP = Prices(per_teraflop=10**9, gas=1)
GAS = json.loads((Path(__file__).parent / "snapshots/gas.json").read_text())


def share_hit(size: int, draws: int, wanted: range) -> Fraction:
    """Of all draws from `size` things, how many have one of those in `wanted`."""
    every = list(combinations(range(size), draws))
    return Fraction(sum(any(i in wanted for i in drawn) for drawn in every), len(every))


def noticed(terms: Terms, size: int, faked: int, assumptions: Assumptions) -> Fraction:
    """How often faking in a window is noticed: two audits that know nothing of each other."""
    honest = share_hit(PLACES, terms.committee, range(MINE, PLACES))
    hit = share_hit(size, min(terms.samples, size), range(faked))
    first = 0 if assumptions.sure_of_committee else honest * hit
    return 1 - (1 - first) * (1 - Fraction(terms.second_audit, 256) * honest * hit)


def best_outcome(
    terms: Terms, steps: int, segment_steps: int, assumptions: Assumptions, price: int, cost: int
) -> Fraction:
    """What the best of all strategies brings: window by window, from the last one backwards.

    In each window some segments may be faked, or all of the task given up. A conviction ends it.
    """
    stake = terms.solver_stake
    back = stake * 40 // 100
    if assumptions.submitter_colludes:
        back += stake * 20 // 100
    value = Fraction(0)
    for first in reversed(range(0, terms.segments, terms.window_segments)):
        end = min(first + terms.window_segments, terms.segments)
        share = price * end // terms.segments - price * first // terms.segments
        length = min(steps, end * segment_steps) - first * segment_steps
        options = [Fraction(-stake)]
        for faked in range(end - first + 1):
            # The full segments first: there is more to save.
            spent = Fraction(cost * max(0, length - faked * segment_steps), steps)
            if faked == 0:
                options.append(share - spent + value)
                continue
            caught = noticed(terms, end - first, faked, assumptions)
            # What one accomplice pays the other stays with them, and both have the model.
            kept = share if assumptions.submitter_colludes else (1 - caught) * share
            lost = caught * (stake - back)
            options.append(assumptions.gain + kept - spent - lost + (1 - caught) * value)
        value = max(options)
    return max(value, Fraction(0))


def tempted(
    terms: Terms, steps: int, segment_steps: int, assumptions: Assumptions
) -> list[tuple[int, int]]:
    """Price and own cost of all winners who do better than to train honestly or to stay out."""
    step = max(1, terms.budget // 4)
    return [
        (price, cost)
        for price in {*range(0, terms.budget + 1, step), terms.budget}
        for cost in {*range(0, 2 * terms.budget, step), price}
        if best_outcome(terms, steps, segment_steps, assumptions, price, cost)
        > max(price - cost, 0)
    ]


@given(
    flops=st.integers(0, 10**6),
    steps=st.integers(1, 14),
    segment_steps=st.integers(2, 5),
    window=st.integers(1, 4),
    budget=st.integers(4 * 10**6, 2 * 10**7),
    gain=st.integers(0, 10**8) | st.just(0),
    collude=st.booleans(),
    sure=st.booleans(),
    samples=st.integers(1, 3),
    committee=st.integers(2, 3),
)
# A last segment that is shorter, so that the other one is more than half of the work.
@example(10**6, 5, 4, 2, 10**7, 0, False, False, 1, 2)
# A solver that asks for nothing is tempted more than one with costs.
@example(10**6, 12, 4, 3, 10**7, 10**7, False, False, 2, 2)
def test_no_winner_gains_by_cheating_whatever_its_price_and_costs(
    flops: int, steps: int, segment_steps: int, window: int, budget: int, gain: int, collude: bool,
    sure: bool, samples: int, committee: int,
) -> None:  # fmt: skip
    segment_steps = min(segment_steps, steps)
    window = min(window, -(-steps // segment_steps))
    assumptions = Assumptions(gain, Fraction(MINE, PLACES), collude, sure)
    demands = Demands(budget, min(samples, window), committee, window_segments=window)
    terms = recommend(flops, steps, segment_steps, CHEAP, assumptions, demands)
    assert tempted(terms, steps, segment_steps, assumptions) == []


@pytest.mark.parametrize("gain", [0, 10**9])
@pytest.mark.parametrize("window", [2, 4])
def test_a_smaller_stake_tempts_somebody(gain: int, window: int) -> None:
    """One whose costs and price are the whole budget; with a gain, one who asks for nothing."""
    assumptions = Assumptions(gain, colluding=Fraction(0), sure_of_committee=True)
    demands = Demands(samples=2, committee=2, second_audit=128, window_segments=window)
    terms = recommend(10**6, 12, 3, CHEAP, assumptions, demands)
    assert tempted(terms, 12, 3, assumptions) == []
    # Three wei: the market rounds what it pays out.
    smaller = replace(terms, solver_stake=terms.solver_stake - 3)
    winners = tempted(smaller, 12, 3, assumptions)
    assert winners
    # Windows of two are replayed whole: then the dear winner alone is at the bound.
    assert ((0, 0) in winners) == (gain > 0 and window == 4)


@given(
    flops=st.integers(0, 10**13),
    steps=st.integers(1, 10**5),
    segments=st.integers(1, 40),
    gain=st.integers(0, 10**18),
    colluding=st.fractions(0, Fraction(9, 10), max_denominator=10),
)
def test_terms_fit_the_market_and_pay_for_what_they_ask(
    flops: int, steps: int, segments: int, gain: int, colluding: Fraction
) -> None:
    segment_steps = -(-steps // segments)
    terms = recommend(flops, steps, segment_steps, assumptions=Assumptions(gain, colluding))
    assert 1 <= terms.samples <= min(16, terms.segments)
    assert 2 <= terms.committee <= 4
    assert 0 <= terms.second_audit <= 255
    assert terms.budget >= terms.cost
    assert terms.budget % 10**9 == 0
    replayed = Fraction(terms.samples * min(segment_steps, steps) * flops * 10**11, 10**12)
    assert terms.verifier_fee >= replayed
    assert min(terms.solver_stake, terms.verifier_stake, terms.bond, terms.bid_bond) >= 1
    assert terms.window_stakes == (terms.solver_stake,)
    values = {field.name for field in fields(Terms)} - {"segments", "window_stakes", "why"}
    assert set(terms.why) == values
    assert all(terms.why.values())


@pytest.mark.parametrize("gain", [0, 10**16, 10**18])
@pytest.mark.parametrize("sure", [False, True])
def test_no_other_audit_is_cheaper(gain: int, sure: bool) -> None:
    prices = Prices()
    assumptions = Assumptions(gain, sure_of_committee=sure)

    def total(demands: Demands) -> Fraction:
        terms = recommend(10**12, 1000, 50, prices, assumptions, demands)
        fees = terms.committee * terms.verifier_fee * (1 + Fraction(terms.second_audit, 256))
        return fees + Fraction(terms.solver_stake * prices.interest, 100)

    best = total(Demands())
    for samples, committee, second in product((2, 3, 5, 10, 16), (2, 3, 4), (1, 2, 5, 20, 60)):
        assert total(Demands(None, samples, committee, second)) >= best


def test_a_program_its_work_and_its_flops_ask_for_the_same() -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    data = (torch.ones(4, 3), torch.zeros(4, 2))
    program = trace(
        module, nn.functional.mse_loss, torch.optim.SGD(module.parameters(), lr=0.1),
        dataset=data, batch_size=2,
    ).program  # fmt: skip
    asked = [recommend(step, 100, 10) for step in (program, work(program), program_flops(program))]
    assert asked[0] == asked[1] == asked[2]
    assert asked[0] != recommend(program_flops(program) * 10**9, 100, 10)


def test_what_the_submitter_fixes_is_kept_and_said_to_be_given() -> None:
    demands = Demands(10**18, 5, 3, 7, window_segments=30)
    terms = recommend(10**9, 1000, 10, demands=demands)
    given_ = (terms.budget, terms.samples, terms.committee, terms.second_audit)
    assert given_ == (10**18, 5, 3, 7)
    for name in ("budget", "samples", "committee", "second_audit", "window_segments"):
        assert terms.why[name].startswith("given")
    assert len(terms.window_stakes) == 4
    assert max(terms.window_stakes) == terms.solver_stake
    assert "later ones" in terms.why["window_stakes"]


def test_worse_assumptions_ask_for_more_stake() -> None:
    demands = Demands(samples=2, committee=2, second_audit=10)

    def stake(assumptions: Assumptions) -> int:
        return recommend(10**12, 1000, 10, assumptions=assumptions, demands=demands).solver_stake

    usual = stake(Assumptions())
    assert stake(Assumptions(gain=10**18)) > usual
    assert stake(Assumptions(colluding=Fraction(1, 2))) > usual
    assert stake(Assumptions(submitter_colludes=True)) > usual
    assert stake(Assumptions(sure_of_committee=True)) > usual


@pytest.mark.parametrize("gain", [0, 10**16])
def test_the_second_audit_that_deters_alone_is_the_one_that_is_named(gain: int) -> None:
    def stake(second: int) -> int:
        """What relying on second audits alone asks for."""
        sure = Assumptions(gain, sure_of_committee=True)
        demands = Demands(samples=2, committee=2, second_audit=second)
        return recommend(10**12, 1000, 30, assumptions=sure, demands=demands).solver_stake

    demands = Demands(samples=2, committee=2, second_audit=20)
    terms = recommend(10**12, 1000, 30, assumptions=Assumptions(gain), demands=demands)
    words = terms.why["second_audit"]
    named = re.search(r"(\d+) of 256 would deter even a solver sure", words)
    if named is None:
        assert "would take more stake" in words
        assert stake(255) > terms.solver_stake
    else:
        assert stake(int(named[1])) <= terms.solver_stake < stake(int(named[1]) - 1)


def test_the_pages_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parent.parent / "docs/economics.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(source, names := {})
    assert names["terms"].why["solver_stake"] in capsys.readouterr().out


def test_the_default_gas_covers_the_largest_dispute() -> None:
    assert GAS["dispute_total_large"] <= DEFENCE_GAS


@pytest.mark.parametrize(
    ("assumptions", "demands", "words"),
    [
        (Assumptions(colluding=Fraction(1)), Demands(), "nobody honest ever looks"),
        (Assumptions(sure_of_committee=True), Demands(second_audit=0), "nobody honest ever looks"),
        (Assumptions(shares=Shares(100, 0)), Demands(), "100 % of a slashed stake"),
        (
            Assumptions(submitter_colludes=True, shares=Shares(50, 50)),
            Demands(),
            "100 % of a slashed stake",
        ),
        (Assumptions(), Demands(budget=1), "nobody honest bids"),
        (Assumptions(), Demands(faked=Fraction(1, 100)), "takes 51 drawn segments"),
        (Assumptions(gain=10**29), Demands(), "more than the market holds"),
    ],
)
def test_what_cannot_be_had_is_said(assumptions: Assumptions, demands: Demands, words: str) -> None:
    with pytest.raises(EconomicsError, match=words):
        recommend(10**6, 1000, 15, assumptions=assumptions, demands=demands)


@pytest.mark.parametrize(
    "demands",
    [
        Demands(samples=0),
        Demands(samples=17),
        Demands(committee=1),
        Demands(committee=5),
        Demands(second_audit=-1),
        Demands(second_audit=256),
        Demands(noticed=Fraction(0)),
        Demands(faked=Fraction(2)),
        Demands(window_segments=0),
        Demands(window_segments=101),
        Demands(window_segments=3),
        Demands(window_segments=4, samples=5),
    ],
)
def test_demands_that_the_market_does_not_know_are_refused(demands: Demands) -> None:
    with pytest.raises(UsageError):
        recommend(10**6, 1000, 10, demands=demands)


def test_trainings_that_do_not_exist_are_refused() -> None:
    for flops, steps, segment_steps in ((1, 0, 0), (1, 10, 0), (1, 10, 11), (-1, 10, 5)):
        with pytest.raises(UsageError):
            recommend(flops, steps, segment_steps)
    for prices in (Prices(per_teraflop=-1), Prices(gas=-1), Prices(profit=-1)):
        with pytest.raises(UsageError):
            recommend(1, 10, 5, prices)
