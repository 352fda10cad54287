# SPDX-License-Identifier: GPL-3.0-or-later
"""Transposes squares of 4 x 4 or 8 x 8 numbers in registers."""

from __future__ import annotations

from protocol.executor.emitter import Emitter
from protocol.executor.primitives import Value


def _shuffle(em: Emitter, a: Value, b: Value, picks: list[int]) -> Value:
    text = ", ".join(f"i32 {pick}" for pick in picks)
    name = em.op(
        f"shufflevector {a.type} {a.name}, {b.type} {b.name}, <{len(picks)} x i32> <{text}>"
    )
    return Value(name, a.letter, len(picks))


def transpose(em: Emitter, rows: list[Value]) -> list[Value]:
    """Transpose a square of side 4 or 8: quarters of side 4 first, as x86 shuffles, then halves."""
    side = len(rows)
    lanes = range(0, side, 4)

    def zipped(a: Value, b: Value, picks: tuple[int, ...]) -> Value:
        both = [pick if pick < 4 else pick - 4 + side for pick in picks]
        return _shuffle(em, a, b, [lane + pick for lane in lanes for pick in both])

    low, high = (0, 4, 1, 5), (2, 6, 3, 7)
    first, second = (0, 1, 4, 5), (2, 3, 6, 7)
    quarters: list[list[Value]] = []
    for start in lanes:
        a, b, c, d = rows[start : start + 4]
        pairs = [zipped(a, b, low), zipped(c, d, low), zipped(a, b, high), zipped(c, d, high)]
        quarters.append(
            [
                zipped(pairs[0], pairs[1], first),
                zipped(pairs[0], pairs[1], second),
                zipped(pairs[2], pairs[3], first),
                zipped(pairs[2], pairs[3], second),
            ]
        )
    if side == 4:
        return quarters[0]
    halves = [list(range(start, start + 4)) for start in range(0, 16, 4)]
    pairs_ = list(zip(*quarters, strict=True))
    above = [_shuffle(em, a, b, halves[0] + halves[2]) for a, b in pairs_]
    below = [_shuffle(em, a, b, halves[1] + halves[3]) for a, b in pairs_]
    return above + below
