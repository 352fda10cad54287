# SPDX-License-Identifier: GPL-3.0-or-later
"""Artifacts by root: programs and lists of tensors, in a directory or behind any fsspec URL.

Nothing from a store is trusted. A program is parsed strictly and must hash to its root; tensors are
safetensors (never pickle), whose layout must be exactly what the program demands before a byte of
them is used, and which must hash to theirs. Names in a store are made here from roots alone, so no
artifact can name a path.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Sequence
from typing import Any, Final

import fsspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from protocol import encoding, merkle
from protocol.commitments import checkpoint_log, state_root
from protocol.encoding import program_root
from protocol.errors import ArtifactError, ProgramError
from protocol.execution import Bits
from protocol.program import DType, Program, Shape
from protocol.tensor_tree import CHUNK_ELEMENTS, chunk_count

MAX_PROGRAM_BYTES = 1 << 27
LEAF_BYTES = 64
"""Of a leaf of a checkpoint log: salt and state root."""
_HEADER_DEPTH: Final = 3
_HEADER_SLACK = 1 << 22
"""Bytes of JSON header that a safetensors file may have beside its tensors."""

_NUMPY = {DType.F32: np.dtype("<f4"), DType.I32: np.dtype("<i4")}
Layout = Sequence[tuple[DType, Shape]]
Hole = tuple[int, int]
"""A chunk that is missing: number of the tensor, number of the chunk in it."""


class Store:
    """A place for artifacts: a directory, or an fsspec URL such as `s3://bucket/prefix`."""

    def __init__(self, url: str) -> None:
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ArtifactError(f"cannot use {url!r} as a store: {error}") from None
        self.url = url

    def put_program(self, program: Program) -> bytes:
        """Stores a program and returns its root."""
        root = program_root(program)
        self._put(f"programs/{root.hex()}", encoding.dump(program))
        return root

    def get_program(self, root: bytes) -> Program:
        """The program with that root; ArtifactError if it is missing or another."""
        data = self._get(f"programs/{root.hex()}", MAX_PROGRAM_BYTES)
        try:
            program = encoding.load(data)
        except ProgramError as error:
            raise ArtifactError(f"program {root.hex()} is damaged: {error}") from None
        found = program_root(program)
        if found != root:
            raise ArtifactError(f"the file of program {root.hex()} holds program {found.hex()}")
        return program

    def get_encodings(self, root: bytes) -> list[bytes]:
        """What stands for the nodes of the program with that root, right or wrong.

        ArtifactError if it is missing or another.
        """
        data = self._get(f"programs/{root.hex()}", MAX_PROGRAM_BYTES)
        try:
            nodes = encoding.load_encodings(data)
        except ProgramError as error:
            raise ArtifactError(f"program {root.hex()} is damaged: {error}") from None
        found = merkle.root([merkle.leaf_hash(node) for node in nodes])
        if found != root:
            raise ArtifactError(f"the file of program {root.hex()} holds program {found.hex()}")
        return nodes

    def put_tensors(
        self,
        tensors: Sequence[Bits],
        layout: Layout,
        names: Sequence[str],
        threads: int | None = None,
    ) -> bytes:
        """Stores a list of tensors under their state root, which it returns.

        `names` are kept for people who open the file; order, dtypes and shapes are the program's.
        They are hashed on `threads` threads (by default on all CPUs).
        """
        root = state_root(tensors, threads)
        if not self._exists(name := f"tensors/{root.hex()}.safetensors"):
            named = typed(_keys(names, len(layout)), tensors, layout)
            self._put(name, safetensors_numpy.save(named))
        return root

    def get_tensors(self, root: bytes, layout: Layout) -> list[Bits]:
        """The tensors with that state root in the layout the program demands."""
        expected = sum(4 * int(np.prod(shape, dtype=np.int64)) for _, shape in layout)
        name = f"tensors/{root.hex()}.safetensors"
        data = self._get(name, expected + _HEADER_SLACK)
        try:
            loaded = safetensors_numpy.load(data)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{name} is not a safetensors file: {error}") from None
        if len(loaded) != len(layout):
            raise ArtifactError(f"{name} holds {len(loaded)} tensors, not {len(layout)}")
        tensors: list[Bits] = []
        for key, (dtype, shape) in zip(sorted(loaded), layout, strict=True):
            found = loaded[key]
            if found.dtype != _NUMPY[dtype] or found.shape != tuple(shape):
                raise ArtifactError(
                    f"{name}: tensor {key} is {found.dtype} {found.shape}, the program demands "
                    f"{_NUMPY[dtype]} {tuple(shape)}"
                )
            # A scalar stays one: ascontiguousarray alone would give it an axis.
            tensors.append(np.ascontiguousarray(found).view(np.uint32).reshape(shape))
        actual = state_root(tensors)
        if actual != root:
            raise ArtifactError(f"{name} holds tensors with root {actual.hex()}")
        return tensors

    def get_partial(self, root: bytes, layout: Layout) -> tuple[list[Bits], list[Hole]]:
        """What is there of the tensors with that root, and the chunks that are not there.

        For a file that was cut short, or lacks tensors: what is missing reads as zero. Nothing is
        checked against the root. ArtifactError if the file is missing or cannot be understood.
        """
        name = f"tensors/{root.hex()}.safetensors"
        expected = sum(4 * int(np.prod(shape, dtype=np.int64)) for _, shape in layout)
        data = self._get(name, expected + _HEADER_SLACK)
        try:
            length = int.from_bytes(data[:8], "little")
            header = json.loads(_shallow(data[8 : 8 + length]))
            places = {
                int(key[:5]): (int(first), int(end))
                for key, entry in header.items()
                for first, end in [entry["data_offsets"]]
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{name} is not a safetensors file: {error!r}") from None
        tensors: list[Bits] = []
        holes: list[Hole] = []
        for number, (_, shape) in enumerate(layout):
            numel = int(np.prod(shape, dtype=np.int64))
            first, end = places.get(number, (0, 0))
            if not 0 <= first <= end:
                raise ArtifactError(f"{name}: tensor {number} lies nowhere")
            found = data[8 + length + first : 8 + length + min(end, first + 4 * numel)]
            whole = np.zeros(numel, np.uint32)
            there = len(found) // 4
            whole[:there] = np.frombuffer(found, "<u4", there)
            tensors.append(whole.reshape(shape))
            holes += (
                [(number, chunk) for chunk in range(there // CHUNK_ELEMENTS, chunk_count(numel))]
                if there < numel
                else []
            )
        return tensors, holes

    def put_log(self, leaves: Sequence[bytes]) -> bytes:
        """Stores the leaves of a checkpoint log under its root, which it returns."""
        root = checkpoint_log(leaves).root
        if not self._exists(name := f"logs/{root.hex()}"):
            self._put(name, b"".join(leaves))
        return root

    def get_log(self, root: bytes, size: int) -> list[bytes]:
        """The `size` leaves of the checkpoint log with that root, 64 bytes each."""
        name = f"logs/{root.hex()}"
        data = self._get(name, LEAF_BYTES * size)
        leaves = [data[i : i + LEAF_BYTES] for i in range(0, len(data), LEAF_BYTES)]
        if len(data) != LEAF_BYTES * size or checkpoint_log(leaves).root != root:
            raise ArtifactError(f"{name} is not the log with that root")
        return leaves

    def has_log(self, root: bytes) -> bool:
        """True if a log with that root is stored."""
        return self._exists(f"logs/{root.hex()}")

    def has_tensors(self, root: bytes) -> bool:
        """True if tensors with that root are stored (not that they are the right ones)."""
        return self._exists(f"tensors/{root.hex()}.safetensors")

    def discard_tensors(self, root: bytes) -> None:
        """Deletes the tensors with that state root, if they are stored."""
        self._remove(self._path(f"tensors/{root.hex()}.safetensors"))

    def _remove(self, path: str) -> None:
        with contextlib.suppress(OSError):
            self._fs.rm_file(path)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _exists(self, name: str) -> bool:
        try:
            return bool(self._fs.exists(self._path(name)))
        except OSError as error:
            raise ArtifactError(f"the store {self.url} does not answer: {error}") from None

    def _put(self, name: str, data: bytes) -> None:
        """Writes under another name first, so that no reader ever sees half a file."""
        path = self._path(name)
        temporary = f"{path}.{os.getpid()}.{uuid.uuid4().hex}.part"
        try:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            try:
                self._fs.pipe_file(temporary, data)
                self._fs.mv(temporary, path)
            except BaseException:
                self._remove(temporary)
                raise
        except OSError as error:
            raise ArtifactError(f"cannot write {name} to {self.url}: {error}") from None

    def _get(self, name: str, limit: int) -> bytes:
        path = self._path(name)
        try:
            size = int(self._fs.size(path) or 0)
            if size > limit:
                raise ArtifactError(f"{name} has {size} bytes, more than the {limit} it may have")
            return bytes(self._fs.cat_file(path, start=0, end=size))
        except FileNotFoundError:
            raise ArtifactError(f"{name} is not in the store {self.url}") from None
        except OSError as error:
            raise ArtifactError(f"cannot read {name} from {self.url}: {error}") from None


def typed(
    names: Sequence[str], tensors: Sequence[Bits], layout: Layout
) -> dict[str, npt.NDArray[Any]]:
    """Tensors by name, in the dtypes and shapes of the layout; no bit changes."""
    return {
        name: np.ascontiguousarray(tensor).view(_NUMPY[dtype]).reshape(shape)
        for name, tensor, (dtype, shape) in zip(names, tensors, layout, strict=True)
    }


def _keys(names: Sequence[str], count: int) -> list[str]:
    """Sortable keys: the position, then the name for people."""
    padded = [*names[:count], *[""] * (count - len(names))]
    return [f"{i:05d}.{name}" if name else f"{i:05d}" for i, name in enumerate(padded)]


def _shallow(text: bytes) -> bytes:
    """The JSON text, if it nests no deeper than a safetensors header does; else ValueError.

    Deep nesting overflows the C stack of the JSON parser, and ends the process, where a library has
    raised Python's recursion limit, as py-evm does.
    """
    depth = 0
    for bracket in re.findall(rb"[][{}]", encoding.JSON_STRING.sub(b"", text)):
        depth += 1 if bracket in b"[{" else -1
        if depth > _HEADER_DEPTH:
            raise ValueError("it nests too deep")
    return text
