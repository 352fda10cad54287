# SPDX-License-Identifier: GPL-3.0-or-later
"""What every executor offers, whether it interprets slowly or compiles.

Tensors are C-contiguous numpy arrays of dtype uint32 that hold bit patterns, in the shape of their
node, so that no conversion can touch a bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Inputs:
    """What a step reads beside the state: constants, data, and the task's 32-byte seed."""

    constants: Sequence[Bits]
    data: Sequence[Bits]
    seed: bytes


class Executor(Protocol):
    """Executes the steps of one program with one set of inputs, bit for bit as specified."""

    def step(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """State after one step; the arguments are never written to.

        `step` is the number of the step counted over the whole task from 0.
        """
        ...

    def trace(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """Output of every node of that step in program order, OUTPUT aliases included."""
        ...
