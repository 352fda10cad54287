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
from dataclasses import replace
from typing import Final, NamedTuple

from protocol import moves
from protocol.errors import DisputeError
from protocol.game_view import GameView
from protocol.merkle import Tree, block_size, child_leaf_count, leaf_hash
from protocol.moves import Move
from protocol.position import Level, Phase, Role, Segment
from protocol.program import Kind
from protocol.question import Proof
from protocol.tensor_tree import ELEMENT_BYTES
from protocol.witness import Witness
from protocol.word_tree import WordTree, packed, words

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


def _commit_steps(view: GameView, witness: Witness) -> Move:
    children = _children(witness.step_log())
    return moves.CommitSteps(view.dispute, view.state, view.program, view.history, children)


def _commit_trace(view: GameView, witness: Witness) -> Move:
    children = _children(witness.trace_tree(view.step))
    return moves.CommitTrace(view.dispute, view.state, view.program, view.history, children)


def _open(view: GameView, witness: Witness) -> Move:
    children = _tree(view, witness).open(view.first, view.count)
    return moves.Open(view.dispute, view.state, tuple(children))


def _reveal(view: GameView, witness: Witness) -> Move:
    return moves.Reveal(view.dispute, view.state, _children(_tree(view, witness)))


def _show(view: GameView, witness: Witness) -> Move:
    steps = view.level is Level.STEPS
    tree = witness.step_log() if steps else witness.trace_tree(view.step)
    proof = tuple(tree.inclusion_proof(view.first))
    return moves.Show(view.dispute, view.state, view.program, view.history, proof)


def _reveal_chunk(view: GameView, witness: Witness) -> Move:
    chunk = witness.chunk(view.step, view.node, view.first)
    return moves.RevealChunk(view.dispute, view.state, chunk)


def _open_lanes(view: GameView, witness: Witness) -> Move:
    lanes = witness.lanes(view.step, view.node, view.first)
    return moves.OpenLanes(view.dispute, view.state, packed(lanes))


def _open_fold(view: GameView, witness: Witness) -> Move:
    return moves.OpenFold(view.dispute, view.state, packed(_accumulators(view, witness)))


def _post_values(view: GameView, witness: Witness) -> Move:
    values = witness.values(view.step, view.node, view.first, view.term)
    return moves.PostValues(view.dispute, view.state, packed(values))


# The challenger ----------------------------------------------------------------------------------


def _point(view: GameView, witness: Witness) -> Move:
    own = _tree(view, witness).open(view.first, view.count)
    index = _first_difference(own, view.children)
    if index is None:
        return _doubt(view, witness)
    return point_at(view, witness, index)


def point_at(view: GameView, witness: Witness, index: int) -> Move:
    """Return the move that points at child `index` of the cursor."""
    child, siblings = view.children[index], tuple(Tree(view.children).inclusion_proof(index))
    target = (view.dispute, view.state)
    if view.level is not Level.TRACE or child_leaf_count(view.count, index) > 1:
        return moves.Point(*target, index, child, siblings)
    node = view.first + index * block_size(view.count)
    return moves.PointNode(
        *target, view.program, view.history.digest, index, child, siblings,
        witness.node_encoding(node), tuple(witness.node_proof(node)),
    )  # fmt: skip


def _doubt(view: GameView, witness: Witness) -> Move:
    """Nothing in the tree differs: then it is not the tree that the defendant's claim needs."""
    step = view.context.steps - 1
    if view.level is Level.STEPS and witness.state_root(step) != view.context.end_root:
        return doubt_end(view)
    if view.level is Level.TRACE and leaf_hash(witness.state_root(view.step)) != view.step_leaf:
        return doubt_state(view)
    raise DisputeError("no child differs from the defendant's: its claim is true")


def doubt_end(view: GameView) -> Move:
    """Return the move that doubts the end of the step log."""
    return moves.DoubtEnd(view.dispute, view.state, view.program, view.history, view.context)


def doubt_state(view: GameView) -> Move:
    """Return the move that doubts that the trace gives the state of its step."""
    return moves.DoubtState(
        view.dispute, view.state, view.program, view.history,
        view.context_hash, view.log_root, view.step_leaf,
    )  # fmt: skip


def _point_element(view: GameView, witness: Witness) -> Move:
    own = witness.chunk(view.step, view.node, view.first)
    offset = _difference(_elements(own), _elements(view.chunk), "element")
    return point_element(view, offset)


def point_element(view: GameView, offset: int) -> Move:
    """Return the move that points at an element of the revealed chunk."""
    shown = WordTree(view.chunk).show(offset)
    return moves.PointElement(
        view.dispute, view.state, offset, shown.before, shown.eight, shown.path
    )


def _point_lane(view: GameView, witness: Witness) -> Move:
    own = witness.lanes(view.step, view.node, view.first)
    lane = _difference(own, words(view.posted), "lane")
    return moves.PointLane(view.dispute, view.state, view.posted, lane)


def _point_fold(view: GameView, witness: Witness) -> Move:
    index = _difference(_accumulators(view, witness), words(view.posted), "accumulator")
    return point_fold(view, index)


def point_fold(view: GameView, index: int) -> Move:
    """Return the move that points at an accumulator of the opened chain."""
    shown = WordTree(view.posted, view.identity).show(index)
    return moves.PointFold(view.dispute, view.state, index, shown.before, shown.eight, shown.path)


def _prove(view: GameView, witness: Witness) -> Move:
    return moves.Prove(view.dispute, view.state, view.history, _proof(view, witness))


def _prove_leaf(view: GameView, witness: Witness) -> Move:
    proof, before = _proof(view, witness), view.step - 1
    segment = Segment(view.log_root, view.step_leaf)
    if view.node_facts.kind is Kind.INPUT and view.log is not None and view.step > 0:
        path = view.log.inclusion_proof(before, witness.step_log())
        segment = replace(segment, state_before=witness.state_root(before), proof=path)
    return moves.ProveLeaf(view.dispute, view.state, view.history, view.context, segment, proof)


def _proof(view: GameView, witness: Witness) -> Proof:
    proof = witness.proof(view)
    if proof is None:
        raise DisputeError(f"dispute {view.dispute}: every value that was posted is right")
    return proof


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


def _children(tree: Tree) -> tuple[bytes, ...]:
    """Return the children of a whole tree; the only child of one leaf is itself."""
    return tuple(tree.open(0, tree.size)) if tree.size > 1 else (tree.root,)


def _elements(chunk: bytes) -> list[bytes]:
    return [chunk[at : at + ELEMENT_BYTES] for at in range(0, len(chunk), ELEMENT_BYTES)]


def _accumulators(view: GameView, witness: Witness) -> list[int]:
    return witness.accumulators(
        view.step, view.node, view.first, view.lane, view.fold_level, view.item
    )


def _first_difference(own: Sequence[object], shown: Sequence[object]) -> int | None:
    pairs = enumerate(zip(own, shown, strict=True))
    return next((index for index, (mine, theirs) in pairs if mine != theirs), None)


def _difference(own: Sequence[object], shown: Sequence[object], what: str) -> int:
    index = _first_difference(own, shown)
    if index is None:
        raise DisputeError(f"no {what} differs from the defendant's: its claim is true")
    return index


MOVES: Final[dict[Phase, Rule]] = {
    Phase.COMMIT_STEPS: Rule(Role.DEFENDANT, _commit_steps),
    Phase.COMMIT_TRACE: Rule(Role.DEFENDANT, _commit_trace),
    Phase.POINT: Rule(Role.CHALLENGER, _point),
    Phase.OPEN: Rule(Role.DEFENDANT, _open),
    Phase.REVEAL: Rule(Role.DEFENDANT, _reveal),
    Phase.SHOW: Rule(Role.DEFENDANT, _show),
    Phase.REVEAL_CHUNK: Rule(Role.DEFENDANT, _reveal_chunk),
    Phase.POINT_ELEMENT: Rule(Role.CHALLENGER, _point_element),
    Phase.LANES: Rule(Role.DEFENDANT, _open_lanes),
    Phase.POINT_LANE: Rule(Role.CHALLENGER, _point_lane),
    Phase.FOLD: Rule(Role.DEFENDANT, _open_fold),
    Phase.POINT_FOLD: Rule(Role.CHALLENGER, _point_fold),
    Phase.VALUES: Rule(Role.DEFENDANT, _post_values),
    Phase.PROVE_LEAF: Rule(Role.CHALLENGER, _prove_leaf),
    Phase.PROVE: Rule(Role.CHALLENGER, _prove),
}
