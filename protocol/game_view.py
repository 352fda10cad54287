# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of one dispute game, rebuilt from the contract's events and nothing else.

`GameView.apply` takes the events of one dispute in order and follows `contracts/DisputeGame.sol`
move by move. `GameView.state` is then what the next move must bring, and tests compare its hash
with the one that the contract stores after every move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from protocol import fold as folds
from protocol.errors import DisputeError
from protocol.game_events import HANDLERS
from protocol.merkle import leaf_hash
from protocol.opened_tree import OpenedTree
from protocol.position import (
    DEFENCE_WIDTHS,
    ELEMENT_WIDTHS,
    ROOT_KINDS,
    TURN_WIDTHS,
    Facts,
    History,
    Level,
    Phase,
    Role,
    State,
    address,
    pack,
    unpack,
)
from protocol.program import Kind
from protocol.question import Context, Question
from protocol.word_tree import packed, words

__all__ = ["ROOT_KINDS", "Facts", "GameView", "Level", "Phase", "Role", "packed", "words"]

_CONTEXT_TYPES: Final = [*["bytes32"] * 6, "uint64", *["uint32"] * 5]


@dataclass
class GameView:
    """One dispute as both players see it."""

    dispute: int
    context: Context
    defendant: str
    challenger: str
    arbiter: str
    moved_at: int
    """Time of the last move, in seconds."""
    clocks: tuple[int, int]
    """Seconds left at that time, by role."""
    phase: Phase
    program: bytes
    """Root of the program; from `NodePointed` on the keccak256 of the disputed node."""
    claim: bytes = bytes(32)
    """What is in dispute: the cursor's hash, then a digest of the last posted words, or zero."""
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
    log_root: bytes = bytes(32)
    step_leaf: bytes = bytes(32)
    """Leaf of the disputed step in the log."""
    log: OpenedTree | None = None
    """All that the defendant has opened of its step log; None if it has one leaf."""
    trace: OpenedTree | None = None
    """All that it has opened of its trace."""
    trace_root: bytes = b""
    node: int = 0
    facts: Facts | None = None
    chunk: bytes = b""
    claimed: int = 0
    """Claimed pattern of the element, lane or accumulator in dispute."""
    acc_before: int = 0
    """FOLD: the agreed accumulator before the disputed item."""
    identity: int = 0
    """FOLD: the accumulator that every chain begins with."""
    lane: int = 0
    fold_level: int = 0
    item: int = 0
    """FOLD: number of the chain in its level; then, in VALUES, the disputed term."""
    posted: bytes = b""
    """Lanes, accumulators or values, whichever was posted last."""
    timed_out: bool = False

    @classmethod
    def after(cls, events: Sequence[tuple[str, Mapping[str, Any]]]) -> GameView:
        """Return the view after these events of a dispute, of which the first is its creation."""
        (_, created), *moves = events
        view = cls.created(created)
        for name, args in moves:
            view.apply(name, args)
        return view

    @classmethod
    def created(cls, args: Mapping[str, Any]) -> GameView:
        """Return the view of a new dispute from its DisputeCreated event."""
        fields = args["context"]
        context = Context(*(fields.values() if isinstance(fields, Mapping) else fields))
        moved_at, defendant_clock, challenger_clock, phase, *_ = unpack(args["turn"], TURN_WIDTHS)
        view = cls(
            dispute=args["id"],
            context=context,
            defendant=args["defendant"],
            challenger=args["challenger"],
            arbiter=args["arbiter"],
            moved_at=moved_at,
            clocks=(defendant_clock, challenger_clock),
            phase=Phase(phase),
            program=context.program_root,
            count=context.steps,
        )
        if context.steps == 1:  # the log's only leaf is its root
            view.claim = view.log_root = view.step_leaf = leaf_hash(context.end_root)
        return view

    # What follows from the state ------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether there is a verdict."""
        return self.phase in (Phase.CONVICTED, Phase.ACQUITTED)

    @property
    def context_hash(self) -> bytes:
        """The keccak256 of the encoded context."""
        return keccak(encode(_CONTEXT_TYPES, self.context.as_abi()))

    @property
    def history(self) -> History:
        """What the contract knows by a hash inside of the state's."""
        if not self.trace_root:
            return History(self.arbiter, self.log_root, self.context_hash)
        origin = keccak(self.context_hash + self.log_root + self.step_leaf)
        return History(self.arbiter, self.trace_root, origin)

    @property
    def state(self) -> State:
        """The packed state that the next move must bring."""
        turn = (
            self.moved_at, *self.clocks, self.phase, self.level, self.moves,
            self.first, self.count, self.lane, self.fold_level, self.item,
        )  # fmt: skip
        facts, context = self.facts, self.context
        kinds = (facts.kind, facts.fold, facts.lanes) if facts else (0, 0, 0)
        sizes = (facts.numel, facts.terms) if facts else (0, 0)
        return State(
            turn=pack(turn, TURN_WIDTHS),
            defence=pack(
                (address(self.defendant), self.step, context.n_state, context.n_nodes),
                DEFENCE_WIDTHS,
            ),
            challenge=address(self.challenger),
            element=pack(
                (*kinds, self.node, *sizes, self.claimed, self.acc_before), ELEMENT_WIDTHS
            ),
            claim=self.claim,
            past=keccak(self.program + self.history.digest),
        )

    def is_late(self, role: Role, now: int) -> bool:
        """Whether the clock of `role`, if it is its turn, has run out at a time in seconds."""
        return now - self.moved_at > self.clocks[role]

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
        """The disputed point as the contract hands it to the referee, but for the state before."""
        at_leaf = self.phase is Phase.PROVE_LEAF
        return Question(
            state_before=bytes(32),
            trace_root=self.trace_root,
            cursor=self.claim if at_leaf else bytes(32),
            values_hash=bytes(32) if at_leaf else self.claim,
            step=self.context.first_step + self.step if at_leaf else 0,
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
        if event not in HANDLERS:
            raise DisputeError(f"a dispute has no event {event}")
        HANDLERS[event](self, args)
        if not self.timed_out:  # a timeout is no move
            self.moves += 1
        if "turn" in args:
            self.moved_at, *clocks = unpack(args["turn"], TURN_WIDTHS)[:3]
            self.clocks = (clocks[0], clocks[1])
