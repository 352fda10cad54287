# SPDX-License-Identifier: GPL-3.0-or-later
"""Beginning and end of a dispute: who may open one, clocks, and the one verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from protocol.dispute import turn_of
from protocol.game_view import GameView, Phase, Role
from protocol.question import Context
from tests.game_driver import (
    CHALLENGER,
    CLOCK,
    DEFENDANT,
    Court,
    Deployed,
    Refused,
    contract,
    replayed,
)
from tests.scripted_game import FOLD_LIAR, WORLD, at_function, next_of, sample_moves


@pytest.fixture(scope="module")
def court() -> Court:
    return Court()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"start_root": bytes(32)}, "InvalidContext"),
        ({"end_root": bytes(32)}, "InvalidContext"),
        ({"steps": 0}, "InvalidContext"),
        ({"n_state": 0}, "InvalidContext"),
        ({"n_nodes": 18}, "InvalidContext"),
        ({"challenger": DEFENDANT}, "InvalidParties"),
        ({"challenger": bytes(20)}, "InvalidParties"),
        ({"defendant": bytes(20)}, "InvalidParties"),
        ({"defendant_clock": 0}, "InvalidClocks"),
        ({"challenger_clock": 0}, "InvalidClocks"),
    ],
)
def test_create_refuses_a_dispute_without_meaning(
    court: Court, changes: dict[str, Any], error: str
) -> None:
    context = WORLD.context(FOLD_LIAR)
    parts = {name: getattr(context, name) for name in Context.__dataclass_fields__}
    context = Context(**{name: changes.get(name, value) for name, value in parts.items()})
    count = court.game.view("disputeCount")
    with pytest.raises(Refused) as refused:
        court.game.send(
            "create", context.as_abi(), changes.get("defendant", DEFENDANT),
            changes.get("challenger", CHALLENGER), changes.get("defendant_clock", CLOCK),
            changes.get("challenger_clock", CLOCK),
        )  # fmt: skip
    assert refused.value.error == error
    assert court.game.view("disputeCount") == count


def test_only_the_party_to_move_is_charged(court: Court) -> None:
    game = court.open(WORLD.context(FOLD_LIAR), defendant_clock=1000, challenger_clock=500)
    left = {Role.DEFENDANT: 1000, Role.CHALLENGER: 500}
    for seconds in (7, 13, 1, 40, 100, 0, 12):
        turn = turn_of(game.view.phase)
        assert turn is not None
        if seconds:
            game.wait(seconds)
        game.send(next_of(game.view, FOLD_LIAR))
        left[turn] -= seconds
        assert game.view.moved_at == court.evm.timestamp
        assert game.view.clocks == (left[Role.DEFENDANT], left[Role.CHALLENGER])
        assert game.stored() == game.view.state.digest


@pytest.mark.parametrize("function", ["commitSteps", "point", "open", "prove"])
def test_timeout_needs_a_clock_that_has_run_out(court: Court, function: str) -> None:
    game = at_function(court, function).game
    turn = turn_of(game.view.phase)
    assert turn is not None
    defendants_turn = turn is Role.DEFENDANT
    game.wait(CLOCK)
    with pytest.raises(Refused) as refused:
        game.timeout()
    assert (refused.value.error, refused.value.arguments) == ("ClockRunning", (CLOCK, CLOCK))
    assert not game.view.is_late(turn, court.evm.timestamp)
    game.wait(1)
    assert game.view.is_late(turn, court.evm.timestamp)
    game.timeout()
    assert game.view.phase is (Phase.CONVICTED if defendants_turn else Phase.ACQUITTED)
    assert game.view.timed_out
    assert court.arbiter.view("convicted", game.view.dispute) is defendants_turn


@pytest.mark.parametrize(("defendant_clock", "challenger_clock"), [(100, 900), (900, 100)])
@pytest.mark.parametrize("late", Role)
def test_timeout_looks_at_the_clock_of_the_party_to_move(
    court: Court, late: Role, defendant_clock: int, challenger_clock: int
) -> None:
    game = court.open(
        WORLD.context(FOLD_LIAR),
        defendant_clock=defendant_clock,
        challenger_clock=challenger_clock,
    )
    if late is Role.CHALLENGER:
        game.send(next_of(game.view, FOLD_LIAR))
    clock = (defendant_clock, challenger_clock)[late]
    game.wait(clock)
    with pytest.raises(Refused) as refused:
        game.timeout()
    assert (refused.value.error, refused.value.arguments) == ("ClockRunning", (clock, clock))
    game.wait(1)
    game.timeout()
    assert game.view.phase is (Phase.CONVICTED if late is Role.DEFENDANT else Phase.ACQUITTED)


@pytest.mark.parametrize("by_proof", [True, False])
def test_a_finished_dispute_cannot_be_touched_again(court: Court, by_proof: bool) -> None:
    turn = at_function(court, "prove")
    if by_proof:
        turn.game.send(turn.move)
    else:
        turn.game.wait(CLOCK + 1)
        turn.game.timeout()
    assert turn.game.stored() == bytes(32)
    for function, move in sample_moves().items():
        call = replayed(move, dispute=turn.move.dispute, state=turn.move.state)
        for sender in (DEFENDANT, CHALLENGER):
            with pytest.raises(Refused) as refused:
                turn.game.send(call, sender)
            assert refused.value.error == "NotLive", function
    turn.game.wait(10 * CLOCK)
    with pytest.raises(Refused) as refused:
        turn.game.timeout()
    assert refused.value.error == "NotLive"
    assert turn.game.stored() == bytes(32)
    assert court.arbiter.view("verdicts", turn.move.dispute) == 1


def test_an_unknown_dispute_has_no_moves_and_no_end(court: Court) -> None:
    for function, move in sample_moves().items():
        with pytest.raises(Refused) as refused:
            court.game.send(function, *replayed(move, dispute=10**6).args(), sender=DEFENDANT)
        assert refused.value.error == "NotLive"
    view = at_function(court, "open").game.view
    answers = (view.state.as_abi(), view.program, view.history.as_abi())
    with pytest.raises(Refused) as refused:
        court.game.send("timeout", 10**6, *answers)
    assert refused.value.error == "NotLive"


def test_timeout_names_the_state_and_the_arbiter_of_the_dispute(court: Court) -> None:
    turn = at_function(court, "open")
    turn.game.wait(CLOCK + 1)
    view, stored = turn.game.view, turn.game.stored()
    state, history = view.state, view.history
    later = replace(state, turn=state.turn + (1 << 208))  # as if the last move had come later
    foreign = replace(history, arbiter="0x" + 20 * "77")
    for answers, error in (
        ((later.as_abi(), view.program, history.as_abi()), "StaleMove"),
        ((state.as_abi(), view.program, foreign.as_abi()), "WrongPast"),
        ((state.as_abi(), bytes(32), history.as_abi()), "WrongPast"),
    ):
        with pytest.raises(Refused) as refused:
            court.game.send("timeout", view.dispute, *answers)
        assert refused.value.error == error
        assert turn.game.stored() == stored
    turn.game.timeout()
    assert turn.game.view.phase is Phase.CONVICTED


def test_a_verdict_that_the_arbiter_refuses_is_not_recorded(court: Court) -> None:
    turn = at_function(court, "prove")
    court.arbiter.send("setRefuses", True)
    before = turn.game.stored()
    with pytest.raises(Refused):
        turn.game.send(turn.move)
    assert turn.game.stored() == before
    court.arbiter.send("setRefuses", False)
    turn.game.send(turn.move)
    assert court.arbiter.view("verdicts", turn.move.dispute) == 1
    assert not court.arbiter.view("reentered")


def test_gas_too_little_for_the_arbiter_records_no_verdict(court: Court) -> None:
    """The 63/64 rule: whatever gas a caller gives, the verdict and its delivery come together."""
    turn = at_function(court, "prove")
    call = (turn.move.function, *turn.move.args())
    outcomes = set()
    for gas in range(20_000, 160_000, 5_000):
        try:
            court.game.send(*call, sender=CHALLENGER, gas=gas)
            outcomes.add("delivered")
            assert court.arbiter.view("verdicts", turn.move.dispute) == 1
            break
        except Refused:
            outcomes.add("refused")
            assert turn.game.stored() == turn.move.state.digest
            assert court.arbiter.view("verdicts", turn.move.dispute) == 0
    assert outcomes == {"refused", "delivered"}


def test_an_arbiter_without_code_gets_no_call(court: Court) -> None:
    context = WORLD.context(FOLD_LIAR)
    _, ((_, args),) = court.game.send("create", context.as_abi(), DEFENDANT, CHALLENGER, 10, 10)
    view = GameView.created(args)
    court.evm.mine(seconds=11)
    answers = (view.state.as_abi(), view.program, view.history.as_abi())
    _, events = court.game.send("timeout", args["id"], *answers)
    assert events == [
        ("DisputeFinished", {"id": args["id"], "convicted": True, "timedOut": True})
    ]  # fmt: skip


@pytest.mark.size
def test_the_contract_fits_the_code_size_limit() -> None:
    assert (len(contract("DisputeGame")["deployed_bytecode"]) - 2) // 2 < 24_576


def test_the_game_knows_its_referee(court: Court) -> None:
    assert isinstance(court.referee, Deployed)
    assert court.game.view("REFEREE") == f"0x{court.referee.address.hex()}"
