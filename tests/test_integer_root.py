# SPDX-License-Identifier: GPL-3.0-or-later
"""`IntegerRoot.sol` against Python's integer square root."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from random import Random

import pytest
from eth_utils.crypto import keccak

from scripts.solc import CONTRACTS, compile_contracts
from tests.evm import Evm

LOWEST, END = 2**75, 2**77
SELECTOR = keccak(b"floor(uint256)")[:4]


@pytest.fixture(scope="module")
def root() -> Callable[[int], int]:
    contract = compile_contracts([CONTRACTS / "mocks" / "IntegerRootHarness.sol"])
    evm = Evm()
    address = evm.deploy(bytes.fromhex(contract["IntegerRootHarness"]["bytecode"][2:]))

    def call(radicand: int) -> int:
        output, _ = evm.call(address, SELECTOR + radicand.to_bytes(32, "big"), keep=False)
        return int.from_bytes(output, "big")

    return call


def test_floor_is_exact_around_squares_and_at_both_ends(root: Callable[[int], int]) -> None:
    draw = Random(5)
    sides = [isqrt(LOWEST) + 1, isqrt(END - 1), *(draw.randrange(2**38, 2**39) for _ in range(60))]
    near = (0, -1, 1, -2, 2, -1000, 1000)
    radicands = [LOWEST, END - 1, *(side * side + k for side in sides for k in near)]
    for radicand in radicands:
        if LOWEST <= radicand < END:
            assert root(radicand) == isqrt(radicand)
