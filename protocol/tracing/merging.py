# SPDX-License-Identifier: GPL-3.0-or-later
"""Sums of products over time steps as one product.

Backward through an unrolled recurrence accumulates the gradient of a weight as `X_1' Y_1 + X_2' Y_2
+ ...`, one small product for each step, each of which writes a whole gradient. Where to concatenate
the factors is cheaper, it becomes `[X_1; X_2; ..]' [Y_1; Y_2; ..]`, and the sums over the rows of
the same factors (the gradients of biases) likewise. The order of a sum is the program's own choice,
as long as it is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx

from protocol.program import Shape

aten = torch.ops.aten

LEAST: Final = 4
"""Summands that are worth merging."""
_MOVES: Final = (aten.permute.default, aten.t.default, aten.view.default, aten.alias.default)


@dataclass(frozen=True)
class _Term:
    """A summand: moves applied to the product, or to the sum over the rows, of `factors`."""

    node: fx.Node
    moves: tuple[fx.Node, ...]
    target: object
    factors: tuple[fx.Node, ...]

    @property
    def kind(self) -> object:
        """What summands have in common if they can be merged."""
        moves = tuple((m.target, repr(m.args[1:])) for m in self.moves)
        return self.target, moves, tuple(_shape(f)[1:] for f in self.factors)


def merge_sums(graph: fx.Graph) -> None:
    """Rewrite such sums in a captured graph; what they were made of is left unused."""
    joins = _Joins(graph)
    roots = [node for node in graph.nodes if _is_sum(node) and not _continues(node)]
    for target in (aten.mm.default, aten.sum.dim_IntList):  # sums reuse what products concatenate
        for root in roots:
            if root.users:
                _merge(joins, root, target)


def _merge(joins: _Joins, root: fx.Node, target: object) -> None:
    leaves = list(_leaves(root))
    groups: dict[object, list[_Term]] = {}
    for leaf in leaves:
        term = _term(leaf)
        if term is not None and term.target is target:
            groups.setdefault(term.kind, []).append(term)
    merged = [joins.ordered(group) for group in groups.values() if joins.pays(group)]
    if not merged:
        return
    gone = {term.node for group in merged for term in group}
    with joins.graph.inserting_before(root):
        parts = [joins.merged(group) for group in merged]
        parts += [leaf for leaf in leaves if leaf not in gone]
        total = parts[0]
        for part in parts[1:]:
            total = joins.call(aten.add.Tensor, (total, part), _shape(root))
    root.replace_all_uses_with(total)


def _shape(node: fx.Node) -> Shape:
    return tuple(node.meta["val"].shape)


def _is_sum(node: fx.Node) -> bool:
    """Whether a node adds two tensors of its own shape."""
    plain = node.target is aten.add.Tensor and not node.kwargs
    return plain and all(isinstance(a, fx.Node) and _shape(a) == _shape(node) for a in node.args)


def _continues(node: fx.Node) -> bool:
    """Whether a sum is a mere part of a longer one."""
    return len(node.users) == 1 and _is_sum(next(iter(node.users)))


def _leaves(root: fx.Node) -> Iterator[fx.Node]:
    """Yield the summands of a sum, from left to right."""
    stack: list[Any] = [root]
    while stack:
        node = stack.pop()
        if node is root or (_is_sum(node) and _continues(node)):
            stack.extend(reversed(node.args))
        else:
            yield node


def _term(leaf: fx.Node) -> _Term | None:
    """Return what a summand is made of, if it is a product over rows or a sum of rows."""
    node, moves = leaf, []
    while node.target in _MOVES:
        moves.append(node)
        (node, *_) = node.all_input_nodes
    if node.target is aten.mm.default:
        turned, right = node.args
        if turned.target is aten.permute.default and list(turned.args[1]) == [1, 0]:  # type: ignore[union-attr, arg-type]
            return _Term(leaf, tuple(moves), node.target, (turned.args[0], right))  # type: ignore[union-attr, arg-type]
    if node.target is aten.sum.dim_IntList and not node.kwargs:
        rows, dims, *_ = node.args
        if list(dims) == [0] and len(_shape(rows)) == 2:  # type: ignore[arg-type]
            return _Term(leaf, tuple(moves), node.target, (rows,))  # type: ignore[arg-type]
    return None


class _Joins:
    """Concatenations along the first axis, those that the graph has and those that are added."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self._found: dict[fx.Node, list[list[fx.Node]]] = {}
        for node in graph.nodes:
            if node.target is aten.cat.default and (len(node.args) < 2 or node.args[1] == 0):
                for piece in node.args[0]:
                    self._found.setdefault(piece, []).append(list(node.args[0]))

    def _known(self, nodes: Sequence[fx.Node]) -> list[fx.Node] | None:
        """Return these nodes in an order in which they are concatenated anyway."""
        for pieces in self._found.get(nodes[0], []):
            if len(pieces) == len(nodes) and set(pieces) == set(nodes):
                return pieces
        return None

    def pays(self, group: Sequence[_Term]) -> bool:
        """Whether merging writes less than the summands do by themselves."""
        if len(group) < LEAST or len({term.factors[0] for term in group}) < len(group):
            return False
        known = self._known([term.factors[0] for term in group]) is not None
        if group[0].target is aten.sum.dim_IntList:
            return known
        (rows, m), (_, n) = map(_shape, group[0].factors)
        return rows * (n + (0 if known else m)) <= m * n

    def ordered(self, group: Sequence[_Term]) -> list[_Term]:
        """Return the terms as they are concatenated already, or the first time step first."""
        known = self._known([term.factors[0] for term in group])
        if known is None:
            return list(reversed(group))  # autograd meets the last time step first
        return sorted(group, key=lambda term: known.index(term.factors[0]))

    def merged(self, group: Sequence[_Term]) -> fx.Node:
        """Add the one term that a group becomes."""
        factors = [self._join(nodes) for nodes in zip(*(t.factors for t in group), strict=True)]
        left, first = factors[0], group[0]
        rows, width = _shape(left)
        if first.target is aten.mm.default:
            turned = self.call(aten.permute.default, (left, [1, 0]), (width, rows))
            shape: Shape = (width, _shape(factors[1])[1])
            made = self.call(aten.mm.default, (turned, factors[1]), shape)
        else:
            made = self.call(aten.sum.dim_IntList, (left, [0], True), (1, width))
        for move in reversed(first.moves):
            made = self.call(move.target, (made, *move.args[1:]), _shape(move))
        return made

    def _join(self, nodes: tuple[fx.Node, ...]) -> fx.Node:
        """Add the concatenation of nodes; equal ones become one node of the program."""
        shape = (sum(_shape(n)[0] for n in nodes), *_shape(nodes[0])[1:])
        made = self.call(aten.cat.default, (self._pieces(list(nodes)),), shape)
        for piece in nodes:
            self._found.setdefault(piece, []).append(list(nodes))
        return made

    def _pieces(self, nodes: list[fx.Node]) -> list[fx.Node]:
        """Return what to concatenate: a slice of what the forward pass did where all but one fit.

        The inputs of a recurrence are its outputs, moved by one step.
        """
        if nodes in self._found.get(nodes[0], []):
            return nodes
        for run in (nodes[1:], nodes[:-1]):
            for pieces in self._found.get(run[0], []):
                start = pieces.index(run[0])
                if pieces[start : start + len(run)] == run:
                    low = sum(_shape(n)[0] for n in pieces[:start])
                    count = sum(_shape(n)[0] for n in run)
                    shape = (sum(_shape(n)[0] for n in pieces), *_shape(nodes[0])[1:])
                    whole = self.call(aten.cat.default, (pieces,), shape)
                    sliced = (count, *shape[1:])
                    part = self.call(aten.slice.Tensor, (whole, 0, low, low + count), sliced)
                    return [nodes[0], part] if run == nodes[1:] else [part, nodes[-1]]
        return nodes

    def call(self, target: Any, args: tuple[Any, ...], shape: Shape) -> fx.Node:
        """Add a call that returns f32 of this shape."""
        node = self.graph.call_function(target, args)
        node.meta["val"] = torch.empty(shape, device="meta")
        return node
