# SPDX-License-Identifier: GPL-3.0-or-later
"""The two implementations of the primitives, evaluated on whole columns of operands."""

from __future__ import annotations

import numpy as np
from eth_utils.crypto import keccak

from protocol import float32
from protocol.ops import Op
from scripts.solc import CONTRACTS, compile_contracts
from tests.evm import CallResult, Evm
from tests.float_vectors import Words


def in_python(op: Op, columns: list[Words]) -> Words:
    """Evaluate a primitive with `protocol/float32.py`, one vector at a time."""
    results = map(float32.TABLE[op], *(column.tolist() for column in columns))
    return np.fromiter(results, dtype=np.uint32, count=len(columns[0]))


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


class Harness:
    """`Float32Harness` deployed on a bare EVM."""

    def __init__(self) -> None:
        compiled = compile_contracts([CONTRACTS / "mocks" / "Float32Harness.sol"])
        creation_code = compiled["Float32Harness"]["bytecode"].removeprefix("0x")
        self.evm = Evm()
        self.address = self.evm.deploy(bytes.fromhex(creation_code))

    def call(self, signature: str, *words: int, tail: bytes = b"") -> CallResult:
        """Call a function with static arguments; `tail` is the ABI encoding after them.

        Raises EvmReverted.
        """
        head = keccak(signature.encode())[:4] + b"".join(map(_word, words))
        return self.evm.call(self.address, head + tail, keep=False)

    def batch(self, op: int, columns: list[Words]) -> tuple[Words, float]:
        """Evaluate a primitive on columns of operands.

        Returns the results and the gas per vector, the loop around the primitive included.
        """
        packed = np.stack(columns, axis=1).astype(">u4").tobytes()
        tail = _word(len(packed)) + packed + bytes(-len(packed) % 32)
        output, gas = self.call("batch(uint8,bytes)", op, 64, tail=tail)
        size = int.from_bytes(output[32:64], "big")
        results = np.frombuffer(output[64 : 64 + size], dtype=">u4").astype(np.uint32)
        return results, gas / len(results)

    def arity(self, op: int) -> int:
        """Number of operands by the contract."""
        return int.from_bytes(self.call("arity(uint8)", op).output, "big")

    def measure(self, op: Op, *operands: int) -> tuple[int, int]:
        """Return the result of one primitive and the gas of its dispatch and operation."""
        padded = (*operands, 0, 0)[:3]
        output = self.call("measure(uint8,uint32,uint32,uint32)", op, *padded).output
        return int.from_bytes(output[:32], "big"), int.from_bytes(output[32:], "big")
