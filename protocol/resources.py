# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step of a program costs, before anything is allocated for it.

A program that would need absurd memory or time is refused before bidding; the same figures feed
the economics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.errors import ProgramError
from protocol.program import Iota, Kind, Node, Program

_ALIASES: Final = (Kind.INPUT, Kind.CONST, Kind.DATA, Kind.OUTPUT)


def label(program: Program, number: int) -> str:
    """Return how messages name a node: number, kind and fold."""
    node = program.nodes[number]
    name = f"{node.kind.name} {node.fold.name}" if node.kind is Kind.FOLD else node.kind.name
    return f"node {number} ({name})"


@dataclass(frozen=True)
class Resources:
    """What executing one step of a program takes."""

    trace_bytes: int
    """Bytes of the distinct outputs of all nodes (OUTPUT aliases not counted)."""
    largest_bytes: int
    """Bytes of the largest output."""
    state_bytes: int
    """Bytes of the state."""
    primitives: int
    """Evaluations of primitives, fold steps and elements without any (an FMA counts once)."""
    reads: int
    """Operand elements read, IOTA not counted."""


@dataclass(frozen=True)
class Caps:
    """What this machine is willing to spend on one step; the defaults only stop the absurd."""

    trace_bytes: int = 1 << 40
    largest_bytes: int = 1 << 33
    primitives: int = 1 << 50


DEFAULT_CAPS: Final = Caps()


def node_primitives(node: Node) -> int:
    """Return how many primitives one node evaluates; 1 per element where there is none."""
    if node.expression is None:
        return 0 if node.kind in _ALIASES else node.numel
    instructions = len(node.expression.instructions)
    if node.kind is Kind.FOLD:
        return node.numel * node.terms * (instructions + 1)
    return node.numel * max(1, instructions)


def resources(program: Program) -> Resources:
    """Return the cost of one step; shapes need not be valid."""
    sizes = [4 * node.numel for node in program.nodes if node.kind is not Kind.OUTPUT]
    outputs = [4 * node.numel for node in program.nodes if node.kind is Kind.OUTPUT]
    reads = 0
    for node in program.nodes:
        if node.expression is not None:
            sources = sum(not isinstance(operand, Iota) for operand in node.expression.operands)
            reads += sources * node.numel * (node.terms if node.kind is Kind.FOLD else 1)
    return Resources(
        trace_bytes=sum(sizes),
        largest_bytes=max(sizes, default=0),
        state_bytes=sum(outputs),
        primitives=sum(node_primitives(node) for node in program.nodes),
        reads=reads,
    )


def check_resources(program: Program, caps: Caps = DEFAULT_CAPS) -> Resources:
    """Return the cost of one step; raises ProgramError where it is over a cap."""
    cost = resources(program)
    for what in ("trace_bytes", "largest_bytes", "primitives"):
        if getattr(cost, what) > getattr(caps, what):
            number = max(
                range(len(program.nodes)),
                key=lambda i: (
                    node_primitives(program.nodes[i])
                    if what == "primitives"
                    else program.nodes[i].numel
                ),
            )
            raise ProgramError(
                f"a step has {what} = {getattr(cost, what):,}, the cap is "
                f"{getattr(caps, what):,}; {label(program, number)} has the largest share"
            )
    return cost
