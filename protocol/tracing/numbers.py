# SPDX-License-Identifier: GPL-3.0-or-later
"""Host numbers that stand for formulas of the step while torch's optimizer is traced.

torch's optimizers compute learning rates and bias corrections on the host, as Python floats, which
a trace would freeze. So they are given `StepNumber`s: floats of an arbitrary value that remember
what is computed from them. Each value then occurs in the captured graph as it is, and `StepNumbers`
says which formula it stands for. What the program computes is therefore the formula of eager torch,
in double precision on the host and rounded once, as in eager torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.errors import TraceError
from protocol.tracing.schedule import STEP, OnStep, constant_of

_FIRST = math.sqrt(0.271828)
_NEXT = math.sqrt(7.0) / 7919
"""Arbitrary values with full mantissas, so that no number of a model is one of them by chance."""


@dataclass
class StepNumbers:
    """The formulas that the numbers of one trace stand for, by their values."""

    _formulas: dict[float, OnStep] = field(default_factory=dict)
    _made: dict[OnStep, StepNumber] = field(default_factory=dict)

    def standing_for(self, formula: OnStep) -> StepNumber:
        """Return the number that stands for a formula: the same one each time."""
        if formula not in self._made:
            value = _FIRST + _NEXT * len(self._made)
            self._made[formula] = self.derived(value, formula)
        return self._made[formula]

    def after(self, done: float) -> StepNumber:
        """Return the number of steps done after this step, if `done` were done before the first."""
        return self.standing_for(OnStep("ADD", (STEP, constant_of(done + 1))))

    def derived(self, value: float, formula: OnStep) -> StepNumber:
        """Return a number computed from others, and remember what it stands for."""
        if self._formulas.setdefault(value, formula) != formula:
            raise TraceError(f"two numbers of the optimizer are the same by chance: {value!r}")
        return StepNumber(value, formula, self)

    def formula(self, value: float) -> OnStep | None:
        """Return what a number found in a graph stands for; None if it is just a number."""
        found = self._formulas.get(value)
        if found is None and -value in self._formulas:
            found = OnStep("NEG", (self._formulas[-value],))
        return found


class StepNumber(float):
    """A float of arbitrary value that stands for a formula of the step."""

    __slots__ = ("_formula", "_numbers")

    def __new__(cls, value: float, formula: OnStep, numbers: StepNumbers) -> StepNumber:
        """Make a number; use `StepNumbers` to have it remembered."""
        made = super().__new__(cls, value)
        made._formula = formula
        made._numbers = numbers
        return made

    _formula: OnStep
    _numbers: StepNumbers

    def _combined(self, name: str, function: Callable[..., float], *operands: float) -> StepNumber:
        parts = tuple(
            o._formula if isinstance(o, StepNumber) else constant_of(float(o)) for o in operands
        )
        return self._numbers.derived(function(*map(float, operands)), OnStep(name, parts))

    def __neg__(self) -> StepNumber:
        return self._combined("NEG", lambda x: -x, self)

    def __add__(self, other: float) -> StepNumber:
        if other == 0:
            return self
        return self._combined("ADD", lambda x, y: x + y, self, other)

    __radd__ = __add__

    def __sub__(self, other: float) -> StepNumber:
        return self._combined("SUB", lambda x, y: x - y, self, other)

    def __rsub__(self, other: float) -> StepNumber:
        return self._combined("SUB", lambda x, y: x - y, other, self)

    def __mul__(self, other: float) -> float:
        if other == 0:
            return 0.0  # does not depend on the step any more
        if other == 1:
            return self
        return self._combined("MUL", lambda x, y: x * y, self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: float) -> StepNumber:
        if other == 1:
            return self
        return self._combined("DIV", lambda x, y: x / y, self, other)

    def __rtruediv__(self, other: float) -> float:
        if other == 0:
            return 0.0
        return self._combined("DIV", lambda x, y: x / y, other, self)

    def __pow__(self, other: float) -> StepNumber:  # type: ignore[override]
        return self._combined("pow", lambda x, y: x**y, self, other)

    def __rpow__(self, other: float) -> float:  # type: ignore[override]
        if other in (0, 1):
            return float(other)  # the powers of a positive number of steps
        return self._combined("pow", lambda x, y: x**y, other, self)
