# SPDX-License-Identifier: GPL-3.0-or-later
"""Challengers that attack an honest defendant: by wandering, by garbage, by silence."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields, replace

from protocol import moves
from protocol.dispute import doubt_end, doubt_state, point_at, point_element, point_fold
from protocol.game_view import ROOT_KINDS, GameView, Level, Phase, words
from protocol.moves import Move
from protocol.position import Segment
from protocol.program import Kind
from protocol.question import Context, Proof, ProofKind
from protocol.witness import Witness
from tests.game_driver import Player

DOUBTS: dict[Level, Callable[[GameView], Move]] = {
    Level.STEPS: doubt_end, Level.TRACE: doubt_state,
}  # fmt: skip
FUNCTIONS: dict[str, type[Move]] = {move.function: move for move in Move.__subclasses__()}


def wandering(witness: Witness, rng: random.Random) -> Player:
    """Points at any child, element, lane and accumulator that there is, then tries any proof.

    Once in a while it doubts what is above all doubt.
    """

    def player(view: GameView) -> Move | None:
        if view.phase is Phase.POINT:
            if rng.random() < 0.05 and view.level in DOUBTS:
                return DOUBTS[view.level](view)
            return point_at(view, witness, rng.randrange(len(view.children)))
        if view.phase is Phase.POINT_ELEMENT:
            return point_element(view, rng.randrange(len(view.chunk) // 4))
        if view.phase is Phase.POINT_LANE:
            lane = rng.randrange(min(16, view.node_facts.terms))
            return moves.PointLane(view.dispute, view.state, view.posted, lane)
        if view.phase is Phase.POINT_FOLD:
            return point_fold(view, rng.randrange(len(words(view.posted))))
        proof = any_proof(view, witness, rng)
        if view.phase is Phase.PROVE:
            return moves.Prove(view.dispute, view.state, view.history, proof)
        segment = any_segment(view, witness, rng)
        return moves.ProveLeaf(view.dispute, view.state, view.history, view.context, segment, proof)

    return player


def any_segment(view: GameView, witness: Witness, rng: random.Random) -> Segment:
    """The true state before the step, or that of another step, or garbage."""
    before = rng.choice([view.step - 1, rng.randrange(view.context.steps)])
    segment = Segment(view.log_root, view.step_leaf)
    if before < 0 or rng.random() < 0.2:
        return replace(segment, state_before=rng.randbytes(32), proof=(rng.randbytes(32),))
    proof = tuple(witness.step_log().inclusion_proof(before))
    return replace(segment, state_before=witness.state_root(before), proof=proof)


def any_proof(view: GameView, witness: Witness, rng: random.Random) -> Proof:
    """A proof that could be thought to apply, with true openings or with made-up ones."""
    node = witness.node_encoding(view.node)
    tree = witness.trace_tree(view.step)
    if view.node_facts.kind in ROOT_KINDS:
        if view.node_facts.kind is Kind.INPUT and rng.random() < 0.5:
            root = rng.randbytes(32)
            return Proof(ProofKind.ROOT, 0, node, root=root, root_proof=(root,))
        earlier = rng.randrange(view.node + 1)
        root = witness.node_tree(view.step, earlier).root
        proof = tuple(tree.inclusion_proof(earlier))
        return Proof(ProofKind.ROOT, 0, node, root=root, root_proof=proof)
    kind = rng.choice([ProofKind.RESULT, ProofKind.INSTRUCTION, ProofKind.OPERAND])
    if view.node_facts.kind not in (Kind.MAP, Kind.FOLD) and rng.random() < 0.8:
        return Proof(ProofKind.ELEMENT, 0, node)
    values = view.posted if rng.random() < 0.8 else rng.randbytes(len(view.posted))
    if view.node == 0 or rng.random() < 0.3:
        return Proof(kind, rng.randrange(3), node, values)
    source = rng.randrange(view.node)
    chunks = witness.node_tree(view.step, source)
    number = rng.randrange(chunks.size)
    return Proof(
        kind, rng.randrange(3), node, values,
        witness.chunk(view.step, source, number), chunks.root,
        tuple(chunks.inclusion_proof(number)), tuple(tree.inclusion_proof(source)),
    )  # fmt: skip


def garbage(rng: random.Random) -> Player:
    """Sends any move at all, with any arguments, to the right dispute and position."""

    def value(kind: str, view: GameView) -> object:
        if kind == "int":
            return rng.randrange(3)
        if kind == "History":
            wrong = replace(view.history, tree=rng.randbytes(32))
            return view.history if rng.random() < 0.9 else wrong
        if kind == "Segment":
            return Segment(view.log_root, view.step_leaf)
        if kind == "Hashes":
            return tuple(rng.randbytes(32) for _ in range(rng.randrange(4)))
        if kind == "Context":
            return view.context if rng.random() < 0.9 else Context(*[bytes(32)] * 6, *[1] * 6)
        if kind == "Proof":
            return Proof(rng.choice(list(ProofKind)), 0, rng.randbytes(15), rng.randbytes(4))
        return rng.randbytes(32)

    def player(view: GameView) -> Move | None:
        move = rng.choice(list(FUNCTIONS.values()))
        arguments = [value(str(field.type), view) for field in fields(move)[2:]]
        return move(view.dispute, view.state, *arguments)

    return player
