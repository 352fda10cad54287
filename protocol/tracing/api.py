# SPDX-License-Identifier: GPL-3.0-or-later
"""`trace`: an ordinary torch module, loss and optimizer as a program of one training step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import TensorDataset

from protocol.errors import TraceError
from protocol.execution import Bits
from protocol.program import DType, Kind, Program, Shape
from protocol.tracing import (
    assembly,
    convolution,
    creation,
    dropout,
    elementwise,
    indexing,
    matmul,
    movement,
    pooling,
    reductions,
    scans,
    selection,
)
from protocol.tracing.bits import dtype_of, from_bits, to_bits
from protocol.tracing.capture import Capture, Loss, Step, capture, origin, unused_parameters
from protocol.tracing.data import Dataset
from protocol.tracing.graph import Graph, Value
from protocol.tracing.guards import (
    refuse_captured,
    refuse_changes,
    refuse_hooks,
    refuse_shared_memory,
    unchanged,
)
from protocol.tracing.lowering import Lowerer
from protocol.tracing.optimizers import SHORT, Clip, OptimizerStep
from protocol.tracing.ranges import refuse_outside
from protocol.tracing.schedule import STEP, OnStep
from protocol.tracing.schedulers import learning_rates
from protocol.validate import validate

FAMILIES = (
    assembly,
    convolution,
    creation,
    dropout,
    elementwise,
    indexing,
    matmul,
    movement,
    pooling,
    reductions,
    scans,
    selection,
)
"""Importing them registers their lowerings."""


@dataclass(frozen=True)
class Traced:
    """A traced program with the tensors that it starts from.

    `state` are the initial state tensors in program order (names in `program.state_names`),
    `constants` the tensors that never change (frozen parameters, constant buffers, tables) and
    `data` the data set; all are patterns in the shape of their node.
    """

    program: Program
    state: list[Bits]
    constants: list[Bits]
    data: list[Bits]
    dtypes: list[torch.dtype] = field(repr=False)

    def state_dict(self, state: Sequence[Bits]) -> dict[str, Tensor]:
        """Return the module's tensors in `state` under their PyTorch names.

        Frozen parameters and constant buffers are not in it; load it with `strict=False`.
        """
        names = zip(self.program.state_names, state, self.dtypes, strict=True)
        return {
            name.removeprefix("model."): from_bits(bits, dtype)
            for name, bits, dtype in names
            if name.startswith("model.")
        }


def trace(
    module: torch.nn.Module,
    loss_fn: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    dataset: Sequence[Tensor | np.ndarray[Any, Any]] | TensorDataset,
    batch_size: int,
    scheduler: LRScheduler | None = None,
    steps: int | None = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    clip_value: float | None = None,
) -> Traced:
    """Trace one training step `loss_fn(module(*inputs), target)` with its optimizer.

    `dataset` is `(*inputs, target)`: tensors or arrays with the same first dim N, or a
    `TensorDataset` of them (`tensors_of`). Every step draws
    `accumulate * batch_size` of N examples with replacement (SAMPLE, stream 0, of the task's seed).
    The step is specialized to these shapes, options and `module.training`; int64 is carried in 32
    bits, float64 and half precision are refused. Neither the module nor the optimizer is changed.

    `scheduler` is one of `torch.optim.lr_scheduler` over this optimizer; its learning rates for
    `steps` steps become a table, whose last entry holds for later steps (`learning_rates`). Without
    one, learning rates are constants of the program.

    With `accumulate` > 1 one step runs that many micro-batches of `batch_size` one after the
    other, adds up their gradients of `loss / accumulate` and steps the optimizer once, as a loop
    with one `optimizer.step()` in so many `backward()`s does; `loss` is the mean of their losses.

    With `clip_norm` all gradients are scaled down together to at most this Euclidean norm before
    the optimizer sees them, as by `torch.nn.utils.clip_grad_norm_`; with `clip_value` each of their
    elements is limited to between `-clip_value` and `clip_value`, as by `clip_grad_value_`.

    Raises TraceError, naming the ATen operation and the module it comes from, for what cannot be
    lowered; every returned program is valid.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if accumulate < 1:
            raise TraceError(f"a step has at least one micro-batch, not {accumulate}")
        data = Dataset(dataset, batch_size * accumulate)
        clip = Clip(clip_norm, clip_value)
        rates = learning_rates(optimizer, scheduler, steps) if scheduler is not None else None
        with unchanged(module):
            return _Tracing(module, loss_fn, optimizer, data, clip, rates, accumulate).run()


class _Tracing:
    """The tensors of one trace by role."""

    def __init__(
        self,
        module: torch.nn.Module,
        loss_fn: Loss,
        optimizer: torch.optim.Optimizer,
        dataset: Dataset,
        clip: Clip,
        rates: list[OnStep] | None,
        micro_batches: int,
    ) -> None:
        self._dataset = dataset
        self._micro_batches = micro_batches
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for name, tensor in tensors.items():
            dtype_of(tensor.dtype, f"the tensor {name}")
            if not tensor.numel():
                raise TraceError(f"the tensor {name} has no elements")
        stepped = {id(p): p for group in optimizer.param_groups for p in group["params"]}
        known = {id(tensor) for tensor in tensors.values()}
        if any(number not in known for number in stepped):
            raise TraceError("the optimizer steps a parameter that the module does not have")
        trained = [n for n, t in tensors.items() if id(t) in stepped and t.requires_grad]
        refuse_shared_memory(tensors, trained)
        refuse_hooks(tensors, trained, optimizer)
        self._step = self._role(module, loss_fn, tensors, trained)
        unused, self._calls = unused_parameters(
            self._step,
            self._tensors(self._step.trained),
            self._tensors(self._step.others),
            [example[: len(example) // micro_batches] for example in dataset.examples],
        )
        trained = [name for n, name in enumerate(trained) if n not in unused]
        self._step = self._role(module, loss_fn, tensors, trained)
        parameters = [tensors[n] for n in trained]
        self._optimizer = OptimizerStep(optimizer, parameters, clip, rates)  # type: ignore[arg-type]

    def _role(
        self, module: torch.nn.Module, loss: Loss, tensors: dict[str, Tensor], trained: list[str]
    ) -> Step:
        self._all = tensors
        others = [n for n in tensors if n not in set(trained)]
        hooks = {n: list((tensors[n]._backward_hooks or {}).values()) for n in trained}
        return Step(module, loss, trained, others, self._micro_batches, hooks)

    def _tensors(self, names: Sequence[str]) -> list[Tensor]:
        return [self._all[name] for name in names]

    def run(self) -> Traced:
        """Capture, lower, and assemble the program."""
        step, slots = self._step, self._optimizer.slots
        captured = capture(
            step,
            self._optimizer,
            self._tensors(step.trained),
            self._tensors(step.others),
            self._dataset.examples,
        )
        refuse_changes(self._calls, captured.paths.calls, self._micro_batches)
        refuse_captured(captured, self._all)
        refuse_outside(captured, self._dataset)
        changed = {i: n for i, n in enumerate(step.others) if _changes(captured, i)}
        refuse_shared_memory(self._all, list(changed.values()))
        for name, node in zip(step.others, captured.outputs["others"], strict=True):
            after, before = node.meta["val"], self._all[name]
            if (after.shape, after.dtype) != (before.shape, before.dtype):
                raise TraceError(f"the forward pass changes the shape or dtype of {name}")
        graph = Graph(self._optimizer.numbers)
        state = [(f"model.{n}", self._all[n], "trained", i) for i, n in enumerate(step.trained)]
        state += [(f"model.{n}", self._all[n], "others", i) for i, n in changed.items()]
        for i, slot in enumerate(slots):
            name = f"{SHORT.get(slot.key, slot.key)}.{step.trained[slot.parameter]}"
            state.append((name, slot.initial, "slots", i))
        values: dict[torch.fx.Node, Value] = {}
        for index, (name, tensor, group, i) in enumerate(state):
            dtype = dtype_of(tensor.dtype, name)
            number = graph.leaf(Kind.INPUT, dtype, tuple(tensor.shape), index=index)
            values[captured.inputs[group][i]] = _value(graph, number, tensor)
        for i, name in enumerate(step.others):
            if i not in changed:
                number = graph.constant(to_bits(self._all[name], name), _dtype(self._all[name]))
                values[captured.inputs["others"][i]] = _value(graph, number, self._all[name])
        counter = graph.scalars.on_step(STEP)
        values[captured.inputs["step"][0]] = Value((), counter, torch.float32)
        batch, sample = self._dataset.batch(graph)
        values.update(zip(captured.inputs["batch"], batch, strict=True))
        lowerer = Lowerer(graph, captured, values)
        lowerer.run()
        outputs = [graph.store(lowerer.value(captured.outputs[g][i])) for _, _, g, i in state]
        names = {"loss": graph.store(lowerer.value(captured.outputs["loss"][0])), "sample": sample}
        program = graph.program(
            outputs, names, len(self._dataset.tensors), tuple(name for name, *_ in state)
        )
        validate(program)
        initial = [to_bits(tensor, name) for name, tensor, *_ in state]
        dtypes = [tensor.dtype for _, tensor, *_ in state]
        return Traced(program, initial, graph.constants, self._dataset.tensors, dtypes)


def _dtype(tensor: Tensor) -> DType:
    return dtype_of(tensor.dtype, "a tensor")


def _value(graph: Graph, number: int, tensor: Tensor) -> Value:
    shape: Shape = tuple(tensor.shape)
    return Value(shape, graph.read(number), tensor.dtype)


def _changes(captured: Capture, other: int) -> bool:
    """Whether the step returns something else than it was given for a frozen tensor or buffer."""
    return origin(captured.outputs["others"][other]) is not captured.inputs["others"][other]
