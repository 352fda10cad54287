# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiled folds keep the specified order: blocks, lanes, matrix products, windows, scatters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from protocol.execution import Bits
from protocol.executor import Target, host_target
from protocol.executor.module import build_module
from protocol.ops import Op
from protocol.program import (
    Dim,
    DType,
    Fold,
    Iota,
    Kind,
    Program,
    Term,
    View,
)
from tests import float_vectors
from tests.executing import (
    assert_equal,
    assert_like_reference,
    combined,
    numbers,
    product,
    result,
    targets,
    two_targets,
)
from tests.hand_built import Builder, along, case_of, expression, reduction

F32, I32 = DType.F32, DType.I32

# Folds -------------------------------------------------------------------------------------------

LENGTHS = (1, 2, 15, 16, 17, 255, 256, 257, 512, 513)


@two_targets
@pytest.mark.parametrize("fold", Fold)
def test_folds_keep_the_blocked_order_around_block_boundaries(fold: Fold, target: Target) -> None:
    b = Builder()
    dtype = I32 if fold in (Fold.ISUM, Fold.IMAX) else F32
    data = b.leaf(Kind.DATA, (3, LENGTHS[-1]), dtype)
    results = (0, 0) if fold is Fold.DOT else (0,)
    for terms in LENGTHS:
        for lanes in (1, 16) if fold is Fold.SUM else (1,):
            rows = expression([along(data, (3, LENGTHS[-1]), (0, 1))], results=results)
            columns = expression([along(data, (3, LENGTHS[-1]), (1, 0))], results=results)
            b.fold(fold, (3,), (terms,), rows, lanes)
            b.fold(fold, (terms,), (3,), columns, lanes)
    program = b.finish([len(b.nodes) - 1])
    assert_like_reference(case_of(program, seed=2, wild=target == host_target()), target)


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("terms", [4095, 4096, 4097, 4113, 8193])
def test_sums_of_several_blocks_are_those_of_the_reference(terms: int, lanes: int) -> None:
    for seed in (0, 1):
        assert_like_reference(case_of(reduction(Fold.SUM, terms, lanes), seed, wild=seed == 1))


def test_sum_of_three_levels_is_that_of_the_reference() -> None:
    assert_like_reference(case_of(reduction(Fold.SUM, 65_537), wild=False))


def test_sixteen_lanes_of_unequal_length_reach_a_second_level_alone() -> None:
    """With 16 * 256 + 1 terms one lane has two blocks and the others are a single chain."""
    tiny = np.full((1, 4097), 0x80000001, np.uint32)
    wanted = np.array([0x80000000 | 4097], np.uint32)
    assert_equal(result(reduction(Fold.SUM, 4097, 16), tiny), wanted, "exact subnormal sum")
    zeros = np.full((1, 4097), 0x80000000, np.uint32)
    assert_equal(result(reduction(Fold.SUM, 4097, 16), zeros), np.zeros(1, np.uint32), "-0")


@two_targets
def test_counts_of_compares_of_every_length_are_exact(target: Target) -> None:
    """Tails of 1 .. 15 lanes, and reduce axes that sixteen does not divide, hold every count."""
    b = Builder()
    labels = b.leaf(Kind.DATA, (40,), I32)
    code = ((Op.IEQ, (0, 1)), (Op.IEQ, (3, 2)))
    for shape in [*((k,) for k in range(1, 34)), (2, 6), (3, 5), (2, 16), (12, 3)]:
        terms = (Term(0, shape[1]), Term(1, 1)) if len(shape) > 1 else (Term(0, 1),)
        view = View(labels, (Dim(40, terms, 1),))
        b.fold(Fold.ISUM, (), shape, expression([view], *code, immediates=[3, 0]))
    assert_like_reference(case_of(b.finish([1])), target)


# Matrix products ---------------------------------------------------------------------------------


def gemm(m: int, k: int, n: int, left_transposed: bool, right_transposed: bool) -> Program:
    b = Builder()
    left = b.leaf(Kind.DATA, (k, m) if left_transposed else (m, k))
    right = b.leaf(Kind.DATA, (n, k) if right_transposed else (k, n), index=1)
    a = along(left, (k, m), (2, 0)) if left_transposed else along(left, (m, k), (0, 2))
    c = along(right, (n, k), (1, 2)) if right_transposed else along(right, (k, n), (2, 1))
    body = expression([a, c], results=(0, 1))
    return b.finish([b.fold(Fold.DOT, (m, n), (k,), body)])


@targets
@pytest.mark.parametrize("transposed", [(False, False), (False, True), (True, False)])
def test_matrix_products_round_each_chain_in_order(
    target: Target, transposed: tuple[bool, bool]
) -> None:
    sizes = [(1, 7, 1), (5, 3, 33), (13, 300, 17), (64, 20, 10), (37, 11, 70), (50, 600, 48)]
    for m, k, n in sizes:
        left, right = numbers(1, m, k), numbers(2, k, n)
        wanted = product(left, right)
        stored = [
            np.ascontiguousarray(tensor.T if flag else tensor)
            for tensor, flag in zip((left, right), transposed, strict=True)
        ]
        found = result(gemm(m, k, n, *transposed), *stored, target=target)
        assert_equal(found, wanted, (m, k, n))


def test_matrix_product_with_underflow_and_signed_zero_is_exact() -> None:
    """Tiny negative products round to -0 inside a chain, but the result is +0."""
    tiny = np.full((30, 300), 0x80000001, np.uint32)
    other = np.full((300, 40), 0x00000001, np.uint32)
    assert not result(gemm(30, 300, 40, False, False), tiny, other).any()
    left, right = numbers(3, 30, 300), numbers(4, 300, 40)
    left[3, 7], left[4, 8], right[9, 5] = 0x7F800000, 0xFFC12345, 0x00000001
    with np.errstate(invalid="ignore"):
        wanted = product(left, right)
    assert_equal(result(gemm(30, 300, 40, False, False), left, right), wanted, "with specials")


def test_products_of_three_levels_and_of_batches_are_exact() -> None:
    left, right = numbers(5, 3, 65_800), numbers(6, 65_800, 11)
    found = result(gemm(3, 65_800, 11, False, False), left, right)
    assert_equal(found, product(left, right), "K = 65,800")
    b = Builder()
    sources = b.leaf(Kind.DATA, (3, 29, 40)), b.leaf(Kind.DATA, (3, 21, 40), index=1)
    body = expression(
        [along(sources[0], (3, 29, 40), (0, 1, 3)), along(sources[1], (3, 21, 40), (0, 2, 3))],
        results=(0, 1),
    )
    program = b.finish([b.fold(Fold.DOT, (3, 29, 21), (40,), body)])
    left, right = numbers(7, 3, 29, 40), numbers(8, 3, 21, 40)
    wanted = product(left, np.ascontiguousarray(right.transpose(0, 2, 1)))
    assert_equal(result(program, left, right), wanted, "batched, second transposed")


def convolution(channels: int, size: int, filters: int, dilation: int) -> Program:
    """A padded 3 x 3 convolution of a dilated input, as the gradient of a strided one is."""
    b = Builder()
    image = b.leaf(Kind.DATA, (2, channels, size, size))
    kernel = b.leaf(Kind.DATA, (filters, channels, 3, 3), index=1)
    wide = dilation * size
    window = View(
        image,
        (
            Dim(2, (Term(0, 1),)),
            Dim(channels, (Term(4, 1),)),
            Dim(size, (Term(2, 1), Term(5, 1)), -1, dilation=dilation),
            Dim(size, (Term(3, 1), Term(6, 1)), -1, dilation=dilation),
        ),
    )
    weights = along(kernel, (filters, channels, 3, 3), (1, 4, 5, 6))
    body = expression([weights, window], results=(0, 1))
    return b.finish([b.fold(Fold.DOT, (2, filters, wide, wide), (channels, 3, 3), body)])


@two_targets
@pytest.mark.parametrize("dilation", [1, 2])
def test_convolutions_have_the_bits_of_the_reference(target: Target, dilation: int) -> None:
    size = 17 if dilation == 1 and target == host_target() else 5
    assert_like_reference(case_of(convolution(2, size, 7, dilation), wild=False), target)


def test_packed_windows_have_the_bits_of_the_reference() -> None:
    """Enough filters that the padded windows are packed once for several tiles of rows."""
    assert_like_reference(case_of(convolution(2, 4, 50, 1), seed=3), host_target())


# Scatter -----------------------------------------------------------------------------------------


def scatter(rows: int, width: int, terms: int, fold: Fold = Fold.SUM) -> Program:
    b = Builder()
    dtype = F32 if fold is Fold.SUM else I32
    index = b.leaf(Kind.DATA, (terms,), I32)
    values = b.leaf(Kind.DATA, (terms, width), dtype, 1)
    operands = [
        along(index, (terms,), (2,)),
        Iota((Term(0, 1),)),
        Iota((Term(2, 1),)) if fold is Fold.IMAX else along(values, (terms, width), (2, 1)),
    ]
    default = 0xFFFFFFFF if fold is Fold.IMAX else 0
    select = Op.WHERE if fold is Fold.SUM else Op.IWHERE
    body = expression(operands, (Op.IEQ, (0, 1)), (select, (4, 2, 3)), immediates=[default])
    if fold is Fold.IMAX:
        b.nodes.pop()
    return b.finish([b.fold(fold, (rows, width), (terms,), body)])


def scattered(index: Bits, values: Bits, rows: int) -> Bits:
    """The scatter-add in the specified order, by numpy."""
    blocks = []
    for start in range(0, len(index), 256):
        block = np.zeros((rows, values.shape[1]), np.float32)
        for row, value in zip(index[start : start + 256], values[start : start + 256], strict=True):
            if row < rows:
                block[row] += value.view(np.float32)
        blocks.append(block.view(np.uint32))
    return float_vectors.canonical(combined(blocks))


@two_targets
@pytest.mark.parametrize("terms", [1, 256, 257, 1000])
def test_scatter_add_visits_matches_in_the_blocked_order(terms: int, target: Target) -> None:
    for rows, width in ((5, 1), (3, 21), (40, 16)):
        index = np.random.default_rng(terms).integers(0, rows + 1, terms).astype(np.uint32)
        index[::7] = 0xFFFFFFFF  # out of range
        values = numbers(rows, terms, width)
        values[0, 0] = 0x7F800001
        found = result(scatter(rows, width, terms), index, values, target=target)
        with np.errstate(invalid="ignore"):
            assert_equal(found, scattered(index, values, rows), (rows, width))


def test_scatter_add_of_three_levels_is_exact() -> None:
    terms = 65_536 + 700
    index = np.random.default_rng(0).integers(0, 3, terms).astype(np.uint32)
    values = numbers(0, terms, 2)
    wanted = scattered(index, values, 4)
    assert_equal(result(scatter(4, 2, terms), index, values), wanted, "three levels")


def test_scatter_is_recognized_and_costs_no_scan_of_all_rows() -> None:
    """50,000 rows times 2,000 positions would be 1.6e9 terms; visited ones are 32,000."""
    module = build_module(scatter(50_000, 16, 2_000), host_target())
    assert module.scratch == 4 * (256 * 16 + 256 + 50_000)


@pytest.mark.parametrize("fold", [Fold.SUM, Fold.ISUM, Fold.IMAX])
def test_scatters_of_every_fold_have_the_bits_of_the_reference(fold: Fold) -> None:
    for seed, terms in enumerate((1, 9, 300)):
        assert_like_reference(case_of(scatter(4, 3, terms, fold), seed))


def test_a_default_that_can_win_is_not_taken_for_a_scatter() -> None:
    """IMAX with a default above some values is an ordinary fold; so is a sum over -0 or 1."""
    for fold, default in ((Fold.IMAX, 5), (Fold.ISUM, 1), (Fold.SUM, 0x80000000)):
        program = scatter(4, 3, 20, fold)
        nodes = list(program.nodes)
        place = next(i for i, n in enumerate(nodes) if n.kind is Kind.FOLD)
        body = replace(nodes[place].body, immediates=(default,))
        nodes[place] = replace(nodes[place], expression=body)
        assert_like_reference(case_of(replace(program, nodes=tuple(nodes)), 1))
