# SPDX-License-Identifier: GPL-3.0-or-later
"""Torch tensors as 32-bit patterns and back."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from protocol.errors import TraceError
from protocol.execution import Bits
from protocol.program import DType

DTYPES: Final[dict[torch.dtype, DType]] = {
    torch.float32: DType.F32,
    torch.int64: DType.I32,
    torch.int32: DType.I32,
    torch.int16: DType.I32,
    torch.int8: DType.I32,
    torch.uint8: DType.I32,
    torch.bool: DType.I32,
}
"""How each torch dtype is carried. int64 is for indices and counts: it must fit 32 bits."""


def dtype_of(dtype: torch.dtype, what: str) -> DType:
    """Return the program's dtype; raises TraceError, naming `what`, if there is none."""
    found = DTYPES.get(dtype)
    if found is None:
        raise TraceError(f"{what} has dtype {dtype}, which Bitcourt does not have")
    return found


def to_bits(tensor: Tensor, what: str) -> Bits:
    """Return a copy of a tensor as patterns, in its shape; booleans are 0 and 1.

    Raises TraceError, naming `what`, for other dtypes and for integers beyond 32 bits.
    """
    dtype = dtype_of(tensor.dtype, what)
    array = tensor.detach().cpu().contiguous().numpy()
    if dtype is DType.F32:
        return array.view(np.uint32).copy()
    if array.size and not -(1 << 31) <= int(array.min()) <= int(array.max()) < 1 << 31:
        raise TraceError(f"{what} holds integers that do not fit 32 bits")
    return array.astype(np.int64).astype(np.uint32)


def from_bits(bits: Bits, dtype: torch.dtype) -> Tensor:
    """Return patterns as a torch tensor of `dtype`, in their shape."""
    if DTYPES[dtype] is DType.F32:
        return torch.from_numpy(bits.view(np.float32).copy())
    return torch.from_numpy(bits.view(np.int32).copy()).to(dtype)
