# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the tensors of a step live: an arena shared by intermediates whose lives do not overlap."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Final

from protocol.program import Flat, Kind, Node, Program, View

ALIGNMENT: Final = 64
COMPUTED: Final = frozenset({Kind.RAND, Kind.MAP, Kind.FOLD})
"""Kinds that a kernel computes into a buffer of its own."""


def sources(node: Node) -> list[int]:
    """Return the nodes that a node reads."""
    if node.kind is Kind.OUTPUT:
        return [node.index]
    if node.expression is None:
        return []
    return [o.source for o in node.expression.operands if isinstance(o, (Flat, View))]


@dataclass(frozen=True)
class Plan:
    """Where each computed node that is no result lies in the arena, in bytes, and its size."""

    offsets: dict[int, int]
    size: int
    results: tuple[int, ...]
    """Per state tensor, the node (not an OUTPUT) whose value it is."""


def resolve(program: Program, number: int) -> int:
    """Follow OUTPUT aliases to the node that holds the value."""
    while program.nodes[number].kind is Kind.OUTPUT:
        number = program.nodes[number].index
    return number


def make_plan(program: Program, kept: Set[int] = frozenset()) -> Plan:
    """Assign arena offsets to computed nodes that are not results: first fit, in program order.

    The nodes in `kept` live to the end of the step.
    """
    nodes = program.nodes
    results = tuple(resolve(program, program.output(s)) for s in range(program.n_state))
    last_use = list(range(len(nodes)))
    for number, node in enumerate(nodes):
        for source in sources(node):
            last_use[resolve(program, source)] = number
    for number in kept:
        last_use[number] = len(nodes)
    ending: dict[int, list[int]] = {}
    for number, last in enumerate(last_use):
        ending.setdefault(last, []).append(number)
    offsets: dict[int, int] = {}
    free: list[tuple[int, int]] = []
    end = 0
    for number, node in enumerate(nodes):
        if node.kind in COMPUTED and number not in results:
            offsets[number], end = _take(free, end, _bytes(node))
        for dead in ending.get(number, []):
            if dead in offsets:
                _give(free, offsets[dead], _bytes(nodes[dead]))
    return Plan(offsets, end, results)


def _bytes(node: Node) -> int:
    return -(-4 * node.numel // ALIGNMENT) * ALIGNMENT


def _take(free: list[tuple[int, int]], end: int, size: int) -> tuple[int, int]:
    """Return (offset, new end of the arena), from the first gap that is large enough."""
    for place, (start, stop) in enumerate(free):
        if stop - start >= size:
            free[place] = (start + size, stop)
            if start + size == stop:
                del free[place]
            return start, end
    if free and free[-1][1] == end:
        start = free.pop()[0]
        return start, start + size
    return end, end + size


def _give(free: list[tuple[int, int]], offset: int, size: int) -> None:
    """Return a range to the sorted list of gaps, joined with its neighbours."""
    free.append((offset, offset + size))
    free.sort()
    joined: list[tuple[int, int]] = []
    for start, stop in free:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    free[:] = joined
