# SPDX-License-Identifier: GPL-3.0-or-later
"""What every executor offers, whether it interprets slowly or compiles.

Tensors are C-contiguous numpy arrays of dtype uint32 that hold bit patterns, in the shape of their
node, so that no conversion can touch a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from protocol.tensor_tree import tensor_roots

Bits = npt.NDArray[np.uint32]
Visitor = Callable[[Sequence[tuple[int, Bits]]], None]
"""Is shown some nodes of a step and their outputs, which are there only during the call."""


@dataclass(frozen=True)
class Inputs:
    """What a step reads beside the state: constants, data, and the task's 32-byte seed."""

    constants: Sequence[Bits]
    data: Sequence[Bits]
    seed: bytes

    @cached_property
    def roots(self) -> dict[int, bytes]:
        """The tensor root of each constant and data tensor by the id of its array, hashed once.

        The ids stand for these arrays as long as this object, which holds them, is there.
        """
        tensors = [*self.constants, *self.data]
        return dict(zip(map(id, tensors), tensor_roots(tensors), strict=True))


class Executor(Protocol):
    """Executes the steps of one program with one set of inputs, bit for bit as specified."""

    def step(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """State after one step; the arguments are never written to.

        `step` is the number of the step counted over the whole task from 0.
        """
        ...

    def update(self, state: list[Bits], step: int) -> None:
        """Replace the tensors in `state` by those after the step, in their own memory if possible.

        The caller owns the list and every array in it: none is a constant, data, or anybody
        else's, and no two share memory. After an error their contents are undefined.
        """
        state[:] = self.step(state, step)

    def trace(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """Output of every node of that step in program order, OUTPUT aliases included."""
        ...

    def visit(
        self,
        state: Sequence[Bits],
        step: int,
        visitor: Visitor,
        nodes: Collection[int] | None = None,
    ) -> None:
        """Show `visitor` the output of each node of that step, or of `nodes` only, once each.

        The outputs come in any number of calls and in any order. They may be overwritten after the
        call that shows them, and must not be written to; those that lie in one and the same array
        object have one and the same value. An executor that computes in little memory
        shows each while it is there; this one, for all others, keeps a whole trace.
        """
        outputs = self.trace(state, step)
        numbers = range(len(outputs)) if nodes is None else sorted(set(nodes))
        visitor([(number, outputs[number]) for number in numbers])

    def chain_results(
        self, node: int, element: int, outputs: Callable[[int], Bits], level: int, chains: range
    ) -> Bits | None:
        """Return what some chains of one element of a FOLD come to: shape (len(chains), lanes).

        These are chains (level, c) of `protocol.fold` for c in `chains`, all of which the first
        lane must have; a lane that ends before it shows the identity. `outputs(source)` is the
        output of a node that `node` reads. None, as here, means that this executor is no faster
        at it than that definition.
        """
        return None
