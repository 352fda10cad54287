# SPDX-License-Identifier: GPL-3.0-or-later
"""What each event of `contracts/DisputeGame.sol` does to the view of a dispute.

The functions mirror the moves in `contracts/game/`, one for each event; `GameView.apply` adds what
all moves share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from eth_utils.crypto import keccak

from protocol import fold as folds
from protocol.merkle import block_size, child_leaf_count, combine, leaf_hash
from protocol.opened_tree import OpenedTree
from protocol.position import ELEMENT_WIDTHS, ROOT_KINDS, Facts, Level, Phase, unpack
from protocol.program import Fold, Kind
from protocol.tensor_tree import CHUNK_ELEMENTS, ELEMENT_BYTES, chunk_count
from protocol.word_tree import WordTree, words

if TYPE_CHECKING:
    from protocol.game_view import GameView


def _set_cursor(view: GameView, level: Level, claim: bytes, leaves: int) -> None:
    view.level, view.claim = level, bytes(claim)
    view.first, view.count = 0, leaves


def _show(view: GameView, children: Sequence[bytes]) -> None:
    """Children of the cursor, in which the challenger is to point."""
    view.children = tuple(bytes(child) for child in children)
    view.phase = Phase.POINT
    tree = {Level.STEPS: view.log, Level.TRACE: view.trace}.get(view.level)
    if tree is not None:
        tree.record(view.first, view.count, view.children)


def _reach_leaf(view: GameView) -> None:
    if view.level is Level.STEPS:
        view.step, view.step_leaf = view.first, view.claim
        view.phase = Phase.COMMIT_TRACE
    elif view.level is Level.STATE:
        view.first += view.context.n_nodes - view.context.n_state
        view.count = view.context.n_nodes
        view.phase = Phase.SHOW
    else:
        view.phase = Phase.REVEAL_CHUNK


def _move_cursor(view: GameView, index: int) -> None:
    view.first += index * block_size(view.count)
    view.count = child_leaf_count(view.count, index)
    view.claim = view.children[index]


def _steps_committed(view: GameView, args: Mapping[str, Any]) -> None:
    view.log = OpenedTree(view.context.steps)
    _show(view, args["children"])
    view.claim = view.log_root = view.log.root


def _trace_committed(view: GameView, args: Mapping[str, Any]) -> None:
    view.trace = OpenedTree(view.context.n_nodes)
    _set_cursor(view, Level.TRACE, view.claim, view.context.n_nodes)
    _show(view, args["children"])
    view.claim = view.trace_root = view.trace.root


def _pointed(view: GameView, args: Mapping[str, Any]) -> None:
    _move_cursor(view, args["index"])
    if view.count > 1:
        view.phase = Phase.OPEN
    else:
        _reach_leaf(view)


def _opened(view: GameView, args: Mapping[str, Any]) -> None:
    _show(view, args["children"])


def _end_doubted(view: GameView, _args: Mapping[str, Any]) -> None:
    view.claim = leaf_hash(view.context.end_root)
    view.first, view.count = view.context.steps - 1, view.context.steps
    view.phase = Phase.SHOW


def _state_doubted(view: GameView, _args: Mapping[str, Any]) -> None:
    _set_cursor(view, Level.STATE, view.step_leaf, view.context.n_state)
    view.phase = Phase.REVEAL


def _revealed(view: GameView, args: Mapping[str, Any]) -> None:
    _show(view, args["children"])
    view.claim = combine(view.children)
    if view.count == 1:
        _reach_leaf(view)


def _node_pointed(view: GameView, args: Mapping[str, Any]) -> None:
    kind, fold, lanes, view.node, numel, terms, *_ = unpack(args["element"], ELEMENT_WIDTHS)
    _move_cursor(view, (view.node - view.first) // block_size(view.count))
    view.program = bytes(args["nodeHash"])
    view.facts = Facts(Kind(kind), Fold(fold), lanes, numel, terms)
    if view.facts.kind in ROOT_KINDS:
        view.phase = Phase.PROVE_LEAF
    else:
        _set_cursor(view, Level.CHUNK, view.claim, chunk_count(view.facts.numel))
        view.phase = Phase.REVEAL if view.count > 1 else Phase.REVEAL_CHUNK


def _chunk_revealed(view: GameView, args: Mapping[str, Any]) -> None:
    view.chunk = bytes(args["chunk"])
    view.claim = WordTree(view.chunk).root
    view.phase = Phase.POINT_ELEMENT


def _element_pointed(view: GameView, args: Mapping[str, Any]) -> None:
    facts, offset = view.node_facts, args["offset"]
    at = ELEMENT_BYTES * offset
    view.claimed = int.from_bytes(view.chunk[at : at + ELEMENT_BYTES], "little")
    view.first = CHUNK_ELEMENTS * view.first + offset
    view.claim = bytes(32)
    view.phase = Phase.PROVE_LEAF
    if facts.kind is Kind.MAP:
        view.phase = Phase.VALUES
    elif facts.kind is Kind.FOLD and facts.lanes == 1:
        _enter_lane(view, 0)
    elif facts.kind is Kind.FOLD:
        view.phase = Phase.LANES


def _enter_lane(view: GameView, lane: int) -> None:
    view.lane = lane
    view.fold_level = len(folds.levels(view.lane_terms)) - 1
    view.claim = bytes(32)
    view.phase = Phase.FOLD


def _lanes_opened(view: GameView, args: Mapping[str, Any]) -> None:
    view.posted, view.phase = bytes(args["lanes"]), Phase.POINT_LANE
    view.claim = keccak(view.posted)


def _lane_pointed(view: GameView, args: Mapping[str, Any]) -> None:
    _enter_lane(view, args["lane"])
    view.claimed = words(view.posted)[view.lane]


def _fold_opened(view: GameView, args: Mapping[str, Any]) -> None:
    view.posted, view.identity = bytes(args["accumulators"]), args["identity"]
    view.claim = WordTree(view.posted, view.identity).root
    view.phase = Phase.POINT_FOLD


def _fold_pointed(view: GameView, args: Mapping[str, Any]) -> None:
    index = args["index"]
    shown = (view.identity, *words(view.posted))
    view.acc_before, view.claimed = shown[index : index + 2]
    view.item = folds.BLOCK * view.item + index
    view.claim = bytes(32)
    if view.fold_level > 0:
        view.fold_level -= 1
        view.phase = Phase.FOLD
    else:
        view.item = folds.lane_term(view.node_facts.lanes, view.lane, view.item)
        view.phase = Phase.VALUES


def _values_posted(view: GameView, args: Mapping[str, Any]) -> None:
    view.posted, view.phase = bytes(args["values"]), Phase.PROVE
    view.claim = keccak(view.posted)


def _dispute_finished(view: GameView, args: Mapping[str, Any]) -> None:
    view.phase = Phase.CONVICTED if args["convicted"] else Phase.ACQUITTED
    view.timed_out = args["timedOut"]


HANDLERS: Final[dict[str, Callable[[GameView, Mapping[str, Any]], None]]] = {
    "StepsCommitted": _steps_committed,
    "TraceCommitted": _trace_committed,
    "Pointed": _pointed,
    "Opened": _opened,
    "EndDoubted": _end_doubted,
    "StateDoubted": _state_doubted,
    "Revealed": _revealed,
    "NodePointed": _node_pointed,
    "ChunkRevealed": _chunk_revealed,
    "ElementPointed": _element_pointed,
    "LanesOpened": _lanes_opened,
    "LanePointed": _lane_pointed,
    "FoldOpened": _fold_opened,
    "FoldPointed": _fold_pointed,
    "ValuesPosted": _values_posted,
    "DisputeFinished": _dispute_finished,
}
