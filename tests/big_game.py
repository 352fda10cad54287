# SPDX-License-Identifier: GPL-3.0-or-later
"""A dispute of the size that the gas targets name, made of trees whose other leaves are noise.

4,096 steps, 200 state tensors, 4,096 nodes, tensors of 2^24 elements and a DOT over 65,536 terms.
The two witnesses agree about everything but the path down to one term, whose first operand the
liar posts wrongly; so the game takes every kind of move with the real referee.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from protocol import fold as folds
from protocol.encoding import encode_node
from protocol.game_view import GameView
from protocol.merkle import Tree, leaf_hash
from protocol.one_step import find_proof
from protocol.program import Dim, DType, Expression, Fold, Kind, Node, Program, Term, View
from protocol.question import Context, Proof

STEPS, STATES, NODES = 4096, 200, 4096
STEP, STATE, NODE, CHUNK, ELEMENT = 4000, 150, 3800, 65_000, 65_000 * 256 + 77
SOURCES, STEP_INPUT = (1700, 3000), 1234
TERMS, SIDE = 65_536, 4096
LAST = TERMS - 1
LEFT, RIGHT = 0x3F9D3A71, 0x3E1CC7B5
FALSE_LEFT = 0x45123457  # large enough to show in the sum of all terms
CHUNKS: Final = SIDE * SIDE // 256


def _operand(source: int) -> View:
    return View(source, (Dim(SIDE * SIDE // TERMS, (), 3), Dim(TERMS, (Term(2, 1),))))


DOT: Final = Node(
    Kind.FOLD, DType.F32, (SIDE, SIDE), fold=Fold.DOT, reduce=(TERMS,),
    expression=Expression((_operand(SOURCES[0]), _operand(SOURCES[1])), results=(0, 1)),
)  # fmt: skip
FILLER: Final = Node(Kind.INPUT, DType.F32, (SIDE, SIDE))
PROGRAM: Final = Program(
    tuple(DOT if number == NODE else FILLER for number in range(NODES)), STATES
)  # fmt: skip


def noise(count: int, seed: int) -> list[bytes]:
    """Roots of things that nobody will ever look at."""
    rng = random.Random(seed)
    return [rng.randbytes(32) for _ in range(count)]


def words(value: int, count: int) -> bytes:
    return value.to_bytes(4, "little") * count


@lru_cache
def source_tree(source: int) -> Tree:
    leaf = leaf_hash(words(LEFT if source == SOURCES[0] else RIGHT, 256))
    return Tree([leaf] * CHUNKS)


@lru_cache
def true_chain() -> tuple[list[int], list[int]]:
    """The last chain of terms, and the chain of all chains' results; all terms are equal."""
    bottom = folds.accumulators(Fold.DOT, 256, 0, 0, lambda _: (LEFT, RIGHT))
    acc, top = 0, []
    for _ in range(TERMS // 256):
        acc = folds.combine(Fold.DOT, acc, bottom[-1])
        top.append(acc)
    return bottom, top


@lru_cache
def program_tree() -> Tree:
    return Tree([leaf_hash(encode_node(node)) for node in PROGRAM.nodes])


class BigWitness:
    """Honest about everything, or false about one term (`lies`)."""

    def __init__(self, lies: bool) -> None:
        self.lies = lies
        bottom, top = true_chain()
        if lies:
            last = folds.step(Fold.DOT, bottom[-2], (FALSE_LEFT, RIGHT))
            bottom = [*bottom[:-1], last]
            top = [*top[:-1], folds.combine(Fold.DOT, top[-2], last)]
        self._bottom, self._top = bottom, top
        element = folds.finish(Fold.DOT, top[-1])
        rng = random.Random(1)
        self._chunk = rng.randbytes(4 * 77) + words(element, 1) + rng.randbytes(1024 - 4 * 78)
        chunks = [leaf_hash(item) for item in noise(CHUNKS, 2)]
        chunks[CHUNK] = leaf_hash(self._chunk)
        self._chunks = Tree(chunks)
        self._trace = noise(NODES, 3)
        for source in SOURCES:
            self._trace[source] = source_tree(source).root
        self._trace[NODE] = self._chunks.root
        # The trace's output and the state tensor are one root; any difference will do.
        self._state = noise(STATES, 4)
        if lies:
            self._state[STATE] = leaf_hash(b"lie")
        self._trace[NODES - STATES :] = self._state
        self._before = noise(STATES, 9)
        self._log = noise(STEPS, 5)
        self._log[STEP - 1 : STEP + 1] = [self.state_tree(s).root for s in (STEP - 1, STEP)]
        if lies:
            self._log[STEP + 1 :] = noise(STEPS - STEP - 1, 6)

    def step_log(self) -> Tree:
        return _tree(tuple(self._log))

    def state_root(self, step: int) -> bytes:
        return self._log[step] if step >= 0 else leaf_hash(b"start")

    def state_tree(self, step: int) -> Tree:
        assert step in (STEP - 1, STEP)
        return _tree(tuple(self._state if step == STEP else self._before))

    def before(self, tensor: int) -> bytes:
        """The root of a tensor of the state before the step."""
        return self._before[tensor]

    def trace_tree(self, step: int) -> Tree:
        assert step == STEP
        return _tree(tuple(self._trace))

    def node_tree(self, step: int, node: int) -> Tree:
        assert (step, node) == (STEP, NODE)
        return self._chunks

    def chunk(self, step: int, node: int, index: int) -> bytes:
        assert (step, node, index) == (STEP, NODE, CHUNK)
        return self._chunk

    def lanes(self, step: int, node: int, element: int) -> list[int]:
        raise NotImplementedError("the fold has one lane")

    def accumulators(
        self, step: int, node: int, element: int, lane: int, level: int, chain: int
    ) -> list[int]:
        assert (step, node, element, lane) == (STEP, NODE, ELEMENT, 0)
        return self._top if level else self._bottom

    def values(self, step: int, node: int, element: int, term: int | None) -> list[int]:
        assert (step, node, element, term) == (STEP, NODE, ELEMENT, LAST)
        return [FALSE_LEFT if self.lies else LEFT, RIGHT]

    def node_encoding(self, node: int) -> bytes:
        return encode_node(PROGRAM.nodes[node])

    def node_proof(self, node: int) -> list[bytes]:
        return program_tree().inclusion_proof(node)

    def proof(self, view: GameView) -> Proof | None:
        return find_proof(PROGRAM, view.question, view.posted, _Evidence(self, view))

    def context(self) -> Context:
        """The dispute about the last state that this witness claims."""
        roots = [program_tree().root, *noise(3, 8), self.state_root(-1), self._log[-1]]
        return Context(*roots, 10**6, STEPS, NODES, STATES, 100, 100)  # type: ignore[arg-type]


class FalseState(BigWitness):
    """Claims another state than its true trace gives."""

    def __init__(self) -> None:
        super().__init__(lies=False)
        self._state = [*self._state[:-1], leaf_hash(b"lie")]
        self._log[STEP:] = [self.state_tree(STEP).root, *noise(STEPS - STEP - 1, 6)]


class FalseInput(FalseState):
    """Begins from another tensor than the state before the step has, and ends accordingly."""

    def __init__(self) -> None:
        super().__init__()
        self._trace[STEP_INPUT] = leaf_hash(b"lie")
        self._trace[NODES - STATES :] = self._state


class FalseEnd(BigWitness):
    """Claims another end than its true log has."""

    def __init__(self) -> None:
        super().__init__(lies=False)

    def context(self) -> Context:
        return replace(super().context(), end_root=leaf_hash(b"lie"))


class _Evidence:
    """Openings of the two operands, both of them constant tensors."""

    def __init__(self, own: BigWitness, view: GameView) -> None:
        self.own, self.view = own, view

    def element(self, node: int, index: int) -> int:
        return LEFT if node == SOURCES[0] else RIGHT

    def opening(self, node: int, index: int) -> tuple[bytes, bytes, Sequence[bytes]]:
        tree = source_tree(node)
        data = words(self.element(node, index), 256)
        return tree.root, data, tree.inclusion_proof(index // 256)

    def trace_proof(self, node: int) -> Sequence[bytes]:
        return self.view.opened_trace.inclusion_proof(node, self.own.trace_tree(STEP))

    def tensor(self, kind: Kind, index: int) -> tuple[bytes, Sequence[bytes]]:
        assert kind is Kind.INPUT
        tree = self.own.state_tree(STEP - 1)
        return self.own.before(index), tree.inclusion_proof(index)


@lru_cache(maxsize=16)
def _tree(roots: tuple[bytes, ...]) -> Tree:
    return Tree([leaf_hash(root) for root in roots])
