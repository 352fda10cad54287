# SPDX-License-Identifier: GPL-3.0-or-later
"""The inside of a FOLD's element from native code: bit for bit that of `protocol.fold`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import fold as folds
from protocol.errors import NumericsError
from protocol.execution import Bits, Executor
from protocol.executor import NativeExecutor, Target, chains, compiled, host_target
from protocol.ops import Op
from protocol.program import Dim, DType, Fold, Iota, Kind, Program, Shape, Term, View
from protocol.witness import ReplayWitness
from tests import float_vectors
from tests.executing import assert_equal, two_targets
from tests.hand_built import HAND_BUILT, Builder, Case, along, case_of, expression, reduction
from tests.programs import cases

F32, I32 = DType.F32, DType.I32
LENGTHS = (1, 15, 16, 17, 255, 256, 257, 4095, 4096, 4097)
KINDS = [*((fold, 1) for fold in Fold), (Fold.SUM, 16)]
kinds = pytest.mark.parametrize(("fold", "lanes"), KINDS)


@pytest.fixture
def always_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves nothing to Python but chains of terms."""
    monkeypatch.setattr(chains, "FEW", -1)


native = pytest.mark.usefixtures("always_native")


class Definition(Executor):
    """Executes natively and leaves the inside of elements to `protocol.fold`."""

    def __init__(self, executor: Executor) -> None:
        self.step, self.trace = executor.step, executor.trace  # type: ignore[method-assign]


def witness_of(case: Case, executor: Executor) -> ReplayWitness:
    return ReplayWitness(case.program, executor, case.inputs, case.state, case.step, 1)


def assert_like_definition(
    case: Case, elements: int = 1, target: Target | None = None, lanes: Sequence[int] = (0, 1, 15)
) -> None:
    """Compare lanes and accumulators of elements of all FOLDs, the last ones of each."""
    executor = NativeExecutor(case.program, case.inputs, target=target)
    found, wanted = witness_of(case, executor), witness_of(case, Definition(executor))
    for number, node in enumerate(case.program.nodes):
        if node.kind is not Kind.FOLD:
            continue
        for element in range(max(0, node.numel - elements), node.numel):
            place = (0, number, element)
            assert found.lanes(*place) == wanted.lanes(*place), (number, element)
            for lane in range(node.lanes):
                if lane in lanes:
                    assert_same_chains(found, wanted, place, lane)


def assert_same_chains(
    found: ReplayWitness, wanted: ReplayWitness, place: tuple[int, int, int], lane: int
) -> None:
    """Compare the first and the last chain of each level."""
    node = wanted.program.nodes[place[1]]
    counts = folds.levels(folds.lane_terms(node.terms, node.lanes, lane))
    for level, count in enumerate(counts):
        for chain in {0, max(0, count - 1) // folds.BLOCK}:
            where = (*place, lane, level, chain)
            assert found.accumulators(*where) == wanted.accumulators(*where), where


# Against the definition --------------------------------------------------------------------------


def busy(fold: Fold, reduces: Sequence[Shape], lanes: int) -> Program:
    """Folds over every kind of operand and several instructions, with a CLAMP among them."""
    b = Builder()
    floats = fold not in (Fold.ISUM, Fold.IMAX)
    dtype = F32 if floats else I32
    rows = b.leaf(Kind.DATA, (3, 97), dtype)
    columns = b.leaf(Kind.CONST, (61, 3), dtype)
    state = b.leaf(Kind.INPUT, (3,), dtype)
    index = b.leaf(Kind.DATA, (40,), I32, 1)
    for reduce in reduces:
        axes = range(1, 1 + len(reduce))
        slide = tuple(Term(axis, 2) for axis in axes)
        step = tuple(Term(axis, 1) for axis in axes)
        operands = [
            View(index, (Dim(40, step, -2),), 7),
            View(rows, (Dim(3, (Term(0, 1),)), Dim(97, step, -3)), 0xFFC00001),
            View(columns, (Dim(61, slide, 1, 2, 60, 3), Dim(3, (Term(0, -1),), 2))),
            View(rows, (Dim(3, (Term(0, 1),)), Dim(97, (Term(0x80, 1),)))),
            along(state, (3,), (0,)),
            Iota((*step, Term(0, 5)), -9),
        ]
        if floats:
            code = [
                (Op.I2F, (5,)), (Op.FMA, (1, 2, 8)), (Op.ADD, (9, 3)), (Op.MUL, (10, 4)),
                (Op.MAX, (11, 6)), (Op.MIN, (12, 7)), (Op.I2F, (0,)), (Op.SUB, (13, 14)),
            ]  # fmt: skip
            immediates = [0xC1200000, 0x41A00000]
        else:
            code = [
                (Op.IMUL, (1, 2)), (Op.XOR, (8, 3)), (Op.IADD, (9, 4)), (Op.ISUB, (10, 5)),
                (Op.SHR, (11, 6)), (Op.IADD, (12, 0)), (Op.OR, (13, 7)), (Op.IADD, (12, 14)),
            ]  # fmt: skip
            immediates = [3, 1]
        results = (15, 13) if fold is Fold.DOT else (15,)
        body = expression(operands, *code, immediates=immediates, results=results)
        b.fold(fold, (3,), reduce, body, lanes)
    return b.finish([state])


@native
@kinds
def test_plain_folds_are_those_of_the_definition_around_every_boundary(
    fold: Fold, lanes: int
) -> None:
    for terms in LENGTHS:
        for seed in (0, 1):
            case = case_of(reduction(fold, terms, lanes, rows=2), seed, wild=seed == 1)
            assert_like_definition(case)


@native
@two_targets
@kinds
def test_operands_of_every_kind_are_read_as_the_definition_reads_them(
    fold: Fold, lanes: int, target: Target
) -> None:
    reduces = ((1,), (7,), (300,), (3, 5, 21), (9, 4, 32), (2, 1, 2053))
    case = case_of(busy(fold, reduces, lanes), seed=4, wild=target == host_target())
    assert_like_definition(case, 2, target)


@native
@pytest.mark.parametrize("name", HAND_BUILT)
def test_folds_of_hand_built_programs_are_those_of_the_definition(name: str) -> None:
    assert_like_definition(case_of(HAND_BUILT[name](), seed=5), 3)


@native
@settings(max_examples=12)
@given(case=cases())
def test_folds_of_random_programs_are_those_of_the_definition(case: Case) -> None:
    assert_like_definition(case, 2)


@pytest.mark.parametrize("pattern", [0x80000000, 0x80000001, 0xFF800000, 0x7F800001, 0x7F7FFFFF])
@native
@kinds
def test_one_special_value_throughout_is_folded_to_the_bit(
    fold: Fold, lanes: int, pattern: int
) -> None:
    """Zeros of a sign, sums that stay subnormal, infinities, NaNs with a payload, overflow."""
    program = reduction(fold, 4113, lanes)
    case = case_of(program)
    case.inputs.data[0][...] = pattern
    assert_like_definition(case)


@native
def test_a_bitcast_sees_the_canonical_nan() -> None:
    b = Builder()
    data = b.leaf(Kind.DATA, (600,))
    body = expression([along(data, (600,), (0,))], (Op.F2BITS, (0,)))
    total = b.fold(Fold.ISUM, (), (600,), body)
    case = case_of(b.finish([total]))
    case.inputs.data[0][...] = 0xFFFFFFFF
    witness = witness_of(case, NativeExecutor(case.program, case.inputs))
    assert witness.lanes(0, total, 0) == [600 * 0x7FC00000 % (1 << 32)]
    assert_like_definition(case)


# Long folds --------------------------------------------------------------------------------------


def by_numpy(fold: Fold, *terms: Bits) -> list[Bits]:
    """Results of all chains of one lane, by level; an independent implementation."""
    first = len(terms[0])
    found: list[Bits] = []
    while not found or len(found[-1]) > 1:
        operands = terms if not found else (found[-1],)
        count = len(operands[0])
        acc = np.full(-(-count // 256), folds.identity(fold), np.uint32)
        for i in range(min(256, count)):
            items = [operand[i::256] for operand in operands]
            head = acc[: len(items[0])]
            if len(items) == 2:
                head[...] = float_vectors.fma_by_doubles(items[0], items[1], head)
            elif fold in (Fold.DOT, Fold.SUM):
                head[...] = (head.view(np.float32) + items[0].view(np.float32)).view(np.uint32)
            elif fold is Fold.MAX:
                head[...] = np.maximum(head.view(np.float32), items[0].view(np.float32)).view(
                    np.uint32
                )
            elif fold is Fold.ISUM:
                head += items[0]
            else:
                head[...] = np.maximum(head.view(np.int32), items[0].view(np.int32)).view(np.uint32)
        found.append(acc)
    assert len(found) == len(folds.levels(first))
    return found


def long_fold(fold: Fold, terms: int, lanes: int) -> Program:
    """A fold of x / 3 + k (integers: x + k), and a MAP that has all its terms; data is x."""
    b = Builder()
    dtype = I32 if fold in (Fold.ISUM, Fold.IMAX) else F32
    data = b.leaf(Kind.DATA, (terms,), dtype)
    operands = [along(data, (terms,), (0,)), Iota((Term(0, 1),))]
    code: list[tuple[Op, tuple[int, ...]]] = [(Op.IADD, (0, 1))]
    if dtype is F32:
        code = [(Op.I2F, (1,)), (Op.MUL, (3, 2)), (Op.ADD, (0, 4))]
    immediates = [0x358637BD] if dtype is F32 else []
    body = expression(operands, *code, immediates=immediates)
    last = body.results[0]
    both = expression(operands, *code, immediates=immediates, results=(last, 0))
    b.map((terms,), body, dtype)
    return b.finish([b.fold(fold, (), (terms,), both if fold is Fold.DOT else body, lanes)])


@kinds
@pytest.mark.parametrize("terms", [65_537, 3_145_729 + 700])
def test_long_folds_are_those_of_an_independent_implementation(
    fold: Fold, lanes: int, terms: int
) -> None:
    program = long_fold(fold, terms, lanes)
    case = case_of(program, wild=False)
    executor = NativeExecutor(program, case.inputs)
    witness = witness_of(case, executor)
    data, values, *_ = executor.trace(case.state, case.step)
    every = (values, data) if fold is Fold.DOT else (values,)
    wanted = [by_numpy(fold, *(v[lane::lanes] for v in every)) for lane in range(lanes)]
    shown = witness.lanes(0, 2, 0)
    assert_equal(
        np.array(shown, np.uint32), np.array([w[-1][0] for w in wanted], np.uint32), "lanes"
    )
    for lane in {0, 3, 15} & set(range(lanes)):
        for level in range(1, len(wanted[lane])):
            below, block = wanted[lane][level - 1], len(wanted[lane][level]) - 1
            for chain in {0, block}:
                found = witness.accumulators(0, 2, 0, lane, level, chain)
                items = below[256 * chain : 256 * (chain + 1)].tolist()
                assert found == folds.running(fold, items)
                assert found[-1] == wanted[lane][level][chain]
        last = len(wanted[lane][0]) - 1
        assert witness.accumulators(0, 2, 0, lane, 0, last)[-1] == wanted[lane][0][last]


@given(data=st.data(), fold=st.sampled_from(Fold))
def test_running_results_are_the_accumulators_of_a_chain_of_chains(
    data: st.DataObject, fold: Fold
) -> None:
    items = data.draw(st.lists(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=20))
    if fold is not Fold.DOT:  # whose terms are pairs
        assert folds.running(fold, items) == folds.accumulators(
            fold, len(items), 0, 0, lambda item: [items[item]]
        )
    assert len(folds.running(fold, items)) == len(items)
    assert folds.running(fold, []) == []


# What an executor may refuse ---------------------------------------------------------------------


def test_short_chains_are_left_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel is compiled for them."""
    monkeypatch.setattr(compiled, "Chains", None)
    case = case_of(reduction(Fold.SUM, 4097, 16))
    executor = NativeExecutor(case.program, case.inputs)
    assert_same_chains(
        witness_of(case, executor), witness_of(case, Definition(executor)), (0, 1, 0), 0
    )
    assert (
        executor.chain_results(1, 0, executor.trace(case.state, 0).__getitem__, 0, range(2)) is None
    )


@native
def test_a_kernel_that_llvm_refuses_leaves_the_fold_to_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_arguments: object) -> None:
        raise NumericsError("refused")

    monkeypatch.setattr(compiled, "Chains", refuse)
    assert_like_definition(case_of(reduction(Fold.SUM, 700, 16)))


@native
def test_a_thread_that_flushes_subnormals_is_refused() -> None:
    case = case_of(reduction(Fold.SUM, 700, 16))
    executor = NativeExecutor(case.program, case.inputs)
    witness = witness_of(case, executor)
    witness.trace_tree(0)
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush subnormals")
    try:
        with pytest.raises(NumericsError, match="subnormal"):
            witness.lanes(0, 1, 0)
    finally:
        torch.set_flush_denormal(False)
    assert len(witness.lanes(0, 1, 0)) == 16
