# SPDX-License-Identifier: GPL-3.0-or-later
"""The safetensors format (huggingface/safetensors, README), written and read a tensor at a time.

The library's own functions hold a whole file in memory beside its tensors. What `parts` gives is,
byte for byte, the file that they write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from protocol.encoding import JSON_STRING

MAX_HEADER: Final = 1 << 22
"""Bytes of JSON header that a file may have beside its tensors."""
DTYPES: Final = {
    np.dtype(np.int64): "I64",
    np.dtype(np.float32): "F32",
    np.dtype(np.int32): "I32",
    np.dtype(np.int16): "I16",
    np.dtype(np.int8): "I8",
    np.dtype(np.uint8): "U8",
    np.dtype(np.bool_): "BOOL",
}
"""Names of the dtypes, in the order in which the library puts tensors into a file."""
_LENGTH: Final = 8
"""Bytes of the header's own length, and what the header is padded to."""
_DEPTH: Final = 3
_METADATA: Final = "__metadata__"


def parts(arrays: Mapping[str, npt.NDArray[Any]]) -> Iterator[memoryview]:
    """Yield the header, then the bytes of each array, which is C-contiguous and stays as it is.

    The arrays have any shape and one of `DTYPES`; KeyError for another.
    """
    ranks = {dtype: rank for rank, dtype in enumerate(DTYPES)}
    ordered = sorted(arrays.items(), key=lambda item: (ranks[item[1].dtype], item[0]))
    entries, end = {}, 0
    for name, array in ordered:
        first, end = end, end + array.nbytes
        entries[name] = {
            "dtype": DTYPES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [first, end],
        }
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _LENGTH)
    yield memoryview(len(header).to_bytes(_LENGTH, "little") + header)
    for _, array in ordered:
        yield as_bytes(array)


def read_header(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """Return the entries of a file of `size` bytes by name, and where its first tensor begins.

    The entries may be any JSON. Raises ValueError for what is no header of an object.
    """
    length = int.from_bytes(file.read(_LENGTH), "little")
    if length > min(MAX_HEADER, size - _LENGTH):
        raise ValueError(f"its header has {length} bytes")
    entries = json.loads(_shallow(file.read(length)))
    if not isinstance(entries, dict):
        raise ValueError("its header is no object")
    entries.pop(_METADATA, None)
    return entries, _LENGTH + length


def read_into(file: BinaryIO, place: int, array: npt.NDArray[Any]) -> int:
    """Read the bytes at `place` into a C-contiguous array; return how many there were."""
    view, done = as_bytes(array), 0
    file.seek(place)
    while done < len(view):
        found = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not found:
            break
        done += found
    return done


def as_bytes(array: npt.NDArray[Any]) -> memoryview:
    """Return the memory of a C-contiguous array."""
    return array.reshape(-1).data.cast("B")


def _shallow(text: bytes) -> bytes:
    """The JSON text, if it nests no deeper than a safetensors header does; else ValueError.

    Deep nesting overflows the C stack of the JSON parser, and ends the process, where a library has
    raised Python's recursion limit, as py-evm does.
    """
    depth = 0
    for bracket in re.findall(rb"[][{}]", JSON_STRING.sub(b"", text)):
        depth += 1 if bracket in b"[{" else -1
        if depth > _DEPTH:
            raise ValueError("it nests too deep")
    return text
