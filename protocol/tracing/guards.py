# SPDX-License-Identifier: GPL-3.0-or-later
"""What a trace would not show: refused by name, or put back as it was.

A captured graph has the tensors that it is given and the operations on them. Not in it are tensors
that code reaches by another way, hooks that run beside the step, memory that two parameters share,
and Python's own state between two steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from protocol.errors import TraceError
from protocol.tracing.capture import Capture
from protocol.tracing.paths import Call


def refuse_shared_memory(tensors: Mapping[str, Tensor], changing: Sequence[str]) -> None:
    """Refuse a tensor that training changes, and another one of the module with it."""
    ranges = {name: _memory(tensor) for name, tensor in tensors.items()}
    for name in changing:
        start, end = ranges[name]
        for other, (low, high) in ranges.items():
            if other != name and low < end and start < high:
                raise TraceError(
                    f"{name} and {other} are two tensors in the same memory: "
                    "make them one parameter (b.weight = a.weight)"
                )


def _memory(tensor: Tensor) -> tuple[int, int]:
    """Return the addresses between which a tensor's elements lie."""
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def refuse_hooks(
    tensors: Mapping[str, Tensor], trained: Sequence[str], optimizer: torch.optim.Optimizer
) -> None:
    """Refuse hooks that would run between the gradients and the end of the step."""
    for name in trained:
        if getattr(tensors[name], "_post_accumulate_grad_hooks", None):
            raise TraceError(
                f"{name} has a hook (register_post_accumulate_grad_hook) that is not traced; "
                "register_hook is"
            )
    for kind in ("pre", "post"):
        if getattr(optimizer, f"_optimizer_step_{kind}_hooks", None):
            raise TraceError(
                f"the optimizer has a hook (register_step_{kind}_hook) that is not traced"
            )


def refuse_captured(captured: Capture, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a graph that has a tensor of the module as a constant.

    Code got hold of it before the trace, which then does not know that it changes.
    """
    own = {tensor.untyped_storage().data_ptr(): name for name, tensor in tensors.items()}
    for node in captured.graph.nodes:
        if node.op != "get_attr":
            continue
        constant = getattr(captured.module, str(node.target))
        where = captured.paths.of(next(iter(node.users), node))
        if isinstance(constant, FakeTensor | FunctionalTensor):
            raise TraceError(
                f"{where} uses a tensor that an earlier call has left: only a buffer is kept from "
                "step to step"
            )
        name = own.get(constant.untyped_storage().data_ptr())
        if name is not None:
            raise TraceError(
                f"{where} uses {name} through a reference from before the trace, as if it never "
                "changed: take it from the module when the loss or forward is called"
            )


def refuse_changes(first: Sequence[Call], second: Sequence[Call], micro_batches: int) -> None:
    """Refuse a step that does not do the same every time it is called.

    `first` are the calls of one forward and backward pass, `second` those of a whole step after it.
    """
    for one, other in zip_longest([*first] * micro_batches, second):
        if one != other:
            line = (other or one).line
            raise TraceError(
                f"{line}: a second call does something else than the first; a step cannot depend "
                "on Python's own state or random numbers (a buffer is state)"
            )


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Put back whatever the forward pass stores in its module: while tracing, that is no tensor."""
    containers = (dict, list, set)
    before: list[tuple[nn.Module, dict[str, Any], dict[str, Any]]] = []
    for child in module.modules():
        own = dict(child.__dict__)
        held = {key: value.copy() for key, value in own.items() if type(value) in containers}
        before.append((child, own, held))
    try:
        yield
    finally:
        for child, own, held in before:
            child.__dict__.clear()
            child.__dict__.update(own)
            for key, value in held.items():
                own[key].clear()
                (own[key].extend if isinstance(value, list) else own[key].update)(value)
