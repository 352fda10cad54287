# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node of a program is, in the words of whoever wrote the model."""

from __future__ import annotations

from collections.abc import Iterator

from bitcourt.lab.cheats import is_gather
from protocol.program import Flat, Fold, Iota, Kind, Node, Program

_FOLDS = {
    Fold.DOT: "sum of products",
    Fold.SUM: "sum",
    Fold.MAX: "maximum",
    Fold.ISUM: "integer sum",
    Fold.IMAX: "integer maximum",
}


def source_of(program: Program, number: int) -> str:
    """Part of the step, kind, shape, and what it serves: `backward pass: sum of products (64, 64),
    64 terms, for model.0.weight`.
    """
    named = [name for name, place in program.names.items() if place == number]
    words = [f"{_part(program, number)}: {_what(program, number)}"]
    words += [name for name in named if name != "sample"]
    tensor = served(program, number)
    if tensor:
        words.append(f"for {tensor}")
    return ", ".join(words)


def state_name(program: Program, tensor: int) -> str:
    """The PyTorch name of a state tensor."""
    known = tensor < len(program.state_names)
    return program.state_names[tensor] if known else f"state tensor {tensor}"


def served(program: Program, number: int) -> str:
    """The state tensor whose update alone a node computes, or "" if it serves several."""
    node = program.nodes[number]
    reached = {number}
    for later in range(number + 1, len(program.nodes)):
        if reached & set(_sources(program.nodes[later])):
            reached.add(later)
    first = program.output(0)
    names = [state_name(program, i - first) for i in sorted(reached) if i >= first]
    # A parameter and the optimizer's tensors for it share the name behind the first dot.
    tails = {name.partition(".")[2] for name in names}
    return names[0] if len(tails) == 1 and node.kind is not Kind.INPUT else ""


def _part(program: Program, number: int) -> str:
    node = program.nodes[number]
    if node.kind in (Kind.INPUT, Kind.CONST, Kind.DATA, Kind.SAMPLE, Kind.STEP, Kind.RAND):
        return "input"
    if node.kind is Kind.OUTPUT:
        return "new state"
    loss = program.names.get("loss")
    if loss is not None and number in _ancestors(program, loss):
        return "forward pass"
    if node.kind is Kind.MAP and all(isinstance(o, Flat) for o in node.body.operands):
        inputs = [program.nodes[o].kind is Kind.INPUT for o in _sources(node)]
        if any(inputs):
            return "optimizer"
    return "backward pass"


def _what(program: Program, number: int) -> str:
    node = program.nodes[number]
    shape = f"({', '.join(str(d) for d in node.shape)})" if node.shape else "scalar"
    if node.kind is Kind.FOLD:
        lanes = f" in {node.lanes} lanes" if node.lanes > 1 else ""
        return f"{_FOLDS[node.fold]} {shape}, {node.terms} terms{lanes}"
    if node.kind in (Kind.INPUT, Kind.OUTPUT):
        tensor = node.index if node.kind is Kind.INPUT else number - program.output(0)
        return f"{state_name(program, tensor)} {shape}"
    if node.kind is Kind.MAP:
        if is_gather(node):
            return f"gather {shape}"
        return f"elementwise {shape}, {len(node.body.instructions)} operations an element"
    return f"{node.kind.name.lower()} {shape}"


def _sources(node: Node) -> Iterator[int]:
    if node.kind is Kind.OUTPUT:
        yield node.index
    elif node.expression is not None:
        yield from (o.source for o in node.expression.operands if not isinstance(o, Iota))


def _ancestors(program: Program, number: int) -> set[int]:
    found, stack = {number}, [number]
    while stack:
        for source in _sources(program.nodes[stack.pop()]):
            if source not in found:
                found.add(source)
                stack.append(source)
    return found
