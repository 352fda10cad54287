# SPDX-License-Identifier: GPL-3.0-or-later
"""The torch side of tracing: one whole training step as a graph of core ATen operations.

`make_fx` runs forward, loss, backward and the optimizer once on fake tensors (shapes without data)
under functionalization, so that the graph has no mutation and no Python left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch._subclasses.functional_tensor import FunctionalTensorMode, dispatch_functionalize
from torch.autograd.graph import _engine_run_backward
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.stateless import _reparametrize_module

from protocol.errors import BitcourtError, TraceError
from protocol.tracing.known import KnownTensors, averaging, reads_its_counter
from protocol.tracing.merging import merge_sums
from protocol.tracing.optimizers import OptimizerStep
from protocol.tracing.paths import Call, Paths, draws_of, marking

aten = torch.ops.aten

DECOMPOSED: Final = (
    aten._softmax.default,
    aten._log_softmax.default,
    aten.native_batch_norm.default,
    aten._native_batch_norm_legit.default,
    aten._native_batch_norm_legit.no_stats,
    aten._native_batch_norm_legit_functional.default,
    aten._native_batch_norm_legit_no_training.default,
    aten.native_layer_norm.default,
    aten.native_group_norm.default,
    aten.gelu.default,
    aten.addmm.default,
    aten.addcmul.default,
    aten.addcdiv.default,
    aten.lerp.Scalar,
    aten.lerp.Tensor,
    aten.var_mean.correction,
    aten.var.correction,
    aten.elu.default,
    aten.leaky_relu.default,
    aten.hardtanh.default,
)
"""Core operations that are decomposed further; what remains has a lowering."""
KEPT: Final = (aten.embedding_dense_backward.default, aten.sigmoid.default)
"""Operations with a better lowering than their decomposition."""
SAME: Final = (
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
    aten.contiguous.default,
)
"""Operations that return their argument."""


@dataclass
class Capture:
    """The graph of one step. Each list has the placeholders or results of one group of tensors."""

    graph: fx.Graph
    module: fx.GraphModule
    inputs: dict[str, list[fx.Node]]
    outputs: dict[str, list[fx.Node]]
    paths: Paths
    streams: dict[fx.Node, int]
    """Which random numbers the nodes draw: those of one stream are the same."""


def _decompositions() -> dict[Any, Callable[..., Any]]:
    table: dict[Any, Callable[..., Any]] = dict(core_aten_decompositions())
    table.update(get_decompositions(DECOMPOSED))
    return {op: rule for op, rule in table.items() if op not in KEPT}


@contextmanager
def _averaging(module: torch.nn.Module) -> Iterator[None]:
    """Let no normalization read the number of steps so far."""
    found = [child for child in module.modules() if reads_its_counter(child)]
    for child in found:
        child.forward = partial(averaging, child)
    try:
        yield
    finally:
        for child in found:
            del child.forward


Loss = Callable[..., Tensor]
Hook = Callable[[Tensor], Tensor | None]


@dataclass
class Step:
    """One training step as a function of tensors, for `capture` and for finding unused ones."""

    module: torch.nn.Module
    loss: Loss
    trained: list[str]
    others: list[str]
    micro_batches: int = 1
    hooks: dict[str, list[Hook]] = field(default_factory=dict)
    """What `Parameter.register_hook` was given, by the name of the parameter."""

    def gradients(
        self,
        trained: Sequence[Tensor],
        others: list[Tensor],
        batch: Sequence[Tensor],
        paths: Paths,
    ) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """Return gradients, loss, and what `others` are afterwards.

        With several micro-batches: the sum of the gradients of each one's loss divided by their
        number, in order, and the mean of the losses.
        """
        total: list[Tensor] = []
        mean: Tensor | None = None
        for part in self._parts(batch):
            loss, found, others = self.differentiated(trained, others, part, paths)
            with torch.no_grad():
                total = [a + b for a, b in zip(total, found, strict=True)] if total else [*found]
                mean = loss if mean is None else mean + loss
        if mean is None:
            raise TraceError("a step has at least one micro-batch")
        return total, mean, others

    def _parts(self, batch: Sequence[Tensor]) -> list[list[Tensor]]:
        if self.micro_batches == 1:
            return [list(batch)]
        size = len(batch[0]) // self.micro_batches
        starts = range(0, size * self.micro_batches, size)
        return [[tensor[start : start + size] for tensor in batch] for start in starts]

    def differentiated(
        self,
        trained: Sequence[Tensor],
        others: Sequence[Tensor],
        batch: Sequence[Tensor],
        paths: Paths,
        allow_unused: bool = False,
    ) -> tuple[Tensor, Sequence[Any], list[Tensor]]:
        """Return the loss, its gradients, and the tensors of `others` as both passes leave them.

        The module has the given tensors until the end of the backward pass: the loss may read them,
        and a checkpoint computes parts of the forward pass again.
        """
        leaves = [tensor.detach().requires_grad_() for tensor in trained]
        for name, leaf in zip(self.trained, leaves, strict=True):
            for hook in self.hooks.get(name, []):
                leaf.register_hook(hook)  # type: ignore[no-untyped-call]
        tensors = {
            **dict(zip(self.trained, leaves, strict=True)),
            **{name: tensor.clone() for name, tensor in zip(self.others, others, strict=True)},
        }
        # Code that asks whether it is being compiled then makes no choice that depends on data.
        compiling = mock.patch("torch.compiler.is_compiling", return_value=True)
        given = _reparametrize_module(self.module, tensors, tie_weights=True)
        with _averaging(self.module), compiling, given:
            output = self.module(*batch[:-1])
            with paths.inside("the loss"):
                loss = self.loss(output, batch[-1])
            if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
                raise TraceError("the loss function must return one floating-point number")
            if not loss.requires_grad:
                raise TraceError("the loss depends on no parameter that the optimizer steps")
            loss = loss.reshape(())
            if self.micro_batches > 1:
                loss = loss / self.micro_batches
            paths.differentiating(loss)
            # Not torch.autograd.grad: inside of that, calls of torch are not noted.
            gradients = _engine_run_backward(
                (loss,),
                (torch.ones_like(loss),),
                False,
                False,
                tuple(leaves),
                allow_unused,
                accumulate_grad=False,
            )
        return loss.detach(), gradients, [tensors[name].detach() for name in self.others]


@contextmanager
def _as_trace_errors(paths: Paths) -> Iterator[None]:
    """Turn whatever torch raises into TraceError; gradients on and opaque kernels off."""
    mkldnn = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        with torch.enable_grad(), sdpa_kernel([SDPBackend.MATH]):
            yield
    except BitcourtError:
        raise
    except DataDependentOutputException as error:
        where = paths.of_error(error)
        raise TraceError(
            f"torch cannot trace {where}: a number or a branch depends on data ({error})"
        ) from error
    except DynamicOutputShapeException as error:
        where = paths.of_error(error)
        raise TraceError(
            f"torch cannot trace {where}: a shape depends on data ({error})"
        ) from error
    except Exception as error:
        raise TraceError(f"torch cannot trace {paths.of_error(error)}: {error}") from error
    finally:
        torch.backends.mkldnn.enabled = mkldnn


def unused_parameters(
    step: Step, trained: Sequence[Tensor], others: Sequence[Tensor], batch: Sequence[Tensor]
) -> tuple[set[int], list[Call]]:
    """Return which parameters the loss does not depend on: torch leaves them without a gradient.

    With them the calls of torch that one forward and backward pass makes.
    """
    paths, fake = Paths(), FakeTensorMode(allow_non_fake_inputs=True)
    with _as_trace_errors(paths), marking(step.module, paths), fake as mode, KnownTensors():
        p, o, b = ([mode.from_tensor(t) for t in group] for group in (trained, others, batch))
        _, gradients, _ = step.differentiated(p, o, b, paths, allow_unused=True)
    return {n for n, gradient in enumerate(gradients) if gradient is None}, paths.calls


def capture(
    step: Step,
    optimizer: OptimizerStep,
    trained: Sequence[Tensor],
    others: Sequence[Tensor],
    batch: Sequence[Tensor],
) -> Capture:
    """Trace one whole step. Raises TraceError for what torch itself cannot trace.

    The input groups are `trained`, `others`, `slots`, `step`, `batch`; the output groups `trained`,
    `others`, `slots`, `loss`.
    """
    slots = [slot.initial for slot in optimizer.slots]
    sizes = (len(trained), len(others), len(slots), 1, len(batch))

    def whole(*flat: Tensor) -> list[Tensor]:
        p, o, s, (number,), b = _cut(flat, sizes)
        gradients, loss, after_others = step.gradients(p, o, b, paths)
        with torch.no_grad():
            after, after_slots = optimizer.run(p, gradients, s, number)
        return [*after, *after_others, *after_slots, loss]

    arguments = [t.detach() for t in (*trained, *others, *slots, torch.zeros(()), *batch)]
    paths = Paths()
    with _as_trace_errors(paths), marking(step.module, paths):
        module = make_fx(
            dispatch_functionalize(whole, FunctionalTensorMode(_allow_token_discovery=True)),
            decomposition_table=_decompositions(),
            tracing_mode="fake",
            _allow_non_fake_inputs=True,
        )(*arguments)
    graph = module.graph
    streams = _streams(graph)
    merge_sums(graph)
    found = [node for node in graph.nodes if node.op == "placeholder"]
    (result,) = next(node for node in graph.nodes if node.op == "output").args
    inputs = dict(
        zip(("trained", "others", "slots", "step", "batch"), _cut(found, sizes), strict=True)
    )
    groups = _cut(list(result), (*sizes[:3], 1))
    outputs = dict(zip(("trained", "others", "slots", "loss"), groups, strict=True))
    return Capture(graph, module, inputs, outputs, paths, streams)


def _streams(graph: fx.Graph) -> dict[fx.Node, int]:
    """Number the random draws in the order of the graph; equal ones get equal numbers."""
    random = torch.Tag.nondeterministic_seeded
    drawn = draws_of([n for n in graph.nodes if random in getattr(n.target, "tags", ())])
    numbers = {draw: number for number, draw in enumerate(dict.fromkeys(drawn.values()))}
    return {node: numbers[draw] for node, draw in drawn.items()}


def _cut(items: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
    parts, start = [], 0
    for size in sizes:
        parts.append(list(items[start : start + size]))
        start += size
    return parts


def origin(node: fx.Node) -> fx.Node:
    """Return the node that `node` is a mere copy of."""
    while node.op == "call_function" and node.target in SAME:
        (node, *_) = node.all_input_nodes
    return node
