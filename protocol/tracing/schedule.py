# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers that depend on the step alone: learning rates, bias corrections.

They are kept as formulas of t, the number of the step counted from 0, evaluated on the host in
double precision, rounded once, and put into a constant table that the program gathers from by STEP.
So `1 - beta^t` has no cancellation and the referee needs no pow. A formula that becomes constant
(as bias corrections do once beta^t is below half a unit in the last place) needs a table only up to
there; reads beyond it give the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from protocol.ops import Op
from protocol.program import DType

Doubles = npt.NDArray[np.float64]

LONGEST_TABLE: Final = 1 << 20
"""Entries tried before a formula counts as one that never becomes constant."""
FAR: Final = 2.0**40
"""A step that no task reaches: what a formula gives here is taken for its limit."""


@dataclass(frozen=True, slots=True)
class OnStep:
    """A formula: "t", "const", "table", the name of a primitive, or "pow", applied to `parts`."""

    name: str
    parts: tuple[OnStep, ...] = ()
    value: float = 0.0
    """The number of a "const"."""
    entries: bytes = b""
    """The doubles of a "table", one per step; the last one holds for every later step."""

    @property
    def dtype(self) -> DType:
        """Always f32."""
        return DType.F32


STEP: Final = OnStep("t")

_FUNCTIONS: Final[dict[str, Callable[..., Doubles]]] = {
    "ADD": np.add,
    "SUB": np.subtract,
    "MUL": np.multiply,
    "DIV": np.divide,
    "SQRT": np.sqrt,
    "NEG": np.negative,
    "MAX": np.maximum,
    "MIN": np.minimum,
    "FMA": lambda a, b, c: a * b + c,
    "pow": np.power,
}


def constant_of(value: float) -> OnStep:
    """Return a formula that does not depend on the step."""
    return OnStep("const", (), value)


def table_of(values: Sequence[float]) -> OnStep:
    """Return a formula that is `values[t]`, and the last value from then on."""
    if len(set(values)) == 1:
        return constant_of(values[0])
    return OnStep("table", entries=np.asarray(values, np.float64).tobytes())


def is_schedule_op(op: Op) -> bool:
    """Whether a primitive of formulas is a formula."""
    return op.name in _FUNCTIONS


def combine(op: Op, parts: Sequence[OnStep]) -> OnStep:
    """Return a primitive of formulas."""
    return OnStep(op.name, tuple(parts))


def evaluate(formula: OnStep, t: Doubles) -> Doubles:
    """Return the values of a formula at steps `t`, in double precision."""
    if formula.name == "t":
        return t
    if formula.name == "const":
        return np.full_like(t, formula.value)
    if formula.name == "table":
        entries = np.frombuffer(formula.entries, np.float64)
        return entries[np.minimum(t, len(entries) - 1).astype(np.int64)]
    with np.errstate(all="ignore"):
        return _FUNCTIONS[formula.name](*(evaluate(part, t) for part in formula.parts))


def _longest(formula: OnStep) -> int:
    """Return the number of entries of the longest table in a formula."""
    return max([len(formula.entries) // 8, *map(_longest, formula.parts)])


@lru_cache(maxsize=1024)
def table(formula: OnStep) -> tuple[npt.NDArray[np.uint32], int] | None:
    """Return `(patterns of steps 0 .. n-1, pattern of every later step)`.

    None if the formula is not constant after `LONGEST_TABLE` steps.
    """
    (limit,) = _patterns(formula, np.array([FAR]))
    entries = _longest(formula)
    for tried in (1 << 10, 1 << 15, LONGEST_TABLE):
        if tried < entries:
            continue  # what a table holds between the samples below would be missed
        later = _patterns(formula, np.geomspace(tried, FAR, 256))
        if (later == limit).all():
            patterns = _patterns(formula, np.arange(tried, dtype=np.float64))
            changing = np.flatnonzero(patterns != limit)
            length = int(changing[-1]) + 1 if changing.size else 0
            return patterns[:length].copy(), int(limit)
    return None


def _patterns(formula: OnStep, t: Doubles) -> npt.NDArray[np.uint32]:
    with np.errstate(over="ignore"):
        return evaluate(formula, t).astype(np.float32).view(np.uint32)
