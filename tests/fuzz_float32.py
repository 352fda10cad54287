# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare Solidity, Python and the machine on very many vectors: `make fuzz`.

    python -m tests.fuzz_float32 --count 1000000 [--seed N]

Each primitive gets the wide grid of special operands, `count` random vectors and, if it adds,
another `count` that cancel. On every vector the contract and the machine are compared with the
Python definition. The contract runs on anvil, which is far faster than the tests' EVM. Prints one
line per primitive; exit status 1 and the first differing vector on a mismatch.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from eth_utils.crypto import keccak
from web3 import HTTPProvider

from protocol.ops import Op
from scripts.solc import CONTRACTS, compile_contracts
from scripts.toolchain import ensure_anvil
from tests import float_vectors as vectors
from tests.float_harness import in_python

CHUNK: Final = 20_000
ADDING: Final = (Op.ADD, Op.SUB, Op.FMA)
ADDRESS: Final = "0x" + "77" * 20
GAS: Final = 10**11


class _Contract:
    """`Float32Harness` on anvil."""

    def __init__(self, url: str) -> None:
        self._provider = HTTPProvider(url, request_kwargs={"timeout": 300})
        for _ in range(300):
            if self._provider.is_connected():
                break
            time.sleep(0.1)
        compiled = compile_contracts([CONTRACTS / "mocks" / "Float32Harness.sol"])
        self._ask("anvil_setCode", ADDRESS, compiled["Float32Harness"]["deployed_bytecode"])

    def _ask(self, method: str, *parameters: object) -> Any:
        answer = self._provider.make_request(method, list(parameters))  # type: ignore[arg-type]
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def batch(self, op: Op, columns: list[vectors.Words]) -> vectors.Words:
        """Evaluate a primitive on columns of operands."""
        packed = np.stack(columns, axis=1).astype(">u4").tobytes()
        head = b"".join(number.to_bytes(32, "big") for number in (int(op), 64, len(packed)))
        data = keccak(b"batch(uint8,bytes)")[:4] + head + packed + bytes(-len(packed) % 32)
        call = {"to": ADDRESS, "data": "0x" + data.hex(), "gas": hex(GAS)}
        output = bytes.fromhex(self._ask("eth_call", call, "latest")[2:])
        words = output[64 : 64 + int.from_bytes(output[32:64], "big")]
        return np.frombuffer(words, dtype=">u4").astype(np.uint32)


@contextmanager
def _anvil() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(ensure_anvil()), "--silent", "--port", str(port), "--gas-limit", str(10 * GAS)]
    process = subprocess.Popen([*command, "--no-mining"])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def compare(contract: _Contract, op: Op, columns: list[vectors.Words]) -> str:
    """Return a description of the first mismatch, or an empty string."""
    for start in range(0, len(columns[0]), CHUNK):
        part = [np.ascontiguousarray(column[start : start + CHUNK]) for column in columns]
        defined = in_python(op, part)
        for name, found in (
            ("Solidity", contract.batch(op, part)),
            ("the machine", vectors.expected(op, part)),
        ):
            problem = vectors.mismatch(op, part, found, defined)
            if problem:
                return f"{name}: {problem}"
    return ""


def samples(op: Op, count: int, seed: int) -> Iterator[list[vectors.Words]]:
    """Yield columns of operands until all vectors of a primitive have been given."""
    yield vectors.grid(vectors.arity(op))
    yield vectors.random_columns(op, count, seed)
    if op in ADDING:
        yield vectors.cancelling_columns(op, count, seed)


def main() -> int:
    """Run the comparison and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="random vectors of each")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.count} random vectors each", flush=True)
    compared, began = 0, time.perf_counter()
    with _anvil() as url:
        contract = _Contract(url)
        for op in Op:
            started, count = time.perf_counter(), 0
            for columns in samples(op, arguments.count, arguments.seed):
                problem = compare(contract, op, columns)
                if problem:
                    print(f"MISMATCH {problem}")
                    return 1
                count += len(columns[0])
            seconds = time.perf_counter() - started
            print(f"{op.name:8} {count:9} vectors equal in {seconds:.0f} s", flush=True)
            compared += count
    print(f"{compared} vectors, no difference, {time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
