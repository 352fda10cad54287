# SPDX-License-Identifier: GPL-3.0-or-later
"""Disputes that have come down to one point, without the game that leads there.

`Disputed` takes a program, computes its honest trace, and asks about any node, element and term:
the defendant's trace is the honest one up to the disputed node and unknown to the challenger from
there on. `OnChain` puts the same questions to `contracts/Referee.sol`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from protocol import commitments, fold, merkle
from protocol.encoding import encode_node
from protocol.errors import DisputeError, ProgramError
from protocol.float32 import apply
from protocol.merkle import Tree, leaf_hash
from protocol.one_step import (
    Context,
    OpenedTree,
    Proof,
    ProofKind,
    Question,
    TraceEvidence,
    find_proof,
    judge,
    posted_values,
)
from protocol.program import Kind, Node
from protocol.reference import ReferenceExecutor
from protocol.views import result_dtype
from scripts.solc import CONTRACTS, compile_contracts
from tests.evm import DEFAULT_GAS, CallResult, Evm, EvmReverted
from tests.hand_built import SPECIAL_FLOATS, Case

ALIASES = (Kind.INPUT, Kind.CONST, Kind.DATA, Kind.OUTPUT)
EXPRESSIONS = (Kind.MAP, Kind.FOLD)


def open_down_to(tree: Tree, leaf: int) -> OpenedTree:
    """What the defendant of `tree` has shown once `leaf` is in dispute."""
    opened = OpenedTree(tree.size)
    start, count = 0, tree.size
    while count > 1:
        opened.record(start, count, tree.open(start, count))
        child = (leaf - start) // merkle.block_size(count)
        start, count = (
            start + child * merkle.block_size(count),
            merkle.child_leaf_count(count, child),
        )
    assert (start, count) == (leaf, 1)
    return opened


@dataclass(frozen=True)
class Point:
    """A question with what belongs to it: the posted values and the challenger's evidence."""

    context: Context
    question: Question
    values: bytes
    evidence: TraceEvidence
    node: Node

    def claiming(self, values: bytes | None = None, **changes: Any) -> Point:
        """The same point with other claims of the defendant."""
        values = self.values if values is None else values
        question = replace(self.question, values_hash=keccak(values), **changes)
        return replace(self, question=question, values=values)


class Disputed:
    """One step of a program, every point of which can be disputed."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.program = case.program
        self.outputs = ReferenceExecutor(case.program, case.inputs).trace(case.state, case.step)
        self.roots = commitments.tensor_roots(self.outputs)
        self.own = commitments.roots_tree(self.roots)

    @cached_property
    def context(self) -> Context:
        case, program = self.case, self.program
        return Context(
            commitments.program_tree(program).root,
            commitments.inputs_root(case.inputs.constants),
            commitments.inputs_root(case.inputs.data),
            case.inputs.seed,
            bytes(32),
            bytes(32),
            case.step,
            1,
            len(program.nodes),
            program.n_state,
            program.n_const,
            program.n_data,
        )

    def fetch(self, source: int, index: int) -> int:
        return int(self.outputs[source].reshape(-1)[index])

    def point(self, number: int, rng: random.Random) -> Point:
        """An honest claim about a random element (and term) of node `number`."""
        node = self.program.nodes[number]
        # From the disputed node on, the challenger knows nothing of the defendant's trace.
        unknown = [rng.randbytes(32) for _ in self.roots[number:]]
        unknown[0] = leaf_hash(self.roots[number])
        agreed = [leaf_hash(root) for root in self.roots[:number]]
        theirs = Tree([*agreed, *unknown])
        opened = open_down_to(theirs, number)
        evidence = TraceEvidence(
            self.case.state,
            self.case.inputs,
            self.outputs,
            lambda j: opened.inclusion_proof(j, self.own),
        )
        element, term, values = rng.randrange(node.numel), 0, b""
        before = after = 0
        if node.kind in EXPRESSIONS:
            is_fold = node.kind is Kind.FOLD
            term = rng.randrange(node.terms) if is_fold else 0
            values = posted_values(node, element, term if is_fold else None, self.fetch)
            if is_fold:
                before = rng.choice([*SPECIAL_FLOATS, rng.getrandbits(32)])
                after = fold.step(node.fold, before, result_patterns(node, values))
        question = Question(
            commitments.state_root(self.case.state), theirs.root, theirs.leaf(number),
            keccak(values), self.case.step, element, term, number,
            self.fetch(number, element), before, after,
        )  # fmt: skip
        return Point(self.context, question, values, evidence, node)

    def find(self, point: Point) -> Proof | None:
        return find_proof(self.program, point.question, point.values, point.evidence)


def words(values: bytes) -> list[int]:
    return [int.from_bytes(values[at : at + 4], "big") for at in range(0, len(values), 4)]


def pack(values: Iterable[int]) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


def result_patterns(node: Node, values: bytes) -> list[int]:
    body = node.body
    posted = words(values)
    registers = [*posted[: len(body.operands)], *body.immediates, *posted[len(body.operands) :]]
    return [registers[r] for r in body.results]


def lies(point: Point, rng: random.Random) -> list[Point]:
    """Claims at this point that are false, one of each sort that its node allows."""
    question, node = point.question, point.node
    if node.kind in ALIASES:
        return [point.claiming(cursor=rng.randbytes(32))]
    bit = 1 << rng.randrange(32)
    if node.kind not in EXPRESSIONS:
        return [point.claiming(value=question.value ^ bit)]
    result = [point.claiming(point.values + bytes(4))]
    if point.values:
        result.append(point.claiming(point.values[:-1]))
    if node.kind is Kind.MAP:
        result.append(point.claiming(value=question.value ^ bit))
    else:
        result.append(point.claiming(acc_after=question.acc_after ^ bit))
    posted = words(point.values)
    for _ in range(min(len(posted), 3)):
        wrong = list(posted)
        # The sign: no canonicalization makes two patterns that differ in it equal, but for NaNs.
        at = rng.randrange(len(wrong))
        wrong[at] ^= 0x80000000
        if not all(w & 0x7FFFFFFF > 0x7F800000 for w in (wrong[at], posted[at])):
            result.append(point.claiming(pack(wrong)))
    return result


def follow_through(point: Point, operand: int, pattern: int) -> Point:
    """A lie about one operand, with everything after it computed from the lie."""
    node, body = point.node, point.node.body
    posted = words(point.values)
    posted[operand] = pattern
    registers = [*posted[: len(body.operands)], *body.immediates]
    for code in body.instructions:
        registers.append(apply(code.op, *[registers[r] for r in code.args]))
    results = [registers[r] for r in body.results]
    values = pack([*registers[: len(body.operands)], *registers[body.first_result :]])
    if node.kind is Kind.FOLD:
        return point.claiming(
            values, acc_after=fold.step(node.fold, point.question.acc_before, results)
        )
    (value,) = results
    nan = result_dtype(node) == 0 and value & 0x7FFFFFFF > 0x7F800000
    return point.claiming(values, value=0x7FC00000 if nan else value)


# The contract ------------------------------------------------------------------------------------


def type_of(item: dict[str, Any]) -> str:
    """The canonical ABI type of an argument, tuples spelt out."""
    if item["type"].startswith("tuple"):
        inner = ",".join(type_of(part) for part in item["components"])
        return f"({inner})" + item["type"].removeprefix("tuple")
    return str(item["type"])


class OnChain:
    """Referee.sol on a bare EVM, called by function name."""

    def __init__(self) -> None:
        contract = compile_contracts([CONTRACTS / "Referee.sol"])["Referee"]
        self.code = bytes.fromhex(contract["deployed_bytecode"][2:])
        self.evm = Evm()
        self.address = self.evm.deploy(bytes.fromhex(contract["bytecode"][2:]))
        self.functions = {i["name"]: i for i in contract["abi"] if i["type"] == "function"}
        self.errors = {
            keccak(f"{i['name']}({','.join(map(type_of, i['inputs']))})".encode())[:4]: i
            for i in contract["abi"]
            if i["type"] == "error"
        }

    def encode(self, name: str, *arguments: object) -> bytes:
        types = [type_of(item) for item in self.functions[name]["inputs"]]
        return keccak(f"{name}({','.join(types)})".encode())[:4] + encode(types, arguments)

    def send(self, name: str, *arguments: object, gas: int = DEFAULT_GAS) -> CallResult:
        return self.evm.call(self.address, self.encode(name, *arguments), keep=False, gas=gas)

    def call(self, name: str, *arguments: object) -> tuple[Any, ...]:
        outputs = [type_of(item) for item in self.functions[name]["outputs"]]
        return decode(outputs, self.send(name, *arguments).output)

    def error(self, name: str, *arguments: object) -> tuple[Any, ...] | None:
        """Name and arguments of the custom error that a call reverts with, None if it does not."""
        try:
            self.send(name, *arguments)
        except EvmReverted as reverted:
            item = self.errors[reverted.selector]
            types = [type_of(argument) for argument in item["inputs"]]
            return (item["name"], *decode(types, reverted.output[4:]))
        return None

    def verdict(self, point: Point, proof: Proof) -> bool | str:
        """The contract's verdict, or the name of the error that it reverts with."""
        arguments = (point.context.as_abi(), point.question.as_abi(), proof.as_abi())
        try:
            return bool(self.call("convicts", *arguments)[0])
        except EvmReverted as reverted:
            return str(self.errors[reverted.selector]["name"])


def python_verdict(point: Point, proof: Proof) -> bool | None:
    """The verdict of `judge`, None where it raises."""
    try:
        return judge(point.context, point.question, proof)
    except (DisputeError, ProgramError):
        return None


# Dishonest challengers ---------------------------------------------------------------------------


def accusation(disputed: Disputed, point: Point, rng: random.Random) -> Proof:
    """Any proof a challenger might try: real openings of anything, at times bent."""
    program, number = disputed.program, point.question.node
    node = point.node
    if node.kind in ALIASES:
        kinds = [ProofKind.ROOT]
    elif node.kind in EXPRESSIONS:
        kinds = [ProofKind.RESULT, ProofKind.INSTRUCTION, ProofKind.OPERAND, ProofKind.OPERAND]
    else:
        kinds = [ProofKind.ELEMENT]
    kind = rng.choice(kinds) if rng.random() < 0.9 else rng.choice(list(ProofKind))
    encoding = encode_node(node)
    if kind is ProofKind.ROOT:
        named = node.kind if node.kind in ALIASES else Kind.INPUT
        count = {
            Kind.INPUT: program.n_state,
            Kind.CONST: program.n_const,
            Kind.DATA: program.n_data,
            Kind.OUTPUT: number,
        }[named]
        index = node.index if rng.random() < 0.5 else rng.randrange(count)
        root, path = point.evidence.tensor(named, index)
        if named is Kind.OUTPUT:
            path = point.evidence.trace_proof(index)
        return bent(Proof(kind, 0, encoding, root=root, root_proof=tuple(path)), rng)
    limit = {ProofKind.INSTRUCTION: "instructions", ProofKind.OPERAND: "operands"}.get(kind)
    count = len(getattr(node.body, limit)) if limit and node.kind in EXPRESSIONS else 0
    index = rng.randrange(count + 1) if rng.random() < 0.9 else rng.randrange(256)
    proof = Proof(kind, index, encoding, point.values)
    if kind is ProofKind.OPERAND and number:
        operands = node.body.operands if node.kind in EXPRESSIONS else ()
        named_source = getattr(operands[index], "source", 0) if index < len(operands) else 0
        source = named_source if rng.random() < 0.7 else rng.randrange(number)
        place = rng.randrange(program.nodes[source].numel)
        if rng.random() < 0.5:
            place = min(point.question.element, program.nodes[source].numel - 1)
        root, data, chunk_proof = point.evidence.opening(source, place)
        proof = replace(
            proof,
            chunk=data,
            root=root,
            chunk_proof=tuple(chunk_proof),
            root_proof=tuple(point.evidence.trace_proof(source)),
        )
    return bent(proof, rng)


def bent(proof: Proof, rng: random.Random) -> Proof:
    """The same proof, or one with a single part changed."""
    if rng.random() < 0.5:
        return proof
    part = rng.choice(["chunk", "root", "chunk_proof", "root_proof", "values"])
    value = getattr(proof, part)
    if part in ("chunk_proof", "root_proof"):
        changed = rng.choice([value[:-1], (*value, rng.randbytes(32)), value[::-1]])
    elif part == "root":
        changed = rng.randbytes(32)
    else:
        at = rng.randrange(len(value) + 1)
        flipped = value[:at] + bytes([b ^ 1 for b in value[at : at + 1]]) + value[at + 1 :]
        changed = rng.choice([value[:-4], value + bytes(4), flipped])
    return replace(proof, **{part: changed})
