# SPDX-License-Identifier: GPL-3.0-or-later
"""A lie about one element is found and proven; the truth cannot be convicted by any proof."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.encoding import encode_node
from protocol.errors import DisputeError
from protocol.merkle import Tree, leaf_hash, verify_inclusion
from protocol.one_step import OpenedTree, Proof, ProofKind, judge, values_length
from protocol.ops import Op
from protocol.program import INDIRECT, Dim, DType, Flat, Kind, Term, View
from tests.disputed import (
    EXPRESSIONS,
    Disputed,
    accusation,
    follow_through,
    lies,
    open_down_to,
    python_verdict,
    words,
)
from tests.hand_built import HAND_BUILT, Builder, Case, along, case_of, expression
from tests.programs import cases

LEAVES = [leaf_hash(i.to_bytes(4, "big")) for i in range(5_000)]
OTHERS = [leaf_hash(b"unknown" + i.to_bytes(4, "big")) for i in range(5_000)]


@pytest.fixture(scope="module", params=HAND_BUILT)
def disputed(request: pytest.FixtureRequest) -> Disputed:
    return Disputed(case_of(HAND_BUILT[request.param](), seed=5))


# Proofs in the defendant's trace -----------------------------------------------------------------


def check_every_earlier_leaf(size: int, node: int, samples: list[int]) -> None:
    theirs = Tree(LEAVES[:node] + OTHERS[node:size])
    opened = open_down_to(theirs, node)
    own = Tree(LEAVES[:size])
    assert opened.root == theirs.root
    for leaf in samples:
        proof = opened.inclusion_proof(leaf, own)
        assert list(proof) == theirs.inclusion_proof(leaf)
        assert verify_inclusion(theirs.root, size, leaf, LEAVES[leaf], proof)


def test_openings_prove_every_earlier_leaf_in_all_small_trees() -> None:
    for size in range(2, 36):
        for node in range(1, size):
            check_every_earlier_leaf(size, node, list(range(node)))


@given(st.data())
def test_openings_prove_earlier_leaves_in_trees_of_up_to_5000_leaves(data: st.DataObject) -> None:
    size = data.draw(st.one_of(st.integers(2, 5_000), st.sampled_from([256, 257, 4_096, 4_097])))
    node = data.draw(st.one_of(st.integers(1, size - 1), st.just(size - 1)))
    leaves = data.draw(st.lists(st.integers(0, node - 1), min_size=1, max_size=6))
    check_every_earlier_leaf(size, node, [*leaves, 0, node - 1])


@given(st.integers(2, 5_000), st.data())
def test_own_leaves_below_the_disputed_one_are_all_that_is_needed(
    size: int, data: st.DataObject
) -> None:
    node = data.draw(st.integers(1, size - 1))
    leaf = data.draw(st.integers(0, node - 1))
    theirs = Tree(LEAVES[:node] + OTHERS[node:size])
    proof = open_down_to(theirs, node).inclusion_proof(leaf, Tree(LEAVES[:node]))
    assert list(proof) == theirs.inclusion_proof(leaf)


def test_openings_not_deep_enough_or_of_another_tree_are_refused() -> None:
    theirs = Tree(LEAVES[:20] + OTHERS[20:300])
    opened = OpenedTree(300)
    with pytest.raises(DisputeError):
        opened.inclusion_proof(3, Tree(LEAVES[:20]))
    opened.record(0, 300, theirs.open(0, 300))
    with pytest.raises(DisputeError, match="has not been opened"):
        opened.inclusion_proof(18, Tree(LEAVES[:20]))
    with pytest.raises(DisputeError, match="not the same"):  # own leaves that are not agreed
        opened.inclusion_proof(18, Tree(LEAVES[:300]))
    with pytest.raises(DisputeError, match="of another tree"):
        opened.record(0, 256, Tree(LEAVES[:256]).open(0, 256))
    with pytest.raises(DisputeError, match="children for a subtree"):
        opened.record(0, 256, theirs.open(0, 256)[:-1])
    with pytest.raises(DisputeError, match="are not in"):
        opened.record(256, 256, theirs.open(0, 256))
    with pytest.raises(DisputeError, match="is not in"):
        opened.inclusion_proof(300, Tree(LEAVES[:301]))


# Liars -------------------------------------------------------------------------------------------


def test_every_sort_of_lie_about_every_node_is_convicted(disputed: Disputed) -> None:
    rng = random.Random(1)
    for number in range(len(disputed.program.nodes)):
        honest = disputed.point(number, rng)
        assert disputed.find(honest) is None
        for lie in lies(honest, rng):
            proof = disputed.find(lie)
            assert proof is not None
            assert judge(lie.context, lie.question, proof)


def test_a_lie_about_an_operand_with_honest_arithmetic_after_it_is_convicted(
    disputed: Disputed,
) -> None:
    rng = random.Random(2)
    for number, node in enumerate(disputed.program.nodes):
        if node.kind not in EXPRESSIONS:
            continue
        honest = disputed.point(number, rng)
        for operand in range(len(node.body.operands)):
            true = words(honest.values)[operand]
            lie = follow_through(honest, operand, 0x40490FDB if true != 0x40490FDB else 7)
            proof = disputed.find(lie)
            assert proof is not None
            assert (proof.kind, proof.index) == (ProofKind.OPERAND, operand)
            assert judge(lie.context, lie.question, proof)


def test_an_index_that_differs_only_as_a_nan_payload_is_a_lie() -> None:
    """-1 and -2 are both patterns of NaNs; an operand that is only an index is still an integer."""
    b = Builder()
    table, index = b.leaf(Kind.INPUT, (4,)), b.leaf(Kind.DATA, (4,), DType.I32)
    gather = View(table, (Dim(4, (Term(INDIRECT, 1),), 4),))
    out = b.map((4,), expression([along(index, (4,), (0,)), gather], results=(1,)))
    case = case_of(b.finish([out]), wild=False)
    case.inputs.data[0][:] = 0xFFFFFFFE
    disputed = Disputed(case)
    honest = disputed.point(out, random.Random(3))
    lie = honest.claiming(b"\xff\xff\xff\xff" + honest.values[4:])
    proof = disputed.find(lie)
    assert proof is not None
    assert (proof.kind, proof.index) == (ProofKind.OPERAND, 0)
    assert judge(lie.context, lie.question, proof)


def test_raw_nan_in_data_convicts_nobody_who_posts_it_canonical_or_raw() -> None:
    """Attack 25: data may hold any bits; what is read from them is one NaN."""
    b = Builder()
    data = b.leaf(Kind.DATA, (3,))
    out = b.map((3,), expression([Flat(data)]))
    case = case_of(b.finish([out]), wild=False)
    case.inputs.data[0][:] = 0xFFC12345
    disputed = Disputed(case)
    honest = disputed.point(out, random.Random(4))
    assert honest.values == bytes.fromhex("7fc00000")
    raw = honest.claiming(bytes.fromhex("ffc12345"))
    assert disputed.find(honest) is None
    assert disputed.find(raw) is None
    unclean = honest.claiming(value=0xFFC12345)  # the output itself must be canonical
    proof = disputed.find(unclean)
    assert proof is not None
    assert judge(unclean.context, unclean.question, proof)


@given(cases(), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_random_programs_lies_are_convicted_and_the_truth_is_not(case: Case, seed: int) -> None:
    rng = random.Random(seed)
    disputed = Disputed(case)
    for number in range(len(case.program.nodes)):
        honest = disputed.point(number, rng)
        assert disputed.find(honest) is None
        for _ in range(3):
            assert python_verdict(honest, accusation(disputed, honest, rng)) is not True
        for lie in lies(honest, rng):
            proof = disputed.find(lie)
            assert proof is not None
            assert judge(lie.context, lie.question, proof)


# The honest --------------------------------------------------------------------------------------


def test_no_accusation_convicts_an_honest_claim(disputed: Disputed) -> None:
    rng = random.Random(6)
    seen = set()
    for number in range(len(disputed.program.nodes)):
        for _ in range(12):
            honest = disputed.point(number, rng)
            verdict = python_verdict(honest, accusation(disputed, honest, rng))
            assert verdict is not True
            seen.add(verdict)
    assert seen == {False, None}  # the accusations are not all malformed


def test_every_kind_and_index_acquits_an_honest_claim_when_opened_as_it_should_be() -> None:
    disputed = Disputed(case_of(HAND_BUILT["every view"](), seed=8))
    rng = random.Random(7)
    for number, node in enumerate(disputed.program.nodes):
        if node.kind not in EXPRESSIONS:
            continue
        honest = disputed.point(number, rng)
        for position, operand in enumerate(node.body.operands):
            # What the challenger would open had the defendant lied about this operand.
            lie = honest.claiming(
                honest.values[: 4 * position]
                + bytes(b ^ 0x41 for b in honest.values[4 * position : 4 * position + 1])
                + honest.values[4 * position + 1 :]
            )
            proof = disputed.find(lie)
            assert proof is not None, (number, operand)
            if proof.kind is ProofKind.OPERAND:
                true = replace(proof, values=honest.values)
                assert judge(honest.context, honest.question, true) is False


# Details -----------------------------------------------------------------------------------------


def test_values_length_counts_operands_and_instructions_but_no_immediates() -> None:
    b = Builder()
    x = b.leaf(Kind.INPUT, (2,))
    body = expression([Flat(x)], (Op.MUL, (0, 1)), (Op.ADD, (3, 2)), immediates=[1, 2])
    assert values_length(b.nodes[b.map((2,), body)]) == 12


def test_proof_for_the_wrong_sort_of_node_is_refused() -> None:
    disputed = Disputed(case_of(HAND_BUILT["sgd regression"]()))
    rng = random.Random(9)
    for number, node in enumerate(disputed.program.nodes):
        point = disputed.point(number, rng)
        for kind in ProofKind:
            fits = {
                ProofKind.ELEMENT: (Kind.STEP, Kind.SAMPLE, Kind.RAND),
                ProofKind.ROOT: (Kind.INPUT, Kind.CONST, Kind.DATA, Kind.OUTPUT),
            }.get(kind, EXPRESSIONS)
            if node.kind not in fits:
                proof = Proof(kind, 0, encode_node(node), point.values)
                with pytest.raises(DisputeError, match="says nothing about"):
                    judge(point.context, point.question, proof)
