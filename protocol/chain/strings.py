# SPDX-License-Identifier: GPL-3.0-or-later
"""Strings on chain are bytes of whoever sent them, and need not be UTF-8."""

from __future__ import annotations

from eth_abi.codec import ABICodec
from eth_abi.decoding import StringDecoder
from web3 import Web3
from web3._utils.abi import build_strict_registry


class _Decoder(StringDecoder):
    """Shows a byte that is no text as an escape, where others raise."""

    def __init__(self) -> None:
        super().__init__("backslashreplace")  # type: ignore[no-untyped-call]


def admit_any_string(w3: Web3) -> None:
    """Makes a client read events whose strings are not UTF-8: who sends one must stop nobody."""
    registry = build_strict_registry()
    registry.unregister_decoder("string")
    registry.register_decoder("string", _Decoder)
    w3.codec = ABICodec(registry)
