# SPDX-License-Identifier: GPL-3.0-or-later
"""Sine and cosine: the error that `protocol.mathfn` states, and traced programs that use them.

Run with `BITCOURT_SLOW=1` for a hundred times as many patterns.
"""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

from protocol.mathfn import LARGEST_ANGLE, bits_of
from tests.test_mathfn import COUNT, Case, Words, build, error_in_ulp, run, stated_error
from tests.tracing_support import Apply, follows_torch, numbers, regression

CASES = (
    Case("sin", mpmath.sin, -LARGEST_ANGLE, LARGEST_ANGLE),
    Case("cos", mpmath.cos, -LARGEST_ANGLE, LARGEST_ANGLE),
)
INF, NAN = 0x7F800000, 0x7FC00000


def angles() -> Words:
    """Uniform angles at several scales, random patterns, and the neighbours of n pi / 2."""
    rng = np.random.default_rng(11)
    multiples = rng.integers(-41721, 41722, 2 * COUNT) * (np.pi / 2)
    near = multiples.astype(np.float32).view(np.uint32) + rng.integers(-2, 3, 2 * COUNT)
    small = np.concatenate([np.arange(-50, 51)] * 3) * (np.pi / 2)
    scales = [rng.uniform(-s, s, COUNT).astype(np.float32) for s in (1, 10, 1000, LARGEST_ANGLE)]
    random = rng.integers(0, 1 << 32, COUNT, dtype=np.uint64).astype(np.uint32)
    floats = np.concatenate([*scales, small.astype(np.float32), random.view(np.float32)])
    words = np.concatenate([floats.view(np.uint32), near.astype(np.uint32)])
    inside = np.abs(words.view(np.float32)) <= LARGEST_ANGLE
    return words[inside & (words.view(np.float32) != 0)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_error_is_at_most_what_the_docstring_states(case: Case) -> None:
    mpmath.mp.prec = 100
    words = angles()
    worst = max(
        (error_in_ulp(case, int(w), int(r)), hex(w))
        for w, r in zip(words, run(case.name, words), strict=True)
    )
    assert worst[0] <= stated_error(case.name), worst


@pytest.mark.parametrize(("name", "count"), [("sin", 28), ("cos", 27)])
def test_instruction_count_is_what_the_docstring_states(name: str, count: int) -> None:
    assert len(build(name).instructions) == count


@pytest.mark.parametrize(
    ("name", "word", "result"),
    [
        ("sin", 0, 0),
        ("sin", 0x80000000, 0x80000000),
        ("sin", 1, 1),
        ("cos", 0, bits_of(1.0)),
        ("cos", 0x80000000, bits_of(1.0)),
        *((name, word, NAN) for name in ("sin", "cos") for word in (INF, 0xFF800000, 0xFFC12345)),
        *((name, bits_of(LARGEST_ANGLE) + 1, NAN) for name in ("sin", "cos")),
    ],
)
def test_special_values(name: str, word: int, result: int) -> None:
    (got,) = run(name, np.array([word], np.uint32))
    assert hex(got) == hex(result)


def test_sine_and_cosine_follow_torch() -> None:
    data = (numbers(9, 5), numbers(9, 2))
    follows_torch(Apply(lambda x: torch.sin(3 * x) + torch.cos(x * x)), regression, data)
