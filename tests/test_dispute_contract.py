# SPDX-License-Identifier: GPL-3.0-or-later
"""Every move of the dispute game: what it refuses, with which error, changing nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocol import moves
from protocol.dispute import turn_of
from protocol.game_view import Phase, Role, packed
from protocol.program import Kind
from protocol.question import Context, Proof, ProofKind
from tests.game_driver import (
    CHALLENGER,
    CLOCK,
    DEFENDANT,
    STRANGER,
    Court,
    Refused,
    honest,
    replayed,
)
from tests.players import FUNCTIONS
from tests.scripted_game import (
    EXPECTED_PHASE,
    FOLD_LIAR,
    INPUT_LIAR,
    MAP_LIAR,
    OWN,
    WORLD,
    Turn,
    advance,
    at_function,
    next_of,
    refuses,
    sample_moves,
)
from tests.toy import Lie, ToyLiar, ToyNode, ToyWitness, World


@pytest.fixture(scope="module")
def court() -> Court:
    return Court()


# Every move --------------------------------------------------------------------------------------


def test_every_function_is_refused_in_every_other_phase(court: Court) -> None:
    game = court.open(WORLD.context(FOLD_LIAR))
    game.pace = 0
    seen = set()
    while not game.view.finished:
        move = next_of(game.view, FOLD_LIAR)
        turn = Turn(game, move)
        if game.view.phase not in seen:
            seen.add(game.view.phase)
            for function, other in sample_moves().items():
                if EXPECTED_PHASE[function] is not game.view.phase:
                    call = replayed(other, dispute=move.dispute, answers=move.answers)
                    arguments = refuses(turn, call, "WrongPhase")
                    assert arguments == (
                        move.dispute, game.view.phase, EXPECTED_PHASE[function],
                    )  # fmt: skip
        game.send(move)
    assert seen == set(EXPECTED_PHASE.values())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_move_is_refused_out_of_turn_stale_late_or_twice(court: Court, function: str) -> None:
    turn = at_function(court, function)
    opponent = CHALLENGER if turn.sender == DEFENDANT else DEFENDANT
    for sender in (opponent, STRANGER):
        assert refuses(turn, turn.move, "NotYourTurn", sender) == (
            f"0x{sender.hex()}",
            f"0x{turn.sender.hex()}",
        )
    stale = replayed(turn.move, answers=bytes(32))
    assert refuses(turn, stale, "StaleMove") == (bytes(32), turn.move.answers)

    turn.game.wait(CLOCK)  # the last second is still in time
    turn.game.send(turn.move)
    again = Turn(turn.game, turn.move)
    before = turn.game.state()
    for sender in (DEFENDANT, CHALLENGER):
        with pytest.raises(Refused) as refused:
            turn.game.send(turn.move, sender)
        assert refused.value.error in ("WrongPhase", "NotYourTurn", "StaleMove")
    assert again.game.state() == before

    late = at_function(court, function)
    late.game.wait(CLOCK + 1)
    assert refuses(late, late.move, "ClockExpired") == (CLOCK + 1, CLOCK)


def test_a_point_that_a_reorganization_swapped_is_not_answered(court: Court) -> None:
    """The attack "reorg swaps the target": the defendant's answer names the element it saw."""
    turn = at_function(court, "pointElement", MAP_LIAR)
    assert isinstance(turn.move, moves.PointElement)
    seen = turn.game.view
    turn.game.send(turn.move)
    answer = next_of(seen, MAP_LIAR)

    other = at_function(court, "pointElement", MAP_LIAR)
    assert isinstance(other.move, moves.PointElement)
    other.game.send(replayed(other.move, offset=other.move.offset + 1))
    swapped = replayed(answer, dispute=other.move.dispute)
    assert refuses(Turn(other.game, swapped), swapped, "StaleMove")


# Arguments ---------------------------------------------------------------------------------------

JUNK = b"\x99" * 32


def altered(context: Context) -> Context:
    return Context(*(*context.as_abi()[:-1], 7))  # type: ignore[arg-type]


Change = tuple[str, str, Callable[[Any], dict[str, Any]]]
CHANGES: list[Change] = [
    ("commitSteps", "WrongContext", lambda m: {"context": altered(m.context)}),
    ("commitSteps", "WrongInclusion", lambda m: {"log_root": JUNK}),
    ("commitSteps", "WrongInclusion", lambda m: {"last_proof": m.last_proof[:-1]}),
    ("commitSteps", "WrongInclusion", lambda m: {"last_proof": (*m.last_proof, JUNK)}),
    ("commitSteps", "WrongChildCount", lambda m: {"children": m.children[:-1]}),
    ("commitSteps", "WrongChildCount", lambda m: {"children": (*m.children, JUNK)}),
    ("commitSteps", "WrongChildren", lambda m: {"children": (JUNK, *m.children[1:])}),
    ("point", "WrongChild", lambda m: {"child": JUNK}),
    ("point", "WrongChild", lambda m: {"index": m.index ^ 1}),
    ("point", "WrongChild", lambda m: {"index": 16}),
    ("point", "WrongChild", lambda m: {"path": (*m.path, JUNK)}),
    ("point", "WrongChild", lambda m: {"path": m.path[1:]}),
    ("open", "WrongChildCount", lambda m: {"children": ()}),
    ("open", "WrongChildCount", lambda m: {"children": (*m.children, JUNK)}),
    ("open", "WrongChildren", lambda m: {"children": m.children[::-1]}),
    ("revealStep", "WrongContext", lambda m: {"context": altered(m.context)}),
    ("revealStep", "WrongLeaf", lambda m: {"state_after": JUNK}),
    ("revealStep", "WrongInclusion", lambda m: {"state_before": JUNK}),
    ("revealStep", "WrongInclusion", lambda m: {"state_before": m.context.start_root}),
    ("revealStep", "WrongInclusion", lambda m: {"proof": ()}),
    ("revealStep", "WrongChildCount", lambda m: {"children": m.children[1:]}),
    ("revealStep", "WrongChildren", lambda m: {"children": m.children[::-1]}),
    ("revealTensor", "WrongContext", lambda m: {"context": altered(m.context)}),
    ("revealTensor", "WrongLeaf", lambda m: {"tensor_root": JUNK}),
    ("revealTensor", "WrongInclusion", lambda m: {"trace_root": JUNK}),
    ("revealTensor", "WrongInclusion", lambda m: {"proof": m.proof[:-1]}),
    ("revealTensor", "WrongChildCount", lambda m: {"children": ()}),
    ("revealTensor", "WrongChildren", lambda m: {"children": m.children[::-1]}),
    ("pointNode", "WrongContext", lambda m: {"context": altered(m.context)}),
    ("pointNode", "WrongChild", lambda m: {"child": JUNK}),
    ("pointNode", "WrongInclusion", lambda m: {"node": WORLD.nodes[0].encoding}),
    ("pointNode", "WrongInclusion", lambda m: {"node_proof": ()}),
    ("revealNode", "WrongLeaf", lambda m: {"tensor_root": JUNK}),
    ("revealNode", "WrongChildCount", lambda m: {"children": (JUNK,)}),
    ("revealChunk", "WrongLength", lambda m: {"chunk": m.chunk + bytes(4)}),
    ("revealChunk", "WrongLength", lambda m: {"chunk": m.chunk[:-1]}),
    ("revealChunk", "WrongLeaf", lambda m: {"chunk": bytes(len(m.chunk))}),
    ("pointElement", "WrongLeaf", lambda m: {"chunk": bytes(len(m.chunk))}),
    ("pointElement", "IndexOutOfRange", lambda m: {"offset": len(m.chunk) // 4}),
    ("openLanes", "WrongLength", lambda m: {"lanes": m.lanes[:-4]}),
    ("openLanes", "WrongResult", lambda m: {"lanes": bytes(64)}),
    ("pointLane", "WrongPreimage", lambda m: {"lanes": bytes(64)}),
    ("pointLane", "IndexOutOfRange", lambda m: {"lane": 16}),
    ("openFold", "WrongLength", lambda m: {"accumulators": m.accumulators + bytes(4)}),
    ("openFold", "WrongLength", lambda m: {"accumulators": m.accumulators[4:]}),
    ("openFold", "WrongResult", lambda m: {"accumulators": bytes(len(m.accumulators))}),
    ("openFold", "WrongResult", lambda m: {"item": 1}),
    ("pointFold", "WrongPreimage", lambda m: {"accumulators": m.accumulators + bytes(4)}),
    ("pointFold", "IndexOutOfRange", lambda m: {"index": len(m.accumulators) // 4}),
    ("postValues", "WrongLength", lambda m: {"values": bytes(292)}),
    ("prove", "WrongNode", lambda m: {"context": altered(m.context)}),
    ("prove", "WrongNode", lambda m: {"proof": proof(m, node=WORLD.nodes[0].encoding)}),
    ("prove", "ProofRejected", lambda m: {"proof": proof(m, kind=ProofKind(2 - m.proof.kind))}),
    ("prove", "WrongPhase", lambda m: {"proof": proof(m, kind=ProofKind.ROOT)}),
]  # fmt: skip


def proof(move: moves.Prove, **changes: Any) -> Proof:
    fields = {name: getattr(move.proof, name) for name in Proof.__dataclass_fields__}
    return Proof(**{**fields, **changes})


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_move_with_wrong_arguments_is_refused(court: Court, function: str) -> None:
    changes = [change for change in CHANGES if change[0] == function]
    assert changes
    turn = at_function(court, function)
    for _, error, change in changes:
        refuses(turn, replayed(turn.move, **change(turn.move)), error)
    turn.game.send(turn.move)  # what was refused was all that was wrong


def test_below_the_top_a_chain_must_lead_from_before_to_after(court: Court) -> None:
    turn = advance(court, lambda view, move: move.function == "openFold" and not view.at_top)
    move = turn.move
    assert isinstance(move, moves.OpenFold)
    refuses(turn, replayed(move, item=move.item ^ 1), "WrongResult")
    words = move.accumulators[:-4] + (move.item ^ 1).to_bytes(4, "big")
    refuses(turn, replayed(move, accumulators=words), "WrongResult")
    turn.game.send(move)


def test_a_root_claim_takes_only_a_root_proof(court: Court) -> None:
    turn = at_function(court, "prove", INPUT_LIAR)
    assert isinstance(turn.move, moves.Prove)
    assert turn.game.view.phase is Phase.PROVE_ROOT
    for kind in (ProofKind.RESULT, ProofKind.ELEMENT):
        refuses(turn, replayed(turn.move, proof=proof(turn.move, kind=kind)), "WrongPhase")
    turn.game.send(turn.move)
    assert turn.game.view.phase is Phase.CONVICTED


def test_nodes_are_pointed_at_with_their_encoding_and_subtrees_without(court: Court) -> None:
    inner = advance(
        court, lambda view, m: m.function == "point" and view.level == 2, FOLD_LIAR
    )  # fmt: skip
    point = inner.move
    assert isinstance(point, moves.Point)
    as_node = moves.PointNode(
        point.dispute, point.answers, inner.game.view.context, point.index, point.child, point.path,
        OWN.node_encoding(0), tuple(OWN.node_proof(0)),
    )  # fmt: skip
    assert refuses(inner, as_node, "WrongPointer") == (2, 16)
    leaf = at_function(court, "pointNode")
    node = leaf.move
    assert isinstance(node, moves.PointNode)
    as_point = moves.Point(node.dispute, node.answers, node.index, node.child, node.path)
    assert refuses(leaf, as_point, "WrongPointer") == (2, 1)


def test_empty_lanes_can_claim_nothing(court: Court) -> None:
    nodes = (
        ToyNode(Kind.INPUT, 1), ToyNode(Kind.FOLD, 1, 3, 16), ToyNode(Kind.OUTPUT, 1, index=1)
    )  # fmt: skip
    world = World(nodes, 1, 1, 0, bytes(32))
    liar, own = ToyLiar(world, Lie(0, 1, 0, 5, term=1)), ToyWitness(world)
    game = court.open(world.context(liar))
    while game.view.phase is not Phase.LANES:
        role = turn_of(game.view.phase)
        assert role is not None
        move = honest(liar if role is Role.DEFENDANT else own, role)(game.view)
        assert move is not None
        game.send(move)
    lanes = liar.lanes(0, 1, 0)
    lanes[4] += 1
    lanes[1] -= 1  # so the sum is still what was claimed
    hidden = moves.OpenLanes(game.view.dispute, game.view.position, packed(lanes))
    refuses(Turn(game, hidden), hidden, "EmptyLaneNotZero")
    lanes[4] -= 1
    lanes[1] += 1
    game.send(replayed(hidden, lanes=packed(lanes)))
    point = moves.PointLane(game.view.dispute, game.view.position, packed(lanes), 3)
    assert refuses(Turn(game, point), point, "IndexOutOfRange") == (3, 3)


def test_the_first_step_begins_from_the_agreed_start_and_needs_no_proof(court: Court) -> None:
    liar = ToyLiar(WORLD, Lie(0, 18, 600, 99))
    turn = at_function(court, "revealStep", liar)
    move = turn.move
    assert isinstance(move, moves.RevealStep)
    start = turn.game.view.context.start_root
    assert (turn.game.view.first, move.state_before, move.proof) == (0, start, ())
    refuses(turn, replayed(move, state_before=JUNK), "WrongStateBefore")
    assert refuses(turn, replayed(move, proof=(JUNK,)), "WrongLength") == (1, 0)
    turn.game.send(move)
