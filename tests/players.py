# SPDX-License-Identifier: GPL-3.0-or-later
"""Challengers that attack an honest defendant: by wandering, by garbage, by silence."""

from __future__ import annotations

import random
from dataclasses import fields

from protocol import moves
from protocol.game_view import GameView, Level, Phase, words
from protocol.merkle import Tree, block_size, child_leaf_count
from protocol.moves import Move
from protocol.program import Kind
from protocol.question import Context, Proof, ProofKind
from protocol.witness import Witness
from tests.game_driver import Player

FUNCTIONS: dict[str, type[Move]] = {move.function: move for move in Move.__subclasses__()}


def wandering(witness: Witness, rng: random.Random) -> Player:
    """Points at any child, element, lane and accumulator that there is, then tries any proof."""

    def player(view: GameView) -> Move | None:
        target = (view.dispute, view.position)
        if view.phase is Phase.POINT:
            return point_at(view, witness, rng.randrange(len(view.children)))
        if view.phase is Phase.POINT_ELEMENT:
            return moves.PointElement(*target, view.chunk, rng.randrange(len(view.chunk) // 4))
        if view.phase is Phase.POINT_LANE:
            lane = rng.randrange(min(16, view.node_facts.terms))
            return moves.PointLane(*target, view.posted, lane)
        if view.phase is Phase.POINT_FOLD:
            return moves.PointFold(*target, view.posted, rng.randrange(len(words(view.posted))))
        return moves.Prove(*target, view.context, any_proof(view, witness, rng))

    return player


def point_at(view: GameView, witness: Witness, index: int) -> Move:
    """Point at child `index` of the cursor."""
    target = (view.dispute, view.position)
    child, path = view.children[index], tuple(Tree(view.children).inclusion_proof(index))
    if view.level is not Level.TRACE or child_leaf_count(view.count, index) > 1:
        return moves.Point(*target, index, child, path)
    node = view.first + index * block_size(view.count)
    return moves.PointNode(
        *target, view.context, index, child, path,
        witness.node_encoding(node), tuple(witness.node_proof(node)),
    )  # fmt: skip


def any_proof(view: GameView, witness: Witness, rng: random.Random) -> Proof:
    """A proof that could be thought to apply, with true openings or with made-up ones."""
    node = witness.node_encoding(view.node)
    tree = witness.trace_tree(view.step)
    if view.phase is Phase.PROVE_ROOT:
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
        return move(view.dispute, view.position, *arguments)

    return player
