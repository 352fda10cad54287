# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels and tokens that are no index: refused before they train silently, as torch raises.

A program reads a fill where torch raises an error. What an index is for each example of the data
set is known while tracing, if it depends on nothing else: it is computed by torch itself, for each
number that the data hold where every element is for itself, else for each example.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx

from protocol.errors import TraceError
from protocol.tracing.capture import SAME, Capture
from protocol.tracing.data import Dataset
from protocol.tracing.lowering import name_of

_BY_AXIS: Final = ("gather", "index_select", "scatter", "scatter_add")
_MOVES: Final = {"view", "reshape", "unsqueeze", "squeeze", "expand", "slice", "select"}
_ELEMENTWISE: Final = {"where", "eq", "ne", "lt", "le", "gt", "ge", "_to_copy"}

Indexed = tuple[fx.Node, int, int]


def refuse_outside(captured: Capture, dataset: Dataset) -> None:
    """Refuse a data set of which an example leads to an index that torch would not take."""
    batch = captured.inputs["batch"]
    done: set[Indexed] = set()
    for node in captured.graph.nodes:
        for index, low, size in _indices(node):
            part = _part(captured.graph, index, batch)
            if part is None or (index, low, size) in done:
                continue
            done.add((index, low, size))
            reader = _Reader(captured, dataset, part, index, (low, size))
            if not reader.is_surely_inside() and (found := reader.outside()) is not None:
                example, value = found
                raise TraceError(
                    f"{node.target} in {captured.paths.of(node)}: example {example} of the data "
                    f"set has the index {value}, which is not from {low} to {size - 1}"
                )


def _indices(node: fx.Node) -> Iterator[Indexed]:
    """Yield the indices that an operation takes, with the least one and the end."""
    if node.op != "call_function":
        return
    name = name_of(node)
    if name == "embedding.default":
        yield node.args[1], 0, _size(node, 0)  # type: ignore[misc]
    elif name.split(".")[0] in _BY_AXIS:
        size = _size(node, node.args[1])
        yield node.args[2], 0, size  # type: ignore[misc]
    elif name == "index.Tensor":
        for axis, index in enumerate(node.args[1]):  # type: ignore[arg-type]
            if index is not None and index.meta["val"].dtype != torch.bool:
                yield index, -_size(node, axis), _size(node, axis)


def _size(node: fx.Node, axis: Any) -> int:
    shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    return int(shape[axis]) if shape else 1


def _part(graph: fx.Graph, index: fx.Node, batch: Sequence[fx.Node]) -> list[fx.Node] | None:
    """Return the operations from the batch to an index, if it comes of nothing else."""
    needed, stack, given = set(), [index], False
    while stack:
        node = stack.pop()
        if node in needed:
            continue
        needed.add(node)
        given = given or node in batch
        random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if random or (node.op == "placeholder" and node not in batch):
            return None
        stack.extend(node.all_input_nodes)
    return [node for node in graph.nodes if node in needed] if given else None


class _Reader:
    """Computes an index of real examples."""

    def __init__(
        self,
        captured: Capture,
        dataset: Dataset,
        part: list[fx.Node],
        index: fx.Node,
        limits: tuple[int, int],
    ) -> None:
        self._captured, self._dataset = captured, dataset
        self._part, self._index, self._limits = part, index, limits
        batch = captured.inputs["batch"]
        self._sources = [position for position, node in enumerate(batch) if node in part]

    def _read(self, values: dict[fx.Node, Any]) -> list[int]:
        """Return what of the index is outside, given the batch."""
        for node in self._part:
            if node.op == "get_attr":
                values[node] = getattr(self._captured.module, str(node.target))
            elif node.op == "call_function":
                values[node] = _called(node, values)
        return self._outside(values[self._index])

    def _outside(self, found: Tensor) -> list[int]:
        low, end = self._limits
        outside: list[int] = found[(found < low) | (found >= end)].tolist()
        return outside

    def is_surely_inside(self) -> bool:
        """Whether each number of the data leads to an index inside, wherever it stands."""
        numbers = self._dataset.numbers(self._sources[0]) if len(self._sources) == 1 else None
        if numbers is None:
            return False
        values: dict[fx.Node, Any] = {}
        for node in self._part:
            name = name_of(node).split(".")[0]
            if node.op == "placeholder":
                values[node] = torch.from_numpy(numbers).to(node.meta["val"].dtype)
            elif node.op != "call_function":
                return False
            elif node.target in SAME or name in _MOVES:
                values[node] = values[node.args[0]]  # type: ignore[index]
            elif name in ("full", "scalar_tensor"):
                values[node] = torch.tensor(node.args[-1])
            elif name in _ELEMENTWISE:
                values[node] = _called(node, values)
            else:
                return False
        return not self._outside(values[self._index])

    def outside(self) -> tuple[int, int] | None:
        """Return an example and an index outside that it leads to, if there is one."""
        count, size = self._dataset.size, self._dataset.batch_size
        for start in range(0, count, size):
            examples = [number % count for number in range(start, start + size)]
            if self._read(self._examples(examples)):
                for example in examples:
                    found = self._read(self._examples([example] * size))
                    if found:
                        return example, found[0]
        return None

    def _examples(self, numbers: list[int]) -> dict[fx.Node, Any]:
        batch = self._captured.inputs["batch"]
        return {batch[n]: self._dataset.given[n][numbers] for n in self._sources}


def _called(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    """Return what a node's operation makes of its arguments."""
    args = fx.node.map_arg(node.args, values.__getitem__)
    kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
    return node.target(*args, **kwargs)  # type: ignore[operator]
