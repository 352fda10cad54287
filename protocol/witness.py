# SPDX-License-Identifier: GPL-3.0-or-later
"""What a player of the dispute game knows: a segment of steps, down to any single value.

`Witness` is what `protocol.dispute` asks for. `ReplayWitness` answers by replaying the segment with
an executor, as late as possible: the steps run once for the state roots; one step's tensors are
recomputed only when the game has come down to that step, and hashed as they pass by (`Trace`); the
inside of one element (lanes, accumulators, values) is evaluated for that element alone: natively
where it is long and the executor can, else in Python.

Steps are counted in the segment from 0 here; `first_step` makes them numbers of the whole task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

from protocol import fold as folds
from protocol.commitments import program_tree, roots_tree, state_root, step_log_tree
from protocol.encoding import encode_node
from protocol.errors import UsageError
from protocol.execution import Bits, Executor, Inputs
from protocol.game_view import GameView, Level, Phase
from protocol.merkle import Tree
from protocol.one_step import TraceEvidence, find_proof
from protocol.program import Kind, Program
from protocol.reference import Evaluator, Fetch, element_values
from protocol.tensor_tree import chunk, tensor_tree
from protocol.trace import KEEP, Trace

if TYPE_CHECKING:
    from protocol.question import Proof


class Witness(Protocol):
    """Everything that a player may have to show or compare."""

    def step_log(self) -> Tree:
        """Return the tree over the state roots after each step of the segment."""
        ...

    def state_root(self, step: int) -> bytes:
        """Return the state root after `step`; step -1 stands for the start of the segment."""
        ...

    def state_tree(self, step: int) -> Tree:
        """Return the tree of the state after `step`."""
        ...

    def trace_tree(self, step: int) -> Tree:
        """Return the tree over the outputs of all nodes in `step`."""
        ...

    def node_tree(self, step: int, node: int) -> Tree:
        """Return the tree over the chunks of one node's output."""
        ...

    def chunk(self, step: int, node: int, index: int) -> bytes:
        """Return one chunk of that output."""
        ...

    def lanes(self, step: int, node: int, element: int) -> list[int]:
        """Return the sixteen lane results of one element of a FOLD."""
        ...

    def accumulators(
        self, step: int, node: int, element: int, lane: int, level: int, chain: int
    ) -> list[int]:
        """Return acc_1 .. acc_m of one chain of one element of a FOLD."""
        ...

    def values(self, step: int, node: int, element: int, term: int | None) -> list[int]:
        """Return the operands' values and the instructions' results at an element (and term)."""
        ...

    def node_encoding(self, node: int) -> bytes:
        """Return the node's bytes in the program."""
        ...

    def node_proof(self, node: int) -> list[bytes]:
        """Return the inclusion proof of the node in the program."""
        ...

    def proof(self, view: GameView) -> Proof | None:
        """Return the one-step proof against the claim in `view`, None if the claim is true."""
        ...


class Place(NamedTuple):
    """How far a replay has come."""

    roots: list[bytes]
    """State roots that are known, that of the start first."""
    steps: int
    state: Sequence[Bits]
    """The state after so many steps."""


class ReplayWitness:
    """A witness that replays a segment with an executor. Read the module's text for what it costs.

    It holds the start state, the state before the step that was asked for last, what `Trace` keeps
    of that step, and the trees of those of its tensors that were asked for.
    """

    keep: int = KEEP
    """Bytes of a trace up to which it is kept as a whole."""

    def __init__(
        self,
        program: Program,
        executor: Executor,
        inputs: Inputs,
        start_state: Sequence[Bits],
        first_step: int,
        steps: int,
    ) -> None:
        """Take a segment of `steps` >= 1 steps that begins with step `first_step` of the task.

        `inputs` are those that the executor was made with. Raises UsageError for no steps.
        """
        if steps < 1:
            raise UsageError(f"a segment has at least one step, not {steps}")
        self.program = program
        self.executor = executor
        self.inputs = inputs
        self.first_step = first_step
        self.steps = steps
        self._start = list(start_state)
        self._state: tuple[int, Sequence[Bits]] = (
            0,
            self._start,
        )  # a number of steps and the state after them
        self._roots: list[bytes] = []
        # Caches live and die with this object and hold what one step's dispute needs.
        self._trace = lru_cache(maxsize=1)(self._compute_trace)
        self._output_tree = lru_cache(maxsize=64)(self._compute_output_tree)
        self._lane_results = lru_cache(maxsize=4)(self._compute_lane_results)
        self._chain = lru_cache(maxsize=64)(self._compute_chain)
        self._program_tree = lru_cache(maxsize=1)(lambda: program_tree(program))

    # States and traces ----------------------------------------------------------------------------

    def state(self, steps: int) -> Sequence[Bits]:
        """Return the state after so many steps of the segment, replaying from an earlier one."""
        done, state = self._state if self._state[0] <= steps else (0, self._start)
        for step in range(done, steps):
            state = self.executor.step(state, self.first_step + step)
        self._state = (steps, list(state))
        return state

    @property
    def place(self) -> Place:
        """Return how far this has come: what another witness of the segment can go on from."""
        return Place(self._roots, *self._state)

    def resume(self, place: Place) -> None:
        """Go on where another witness of the segment was."""
        self._roots, self._state = place.roots, (place.steps, place.state)

    def preparation(self, view: GameView) -> Iterator[None]:
        """Replay what the next move after `view` is taken from; yields before each step of it.

        Whoever leaves it before its end may go on with another: what was replayed is kept.
        """
        last = view.phase is Phase.PROVE_LEAF and view.node_facts.kind is Kind.INPUT
        if last or (view.level is Level.STEPS and view.phase is not Phase.COMMIT_TRACE):
            while len(self._roots) <= self.steps:
                yield
                ReplayWitness.state_root(self, len(self._roots) - 1)
            if not last:
                return
        while (done := self._state[0]) != view.step:
            yield
            self.state(done + 1 if done < view.step else 0)
        yield  # the trace of that step

    def state_root(self, step: int) -> bytes:
        """Return the state root after `step`; step -1 stands for the start of the segment."""
        while len(self._roots) < step + 2:
            self._roots.append(state_root(self.state(len(self._roots))))
        return self._roots[step + 1]

    def step_log(self) -> Tree:
        """Return the tree over the state roots after each step of the segment."""
        return step_log_tree([self.state_root(step) for step in range(self.steps)])

    def state_tree(self, step: int) -> Tree:
        """Return the tree of the state after `step`, over the roots of the OUTPUT nodes."""
        roots = self._trace(step).roots
        return roots_tree(roots[len(roots) - self.program.n_state :])

    def _compute_trace(self, step: int) -> Trace:
        state, number = self.state(step), self.first_step + step
        return Trace(self.program, self.executor, state, number, self.keep, self.inputs)

    def trace_tree(self, step: int) -> Tree:
        """Return the tree over the outputs of all nodes in `step`."""
        return roots_tree(self._trace(step).roots)

    def _compute_output_tree(self, step: int, node: int) -> Tree:
        return tensor_tree(self._trace(step)[node])

    def node_tree(self, step: int, node: int) -> Tree:
        """Return the tree over the chunks of one node's output."""
        return self._output_tree(step, node)

    def chunk(self, step: int, node: int, index: int) -> bytes:
        """Return one chunk of that output."""
        return chunk(self._trace(step)[node], index)

    # Inside one element ---------------------------------------------------------------------------

    def _fetch(self, step: int, node: int) -> Fetch:
        """Return what reads single elements of the nodes that `node` reads."""
        trace = self._trace(step)
        trace[node]  # brings those nodes with it
        return lambda source, index: int(trace[source].reshape(-1)[index])

    def _terms(self, step: int, node: int, element: int) -> folds.Terms:
        return Evaluator(self.program.nodes[node]).terms(element, self._fetch(step, node))

    def _chain_results(
        self, step: int, node: int, element: int, level: int, chains: range
    ) -> list[list[int]] | None:
        """Return the results of each lane per chain, None if the executor leaves it to Python."""
        trace = self._trace(step)
        trace[node]  # brings what it reads with it
        found = self.executor.chain_results(node, element, trace.__getitem__, level, chains)
        return None if found is None else found.tolist()

    def _compute_lane_results(self, step: int, node: int, element: int) -> list[int]:
        fold = self.program.nodes[node]
        top = len(folds.levels(folds.lane_terms(fold.terms, fold.lanes, 0))) - 1
        found = self._chain_results(step, node, element, top, range(1))
        if found is not None:
            return found[0]
        terms = self._terms(step, node, element)
        return folds.lane_results(fold.fold, fold.terms, fold.lanes, terms)

    def lanes(self, step: int, node: int, element: int) -> list[int]:
        """Return the sixteen lane results of one element of a FOLD."""
        return self._lane_results(step, node, element)

    def _compute_chain(
        self, step: int, node: int, element: int, lane: int, level: int, chain: int
    ) -> list[int]:
        fold = self.program.nodes[node]
        n = folds.lane_terms(fold.terms, fold.lanes, lane)
        if level > 0:  # a chain of level 0 has 256 terms at most
            below = folds.chain_items(n, level, chain)
            found = self._chain_results(step, node, element, level - 1, below)
            if found is not None:
                return folds.running(fold.fold, [lanes[lane] for lanes in found])
        terms = folds.lane_terms_of(self._terms(step, node, element), fold.lanes, lane)
        return folds.accumulators(fold.fold, n, level, chain, terms)

    def accumulators(
        self, step: int, node: int, element: int, lane: int, level: int, chain: int
    ) -> list[int]:
        """Return acc_1 .. acc_m of one chain of one element of a FOLD."""
        return self._chain(step, node, element, lane, level, chain)

    def values(self, step: int, node: int, element: int, term: int | None) -> list[int]:
        """Return the operands' values and the instructions' results at an element (and term)."""
        values = element_values(self.program.nodes[node], element, term, self._fetch(step, node))
        return [*values[0], *values[1]]

    # The program and the end ----------------------------------------------------------------------

    def node_encoding(self, node: int) -> bytes:
        """Return the node's bytes in the program."""
        return encode_node(self.program.nodes[node])

    def node_proof(self, node: int) -> list[bytes]:
        """Return the inclusion proof of the node in the program."""
        return self._program_tree().inclusion_proof(node)

    def proof(self, view: GameView) -> Proof | None:
        """Return the one-step proof against the claim in `view`, None if the claim is true."""
        own = self.trace_tree(view.step)
        trace = self._trace(view.step)
        if self.program.nodes[view.node].expression is not None:
            trace[view.node]  # brings what it reads with it, all of which may be asked for
        evidence = TraceEvidence(
            self.state(view.step),
            self.inputs,
            trace,
            lambda node: view.opened_trace.inclusion_proof(node, own),
        )
        values = view.posted if view.phase is Phase.PROVE else b""
        return find_proof(self.program, view.question, values, evidence)
