# SPDX-License-Identifier: GPL-3.0-or-later
"""Cuts a step into segments after each of which all outputs of the segment are still in memory.

Intermediates share an arena, so an output is there only until another takes its place. Who wants to
see every output (a trace) runs the step segment by segment and looks in between; that takes no more
memory than the step itself. A segment is one kernel that threads share, or several small ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from protocol.executor.module import Call
from protocol.executor.order import Order
from protocol.executor.plan import Plan
from protocol.executor.schedule import chunks_of

SEGMENT_BYTES: Final = 1 << 20
"""Bytes of output after which a segment ends: what is looked at then is still in the cache."""
SEGMENT_NODES: Final = 64


@dataclass(frozen=True)
class Segment:
    """Calls `first` .. `stop`-1 of the order, in `chunks` parts."""

    first: int
    stop: int
    chunks: int


def make_segments(
    order: Order, plan: Plan, calls: Mapping[int, Call], sizes: Mapping[int, int], threads: int
) -> list[Segment]:
    """Return the segments of a step in order; `sizes` are the bytes of each node's output."""
    segments: list[Segment] = []
    spans: list[tuple[int, int]] = []  # of the last segment, in the arena
    filled = 0
    for place, number in enumerate(order.numbers):
        chunks = chunks_of(calls[number], threads)
        last = segments[-1] if segments else Segment(0, 0, 2)
        start = plan.offsets.get(number)
        span = (0, 0) if start is None else (start, start + sizes[number])
        joins = (
            chunks < 2
            and last.chunks == 1
            and last.stop - last.first < SEGMENT_NODES
            and filled + sizes[number] <= SEGMENT_BYTES
            and not any(span[0] < end and begin < span[1] for begin, end in spans)
        )
        if joins:
            segments[-1] = Segment(last.first, place + 1, 1)
        else:
            segments.append(Segment(place, place + 1, max(chunks, 1)))
            spans, filled = [], 0
        spans.append(span)
        filled += sizes[number]
    return segments
