# SPDX-License-Identifier: GPL-3.0-or-later
"""contracts/Referee.sol against protocol/referee.py: verdicts, facts of nodes, and folds."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import fold
from protocol.encoding import decode_node, encode_node
from protocol.errors import ProgramError
from protocol.one_step import Context, Proof, ProofKind, Question, judge
from protocol.ops import Op
from protocol.program import INDIRECT, Dim, DType, Flat, Fold, Iota, Kind, Node, Program, Term, View
from protocol.referee import check_header
from protocol.reference import element as definition
from tests.disputed import (
    EXPRESSIONS,
    Disputed,
    OnChain,
    Point,
    accusation,
    follow_through,
    lies,
    pack,
    python_verdict,
    words,
)
from tests.hand_built import HAND_BUILT, SPECIAL_FLOATS, Builder, Case, along, case_of, expression
from tests.programs import cases, programs
from tests.programs import words as patterns

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
    at_column_x = View(table, (Dim(2, (Term(0, 1),)), Dim(2, (Term(INDIRECT, 1),), 2)))
    code = {
        "integer op": expression([x], (Op.IADD, (0, 0))),
        "last of three": expression([x], (Op.IWHERE, (1, 1, 0)), immediates=[0]),
        "I2F": expression([x], (Op.I2F, (0,))),
        "BITS2F": expression([x], (Op.BITS2F, (0,))),
        "condition": expression([x], (Op.WHERE, (0, 1, 2)), immediates=[1, 2]),
        "result": expression([x]),
        "index of a view": expression([x, at_x], results=(1,)),
        "index of a second dim": expression([x, at_column_x], results=(1,)),
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
    terms = {"sum": Fold.ISUM, "last": Fold.IMAX, "maximum": Fold.MAX, "factors": Fold.DOT}
    if way in terms:
        source = integer if way in INTEGER_WAYS else number
        body = expression([along(source, (4,), (1,))], results=(1, 0) if way == "factors" else (0,),
                          immediates=[0x3F800000])  # fmt: skip
        node = b.fold(terms[way], (4,), (1,), body)
    else:
        node = b.map((4,), code[way], I32 if way in integers else DType.F32)
    return b.finish([table]), node


INTEGER_WAYS = (
    "integer op", "last of three", "I2F", "BITS2F", "condition", "result", "index of a view",
    "index of a second dim", "index of an iota", "iota", "iota that nothing reads", "sum", "last",
)  # fmt: skip
FLOAT_WAYS = (
    "float op", "float bits", "choice", "float result", "float fill", "factors", "maximum",
)  # fmt: skip


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
            check_header(changed)
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


@pytest.mark.parametrize("which", Fold)
def test_finish_turns_minus_zero_and_nans_into_what_the_definition_says(
    referee: OnChain, which: Fold
) -> None:
    for s in SPECIAL_FLOATS:
        assert referee.call("finish", int(which), s) == (fold.finish(which, s),)


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
