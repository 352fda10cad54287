# SPDX-License-Identifier: GPL-3.0-or-later
"""Every move of the dispute game: what it refuses, with which error, changing nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from eth_utils.crypto import keccak

from protocol import moves
from protocol.dispute import doubt_end, doubt_state, point_at, point_element, turn_of
from protocol.game_view import Level, Phase, Role, packed
from protocol.position import History
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
    END_LIAR,
    EXPECTED_PHASE,
    FOLD_LIAR,
    INPUT_LIAR,
    MAP_LIAR,
    OWN,
    STATE_LIAR,
    WORLD,
    Turn,
    advance,
    at_function,
    next_of,
    refuses,
    sample_moves,
)
from tests.toy import Lie, ToyLiar, ToyNode, ToyWitness, TwoLies, World

JUNK = b"\x99" * 32


@pytest.fixture(scope="module")
def court() -> Court:
    return Court()


# Every move --------------------------------------------------------------------------------------


def test_every_function_is_refused_in_every_other_phase(court: Court) -> None:
    seen = set()
    for liar in (FOLD_LIAR, INPUT_LIAR, OWN):
        game = court.open(WORLD.context(liar))
        game.pace = 0
        while not game.view.finished:
            move = next_of(game.view, liar)
            turn = Turn(game, move)
            if game.view.phase not in seen:
                seen.add(game.view.phase)
                for function, other in sample_moves().items():
                    if EXPECTED_PHASE[function] is not game.view.phase:
                        call = replayed(other, dispute=move.dispute, state=move.state)
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
    state = turn.move.state
    for part in ("turn", "defence", "challenge", "element"):
        other = replace(state, **{part: getattr(state, part) ^ 1})
        stale = replayed(turn.move, state=other)
        assert refuses(turn, stale, "StaleMove") == (other.digest, state.digest)
    for part in ("claim", "past"):
        other = replace(state, **{part: JUNK})
        assert refuses(turn, replayed(turn.move, state=other), "StaleMove")

    turn.game.wait(CLOCK)  # the last second is still in time
    turn.game.send(turn.move)
    again = Turn(turn.game, turn.move)
    before = turn.game.stored()
    for sender in (DEFENDANT, CHALLENGER):
        with pytest.raises(Refused) as refused:
            turn.game.send(turn.move, sender)
        assert refused.value.error == ("NotLive" if turn.game.view.finished else "StaleMove")
    assert again.game.stored() == before

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
    other.game.send(point_element(other.game.view, turn.move.offset + 1))
    swapped = replayed(answer, dispute=other.move.dispute)
    assert refuses(Turn(other.game, swapped), swapped, "StaleMove")


# Arguments ---------------------------------------------------------------------------------------


def altered(context: Context) -> Context:
    return Context(*(*context.as_abi()[:-1], 7))  # type: ignore[arg-type]


def elsewhere(history: History) -> History:
    return replace(history, tree=JUNK)


Change = tuple[str, str, Callable[[Any], dict[str, Any]]]
PAST: list[Change] = [
    (function, "WrongPast", change)
    for function in ("commitSteps", "commitTrace", "doubtEnd", "doubtState", "show")
    for change in (
        lambda m: {"program": JUNK},
        lambda m: {"history": elsewhere(m.history)},
        lambda m: {"history": replace(m.history, origin=JUNK)},
        lambda m: {"history": replace(m.history, arbiter="0x" + 20 * "77")},
    )
]
CHANGES: list[Change] = [
    *PAST,
    ("commitSteps", "WrongChildCount", lambda m: {"children": m.children[:-1]}),
    ("commitSteps", "WrongChildCount", lambda m: {"children": (*m.children, JUNK)}),
    ("point", "WrongChild", lambda m: {"child": JUNK}),
    ("point", "WrongChild", lambda m: {"index": m.index ^ 1}),
    ("point", "WrongChild", lambda m: {"index": 16}),
    ("point", "WrongChild", lambda m: {"path": (*m.path, JUNK)}),
    ("point", "WrongChild", lambda m: {"path": m.path[1:]}),
    ("open", "WrongChildCount", lambda m: {"children": ()}),
    ("open", "WrongChildCount", lambda m: {"children": (*m.children, JUNK)}),
    ("open", "WrongChildren", lambda m: {"children": m.children[::-1]}),
    ("commitTrace", "WrongChildCount", lambda m: {"children": m.children[:-1]}),
    ("commitTrace", "WrongChildCount", lambda m: {"children": ()}),
    ("doubtEnd", "WrongContext", lambda m: {"context": altered(m.context)}),
    ("doubtState", "WrongContext", lambda m: {"context_hash": JUNK}),
    ("doubtState", "WrongContext", lambda m: {"log_root": JUNK}),
    ("doubtState", "WrongContext", lambda m: {"step_leaf": JUNK}),
    ("reveal", "WrongLeaf", lambda m: {"children": m.children[::-1]}),
    ("reveal", "WrongChildCount", lambda m: {"children": m.children[1:]}),
    ("show", "WrongInclusion", lambda m: {"proof": m.proof[:-1]}),
    ("show", "WrongInclusion", lambda m: {"proof": (*m.proof, JUNK)}),
    ("show", "WrongInclusion", lambda m: {"proof": (JUNK, *m.proof[1:])}),
    ("pointNode", "WrongPast", lambda m: {"program": JUNK}),
    ("pointNode", "WrongPast", lambda m: {"history_hash": JUNK}),
    ("pointNode", "WrongChild", lambda m: {"child": JUNK}),
    ("pointNode", "WrongInclusion", lambda m: {"node": WORLD.nodes[0].encoding}),
    ("pointNode", "WrongInclusion", lambda m: {"node_proof": ()}),
    ("revealChunk", "WrongLength", lambda m: {"chunk": m.chunk + bytes(4)}),
    ("revealChunk", "WrongLength", lambda m: {"chunk": m.chunk[:-1]}),
    ("revealChunk", "WrongLeaf", lambda m: {"chunk": bytes(len(m.chunk))}),
    ("pointElement", "IndexOutOfRange", lambda m: {"offset": 256}),
    ("pointElement", "WrongWords", lambda m: {"offset": (m.offset + 8) % 256}),
    ("pointElement", "WrongWords", lambda m: {"before": m.before ^ 1}),
    ("pointElement", "WrongWords", lambda m: {"eight": m.eight[::-1]}),
    ("pointElement", "WrongWords", lambda m: {"path": m.path[:-1]}),
    ("pointElement", "WrongWords", lambda m: {"path": (*m.path, JUNK)}),
    ("openLanes", "WrongLength", lambda m: {"lanes": m.lanes[:-4]}),
    ("openLanes", "WrongResult", lambda m: {"lanes": bytes(64)}),
    ("pointLane", "WrongPreimage", lambda m: {"lanes": bytes(64)}),
    ("pointLane", "IndexOutOfRange", lambda m: {"lane": 16}),
    ("openFold", "WrongLength", lambda m: {"accumulators": m.accumulators + bytes(4)}),
    ("openFold", "WrongLength", lambda m: {"accumulators": m.accumulators[4:]}),
    ("openFold", "WrongResult", lambda m: {"accumulators": bytes(len(m.accumulators))}),
    ("pointFold", "IndexOutOfRange", lambda m: {"index": 256}),
    ("pointFold", "WrongWords", lambda m: {"index": m.index ^ 8}),
    ("pointFold", "WrongWords", lambda m: {"before": m.before ^ 1}),
    ("pointFold", "WrongWords", lambda m: {"eight": JUNK}),
    ("pointFold", "WrongWords", lambda m: {"path": (*m.path, JUNK)}),
    ("postValues", "WrongLength", lambda m: {"values": bytes(292)}),
    ("prove", "WrongPast", lambda m: {"history": elsewhere(m.history)}),
    ("prove", "WrongPast", lambda m: {"proof": proof(m, node=WORLD.nodes[0].encoding)}),
    ("prove", "ProofRejected", lambda m: {"proof": proof(m, kind=ProofKind(2 - m.proof.kind))}),
    ("proveLeaf", "WrongPast", lambda m: {"history": elsewhere(m.history)}),
    ("proveLeaf", "WrongPast", lambda m: {"proof": proof(m, node=WORLD.nodes[0].encoding)}),
    ("proveLeaf", "WrongContext", lambda m: {"context": altered(m.context)}),
    ("proveLeaf", "WrongContext", lambda m: {"segment": replace(m.segment, log_root=JUNK)}),
    ("proveLeaf", "WrongContext", lambda m: {"segment": replace(m.segment, step_leaf=JUNK)}),
    ("proveLeaf", "WrongInclusion", lambda m: {"segment": replace(m.segment, state_before=JUNK)}),
    ("proveLeaf", "WrongInclusion", lambda m: {"segment": replace(m.segment, proof=())}),
]  # fmt: skip


def proof(move: moves.Prove | moves.ProveLeaf, **changes: Any) -> Proof:
    fields = {name: getattr(move.proof, name) for name in Proof.__dataclass_fields__}
    return Proof(**{**fields, **changes})


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_move_with_wrong_arguments_is_refused(court: Court, function: str) -> None:
    changes = [change for change in CHANGES if change[0] == function]
    assert changes
    turn = at_function(court, function)
    if function == "pointFold":  # where the chain is long
        turn = advance(
            court, lambda view, m: m.function == function and view.fold_level == 0, FOLD_LIAR
        )
    for _, error, change in changes:
        refuses(turn, replayed(turn.move, **change(turn.move)), error)
    turn.game.send(turn.move)  # what was refused was all that was wrong


def test_below_the_top_a_chain_must_lead_from_before_to_after(court: Court) -> None:
    turn = advance(
        court, lambda view, move: move.function == "openFold" and not view.at_top, FOLD_LIAR
    )
    move = turn.move
    assert isinstance(move, moves.OpenFold)
    last = int.from_bytes(move.accumulators[-4:], "big") ^ 1
    words = move.accumulators[:-4] + last.to_bytes(4, "big")
    refuses(turn, replayed(move, accumulators=words), "WrongResult")
    turn.game.send(move)


def test_a_root_claim_takes_only_a_root_proof(court: Court) -> None:
    turn = at_function(court, "proveLeaf")
    assert isinstance(turn.move, moves.ProveLeaf)
    malformed = keccak(text="MalformedProof(uint8)")[:4].hex()
    for kind in (ProofKind.RESULT, ProofKind.ELEMENT):
        call = replayed(turn.move, proof=proof(turn.move, kind=kind))
        before = turn.game.stored()
        with pytest.raises(Refused) as refused:
            turn.game.send(call)
        assert refused.value.error.startswith(malformed)
        assert turn.game.stored() == before
    turn.game.send(turn.move)
    assert turn.game.view.phase is Phase.CONVICTED


def test_nodes_are_pointed_at_with_their_encoding_and_subtrees_without(court: Court) -> None:
    inner = advance(
        court, lambda view, m: m.function == "point" and view.level is Level.TRACE, FOLD_LIAR
    )
    point, view = inner.move, inner.game.view
    assert isinstance(point, moves.Point)
    as_node = moves.PointNode(
        point.dispute, point.state, view.program, view.history.digest,
        point.index, point.child, point.path,
        OWN.node_encoding(0), tuple(OWN.node_proof(0)),
    )  # fmt: skip
    assert refuses(inner, as_node, "WrongPointer") == (Level.TRACE, 16)
    leaf = at_function(court, "pointNode")
    node = leaf.move
    assert isinstance(node, moves.PointNode)
    as_point = moves.Point(node.dispute, node.state, node.index, node.child, node.path)
    assert refuses(leaf, as_point, "WrongPointer") == (Level.TRACE, 1)


def test_a_doubt_has_its_own_level(court: Court) -> None:
    in_log = at_function(court, "point")
    assert refuses(in_log, doubt_state(in_log.game.view), "WrongPointer") == (Level.STEPS, 18)
    in_trace = at_function(court, "pointNode")
    assert refuses(in_trace, doubt_end(in_trace.game.view), "WrongPointer")[0] == Level.TRACE
    in_state = advance(court, lambda _, move: move.function == "reveal", OWN)
    in_state.game.send(in_state.move)
    for doubt in (doubt_end, doubt_state):
        refuses(in_state, doubt(in_state.game.view), "WrongPointer")


@pytest.mark.parametrize("liar", [STATE_LIAR, END_LIAR])
def test_stale_output_a_claim_that_the_tree_does_not_hold_cannot_be_shown(
    court: Court, liar: ToyWitness
) -> None:
    """The attack "stale output": a true trace under a false state, a true log under a false end."""
    turn = advance(court, lambda view, _: view.phase is Phase.SHOW, liar)
    refuses(turn, turn.move, "WrongInclusion")
    assert isinstance(turn.move, moves.Show)
    view = turn.game.view
    tree = liar.step_log() if view.level is Level.STEPS else liar.trace_tree(view.step)
    for place in range(tree.size):
        proof = tuple(tree.inclusion_proof(place))
        refuses(turn, replayed(turn.move, proof=proof), "WrongInclusion")
    turn.game.wait(CLOCK + 1)
    turn.game.timeout()
    assert turn.game.view.phase is Phase.CONVICTED


@pytest.mark.parametrize("level", [Level.STEPS, Level.TRACE])
def test_an_honest_defendant_wins_by_showing_what_is_doubted(court: Court, level: Level) -> None:
    turn = advance(court, lambda view, _: view.phase is Phase.POINT and view.level is level, OWN)
    game = turn.game
    game.strict = True
    game.send(doubt_end(game.view) if level is Level.STEPS else doubt_state(game.view))
    while not game.view.finished:
        if game.view.phase is Phase.POINT:
            game.send(point_at(game.view, OWN, len(game.view.children) - 1))
        else:
            game.send(next_of(game.view, OWN))
    assert (game.view.phase, game.view.timed_out) == (Phase.ACQUITTED, False)
    assert court.arbiter.view("verdicts", game.view.dispute) == 1
    assert not court.arbiter.view("convicted", game.view.dispute)


def test_the_longest_values_of_all_are_taken(court: Court) -> None:
    turn = at_function(court, "postValues")
    turn.game.send(replayed(turn.move, values=bytes(288)))
    assert turn.game.view.phase is Phase.PROVE


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
    hidden = moves.OpenLanes(game.view.dispute, game.view.state, packed(lanes))
    refuses(Turn(game, hidden), hidden, "EmptyLaneNotZero")
    lanes[4] -= 1
    lanes[1] += 1
    game.send(replayed(hidden, lanes=packed(lanes)))
    point = moves.PointLane(game.view.dispute, game.view.state, packed(lanes), 3)
    assert refuses(Turn(game, point), point, "IndexOutOfRange") == (3, 3)


def test_the_first_step_begins_from_the_agreed_start_and_needs_no_proof(court: Court) -> None:
    turn = at_function(court, "proveLeaf", TwoLies(WORLD, Lie(0, 3, 0, 99), 2))
    move = turn.move
    assert isinstance(move, moves.ProveLeaf)
    assert turn.game.view.step == 0
    assert move.segment.proof == ()
    turn.game.send(replayed(move, segment=replace(move.segment, state_before=JUNK)))
    assert turn.game.view.phase is Phase.CONVICTED


def test_a_segment_of_one_step_begins_with_its_trace(court: Court) -> None:
    world = replace(WORLD, steps=1)
    liar, own = ToyLiar(world, Lie(0, 18, 600, 99)), ToyWitness(world)
    game = court.open(world.context(liar))
    assert game.view.phase is Phase.COMMIT_TRACE
    outcome = game.play(honest(liar, Role.DEFENDANT), honest(own, Role.CHALLENGER))
    assert outcome.convicted
    assert "commitSteps" not in outcome.functions
