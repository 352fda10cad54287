# SPDX-License-Identifier: GPL-3.0-or-later
"""The real torch optimizer inside a traced step: its state goes in and comes out as tensors.

A new optimizer of the same class and options is built over clones of the parameters, given its
state, and stepped once; what it computes is therefore torch's own formula. The step counter of Adam
and Adagrad is no state tensor: it is STEP plus the count that the optimizer came with. Learning
rates that a scheduler changes are tables (`schedulers`).
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
from protocol.tracing.numbers import StepNumber, StepNumbers
from protocol.tracing.schedule import OnStep

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
class Clip:
    """Limits on the gradients: on the norm of all together, or on the size of each number."""

    norm: float | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        for name, limit in (("clip_norm", self.norm), ("clip_value", self.value)):
            if limit is not None and not 0 < limit < math.inf:
                raise TraceError(f"{name} must be a positive number, not {limit}")
        if self.norm is not None and self.value is not None:
            raise TraceError("clip_norm and clip_value: which comes first is not said; give one")

    def clipped(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return the gradients within the limits, by the formulas of `torch.nn.utils`."""
        if self.value is not None:
            return [gradient.clamp(-self.value, self.value) for gradient in gradients]
        if self.norm is None:
            return list(gradients)
        norms = [gradient.square().sum() for gradient in gradients]
        total = torch.stack(norms).sum().sqrt()
        factor = torch.clamp(self.norm / (total + CLIP_EPSILON), max=1.0)
        return [gradient * factor for gradient in gradients]


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
        clip: Clip,
        rates: Sequence[OnStep] | None = None,
    ) -> None:
        """Check the optimizer; `parameters` are those that it will step, in order.

        `rates` are the learning rates of the parameter groups as formulas of the step, unless they
        stay as they are. Raises TraceError for an optimizer that cannot be traced.
        """
        if type(optimizer) not in STATE_KEYS:
            known = ", ".join(sorted(kind.__name__ for kind in STATE_KEYS))
            raise TraceError(
                f"the optimizer {type(optimizer).__qualname__} cannot be traced (only {known})"
            )
        self.numbers = StepNumbers()
        self._clip = clip
        self._rates = rates
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
                    # Adagrad's sum may begin elsewhere than at zero.
                    start = self._optimizer.defaults.get("initial_accumulator_value", 0)
                    # One number in memory, however large the parameter is.
                    value = torch.full((), start, dtype=parameter.dtype)
                    initial = value.expand_as(parameter)
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
        gradients = self._clip.clipped(gradients)
        after, state = self._once(parameters, gradients, slots)
        if not any(self._begins_lazily(slot) for slot in self.slots):
            return after, state
        # torch's first momentum is the gradient itself, not (1 - dampening) times it.
        first, first_state = self._once(parameters, gradients, None)
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
    ) -> tuple[list[Tensor], list[Tensor]]:
        clones = [p.clone() for p in parameters]
        optimizer = self._rebuilt(clones)
        for clone, gradient in zip(clones, gradients, strict=True):
            clone.grad = gradient
        for slot, tensor in zip(self.slots, slots or (), strict=False):
            optimizer.state[clones[slot.parameter]][slot.key] = tensor.clone()
        counts: dict[int, StepNumber] = {}
        if type(self._optimizer) is not torch.optim.SGD:
            for clone, parameter in zip(clones, self._parameters, strict=True):
                done = float(self._optimizer.state.get(parameter, {}).get("step", 0))
                counter = optimizer.state[clone]["step"] = torch.zeros(())
                counts[id(counter)] = self.numbers.after(done)

        def count(counter: Tensor) -> StepNumber:
            return counts[id(counter)]

        with (
            mock.patch("torch.optim.adam._get_value", count),
            mock.patch("torch.optim.adagrad._get_value", count),
        ):
            optimizer.step()
        return clones, [optimizer.state[clones[s.parameter]][s.key] for s in self.slots]

    def _rebuilt(self, clones: Sequence[Tensor]) -> torch.optim.Optimizer:
        groups = []
        for number, group in enumerate(self._optimizer.param_groups):
            options = {
                key: value.item() if isinstance(value, Tensor) else value
                for key, value in group.items()
                if key != "params"
            }
            options |= {"foreach": False, "fused": None, "differentiable": False}
            if "capturable" in options:
                options["capturable"] = False
            if self._rates is not None:
                options["lr"] = self.numbers.standing_for(self._rates[number])
            numbers = [self._numbers[id(p)] for p in group["params"] if id(p) in self._numbers]
            if numbers:
                groups.append({**options, "params": [clones[n] for n in numbers]})
        return type(self._optimizer)(groups)  # type: ignore[call-arg]
