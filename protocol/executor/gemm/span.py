# SPDX-License-Identifier: GPL-3.0-or-later
"""Skips terms that cannot change a bit: zeros at either end of a block, as causal masks leave.

A term whose one factor is a zero and whose other factor is finite adds a zero to its chain. That
can only turn an accumulator of -0 into +0; no later sum tells these apart, and the fold's last step
adds +0 anyway. So a tile may leave out the first and the last terms of a block where its rows (or
its columns) are all zeros, if all that they would be multiplied with is finite; both are looked
up in the data at hand. Only products at several places (batches, heads) try: attention.
"""

from __future__ import annotations

from collections.abc import Callable

from protocol.executor.emitter import Emitter, mangled, vector
from protocol.executor.kernel import power_below

GROUP = 8
"""Terms of the left factor that are looked at together."""
INFINITE = 0x7F800000
MAGNITUDE = 0x7FFFFFFF


def _largest(em: Emitter, words: list[str], width: int) -> str:
    """Return the largest magnitude (as an unsigned pattern) among vectors of patterns."""
    kind = vector("i32", width)
    total = words[0]
    for word in words[1:]:
        total = em.op(f"or {kind} {total}, {word}")
    mask = em.splat("i32", str(MAGNITUDE), width)
    total = em.op(f"and {kind} {total}, {mask}")
    if width == 1:
        return total
    return em.call("i32", f"llvm.vector.reduce.or.{mangled('i32', width)}", [(kind, total)])


def shrink(em: Emitter, terms: str, step: int, zero: Callable[[str], str]) -> tuple[str, str]:
    """Return first and last term (excluded) when groups of zeros at both ends are left out.

    `zero(k)` emits an i1: whether terms k .. k + step - 1 are all zeros.
    """
    low, high = em.variable("i64", "0"), em.variable("i64", terms)
    for edge, place, move_by in ((high, -step, -step), (low, 0, step)):
        head, look, move, done = (em.fresh(name) for name in ("head", "look", "move", "done"))
        em.do(f"br label %{head}")
        em.label(head)
        at = edge.get()
        left = em.op(f"sub i64 {high.get()}, {low.get()}")
        more = em.op(f"icmp sge i64 {left}, {step}")
        em.do(f"br i1 {more}, label %{look}, label %{done}")
        em.label(look)
        em.do(f"br i1 {zero(em.add(at, place))}, label %{move}, label %{done}")
        em.label(move)
        edge.set(em.add(at, move_by))
        em.do(f"br label %{head}")
        em.label(done)
    return low.get(), high.get()


def together(strides: tuple[int, int], rows: int) -> int:
    """Return how many terms of a tile of the left factor are looked at together."""
    packed = strides == (1, rows)
    return GROUP if packed or strides[1] == 1 else 1


def left_zero(
    em: Emitter, pointer: str, rows: int, strides: tuple[int, int]
) -> Callable[[str], str]:
    """Return the test of a group of terms of a tile: `strides` of rows and terms, one of them 1."""
    row, term = strides

    def zero(k: str) -> str:
        start = em.element(pointer, em.mul(k, term))
        if together(strides, rows) == 1:
            width = power_below(min(4, rows))
            places = sorted({*range(0, rows - width, width), rows - width})
        else:
            width = GROUP
            places = [r * (row if term == 1 else GROUP) for r in range(rows)]
        kind = vector("i32", width)
        words = [em.load(kind, em.element(start, str(place))) for place in places]
        return em.op(f"icmp eq i32 {_largest(em, words, width)}, 0")

    return zero


def right_zero(
    em: Emitter, pointer: str, vectors: int, width: int, stride: int
) -> Callable[[str], str]:
    """Return the test of a term of a packed panel of the right factor."""
    kind = vector("i32", width)

    def zero(k: str) -> str:
        start = em.element(pointer, em.mul(k, stride))
        words = [em.load(kind, em.element(start, str(width * v))) for v in range(vectors)]
        return em.op(f"icmp eq i32 {_largest(em, words, width)}, 0")

    return zero


def finite(em: Emitter, pointer: str, count: str) -> str:
    """Return an i1: whether `count` numbers that lie side by side are all finite."""
    kind = vector("i32", GROUP)
    whole = em.op(f"udiv i64 {count}, {GROUP}")
    largest = em.variable(kind, "zeroinitializer")
    name = f"llvm.umax.{mangled('i32', GROUP)}"
    mask = em.splat("i32", str(MAGNITUDE), GROUP)
    with em.loop(0, whole) as index:
        word = em.load(kind, em.element(pointer, em.mul(index, GROUP)))
        word = em.op(f"and {kind} {word}, {mask}")
        largest.set(em.call(kind, name, [(kind, largest.get()), (kind, word)]))
    reduced = em.call(
        "i32", f"llvm.vector.reduce.umax.{mangled('i32', GROUP)}", [(kind, largest.get())]
    )
    last = em.variable("i32", reduced)
    with em.loop(em.mul(whole, GROUP), count) as index:
        word = em.op(f"and i32 {em.load('i32', em.element(pointer, index))}, {MAGNITUDE}")
        last.set(em.call("i32", "llvm.umax.i32", [("i32", last.get()), ("i32", word)]))
    return em.op(f"icmp ult i32 {last.get()}, {INFINITE}")


class Spans:
    """First and last term (excluded) of each tile of rows in a block, and of the panel at hand."""

    def __init__(self, em: Emitter, tiles: int, terms: str) -> None:
        self.em = em
        self.terms = terms
        self._table = em.alloca("i64", 2 * tiles)
        self._cut = em.variable("i1", "false")
        self._known = em.variable("i32", "-1")
        self.panel = ("0", terms)

    def _slot(self, tile: str, end: int) -> str:
        index = self.em.add(self.em.mul(tile, 2), end)
        return self.em.op(f"getelementptr i64, ptr {self._table}, i64 {index}")

    def _is_cut(self, span: tuple[str, str]) -> str:
        length = self.em.op(f"sub i64 {span[1]}, {span[0]}")
        return self.em.op(f"icmp ne i64 {length}, {self.terms}")

    def set(self, tile: str, span: tuple[str, str]) -> None:
        """Keep the span of a tile."""
        em = self.em
        for end, value in enumerate(span):
            em.do(f"store i64 {value}, ptr {self._slot(tile, end)}")
        self._cut.set(em.op(f"or i1 {self._cut.get()}, {self._is_cut(span)}"))

    def confirm(self, tiles: str, right_finite: Callable[[], str]) -> None:
        """Forget the tiles' spans unless the right factor is finite, which is looked up if need be.

        `tiles` is how many there are.
        """
        em = self.em
        with em.when(self._cut.get()):
            wrong = em.op(f"xor i1 {right_finite()}, true")
            with em.when(wrong), em.loop(0, tiles) as tile:
                self.set(tile, ("0", self.terms))

    def set_panel(self, span: tuple[str, str], left_finite: Callable[[], str]) -> None:
        """Keep the span of a panel if the left factor is finite: looked up once in a block."""
        em = self.em
        low, high = em.variable("i64", span[0]), em.variable("i64", span[1])
        with em.when(self._is_cut(span)):
            with em.when(em.op(f"icmp slt i32 {self._known.get()}, 0")):
                self._known.set(em.op(f"zext i1 {left_finite()} to i32"))
            with em.when(em.op(f"icmp eq i32 {self._known.get()}, 0")):
                low.set("0")
                high.set(self.terms)
        self.panel = low.get(), high.get()

    def of(self, tile: str) -> tuple[str, str]:
        """Return first term and number of terms of a tile and the panel at hand."""
        em = self.em
        ends = [em.op(f"load i64, ptr {self._slot(tile, end)}") for end in (0, 1)]
        first = em.call("i64", "llvm.smax.i64", [("i64", ends[0]), ("i64", self.panel[0])])
        return first, em.op(f"sub i64 {em.least(ends[1], self.panel[1])}, {first}")
