# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference interpreter against numpy, against hand-computed views, and against itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings

from protocol import fold as folds
from protocol.commitments import trace_tree
from protocol.errors import ProgramError, UsageError
from protocol.execution import Bits, Inputs
from protocol.float32 import NAN, apply, canonical, is_nan
from protocol.ops import SIGNATURES, Op
from protocol.program import INDIRECT, Dim, DType, Flat, Fold, Iota, Kind, Node, Program, Term, View
from protocol.randomness import philox, sample
from protocol.reference import Evaluator, ReferenceExecutor, element, element_values
from protocol.views import (
    element_index,
    iota_value,
    ravel,
    register_dtypes,
    unravel,
)
from tests.hand_built import (
    HAND_BUILT,
    Builder,
    Case,
    adder,
    along,
    case_of,
    every_primitive,
    every_view,
    expression,
    matmul,
    reduction,
    scatter_gather,
    sgd_regression,
)
from tests.programs import cases

F32, I32 = DType.F32, DType.I32


def trace_of(case: Case) -> list[Bits]:
    return ReferenceExecutor(case.program, case.inputs).trace(case.state, case.step)


def step_of(case: Case) -> list[Bits]:
    return ReferenceExecutor(case.program, case.inputs).step(case.state, case.step)


def floats(bits: Bits) -> np.ndarray:
    return bits.view(np.float32)


def bits_of(values: np.ndarray) -> Bits:
    """Patterns of float32 values, with the one NaN of the protocol."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).reshape(np.shape(values))
    return np.where(np.isnan(values), np.uint32(NAN), bits)


# Against numpy


@pytest.mark.parametrize("seed", range(5))
def test_addition_is_that_of_the_hardware(seed: int) -> None:
    case = case_of(adder(), seed)
    with np.errstate(all="ignore"):
        expected = bits_of(floats(case.state[0]) + floats(case.inputs.data[0]))
    assert step_of(case)[0].tolist() == expected.tolist()


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 7, 5), (2, 256, 2), (2, 257, 3)])
def test_matmul_is_the_exact_fma_chain_in_blocks_of_256(m: int, k: int, n: int) -> None:
    case = case_of(matmul(m, k, n), wild=False)
    a, b = (floats(tensor) for tensor in case.inputs.data)

    def nearest(exact: Fraction) -> np.float32:
        """Round half even by comparing with both neighbours of an approximation."""
        guess = np.float32(float(exact))
        near = [np.nextafter(guess, d, dtype=np.float32) for d in (-np.inf, np.inf)]
        return min(
            [guess, *near],
            key=lambda v: (abs(Fraction(float(v)) - exact), int(v.view(np.uint32)) & 1),
        )

    def chain(i: int, j: int, ks: range) -> np.float32:
        acc = np.float32(0)
        for at in ks:
            product = Fraction(float(a[i, at])) * Fraction(float(b[at, j]))
            acc = nearest(product + Fraction(float(acc)))
        return acc

    for i in range(m):
        for j in range(n):
            expected = np.float32(0)
            for first in range(0, k, 256):
                expected += chain(i, j, range(first, min(k, first + 256)))
            assert floats(step_of(case)[0])[i, j] == expected


def test_regression_step_is_close_to_numpy_in_float64() -> None:
    case = case_of(sgd_regression(), wild=False)
    weight = floats(case.state[0]).astype(np.float64)
    table, target = (floats(tensor).astype(np.float64) for tensor in case.inputs.data)
    rows = [sample(case.inputs.seed, 1, case.step, e, 11) for e in range(4)]
    error = table[rows] @ weight - target[rows]
    expected = weight - table[rows].T @ error / 8
    assert np.allclose(floats(step_of(case)[0]), expected, rtol=1e-4, atol=1e-5)
    loss = trace_of(case)[case.program.names["loss"]]
    assert np.allclose(floats(loss), (error**2).sum(), rtol=1e-5)


def test_scatter_add_and_scatter_set_follow_the_order_of_the_positions() -> None:
    case = case_of(scatter_gather(), 3, wild=False)
    index = np.array([0, 4, 0, 9, 2, 0xFFFFFFFF, 4, 2, 5], np.uint32)  # some out of range
    value = floats(case.inputs.data[1])
    case = Case(case.program, case.state, Inputs((), (index, case.inputs.data[1]), bytes(32)), 0)
    expected = np.array(floats(case.state[0]))
    added = np.zeros((5, 2), np.float32)
    for place, row in enumerate(index.astype(np.int64)):
        if row < 5:
            added[row] += value[place]
            expected[row] = value[place]
    expected = expected + added
    assert step_of(case)[0].tolist() == bits_of(expected).tolist()


@pytest.mark.parametrize("terms", [1, 16, 17, 256, 257, 4097])
def test_integer_sum_and_maximum_reductions_are_those_of_numpy(terms: int) -> None:
    case = case_of(reduction(Fold.ISUM, terms, rows=2), terms)
    signed = case.inputs.data[0].view(np.int32)
    assert step_of(case)[0].tolist() == signed.sum(1, dtype=np.int32).view(np.uint32).tolist()
    case = case_of(reduction(Fold.IMAX, terms, rows=2), terms)
    signed = case.inputs.data[0].view(np.int32)
    assert step_of(case)[0].tolist() == signed.max(1).view(np.uint32).tolist()


# Primitives, leaves, dtypes


def test_every_primitive_is_applied_to_its_operands_in_order() -> None:
    case = case_of(every_primitive(), 1)
    trace = trace_of(case)
    seen = set()
    for node, output in zip(case.program.nodes, trace, strict=True):
        if node.kind is not Kind.MAP:
            continue
        (instruction,) = node.body.instructions
        sources = [trace[operand.source].reshape(-1) for operand in node.body.operands]  # type: ignore[union-attr]
        for e, got in enumerate(output.reshape(-1).tolist()):
            assert got == apply(instruction.op, *[int(source[e]) for source in sources])
        seen.add(instruction.op)
    assert seen == set(Op) == set(SIGNATURES)


def test_leaves_hold_raw_bits_step_number_and_randomness() -> None:
    case = case_of(every_view(), 2, step=2**32 + 5)
    kinds = {
        node.kind: (node, out) for node, out in zip(case.program.nodes, trace_of(case), strict=True)
    }
    assert kinds[Kind.INPUT][1].tolist() == case.state[0].tolist()
    assert kinds[Kind.CONST][1].tolist() == case.inputs.constants[0].tolist()
    assert kinds[Kind.DATA][1].tolist() == case.inputs.data[0].tolist()
    assert kinds[Kind.STEP][1].tolist() == 5
    node, output = kinds[Kind.SAMPLE]
    seed = case.inputs.seed
    assert output.tolist() == [sample(seed, 7, case.step, e, 4) for e in range(node.numel)]
    node, output = kinds[Kind.RAND]
    assert output.tolist() == [philox(seed, 9, case.step, e) for e in range(node.numel)]
    assert kinds[Kind.OUTPUT][1].tolist() == case.state[0].tolist()


def test_nan_stays_raw_in_leaves_and_is_canonical_in_whatever_is_computed() -> None:
    b = Builder()
    state = b.leaf(Kind.INPUT, (2,))
    copied = b.map((2,), expression([Flat(state)]))
    pattern = b.map((2,), expression([Flat(state)], (Op.F2BITS, (0,))), I32)
    outside = View(state, (Dim(2, (), 5),), fill=0xFFC00001)
    filled = b.map((2,), expression([outside]))
    program = b.finish([state])
    raw = np.array([0xFFC12345, 0x3F800000], np.uint32)
    trace = ReferenceExecutor(program, Inputs((), (), bytes(32))).trace([raw], 0)
    assert trace[state].tolist() == trace[-1].tolist() == raw.tolist()
    assert trace[copied].tolist() == trace[pattern].tolist() == [NAN, 0x3F800000]
    assert trace[filled].tolist() == [NAN, NAN]


def test_integer_operand_with_the_pattern_of_a_nan_is_not_touched() -> None:
    b = Builder()
    state = b.leaf(Kind.INPUT, (1,), I32)
    copied = b.map((1,), expression([Flat(state)]), I32)
    raw = np.array([0xFFC12345], np.uint32)
    trace = ReferenceExecutor(b.finish([state]), Inputs((), (), bytes(32))).trace([raw], 0)
    assert trace[copied].tolist() == [0xFFC12345]


def test_register_dtypes_follow_from_the_encoding_alone() -> None:
    for build in HAND_BUILT.values():
        program = build()
        for node in program.nodes:
            if node.expression is None:
                continue
            types = register_dtypes(node)
            for position, operand in enumerate(node.body.operands):
                source = getattr(operand, "source", None)
                dtype = I32 if source is None else program.nodes[source].dtype
                assert types[position] is dtype


# Views


def test_views_read_what_numpy_indexing_reads() -> None:
    case = case_of(every_view(), 4, wild=False)
    x = case.state[0]
    trace = [
        t for n, t in zip(case.program.nodes, trace_of(case), strict=True) if n.kind is Kind.MAP
    ]
    zero, one = np.uint32(0), np.uint32(0x3F800000)
    strided = np.array(
        [x.reshape(-1)[5 * i - 48] if 0 <= 5 * i - 48 < 24 else 0x3F000000 for i in range(24)]
    )
    padded = np.full((7, 9), NAN, np.uint32)
    padded[1:5, 2:8] = x
    part = np.full((4, 6), 7, np.uint32)
    part[1:3, 0:5] = x[1:3, 0:5]
    dilated = np.full((9, 17), one)
    dilated[1:8:2, 0:16:3] = x
    expected = [
        x.T,
        np.broadcast_to(x, (3, 4, 6)),
        x[:, 0],
        x[::-1, ::-1],
        x[1:4:2, 0:6:2],
        strided,
        padded,
        part,
        dilated,
        np.array(
            [[x.reshape(2, 2, 2, 3)[0, j % 2, 0, 0] if j < 2 else zero for j in range(3)]] * 8
        ),
        x.reshape(-1)[[23, 22, 21]],
        np.broadcast_to(case.inputs.constants[0], (2, 2)),
        x[2, 1],
    ]
    for number, (got, want) in enumerate(zip(trace, expected, strict=False)):
        assert got.tolist() == np.asarray(want).tolist(), f"view {number}"
    assert trace[13].view(np.int32).tolist() == [[-5, 2**31 - 5], [2**30 - 5, 2**30 - 5 - 2**31]]
    rows = [sample(case.inputs.seed, 7, case.step, e, 4) for e in range(5)]
    assert trace[14].tolist() == x[rows].tolist()


def test_indirect_index_is_signed_and_out_of_range_reads_the_fill() -> None:
    view = View(0, (Dim(4, (Term(INDIRECT + 1, 2),), 3),), fill=9)
    assert element_index(view, (), [0, 0xFFFFFFFF]) == 1
    assert element_index(view, (), [0, 0xFFFFFFFE]) is None
    assert element_index(view, (), [0, 0x80000000]) is None
    assert element_index(view, (), [0, 0x7FFFFFFF]) is None


def test_coordinates_are_exact_beyond_64_bits() -> None:
    terms = (Term(INDIRECT, 0x7FFFFFFF),) * 8 + (Term(INDIRECT, -0x7FFFFFFF),) * 8
    assert element_index(View(0, (Dim(2, terms, 1),)), (), [0x80000000]) == 1
    high = (Term(INDIRECT, -0x80000000),) * 4  # the sum is 2**64, which 64 bits would read as 0
    assert element_index(View(0, (Dim(2, high),)), (), [0x80000000]) is None
    sixteen = (Term(0, 0x7FFFFFFF),) * 16
    assert iota_value(Iota(sixteen), (0x7FFFFFFE,), ()) == 16 * 0x7FFFFFFF * 0x7FFFFFFE % 2**32


def test_dilation_holds_for_negative_coordinates() -> None:
    view = View(0, (Dim(4, (Term(0, 1),), -4, dilation=2),))
    read = [element_index(view, (x,), ()) for x in range(13)]
    assert read == [None, None, None, None, 0, None, 1, None, 2, None, 3, None, None]


def test_unravel_and_ravel_are_inverse_and_row_major() -> None:
    for shape in [(), (1,), (3, 5), (2, 1, 4, 1, 3)]:
        numel = int(np.prod(shape))
        for e in range(numel):
            assert unravel(e, shape) == tuple(int(c) for c in np.unravel_index(e, shape))
            assert ravel(unravel(e, shape), shape) == e


# The whole and its elements


@settings(max_examples=60, deadline=None)
@given(cases())
def test_trace_has_the_nodes_shapes_and_canonical_floats_and_writes_to_no_argument(
    case: Case,
) -> None:
    given_bits = [t.tolist() for t in (*case.state, *case.inputs.constants, *case.inputs.data)]
    trace = trace_of(case)
    for node, output in zip(case.program.nodes, trace, strict=True):
        assert (output.dtype, output.shape) == (np.uint32, node.shape)
        if node.kind in (Kind.MAP, Kind.FOLD) and node.dtype is F32:
            assert all(canonical(v) == v for v in output.reshape(-1).tolist())
    state = step_of(case)
    for s, after in enumerate(state):
        assert after.tolist() == trace[case.program.output(s)].tolist()
    kept = [t.tolist() for t in (*case.state, *case.inputs.constants, *case.inputs.data)]
    assert kept == given_bits
    assert trace_tree(trace).size == len(case.program.nodes)


@settings(max_examples=40, deadline=None)
@given(cases(3))
def test_posted_values_of_an_element_lead_to_its_value_one_primitive_at_a_time(case: Case) -> None:
    trace = [output.reshape(-1).tolist() for output in trace_of(case)]

    def fetch(source: int, index: int) -> int:
        return trace[source][index]

    for node, output in zip(case.program.nodes, trace, strict=True):
        if node.kind in (Kind.INPUT, Kind.CONST, Kind.DATA, Kind.OUTPUT):
            continue
        e = len(output) // 2
        assert element(node, e, fetch, case.inputs.seed, case.step) == output[e]
        if node.expression is None:
            continue
        k = node.terms - 1 if node.kind is Kind.FOLD else None
        operands, results = element_values(node, e, k, fetch)
        registers = [*operands, *node.body.immediates]
        for instruction, result in zip(node.body.instructions, results, strict=True):
            assert apply(instruction.op, *[registers[r] for r in instruction.args]) == result
            registers.append(result)
        term = [registers[r] for r in node.body.results]
        if k is None:
            value = canonical(term[0]) if node.dtype is F32 else term[0]
            assert value == output[e]
        elif node.lanes == 1:
            terms = Evaluator(node).terms(e, fetch)
            accs = folds.accumulators(node.fold, node.terms, 0, k // 256, terms)
            before = accs[-2] if len(accs) > 1 else folds.identity(node.fold)
            assert folds.step(node.fold, before, term) == accs[-1]


# Refusals and speed


def test_executor_refuses_an_invalid_program_before_anything_else() -> None:
    bad = Program((Node(Kind.INPUT, F32, ()), Node(Kind.OUTPUT, F32, (1,))), 1)
    with pytest.raises(ProgramError, match="node 0"):
        ReferenceExecutor(bad, Inputs((), (), bytes(32)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, i: (s[:-1], i), "0 state tensors were given, the program has 1"),
        (lambda s, i: ([s[0][:1]], i), r"state tensor 0 is uint32 of shape \(1, 5\)"),
        (lambda s, i: ([s[0].view(np.float32)], i), "state tensor 0 is float32"),
        (lambda s, i: (s, Inputs((), (), i.seed)), "0 data tensors were given"),
        (lambda s, i: (s, Inputs(i.data, i.data, i.seed)), "1 constants were given"),
        (lambda s, i: (s, Inputs((), [i.data[0].T], i.seed)), r"data tensor 0 .* \(5, 3\)"),
        (lambda s, i: (s, Inputs((), i.data, b"")), "a seed has 32 bytes, not 0"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    change: Callable[..., tuple[list[Bits], Inputs]], message: str
) -> None:
    case = case_of(adder())
    state, inputs = change(list(case.state), case.inputs)
    with pytest.raises(UsageError, match=message):
        ReferenceExecutor(case.program, inputs).step(state, 0)


def test_elements_of_an_alias_are_those_of_another_tensor() -> None:
    for kind in (Kind.INPUT, Kind.CONST, Kind.DATA, Kind.OUTPUT):
        with pytest.raises(UsageError, match=kind.name):
            element(Node(kind, F32, ()), 0, lambda _s, _i: 0, bytes(32), 0)


def test_states_do_not_alias_what_they_came_from() -> None:
    b = Builder()
    program = b.finish([b.leaf(Kind.INPUT, (2,))])
    before = np.array([1, 2], np.uint32)
    (after,) = ReferenceExecutor(program, Inputs((), (), bytes(32))).step([before], 0)
    after[0] = 7
    assert before.tolist() == [1, 2]


def test_hundred_thousand_primitives_take_seconds_not_minutes() -> None:
    case = case_of(matmul(8, 256, 50), wild=False)
    started = time.perf_counter()
    output = step_of(case)[0]
    assert time.perf_counter() - started < 20
    assert not any(is_nan(v) for v in output.reshape(-1).tolist())


def test_along_is_a_plain_view() -> None:
    assert along(3, (2, 5), (1, None)) == View(3, (Dim(2, (Term(1, 1),)), Dim(5)))
