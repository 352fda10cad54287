# SPDX-License-Identifier: GPL-3.0-or-later
"""The real torch optimizer inside a traced step: its state goes in and comes out as tensors.

A new optimizer of the same class and options is built over clones of the parameters, given its
state, and stepped once; what it computes is therefore torch's own formula. The step counter of Adam
is no state tensor: it is STEP plus the count that the optimizer came with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor

from protocol.errors import TraceError

STATE_KEYS: Final[dict[type[torch.optim.Optimizer], tuple[str, ...]]] = {
    torch.optim.SGD: ("momentum_buffer",),
    torch.optim.Adam: ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    torch.optim.AdamW: ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    torch.optim.RMSprop: ("square_avg", "momentum_buffer", "grad_avg"),
    torch.optim.Adagrad: ("sum",),
}
"""Optimizers that can be traced, with the tensors that each may keep for a parameter."""

SHORT: Final = {"momentum_buffer": "momentum"}
"""Names of optimizer state in `Program.state_names`, where they differ from torch's."""


CLIP_EPSILON: Final = 1e-6
"""What `torch.nn.utils.clip_grad_norm_` adds to the norm that it divides by."""


@dataclass(frozen=True)
class Slot:
    """One tensor of optimizer state: for parameter number `parameter`, starting as `initial`."""

    key: str
    parameter: int
    initial: Tensor


class OptimizerStep:
    """One step of an optimizer as a function of tensors."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[torch.nn.Parameter],
        clip_norm: float | None = None,
    ) -> None:
        """Check the optimizer; `parameters` are those that it will step, in order.

        `clip_norm` limits the norm of all gradients together. Raises TraceError for an optimizer
        that cannot be traced and for a limit that is no positive number.
        """
        if type(optimizer) not in STATE_KEYS:
            known = ", ".join(sorted(kind.__name__ for kind in STATE_KEYS))
            raise TraceError(
                f"the optimizer {type(optimizer).__qualname__} cannot be traced (only {known})"
            )
        if any(group.get("lr_decay") for group in optimizer.param_groups):
            raise TraceError(
                "lr_decay makes Adagrad's rate depend on the step, which is not traced"
            )
        if clip_norm is not None and not 0 < clip_norm < math.inf:
            raise TraceError(f"clip_norm must be a positive number, not {clip_norm}")
        self._clip_norm = clip_norm
        self._optimizer = optimizer
        self._parameters = list(parameters)
        self._numbers = {id(p): number for number, p in enumerate(parameters)}
        self.slots = [slot for n in range(len(parameters)) for slot in self._slots(n)]

    def _slots(self, number: int) -> list[Slot]:
        parameter = self._parameters[number]
        options, state = self._options(parameter), self._optimizer.state.get(parameter, {})
        kept = {
            "momentum_buffer": options.get("momentum", 0) != 0,
            "max_exp_avg_sq": options.get("amsgrad", False),
            "grad_avg": options.get("centered", False),
        }
        slots = []
        for key in STATE_KEYS[type(self._optimizer)]:
            if kept.get(key, True):
                initial = state.get(key)
                if initial is None:
                    initial = torch.zeros_like(parameter)
                slots.append(Slot(key, number, initial.detach()))
        return slots

    def _options(self, parameter: torch.nn.Parameter) -> dict[str, Any]:
        for group in self._optimizer.param_groups:
            if any(p is parameter for p in group["params"]):
                return group
        raise TraceError("a parameter belongs to no group of the optimizer")

    def run(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        slots: Sequence[Tensor],
        step: Tensor,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the new parameters and the new state, in the order of `slots`.

        `step` is the number of the step as an f32 scalar.
        """
        gradients = self._clipped(gradients)
        after, state = self._once(parameters, gradients, slots, step)
        if not any(self._begins_lazily(slot) for slot in self.slots):
            return after, state
        # torch's first momentum is the gradient itself, not (1 - dampening) times it.
        first, first_state = self._once(parameters, gradients, None, step)
        is_first = step == 0
        lazy = {slot.parameter for slot in self.slots if self._begins_lazily(slot)}
        return (
            [
                torch.where(is_first, a, b) if n in lazy else b
                for n, (a, b) in enumerate(zip(first, after, strict=True))
            ],
            [
                torch.where(is_first, a, b) if slot.parameter in lazy else b
                for slot, a, b in zip(self.slots, first_state, state, strict=True)
            ],
        )

    def _clipped(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return the gradients scaled to at most the limit, by torch's own formula."""
        if self._clip_norm is None:
            return list(gradients)
        norms = [gradient.square().sum() for gradient in gradients]
        total = torch.stack(norms).sum().sqrt()
        factor = torch.clamp(self._clip_norm / (total + CLIP_EPSILON), max=1.0)
        return [gradient * factor for gradient in gradients]

    def _begins_lazily(self, slot: Slot) -> bool:
        parameter = self._parameters[slot.parameter]
        has_state = self._optimizer.state.get(parameter, {}).get("momentum_buffer") is not None
        dampening = self._options(parameter).get("dampening", 0)
        return slot.key == "momentum_buffer" and dampening != 0 and not has_state

    def _once(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        slots: Sequence[Tensor] | None,
        step: Tensor,
    ) -> tuple[list[Tensor], list[Tensor]]:
        clones = [p.clone() for p in parameters]
        optimizer = self._rebuilt(clones)
        for clone, gradient in zip(clones, gradients, strict=True):
            clone.grad = gradient
        for slot, tensor in zip(self.slots, slots or (), strict=False):
            optimizer.state[clones[slot.parameter]][slot.key] = tensor.clone()
        if type(self._optimizer) is not torch.optim.SGD:
            for clone, parameter in zip(clones, self._parameters, strict=True):
                done = float(self._optimizer.state.get(parameter, {}).get("step", 0))
                optimizer.state[clone]["step"] = step + done
        # Otherwise Adam insists on an accelerator, or reads its counter as a Python number. Adagrad
        # always does, for the decay of its rate: that is 0 here, whatever the counter.
        with (
            mock.patch("torch.compiler.is_compiling", return_value=True),
            mock.patch("torch.optim.adagrad._get_value", return_value=1.0),
        ):
            optimizer.step()
        return clones, [optimizer.state[clones[s.parameter]][s.key] for s in self.slots]

    def _rebuilt(self, clones: Sequence[Tensor]) -> torch.optim.Optimizer:
        groups = []
        for group in self._optimizer.param_groups:
            options = {
                key: value.item() if isinstance(value, Tensor) else value
                for key, value in group.items()
                if key != "params"
            }
            options |= {"foreach": False, "fused": None, "differentiable": False}
            if "capturable" in options:
                options["capturable"] = True
            numbers = [self._numbers[id(p)] for p in group["params"] if id(p) in self._numbers]
            if numbers:
                groups.append({**options, "params": [clones[n] for n in numbers]})
        return type(self._optimizer)(groups)  # type: ignore[call-arg]
