# SPDX-License-Identifier: GPL-3.0-or-later
"""Cuts a step into tasks that threads share: what is cut into chunks, what must come before what.

A kernel with much work is a task of several chunks; neighbours with little work are one task of one
chunk, because handing data from core to core costs more than they do. Nothing here changes a bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from protocol.executor.module import Call
from protocol.executor.order import Order
from protocol.executor.plan import Occupants, Plan

CHUNK_WORK: Final = 1 << 16
"""Primitives that a chunk should have at least: several microseconds."""
GROUP_WORK: Final = 1 << 17
"""Primitives of the kernels that are one task because each alone is too small to be handed on."""
CHUNKS_PER_THREAD: Final = 8
"""More chunks than threads, so that a thread that is held up does not hold up the others."""

WAKING: Final = 32
"""Chunks' worth of work below which a step is not shared: it takes about 100 microseconds."""


@dataclass(frozen=True)
class Task:
    """Calls `first` .. `stop`-1 of the order, in `chunks` parts; `after` are earlier tasks."""

    chunks: int
    first: int
    stop: int
    after: tuple[int, ...]


def worth_sharing(tasks: Sequence[Task], work: int) -> bool:
    """Whether a step of so many primitives gains more from helpers than it costs to wake them."""
    return work >= WAKING * CHUNK_WORK and any(task.chunks > 1 for task in tasks)


def waits(order: Order, plan: Plan, sizes: Mapping[int, int]) -> dict[int, set[int]]:
    """Return per computed node which others must be done first: `order.before`, and memory.

    `sizes` are the bytes of each node's output.
    """
    readers: dict[int, list[int]] = {n: [] for n in order.numbers}
    for number in order.numbers:
        for source in order.reads[number]:
            if source in readers:
                readers[source].append(number)
    result = {}
    occupants = Occupants()
    for number in order.numbers:
        wanted = set(order.before[number])
        if number in plan.offsets:
            start = plan.offsets[number]
            for earlier in occupants.place(number, start, start + sizes[number]):
                wanted.update((earlier, *readers[earlier]))
        result[number] = wanted - {number}
    return result


def chunks_of(call: Call, threads: int) -> int:
    """Return into how many chunks threads may cut a call; below 2 it is better left whole."""
    return min(call.shape.units, call.work // CHUNK_WORK, CHUNKS_PER_THREAD * threads)


def make_tasks(
    order: Order, calls: Mapping[int, Call], before: Mapping[int, set[int]], threads: int
) -> list[Task]:
    """Return the tasks of a step in order, for so many threads."""
    groups: list[tuple[int, int, int, int]] = []  # chunks, first, stop, work
    for place, number in enumerate(order.numbers):
        call = calls[number]
        chunks = chunks_of(call, threads)
        last = groups[-1] if groups else (2, 0, 0, 0)
        if chunks < 2 and last[0] == 1 and last[3] + call.work <= GROUP_WORK:
            groups[-1] = (1, last[1], place + 1, last[3] + call.work)
        else:
            groups.append((max(chunks, 1), place, place + 1, call.work))
    task_of = {}
    for task, (_, first, stop, _) in enumerate(groups):
        task_of.update(dict.fromkeys(order.numbers[first:stop], task))
    tasks: list[Task] = []
    known: list[int] = []  # per task, a bit for each task that is done when it is done
    for task, (chunks, first, stop, _) in enumerate(groups):
        wanted = {task_of[one] for n in order.numbers[first:stop] for one in before[n]} - {task}
        after, implied = _direct(sorted(wanted, reverse=True), known)
        tasks.append(Task(chunks, first, stop, after))
        known.append(implied | 1 << task)
    return tasks


def _direct(wanted: Sequence[int], known: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Return which of `wanted`, latest first, are implied by no other, and all that they imply."""
    kept: list[int] = []
    implied = 0
    for one in wanted:
        if not implied >> one & 1:
            kept.append(one)
            implied |= known[one]
    return tuple(reversed(kept)), implied
