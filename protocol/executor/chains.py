# SPDX-License-Identifier: GPL-3.0-or-later
"""Computes what a dispute shows inside one element of a FOLD, with the kernels of `chain_kernel`.

Beside the tensors that the node reads this takes four bytes per chain of level 0: 32 MiB for the
longest fold that there can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from protocol import fold as folds
from protocol.errors import NumericsError
from protocol.execution import Bits
from protocol.executor.access import body_of
from protocol.executor.chain_kernel import CHAINS, COMBINE, chain_text
from protocol.executor.native import Library
from protocol.executor.target import Target
from protocol.executor.team import address
from protocol.program import Node, Program

FEW: Final = 1 << 14
"""Registers that are evaluated in Python before compiling a kernel would have paid."""
CALL_CHAINS: Final = 1 << 12
"""Chains of level 0 per lane and native call: between calls Python sees to its signals."""


class Chains:
    """The chains of any element of one FOLD node."""

    def __init__(self, program: Program, number: int, target: Target) -> None:
        """Compile the kernels of node `number`. Raises NumericsError where LLVM cannot."""
        self._node = program.nodes[number]
        self._sources = body_of(program, self._node).sources
        library = Library([chain_text(program, self._node, target)], target)
        self._chains, self._combine = library.function(CHAINS), library.function(COMBINE)

    def results(
        self, element: int, outputs: Callable[[int], Bits], level: int, chains: range
    ) -> Bits:
        """Return the results, canonical patterns of shape (len(chains), lanes).

        See `protocol.execution.Executor.chain_results`. Raises NumericsError if this thread does
        not compute with binary32 as the specification does.
        """
        begin, end = _lowest(self._node, level, chains)
        read = [np.require(outputs(s.node), requirements=["C", "A"]) for s in self._sources]
        places = [address(a) + 4 * s.offset for a, s in zip(read, self._sources, strict=True)]
        found = np.empty((end - begin, self._node.lanes), np.uint32)
        for first in range(begin, end, CALL_CHAINS):
            stop = min(end, first + CALL_CHAINS)
            part = found[first - begin : stop - begin]
            _call(self._chains, [address(part), *places], [element, first, stop])
        for _ in range(level):
            above = np.empty((-(-len(found) // folds.BLOCK), self._node.lanes), np.uint32)
            _call(self._combine, [address(above), address(found)], [len(found)])
            found = above
        return found


def is_few(node: Node, level: int, chains: range) -> bool:
    """Whether these chains take Python less time than a kernel takes to be compiled."""
    begin, end = _lowest(node, level, chains)
    terms = min(node.terms, (end - begin) * folds.BLOCK * node.lanes)
    return terms * (1 + len(node.body.operands) + len(node.body.instructions)) <= FEW


def _lowest(node: Node, level: int, chains: range) -> tuple[int, int]:
    """Return the first and the end of the chains of level 0 that `chains` of `level` consist of."""
    items = folds.lane_terms(node.terms, node.lanes, 0)
    reach = folds.BLOCK**level
    return chains.start * reach, min(-(-items // folds.BLOCK), chains.stop * reach)


def _call(
    function: Callable[[int, int], int], pointers: Sequence[int], numbers: Sequence[int]
) -> None:
    table = np.array([pointer % (1 << 64) for pointer in pointers], np.uint64)
    words = np.array(numbers, np.int64)
    if function(address(table), address(words)):
        raise NumericsError(
            "a thread flushes subnormal numbers to zero or does not round to nearest "
            "(torch.set_flush_denormal, or a library built with fast-math)"
        )
