# SPDX-License-Identifier: GPL-3.0-or-later
"""`protocol/float32.py` against the machine's binary32 and against exact rationals.

The random test covers 1,120,000 vectors over all primitives, the grids another 350,000.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import float32
from protocol.errors import ProgramError
from protocol.float32 import Float32
from protocol.ops import SIGNATURES, Op
from tests import float_vectors as vectors
from tests.float_harness import in_python

ROUNDING = (Op.ADD, Op.SUB, Op.MUL, Op.FMA, Op.DIV, Op.SQRT)
NAN, INFINITY, SIGN = vectors.NAN, vectors.INFINITY, vectors.SIGN


def patterns() -> st.SearchStrategy[int]:
    """Any pattern, or a special one, or one a few units away from a special one."""
    special = st.sampled_from(vectors.MANY_SPECIALS)
    near = st.builds(lambda x, d: (x + d) & 0xFFFFFFFF, special, st.integers(-3, 3))
    return st.one_of(special, near, st.integers(0, 0xFFFFFFFF))


def finite() -> st.SearchStrategy[int]:
    return patterns().filter(lambda x: x & 0x7FFFFFFF < INFINITY)


def nonzero() -> st.SearchStrategy[int]:
    return finite().filter(lambda x: x & 0x7FFFFFFF != 0)


@pytest.mark.parametrize("op", Op, ids=lambda op: op.name)
def test_every_tuple_of_special_operands_agrees_with_the_machine(op: Op) -> None:
    columns = vectors.grid(vectors.arity(op))
    wanted = vectors.expected(op, columns)
    assert not vectors.mismatch(op, columns, in_python(op, columns), wanted)


@pytest.mark.parametrize("op", Op, ids=lambda op: op.name)
def test_random_operands_agree_with_the_machine(op: Op) -> None:
    count = 100_000 if op in ROUNDING else 20_000
    columns = vectors.random_columns(op, count, seed=7)
    wanted = vectors.expected(op, columns)
    assert not vectors.mismatch(op, columns, in_python(op, columns), wanted)


def test_fma_is_the_nearest_to_the_exact_rational_on_random_operands() -> None:
    columns = vectors.random_columns(Op.FMA, 4_000, seed=5)
    results = in_python(Op.FMA, columns).tolist()
    checked = 0
    for (x, y, z), result in zip(zip(*columns, strict=True), results, strict=True):
        if any(word & ~SIGN >= INFINITY for word in (int(x), int(y), int(z))):
            continue
        exact = vectors.value(int(x)) * vectors.value(int(y)) + vectors.value(int(z))
        assert (result == vectors.nearest(exact)) if exact else (result & ~SIGN == 0)
        checked += 1
    assert checked > 3_900


@given(x=finite(), y=finite(), z=finite())
def test_fma_is_the_nearest_to_the_exact_rational(x: int, y: int, z: int) -> None:
    exact = vectors.value(x) * vectors.value(y) + vectors.value(z)
    result = float32.fma(Float32(x), Float32(y), Float32(z))
    if exact == 0:
        assert result & ~SIGN == 0
    else:
        assert result == vectors.nearest(exact)


@given(x=finite(), y=finite())
def test_add_sub_and_mul_are_the_nearest_to_the_exact_rational(x: int, y: int) -> None:
    a, b = vectors.value(x), vectors.value(y)
    exact: dict[Op, Fraction] = {Op.ADD: a + b, Op.SUB: a - b, Op.MUL: a * b}
    for op, rational in exact.items():
        result = float32.apply(op, x, y)
        if rational == 0:
            assert result & ~SIGN == 0
        else:
            assert result == vectors.nearest(rational)


@given(x=nonzero(), y=nonzero())
def test_div_is_the_nearest_to_the_exact_rational(x: int, y: int) -> None:
    exact = vectors.value(x) / vectors.value(y)
    assert float32.div(Float32(x), Float32(y)) == vectors.nearest(exact)


@given(x=nonzero())
def test_sqrt_is_the_nearest_to_the_exact_root(x: int) -> None:
    magnitude = Float32(x & ~SIGN)
    assert float32.sqrt(magnitude) == vectors.nearest_root(vectors.value(magnitude))


@given(x=st.integers(-(2**31), 2**31 - 1))
def test_i2f_is_the_nearest_and_f2i_truncates_it(x: int) -> None:
    converted = float32.i2f(float32.Int32(x & 0xFFFFFFFF))
    assert converted == (vectors.nearest(Fraction(x)) if x else 0)
    truncated = int(vectors.value(converted))
    assert float32.signed(float32.f2i(converted)) == min(truncated, 2**31 - 1)


@given(data=st.data(), op=st.sampled_from(list(Op)))
def test_results_are_words_and_the_only_nan_is_canonical(data: st.DataObject, op: Op) -> None:
    result = float32.apply(op, *(data.draw(patterns()) for _ in range(vectors.arity(op))))
    assert 0 <= result < 2**32
    if SIGNATURES[op].result == "f" and float32.is_nan(Float32(result)):
        assert result == NAN


@given(data=st.data(), op=st.sampled_from(list(Op)))
def test_a_float_operand_is_canonicalized_when_it_is_read(data: st.DataObject, op: Op) -> None:
    kinds = SIGNATURES[op].operands
    operands = [data.draw(patterns()) for _ in kinds]
    read = [
        float32.canonical(Float32(x)) if kind == "f" else x
        for x, kind in zip(operands, kinds, strict=True)
    ]
    assert float32.apply(op, *operands) == float32.apply(op, *read)


@pytest.mark.parametrize(
    ("op", "operands", "result"),
    [
        (Op.ADD, (0x80000000, 0x80000000), 0x80000000),  # -0 + -0
        (Op.ADD, (0x3F800000, 0xBF800000), 0x00000000),  # 1 + -1 is +0
        (Op.ADD, (0x3F800000, 0x33800000), 0x3F800000),  # 1 + 2**-24: a tie, to even
        (Op.ADD, (0x3F800001, 0x33800000), 0x3F800002),  # the same tie from odd
        (Op.ADD, (0x7F7FFFFF, 0x73000000), 0x7F800000),  # half a last place over the largest
        (Op.ADD, (0x7F7FFFFF, 0x72FFFFFF), 0x7F7FFFFF),  # just under that tie
        (Op.MUL, (0x00000001, 0x3F000000), 0x00000000),  # half the smallest: a tie, to zero
        (Op.MUL, (0x00000001, 0x3F000001), 0x00000001),  # just above it
        (Op.MUL, (0x80000001, 0x3E800000), 0x80000000),  # underflow keeps the sign
        (Op.MUL, (0x00FFFFFF, 0x3F000000), 0x00800000),  # a subnormal carries into a normal
        (Op.FMA, (0x3F800001, 0x3F800001, 0xBF800002), 0x28800000),  # one rounding leaves 2**-46
        (Op.FMA, (0x7F7FFFFF, 0x40000000, 0xFF7FFFFF), 0x7F7FFFFF),  # no overflow in between
        (Op.FMA, (0x3F800001, 0x5FC00000, 0x00000001), 0x5FC00002),  # a far addend breaks the tie
        (Op.FMA, (0x3F800001, 0x5FC00000, 0x80000001), 0x5FC00001),
        (Op.FMA, (0x7F800000, 0x00000000, 0x7FC00000), 0x7FC00000),
        (Op.DIV, (0x3F800000, 0x80000000), 0xFF800000),  # 1 / -0
        (Op.DIV, (0x00000000, 0x00000000), 0x7FC00000),
        (Op.SQRT, (0x80000000,), 0x80000000),
        (Op.SQRT, (0xBF800000,), 0x7FC00000),
        (Op.SQRT, (0x00000001,), 0x1A3504F3),
        (Op.MAX, (0x80000000, 0x00000000), 0x00000000),
        (Op.MIN, (0x00000000, 0x80000000), 0x80000000),
        (Op.MAX, (0x7F800000, 0x7F800001), 0x7FC00000),
        (Op.NEG, (0x7FC00000,), 0x7FC00000),
        (Op.EQ, (0x00000000, 0x80000000), 1),
        (Op.LT, (0x80000000, 0x00000000), 0),
        (Op.F2I, (0xFF800000,), 0x80000000),
        (Op.F2I, (0x4F000000,), 0x7FFFFFFF),
        (Op.F2I, (0xBF7FFFFF,), 0),
        (Op.I2F, (0x7FFFFFFF,), 0x4F000000),
        (Op.F2BITS, (0xFFFFFFFF,), 0x7FC00000),
        (Op.SHL, (1, 33), 2),
        (Op.SAR, (0x80000000, 31), 0xFFFFFFFF),
    ],
)
def test_known_results(op: Op, operands: tuple[int, ...], result: int) -> None:
    assert float32.apply(op, *operands) == result


def test_every_primitive_has_a_definition_and_no_other_byte_has() -> None:
    assert set(float32.TABLE) == set(Op) == set(SIGNATURES)
    with pytest.raises(ProgramError, match="0x13 is not a primitive"):
        float32.apply(0x13, 0, 0)  # type: ignore[arg-type]
