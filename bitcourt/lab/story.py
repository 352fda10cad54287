# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dispute came down to, in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocol import fold as folds
from protocol.agent import Agent
from protocol.dispute import GameView
from protocol.float32 import apply
from protocol.game_view import words
from protocol.market import Market, OpenDispute
from protocol.program import Fold, Kind, Node, Program
from protocol.question import Proof, ProofKind

_FOLD_OPS = {
    Fold.DOT: "FMA",
    Fold.SUM: "ADD",
    Fold.MAX: "MAX",
    Fold.ISUM: "IADD",
    Fold.IMAX: "IMAX",
}


@dataclass(frozen=True)
class Finding:
    """The wrong value: which operation, what was claimed, what the contract computed."""

    operation: str
    claimed: str
    recomputed: str


def find_dispute(
    market: Market, dispute: OpenDispute, program: Program, challenger: Agent
) -> dict[str, Any]:
    """The report of a finished dispute. `challenger` made the moves of the challenging side."""
    events = market.game_events(dispute)
    view = GameView.created(events[0][1])
    for name, values in events[1:]:
        if name == "DisputeFinished":
            break
        view.apply(name, values)
    last = GameView.created(events[0][1])
    for name, values in events[1:]:
        last.apply(name, values)
    report: dict[str, Any] = {
        "id": dispute.id,
        "moves": len(events) - 1,
        "convicted": last.phase.name == "CONVICTED",
        "timed_out": last.timed_out,
        "step": view.context.first_step + view.step,
    }
    if view.facts is None:
        return report
    node = program.nodes[view.node]
    report |= {"node": view.node, "kind": node.kind.name, "source": source_of(program, view.node)}
    witness = challenger.witness_of(dispute.id)
    proof = witness.proof(view) if witness is not None and not last.timed_out else None
    if proof is None:
        return report
    finding = explain(node, view, proof)
    root = proof.kind == ProofKind.ROOT
    return report | {
        "proof": proof.kind.name,
        "op": finding.operation,
        "element": None if root else view.first,
        "term": None if root else view.term,
        "claimed_bits": finding.claimed,
        "recomputed_bits": finding.recomputed,
    }


def explain(node: Node, view: GameView, proof: Proof) -> Finding:
    """The finding of a one-step proof that convicts."""
    values = words(proof.values)
    if proof.kind == ProofKind.ROOT:
        return Finding(node.kind.name, f"leaf {_hex(view.claim)}", f"root {_hex(proof.root)}")
    if proof.kind == ProofKind.ELEMENT:
        return Finding(node.kind.name, _bits(view.claimed), "computed from seed and step")
    if proof.kind == ProofKind.OPERAND:
        return Finding(
            f"operand {proof.index}", _bits(values[proof.index]), "opened from the trace"
        )
    body = node.body
    registers = [*values[: len(body.operands)], *body.immediates, *values[len(body.operands) :]]
    if proof.kind == ProofKind.INSTRUCTION:
        instruction = body.instructions[proof.index]
        right = apply(instruction.op, *(registers[a] for a in instruction.args))
        claimed = registers[body.first_result + proof.index]
        return Finding(instruction.op.name, _bits(claimed), _bits(right))
    results = [registers[r] for r in body.results]
    if node.kind == Kind.FOLD:
        right = folds.step(node.fold, view.acc_before, results)
        return Finding(_FOLD_OPS[node.fold], _bits(view.claimed), _bits(right))
    last = body.instructions[-1].op.name if body.instructions else "copy"
    return Finding(last, _bits(view.claimed), _bits(results[0]))


def source_of(program: Program, node: int) -> str:
    """Where in the torch program a node came from, as far as the tracer named it."""
    named = [name for name, number in program.names.items() if number == node]
    return ", ".join(named) if named else f"node {node}"


def _bits(value: int) -> str:
    return f"0x{value:08x}"


def _hex(value: bytes) -> str:
    return "0x" + value.hex()[:16] + "..."
