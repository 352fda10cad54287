# SPDX-License-Identifier: GPL-3.0-or-later
"""Tensor hashing against one long SHA-256 over the same bytes, the machine's own limit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from bench.measure import Result, ratio
from protocol.tensor_tree import tensor_root


def hashing() -> Iterator[Result]:
    """A 16 MiB tensor, one thread."""
    data = np.random.default_rng(0).integers(0, 2**32, 1 << 22, dtype=np.uint32)
    view = memoryview(data).cast("B")
    slower, _, _ = ratio(lambda: tensor_root(data), lambda: hashlib.sha256(view).digest(), rounds=7)
    yield Result(
        "hash_fraction_of_openssl", 1 / slower, "ratio", "hashlib (OpenSSL), one buffer", ">= 0.8"
    )
