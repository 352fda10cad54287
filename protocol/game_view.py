# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of one dispute game, rebuilt from the contract's events and nothing else.

`GameView.apply` takes the events of one dispute in order and follows `contracts/DisputeGame.sol`
move by move. Tests compare it with the contract's storage after every move. Clocks are not part of
it: they depend on the time of blocks, and the contract's `isExpired` tells who is late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from eth_utils.crypto import keccak

from protocol import fold as folds
from protocol.errors import DisputeError
from protocol.merkle import block_size, child_leaf_count
from protocol.opened_tree import OpenedTree
from protocol.program import Fold, Kind
from protocol.question import Context, Question
from protocol.tensor_tree import CHUNK_ELEMENTS, chunk_count

ROOT_KINDS: Final = frozenset({Kind.INPUT, Kind.CONST, Kind.DATA, Kind.OUTPUT})
"""Nodes whose tensor is another one, so that their root decides."""


class Role(IntEnum):
    """The two players."""

    DEFENDANT = 0
    CHALLENGER = 1


class Phase(IntEnum):
    """What the next move must be; same numbers as in the contract."""

    NONE = 0
    COMMIT = 1
    POINT = 2
    OPEN = 3
    REVEAL_STEP = 4
    REVEAL_TENSOR = 5
    REVEAL_NODE = 6
    REVEAL_CHUNK = 7
    POINT_ELEMENT = 8
    LANES = 9
    POINT_LANE = 10
    FOLD = 11
    POINT_FOLD = 12
    VALUES = 13
    PROVE_ROOT = 14
    PROVE = 15
    CONVICTED = 16
    ACQUITTED = 17


class Level(IntEnum):
    """The tree that the cursor lies in; same numbers as in the contract."""

    STEPS = 0
    STATE = 1
    TRACE = 2
    CHUNK = 3


_LEAF_PHASES: Final = {
    Level.STEPS: Phase.REVEAL_STEP,
    Level.STATE: Phase.REVEAL_TENSOR,
    Level.CHUNK: Phase.REVEAL_CHUNK,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the game knows of the disputed node, as `NodeFacts` in the contract."""

    kind: Kind
    fold: Fold
    lanes: int
    numel: int
    terms: int


@dataclass
class GameView:
    """One dispute as both players see it."""

    dispute: int
    context: Context
    defendant: str
    challenger: str
    claim: bytes
    """What is in dispute: the cursor's hash, then the keccak256 of the last posted values."""
    state_before: bytes
    """The last agreed state root."""
    phase: Phase = Phase.COMMIT
    level: Level = Level.STEPS
    moves: int = 0
    first: int = 0
    """First leaf of the cursor; from `ElementPointed` on the disputed element."""
    count: int = 0
    """Leaves of the cursor; from `NodePointed` on those of the node's tensor."""
    children: tuple[bytes, ...] = ()
    """Of the cursor, where the challenger is to point at one."""
    step: int = 0
    """The disputed step, counted in the segment."""
    log_root: bytes = b""
    trace: OpenedTree | None = None
    """All that the defendant has opened of its trace."""
    trace_root: bytes = b""
    node: int = 0
    facts: Facts | None = None
    chunk: bytes = b""
    claimed: int = 0
    """Claimed pattern of the element, lane or accumulator in dispute."""
    acc_before: int = 0
    """FOLD: the agreed accumulator before the disputed item."""
    lane: int = 0
    fold_level: int = 0
    item: int = 0
    """FOLD: number of the chain in its level; then, in VALUES, the disputed term."""
    posted: bytes = b""
    """Lanes, accumulators or values, whichever was posted last."""
    timed_out: bool = False

    @classmethod
    def created(cls, args: Mapping[str, Any]) -> GameView:
        """Return the view of a new dispute from its DisputeCreated event."""
        fields = args["context"]
        context = Context(*(fields.values() if isinstance(fields, Mapping) else fields))
        return cls(
            dispute=args["id"],
            context=context,
            defendant=args["defendant"],
            challenger=args["challenger"],
            claim=context.end_root,
            state_before=context.start_root,
        )

    # What follows from the state ------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether there is a verdict."""
        return self.phase in (Phase.CONVICTED, Phase.ACQUITTED)

    @property
    def position(self) -> bytes:
        """The digest that the next move must name: the contract's `position`."""
        turn = (
            self.item.to_bytes(4, "big")
            + bytes([self.fold_level, self.lane])
            + self.count.to_bytes(4, "big")
            + self.first.to_bytes(4, "big")
            + self.moves.to_bytes(2, "big")
            + bytes([self.level, self.phase])
        )
        return keccak(self.claim + turn.rjust(32, b"\0"))

    @property
    def node_facts(self) -> Facts:
        """Facts of the disputed node; DisputeError before one was pointed at."""
        if self.facts is None:
            raise DisputeError(f"dispute {self.dispute} has not come down to a node yet")
        return self.facts

    @property
    def opened_trace(self) -> OpenedTree:
        """What was opened of the defendant's trace; DisputeError before it was."""
        if self.trace is None:
            raise DisputeError(f"dispute {self.dispute} has not come down to a trace yet")
        return self.trace

    @property
    def lane_terms(self) -> int:
        """How many terms the disputed lane of the disputed FOLD has."""
        return folds.lane_terms(self.node_facts.terms, self.node_facts.lanes, self.lane)

    @property
    def at_top(self) -> bool:
        """Whether the disputed chain is the last one of its lane."""
        return self.fold_level == len(folds.levels(self.lane_terms)) - 1

    @property
    def term(self) -> int | None:
        """The disputed term k of a FOLD, None for other nodes."""
        return self.item if self.node_facts.kind is Kind.FOLD else None

    @property
    def question(self) -> Question:
        """The disputed point as the contract hands it to the referee."""
        at_root = self.phase is Phase.PROVE_ROOT
        return Question(
            state_before=self.state_before,
            trace_root=self.trace_root,
            cursor=self.claim if at_root else bytes(32),
            values_hash=bytes(32) if at_root else self.claim,
            step=self.context.first_step + self.step,
            element=self.first,
            term=self.item,
            node=self.node,
            value=self.claimed,
            acc_before=self.acc_before,
            acc_after=self.claimed,
        )

    # Events ---------------------------------------------------------------------------------------

    def apply(self, event: str, args: Mapping[str, Any]) -> None:
        """Follow one event of this dispute, given by its name and arguments as in the ABI.

        Raises DisputeError for an event that no move of this game emits.
        """
        if event not in _HANDLERS:
            raise DisputeError(f"a dispute has no event {event}")
        _HANDLERS[event](self, args)
        if not self.timed_out:  # a timeout is no move
            self.moves += 1

    def _open_tree(self, level: Level, root: bytes, leaves: int, children: Sequence[bytes]) -> None:
        self.level, self.claim = level, bytes(root)
        self.first, self.count = 0, leaves
        self._show(children)

    def _show(self, children: Sequence[bytes]) -> None:
        self.children = tuple(bytes(child) for child in children)
        self.phase = Phase.POINT if self.count > 1 else _LEAF_PHASES[self.level]
        if self.level is Level.TRACE:
            self.opened_trace.record(self.first, self.count, self.children)

    def _move_cursor(self, index: int, child: bytes) -> None:
        self.first += index * block_size(self.count)
        self.count = child_leaf_count(self.count, index)
        self.claim = bytes(child)

    def _steps_committed(self, args: Mapping[str, Any]) -> None:
        self.log_root = bytes(args["logRoot"])
        self._open_tree(Level.STEPS, self.log_root, self.context.steps, args["children"])

    def _pointed(self, args: Mapping[str, Any]) -> None:
        self._move_cursor(args["index"], args["child"])
        self.phase = Phase.OPEN if self.count > 1 else _LEAF_PHASES[self.level]

    def _opened(self, args: Mapping[str, Any]) -> None:
        self._show(args["children"])

    def _step_revealed(self, args: Mapping[str, Any]) -> None:
        self.step = self.first
        self.state_before = bytes(args["stateBefore"])
        self._open_tree(Level.STATE, args["stateAfter"], self.context.n_state, args["children"])

    def _tensor_revealed(self, args: Mapping[str, Any]) -> None:
        self.trace_root = bytes(args["traceRoot"])
        self.trace = OpenedTree(self.context.n_nodes)
        self._open_tree(Level.TRACE, self.trace_root, self.context.n_nodes, args["children"])

    def _node_pointed(self, args: Mapping[str, Any]) -> None:
        self._move_cursor(args["index"], args["child"])
        self.node = self.first
        facts = args["facts"]
        kind, fold, *sizes = facts.values() if isinstance(facts, Mapping) else facts
        self.facts = Facts(Kind(kind), Fold(fold), *sizes)
        self.count = chunk_count(self.facts.numel)
        self.phase = Phase.PROVE_ROOT if self.facts.kind in ROOT_KINDS else Phase.REVEAL_NODE

    def _node_revealed(self, args: Mapping[str, Any]) -> None:
        self._open_tree(Level.CHUNK, args["tensorRoot"], self.count, args["children"])

    def _chunk_revealed(self, args: Mapping[str, Any]) -> None:
        self.chunk = bytes(args["chunk"])
        self.phase = Phase.POINT_ELEMENT

    def _element_pointed(self, args: Mapping[str, Any]) -> None:
        facts = self.node_facts
        self.first = CHUNK_ELEMENTS * self.first + args["offset"]
        self.claimed = args["value"]
        self.phase = Phase.PROVE
        if facts.kind is Kind.MAP:
            self.phase = Phase.VALUES
        elif facts.kind is Kind.FOLD and facts.lanes == 1:
            self._enter_lane(0)
        elif facts.kind is Kind.FOLD:
            self.phase = Phase.LANES

    def _enter_lane(self, lane: int) -> None:
        self.lane = lane
        self.fold_level = len(folds.levels(self.lane_terms)) - 1
        self.phase = Phase.FOLD

    def _post(self, posted: bytes, phase: Phase) -> None:
        self.posted, self.phase = bytes(posted), phase
        self.claim = keccak(self.posted)

    def _lanes_opened(self, args: Mapping[str, Any]) -> None:
        self._post(args["lanes"], Phase.POINT_LANE)

    def _lane_pointed(self, args: Mapping[str, Any]) -> None:
        self._enter_lane(args["lane"])
        self.claimed = words(self.posted)[self.lane]

    def _fold_opened(self, args: Mapping[str, Any]) -> None:
        self._post(args["accumulators"], Phase.POINT_FOLD)

    def _fold_pointed(self, args: Mapping[str, Any]) -> None:
        self.item = folds.BLOCK * self.item + args["index"]
        self.acc_before, self.claimed = args["accBefore"], args["accAfter"]
        if self.fold_level > 0:
            self.fold_level -= 1
            self.phase = Phase.FOLD
        else:
            self.item = folds.lane_term(self.node_facts.lanes, self.lane, self.item)
            self.phase = Phase.VALUES

    def _values_posted(self, args: Mapping[str, Any]) -> None:
        self._post(args["values"], Phase.PROVE)

    def _dispute_finished(self, args: Mapping[str, Any]) -> None:
        self.phase = Phase.CONVICTED if args["convicted"] else Phase.ACQUITTED
        self.timed_out = args["timedOut"]


_HANDLERS: Final[dict[str, Callable[[GameView, Mapping[str, Any]], None]]] = {
    "StepsCommitted": GameView._steps_committed,
    "Pointed": GameView._pointed,
    "Opened": GameView._opened,
    "StepRevealed": GameView._step_revealed,
    "TensorRevealed": GameView._tensor_revealed,
    "NodePointed": GameView._node_pointed,
    "NodeRevealed": GameView._node_revealed,
    "ChunkRevealed": GameView._chunk_revealed,
    "ElementPointed": GameView._element_pointed,
    "LanesOpened": GameView._lanes_opened,
    "LanePointed": GameView._lane_pointed,
    "FoldOpened": GameView._fold_opened,
    "FoldPointed": GameView._fold_pointed,
    "ValuesPosted": GameView._values_posted,
    "DisputeFinished": GameView._dispute_finished,
}


def words(data: bytes) -> tuple[int, ...]:
    """Return the big-endian 32-bit words of posted lanes, accumulators or values."""
    return tuple(int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4))


def packed(patterns: Sequence[int]) -> bytes:
    """Return patterns as posted: big-endian 32-bit words."""
    return b"".join(pattern.to_bytes(4, "big") for pattern in patterns)
