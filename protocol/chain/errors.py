# SPDX-License-Identifier: GPL-3.0-or-later
"""Decoding what a reverted call returned into the contract's own words."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from eth_abi import abi as eth_abi
from eth_abi.exceptions import DecodingError
from eth_tester.exceptions import TransactionFailed
from eth_utils.crypto import keccak

from protocol import artifacts

_PANIC = bytes.fromhex("4e487b71")
_ERROR = bytes.fromhex("08c379a0")


def decode_revert(
    data: Any, message: str | None, abi: Sequence[Any] = ()
) -> tuple[str, tuple[object, ...], str]:
    """`(error name, arguments, sentence)` of revert data.

    Errors are looked up in the given ABI, then in those of all shipped contracts, since a call may
    pass on the error of another contract.
    """
    raw = _bytes(data)
    if len(raw) < 4:
        text = message or "reverted without a reason"
        return "", (), text
    selector, body = raw[:4], raw[4:]
    if selector == _PANIC and len(body) == 32:
        code = int.from_bytes(body)
        return "Panic", (code,), f"reverted with panic code 0x{code:02x}"
    if selector == _ERROR:
        decoded = _decode(["string"], body)
        if decoded is not None:
            return "Error", decoded, f"reverted: {decoded[0]}"
    for item in (
        *abi,
        *(entry for name in artifacts.names() for entry in artifacts.load(name).abi),
    ):
        if item["type"] != "error":
            continue
        types = [abi_type(entry) for entry in item["inputs"]]
        if keccak(text=f"{item['name']}({','.join(types)})")[:4] != selector:
            continue
        values = _decode(types, body)
        if values is None:
            break
        named = ", ".join(
            f"{entry['name']}={_show(value)}"
            for entry, value in zip(item["inputs"], values, strict=True)
        )
        return item["name"], values, f"reverted with {item['name']}({named})"
    return "", (), f"reverted with unknown error data 0x{raw.hex()}"


def abi_type(item: Any) -> str:
    """Type of an ABI entry as signatures spell it: structs are written out."""
    kind = str(item["type"])
    if kind.startswith("tuple"):
        return f"({','.join(abi_type(part) for part in item['components'])}){kind[5:]}"
    return kind


def _decode(types: Sequence[str], body: bytes) -> tuple[Any, ...] | None:
    """The decoded arguments, or None if it is other data: contracts may revert with any bytes."""
    try:
        return tuple(eth_abi.decode(list(types), body))
    except (DecodingError, UnicodeDecodeError, OverflowError):
        return None


def revert_data(error: TransactionFailed) -> bytes:
    """The bytes that a call on eth-tester reverted with: it gives only their printed form."""
    text = str(error.args[0]) if error.args else ""
    printed = text.removeprefix("execution reverted: ")
    if not printed.startswith(("b'", 'b"')):
        return b""
    try:
        return bytes(ast.literal_eval(printed))
    except (ValueError, SyntaxError, TypeError):
        return b""


def _bytes(data: Any) -> bytes:
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    if isinstance(data, str) and data.startswith("0x"):
        try:
            return bytes.fromhex(data[2:])
        except ValueError:
            return b""
    return b""


def _show(value: object) -> str:
    if isinstance(value, bytes):
        text = value.rstrip(b"\0")
        if text and text.isascii() and text.decode().isprintable():
            return repr(text.decode())
        return "0x" + value.hex()
    return str(value)
