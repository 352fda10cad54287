# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the tensors of a step live: an arena shared by intermediates whose lives do not overlap.

Offsets are chosen two ways, as they come (the smallest gap that fits) and by size (the largest
first, each as low as it goes); the smaller arena wins.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Set
from dataclasses import dataclass
from typing import Final

import numpy as np

from protocol.executor.order import Order, Overwritable, resolve
from protocol.program import Node, Program

ALIGNMENT: Final = 64
SLACK: Final = 1.02
"""An arena so close to the most bytes alive at once is not worth a second packing."""


@dataclass(frozen=True)
class Plan:
    """Where each computed node that is no result lies in the arena, in bytes, and its size."""

    offsets: dict[int, int]
    size: int
    live: int
    """Most bytes alive at once: no arena is smaller."""
    results: tuple[int, ...]
    """Per state tensor, the node (not an OUTPUT) whose value it is."""
    replaces: dict[int, int]
    """Node -> dying operand whose place it takes."""


@dataclass
class _Buffer:
    """A place and the times, in positions of the order, from its first write to its last read."""

    size: int
    start: int
    stop: int


def make_plan(
    program: Program, order: Order, overwritable: Overwritable, kept: Set[int] = frozenset()
) -> Plan:
    """Assign arena offsets to computed nodes that are not results.

    The nodes in `kept` live to the end of the step.
    """
    results = tuple(resolve(program, program.output(s)) for s in range(program.n_state))
    last = _last_reads(order, kept)
    own: dict[int, int] = {}
    buffers: list[_Buffer] = []
    replaces: dict[int, int] = {}
    outside = set(results)
    for place, number in enumerate(order.numbers):
        if number in outside:
            continue
        dying = [
            s
            for s in sorted(overwritable.get(number, ()))
            if s in own and last[s] == place and s not in kept
        ]
        if dying:
            replaces[number] = dying[0]
            own[number] = own[dying[0]]
            buffers[own[number]].stop = last[number]
        else:
            own[number] = len(buffers)
            buffers.append(_Buffer(_bytes(program.nodes[number]), place, last[number]))
    offsets, size, live = _packed(buffers, len(order.numbers))
    return Plan({n: offsets[b] for n, b in own.items()}, size, live, results, replaces)


def _last_reads(order: Order, kept: Set[int]) -> dict[int, int]:
    """Return the position after which each node's output is not read."""
    last = {number: place for place, number in enumerate(order.numbers)}
    for place, number in enumerate(order.numbers):
        for source in order.reads[number]:
            if source in last:
                last[source] = max(last[source], place)
    return {n: len(order.numbers) if n in kept else place for n, place in last.items()}


def _bytes(node: Node) -> int:
    return -(-4 * node.numel // ALIGNMENT) * ALIGNMENT


def _packed(buffers: list[_Buffer], end: int) -> tuple[list[int], int, int]:
    """Return an offset per buffer, the size of the arena, and the most bytes alive at once."""
    change = np.zeros(end + 2, np.int64)
    for buffer in buffers:
        change[buffer.start] += buffer.size
        change[buffer.stop + 1] -= buffer.size
    live = int(change.cumsum().max())
    offsets, size = _as_they_come(buffers)
    if size > SLACK * live:
        other, smaller = _by_size(buffers)
        if smaller < size:
            return other, smaller, live
    return offsets, size, live


def _as_they_come(buffers: list[_Buffer]) -> tuple[list[int], int]:
    """Give each buffer the smallest gap that fits when it is born; gaps are joined."""
    offsets: list[int] = []
    taken: list[tuple[int, int, int]] = []  # (offset, end, last read), sorted
    size = 0
    for buffer in buffers:
        taken = [t for t in taken if t[2] >= buffer.start]
        best, room, end = -1, 0, 0
        for start, stop, _ in taken:
            gap = start - end
            if gap >= buffer.size and (best < 0 or gap < room):
                best, room = end, gap
            end = stop
        offset = best if best >= 0 else end
        offsets.append(offset)
        insort(taken, (offset, offset + buffer.size, buffer.stop))
        size = max(size, offset + buffer.size)
    return offsets, size


def _by_size(buffers: list[_Buffer]) -> tuple[list[int], int]:
    """Place the largest first, each in the lowest gap among those that live at the same time."""
    starts = np.array([b.start for b in buffers])
    stops = np.array([b.stop for b in buffers])
    sizes = np.array([b.size for b in buffers])
    offsets = np.full(len(buffers), -1, np.int64)
    for number in np.lexsort((starts, -sizes)):
        rivals = (offsets >= 0) & (starts <= stops[number]) & (stops >= starts[number])
        places = offsets[rivals]
        turn = np.argsort(places, kind="stable")
        lows = places[turn]
        # Where the rivals below end: a gap is what lies between that and the next one.
        ends = np.concatenate([[0], np.maximum.accumulate((places + sizes[rivals])[turn])])
        gaps = np.flatnonzero(lows - ends[:-1] >= sizes[number])
        offsets[number] = ends[gaps[0]] if gaps.size else ends[-1]
    return offsets.tolist(), int((offsets + sizes).max())


class Occupants:
    """Who used which bytes of the arena last, while nodes are placed in order of execution."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._spans: list[tuple[int, int, int]] = []

    def place(self, number: int, start: int, stop: int) -> list[int]:
        """Return the nodes whose bytes node `number` takes over."""
        first = bisect_right(self._starts, start)
        first -= first > 0 and self._spans[first - 1][1] > start
        last = bisect_left(self._starts, stop)
        found = self._spans[first:last]
        pieces = [(start, stop, number)]
        if found and found[0][0] < start:
            pieces.insert(0, (found[0][0], start, found[0][2]))
        if found and found[-1][1] > stop:
            pieces.append((stop, found[-1][1], found[-1][2]))
        self._spans[first:last] = pieces
        self._starts[first:last] = [piece[0] for piece in pieces]
        return [span[2] for span in found]
