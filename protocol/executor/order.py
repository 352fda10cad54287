# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which a step computes its nodes: any order that respects reads has the same bits.

Program order, except that a node which frees at least as much memory as it takes runs as soon as it
can: an optimizer's update follows its gradient at once, so gradients die early. A new state tensor
is computed after the last use of the old one where that is possible, so that it may overwrite it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final

from protocol.program import Flat, Kind, Node, Program, View

COMPUTED: Final = frozenset({Kind.RAND, Kind.MAP, Kind.FOLD})
"""Kinds that a kernel computes into a buffer of its own."""

Overwritable = Mapping[int, Set[int]]
"""Per computed node, the nodes it reads whose memory its kernel may overwrite with its result."""


def sources(node: Node) -> list[int]:
    """Return the nodes that a node reads."""
    if node.kind is Kind.OUTPUT:
        return [node.index]
    if node.expression is None:
        return []
    return [o.source for o in node.expression.operands if isinstance(o, (Flat, View))]


def resolve(program: Program, number: int) -> int:
    """Follow OUTPUT aliases to the node that holds the value."""
    while program.nodes[number].kind is Kind.OUTPUT:
        number = program.nodes[number].index
    return number


@dataclass(frozen=True)
class Order:
    """Computed nodes in order of execution, and what each must wait for."""

    numbers: tuple[int, ...]
    reads: dict[int, frozenset[int]]
    """Per computed node: the nodes it reads, leaves included."""
    before: dict[int, frozenset[int]]
    """Per computed node: nodes it reads, and nodes that read the state it overwrites."""
    direct: dict[int, int]
    """Node -> state tensor whose old value it may overwrite: all other reads come before."""


class _Graph:
    """Who reads whom, among computed nodes and state tensors."""

    def __init__(self, program: Program) -> None:
        nodes = program.nodes
        self.computed = [n for n, node in enumerate(nodes) if node.kind in COMPUTED]
        self.reads = {n: frozenset(sources(nodes[n])) for n in self.computed}
        self.before = {
            n: {s for s in reads if nodes[s].kind in COMPUTED} for n, reads in self.reads.items()
        }
        self.readers: dict[int, list[int]] = {n: [] for n in self.computed}
        self.state_readers: dict[int, set[int]] = {s: set() for s in range(program.n_state)}
        for n, reads in self.reads.items():
            for source in reads:
                if nodes[source].kind in COMPUTED:
                    self.readers[source].append(n)
                elif nodes[source].kind is Kind.INPUT:
                    self.state_readers[nodes[source].index].add(n)

    def overwrites(self, program: Program, overwritable: Overwritable) -> dict[int, int]:
        """Return candidates: nodes that are one new state tensor and may replace the old one."""
        results = [resolve(program, program.output(s)) for s in range(program.n_state)]
        found = {}
        for state, number in enumerate(results):
            if number not in self.before or results.count(number) > 1:
                continue
            own = {
                source
                for source in self.reads[number]
                if program.nodes[source].kind is Kind.INPUT and program.nodes[source].index == state
            }
            if own <= overwritable.get(number, frozenset()):
                found[number] = state
        return found


def make_order(program: Program, overwritable: Overwritable) -> Order:
    """Order the computed nodes of a valid program."""
    graph = _Graph(program)
    direct = graph.overwrites(program, overwritable)
    while True:
        before = {n: set(wanted) for n, wanted in graph.before.items()}
        for number, state in direct.items():
            before[number] |= graph.state_readers[state] - {number}
        numbers = _sorted(program, graph, before, direct)
        if len(numbers) == len(before):
            frozen = {n: frozenset(wanted) for n, wanted in before.items()}
            return Order(tuple(numbers), graph.reads, frozen, direct)
        # Two updates that each want to come after the other: what is stuck is not done in place.
        done = set(numbers)
        direct = {n: state for n, state in direct.items() if n in done}


def _sorted(
    program: Program, graph: _Graph, before: dict[int, set[int]], direct: dict[int, int]
) -> list[int]:
    """Return a topological order; nodes on a cycle, and what waits for them, are left out."""
    nodes = program.nodes
    after: dict[int, list[int]] = {n: [] for n in before}
    for number, wanted in before.items():
        for one in wanted:
            after[one].append(number)
    missing = {n: len(wanted) for n, wanted in before.items()}
    unread = {n: len(readers) for n, readers in graph.readers.items()}
    result_nodes = {resolve(program, program.output(s)) for s in range(program.n_state)}
    freeable = set(before) - result_nodes

    def shrinks(number: int) -> bool:
        """Whether running a node now leaves no more memory in use than before."""
        taken = 0 if number in direct else nodes[number].numel
        dying = (s for s in graph.reads[number] if s in freeable and unread[s] == 1)
        return sum(nodes[s].numel for s in dying) >= taken

    ready = [n for n, count in missing.items() if count == 0]
    heapify(ready)
    eager: list[int] = []
    done: set[int] = set()
    order: list[int] = []
    while eager or ready:
        number = heappop(eager if eager else ready)
        if number in done:
            continue
        done.add(number)
        order.append(number)
        changed = list(after[number])
        for waiting in changed:
            missing[waiting] -= 1
            if missing[waiting] == 0:
                heappush(ready, waiting)
        for source in graph.reads[number]:
            if source in unread:
                unread[source] -= 1
                if unread[source] == 1:
                    changed += graph.readers[source]
        for candidate in changed:
            if candidate not in done and missing[candidate] == 0 and shrinks(candidate):
                heappush(eager, candidate)
    return order
