# SPDX-License-Identifier: GPL-3.0-or-later
"""The data set of a task: DATA tensors, and the batch that a step draws from them.

A tensor whose examples overlap in memory (`tokens.unfold(0, 128, 1)` and its like) is published as
the memory it views; tensors that view the same memory share one DATA tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from protocol.errors import TraceError
from protocol.execution import Bits
from protocol.float32 import POSITIVE_ZERO
from protocol.program import DType, Kind
from protocol.tracing.bits import dtype_of, to_bits
from protocol.tracing.graph import Graph, Value
from protocol.tracing.scalars import Affine, Load, Place

MAX_BOUND = (1 << 31) - 1
FEW = 1 << 24
"""Integers that are counted in an array of that size."""
_COLLATE = "write dataset=torch.utils.data.default_collate(list(examples))"


def tensors_of(dataset: object) -> list[Tensor]:
    """Return `(*inputs, target)` as tensors.

    It is a TensorDataset, or a sequence of tensors or arrays, which share their memory with what is
    returned. Raises TraceError, which says what to write instead, for anything else.
    """
    if isinstance(dataset, TensorDataset):
        return list(dataset.tensors)
    if isinstance(dataset, DataLoader):
        raise TraceError(
            "dataset is a DataLoader, but batches are drawn from the task's seed: give the data "
            "themselves, dataset=(inputs, targets), and batch_size"
        )
    if isinstance(dataset, (Tensor, np.ndarray)):
        raise TraceError("dataset is one tensor: write dataset=(inputs, targets)")
    if isinstance(dataset, torch.utils.data.Dataset):
        raise TraceError(f"dataset is a {type(dataset).__name__}, not tensors: {_COLLATE}")
    if not isinstance(dataset, Sequence) or isinstance(dataset, (str, bytes)):
        kind = type(dataset).__name__
        raise TraceError(f"dataset is a {kind}: write dataset=(inputs, targets), both tensors")
    if dataset and all(isinstance(item, (tuple, list)) for item in dataset):
        raise TraceError(f"dataset is a list of examples, not tensors: {_COLLATE}")
    return [_tensor(item, f"dataset[{position}]") for position, item in enumerate(dataset)]


def _tensor(item: object, what: str) -> Tensor:
    if isinstance(item, Tensor):
        return item
    if not isinstance(item, np.ndarray):
        raise TraceError(f"{what} is a {type(item).__name__}, neither a tensor nor an array")
    try:
        return torch.from_numpy(item if min(item.strides, default=0) >= 0 else item.copy())
    except TypeError:
        raise TraceError(f"{what} has dtype {item.dtype}, which Bitcourt does not have") from None


class Dataset:
    """Tensors with a common first dim, of which each step draws a batch."""

    def __init__(self, dataset: object, batch_size: int) -> None:
        """Check the data, given as `tensors_of` takes them, and copy their patterns.

        Raises TraceError for fewer than two tensors, for different lengths, and for dtypes that
        Bitcourt doesn't have.
        """
        tensors = tensors_of(dataset)
        if len(tensors) < 2:
            raise TraceError("a dataset is (*inputs, target): at least two tensors")
        for position, tensor in enumerate(tensors):
            if not tensor.ndim or not tensor.numel():
                shape = tuple(tensor.shape)
                raise TraceError(f"dataset[{position}] of shape {shape} has no examples")
        lengths = [len(tensor) for tensor in tensors]
        if len(set(lengths)) > 1:
            found = ", ".join(f"dataset[{n}] has {length}" for n, length in enumerate(lengths))
            raise TraceError(f"all of a dataset needs the same number of examples: {found}")
        if batch_size < 1 or len(tensors[0]) > MAX_BOUND:
            raise TraceError(f"cannot draw {batch_size} of {len(tensors[0])} examples")
        self.given = list(tensors)
        self.batch_size = batch_size
        self.tensors: list[Bits] = []
        self._dtypes: list[DType] = []
        self._sources: list[tuple[int, tuple[int, ...], int]] = []
        memory: dict[tuple[int, torch.dtype], int] = {}
        for position, tensor in enumerate(tensors):
            what = f"dataset[{position}]"
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                raise TraceError(
                    f"{what} has dtype {tensor.dtype}, which Bitcourt does not have: convert it "
                    "with .float()"
                )
            dtype = dtype_of(tensor.dtype, what)
            key = (tensor.untyped_storage().data_ptr(), tensor.dtype)
            whole = tensor.untyped_storage().nbytes() // tensor.element_size()
            shared = whole < tensor.numel()
            if shared:
                base = tensor.as_strided((whole,), (1,), 0)
                strides, offset = tensor.stride(), int(tensor.storage_offset())
            else:
                base = tensor.contiguous()
                strides, offset = base.stride(), 0
            if not shared or key not in memory:
                if shared:
                    memory[key] = len(self.tensors)
                number = len(self.tensors)
                self.tensors.append(to_bits(base, what))
                self._dtypes.append(dtype)
            else:
                number = memory[key]
            self._sources.append((number, tuple(strides), offset))

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.given[0])

    def numbers(self, position: int) -> np.ndarray[Any, np.dtype[np.int64]] | None:
        """Return the different integers that a tensor has, with those between its windows."""
        number = self._sources[position][0]
        if self._dtypes[number] is not DType.I32:
            return None
        wide = self.tensors[number].reshape(-1).view(np.int32).astype(np.int64)
        low = int(wide.min())
        if int(wide.max()) - low >= FEW:
            return np.unique(wide)
        return np.flatnonzero(np.bincount(wide - low)) + low

    @property
    def examples(self) -> list[Tensor]:
        """Return uninitialized tensors in the shape of a batch, for tracing."""
        return [torch.empty((self.batch_size, *t.shape[1:]), dtype=t.dtype) for t in self.given]

    def batch(self, graph: Graph) -> tuple[list[Value], int]:
        """Return the batch as gathers from the data, and the SAMPLE node."""
        count = len(self.given[0])
        shape = (self.batch_size,)
        sample = graph.leaf(Kind.SAMPLE, DType.I32, shape, bound=count, stream=0)
        drawn = graph.read(sample)
        values = []
        for given, (number, strides, offset) in zip(self.given, self._sources, strict=True):
            data = self.tensors[number]
            node = graph.leaf(Kind.DATA, self._dtypes[number], data.shape, index=number)
            batch = (self.batch_size, *given.shape[1:])
            load = self._load(graph, node, drawn, batch, strides, offset, given)
            values.append(Value(batch, load, given.dtype))
        return values, sample

    def _load(
        self,
        graph: Graph,
        node: int,
        drawn: Load,
        batch: tuple[int, ...],
        strides: tuple[int, ...],
        offset: int,
        given: Tensor,
    ) -> Load:
        shape = graph.nodes[node].shape
        if shape == tuple(given.shape):
            places = [Place(shape[0], Affine.of(drawn), 0, shape[0])]
            places += [
                Place(size, Affine.of(axis + 1), 0, size) if size > 1 else Place(1, Affine(), 0, 1)
                for axis, size in enumerate(shape[1:])
            ]
        else:
            at = Affine.of(drawn, strides[0], offset)
            for axis, size in enumerate(batch[1:], start=1):
                if size > 1:
                    at = at.plus(Affine.of(axis, strides[axis]))
            places = [Place(shape[0], at, 0, shape[0])]
        return graph.scalars.load(node, tuple(places), POSITIVE_ZERO, graph.nodes[node].dtype)
