# SPDX-License-Identifier: GPL-3.0-or-later
"""What contracts/Referee.sol refuses, by the name and arguments of its errors."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from eth_utils.crypto import keccak

from protocol.encoding import encode_node
from protocol.errors import DisputeError, ProgramError
from protocol.merkle import Tree, leaf_hash
from protocol.one_step import Context, Proof, ProofKind, Question, judge
from protocol.ops import Op
from protocol.program import INDIRECT, Dim, DType, Flat, Fold, Iota, Kind, Node, Term, View
from tests.disputed import (
    ALIASES,
    EXPRESSIONS,
    Disputed,
    OnChain,
    Point,
    follow_through,
    python_verdict,
)
from tests.hand_built import HAND_BUILT, Builder, case_of, expression

I32 = DType.I32
ZERO = bytes(32)


@pytest.fixture(scope="module")
def referee() -> OnChain:
    return OnChain()


def two_chunks() -> Disputed:
    """A MAP over 300 elements: a full chunk and one of 176 bytes."""
    b = Builder()
    x, y = b.leaf(Kind.INPUT, (300,)), b.leaf(Kind.DATA, (300,))
    out = b.map((300,), expression([Flat(x), Flat(y)], (Op.ADD, (0, 1))))
    return Disputed(case_of(b.finish([out]), seed=2, wild=False))


def lie_at(disputed: Disputed, element: int) -> tuple[Point, Proof]:
    rng = random.Random(5)
    honest = disputed.point(2, rng)
    while honest.question.element != element:
        honest = disputed.point(2, rng)
    lie = follow_through(honest, 1, 0x40490FDB)
    proof = disputed.find(lie)
    assert proof is not None
    return lie, proof


def refusal(referee: OnChain, point: Point, proof: Proof) -> tuple[object, ...] | None:
    assert python_verdict(point, proof) is None
    arguments = (point.context.as_abi(), point.question.as_abi(), proof.as_abi())
    return referee.error("convicts", *arguments)


def test_openings_that_do_not_fit_are_refused_by_name(referee: OnChain) -> None:
    disputed = two_chunks()
    lie, proof = lie_at(disputed, 299)
    assert referee.verdict(lie, proof) is True
    wrong = {
        "chunk": [("InvalidChunkLength", 176, 177), ("InvalidChunkLength", 176, 172)],
        "chunk_proof": [("InvalidChunkProof", 1, 2)] * 2,
        "root_proof": [("InvalidRootProof", 1, 4)] * 2,
    }
    for part, errors in wrong.items():
        value = getattr(proof, part)
        longer = value + bytes(1) if part == "chunk" else (*value, ZERO)
        shorter = value[:-4] if part == "chunk" else value[:-1]
        for changed, error in zip((longer, shorter), errors, strict=True):
            assert refusal(referee, lie, replace(proof, **{part: changed})) == error
    flipped = bytes([proof.chunk[0] ^ 1]) + proof.chunk[1:]
    assert refusal(referee, lie, replace(proof, chunk=flipped)) == ("InvalidChunkProof", 1, 2)
    assert refusal(referee, lie, replace(proof, root=ZERO)) == ("InvalidChunkProof", 1, 2)


def test_another_chunk_or_tensor_cannot_stand_in(referee: OnChain) -> None:
    """The place comes from the node: a true opening of any other place is refused."""
    disputed = two_chunks()
    lie, proof = lie_at(disputed, 299)
    root, data, path = lie.evidence.opening(1, 10)
    other = replace(proof, chunk=data, root=root, chunk_proof=tuple(path))
    assert refusal(referee, lie, other) == ("InvalidChunkLength", 176, 1024)
    root, data, path = lie.evidence.opening(0, 299)
    other = replace(
        proof,
        chunk=data,
        root=root,
        chunk_proof=tuple(path),
        root_proof=tuple(lie.evidence.trace_proof(0)),
    )
    assert refusal(referee, lie, other) == ("InvalidRootProof", 1, 4)


def test_indexes_out_of_range_are_refused_by_name(referee: OnChain) -> None:
    disputed = two_chunks()
    lie, proof = lie_at(disputed, 299)
    assert refusal(referee, lie, replace(proof, index=2)) == ("OperandOutOfRange", 2, 2)
    bad = replace(proof, kind=ProofKind.INSTRUCTION, index=1)
    assert refusal(referee, lie, bad) == ("InstructionOutOfRange", 1, 1)
    outside = replace(lie, question=replace(lie.question, element=300))
    assert refusal(referee, outside, proof) == ("ElementOutOfRange", 300, 300)


def test_a_term_outside_the_fold_is_refused(referee: OnChain) -> None:
    disputed = Disputed(case_of(HAND_BUILT["matmul"]()))
    honest = disputed.point(2, random.Random(6))
    outside = replace(honest, question=replace(honest.question, term=7))
    proof = Proof(ProofKind.RESULT, 0, encode_node(honest.node), honest.values)
    assert refusal(referee, outside, proof) == ("TermOutOfRange", 7, 7)


def test_other_values_than_the_posted_ones_are_refused(referee: OnChain) -> None:
    """The challenger cannot put words into the defendant's mouth, for any kind of proof."""
    disputed = two_chunks()
    lie, proof = lie_at(disputed, 3)
    for kind in (ProofKind.RESULT, ProofKind.INSTRUCTION, ProofKind.OPERAND):
        for values in (b"", proof.values + bytes(4), proof.values[::-1]):
            bad = replace(proof, kind=kind, index=0, values=values)
            error = refusal(referee, lie, bad)
            assert error == ("ValuesMismatch", keccak(proof.values), keccak(values))


def test_values_of_a_wrong_length_convict_by_result_only(referee: OnChain) -> None:
    disputed = two_chunks()
    honest = disputed.point(2, random.Random(7))
    encoding = encode_node(honest.node)
    for values in (b"", honest.values[:-1], honest.values + bytes(1)):
        lie = honest.claiming(values)
        assert referee.verdict(lie, Proof(ProofKind.RESULT, 0, encoding, values)) is True
        for kind in (ProofKind.INSTRUCTION, ProofKind.OPERAND):
            error = refusal(referee, lie, Proof(kind, 0, encoding, values))
            assert error == ("InvalidValuesLength", 12, len(values))


def test_proof_kinds_apply_to_their_nodes_only(referee: OnChain) -> None:
    disputed = Disputed(case_of(HAND_BUILT["every view"]()))
    rng = random.Random(8)
    seen = set()
    for number, node in enumerate(disputed.program.nodes):
        if node.kind in seen:
            continue
        seen.add(node.kind)
        point = disputed.point(number, rng)
        for kind in range(7):
            fits = (node.kind in EXPRESSIONS, node.kind in ALIASES)
            if (kind <= 2, kind == 4) == fits and kind < 5:
                continue
            proof = Proof(ProofKind.ROOT, 0, encode_node(node), point.values)
            abi = (kind, *proof.as_abi()[1:])
            error = referee.error("convicts", point.context.as_abi(), point.question.as_abi(), abi)
            assert error == ("ProofDoesNotApply", kind, int(node.kind))
    assert seen == set(Kind)


def test_forward_references_are_refused(referee: OnChain) -> None:
    rng = random.Random(9)
    for reference in (5, 6, 9):
        mapped = Node(Kind.MAP, DType.F32, (1,), expression=expression([Flat(reference)]))
        alias = Node(Kind.OUTPUT, DType.F32, (1,), index=reference)
        tensor = rng.randbytes(4)
        root = leaf_hash(tensor)
        trace = Tree([leaf_hash(root)] * 10)
        context = Context(ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, 0, 1, 10, 1, 0, 0)
        values = bytes(4)
        question = Question(ZERO, trace.root, ZERO, keccak(values), 0, 0, 0, 5, 0, 0, 0)
        path = tuple(trace.inclusion_proof(reference))
        for proof in (
            Proof(ProofKind.OPERAND, 0, encode_node(mapped), values, tensor, root, (), path),
            Proof(ProofKind.ROOT, 0, encode_node(alias), root=root, root_proof=path),
        ):
            with pytest.raises(DisputeError):
                judge(context, question, proof)
            error = referee.error("convicts", context.as_abi(), question.as_abi(), proof.as_abi())
            assert error == ("ForwardReference", reference, 5)


def test_tensors_that_do_not_exist_have_no_root(referee: OnChain) -> None:
    """A program without constants has the constant root 0 and count 0: nothing proves into it."""
    context = Context(ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, 0, 1, 2, 1, 0, 0)
    question = Question(ZERO, ZERO, ZERO, ZERO, 0, 0, 0, 0, 0, 0, 0)
    for kind, index, size in ((Kind.CONST, 0, 0), (Kind.DATA, 3, 0), (Kind.INPUT, 1, 1)):
        proof = Proof(ProofKind.ROOT, 0, encode_node(Node(kind, DType.F32, (1,), index=index)))
        error = referee.error("convicts", context.as_abi(), question.as_abi(), proof.as_abi())
        assert error == ("InvalidRootProof", index, size)


def test_expressions_that_no_valid_program_has_are_refused(referee: OnChain) -> None:
    """What decoding does not check is checked where it is used."""
    later = expression([Flat(0)], (Op.NEG, (1,)))
    no_result = expression([Flat(0)], results=(9,))
    flat = expression([Flat(0)])
    axis = expression([Iota((Term(1, 1),))])
    itself = expression([Iota((Term(INDIRECT, 1),))])
    bounds = expression([View(0, (Dim(4, (), 0, 3, 3),))])
    size = expression([View(0, (Dim(4, hi=5),))])
    undilated = expression([View(0, (Dim(4, dilation=0),))])
    huge = expression([View(0, (Dim(2**16), Dim(2**15)))])
    cases_ = [
        (later, ProofKind.INSTRUCTION, Kind.MAP, ("RegisterOutOfRange", 1, 1)),
        (no_result, ProofKind.RESULT, Kind.MAP, ("RegisterOutOfRange", 9, 1)),
        (flat, ProofKind.OPERAND, Kind.FOLD, ("MalformedNode", 15)),
        (axis, ProofKind.OPERAND, Kind.MAP, ("MalformedNode", 14)),
        (itself, ProofKind.OPERAND, Kind.MAP, ("MalformedNode", 14)),
        (bounds, ProofKind.OPERAND, Kind.MAP, ("MalformedNode", 18)),
        (size, ProofKind.OPERAND, Kind.MAP, ("MalformedNode", 18)),
        (undilated, ProofKind.OPERAND, Kind.MAP, ("MalformedNode", 18)),
        (huge, ProofKind.OPERAND, Kind.MAP, ("MalformedNode", 39)),
    ]
    context = Context(ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, 0, 1, 9, 1, 0, 0)
    for body, proof_kind, kind, expected in cases_:
        reduce = (2,) if kind is Kind.FOLD else ()
        fold_ = Fold.SUM if kind is Kind.FOLD else Fold.DOT
        node = Node(kind, DType.F32, (1,), fold=fold_, reduce=reduce, expression=body)
        values = bytes(4 * (1 + len(body.instructions)))
        question = Question(ZERO, ZERO, ZERO, keccak(values), 0, 0, 0, 8, 0, 0, 0)
        proof = Proof(proof_kind, 0, encode_node(node), values)
        with pytest.raises((DisputeError, ProgramError)):
            judge(context, question, proof)
        error = referee.error("convicts", context.as_abi(), question.as_abi(), proof.as_abi())
        assert error == expected, body
