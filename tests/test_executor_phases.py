# SPDX-License-Identifier: GPL-3.0-or-later
"""Folds over dilated views: columns of one remainder at a time, with the bits of the reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.executor import Target
from protocol.executor.access import body_of
from protocol.executor.phases import split_phases
from protocol.ops import Op
from protocol.program import Dim, Fold, Iota, Kind, Program, Term, View
from tests.executing import USABLE, assert_like_reference
from tests.hand_built import F32, I32, Builder, case_of, expression


def scattered_windows(
    columns: int, dilation: int, window: int, offset: int, spread: int, fold: Fold
) -> Program:
    """What windows `dilation` apart leave at each position, if it is the one that they chose."""
    b = Builder()
    sizes = (3, -(-columns // dilation))
    dtype = I32 if fold is Fold.IMAX else F32
    dims = (
        Dim(3, (Term(0, 1),)),
        Dim(sizes[1], (Term(1, 1), Term(2, -spread)), offset, 0, sizes[1], dilation),
    )
    chosen = View(b.leaf(Kind.DATA, sizes, I32), dims, 0xFFFFFFFF)
    given_ = View(b.leaf(Kind.DATA, sizes, dtype, 1), dims)
    choose = Op.IWHERE if dtype is I32 else Op.WHERE
    body = expression(
        [chosen, Iota((Term(1, 1),)), given_], (Op.ILT, (0, 1)), (choose, (4, 2, 3)), immediates=[0]
    )
    return b.finish([b.fold(fold, (3, columns), (window,), body)])


@settings(max_examples=40)
@given(
    columns=st.sampled_from([7, 8, 12, 16, 18, 24, 33, 36]),
    dilation=st.integers(2, 4),
    window=st.integers(1, 4),
    offset=st.integers(-3, 3),
    spread=st.integers(1, 2),
    fold=st.sampled_from([Fold.SUM, Fold.MAX, Fold.IMAX]),
    target=st.sampled_from(list(USABLE.values())),
)
def test_dilated_folds_have_the_bits_of_the_reference(
    columns: int, dilation: int, window: int, offset: int, spread: int, fold: Fold, target: Target
) -> None:
    program = scattered_windows(columns, dilation, window, offset, spread, fold)
    assert_like_reference(case_of(program, seed=columns), target)


@pytest.mark.parametrize(("columns", "dilation"), [(16, 2), (24, 3)])
def test_columns_are_split_by_their_remainder(columns: int, dilation: int) -> None:
    program = scattered_windows(columns, dilation, 2, 0, 1, Fold.SUM)
    body = body_of(program, program.nodes[2])
    split = split_phases(body)
    assert body.extents == (3, columns, 2)
    assert split.extents == (3, dilation, columns // dilation, 2)
    assert split.out.axes == ((0, columns), (1, 1), (2, dilation))


def test_columns_that_are_read_as_they_lie_are_not_split() -> None:
    """A second operand without the dilation would be read at every second place."""
    program = scattered_windows(16, 2, 2, 0, 1, Fold.SUM)
    node = program.nodes[2]
    dims = (Dim(3, (Term(0, 1),)), Dim(8, (Term(1, 1),), -4))
    operands = (*node.body.operands[:2], View(1, dims))
    other = replace(node, expression=replace(node.body, operands=operands))
    body = body_of(program, other)
    assert split_phases(body) is body
