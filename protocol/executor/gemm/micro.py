# SPDX-License-Identifier: GPL-3.0-or-later
"""The inner loop of a matrix product: one tile of results over one block of the fold.

Every product of a program calls the same few functions, one for each size of tile: strides are
arguments. A tile's accumulators stay in registers for a whole block; the block's results are then
added to what the blocks before it left in memory, which is the specified order of a fold of at
most 256 blocks. NaNs are canonicalized with every block: none can be told from another inside.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.executor.emitter import Emitter, mangled, vector
from protocol.executor.primitives import Value, bits_of
from protocol.executor.target import Target


@dataclass(frozen=True)
class Tile:
    """A tile of `rows` x `vectors * width` results."""

    rows: int
    vectors: int
    width: int
    adjacent: bool = False
    """Whether the left factor's rows lie side by side."""

    @property
    def columns(self) -> int:
        """Results in one row."""
        return self.vectors * self.width

    @property
    def name(self) -> str:
        """The function that computes such a tile."""
        kind = "adjacent" if self.adjacent else "strided"
        return f"product_{kind}_{self.rows}x{self.vectors}x{self.width}"

    @property
    def cycles(self) -> float:
        """Return about how many cycles a term takes: multiplications or their latency."""
        return max(4.0, self.rows * self.vectors / 2)


def tiles(target: Target, rows: int, columns: int) -> list[Tile]:
    """Return the tiles that the registers can hold, of at most so many rows and columns."""
    result = []
    for vectors in range(1, 5):
        if vectors > 1 and (vectors - 1) * target.width >= columns:
            break
        most = (target.registers - 1 - vectors) // vectors
        for height in range(1, min(most, rows, target.tallest) + 1):
            result.append(Tile(height, vectors, target.width))
    return result


def call(
    em: Emitter, tile: Tile, terms: str, left: tuple[str, int, int], right: tuple[str, int],
    results: list[str], stride: str, first: str,
) -> None:  # fmt: skip
    """Emit a call. Strides are in elements.

    `left` is (pointer, stride of rows, stride of terms), `right` (pointer, stride of terms) of
    vectors that lie side by side. `results` points at the first row of each vector, rows lie
    `stride` apart. The i1 `first` says that there is no block before this one.
    """
    if tile.name not in em.functions:
        em.functions[tile.name] = _text(em, tile)
    pointers = [f"ptr {place}" for place in results]
    parameters = [
        f"i64 {terms}", f"ptr {left[0]}", f"i64 {left[1]}", f"i64 {left[2]}",
        f"ptr {right[0]}", f"i64 {right[1]}", *pointers, f"i64 {stride}", f"i1 {first}",
    ]  # fmt: skip
    em.do(f"call void @{tile.name}({', '.join(parameters)})")


def _text(outer: Emitter, tile: Tile) -> str:
    em = Emitter(outer.declarations)
    kind = vector("float", tile.width)
    zero = em.splat("float", "0.0", tile.width)
    places = [(row, column) for row in range(tile.rows) for column in range(tile.vectors)]
    accumulators = {place: em.variable(kind, zero) for place in places}
    offsets = [str(row) if tile.adjacent else em.mul("%left_row", row) for row in range(tile.rows)]
    left, right = em.variable("ptr", "%left"), em.variable("ptr", "%right")
    fma = f"llvm.fma.{mangled('float', tile.width)}"
    with em.loop(0, "%terms"):
        a, b = left.get(), right.get()
        factors = [
            em.load(kind, em.element(b, str(column * tile.width))) for column in range(tile.vectors)
        ]
        for row in range(tile.rows):
            factor = em.load("float", em.element(a, offsets[row]))
            factor = em.splat("float", factor, tile.width)
            for column in range(tile.vectors):
                acc = accumulators[row, column]
                arguments = [(kind, factor), (kind, factors[column]), (kind, acc.get())]
                acc.set(em.call(kind, fma, arguments))
        left.set(em.element(a, "%left_term"))
        right.set(em.element(b, "%right_term"))
    later = em.op("xor i1 %first, true")
    for condition, begun in (("%first", False), (later, True)):
        with em.when(condition):
            for row, column in places:
                place = em.element(f"%result{column}", em.mul("%stride", row))
                before = em.load(kind, place) if begun else zero
                total = em.op(f"fadd {kind} {before}, {accumulators[row, column].get()}")
                bits = bits_of(em, Value(total, "f", tile.width))
                em.store(bits.type, bits.name, place)
    results = [f"ptr noalias %result{column}" for column in range(tile.vectors)]
    parameters = [
        "i64 %terms", "ptr noalias readonly %left", "i64 %left_row", "i64 %left_term",
        "ptr noalias readonly %right", "i64 %right_term", *results, "i64 %stride", "i1 %first",
    ]  # fmt: skip
    return em.text(tile.name, ", ".join(parameters))
