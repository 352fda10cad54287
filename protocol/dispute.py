# SPDX-License-Identifier: GPL-3.0-or-later
"""How to play the dispute game: a pure function from what is known to the next move.

`next_move(view, witness, role)` looks the phase up in the table `MOVES`, which says whose turn it
is and how to move. The defendant shows what its witness has; the challenger compares that with its
own and points at the *first* difference, so that everything before it is agreed. Both only read.

A player needs no memory: the view comes from events, the witness from a replay of the segment. What
a defendant claimed earlier must of course be what its witness still says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from protocol import moves
from protocol.errors import DisputeError
from protocol.game_view import GameView, Level, Phase, Role, packed, words
from protocol.merkle import Tree, block_size, child_leaf_count
from protocol.moves import Move
from protocol.tensor_tree import ELEMENT_BYTES
from protocol.witness import Witness

__all__ = ["MOVES", "GameView", "Level", "Phase", "Role", "Rule", "next_move", "turn_of"]


class Rule(NamedTuple):
    """Whose turn a phase is, and the move to make in it."""

    turn: Role
    move: Callable[[GameView, Witness], Move]


def next_move(view: GameView, witness: Witness, role: Role) -> Move | None:
    """Return the move that `role` is to make now, None if it is not its turn or all is over.

    Raises DisputeError if a challenger finds no difference (the defendant's claim is then true as
    far as its witness knows), or if an earlier claim of a defendant is not that of its witness.
    """
    rule = MOVES.get(view.phase)
    return rule.move(view, witness) if rule is not None and rule.turn is role else None


def turn_of(phase: Phase) -> Role | None:
    """Return whose turn it is, None before the game and after it."""
    rule = MOVES.get(phase)
    return rule.turn if rule is not None else None


# The defendant -----------------------------------------------------------------------------------


def _commit(view: GameView, witness: Witness) -> Move:
    log, steps = witness.step_log(), view.context.steps
    children = _children(log, steps)
    proof = tuple(log.inclusion_proof(steps - 1))
    return moves.CommitSteps(view.dispute, view.position, view.context, log.root, proof, children)


def _open(view: GameView, witness: Witness) -> Move:
    children = _tree(view, witness).open(view.first, view.count)
    return moves.Open(view.dispute, view.position, tuple(children))


def _reveal_step(view: GameView, witness: Witness) -> Move:
    step = view.first
    after, before = witness.state_root(step), witness.state_root(step - 1)
    proof = witness.step_log().inclusion_proof(step - 1) if step > 0 else []
    children = _children(witness.state_tree(step), view.context.n_state)
    return moves.RevealStep(
        view.dispute, view.position, view.context, after, before, tuple(proof), children
    )


def _reveal_tensor(view: GameView, witness: Witness) -> Move:
    output = view.context.n_nodes - view.context.n_state + view.first
    tensor, trace = witness.state_tensor_root(view.step, view.first), witness.trace_tree(view.step)
    proof = tuple(trace.inclusion_proof(output))
    children = _children(trace, view.context.n_nodes)
    return moves.RevealTensor(
        view.dispute, view.position, view.context, tensor, trace.root, proof, children
    )


def _reveal_node(view: GameView, witness: Witness) -> Move:
    tree = witness.node_tree(view.step, view.node)
    return moves.RevealNode(view.dispute, view.position, tree.root, _children(tree, tree.size))


def _reveal_chunk(view: GameView, witness: Witness) -> Move:
    chunk = witness.chunk(view.step, view.node, view.first)
    return moves.RevealChunk(view.dispute, view.position, chunk)


def _open_lanes(view: GameView, witness: Witness) -> Move:
    lanes = witness.lanes(view.step, view.node, view.first)
    return moves.OpenLanes(view.dispute, view.position, packed(lanes))


def _open_fold(view: GameView, witness: Witness) -> Move:
    accumulators = _accumulators(view, witness)
    item = 0 if view.at_top else accumulators[-1]
    return moves.OpenFold(view.dispute, view.position, item, packed(accumulators))


def _post_values(view: GameView, witness: Witness) -> Move:
    values = witness.values(view.step, view.node, view.first, view.term)
    return moves.PostValues(view.dispute, view.position, packed(values))


# The challenger ----------------------------------------------------------------------------------


def _point(view: GameView, witness: Witness) -> Move:
    own = _tree(view, witness).open(view.first, view.count)
    index = _first_difference(own, view.children, "child")
    child, siblings = view.children[index], Tree(view.children).inclusion_proof(index)
    target = (view.dispute, view.position)
    if view.level is Level.TRACE and child_leaf_count(view.count, index) == 1:
        node = view.first + index * block_size(view.count)
        return moves.PointNode(
            *target, view.context, index, child, tuple(siblings),
            witness.node_encoding(node), tuple(witness.node_proof(node)),
        )  # fmt: skip
    return moves.Point(*target, index, child, tuple(siblings))


def _point_element(view: GameView, witness: Witness) -> Move:
    own = witness.chunk(view.step, view.node, view.first)
    offset = _first_difference(_elements(own), _elements(view.chunk), "element")
    return moves.PointElement(view.dispute, view.position, view.chunk, offset)


def _point_lane(view: GameView, witness: Witness) -> Move:
    own = witness.lanes(view.step, view.node, view.first)
    lane = _first_difference(own, words(view.posted), "lane")
    return moves.PointLane(view.dispute, view.position, view.posted, lane)


def _point_fold(view: GameView, witness: Witness) -> Move:
    index = _first_difference(_accumulators(view, witness), words(view.posted), "accumulator")
    return moves.PointFold(view.dispute, view.position, view.posted, index)


def _prove(view: GameView, witness: Witness) -> Move:
    proof = witness.proof(view)
    if proof is None:
        raise DisputeError(f"dispute {view.dispute}: every value that was posted is right")
    return moves.Prove(view.dispute, view.position, view.context, proof)


# Both --------------------------------------------------------------------------------------------


def _tree(view: GameView, witness: Witness) -> Tree:
    """Return the witness's own tree that the cursor lies in."""
    if view.level is Level.STEPS:
        return witness.step_log()
    if view.level is Level.STATE:
        return witness.state_tree(view.step)
    if view.level is Level.TRACE:
        return witness.trace_tree(view.step)
    return witness.node_tree(view.step, view.node)


def _children(tree: Tree, leaves: int) -> tuple[bytes, ...]:
    return tuple(tree.open(0, leaves)) if leaves > 1 else ()


def _elements(chunk: bytes) -> list[bytes]:
    return [chunk[at : at + ELEMENT_BYTES] for at in range(0, len(chunk), ELEMENT_BYTES)]


def _accumulators(view: GameView, witness: Witness) -> list[int]:
    return witness.accumulators(
        view.step, view.node, view.first, view.lane, view.fold_level, view.item
    )


def _first_difference(own: Sequence[object], shown: Sequence[object], what: str) -> int:
    for index, (mine, theirs) in enumerate(zip(own, shown, strict=True)):
        if mine != theirs:
            return index
    raise DisputeError(f"no {what} differs from the defendant's: its claim is true")


MOVES: Final[dict[Phase, Rule]] = {
    Phase.COMMIT: Rule(Role.DEFENDANT, _commit),
    Phase.POINT: Rule(Role.CHALLENGER, _point),
    Phase.OPEN: Rule(Role.DEFENDANT, _open),
    Phase.REVEAL_STEP: Rule(Role.DEFENDANT, _reveal_step),
    Phase.REVEAL_TENSOR: Rule(Role.DEFENDANT, _reveal_tensor),
    Phase.REVEAL_NODE: Rule(Role.DEFENDANT, _reveal_node),
    Phase.REVEAL_CHUNK: Rule(Role.DEFENDANT, _reveal_chunk),
    Phase.POINT_ELEMENT: Rule(Role.CHALLENGER, _point_element),
    Phase.LANES: Rule(Role.DEFENDANT, _open_lanes),
    Phase.POINT_LANE: Rule(Role.CHALLENGER, _point_lane),
    Phase.FOLD: Rule(Role.DEFENDANT, _open_fold),
    Phase.POINT_FOLD: Rule(Role.CHALLENGER, _point_fold),
    Phase.VALUES: Rule(Role.DEFENDANT, _post_values),
    Phase.PROVE_ROOT: Rule(Role.CHALLENGER, _prove),
    Phase.PROVE: Rule(Role.CHALLENGER, _prove),
}
