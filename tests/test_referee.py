# SPDX-License-Identifier: GPL-3.0-or-later
"""contracts/Referee.sol against protocol/referee.py: verdicts, refusals, size and gas."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import fold
from protocol.encoding import decode_node, encode_node
from protocol.errors import DisputeError, ProgramError
from protocol.merkle import Tree, leaf_hash, node_hash, verify_inclusion
from protocol.one_step import Context, Proof, ProofKind, Question, judge
from protocol.ops import Op
from protocol.program import Dim, DType, Flat, Fold, Iota, Kind, Node, Program, Term, View
from protocol.referee import _check_header
from protocol.reference import element as definition
from scripts.solc import CONTRACTS, compile_contracts
from tests.disputed import (
    ALIASES,
    EXPRESSIONS,
    Disputed,
    OnChain,
    Point,
    accusation,
    follow_through,
    lies,
    pack,
    python_verdict,
    type_of,
    words,
)
from tests.evm import EvmReverted
from tests.programs import (
    HAND_BUILT,
    INDIRECT,
    Builder,
    Case,
    along,
    case_of,
    cases,
    expression,
    programs,
)
from tests.programs import words as patterns

EIP_170_LIMIT = 24_576
I32 = DType.I32
ZERO = bytes(32)


@pytest.fixture(scope="module")
def referee() -> OnChain:
    return OnChain()


@pytest.fixture(scope="module", params=HAND_BUILT)
def disputed(request: pytest.FixtureRequest) -> Disputed:
    return Disputed(case_of(HAND_BUILT[request.param](), seed=11))


def check_same(referee: OnChain, point: Point, proof: Proof) -> bool | None:
    """Both referees say the same, and one refuses what the other refuses."""
    expected = python_verdict(point, proof)
    verdict = referee.verdict(point, proof)
    assert (None if isinstance(verdict, str) else verdict) == expected, (verdict, proof)
    return expected


# Verdicts ----------------------------------------------------------------------------------------


def test_lies_about_every_node_and_primitive_are_convicted(
    referee: OnChain, disputed: Disputed
) -> None:
    rng = random.Random(1)
    for number in range(len(disputed.program.nodes)):
        honest = disputed.point(number, rng)
        for lie in lies(honest, rng):
            proof = disputed.find(lie)
            assert proof is not None
            assert referee.verdict(lie, proof) is True
            if proof.kind is not ProofKind.RESULT or len(lie.values) == len(honest.values):
                # The same proof against the truth; the posted values are the truth's.
                assert check_same(referee, honest, replace(proof, values=honest.values)) is False


def test_lies_about_operands_are_convicted_though_all_arithmetic_is_right(
    referee: OnChain, disputed: Disputed
) -> None:
    rng = random.Random(2)
    for number, node in enumerate(disputed.program.nodes):
        if node.kind not in EXPRESSIONS:
            continue
        honest = disputed.point(number, rng)
        for operand, true in enumerate(words(honest.values)[: len(node.body.operands)]):
            lie = follow_through(honest, operand, 0x40490FDB if true != 0x40490FDB else 7)
            proof = disputed.find(lie)
            assert proof is not None
            assert proof.kind is ProofKind.OPERAND
            assert referee.verdict(lie, proof) is True


@given(case=cases(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_both_referees_agree_on_any_accusation_of_honest_and_liars(
    referee: OnChain, case: Case, seed: int
) -> None:
    rng = random.Random(seed)
    disputed = Disputed(case)
    for number in range(len(case.program.nodes)):
        honest = disputed.point(number, rng)
        for _ in range(2):
            assert check_same(referee, honest, accusation(disputed, honest, rng)) is not True
        lie = rng.choice(lies(honest, rng))
        check_same(referee, lie, accusation(disputed, lie, rng))
        proof = disputed.find(lie)
        assert proof is not None
        assert check_same(referee, lie, proof) is True


def one_way_of_reading(way: str) -> tuple[Program, int]:
    """A program whose node 3 reads operand 0 in one way only, and that operand's number."""
    b = Builder()
    table, number = b.leaf(Kind.INPUT, (4,)), b.leaf(Kind.DATA, (4,))
    integer = b.leaf(Kind.DATA, (4,), I32, index=1)
    x = Flat(integer)
    at_x = View(table, (Dim(4, (Term(INDIRECT, 1),), 4),))
    code = {
        "integer op": expression([x], (Op.IADD, (0, 0))),
        "last of three": expression([x], (Op.IWHERE, (1, 1, 0)), immediates=[0]),
        "I2F": expression([x], (Op.I2F, (0,))),
        "BITS2F": expression([x], (Op.BITS2F, (0,))),
        "condition": expression([x], (Op.WHERE, (0, 1, 2)), immediates=[1, 2]),
        "result": expression([x]),
        "index of a view": expression([x, at_x], results=(1,)),
        "index of an iota": expression([x, Iota((Term(INDIRECT, 1),))], results=(1,)),
        "iota": expression([Iota((), -2)]),
        "iota that nothing reads": expression([Iota((), -2)], results=(1,), immediates=[5]),
        "float op": expression([Flat(number)], (Op.ABS, (0,))),
        "float bits": expression([Flat(number)], (Op.F2BITS, (0,))),
        "choice": expression([Flat(number)], (Op.WHERE, (1, 0, 0)), immediates=[1]),
        "float result": expression([Flat(number)]),
        "float fill": expression([View(table, (Dim(4, (), -1),), 0xFFFFFFFE)]),
    }
    integers = ("integer op", "last of three", "result", "index of an iota", "iota", "float bits")
    terms = {"sum": Fold.ISUM, "factors": Fold.DOT}
    if way in terms:
        source = integer if way == "sum" else number
        body = expression([along(source, (4,), (1,))], results=(0,) if way == "sum" else (1, 0),
                          immediates=[0x3F800000])  # fmt: skip
        node = b.fold(terms[way], (4,), (1,), body)
    else:
        node = b.map((4,), code[way], I32 if way in integers else DType.F32)
    return b.finish([table]), node


INTEGER_WAYS = (
    "integer op", "last of three", "I2F", "BITS2F", "condition", "result", "index of a view",
    "index of an iota", "iota", "iota that nothing reads", "sum",
)  # fmt: skip
FLOAT_WAYS = ("float op", "float bits", "choice", "float result", "float fill", "factors")


@pytest.mark.parametrize("way", INTEGER_WAYS + FLOAT_WAYS)
def test_patterns_of_nans_are_one_number_and_many_integers(referee: OnChain, way: str) -> None:
    """Attack 25: -1 is no -2, though both are NaNs; but no payload of a NaN convicts anybody."""
    program, node = one_way_of_reading(way)
    case = case_of(program, wild=False)
    for tensor in case.inputs.data:
        tensor[:] = 0xFFFFFFFE
    disputed = Disputed(case)
    honest = disputed.point(node, random.Random(12))
    true = words(honest.values)[0]
    assert true == (0xFFFFFFFE if way in INTEGER_WAYS else 0x7FC00000)
    other = honest.claiming(pack([0xFFFFFFFF, *words(honest.values)[1:]]))
    different = other.claiming(pack([0x40490FDB, *words(honest.values)[1:]]))
    proof = disputed.find(different)
    assert proof is not None
    assert proof.kind is ProofKind.OPERAND
    for point, expected in ((honest, False), (other, way in INTEGER_WAYS), (different, True)):
        opened = replace(proof, values=point.values)
        assert check_same(referee, point, opened) is expected
        assert disputed.find(point) == (opened if expected else None)


def test_element_of_sample_rand_and_step_at_the_ends_of_their_ranges(referee: OnChain) -> None:
    rng = random.Random(3)
    nodes = [
        Node(Kind.STEP, I32, ()),
        Node(Kind.SAMPLE, I32, (2**31 - 1,), bound=2**31 - 1, stream=2**32 - 1),
        Node(Kind.RAND, I32, (2**31 - 1,), stream=2**32 - 1),
    ]
    for node in nodes:
        for step in (0, 2**32 - 1, 2**32, 2**64 - 1):
            for element in {0, 15, 16, 63, 64, 2**31 - 2} if node.shape else {0}:
                context = Context(*[rng.randbytes(32)] * 6, step, 1, 1, 1, 0, 0)
                question = Question(
                    ZERO, ZERO, ZERO, ZERO, step, element, 0, 0, rng.getrandbits(32), 0, 0
                )
                proof = Proof(ProofKind.ELEMENT, 0, encode_node(node))
                right = definition(node, element, lambda *_: 0, context.seed, step)
                assert not judge(context, replace(question, value=right), proof)
                for value in (right, right ^ 1, right ^ 0x80000000):
                    asked = replace(question, value=value)
                    verdict = referee.call(
                        "convicts", context.as_abi(), asked.as_abi(), proof.as_abi()
                    )
                    assert verdict == (value != right,)


def test_coordinates_beyond_64_bits_are_exact(referee: OnChain) -> None:
    """Sixteen products of the largest 32-bit numbers cancel to 2^34, then the dilation divides."""
    low, high = -(2**31), 2**31 - 1
    b = Builder()
    table, index = b.leaf(Kind.INPUT, (11,)), b.leaf(Kind.DATA, (3,), I32)
    terms = tuple([Term(INDIRECT, low)] * 8 + [Term(INDIRECT, high)] * 8)
    far = tuple([Term(INDIRECT, low)] * 16)  # 2^66
    views = [
        View(table, (Dim(11, terms, dilation=2**31),), 7),
        View(table, (Dim(11, far, dilation=2**31),), 7),
        View(table, (Dim(11, far, 8),), 7),
    ]
    outs = [
        b.map((3,), expression([along(index, (3,), (0,)), view], results=(1,))) for view in views
    ]
    case = case_of(b.finish([table]), wild=False)
    case.state[0][:] = np.arange(11) + 0x3F800000
    case.inputs.data[0][:] = 0x80000000
    disputed = Disputed(case)
    assert disputed.fetch(outs[0], 0) == 0x3F800008
    assert disputed.fetch(outs[1], 0) == disputed.fetch(outs[2], 0) == 7
    rng = random.Random(4)
    for out in outs:
        honest = disputed.point(out, rng)
        lie = follow_through(honest, 1, 0x40490FDB)
        proof = disputed.find(lie)
        assert proof is not None
        assert referee.verdict(lie, proof) is True
        assert check_same(referee, honest, replace(proof, values=honest.values)) is False


# Facts and folds ---------------------------------------------------------------------------------


def facts_of(node: Node) -> tuple[int, int, int, int, int]:
    is_fold = node.kind is Kind.FOLD
    return (
        int(node.kind),
        int(node.fold) if is_fold else 0,
        node.lanes if is_fold else 0,
        node.numel,
        node.terms if is_fold else 0,
    )


def test_facts_of_every_hand_built_node(referee: OnChain, disputed: Disputed) -> None:
    for node in disputed.program.nodes:
        assert referee.call("facts", encode_node(node)) == (facts_of(node),)


@given(program=programs(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_facts_refuse_exactly_what_is_no_encoding(
    referee: OnChain, program: Program, seed: int
) -> None:
    rng = random.Random(seed)
    for node in program.nodes:
        encoding = bytearray(encode_node(node))
        sort = rng.randrange(5)
        at = rng.randrange(len(encoding))
        if sort == 0:
            encoding = encoding[:at]
        elif sort == 1:
            encoding += rng.randbytes(rng.choice([1, 4, 1100]))
        elif sort > 2:
            encoding[at] = rng.choice([0, 1, 2, 9, 0x80, 0xFF, rng.randrange(256)])
        try:
            changed = decode_node(bytes(encoding))
            _check_header(changed)
        except ProgramError:
            error = referee.error("facts", bytes(encoding))
            assert error is not None
            assert error[0] in ("MalformedNode", "InvalidNodeLength", "UnknownPrimitive")
        else:
            assert referee.call("facts", bytes(encoding)) == (facts_of(changed),)


@given(which=st.sampled_from(list(Fold)), a=patterns, b=patterns)
def test_combine_identity_and_finish_are_those_of_the_definition(
    referee: OnChain, which: Fold, a: int, b: int
) -> None:
    assert referee.call("combine", int(which), a, b) == (fold.combine(which, a, b),)
    assert referee.call("finish", int(which), a) == (fold.finish(which, a),)
    assert referee.call("identity", int(which)) == (fold.identity(which),)


@given(
    which=st.sampled_from(list(Fold)),
    terms=st.integers(0, 20),
    lanes=st.lists(st.one_of(st.just(0), patterns), min_size=16, max_size=16),
)
def test_lanes_combine_as_defined_and_empty_ones_must_hold_the_identity(
    referee: OnChain, which: Fold, terms: int, lanes: list[int]
) -> None:
    expected = fold.finish(which, fold.combine_lanes(which, lanes))
    holds = fold.empty_lanes_hold(which, terms, lanes)
    assert referee.call("combineLanes", int(which), terms, pack(lanes)) == (expected, holds)


def test_unknown_folds_and_wrong_lane_lengths_are_refused(referee: OnChain) -> None:
    for which in (5, 255):
        for name, arguments in (
            ("combine", (0, 0)),
            ("finish", (0,)),
            ("identity", ()),
            ("combineLanes", (1, bytes(64))),
        ):
            assert referee.error(name, which, *arguments) == ("UnknownFold", which)
    for length in (0, 60, 65, 68):
        assert referee.error("combineLanes", 1, 16, bytes(length)) == ("InvalidLanesLength", length)


# Refusals ----------------------------------------------------------------------------------------


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


# Cost --------------------------------------------------------------------------------------------


def deep_proof(rng: random.Random) -> tuple[Context, Question, Proof]:
    """A lie about a MAP of 2^16 chunks in a trace of 4,096 nodes, at the costliest places."""
    numel, n_nodes = 256 << 16, 1 << 12
    values = pack([0x40490FDB, 0x3F800000, 0x40849BA6])
    body = expression([Flat(1234), Flat(1235)], (Op.ADD, (0, 1)))
    node = Node(Kind.MAP, DType.F32, (256, 256, 256), expression=body)
    element = 0xABCDEF
    chunk = rng.randbytes(1024)

    def climb(leaf: bytes, index: int, depth: int) -> tuple[bytes, tuple[bytes, ...]]:
        siblings = tuple(rng.randbytes(32) for _ in range(depth))
        for level, sibling in enumerate(siblings):
            right = index >> level & 1
            leaf = node_hash(sibling, leaf) if right else node_hash(leaf, sibling)
        return leaf, siblings

    root, chunk_proof = climb(leaf_hash(chunk), element // 256, 16)
    trace, root_proof = climb(leaf_hash(root), 1234, 12)
    assert verify_inclusion(trace, n_nodes, 1234, leaf_hash(root), root_proof)
    assert node.numel == numel
    context = Context(*[rng.randbytes(32) for _ in range(6)], 10**6, 64, n_nodes, 200, 8, 4)
    question = Question(
        rng.randbytes(32), trace, rng.randbytes(32), keccak(values), 10**6 + 5, element, 0, 2222,
        0x40849BA6, 0, 0,
    )  # fmt: skip
    proof = Proof(
        ProofKind.OPERAND, 0, encode_node(node), values, chunk, root, chunk_proof, root_proof
    )
    return context, question, proof


def transaction_gas(calldata: bytes, execution: int) -> int:
    """EIP-7623: calldata is paid at 4 and 16 gas a byte, or at the floor of 10 and 40."""
    tokens = sum(1 if byte == 0 else 4 for byte in calldata)
    return 21_000 + max(4 * tokens + execution, 10 * tokens)


@pytest.mark.gas
def test_a_deep_one_step_proof_costs_less_than_130k_gas(
    referee: OnChain, gas_snapshot: Callable[[str, int], None]
) -> None:
    context, question, proof = deep_proof(random.Random(10))
    harness = compile_contracts([CONTRACTS / "mocks" / "RefereeHarness.sol"])["RefereeHarness"]
    address = referee.evm.deploy(
        bytes.fromhex(harness["bytecode"][2:]), ZERO[:12] + referee.address
    )
    item = next(i for i in harness["abi"] if i.get("name") == "prove")
    arguments = (context.as_abi(), question.as_abi(), proof.as_abi())
    data = referee.encode("convicts", *arguments)
    signature = ",".join(type_of(part) for part in item["inputs"])
    selector = keccak(f"prove({signature})".encode())[:4]
    result = referee.evm.call(address, selector + data[4:], keep=False)
    assert int.from_bytes(result.output, "big") == 1
    direct = referee.send("convicts", *arguments).gas_used
    # The game's `prove` has the id and the digest of the position in the place of the question.
    from_game = data[:4] + data[4 : 4 + 12 * 32] + data[4 + 21 * 32 :]
    total = transaction_gas(from_game, result.gas_used)
    gas_snapshot("Referee: convicts, one chunk at depth 16, trace depth 12", direct)
    assert result.gas_used < 40_000
    assert total < 130_000, (result.gas_used, total)


@pytest.mark.gas
def test_facts_and_lanes_are_cheap(
    referee: OnChain, gas_snapshot: Callable[[str, int], None]
) -> None:
    body = expression(
        [along(0, (64, 64, 3, 3), (1, 2, 3, 4)) for _ in range(3)],
        *[(Op.FMA, (0, 1, 2))] * 20,
        immediates=[0] * 5,
    )
    node = Node(Kind.MAP, DType.F32, (8, 64, 64, 3, 3), expression=body)
    facts = referee.send("facts", encode_node(node)).gas_used
    gas_snapshot("Referee: facts, 3 views and 20 primitives", facts)
    lanes = pack([0x3F800000 + 977 * i for i in range(16)])
    gas_snapshot("Referee: combineLanes", referee.send("combineLanes", 1, 99, lanes).gas_used)


def test_code_fits_into_a_contract(referee: OnChain) -> None:
    assert len(referee.code) < EIP_170_LIMIT


def test_starving_the_referee_of_gas_never_changes_a_verdict(referee: OnChain) -> None:
    """Attack 14: at every gas limit the call runs out or says what it says with plenty."""
    context, question, proof = deep_proof(random.Random(11))
    arguments = (context.as_abi(), question.as_abi(), proof.as_abi())
    enough = referee.send("convicts", *arguments).gas_used
    completed = 0
    for gas in [*range(0, enough, 997), *range(enough - 300, enough + 300, 23)]:
        try:
            output = referee.send("convicts", *arguments, gas=gas).output
        except EvmReverted:
            continue
        assert int.from_bytes(output, "big") == 1
        completed += 1
    assert completed
