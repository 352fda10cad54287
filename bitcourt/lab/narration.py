# SPDX-License-Identifier: GPL-3.0-or-later
"""A dispute told move by move, from its events alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bitcourt.lab.origin import source_of, state_name
from protocol.game_view import GameView, Level, Phase, words
from protocol.program import Program
from protocol.tensor_tree import CHUNK_ELEMENTS

Event = tuple[str, Mapping[str, Any]]


def narrate(events: Sequence[Event], program: Program) -> list[str]:
    """One line a move. The first event is the dispute's creation."""
    view = GameView.created(events[0][1])
    lines = []
    for name, values in events[1:]:
        view.apply(name, values)
        lines.append(_TELLERS[name](view, program))
    return lines


def bits(value: int) -> str:
    """A 32-bit pattern."""
    return f"0x{value:08x}"


def _span(what: str, first: int, count: int) -> str:
    return f"{what} {first}" if count == 1 else f"{what}s {first} to {first + count - 1}"


def _place(view: GameView, program: Program) -> str:
    """What the cursor covers."""
    if view.level is Level.STEPS:
        return _span("step", view.context.first_step + view.first, view.count)
    if view.level is Level.STATE:
        # A tensor that was pointed at is a node already: the one that gives it.
        shown = view.phase is Phase.SHOW
        first = view.first - view.context.n_nodes + view.context.n_state if shown else view.first
        names = range(first, first + (1 if shown else view.count))
        return "tensor " + ", ".join(state_name(program, tensor) for tensor in names)
    if view.level is Level.TRACE:
        return _span("node", view.first, view.count)
    return _span("chunk", view.first, view.count)


def _committed(view: GameView, program: Program) -> str:
    return f"solver opens its log of {_place(view, program)}"


def _pointed(view: GameView, program: Program) -> str:
    return f"verifier points at {_place(view, program)}"


def _opened(view: GameView, program: Program) -> str:
    return f"solver opens {_place(view, program)}"


def _end_doubted(_view: GameView, _program: Program) -> str:
    return "verifier finds every step right, and another end state than the solver's"


def _state_doubted(view: GameView, _program: Program) -> str:
    step = view.context.first_step + view.step
    return f"verifier finds every node right, and another state after step {step}"


def _revealed(view: GameView, _program: Program) -> str:
    if view.level is Level.CHUNK:
        return f"solver opens that node's result: {_count(view.count, 'chunk')}"
    step = view.context.first_step + view.step
    return f"solver opens the state after step {step}: {view.context.n_state} tensors"


def _trace(view: GameView, _program: Program) -> str:
    step = view.context.first_step + view.step
    return f"solver opens its trace of step {step}: {view.context.n_nodes} nodes"


def _node(view: GameView, program: Program) -> str:
    return f"verifier points at node {view.node} ({source_of(program, view.node)})"


def _chunk(view: GameView, _program: Program) -> str:
    first = CHUNK_ELEMENTS * view.first
    return f"solver shows {_span('element', first, len(view.chunk) // 4)}"


def _element(view: GameView, _program: Program) -> str:
    return f"verifier points at element {view.first}, claimed to be {bits(view.claimed)}"


def _lanes(_view: GameView, _program: Program) -> str:
    return "solver shows the sums of the sixteen lanes"


def _lane(view: GameView, _program: Program) -> str:
    return f"verifier points at lane {view.lane}, claimed to be {bits(view.claimed)}"


def _fold(view: GameView, _program: Program) -> str:
    level = f" of level {view.fold_level}" if view.fold_level or view.item else ""
    return f"solver shows the {_count(len(words(view.posted)), 'accumulator')}{level}"


def _fold_point(view: GameView, _program: Program) -> str:
    what = "term" if view.posted and view.phase.name == "VALUES" else "block"
    return (
        f"verifier points at {what} {view.item}, said to take the sum from "
        f"{bits(view.acc_before)} to {bits(view.claimed)}"
    )


def _values(view: GameView, _program: Program) -> str:
    shown = [bits(value) for value in words(view.posted)]
    return f"solver shows the values there: {' '.join(shown[:6])}{' ...' if shown[6:] else ''}"


def _finished(view: GameView, _program: Program) -> str:
    if view.timed_out:
        late = "solver" if view.phase.name == "CONVICTED" else "verifier"
        return f"the {late}'s time is over"
    if view.phase.name == "ACQUITTED":
        return "solver shows that what was doubted is so"
    return "verifier proves which value is wrong"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


_TELLERS: dict[str, Callable[[GameView, Program], str]] = {
    "StepsCommitted": _committed,
    "Pointed": _pointed,
    "Opened": _opened,
    "TraceCommitted": _trace,
    "EndDoubted": _end_doubted,
    "StateDoubted": _state_doubted,
    "Revealed": _revealed,
    "NodePointed": _node,
    "ChunkRevealed": _chunk,
    "ElementPointed": _element,
    "LanesOpened": _lanes,
    "LanePointed": _lane,
    "FoldOpened": _fold,
    "FoldPointed": _fold_point,
    "ValuesPosted": _values,
    "DisputeFinished": _finished,
}
