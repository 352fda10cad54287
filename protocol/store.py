# SPDX-License-Identifier: GPL-3.0-or-later
"""Artifacts by root: programs and lists of tensors, in a directory or behind an fsspec URL.

Nothing from a store is trusted. A program is parsed strictly and must hash to its root; tensors are
safetensors (never pickle), whose layout must be exactly what the program demands before a byte of
them is used, and which must hash to theirs. Names in a store are made here from roots alone, so no
artifact can name a path. Nor is the client trusted: whatever it raises is an ArtifactError.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, Final, TypeVar

import fsspec
import numpy as np
import numpy.typing as npt

from protocol import encoding, merkle, tensor_file
from protocol.commitments import checkpoint_log, roots_tree, state_root
from protocol.encoding import program_root
from protocol.errors import ArtifactError, ProgramError, said
from protocol.execution import Bits
from protocol.program import DType, Program, Shape
from protocol.tensor_tree import CHUNK_ELEMENTS, chunk_count, tensor_roots

PROTOCOLS: Final = (
    *("abfs", "abfss", "az", "file", "gcs", "gs", "hf", "http", "https", "ipfs", "local", "memory"),
    *("oss", "s3", "s3a"),
)
"""Of fsspec, those that a store may have: whoever posts a task chooses its store, and other clients
never give up waiting, or run what they are told.
"""
MAX_PROGRAM_BYTES = 1 << 27
LEAF_BYTES = 64
"""Of a leaf of a checkpoint log: salt and state root."""
_PIECE: Final = 1 << 22
"""Bytes that are written at once: some file systems keep a copy of them."""

_NUMPY = {DType.F32: np.dtype("<f4"), DType.I32: np.dtype("<i4")}
Layout = Sequence[tuple[DType, Shape]]
_Loaded = TypeVar("_Loaded")
Hole = tuple[int, int]
"""A chunk that is missing: number of the tensor, number of the chunk in it."""


class Store:
    """A place for artifacts: a directory, or an fsspec URL such as `s3://bucket/prefix`.

    ArtifactError is raised at once if its protocol is none of PROTOCOLS, and by whatever uses it if
    its client is not installed. To make one asks nobody.
    """

    def __init__(self, url: str) -> None:
        protocol = fsspec.utils.get_protocol(url)
        if protocol not in PROTOCOLS or not url.isprintable():
            known = ", ".join(PROTOCOLS)
            raise ArtifactError(f"cannot use {url!r} as a store: use a directory or one of {known}")
        self.url = url
        self._opened: tuple[Any, str] | None = None

    def put_program(self, program: Program) -> bytes:
        """Stores a program and returns its root."""
        root = program_root(program)
        name = f"programs/{root.hex()}"
        self._move(self._draft(name, [encoding.dump(program)]), name)
        return root

    def get_program(self, root: bytes) -> Program:
        """The program with that root; ArtifactError if it is missing or another."""
        return self._get_program(root, encoding.load, program_root)

    def get_encodings(self, root: bytes) -> list[bytes]:
        """What stands for the nodes of the program with that root, right or wrong.

        ArtifactError if it is missing or another.
        """

        def root_of(nodes: list[bytes]) -> bytes:
            return merkle.root([merkle.leaf_hash(node) for node in nodes])

        return self._get_program(root, encoding.load_encodings, root_of)

    def _get_program(
        self, root: bytes, load: Callable[[bytes], _Loaded], root_of: Callable[[_Loaded], bytes]
    ) -> _Loaded:
        data = self._get(f"programs/{root.hex()}", MAX_PROGRAM_BYTES)
        try:
            loaded = load(data)
        except ProgramError as error:
            raise ArtifactError(f"program {root.hex()} is damaged: {error}") from None
        found = root_of(loaded)
        if found != root:
            raise ArtifactError(f"the file of program {root.hex()} holds program {found.hex()}")
        return loaded

    def put_tensors(
        self,
        tensors: Sequence[Bits],
        layout: Layout,
        names: Sequence[str],
        threads: int | None = None,
    ) -> bytes:
        """Stores a list of tensors under their state root, which it returns.

        `names` are kept for people who open the file; order, dtypes and shapes are the program's.
        They are hashed on `threads` threads (by default on all CPUs), and written out of their own
        memory. What is stored already stays as it is.
        """
        root = state_root(tensors, threads)
        if not self._exists(name := tensors_name(root)):
            self._move(self._draft(name, _parts(tensors, layout, names)), name)
        return root

    def draft_tensors(self, tensors: Sequence[Bits], layout: Layout, names: Sequence[str]) -> str:
        """Stores a list of tensors of which nobody knows the root yet; returns where.

        They are written as by `put_tensors`. `name_tensors` does the rest.
        """
        return self._draft(tensors_name(bytes(32)), _parts(tensors, layout, names))

    def name_tensors(self, draft: str, layout: Layout, threads: int | None = None) -> bytes:
        """Hashes what `draft_tensors` has stored and puts it under its state root: returns that.

        One tensor at a time is read into memory. What lay under that root is replaced. If anything
        fails the draft is gone.
        """
        try:
            with self._reading(draft, _limit(layout)) as (file, size):
                # A variable of a loop would hold each tensor while the next is read.
                hashed = partial(_root, threads)
                roots = list(map(hashed, _tensors(draft, file, size, layout)))
        except BaseException:
            self._remove(self._path(draft))
            raise
        root = roots_tree(roots).root
        self._move(draft, tensors_name(root))
        return root

    def get_tensors(self, root: bytes, layout: Layout) -> list[Bits]:
        """The tensors with that state root in the layout the program demands, in new arrays."""
        name = tensors_name(root)
        with self._reading(name, _limit(layout)) as (file, size):
            tensors = list(_tensors(name, file, size, layout))
        actual = state_root(tensors)
        if actual != root:
            raise ArtifactError(f"{name} holds tensors with root {actual.hex()}")
        return tensors

    def get_partial(self, root: bytes, layout: Layout) -> tuple[list[Bits], list[Hole]]:
        """What is there of the tensors with that root, and the chunks that are not there.

        For a file that was cut short, or lacks tensors: what is missing reads as zero. Nothing is
        checked against the root. ArtifactError if the file is missing or cannot be understood.
        """
        name = tensors_name(root)
        tensors: list[Bits] = []
        holes: list[Hole] = []
        with self._reading(name, _limit(layout)) as (file, size):
            try:
                entries, begin = tensor_file.read_header(file, size)
                places = {int(key[:5]): _place(entry) for key, entry in entries.items()}
            except (ValueError, KeyError, TypeError) as error:
                raise ArtifactError(f"{name} is not a safetensors file: {error!r}") from None
            for number, (_, shape) in enumerate(layout):
                first, end = places.get(number, (0, 0))
                if not 0 <= first <= end:
                    raise ArtifactError(f"{name}: tensor {number} lies nowhere")
                tensor = np.zeros(shape, np.uint32)
                flat, place = tensor.reshape(-1), begin + min(first, size)
                there = tensor_file.read_into(file, place, flat[: (end - first) // 4]) // 4
                flat[there:] = 0
                tensors.append(tensor)
                if there < flat.size:
                    missing = range(there // CHUNK_ELEMENTS, chunk_count(flat.size))
                    holes += [(number, chunk) for chunk in missing]
        return tensors, holes

    def put_log(self, leaves: Sequence[bytes]) -> bytes:
        """Stores the leaves of a checkpoint log under its root, which it returns."""
        root = checkpoint_log(leaves).root
        if not self._exists(name := f"logs/{root.hex()}"):
            self._move(self._draft(name, leaves), name)
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
        return self._exists(tensors_name(root))

    def discard_tensors(self, root: bytes) -> None:
        """Deletes the tensors with that state root, if they are stored."""
        self._remove(self._path(tensors_name(root)))

    @property
    def _place(self) -> tuple[Any, str]:
        """The file system, and a path in it.

        No cached property: in Python 3.11 the lock of one would be that of all stores.
        """
        if self._opened is None:
            try:
                fs, path = fsspec.core.url_to_fs(self.url)
            except Exception as error:  # each client has its own
                raise ArtifactError(f"cannot use {self.url!r} as a store: {said(error)}") from None
            self._opened = fs, path.rstrip("/")
        return self._opened

    @property
    def _fs(self) -> Any:
        return self._place[0]

    def _path(self, name: str) -> str:
        return f"{self._place[1]}/{name}"

    def _remove(self, path: str) -> None:
        with contextlib.suppress(Exception):
            self._fs.rm_file(path)

    def _exists(self, name: str) -> bool:
        path = self._path(name)
        with self._explained(f"the store {self.url} does not answer"):
            return bool(self._fs.exists(path))

    @contextmanager
    def _explained(self, failure: str) -> Iterator[None]:
        """Makes an ArtifactError of whatever the client raises."""
        try:
            yield
        except ArtifactError:
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, OSError) else said(error)
            raise ArtifactError(f"{failure}: {reason}") from None

    def _draft(self, name: str, parts: Iterable[bytes | memoryview]) -> str:
        """Writes to another name beside `name`, so that no reader ever sees half a file."""
        draft = f"{name}.{os.getpid()}.{uuid.uuid4().hex}.part"
        path = self._path(draft)
        with self._writing(name, draft):
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            with self._fs.open(path, "wb") as file:
                for part in parts:
                    for place in range(0, len(part), _PIECE):
                        file.write(part[place : place + _PIECE])
        return draft

    def _move(self, draft: str, name: str) -> None:
        """Gives a draft its name."""
        with self._writing(name, draft):
            self._fs.mv(self._path(draft), self._path(name))

    @contextmanager
    def _writing(self, name: str, draft: str) -> Iterator[None]:
        """Leaves no draft behind where something fails."""
        with self._explained(f"cannot write {name} to {self.url}"):
            try:
                yield
            except BaseException:
                self._remove(self._path(draft))
                raise

    def _get(self, name: str, limit: int) -> bytes:
        with self._reading(name, limit) as (file, size):
            return file.read(size)

    @contextmanager
    def _reading(self, name: str, limit: int) -> Iterator[tuple[BinaryIO, int]]:
        """Opens a file of at most `limit` bytes and says how many it has."""
        path = self._path(name)
        with self._explained(f"cannot read {name} from {self.url}"):
            try:
                size = int(self._fs.size(path) or 0)
                if size > limit:
                    raise ArtifactError(
                        f"{name} has {size} bytes, more than the {limit} it may have"
                    )
                with self._fs.open(path, "rb") as file:
                    yield file, size
            except FileNotFoundError:
                raise ArtifactError(f"{name} is not in the store {self.url}") from None


def tensors_name(root: bytes) -> str:
    """Where in a store the tensors with a state root are."""
    return f"tensors/{root.hex()}.safetensors"


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


def _numel(layout: Layout) -> int:
    return sum(int(np.prod(shape, dtype=np.int64)) for _, shape in layout)


def _place(entry: Any) -> tuple[int, int]:
    first, end = entry["data_offsets"]
    if type(first) is not int or type(end) is not int:
        raise ValueError(f"a tensor lies at {first}..{end}")
    return first, end


def _limit(layout: Layout) -> int:
    """Bytes that a file with such tensors may have."""
    return 4 * _numel(layout) + tensor_file.MAX_HEADER


def _root(threads: int | None, tensor: Bits) -> bytes:
    return tensor_roots([tensor], threads)[0]


def _parts(tensors: Sequence[Bits], layout: Layout, names: Sequence[str]) -> Iterator[memoryview]:
    return tensor_file.parts(typed(_keys(names, len(layout)), tensors, layout))


def _tensors(name: str, file: BinaryIO, size: int, layout: Layout) -> Iterator[Bits]:
    """Reads the tensors of a file, each into a new array; ArtifactError unless all are there."""
    try:
        entries, begin = tensor_file.read_header(file, size)
        if len(entries) != len(layout):
            raise ArtifactError(f"{name} holds {len(entries)} tensors, not {len(layout)}")
        for key, (dtype, shape) in zip(sorted(entries), layout, strict=True):
            found = entries[key]["dtype"], entries[key]["shape"]
            wanted = tensor_file.DTYPES[_NUMPY[dtype]], list(shape)
            if found != wanted:
                raise ArtifactError(
                    f"{name}: tensor {key} is {found}, the program demands {wanted}"
                )
            first, end = _place(entries[key])
            if first < 0 or end - first != 4 * _numel([(dtype, shape)]) or begin + end > size:
                raise ValueError(f"tensor {key} lies at {first}..{end} of {size - begin} bytes")
            tensor = np.empty(shape, np.uint32)
            if tensor_file.read_into(file, begin + first, tensor) != end - first:
                raise ValueError("it was cut short")
            yield tensor
            del tensor  # before there is another
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{name} is not a safetensors file: {error!r}") from None
