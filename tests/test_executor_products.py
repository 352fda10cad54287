# SPDX-License-Identifier: GPL-3.0-or-later
"""Products of matrices of every layout: transposed, batched, windows, expressions, odd sizes.

The oracle computes every view on the whole grid of outputs and terms with numpy, then each chain
in order with a fused multiply-add made of doubles.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.execution import Bits
from protocol.executor import NativeExecutor, Target, host_target, schedule
from protocol.executor.access import body_of
from protocol.executor.emitter import Emitter
from protocol.executor.gemm.plan import Plan, find_product
from protocol.executor.kernel import Context
from protocol.program import Dim, Fold, Kind, Operand, Program, Shape, Term, View
from protocol.reference import ReferenceExecutor
from tests import float_vectors
from tests.executing import USABLE, assert_equal, combined, numbers
from tests.hand_built import Builder, Case, along, case_of, expression

ROWS = (2, 3, 5, 6, 7, 12, 13, 40, 1)
COLUMNS = (2, 4, 7, 8, 9, 15, 16, 17, 24, 31, 33, 130, 1)
TERMS = (2, 3, 7, 8, 9, 16, 28, 255, 256, 257, 513, 1)
MOST = 300_000
"""Outputs times terms of one example."""


def plan_of(program: Program, target: Target) -> Plan | None:
    """How the one DOT of a program is cut."""
    node = next(n for n in program.nodes if n.kind is Kind.FOLD)
    return find_product(Context(Emitter(), node, body_of(program, node), target))


def read(view: Operand, source: Bits, shape: Shape) -> Bits:
    """The operand on the whole grid of outputs and terms."""
    assert isinstance(view, View)
    grid = np.indices(shape, np.int64)
    index = np.zeros(shape, np.int64)
    inside = np.ones(shape, bool)
    for dim in view.dims:
        c = np.full(shape, dim.offset, np.int64)
        for term in dim.terms:
            c += term.coef * grid[term.axis]
        quotient = c // dim.dilation
        inside &= (c % dim.dilation == 0) & (quotient >= dim.lo) & (quotient < dim.hi)
        index = index * dim.size + quotient
    found = np.where(inside, source.reshape(-1)[np.where(inside, index, 0)], view.fill)
    return float_vectors.canonical(found.astype(np.uint32))


def expected(case: Case) -> Bits:
    """The first DOT of a program whose factors are bare views of data."""
    node = next(n for n in case.program.nodes if n.kind is Kind.FOLD)
    numbers: dict[int, Bits] = {}
    for number, leaf in enumerate(case.program.nodes):
        if leaf.kind is Kind.DATA:
            numbers[number] = case.inputs.data[leaf.index]
    left, right = (
        read(o, numbers[o.source], node.shape + node.reduce).reshape(*node.shape, -1)
        for o in (node.body.operands[r] for r in node.body.results)
        if isinstance(o, View)
    )
    blocks = []
    for start in range(0, node.terms, 256):
        acc = np.zeros(node.shape, np.uint32)
        for k in range(start, min(start + 256, node.terms)):
            with np.errstate(all="ignore"):
                acc = float_vectors.fma_by_doubles(left[..., k], right[..., k], acc)
        blocks.append(acc)
    with np.errstate(all="ignore"):
        total = combined(blocks).view(np.float32) + np.float32(0)
    return float_vectors.canonical(total.view(np.uint32))


def computed(case: Case, target: Target, threads: int = 1) -> Bits:
    executor = NativeExecutor(case.program, case.inputs, threads, target)
    return executor.step(case.state, case.step)[0]


def program_of(shape: Shape, reduce: Shape, views: list[View], shapes: list[Shape]) -> Program:
    """One DOT of two views of two data tensors, which are nodes 0 and 1."""
    b = Builder()
    for index, leaf in enumerate(shapes):
        b.leaf(Kind.DATA, leaf, index=index)
    return b.finish([b.fold(Fold.DOT, shape, reduce, expression(views, results=(0, 1)))])


@st.composite
def products(draw: st.DrawFn) -> Program:
    """Two tensors of shuffled axes, each with some output axes of its own; one may be padded."""
    sizes = st.sampled_from(ROWS), st.sampled_from(COLUMNS), st.sampled_from((1, 2, 3))
    kinds = [0, 1, *draw(st.lists(st.sampled_from((0, 1, 2)), max_size=2))]
    kinds = draw(st.permutations(kinds))
    shape = tuple(draw(sizes[kind]) for kind in kinds)
    reduce = tuple(draw(st.sampled_from(TERMS)) for _ in range(draw(st.sampled_from((1, 1, 2)))))
    while math.prod(shape) * math.prod(reduce) > MOST:
        shape = tuple(max(1, n // 2) if n > 9 else n for n in shape)
        reduce = tuple(max(1, n // 2) if n < 255 else n - 1 for n in reduce)
        if max(shape) <= 9:
            reduce = tuple(min(n, 20) for n in reduce)
            shape = tuple(min(n, 5) for n in shape)
    rank = len(shape)
    extents = shape + reduce
    views, shapes = [], []
    for factor in (0, 1):
        axes = [a for a in range(rank) if kinds[a] in (factor, 2)]
        axes = list(draw(st.permutations([*axes, *range(rank, len(extents))])))
        leaf = tuple(extents[axis] for axis in axes)
        view = along(factor, leaf, axes)
        if draw(st.integers(0, 2)) == 0:
            place = draw(st.integers(0, len(axes) - 1))
            view, leaf = padded(draw, view, place, axes, extents)
        views.append(view)
        shapes.append(leaf)
    return program_of(shape, reduce, views, shapes)


def padded(
    draw: st.DrawFn, view: View, place: int, axes: list[int], extents: Shape
) -> tuple[View, Shape]:
    """The view with another axis in one of its dims too, as a window, and shifted outside."""
    dim = view.dims[place]
    other = draw(st.sampled_from(axes))
    terms = tuple(
        {axes[place]: dim.terms[0], other: Term(other, draw(st.sampled_from((1, 2, -1))))}.values()
    )
    size = max(1, extents[axes[place]] - draw(st.integers(0, 2)))
    dilation = draw(st.sampled_from((1, 1, 1, 2)))
    fill = draw(st.sampled_from((0, 0, 0x3F800000, 0xFF800000)))
    dims = list(view.dims)
    dims[place] = Dim(size, terms, draw(st.integers(-2, 1)), dilation=dilation)
    return View(view.source, tuple(dims), fill), tuple(d.size for d in dims)


@st.composite
def convolutions(draw: st.DrawFn) -> Program:
    """A convolution or one of its gradients: padded, strided, dilated windows of few pixels."""

    def one(*values: int) -> int:
        return draw(st.sampled_from(values))

    images, channels, filters, taps = one(2, 3, 16, 1), one(1, 2, 3, 8), one(2, 7, 16), one(3, 1, 2)
    stride, dilation, padding = one(1, 1, 2, 3), one(1, 1, 2), one(1, 0, 2)
    size = one(8, 16, 5, 7, 12)
    out = max(1, (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1)
    image, kernel = (images, channels, size, size), (filters, channels, taps, taps)
    result = (images, filters, out, out)

    def windows(place: int, tap: int) -> Dim:
        return Dim(size, (Term(place, stride), Term(tap, dilation)), -padding)

    def spread(position: int, tap: int) -> Dim:
        terms = (Term(position, 1), Term(tap, -dilation))
        return Dim(out, terms, padding, dilation=stride)

    fill = draw(st.sampled_from((0, 0, 0x3F800000)))
    kind = draw(st.sampled_from(("forward", "input", "weight")))
    if kind == "forward":
        dims = (
            Dim(images, (Term(0, 1),)),
            Dim(channels, (Term(4, 1),)),
            windows(2, 5),
            windows(3, 6),
        )
        views = [View(0, dims, fill), along(1, kernel, (1, 4, 5, 6))]
        return program_of(result, kernel[1:], views, [image, kernel])
    if kind == "input":
        dims = Dim(images, (Term(0, 1),)), Dim(filters, (Term(4, 1),)), spread(2, 5), spread(3, 6)
        views = [View(0, dims, fill), along(1, kernel, (4, 1, 5, 6))]
        return program_of(image, (filters, taps, taps), views, [result, kernel])
    dims = Dim(images, (Term(4, 1),)), Dim(channels, (Term(1, 1),)), windows(5, 2), windows(6, 3)
    views = [along(0, result, (4, 0, 5, 6)), View(1, dims, fill)]
    return program_of(kernel, (images, out, out), views, [result, image])


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets threads share out even the smallest product."""
    monkeypatch.setattr(schedule, "CHUNK_WORK", 1)


@pytest.mark.usefixtures("shared")
@settings(max_examples=80, deadline=None)
@given(program=products(), seed=st.integers(0, 99), wild=st.booleans(), threads=st.booleans())
def test_products_of_any_layout_have_the_specified_bits(
    program: Program, seed: int, wild: bool, threads: bool
) -> None:
    case = case_of(program, seed, wild=wild)
    found = computed(case, host_target(), threads=3 if threads else 1)
    assert_equal(found, expected(case), program)


@pytest.mark.usefixtures("shared")
@settings(max_examples=50, deadline=None)
@given(program=convolutions(), seed=st.integers(0, 99), wild=st.booleans(), threads=st.booleans())
def test_convolutions_and_their_gradients_have_the_specified_bits(
    program: Program, seed: int, wild: bool, threads: bool
) -> None:
    case = case_of(program, seed, wild=wild)
    found = computed(case, host_target(), threads=3 if threads else 1)
    assert_equal(found, expected(case), program)


class Wide(Target):
    """This machine with the tiles of one whose vectors are twice as wide: LLVM cuts them in two."""

    @property
    def width(self) -> int:
        return 16


OTHERS = {
    **{name: target for name, target in USABLE.items() if not target.has("fma")},
    "wide tiles": Wide(host_target().cpu, host_target().features),
}


@pytest.mark.parametrize("target", OTHERS.values(), ids=OTHERS)
@settings(max_examples=15, deadline=None)
@given(program=st.one_of(products(), convolutions()), seed=st.integers(0, 99))
def test_other_targets_have_the_same_bits(target: Target, program: Program, seed: int) -> None:
    case = case_of(program, seed, wild=False)
    assert_equal(computed(case, target), expected(case), program)


@pytest.mark.parametrize(("images", "filters"), [(9, 24), (9, 3), (5, 8)])
def test_long_weight_gradients_are_packed_chunk_by_chunk(images: int, filters: int) -> None:
    """2,304 or 1,280 terms over images of 16 x 16, whose windows are the right or left factor."""
    image, result, kernel = (images, 2, 16, 16), (images, filters, 16, 16), (filters, 2, 3, 3)
    windows = [Dim(16, (Term(5 + d, 1), Term(2 + d, 1)), -1) for d in (0, 1)]
    dims = Dim(images, (Term(4, 1),)), Dim(2, (Term(1, 1),)), *windows
    views = [along(0, result, (4, 0, 5, 6)), View(1, dims)]
    program = program_of(kernel, (images, 16, 16), views, [result, image])
    plan = plan_of(program, host_target())
    assert plan is not None
    assert (plan.left.box or plan.right.box) is not None
    assert (plan.chunk < plan.terms) == (images == 9)
    case = case_of(program, images, wild=False)
    assert_equal(computed(case, host_target()), expected(case), "weight gradient")


@pytest.mark.parametrize("special", [0, 0x7F800000, 0x7FC00001, 0x80000001], ids=hex)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("size", [(40, 20), (130, 33), (300, 8)])
def test_masked_products_leave_out_nothing_that_changes_a_bit(
    size: tuple[int, int], turned: bool, special: int
) -> None:
    """Products with a triangle of zeros of either sign, by a factor with a special value or none.

    The smallest subnormal makes accumulators of -0; an infinity or a NaN must meet every zero.
    """
    time, width = size
    axes = (0, 3, 1) if turned else (0, 1, 3)
    views = [along(0, (2, time, time), axes), along(1, (2, time, width), (0, 3, 2))]
    shapes: list[Shape] = [(2, time, time), (2, time, width)]
    program = program_of((2, time, width), (time,), views, shapes)
    plan = plan_of(program, host_target())
    assert plan is not None
    assert plan.skips
    rng = np.random.default_rng(time)
    mixed = rng.standard_normal((2, time, time)).astype(np.float32)
    mask = np.tril(np.ones((time, time), bool))
    zeros = np.where(rng.integers(0, 2, mixed.shape) == 0, np.float32(0), np.float32(-0.0))
    left = np.where(mask, mixed, zeros).view(np.uint32)
    right = numbers(3, 2, time, width)
    if special:
        right[0, time // 2, width // 2] = special
        right[1, :, 1] = special
        left[1, time // 3, 0] = 0x00000001
    case = case_of(program)
    case = replace(case, inputs=replace(case.inputs, data=(left, right)))
    assert_equal(computed(case, host_target()), expected(case), "masked")


def test_the_oracle_has_the_bits_of_the_reference() -> None:
    view = View(0, (Dim(3, (Term(0, 1), Term(3, 1)), -1), Dim(5, (Term(3, 1),))), 0x40000000)
    program = program_of((2, 3, 4), (5,), [view, along(1, (4, 5), (2, 3))], [(3, 5), (4, 5)])
    case = case_of(program, 5)
    wanted = ReferenceExecutor(case.program, case.inputs).step(case.state, case.step)[0]
    assert_equal(expected(case), wanted, "oracle")
