# SPDX-License-Identifier: GPL-3.0-or-later
"""How much work a step of a program is: the floating-point operations that prices refer to.

A *FLOP* is one evaluation of ADD, SUB, MUL, DIV, SQRT, MAX or MIN on f32 values; an FMA is two.
Choices, comparisons, sign changes, conversions and integer primitives are none, so that exp, log
and their like count as the polynomials that they are. A FOLD of K terms counts K times what its
term takes, and K combining steps: two FLOPs a term for DOT, one for SUM and MAX. Of a scatter-add
(specification, "Scatter-add") only the terms that can be other than zero count: each k adds to one
row at most.

The count follows from the program alone, not from how an executor goes about it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, NamedTuple

from protocol.ops import Op
from protocol.program import Flat, Fold, Iota, Kind, Node, Operand, Program, Term, View
from protocol.resources import node_primitives

FLOPS: Final[dict[Op, int]] = {
    Op.ADD: 1, Op.SUB: 1, Op.MUL: 1, Op.DIV: 1, Op.SQRT: 1, Op.MAX: 1, Op.MIN: 1, Op.FMA: 2,
}  # fmt: skip
"""FLOPs of one evaluation; every other primitive is none."""
MOST_SCATTERED: Final = 1 << 24
"""Terms of a scatter beyond which it is folded as any other."""
COMBINING: Final[dict[Fold, int]] = {Fold.DOT: 2, Fold.SUM: 1, Fold.MAX: 1}
"""FLOPs that folding in one term takes; integer folds take none."""


def flops(node: Node) -> int:
    """Return the FLOPs of one node; 0 for leaves and OUTPUT."""
    if node.expression is None:
        return 0
    each = sum(FLOPS.get(code.op, 0) for code in node.expression.instructions)
    if node.kind is not Kind.FOLD:
        return node.numel * each
    rows = _scattered_rows(node)
    return node.numel * node.terms * (each + COMBINING.get(node.fold, 0)) // rows


def program_flops(program: Program) -> int:
    """Return the FLOPs of one step."""
    return sum(flops(node) for node in program.nodes)


def done_primitives(program: Program) -> int:
    """Return how many primitives one step takes, floating-point or not.

    As in `protocol.resources.node_primitives`, but a scatter counts as `flops` has it where an
    executor can visit the matching terms alone: that is what every traced one looks like.
    """
    return sum(node_primitives(node) // _visited_rows(node) for node in program.nodes)


class _Scatter(NamedTuple):
    axis: int
    coordinate: Iota
    row: Operand


def _scatter(node: Node) -> _Scatter | None:
    """Return the output axis along which a FOLD scatters, and what is compared; None if it is none.

    Of a node's operands `coordinate` is that of the output, and `row` says where a term belongs.
    """
    if node.fold is not Fold.SUM or node.kind is not Kind.FOLD or len(node.body.results) != 1:
        return None
    body = node.body
    at = body.results[0] - body.first_result
    if at < 0 or body.instructions[at].op is not Op.WHERE:
        return None
    condition, _, otherwise = body.instructions[at].args
    immediate = otherwise - len(body.operands)
    test = condition - body.first_result
    if not 0 <= immediate < len(body.immediates) or body.immediates[immediate] != 0 or test < 0:
        return None
    if body.instructions[test].op is not Op.IEQ:
        return None
    for iota, index in (body.instructions[test].args, body.instructions[test].args[::-1]):
        if max(iota, index) >= len(body.operands):
            continue
        coordinate = body.operands[iota]
        axes = _axes(coordinate)
        if isinstance(coordinate, Iota) and len(axes) == 1 and max(axes) < len(node.shape):
            (axis,) = axes
            if axis not in _axes(body.operands[index]):
                return _Scatter(axis, coordinate, body.operands[index])
    return None


def _scattered_rows(node: Node) -> int:
    """Return among how many rows a scatter-add spreads its terms; 1 if the node is none."""
    found = _scatter(node)
    return 1 if found is None else node.shape[found.axis]


def _visited_rows(node: Node) -> int:
    """Return `_scattered_rows` if an executor can tell each term's row from the term alone."""
    found = _scatter(node)
    if found is None or node.lanes != 1 or node.terms > MOST_SCATTERED:
        return 1
    own = {axis for axis in _axes(found.row) if axis < len(node.shape)}
    plain = found.coordinate == Iota((Term(found.axis, 1),), 0)
    return node.shape[found.axis] if plain and not own else 1


def _axes(operand: Operand) -> set[int]:
    if isinstance(operand, Flat):
        return set()
    terms = (
        operand.terms
        if isinstance(operand, Iota)
        else [term for dim in operand.dims for term in dim.terms]
    )
    return {term.axis for term in terms}


def family(node: Node) -> str:
    """Return what kind of operation a node is, in a user's words."""
    if node.expression is None:
        return "random" if node.kind in (Kind.RAND, Kind.SAMPLE) else "leaf"
    views = [operand for operand in node.expression.operands if isinstance(operand, View)]
    if node.kind is Kind.FOLD:
        if node.fold is Fold.DOT:
            windows = any(len(dim.terms) > 1 for view in views for dim in view.dims)
            return "convolution" if windows else "matmul"
        return "scatter" if _scattered_rows(node) > 1 else "reduction"
    if any(axis >= 0x80 for view in views for axis in _axes(view)):
        return "gather"
    return "elementwise" if node.expression.instructions else "copy"


@dataclass(frozen=True)
class Work:
    """What one step of a program takes; sizes in bytes."""

    flops: int
    flops_by_family: dict[str, int]
    nodes_by_family: dict[str, int]
    nodes_by_kind: dict[str, int]
    parameter_bytes: int
    """State tensors of the module (parameters and changing buffers)."""
    state_bytes: int
    """All state tensors, the optimizer's included."""
    trace_bytes: int
    """Outputs of all nodes together: what a dispute about one step hashes."""
    live_bytes: int
    """The most that computed outputs take at a time, each freed after its last reader."""


def work(program: Program) -> Work:
    """Return what one step of a valid program takes."""
    by_family: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    for node in program.nodes:
        by_family[family(node)] += flops(node)
        counted[family(node)] += 1
    state = [4 * program.state_node(s).numel for s in range(program.n_state)]
    names = program.state_names or ("",) * program.n_state
    return Work(
        flops=program_flops(program),
        flops_by_family={name: count for name, count in by_family.most_common() if count},
        nodes_by_family=dict(counted.most_common()),
        nodes_by_kind=dict(Counter(node.kind.name for node in program.nodes).most_common()),
        parameter_bytes=sum(
            size for size, name in zip(state, names, strict=True) if name.startswith("model.")
        ),
        state_bytes=sum(state),
        trace_bytes=sum(4 * n.numel for n in program.nodes if n.kind is not Kind.OUTPUT),
        live_bytes=_live_bytes(program),
    )


def _live_bytes(program: Program) -> int:
    last = list(range(len(program.nodes)))
    for number, node in enumerate(program.nodes):
        operands = node.expression.operands if node.expression is not None else ()
        for operand in operands:
            if not isinstance(operand, Iota):
                last[operand.source] = number
        if node.kind is Kind.OUTPUT:
            last[node.index] = len(program.nodes)
    ending: dict[int, list[int]] = {}
    for number, end in enumerate(last):
        ending.setdefault(end, []).append(number)
    sizes = [
        4 * node.numel if node.kind in (Kind.MAP, Kind.FOLD, Kind.RAND) else 0
        for node in program.nodes
    ]
    live = most = 0
    for number in range(len(program.nodes)):
        live += sizes[number]
        most = max(most, live)
        live -= sum(sizes[dead] for dead in ending.get(number, ()))
    return most
