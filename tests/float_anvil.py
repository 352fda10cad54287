# SPDX-License-Identifier: GPL-3.0-or-later
"""The primitives in Solidity on anvil: hundreds of times faster than on the tests' own EVM."""

from __future__ import annotations

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
from tests.float_vectors import Words

ADDRESS: Final = "0x" + "77" * 20
GAS: Final = 10**11
PATIENCE: Final = 300
"""Seconds to wait for anvil's start or answer."""


class FloatsOnAnvil:
    """`Float32Harness` on a node that listens at `url`. Raises RuntimeError if a call fails."""

    def __init__(self, url: str) -> None:
        self._provider = HTTPProvider(url, request_kwargs={"timeout": PATIENCE})
        for _ in range(10 * PATIENCE):
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

    def batch(self, op: Op, columns: list[Words]) -> Words:
        """Evaluate a primitive on columns of operands."""
        packed = np.stack(columns, axis=1).astype(">u4").tobytes()
        head = b"".join(number.to_bytes(32, "big") for number in (int(op), 64, len(packed)))
        data = keccak(b"batch(uint8,bytes)")[:4] + head + packed + bytes(-len(packed) % 32)
        call = {"to": ADDRESS, "data": "0x" + data.hex(), "gas": hex(GAS)}
        output = bytes.fromhex(self._ask("eth_call", call, "latest")[2:])
        words = output[64 : 64 + int.from_bytes(output[32:64], "big")]
        return np.frombuffer(words, dtype=">u4").astype(np.uint32)


@contextmanager
def floats_on_anvil() -> Iterator[FloatsOnAnvil]:
    """Start anvil with the harness and stop it at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(ensure_anvil()), "--silent", "--port", str(port), "--gas-limit", str(10 * GAS)]
    process = subprocess.Popen([*command, "--no-mining"])
    try:
        yield FloatsOnAnvil(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()
