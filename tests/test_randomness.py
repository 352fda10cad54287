# SPDX-License-Identifier: GPL-3.0-or-later
"""Philox against published vectors, SAMPLE against its formula, arrays against single elements."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import UsageError
from protocol.randomness import philox, philox_array, philox_block, sample, sample_array

SEED = bytes(range(32))
seeds = st.binary(min_size=32, max_size=32)
streams = st.integers(0, 2**32 - 1)
steps = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 2**32 - 1, 2**32]))


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_has_the_known_answers_of_random123(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert philox_block(counter, key) == expected


def test_elements_lie_in_groups_of_four_words_of_sixteen_lanes() -> None:
    key = (0x00010203, 0x04050607)
    for e, block, word in [
        (0, 0, 0),
        (15, 15, 0),
        (16, 0, 1),
        (63, 15, 3),
        (64, 16, 0),
        (150, 38, 1),
    ]:
        assert philox(SEED, 5, 2**32 + 7, e) == philox_block((block, 7, 5, 0), key)[word]


@settings(deadline=None)
@given(seeds, streams, steps, st.integers(1, 300))
def test_philox_array_has_the_bits_of_the_single_elements(
    seed: bytes, stream: int, step: int, numel: int
) -> None:
    array = philox_array(seed, stream, step, numel)
    assert array.dtype == np.uint32
    assert array.tolist() == [philox(seed, stream, step, e) for e in range(numel)]


def test_philox_array_agrees_across_the_chunks_of_its_computation() -> None:
    array = philox_array(SEED, 1, 2, 200_003)
    for e in (65_535, 65_536, 65_551, 131_071, 131_072, 200_002):
        assert array[e] == philox(SEED, 1, 2, e)


def test_philox_bits_are_balanced() -> None:
    ones = np.bitwise_count(philox_array(SEED, 0, 0, 100_000)).mean()
    assert abs(float(ones) - 16) < 0.05  # about six standard deviations


@settings(deadline=None)
@given(seeds, streams, steps, st.integers(1, 40), st.integers(1, 2**31 - 1))
def test_sample_is_the_hash_modulo_the_bound(
    seed: bytes, stream: int, step: int, numel: int, bound: int
) -> None:
    array = sample_array(seed, stream, step, numel, bound)
    assert array.dtype == np.uint32
    for e in range(numel):
        message = seed + stream.to_bytes(4, "big") + step.to_bytes(8, "big") + e.to_bytes(4, "big")
        expected = int(sha256(message).hexdigest(), 16) % bound
        assert sample(seed, stream, step, e, bound) == array[e] == expected


def test_changing_any_input_changes_the_draw() -> None:
    base = sample_array(SEED, 0, 0, 8, 2**31 - 1).tolist()
    other_seed = SEED[:-1] + b"\x00"
    for draw in [(SEED, 1, 0), (SEED, 0, 1), (other_seed, 0, 0)]:
        assert sample_array(*draw, 8, 2**31 - 1).tolist() != base


@pytest.mark.parametrize("function", [philox, philox_array])
def test_seed_of_wrong_length_is_refused(function: object) -> None:
    with pytest.raises(UsageError, match="32 bytes, not 31"):
        function(SEED[:31], 0, 0, 1)  # type: ignore[operator]
    with pytest.raises(UsageError, match="32 bytes"):
        sample(SEED + b"\x00", 0, 0, 0, 1)
