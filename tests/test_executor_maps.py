# SPDX-License-Identifier: GPL-3.0-or-later
"""Loop shapes of MAP: boxes with decided tests and choices, and tiles that are turned."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.executor import CompiledExecutor, Target, host_target
from protocol.executor.access import body_of
from protocol.executor.map_kernel import find_turn
from protocol.executor.module import build_module
from protocol.executor.regions import MAX_REGIONS, Region, regions
from protocol.ops import Op
from protocol.program import Dim, DType, Flat, Iota, Kind, Operand, Program, Shape, Term, View
from protocol.reference import ReferenceExecutor
from tests.executing import USABLE, assert_equal, assert_like_reference, targets
from tests.hand_built import Builder, Case, along, case_of, expression

F32, I32 = DType.F32, DType.I32
WIDTH = 8


def boxes_of(program: Program, number: int) -> list[Region]:
    node = program.nodes[number]
    return regions(body_of(program, node), node.body, WIDTH)


# Random programs ---------------------------------------------------------------------------------


@st.composite
def _views(draw: Any, source: int, sizes: Shape, shape: Shape) -> View:
    """A view whose dims walk axes of the output in any order and direction, past the edges too."""
    axes = draw(st.permutations(range(len(shape))))
    dims = []
    for size, axis in zip(sizes, axes, strict=False):
        coef = draw(st.sampled_from([1, 1, 1, 1, -1, 2]))
        offset = draw(st.sampled_from([0, 0, 0, -1, 3, -size // 2, size - 1, -shape[axis]]))
        low = draw(st.sampled_from([0, 0, size // 3]))
        dilation = draw(st.sampled_from([1, 1, 1, 1, 2]))
        dims.append(Dim(size, (Term(axis, coef),), offset, low, size, dilation))
    return View(source, tuple(dims), draw(st.sampled_from([0, 0, 0x80000000, 0xFF800000])))


@st.composite
def box_cases(draw: Any) -> Case:
    """A MAP that chooses among views by comparing indices, as concatenations and padding do."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 5, 8, 9, 16, 21, 33]), min_size=1,
                                max_size=3)))  # fmt: skip
    while len(shape) > 1 and shape[0] * shape[1] * shape[-1] > 3000:
        shape = shape[1:]
    b = Builder()
    operands: list[Operand] = []
    for index in range(draw(st.integers(2, 4))):
        sizes = tuple(draw(st.sampled_from([4, 9, 16, 24])) for _ in shape)
        operands.append(draw(_views(b.leaf(Kind.DATA, sizes, F32, index), sizes, shape)))
    code: list[tuple[Op, tuple[int, ...]]] = []
    n = len(operands)
    axis = draw(st.integers(0, len(shape) - 1))
    wrapping = draw(st.sampled_from([1, 1, 1, -1, 0x7FFFFFFF]))
    offset = draw(st.sampled_from([0, 0, 2, -4]))
    operands.append(Iota((Term(axis, wrapping),), offset))
    bounds = draw(st.lists(st.integers(-2, 35), min_size=n - 1, max_size=n - 1))
    immediates = [*(bound % (1 << 32) for bound in bounds), 0]
    zero, register = n + len(immediates), n + 1 + len(immediates)
    chosen, conditions = 0, [zero]
    for place in range(n - 1):
        compare = draw(st.sampled_from([Op.ILT, Op.ILT, Op.ULT, Op.IEQ]))
        pair = (n, n + 1 + place)
        code.append((compare, pair if draw(st.integers(0, 2)) else pair[::-1]))
        logic = draw(st.sampled_from([None, None, Op.IEQ, Op.AND, Op.OR]))
        if logic is not None:
            other = zero if logic is Op.IEQ else draw(st.sampled_from(conditions))
            code.append((logic, (register, other)))
            register += 1
        conditions.append(register)
        code.append((Op.WHERE, (register, place + 1, chosen)))
        chosen = register + 1
        register += 2
    number = b.map(shape, expression(operands, *code, immediates=immediates))
    return case_of(b.finish([number]), draw(st.integers(0, 2**32 - 1)))


@settings(max_examples=40)
@given(case=box_cases(), target=st.sampled_from(list(USABLE.values())))
def test_choices_and_bounds_have_the_bits_of_the_reference(case: Case, target: Target) -> None:
    assert_like_reference(case, target)


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 21), st.integers(1, 21)),
    turn=st.permutations(range(3)),
    other=st.permutations(range(3)),
    integers=st.booleans(),
    target=st.sampled_from(list(USABLE.values())),
)
def test_turned_operands_have_the_bits_of_the_reference(
    shape: Shape, turn: list[int], other: list[int], integers: bool, target: Target
) -> None:
    b = Builder()
    dtype = I32 if integers else F32
    operands: list[Operand] = []
    for index, axes in enumerate((turn, other, [1])):
        sizes = tuple(shape[axis] for axis in axes)
        operands.append(along(b.leaf(Kind.DATA, sizes, dtype, index), sizes, axes))
    first, second = (Op.ISUB, Op.IMUL) if integers else (Op.SUB, Op.MUL)
    b.map(shape, expression(operands, (first, (0, 1)), (second, (3, 2))), dtype)
    assert_like_reference(case_of(b.finish([0])), target)


@settings(max_examples=40)
@given(
    shape=st.sampled_from([(2, 24), (24, 2), (6, 16), (40,), (3, 8, 10), (4, 16, 16)]),
    cut=st.integers(0, 40),
    axis=st.integers(0, 2),
    turned=st.booleans(),
    target=st.sampled_from(list(USABLE.values())),
)
def test_a_step_in_place_overwrites_nothing_that_is_read_later(
    shape: Shape, cut: int, axis: int, turned: bool, target: Target
) -> None:
    """Doubles the state in one box, and adds something else in the other."""
    b = Builder()
    state, axes = b.leaf(Kind.INPUT, shape), list(range(len(shape)))
    if turned:
        axes.reverse()
    sizes = tuple(shape[a] for a in axes)
    operands = [
        Flat(state), along(b.leaf(Kind.DATA, sizes), sizes, axes),
        Iota((Term(axis % len(shape), 1),)),
    ]  # fmt: skip
    body = expression(
        operands, (Op.ADD, (0, 0)), (Op.ADD, (0, 1)), (Op.ILT, (2, 3)), (Op.WHERE, (6, 4, 5)),
        immediates=[cut],
    )  # fmt: skip
    case = case_of(b.finish([b.map(shape, body)]))
    (wanted,) = ReferenceExecutor(case.program, case.inputs).step(case.state, 0)
    place = case.state[0].copy()
    CompiledExecutor(case.program, case.inputs, target=target).step([place], 0, out=[place])
    assert_equal(place, wanted, case.program)


# What the generator makes of them ----------------------------------------------------------------


def concatenation() -> Program:
    """Three parts side by side along the last axis."""
    b = Builder()
    parts: list[Operand] = []
    for index in range(3):
        source = b.leaf(Kind.DATA, (6, 16), index=index)
        dims = (Dim(6, (Term(0, 1),)), Dim(16, (Term(1, 1),), -16 * index))
        parts.append(View(source, dims))
    operands = [*parts, Iota((Term(1, 1),))]
    body = expression(
        operands, (Op.ILT, (3, 4)), (Op.ILT, (3, 5)), (Op.WHERE, (7, 1, 2)), (Op.WHERE, (6, 0, 8)),
        immediates=[16, 32],
    )  # fmt: skip
    return b.finish([b.map((6, 48), body)])


@targets
def test_each_part_of_a_concatenation_is_copied_without_masks(target: Target) -> None:
    program = concatenation()
    boxes = boxes_of(program, 3)
    assert len(boxes) == 3
    for part, box in enumerate(boxes):
        read = box.body.accesses[box.expression.results[0]]
        assert box.expression.results == (part,)
        assert not read.tests
        assert not read.outside
    assert_like_reference(case_of(program), target)


def test_boxes_cover_every_element_once_and_are_few() -> None:
    """A padded square: the border of each axis is a box of its own unless that makes it narrow."""
    b = Builder()
    source = b.leaf(Kind.DATA, (40, 40))
    dims = tuple(Dim(40, (Term(axis, 1),), -8) for axis in (0, 1))
    b.map((56, 56), expression([View(source, dims)]))
    many = [View(source, (Dim(40, (Term(0, 1),), -k), Dim(40, ()))) for k in range(8)]
    b.map((56, 56), expression(many, *((Op.ADD, (k, 7)) for k in range(7))))
    program = b.finish([0])
    boxes = boxes_of(program, 1)
    assert len(boxes) == 9
    elements: set[int] = set()
    for box in boxes:
        places = {box.body.out.offset}
        for axis, coef in box.body.out.axes:
            places = {p + coef * x for p in places for x in range(box.body.extents[axis])}
        assert not places & elements
        elements |= places
        assert not any(access.tests for access in box.body.accesses)
    assert elements == set(range(56 * 56))
    assert 1 < len(boxes_of(program, 2)) <= MAX_REGIONS


@pytest.mark.parametrize("shape", [(32, 32), (5, 3, 40)])
def test_a_transposed_operand_is_turned(shape: Shape) -> None:
    b = Builder()
    axes = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    sizes = tuple(shape[axis] for axis in axes)
    b.map(shape, expression([along(b.leaf(Kind.DATA, sizes), sizes, axes)]))
    program = b.finish([0])
    (box,) = boxes_of(program, 1)
    turn = find_turn(box, host_target().width)
    assert (turn is not None) == (shape[-2] >= 4)


@targets
def test_slices_at_different_places_share_one_kernel(target: Target) -> None:
    """As the steps of a recurrent network do: where a slice begins is in the pointer."""
    b = Builder()
    source = b.leaf(Kind.DATA, (12, 20))
    for row in range(11):
        columns = Dim(20, (Term(1, 1),), 2)
        views = [View(source, (Dim(12, (), at), columns)) for at in (row, 11)]
        b.map((1, 18), expression(views, (Op.SUB, (0, 1))))
    program = b.finish([1])
    assert build_module(program, target).text.count("define void @kernel") == 1
    assert_like_reference(case_of(program), target)


def test_an_operand_that_is_read_at_two_places_is_not_overwritten() -> None:
    b = Builder()
    state = b.leaf(Kind.INPUT, (64,))
    after = View(state, (Dim(64, (Term(0, 1),), 1),))
    number = b.map((64,), expression([Flat(state), after], (Op.ADD, (0, 1))))
    alone = b.map((64,), expression([Flat(state)], (Op.ADD, (0, 0))))
    calls = build_module(b.finish([number]), host_target()).calls
    assert calls[number].overwritable == frozenset()
    assert calls[alone].overwritable == {state}
