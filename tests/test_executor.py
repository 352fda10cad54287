# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiled executor computes the bits of the reference, with and without fused hardware."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import float32
from protocol.errors import NumericsError, ProgramError, UsageError
from protocol.execution import Bits, Executor
from protocol.executor import CompiledExecutor, Target, check, host_target, self_check
from protocol.executor.canary import CANARY_DIGEST, canary, digest
from protocol.executor.module import build_module
from protocol.fold import levels
from protocol.ops import SIGNATURES, Op
from protocol.program import (
    INDIRECT,
    Dim,
    DType,
    Expression,
    Flat,
    Fold,
    Instruction,
    Kind,
    Node,
    Term,
    View,
)
from protocol.reference import ReferenceExecutor
from tests import float_vectors
from tests import hand_built as building
from tests.executing import (
    USABLE,
    assert_equal,
    assert_like_reference,
    chain_of_maps,
    numbers,
    result,
    targets,
    tasks_of,
    two_targets,
)
from tests.hand_built import HAND_BUILT, Builder, Case, along, case_of, expression
from tests.programs import cases

F32, I32 = DType.F32, DType.I32

# Against the reference interpreter ---------------------------------------------------------------


@settings(max_examples=30)
@given(case=cases(), target=st.sampled_from(list(USABLE.values())))
def test_random_programs_have_the_bits_of_the_reference(case: Case, target: Target) -> None:
    assert_like_reference(case, target)


@two_targets
@pytest.mark.parametrize("name", HAND_BUILT)
def test_hand_built_programs_have_the_bits_of_the_reference(name: str, target: Target) -> None:
    assert_like_reference(case_of(HAND_BUILT[name](), seed=1), target)


@pytest.mark.parametrize("step", [0, 1, (1 << 32) - 1, 1 << 32, (1 << 64) - 1])
def test_random_leaves_depend_on_step_and_size_as_specified(step: int) -> None:
    b = Builder()
    for numel in (1, 15, 63, 64, 65, 128, 300):
        b.add(Node(Kind.RAND, I32, (numel,), stream=0xFFFFFFFF))
    b.add(Node(Kind.SAMPLE, I32, (7,), bound=10, stream=0xFFFFFFFF))
    number = b.add(Node(Kind.STEP, I32, ()))
    assert_like_reference(replace(case_of(b.finish([number, 0])), step=step))


# Primitives --------------------------------------------------------------------------------------


def applied(op: Op, columns: list[Bits], target: Target | None) -> Bits:
    """A primitive on columns of operands, through a MAP."""
    b = Builder()
    letters = SIGNATURES[op].operands
    operands = [
        Flat(b.leaf(Kind.DATA, columns[0].shape, F32 if letter == "f" else I32, at))
        for at, letter in enumerate(letters)
    ]
    body = expression(operands, (op, tuple(range(len(letters)))))
    dtype = F32 if SIGNATURES[op].result == "f" else I32
    return result(b.finish([b.map(columns[0].shape, body, dtype)]), *columns, target=target)


@targets
def test_every_primitive_agrees_with_its_definition_on_edge_values(target: Target) -> None:
    for op in Op:
        columns = float_vectors.grid(len(SIGNATURES[op].operands), wide=False)
        apply = float32.TABLE[op]
        rows = zip(*(column.tolist() for column in columns), strict=True)
        wanted = np.array([apply(*row) for row in rows], np.uint32)
        assert_equal(applied(op, columns, target), wanted, op.name)


@targets
def test_every_primitive_agrees_with_numpy_on_random_values(target: Target) -> None:
    for op in Op:
        columns = float_vectors.random_columns(op, 5003, seed=int(op))
        assert_equal(applied(op, columns, target), float_vectors.expected(op, columns), op.name)


@targets
def test_largest_and_smallest_of_a_number_and_a_constant(target: Target) -> None:
    """The executor knows shorter code for them; zeros and NaNs must come out as they should."""
    (column,) = float_vectors.grid(1, wide=False)
    limits = [0, 1 << 31, 1, 0x3F800000, 0xC2D00000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001]
    b = Builder()
    source = b.leaf(Kind.DATA, column.shape)
    wanted = []
    for op in (Op.MAX, Op.MIN):
        for limit in limits:
            for args in ((0, 1), (1, 0)):
                b.map(column.shape, expression([Flat(source)], (op, args), immediates=[limit]))
                pairs = [(x, limit) if args == (0, 1) else (limit, x) for x in column.tolist()]
                wanted.append([float32.apply(op, *pair) for pair in pairs])
    case = case_of(b.finish([1]))
    inputs = replace(case.inputs, data=(column,))
    found = CompiledExecutor(case.program, inputs, target=target).trace(case.state, 0)
    for number, values in enumerate(wanted, 1):
        assert_equal(found[number], np.array(values, np.uint32), case.program.nodes[number])


@targets
def test_payload_of_a_nan_is_never_seen(target: Target) -> None:
    """The compiler must not fold a choice between NaNs away, wherever one is looked at."""
    b = Builder()
    x = b.leaf(Kind.DATA, (33,))
    for op in (Op.SQRT, Op.NEG, Op.ABS):
        root = expression([Flat(x)], (op, (0,)))
        bits = expression([Flat(x)], (op, (0,)), (Op.F2BITS, (1,)))
        chosen = expression(
            [Flat(x)], (op, (0,)), (Op.LT, (0, 1)), (Op.WHERE, (4, 2, 3)),
            immediates=[0, 0xFFC00001],
        )  # fmt: skip
        b.map((33,), root)
        b.map((33,), bits, I32)
        b.map((33,), chosen)
    b.map((33,), expression([Flat(x)]))
    program = b.finish([len(b.nodes) - 1])
    negative = np.full(33, 0xBF800000, np.uint32)
    negative[:9] = 0xFFC00000 + np.arange(9, dtype=np.uint32)
    case = case_of(program)
    assert_like_reference(replace(case, inputs=replace(case.inputs, data=(negative,))), target)


# Views -------------------------------------------------------------------------------------------


def test_coordinates_beyond_64_bits_are_tested_exactly() -> None:
    """Sixteen terms of an indirect index overflow 64 bits; some of the places are inside."""
    b = Builder()
    source, index = b.leaf(Kind.DATA, (40,)), b.leaf(Kind.DATA, (40,), I32, 1)
    big = tuple(Term(INDIRECT, 0x7FFFFFFF) for _ in range(15))
    wild = View(source, (Dim(40, (*big, Term(1, 1)), 1),), 0x40000000)
    for dims in (wild.dims, (replace(wild.dims[0], dilation=3),)):
        view = replace(wild, dims=dims)
        b.map((40, 5), expression([along(index, (40,), (0,)), view], results=(1,)))
    program = b.finish([3])
    case = case_of(program)
    indices = np.array([0, 1, 0x80000000, 0x7FFFFFFF, 2, 0xFFFFFFFF, 0, 0] * 5, np.uint32)
    data = (case.inputs.data[0], indices)
    for target in USABLE.values():
        assert_like_reference(replace(case, inputs=replace(case.inputs, data=data)), target)


# Steps, memory, threads --------------------------------------------------------------------------


def test_number_of_threads_changes_no_bit() -> None:
    b = Builder()
    left, right = b.leaf(Kind.DATA, (130, 300)), b.leaf(Kind.DATA, (300, 150), index=1)
    body = expression(
        [along(left, (130, 300), (0, 2)), along(right, (300, 150), (2, 1))], results=(0, 1)
    )
    dot = b.fold(Fold.DOT, (130, 150), (300,), body)
    body = expression([along(left, (130, 300), (1, 2)), along(dot, (130, 150), (1, 0))],
                      (Op.MUL, (0, 1)))  # fmt: skip
    total = b.fold(Fold.SUM, (150, 130), (300,), body, lanes=16)
    code = [(Op.FMA, (r, 1, 0)) for r in [0, *range(2, 60)]]
    final = b.map((150, 130), expression([Flat(total)], *code, immediates=[0x3F000001]))
    program = b.finish([final])
    data = numbers(1, 130, 300), numbers(2, 300, 150)
    assert any(task.chunks > 1 for task in tasks_of(program, threads=2))
    wanted = result(program, *data)
    for threads in (2, 3, 4):
        assert_equal(result(program, *data, threads=threads), wanted, f"{threads} threads")


def test_steps_leave_arguments_and_earlier_results_alone() -> None:
    case = case_of(building.sgd_regression(), wild=False)
    executor = CompiledExecutor(case.program, case.inputs)
    reference = ReferenceExecutor(case.program, case.inputs)
    state, history = [tensor.copy() for tensor in case.state], []
    for tensor in state:
        tensor.flags.writeable = False
    for step in range(4):
        history.append((state, [tensor.copy() for tensor in state]))
        wanted = reference.step(state, step)
        executor.trace(state, step)
        state = executor.step(state, step)
        for mine, other in zip(state, wanted, strict=True):
            assert_equal(mine, other, f"step {step}")
    for tensors, copies in history:
        for tensor, copy in zip(tensors, copies, strict=True):
            assert_equal(tensor, copy, "an earlier state")


def test_arrays_of_any_layout_are_read_right() -> None:
    case = case_of(building.matmul(5, 9, 6))
    wanted = ReferenceExecutor(case.program, case.inputs).step(case.state, 0)
    turned = tuple(np.asfortranarray(tensor) for tensor in case.inputs.data)
    inputs = replace(case.inputs, data=turned)
    assert_equal(CompiledExecutor(case.program, inputs).step(case.state, 0)[0], wanted[0], "data")


def test_equal_nodes_share_one_kernel() -> None:
    module = build_module(chain_of_maps(50), host_target())
    # The first reads raw state, the others only what a kernel has made canonical.
    assert module.text.count("define void @kernel") == 2
    kernels = [call.kernel for call in module.calls.values()]
    assert len(kernels) == 50
    assert len(set(kernels)) == 2


# Refusals and the self-check ---------------------------------------------------------------------


@contextmanager
def flushing_subnormals() -> Iterator[None]:
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def test_attack_22_a_thread_that_flushes_subnormals_is_noticed_at_every_step() -> None:
    case = case_of(building.adder())
    executor = CompiledExecutor(case.program, case.inputs)
    if not torch.set_flush_denormal(False):
        pytest.skip("this CPU cannot flush subnormals")
    with flushing_subnormals():
        with pytest.raises(NumericsError, match="subnormal"):
            executor.step(case.state, 0)
        with pytest.raises(NumericsError, match="subnormal"):
            self_check()
    executor.step(case.state, 0)


def test_canary_digest_is_that_of_the_reference_interpreter() -> None:
    program, state, inputs = canary()
    assert digest(ReferenceExecutor(program, inputs), state) == CANARY_DIGEST


def test_canary_has_every_primitive_and_fold_and_two_levels() -> None:
    nodes = canary()[0].nodes
    bodies = [node.expression for node in nodes if node.expression is not None]
    assert {code.op for body in bodies for code in body.instructions} == set(Op)
    folds = [node for node in nodes if node.kind is Kind.FOLD]
    assert {node.fold for node in folds} >= {Fold.DOT, Fold.SUM, Fold.MAX, Fold.ISUM}
    assert any(len(levels(node.terms)) > 1 for node in folds)


@targets
def test_self_check_passes_with_and_without_fused_hardware(target: Target) -> None:
    self_check(target)


def test_self_check_refuses_a_machine_whose_digest_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check, "CANARY_DIGEST", "00" * 32)
    with pytest.raises(NumericsError, match="canary"):
        self_check()


def test_wrong_multiply_add_would_change_the_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary is not blind: with a multiplication and an addition for FMA its digest differs."""
    program, state, inputs = canary()

    def unfused(x: int, y: int, z: int) -> int:
        return float32.add(float32.mul(float32.Float32(x), float32.Float32(y)), float32.Float32(z))

    monkeypatch.setitem(float32.TABLE, Op.FMA, unfused)
    assert digest(ReferenceExecutor(program, inputs), state) != CANARY_DIGEST


Change = Callable[[list[Bits]], list[Bits]]
WRONG_STATES: dict[str, Change] = {
    "missing": lambda state: state[:-1],
    "dtype": lambda state: [tensor.view(np.int32) for tensor in state],  # type: ignore[misc]
    "shape": lambda state: [tensor.reshape(-1) for tensor in state],
}


@pytest.mark.parametrize("change", WRONG_STATES.values(), ids=WRONG_STATES)
def test_step_refuses_a_state_that_does_not_fit(change: Change) -> None:
    case = case_of(building.adder())
    executor: Executor = CompiledExecutor(case.program, case.inputs)
    with pytest.raises(UsageError):
        executor.step(change(list(case.state)), 0)
    with pytest.raises(UsageError):
        executor.step(case.state, 1 << 64)


def test_executor_refuses_invalid_programs_inputs_and_thread_counts() -> None:
    case = case_of(building.adder())
    with pytest.raises(UsageError):
        CompiledExecutor(case.program, replace(case.inputs, data=()))
    with pytest.raises(UsageError):
        CompiledExecutor(case.program, case.inputs, threads=0)
    nodes = list(case.program.nodes)
    body = Expression((Flat(2),), (), (Instruction(Op.NEG, (0,)),), (1,))
    nodes[2] = replace(nodes[2], expression=body)  # reads itself
    with pytest.raises(ProgramError):
        CompiledExecutor(replace(case.program, nodes=tuple(nodes)), case.inputs)


def test_merged_axes_and_short_ones_cover_every_element() -> None:
    """Windows overlap where an extent is no multiple of the width: all extents up to 35."""
    b = Builder()
    source = b.leaf(Kind.DATA, (40, 40))
    for extent in range(1, 36):
        view = along(source, (40, 40), (1, 0))
        b.map((3, extent), expression([view], (Op.NEG, (0,))))
    case = case_of(b.finish([1]))
    found = CompiledExecutor(case.program, case.inputs).trace(case.state, 0)
    table = float_vectors.canonical(case.inputs.data[0])
    negated = np.where(table == float32.NAN, table, table ^ 0x80000000).astype(np.uint32)
    for extent in range(1, 36):
        wanted = np.ascontiguousarray(negated[:extent, :3].T)
        assert_equal(found[extent], wanted, f"extent {extent}")
        assert math.prod(found[extent].shape) == 3 * extent
