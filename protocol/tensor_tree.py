# SPDX-License-Identifier: GPL-3.0-or-later
"""The Merkle tree over one tensor's little-endian data.

A leaf is a *chunk*: 1,024 bytes, 256 elements of four bytes. The last chunk has exactly
`4 * (numel mod 256)` bytes where that is not zero. The data is read in place and never copied as a
whole; the tree itself takes about a sixteenth of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from protocol import hashing
from protocol.errors import CommitmentError
from protocol.hashing.portable import LEAF_BYTES
from protocol.merkle import Tree

if TYPE_CHECKING:
    import numpy as np
    import torch
    from _typeshed import ReadableBuffer

    TensorData = ReadableBuffer | np.ndarray[Any, Any] | np.generic | torch.Tensor

ELEMENT_BYTES: Final = 4
CHUNK_ELEMENTS: Final = LEAF_BYTES // ELEMENT_BYTES
CHUNK_BYTES: Final = LEAF_BYTES

_RAW_FORMATS: Final = frozenset("Bbc")
_WORD_FORMATS: Final = frozenset("fiIlL")


def chunk_count(numel: int) -> int:
    """Return the number of leaves of a tensor of `numel` >= 1 elements."""
    _check_numel(numel)
    return (numel - 1) // CHUNK_ELEMENTS + 1


def chunk_length(numel: int, index: int) -> int:
    """Return the exact number of bytes in chunk `index` of a tensor of `numel` >= 1 elements."""
    chunks = chunk_count(numel)
    if not 0 <= index < chunks:
        raise CommitmentError(f"chunk {index} is not in 0..{chunks - 1} ({numel} elements)")
    return min(CHUNK_BYTES, ELEMENT_BYTES * numel - CHUNK_BYTES * index)


def chunk(data: TensorData, index: int) -> bytes:
    """Return the bytes of chunk `index` of a whole tensor's data: the preimage of that leaf."""
    view = _view(data, None)
    length = chunk_length(len(view) // ELEMENT_BYTES, index)
    return bytes(view[CHUNK_BYTES * index : CHUNK_BYTES * index + length])


def tensor_tree(data: TensorData, numel: int | None = None) -> Tree:
    """Return the tree over the chunks of `data`.

    `data` is a C-contiguous buffer: raw bytes, or an array or CPU torch tensor of any shape whose
    dtype is a little-endian float32, int32 or uint32. With `numel` the size is also checked.
    Raises CommitmentError for any other buffer, for no elements, and for 4*numel != its bytes.
    """
    return Tree.from_levels(hashing.levels(_view(data, numel)))


def tensor_root(data: TensorData, numel: int | None = None) -> bytes:
    """Return the root of `tensor_tree(data, numel)`, without keeping the tree."""
    return hashing.roots([_view(data, numel)])[0]


def tensor_roots(tensors: Sequence[TensorData], threads: int | None = None) -> list[bytes]:
    """Return the tensor root of each tensor; a tensor that occurs twice is hashed once.

    All are hashed in one go, on `threads` threads: by default one for each CPU that this process
    may use. Raises CommitmentError like `tensor_tree`.
    """
    places: dict[int, int] = {}
    views: list[memoryview] = []
    for tensor in tensors:
        if id(tensor) not in places:
            places[id(tensor)] = len(views)
            views.append(_view(tensor, None))
    roots = hashing.roots(views, threads)
    return [roots[places[id(tensor)]] for tensor in tensors]


def _check_numel(numel: int) -> None:
    if numel < 1:
        raise CommitmentError(f"a tensor has at least one element, got {numel}")


def _view(data: TensorData, numel: int | None) -> memoryview:
    """Return the bytes of `data`, checked, without copying them."""
    view = _buffer(data)
    kind = (view.format or "B").lstrip("@=<")
    raw = view.itemsize == 1 and kind in _RAW_FORMATS
    words = view.itemsize == ELEMENT_BYTES and kind in _WORD_FORMATS
    if not raw and not words:
        raise CommitmentError(f"format {view.format!r} is neither raw bytes nor f32, i32 or u32")
    if words and sys.byteorder != "little" and not (view.format or "").startswith("<"):
        raise CommitmentError("elements in a big-endian machine's order cannot be hashed in place")
    if not view.c_contiguous:
        raise CommitmentError(f"a tensor of shape {view.shape} is not contiguous in memory")
    if numel is not None:
        _check_numel(numel)
        if view.nbytes != ELEMENT_BYTES * numel:
            raise CommitmentError(
                f"{numel} elements have {ELEMENT_BYTES * numel} bytes, got {view.nbytes}"
            )
    if view.nbytes % ELEMENT_BYTES or not view.nbytes:
        raise CommitmentError(f"{view.nbytes} bytes are not one or more 4-byte elements")
    return view.cast("B")


def _buffer(data: TensorData) -> memoryview:
    try:
        return memoryview(data)  # type: ignore[arg-type]
    except TypeError:
        pass
    except ValueError as error:  # numpy refuses dtypes that have no buffer format
        raise CommitmentError(f"the data cannot be read in place: {error}") from error
    # Torch tensors have no buffer protocol; their numpy view shares the memory.
    try:
        return memoryview(data.detach().numpy())  # type: ignore[union-attr, arg-type]
    except (AttributeError, TypeError, RuntimeError) as error:
        raise CommitmentError(f"{type(data).__name__} cannot be read in place: {error}") from error
