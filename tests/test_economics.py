# SPDX-License-Identifier: GPL-3.0-or-later
"""Chances and least stakes, against every draw counted one by one and every cheat played out."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations, product
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.economics import (
    Audit,
    Shares,
    audit_probability,
    catch_probability,
    detection,
    least_bid_bond,
    least_bond,
    least_second_audit,
    least_solver_stake,
    least_verifier_stake,
    segments_for,
    window_stakes,
)
from protocol.economics.audit import needed
from protocol.errors import EconomicsError, UsageError
from protocol.rules import (
    CHALLENGER_SHARE,
    COMPENSATION_SHARE,
    MAX_COMMITTEE,
    MAX_PROGRESS_WINDOWS,
    MAX_ROUNDS,
    MAX_SAMPLES,
)
from protocol.task import Seat, SeatState, is_lacking

CONTRACTS = Path(__file__).parent.parent / "contracts"
AMOUNTS = st.integers(0, 10**21)
CHANCES = st.fractions(Fraction(1, 1000), 1, max_denominator=1000)
SHARES = st.fractions(0, 1, max_denominator=20)


@st.composite
def audits(draw: st.DrawFn, most: int = 40, sure: bool = False) -> Audit:
    segments = draw(st.integers(1, most))
    chance = Fraction(1) if sure else draw(CHANCES)
    return Audit(segments, draw(st.integers(1, segments)), chance)


def drawn_by_hand(segments: int, samples: int, faked: int) -> Fraction:
    draws = list(combinations(range(segments), samples))
    return Fraction(sum(min(draw) < faked for draw in draws), len(draws))


def cheat(
    audit: Audit, faked: int, stake: int, cost: int, gain: int, price: int, lost: Fraction
) -> Fraction:
    """What faking so many segments brings on average, more than honest training does."""
    noticed = audit.probability * drawn_by_hand(audit.segments, audit.samples, faked)
    spent = cost - Fraction(cost * faked, audit.segments)
    brings = (1 - noticed) * price - noticed * lost * stake + gain - spent
    return brings - (price - cost)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CHALLENGER_SHARE", CHALLENGER_SHARE),
        ("COMPENSATION_SHARE", COMPENSATION_SHARE),
        ("MAX_SAMPLES", MAX_SAMPLES),
        ("MAX_COMMITTEE", MAX_COMMITTEE),
        ("MAX_PROGRESS_WINDOWS", MAX_PROGRESS_WINDOWS),
    ],
)
def test_constants_are_those_of_the_contracts(name: str, value: int) -> None:
    sources = [path.read_text() for path in sorted(CONTRACTS.rglob("*.sol"))]
    found = [int(n) for text in sources for n in re.findall(rf"\b{name} = (\d+)", text)]
    assert found, f"no contract sets {name}: whatever replaced it must be compared here"
    assert set(found) <= {value}


@pytest.mark.parametrize("segments", range(1, 9))
def test_detection_is_the_share_of_draws_that_hit(segments: int) -> None:
    for samples, faked in product(range(1, segments + 1), range(segments + 1)):
        counted = drawn_by_hand(segments, samples, faked)
        assert detection(segments, samples, faked) == counted


@given(st.integers(2, 10**6), st.data())
def test_more_draws_and_more_faked_segments_are_noticed_more(n: int, data: st.DataObject) -> None:
    k, j = data.draw(st.integers(1, min(n, 50) - 1)), data.draw(st.integers(0, n - 1))
    assert detection(n, k, j) <= detection(n, k + 1, j) <= 1
    assert detection(n, k, j) <= detection(n, k, j + 1)
    assert detection(n, k, 1) == Fraction(k, n)


@given(st.integers(1, 60), CHANCES, CHANCES)
def test_segments_for_is_the_least_number_that_notices(n: int, p: Fraction, f: Fraction) -> None:
    k, faked = segments_for(n, p, f), ceil(f * n)
    assert detection(n, k, faked) >= p
    assert k == 1 or detection(n, k - 1, faked) < p


def test_segments_for_a_long_training() -> None:
    assert segments_for(2**32 - 1, Fraction(3, 4), Fraction(1, 2)) == 2
    assert segments_for(10**6, Fraction(99, 100), Fraction(1, 100)) == 459
    assert segments_for(10**6, Fraction(1), Fraction(1, 2)) == 500_001


@pytest.mark.parametrize(
    ("places", "mine", "seats"), [(4, 1, 2), (5, 3, 2), (6, 3, 3), (4, 4, 2), (7, 3, 4)]
)
@pytest.mark.parametrize("second", [Fraction(0), Fraction(1, 3), Fraction(1)])
@pytest.mark.parametrize("sure", [False, True])
def test_an_audit_is_noticed_at_least_as_often_as_said(
    places: int, mine: int, seats: int, second: Fraction, sure: bool
) -> None:
    """Audits draw seats among single places, and segments, on their own. Who is no accomplice gets
    no bytes; the market's own rule says when such an audit counts, and there are three tries.
    """
    committees = list(combinations(range(places), seats))
    tries = [[seat < mine for seat in committee] for committee in committees]
    honest = failing(tries)
    first = Fraction(0) if sure else honest
    colluding = Fraction(mine, places)
    said = audit_probability(colluding, seats, second, sure)
    assert first + (1 - first) * second * honest >= said
    for faked in range(1, 5):
        hit = drawn_by_hand(4, 2, faked)
        assert 1 - (1 - first * hit) * (1 - second * honest * hit) >= said * hit
    beside = [own for own, places in zip(tries, committees, strict=True) if 0 in places]
    watched = Fraction(0) if sure else failing(beside)
    assert watched + (1 - watched) * second * honest >= catch_probability(
        colluding, seats, second, sure
    )


def failing(committees: list[list[bool]]) -> Fraction:
    """The chance that the audit counts in no try if all accomplices attest and nobody else can."""
    verdicts = {True: SeatState.ATTESTED, False: SeatState.UNAVAILABLE}
    seated = ([Seat("", verdicts[own], 1) for own in committee] for committee in committees)
    return Fraction(sum(is_lacking(seats, 1) for seats in seated), len(committees)) ** MAX_ROUNDS


@pytest.mark.parametrize(("committee", "least"), [(2, 2), (3, 3), (4, 3)])
def test_so_many_seats_make_an_audit_count(committee: int, least: int) -> None:
    assert needed(committee) == least
    for own in range(committee + 1):
        states = [SeatState.ATTESTED] * own + [SeatState.UNAVAILABLE] * (committee - own)
        assert is_lacking([Seat("", s, 1) for s in states], 1) == (own < least)


@given(SHARES, st.integers(2, 4), SHARES)
def test_audits_get_surer_with_second_audits_and_fewer_accomplices(
    s: Fraction, m: int, q: Fraction
) -> None:
    for chance in (audit_probability, catch_probability):
        assert 0 <= chance(s, m, 0) <= chance(s, m, q) <= 1
        assert chance(s, m, q) <= chance(s / 2, m, q)
        assert chance(s, m, q, True) <= chance(s, m, q)
        assert chance(0, m, q) == 1
        assert chance(s, 2, q) <= chance(s, 3, q)  # of four, one may lack the bytes


@given(audits(), AMOUNTS, AMOUNTS)
def test_the_worst_share_is_one_segment_or_all(audit: Audit, cost: int, gain: int) -> None:
    n = audit.segments
    every = [(Fraction(j * cost, n) + gain) / audit.caught(j) for j in range(1, n + 1)]
    assert audit.least_loss(cost, gain) == max(every)


@given(audits(7), AMOUNTS, AMOUNTS, AMOUNTS, st.booleans())
def test_the_least_stake_makes_each_share_a_loss_and_one_wei_less_does_not(
    audit: Audit, cost: int, gain: int, price: int, collude: bool
) -> None:
    stake = least_solver_stake(audit, cost, gain, price, collude)
    lost = Fraction(40 if collude else 60, 100)
    at_risk = 0 if collude else price  # what is paid back to an accomplice is not lost
    faked = range(1, audit.segments + 1)
    assert all(cheat(audit, j, stake, cost, gain, at_risk, lost) <= 0 for j in faked)
    if stake > 1:
        assert any(cheat(audit, j, stake - 1, cost, gain, at_risk, lost) > 0 for j in faked)


@given(audits(12), AMOUNTS, AMOUNTS, AMOUNTS, st.integers(1, 10**18))
def test_stakes_rise_with_what_tempts_and_fall_with_what_deters(
    audit: Audit, cost: int, gain: int, price: int, more: int
) -> None:
    stake = least_solver_stake(audit, cost, gain, price)
    assert least_solver_stake(audit, cost + more, gain, price) >= stake
    assert least_solver_stake(audit, cost, gain + more, price) >= stake
    assert least_solver_stake(audit, cost, gain, price + more) <= stake
    assert least_solver_stake(audit, cost, gain, price, submitter_colludes=True) >= stake
    surer = Audit(audit.segments, audit.samples, (1 + audit.probability) / 2)
    assert least_solver_stake(surer, cost, gain, price) <= stake
    if audit.samples < audit.segments:
        larger = Audit(audit.segments, audit.samples + 1, audit.probability)
        assert least_solver_stake(larger, cost, gain, price) <= stake


@given(st.integers(1, 10**24))
def test_slashing_oneself_loses_money_in_the_contracts_integers(stake: int) -> None:
    to_challenger, to_submitter = (
        stake * share // 100 for share in (CHALLENGER_SHARE, COMPENSATION_SHARE)
    )
    assert stake - to_challenger >= stake * Shares().lost() > 0
    assert stake - to_challenger - to_submitter >= stake * Shares().lost(True) > 0


@given(
    st.integers(1, 12), st.integers(1, 6), st.integers(1, 4), CHANCES, st.integers(0, 10**9),
    AMOUNTS, st.integers(0, 10**9), st.booleans(),
)  # fmt: skip
def test_the_stakes_of_windows_deter_with_their_own_part_of_the_price(
    segments: int, window: int, samples: int, chance: Fraction, cost: int, gain: int, price: int,
    collude: bool,
) -> None:  # fmt: skip
    window = min(window, segments)
    stakes = window_stakes(segments, window, samples, chance, cost, gain, price, collude)
    assert len(stakes) == -(-segments // window)
    lost, done = Fraction(40 if collude else 60, 100), 0
    for stake in stakes:
        size = min(window, segments - done)
        # As the market pays it, when this window settles.
        paid = price * (done + size) // segments - price * done // segments
        done += size
        audit = Audit(size, min(samples, size), chance)
        own = cost * size // segments
        for faked in range(1, size + 1):
            assert cheat(audit, faked, stake, own, gain, 0 if collude else paid, lost) <= 0
    whole = Audit(segments, min(samples, segments), chance)
    alone = window_stakes(segments, segments, samples, chance, cost, gain, price, collude)
    if samples <= segments:
        assert alone == (least_solver_stake(whole, cost, gain, price, collude),)


@given(AMOUNTS, AMOUNTS, CHANCES, AMOUNTS)
def test_a_verifier_gains_nothing_by_attesting_unseen(
    saved: int, bribe: int, caught: Fraction, fee: int
) -> None:
    def gains(stake: int) -> Fraction:
        return (1 - caught) * fee + saved + bribe - caught * Fraction(3, 5) * stake - fee

    stake = least_verifier_stake(saved, bribe, caught, fee)
    assert gains(stake) <= 0
    assert stake == 1 or gains(stake - 1) > 0


@given(audits(6), st.integers(1, 10**9), AMOUNTS, AMOUNTS, st.integers(1, 10**21), st.booleans())
def test_second_audits_deter_a_solver_that_is_sure_of_its_committee(
    single: Audit, cost: int, gain: int, price: int, stake: int, collude: bool
) -> None:
    lost, at_risk = Fraction(40 if collude else 60, 100), 0 if collude else price
    faked = range(1, single.segments + 1)

    def tempted(chance: Fraction) -> bool:
        audit = Audit(single.segments, single.samples, chance * single.probability)
        return any(cheat(audit, j, stake, cost, gain, at_risk, lost) > 0 for j in faked)

    try:
        chance = least_second_audit(single, stake, cost, gain, price, collude)
    except EconomicsError:
        assert tempted(Fraction(1))
        return
    assert 0 < chance <= 1
    assert not tempted(chance)
    assert tempted(chance * Fraction(999, 1000))


@given(AMOUNTS, st.integers(0, 10**12), st.integers(0, 10**7))
def test_a_lost_bond_pays_for_the_defence_and_one_wei_less_does_not(
    segment: int, gas_price: int, gas: int
) -> None:
    bond, harm = least_bond(segment, gas_price, gas), segment + gas * gas_price
    assert Fraction(bond, 2) >= harm
    assert bond == 1 or Fraction(bond - 1, 2) < harm


def test_hiding_sealed_bids_never_pays() -> None:
    """Every set of bids, every rival, every choice of what to reveal, first and second price."""
    budget = 5
    for cost, rival in product(range(budget + 1), range(budget + 2)):
        bond = least_bid_bond(budget, cost)
        prices = range(budget + 1)
        for bids in (b for size in (1, 2, 3) for b in combinations(prices, size)):
            for shown in (b for size in range(len(bids)) for b in combinations(bids, size)):
                hidden = (len(bids) - len(shown)) * bond
                won = bool(shown) and shown[0] < rival
                paid = min([*shown[1:], rival, budget]) if won else cost
                assert paid - cost - hidden <= 0
                assert (shown[0] if won else cost) - cost - hidden <= 0


def test_impossible_requests_are_named() -> None:
    with pytest.raises(EconomicsError, match="no audit is ever real"):
        Audit(4, 2, audit_probability(Fraction(1), 3))
    with pytest.raises(EconomicsError, match="100 % of a slashed stake come back"):
        least_solver_stake(Audit(4, 2), 1, submitter_colludes=True, shares=Shares(60, 40))
    with pytest.raises(EconomicsError, match="100 % of a slashed stake come back"):
        least_verifier_stake(1, 1, Fraction(1, 2), shares=Shares(100, 0))
    with pytest.raises(EconomicsError, match="nobody honest ever looks"):
        least_verifier_stake(1, 1, catch_probability(Fraction(1), 2))
    with pytest.raises(EconomicsError, match="nobody honest bids"):
        least_bid_bond(5, 6)
    with pytest.raises(EconomicsError, match="1 wei do not deter"):
        least_second_audit(Audit(4, 2), 1, 10)
    assert least_second_audit(Audit(4, 2), 1, 0) == 0


@pytest.mark.parametrize(
    "request_",
    [
        lambda: detection(4, 0, 1),
        lambda: detection(4, 5, 1),
        lambda: detection(4, 1, 5),
        lambda: detection(4, 1, -1),
        lambda: segments_for(4, Fraction(0), Fraction(1)),
        lambda: segments_for(4, Fraction(2), Fraction(1)),
        lambda: segments_for(4, Fraction(1), Fraction(0)),
        lambda: segments_for(0, Fraction(1), Fraction(1)),
        lambda: segments_for(0, Fraction(1, 2), Fraction(1)),
        lambda: audit_probability(Fraction(2), 2),
        lambda: audit_probability(Fraction(1), 1),
        lambda: audit_probability(Fraction(1), 5),
        lambda: catch_probability(Fraction(1), 2, Fraction(-1)),
        lambda: Audit(4, 1, Fraction(3, 2)),
        lambda: Audit(4, 1).least_loss(-1),
        lambda: Audit(4, 1).least_loss(1, -1),
        lambda: Shares(101, 0),
        lambda: least_solver_stake(Audit(4, 1), 1, reward=-1),
        lambda: least_verifier_stake(-1, 0, Fraction(1)),
        lambda: least_second_audit(Audit(4, 1), -1, 1),
        lambda: window_stakes(4, 0, 1, Fraction(1), 1),
        lambda: window_stakes(4, 5, 1, Fraction(1), 1),
        lambda: least_bond(-1, 1),
        lambda: least_bond(1, 1, returned=Fraction(0)),
    ],
)
def test_numbers_out_of_range_are_refused(request_: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        request_()
