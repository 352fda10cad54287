# SPDX-License-Identifier: GPL-3.0-or-later
"""The stated maximum error of every function of `protocol.mathfn`, measured against mpmath.

Run with `BITCOURT_SLOW=1` for a hundred times as many patterns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import pytest
from float_vectors import expected
from numpy.typing import NDArray

from protocol import float32, mathfn
from protocol.mathfn import ExpressionBuilder, bits_of
from protocol.ops import Op
from protocol.program import Expression, Flat

Words = NDArray[np.uint32]
COUNT = 150_000 if os.environ.get("BITCOURT_SLOW") else 1_500
INF, NAN = 0x7F800000, 0x7FC00000


def build(name: str) -> Expression:
    builder = ExpressionBuilder([Flat(0)])
    return builder.build(getattr(mathfn, name)(builder, 0))


def run(name: str, words: Words) -> Words:
    """Execute on whole columns with the machine's arithmetic, an oracle of the primitives."""
    code = build(name)
    registers = [words, *(np.full_like(words, bits) for bits in code.immediates)]
    for instruction in code.instructions:
        registers.append(expected(instruction.op, [registers[a] for a in instruction.args]))
    return registers[code.results[0]]


@dataclass(frozen=True)
class Case:
    name: str
    exact: Callable[[Any], Any]
    low: float
    high: float
    """Beyond these the function is constant, NaN or infinite: see the tests of special values."""


CASES = (
    Case("exp", mpmath.exp, -105.0, 90.0),
    Case("expm1", mpmath.expm1, -60.0, 90.0),
    Case("log", mpmath.log, 0.0, 3.4e38),
    Case("log1p", mpmath.log1p, -1.0, 3.4e38),
    Case("tanh", mpmath.tanh, -60.0, 60.0),
    Case("erf", mpmath.erf, -20.0, 20.0),
    Case("sigmoid", lambda x: 1 / (1 + mpmath.exp(-x)), -87.0, 90.0),
    Case("rsqrt", lambda x: 1 / mpmath.sqrt(x), 0.0, 3.4e38),
)


def patterns_in(case: Case) -> Words:
    """Random patterns, uniform numbers, numbers around 0 and 1, and a dense grid."""
    rng = np.random.default_rng(7)
    low, high = max(case.low, -100.0), min(case.high, 100.0)
    floats = np.concatenate(
        [
            rng.integers(0, 1 << 32, 4 * COUNT, dtype=np.uint64).astype(np.uint32).view(np.float32),
            rng.uniform(low, high, COUNT).astype(np.float32),
            rng.uniform(-1, 1, COUNT).astype(np.float32),
            rng.uniform(0.5, 1.5, COUNT).astype(np.float32),
            np.linspace(max(low, -5), min(high, 5), COUNT, dtype=np.float32),
        ]
    )
    inside = (floats > case.low) & (floats < case.high) & (floats != 0)
    return floats[inside].view(np.uint32)


def error_in_ulp(case: Case, word: int, result: int) -> float:
    value = float(np.uint32(word).view(np.float32))
    exact = case.exact(mpmath.mpf(value))
    largest = mpmath.mpf(2) ** 128 * (1 - mpmath.mpf(2) ** -25)  # from here on rounds to infinity
    if abs(exact) >= largest:
        return 0.0 if result & 0x7FFFFFFF == INF else float("inf")
    if result & 0x7FFFFFFF >= INF:
        # One unit in the last place below infinity may round up to it.
        return 1.0 if abs(exact) > largest * (1 - mpmath.mpf(2) ** -23) else float("inf")
    exponent = mpmath.floor(mpmath.log(abs(exact), 2)) if exact else -126
    unit = mpmath.mpf(2) ** (max(exponent, -126) - 23)
    return float(abs(exact - float(np.uint32(result).view(np.float32))) / unit)


def stated_error(name: str) -> float:
    found = re.search(r"At most ([0-9.]+) ulp", getattr(mathfn, name).__doc__)
    assert found
    return float(found.group(1))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_error_is_at_most_what_the_docstring_states(case: Case) -> None:
    mpmath.mp.prec = 100
    words = patterns_in(case)
    worst = max(
        (error_in_ulp(case, int(w), int(r)), hex(w))
        for w, r in zip(words, run(case.name, words), strict=True)
    )
    assert worst[0] <= stated_error(case.name), worst


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_instruction_count_is_what_the_docstring_states_and_fits_a_node(case: Case) -> None:
    code = build(case.name)
    found = re.search(r"(\d+)\s+instructions", getattr(mathfn, case.name).__doc__)
    assert found
    assert len(code.instructions) == int(found.group(1))
    assert len(code.instructions) <= 64
    assert len(code.immediates) <= 32


@pytest.mark.parametrize(
    ("name", "word", "result"),
    [
        ("exp", 0xFF800000, 0),
        *(("exp", bits_of(x), 0) for x in (-104.5, -130.0, -175.0, -175.6, -176.0, -177.0, -1e30)),
        ("exp", INF, INF),
        ("exp", bits_of(89.0), INF),
        ("exp", 0x80000000, bits_of(1.0)),
        ("expm1", 0xFF800000, bits_of(-1.0)),
        ("expm1", INF, INF),
        ("expm1", 0x80000000, 0x80000000),
        ("expm1", 0, 0),
        ("log", 0, 0xFF800000),
        ("log", 0x80000000, 0xFF800000),
        ("log", bits_of(-1.0), NAN),
        ("log", 0x80000001, NAN),
        ("log", INF, INF),
        ("log", 0xFF800000, NAN),
        ("log", bits_of(1.0), 0),
        ("log1p", bits_of(-1.0), 0xFF800000),
        ("log1p", bits_of(-1.5), NAN),
        ("log1p", INF, INF),
        ("log1p", 0x80000000, 0x80000000),
        ("tanh", INF, bits_of(1.0)),
        ("tanh", 0xFF800000, bits_of(-1.0)),
        ("tanh", 0x80000000, 0x80000000),
        ("erf", INF, bits_of(1.0)),
        ("erf", 0xFF800000, bits_of(-1.0)),
        ("erf", 0x80000000, 0x80000000),
        ("sigmoid", INF, bits_of(1.0)),
        ("sigmoid", 0xFF800000, 0),
        ("rsqrt", INF, 0),
        ("rsqrt", 0, INF),
        *((case.name, NAN, NAN) for case in CASES),
        *((case.name, 0xFF812345, NAN) for case in CASES),
    ],
)
def test_special_values(name: str, word: int, result: int) -> None:
    (got,) = run(name, np.array([word], np.uint32))
    assert hex(got) == hex(result)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_machine_arithmetic_agrees_with_the_living_definition(case: Case) -> None:
    words = patterns_in(case)[::37][:150]
    code = build(case.name)
    for word, got in zip(words, run(case.name, words), strict=True):
        registers = [int(word), *code.immediates]
        for instruction in code.instructions:
            registers.append(
                float32.apply(instruction.op, *(registers[a] for a in instruction.args))
            )
        assert registers[code.results[0]] == got


def test_builder_shares_immediates_and_places_them_before_results() -> None:
    builder = ExpressionBuilder([Flat(3), Flat(4)])
    total = builder.op(Op.ADD, 0, builder.f32(1.0))
    product = builder.op(Op.MUL, total, builder.f32(1.0))
    code = builder.build(builder.op(Op.FMA, product, 1, builder.f32(2.0)))
    assert code.immediates == (bits_of(1.0), bits_of(2.0))
    assert [i.args for i in code.instructions] == [(0, 2), (4, 2), (5, 1, 3)]
    assert code.results == (6,)


def test_bits_of_rounds_to_nearest_and_to_infinity() -> None:
    assert bits_of(1 / 3) == 0x3EAAAAAB
    assert bits_of(1e39) == INF
    assert bits_of(-1e39) == INF | 1 << 31
