# SPDX-License-Identifier: GPL-3.0-or-later
"""The tools of `make exhaustive` on a few operands, and that they notice a difference."""

from __future__ import annotations

import pytest

from protocol.executor import Target
from protocol.ops import SIGNATURES, Op
from tests import exhaustive_float32 as exhaustive
from tests import float_vectors as vectors
from tests.executing import targets
from tests.float_harness import in_python
from tests.float_integers import IN_INTEGERS


def test_every_primitive_of_one_operand_is_there() -> None:
    assert set(IN_INTEGERS) == {op for op in Op if len(SIGNATURES[op].operands) == 1}


@pytest.mark.parametrize("op", IN_INTEGERS, ids=lambda op: op.name)
def test_integers_agree_with_the_definition(op: Op) -> None:
    for columns in (vectors.grid(1), vectors.random_columns(op, 20_000, seed=3)):
        found = IN_INTEGERS[op](columns[0])
        assert not vectors.mismatch(op, columns, found, in_python(op, columns))


@targets
@pytest.mark.parametrize("op", IN_INTEGERS, ids=lambda op: op.name)
def test_kernels_agree_with_the_integers_at_the_ends_of_binades(op: Op, target: Target) -> None:
    run = exhaustive.kernel(op, 64, target)
    for field in range(0, 512, 7):
        assert not exhaustive.compare(op, (field << 23) - 32 & 0xFFFFFFFF, 64, run)


def test_the_contract_is_compared_too() -> None:
    assert not exhaustive.compare_contract(((0x3F800000, exhaustive.CALL),))


def test_a_difference_is_described() -> None:
    problem = exhaustive.compare(Op.NEG, 0x3F800000, 4, lambda words: words)
    assert problem.startswith("NEG(0x3f800000) gave 0x3f800000, not 0xbf800000; 4 of 4")
