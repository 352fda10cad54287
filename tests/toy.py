# SPDX-License-Identifier: GPL-3.0-or-later
"""Toy programs for tests of the game alone: their arithmetic is that of `mocks/ToyReferee.sol`.

A `World` is a task segment over a toy program; `ToyWitness` knows its truth, `ToyLiar` lies about
one element of one node, from one step on, and shows whatever makes the lie look consistent.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from protocol import fold as folds
from protocol.game_view import ROOT_KINDS, GameView, words
from protocol.merkle import Tree, leaf_hash
from protocol.program import Fold, Kind
from protocol.question import Context, Proof, ProofKind
from protocol.tensor_tree import chunk, tensor_tree

WORD = 0xFFFFFFFF
IDENTITY = 7
GENERATED = (Kind.STEP, Kind.SAMPLE, Kind.RAND)
COMPUTED = (Kind.MAP, Kind.FOLD, *GENERATED)


@dataclass(frozen=True)
class ToyNode:
    kind: Kind
    numel: int
    terms: int = 0
    lanes: int = 0
    index: int = 0

    @property
    def encoding(self) -> bytes:
        fold = Fold.SUM if self.kind is Kind.FOLD else 0
        numbers = (self.numel, self.terms, self.index)
        return bytes([self.kind, fold, self.lanes]) + b"".join(
            number.to_bytes(4, "big") for number in numbers
        )


@dataclass(frozen=True)
class World:
    nodes: tuple[ToyNode, ...]
    n_state: int
    steps: int
    first_step: int
    seed: bytes

    def truth(self, step: int, node: int, element: int, term: int) -> int:
        """What the toy referee computes: any cheap mixture will do."""
        mixed = 0x85EBCA6B * node + 0xC2B2AE35 * element + 0x27D4EB2F * term
        if self.nodes[node].kind not in (Kind.MAP, Kind.FOLD):
            mixed += self.mixer + 0x9E3779B1 * (self.first_step + step)
        return mixed & WORD

    @cached_property
    def mixer(self) -> int:
        return int.from_bytes(self.seed[28:], "big")

    def output(self, state: int) -> int:
        return len(self.nodes) - self.n_state + state

    @cached_property
    def start(self) -> tuple[tuple[int, ...], ...]:
        """The state tensors before the first step."""
        return tuple(
            tuple(self.truth(-7, s, e, 0) for e in range(node.numel))
            for s, node in enumerate(self.nodes[self.output(0) :])
        )

    @cached_property
    def computed(self) -> dict[tuple[int, int], tuple[int, ...]]:
        """True tensors by step and node, shared by all witnesses."""
        return {}

    @cached_property
    def data(self) -> tuple[int, ...]:
        """The only data tensor."""
        numel = next((node.numel for node in self.nodes if node.kind is Kind.DATA), 1)
        return tuple(range(1000, 1000 + numel))

    @cached_property
    def program_tree(self) -> Tree:
        return Tree([leaf_hash(node.encoding) for node in self.nodes])

    def context(self, witness: ToyWitness) -> Context:
        """The dispute about the last state that a witness claims."""
        roots = [self.program_tree.root, bytes(32), roots_tree([root_of(self.data)]).root]
        ends = [witness.state_root(-1), witness.state_root(self.steps - 1)]
        return Context(
            *roots, self.seed, *ends, self.first_step, self.steps,
            len(self.nodes), self.n_state, 0, 1,
        )  # fmt: skip


def random_world(rng: random.Random, steps: int | None = None) -> World:
    """A world with all kinds of nodes and awkward sizes."""
    n_state = rng.choice([1, 1, 2, 3, 17])
    sizes = [rng.choice([1, 3, 255, 256, 257, 600]) for _ in range(n_state)]
    data_numel = rng.choice([1, 300])
    nodes = [ToyNode(Kind.INPUT, numel, index=s) for s, numel in enumerate(sizes)]
    nodes.append(ToyNode(Kind.DATA, data_numel))
    aliased = []
    for numel in sizes:
        kind = rng.choice([Kind.MAP, Kind.FOLD, Kind.FOLD, rng.choice(GENERATED)])
        if kind is Kind.FOLD:
            if numel > 3:  # the time of Python counts
                nodes.append(ToyNode(kind, numel, rng.choice([1, 2]), 1))
            else:
                terms = rng.choice([1, 2, 15, 16, 17, 40, 256, 257, 600])
                nodes.append(ToyNode(kind, numel, terms, rng.choice([1, 16])))
        else:
            nodes.append(ToyNode(kind, numel))
        aliased.append(len(nodes) - 1)
        nodes += [ToyNode(Kind.MAP, 1)] * rng.choice([0, 0, 1, 5])
    nodes += [ToyNode(Kind.OUTPUT, n, index=i) for n, i in zip(sizes, aliased, strict=True)]
    steps = steps or rng.choice([1, 2, 3, 16, 17, 40])
    return World(tuple(nodes), n_state, steps, rng.choice([0, 5, 2**40]), rng.randbytes(32))


def roots_tree(roots: Sequence[bytes]) -> Tree:
    return Tree([leaf_hash(root) for root in roots])


def little(tensor: Sequence[int]) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in tensor)


@lru_cache(maxsize=4096)
def root_of(tensor: tuple[int, ...]) -> bytes:
    return tensor_tree(little(tensor)).root


class ToyWitness:
    """Knows the truth of a world; implements `protocol.witness.Witness`."""

    def __init__(self, world: World) -> None:
        self.world = world
        # One object has one truth and asks for the same tensors again and again.
        self.tensor = lru_cache(maxsize=None)(self._tensor)
        self._roots = lru_cache(maxsize=None)(self._compute_roots)
        self.trace_tree = lru_cache(maxsize=None)(self._trace_tree)

    # Tensors --------------------------------------------------------------------------------------

    def _tensor(self, step: int, node: int) -> tuple[int, ...]:
        here = self.world.nodes[node]
        if here.kind is Kind.INPUT:
            return self.state_tensor(step - 1, here.index)
        if here.kind is Kind.DATA:
            return self.world.data
        if here.kind is Kind.OUTPUT:
            return self.tensor(step, here.index)
        known = self.world.computed
        if (step, node) not in known:
            known[step, node] = tuple(self.element(step, node, e) for e in range(here.numel))
        return known[step, node]

    def element(self, step: int, node: int, e: int) -> int:
        here = self.world.nodes[node]
        if here.kind is not Kind.FOLD:
            return self.world.truth(step, node, e, 0)
        if here.lanes == 1:
            return ~self.chain_result(step, node, e, 0) & WORD
        return ~sum(self.lane_results(step, node, e)) & WORD

    def state_tensor(self, step: int, s: int) -> tuple[int, ...]:
        return self.world.start[s] if step < 0 else self.tensor(step, self.world.output(s))

    # Trees ----------------------------------------------------------------------------------------

    def state_tree(self, step: int) -> Tree:
        states = range(self.world.n_state)
        return roots_tree([root_of(self.state_tensor(step, s)) for s in states])

    def state_root(self, step: int) -> bytes:
        return self.state_tree(step).root

    def step_log(self) -> Tree:
        return roots_tree([self.state_root(step) for step in range(self.world.steps)])

    def _compute_roots(self, step: int) -> list[bytes]:
        return [root_of(self.tensor(step, node)) for node in range(len(self.world.nodes))]

    def _trace_tree(self, step: int) -> Tree:
        return roots_tree(self._roots(step))

    def node_tree(self, step: int, node: int) -> Tree:
        return tensor_tree(little(self.tensor(step, node)))

    def chunk(self, step: int, node: int, index: int) -> bytes:
        return chunk(little(self.tensor(step, node)), index)

    # Folds ----------------------------------------------------------------------------------------

    def accumulators(
        self, step: int, node: int, element: int, lane: int, level: int, chain: int
    ) -> list[int]:
        here = self.world.nodes[node]
        n = folds.lane_terms(here.terms, here.lanes, lane)
        acc, result = IDENTITY, []
        for item in folds.chain_items(n, level, chain):
            if level:
                below = (step, node, element, lane, level - 1, item)
                acc += ToyWitness.accumulators(self, *below)[-1]
            else:
                k = folds.lane_term(here.lanes, lane, item)
                acc += self.world.truth(step, node, element, k)
            acc &= WORD
            result.append(acc)
        return result

    def chain_result(self, step: int, node: int, element: int, lane: int) -> int:
        here = self.world.nodes[node]
        n = folds.lane_terms(here.terms, here.lanes, lane)
        if n == 0:
            return IDENTITY
        top = len(folds.levels(n)) - 1
        return ToyWitness.accumulators(self, step, node, element, lane, top, 0)[-1]

    def lane_results(self, step: int, node: int, element: int) -> list[int]:
        return [self.chain_result(step, node, element, lane) for lane in range(16)]

    def lanes(self, step: int, node: int, element: int) -> list[int]:
        return self.lane_results(step, node, element)

    def values(self, step: int, node: int, element: int, term: int | None) -> list[int]:
        return [self.world.truth(step, node, element, term or 0)]

    # The program and the end ----------------------------------------------------------------------

    def node_encoding(self, node: int) -> bytes:
        return self.world.nodes[node].encoding

    def node_proof(self, node: int) -> list[bytes]:
        return self.world.program_tree.inclusion_proof(node)

    def proof(self, view: GameView) -> Proof | None:
        world, node = self.world, self.world.nodes[view.node]
        if node.kind in ROOT_KINDS:
            return self._root_proof(view, node)
        truth = world.truth(view.step, view.node, view.first, view.item)
        if node.kind not in (Kind.MAP, Kind.FOLD):
            wrong = truth != view.claimed
            return Proof(ProofKind.ELEMENT, 0, node.encoding) if wrong else None
        posted = words(view.posted)
        if len(view.posted) != 4:
            return Proof(ProofKind.RESULT, 0, node.encoding, view.posted)
        if posted[0] != truth:
            return Proof(ProofKind.OPERAND, 0, node.encoding, view.posted)
        result = truth if node.kind is Kind.MAP else view.acc_before + truth & WORD
        wrong = result != view.claimed
        return Proof(ProofKind.RESULT, 0, node.encoding, view.posted) if wrong else None

    def _root_proof(self, view: GameView, node: ToyNode) -> Proof | None:
        if node.kind is Kind.OUTPUT:
            root = root_of(self.tensor(view.step, node.index))
            own = self.trace_tree(view.step)
            proof: Sequence[bytes] = view.opened_trace.inclusion_proof(node.index, own)
        elif node.kind is Kind.INPUT:
            root = root_of(self.state_tensor(view.step - 1, node.index))
            proof = self.state_tree(view.step - 1).inclusion_proof(node.index)
        else:
            root, proof = root_of(self.world.data), []
        if leaf_hash(root) == view.claim:
            return None
        return Proof(ProofKind.ROOT, 0, node.encoding, root=root, root_proof=tuple(proof))


@dataclass(frozen=True)
class Lie:
    """Add `delta` to an element of a node from `step` on; a FOLD pretends that `term` did it."""

    step: int
    node: int
    element: int
    delta: int
    term: int = 0
    posts_truth: bool = False
    """Whether the values posted at last are the true ones or those that the claim needs."""


class ToyLiar(ToyWitness):
    """Claims the lie, and that everything it shows about it adds up."""

    def __init__(self, world: World, lie: Lie) -> None:
        super().__init__(world)
        self.lie = lie

    def _lies(self, step: int, node: int, element: int) -> bool:
        lie = self.lie
        return step >= lie.step and node == lie.node and element == lie.element

    def _tensor(self, step: int, node: int) -> tuple[int, ...]:
        tensor = list(super()._tensor(step, node))
        if step >= self.lie.step and node == self.lie.node:
            tensor[self.lie.element] = tensor[self.lie.element] + self.lie.delta & WORD
        return tuple(tensor)

    @property
    def _shift(self) -> int:
        """What the lie adds to the sum before the toy's final flip of all bits."""
        return -self.lie.delta

    def _on_path(self, node: int, lane: int, level: int, item: int) -> bool:
        lanes = self.world.nodes[node].lanes
        in_lane = self.lie.term // lanes
        return self.lie.term % lanes == lane and in_lane // 256**level == item

    def accumulators(
        self, step: int, node: int, element: int, lane: int, level: int, chain: int
    ) -> list[int]:
        true = super().accumulators(step, node, element, lane, level, chain)
        if not self._lies(step, node, element):
            return true
        shown, shift = [], 0
        for index, value in enumerate(true):
            if self._on_path(node, lane, level, 256 * chain + index):
                shift = self._shift
            shown.append(value + shift & WORD)
        return shown

    def lanes(self, step: int, node: int, element: int) -> list[int]:
        results = self.lane_results(step, node, element)
        if self._lies(step, node, element):
            lane = self.lie.term % 16
            results[lane] = results[lane] + self._shift & WORD
        return results

    def values(self, step: int, node: int, element: int, term: int | None) -> list[int]:
        (value,) = super().values(step, node, element, term)
        if not self._lies(step, node, element) or self.lie.posts_truth:
            return [value]
        return [value + (self.lie.delta if term is None else self._shift) & WORD]


class TwoLies(ToyLiar):
    """Lies about one node and, so that it shows in the state, about an OUTPUT as well."""

    def __init__(self, world: World, lie: Lie, state: int) -> None:
        super().__init__(world, lie)
        self.state = state

    def _tensor(self, step: int, node: int) -> tuple[int, ...]:
        tensor = list(super()._tensor(step, node))
        if step >= self.lie.step and node == self.world.output(self.state) != self.lie.node:
            tensor[0] ^= 0x80000000
        return tuple(tensor)


class FalseState(ToyWitness):
    """Claims a last state that its own, true trace does not give."""

    def state_tree(self, step: int) -> Tree:
        true = super().state_tree(step)
        if step < self.world.steps - 1:
            return true
        leaves = [true.leaf(s) for s in range(true.size)]
        return Tree([*leaves[:-1], leaf_hash(leaves[-1])])


class FalseEnd(ToyWitness):
    """Claims an end state at which its own, true log does not end."""

    def state_root(self, step: int) -> bytes:
        true = super().state_root(step)
        return leaf_hash(true) if step == self.world.steps - 1 else true

    def step_log(self) -> Tree:
        return roots_tree([super(FalseEnd, self).state_root(i) for i in range(self.world.steps)])


def random_liar(world: World, rng: random.Random) -> ToyLiar:
    """A liar about any node at all."""
    summing = [i for i, node in enumerate(world.nodes) if node.kind is Kind.FOLD]
    node = rng.randrange(len(world.nodes))
    if summing and rng.random() < 0.5:
        node = rng.choice(summing)
    here = world.nodes[node]
    lie = Lie(
        rng.randrange(world.steps), node, rng.randrange(here.numel), rng.randrange(1, WORD),
        rng.randrange(max(1, here.terms)), rng.random() < 0.5,
    )  # fmt: skip
    return TwoLies(world, lie, rng.randrange(world.n_state))
