# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dispute came down to, in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bitcourt.lab.narration import bits, narrate
from bitcourt.lab.origin import source_of
from protocol import fold as folds
from protocol.agent import Agent
from protocol.dispute import GameView
from protocol.float32 import apply
from protocol.game_view import words
from protocol.market import Market, OpenDispute
from protocol.merkle import leaf_hash
from protocol.program import Fold, Kind, Node, Program
from protocol.question import Proof, ProofKind
from protocol.tensor_tree import CHUNK_ELEMENTS, ELEMENT_BYTES
from protocol.witness import Witness

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
    view = GameView.after([event for event in events if event[0] != "DisputeFinished"])
    last = GameView.after(events)
    report: dict[str, Any] = {
        "id": dispute.id,
        "moves": last.moves,
        "convicted": last.phase.name == "CONVICTED",
        "timed_out": last.timed_out,
        "step": view.context.first_step + view.step,
        "path": narrate(events, program),
    }
    if view.facts is None:
        return report
    node = program.nodes[view.node]
    report |= {"node": view.node, "kind": node.kind.name, "source": source_of(program, view.node)}
    witness = challenger.witness_of(dispute.id)
    if witness is None or last.timed_out or not report["convicted"]:
        return report
    proof = witness.proof(view)
    if proof is None:
        return report
    finding = explain(node, view, proof, witness)
    root = proof.kind == ProofKind.ROOT
    report["path"].append(
        f"the contract finds {finding.recomputed} by {finding.operation}, the solver claimed "
        f"{finding.claimed}"
    )
    return report | {
        "proof": proof.kind.name,
        "op": finding.operation,
        "element": None if root else view.first,
        "term": None if root else view.term,
        "claimed_bits": finding.claimed,
        "recomputed_bits": finding.recomputed,
    }


def explain(node: Node, view: GameView, proof: Proof, witness: Witness) -> Finding:
    """The finding of a one-step proof that convicts; `witness` is the challenger's own replay.

    For a ROOT proof the two values are leaf hashes of tensors, else 32-bit patterns.
    """
    if proof.kind == ProofKind.ROOT:
        right_leaf = leaf_hash(proof.root)
        return Finding(
            f"root of {node.kind.name}", "0x" + view.claim.hex(), "0x" + right_leaf.hex()
        )
    if proof.kind == ProofKind.ELEMENT:
        chunk, offset = divmod(view.first, CHUNK_ELEMENTS)
        data = witness.chunk(view.step, view.node, chunk)
        right = int.from_bytes(data[ELEMENT_BYTES * offset :][:ELEMENT_BYTES], "little")
        return Finding(node.kind.name, bits(view.claimed), bits(right))
    values = words(proof.values)
    body = node.body
    if proof.kind == ProofKind.OPERAND:
        own = witness.values(view.step, view.node, view.first, view.term)
        name = f"operand {proof.index}"
        return Finding(name, bits(values[proof.index]), bits(own[proof.index]))
    registers = [*values[: len(body.operands)], *body.immediates, *values[len(body.operands) :]]
    if proof.kind == ProofKind.INSTRUCTION:
        instruction = body.instructions[proof.index]
        right = apply(instruction.op, *(registers[a] for a in instruction.args))
        claimed = registers[body.first_result + proof.index]
        return Finding(instruction.op.name, bits(claimed), bits(right))
    results = [registers[r] for r in body.results]
    if node.kind == Kind.FOLD:
        right = folds.step(node.fold, view.acc_before, results)
        return Finding(_FOLD_OPS[node.fold], bits(view.claimed), bits(right))
    last = body.instructions[-1].op.name if body.instructions else "copy"
    return Finding(last, bits(view.claimed), bits(results[0]))
