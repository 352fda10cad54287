# SPDX-License-Identifier: GPL-3.0-or-later
"""Which array each node's output is, in a step, in a step in place, and in a trace."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from protocol.errors import UsageError
from protocol.execution import Bits, Inputs
from protocol.executor.destination import check_destination, is_plain
from protocol.executor.order import COMPUTED, Order
from protocol.executor.plan import Plan
from protocol.executor.team import Addresses, Script, address, aligned
from protocol.float32 import WORD
from protocol.program import Kind, Program
from protocol.randomness import sample_array
from protocol.reference import check_state

REMEMBERED: Final = 2
"""Pairs of states whose pointers are kept: a caller may write two buffers by turns."""
_DRAWN: Final = (Kind.STEP, Kind.SAMPLE)


@dataclass
class Placement:
    """The arrays of one step: what native code reads and writes, and what is left to copy."""

    pointers: Addresses
    """One per place of the script."""
    results: list[Bits]
    """The new state (of a trace: the outputs of all nodes)."""
    copies: list[tuple[Bits, Bits]]
    """(to, from), after native code has run."""


class Memory:
    """The arrays that the steps of one executor share, and the pointers to them."""

    def __init__(
        self,
        program: Program,
        inputs: Inputs,
        order: Order,
        plan: Plan,
        script: Script,
    ) -> None:
        """Take the inputs as they are: they are read anew in every step."""
        self._program, self._plan, self._script = program, plan, script
        self._direct = order.direct
        self._seed = inputs.seed
        self._words = np.zeros(3, np.uint32)
        self._words[1:] = np.frombuffer(inputs.seed[:8], ">u4")
        self._arena: npt.NDArray[np.uint8] | None = None
        self._temporary: dict[int, Bits] = {}
        self._leaves: dict[int, Bits] = {}
        """Outputs of CONST and DATA, and of STEP and SAMPLE, which every step fills anew."""
        for number, node in enumerate(program.nodes):
            if node.kind is Kind.CONST:
                self._leaves[number] = _plain(inputs.constants[node.index])
            elif node.kind is Kind.DATA:
                self._leaves[number] = _plain(inputs.data[node.index])
            elif node.kind in _DRAWN:
                self._leaves[number] = np.empty(node.shape, np.uint32)
        numbers = range(len(program.nodes))
        self._drawn = [n for n in numbers if program.nodes[n].kind in _DRAWN]
        self._inputs = [n for n in numbers if program.nodes[n].kind is Kind.INPUT]
        # One address per node, then that of the words that RAND kernels read.
        self._table = np.zeros(len(program.nodes) + 1, np.uint64)
        self._table[-1] = address(self._words)
        for number, array in self._leaves.items():
            self._table[number] = address(array)
        self._known: list[tuple[list[weakref.ref[Bits]], Addresses]] = []
        self._states: dict[int, int] = {}
        """Per node that is a result: the first state tensor that it is the new value of."""
        for state, number in enumerate(plan.results):
            self._states.setdefault(number, state)

    def _set_step(self, step: int) -> None:
        """Fill what depends on the number of the step."""
        if not 0 <= step < 1 << 64:
            raise UsageError(f"step number {step} is not a u64")
        self._words[0] = step & WORD
        for number in self._drawn:
            node, array = self._program.nodes[number], self._leaves[number]
            if node.kind is Kind.STEP:
                array[...] = step & WORD
            else:
                drawn = sample_array(self._seed, node.stream, step, node.numel, node.bound)
                array[...] = drawn.reshape(node.shape)

    def leaf(self, number: int, state: Sequence[Bits]) -> Bits:
        """Return the output of a leaf that is not RAND: a copy of what steps share."""
        node = self._program.nodes[number]
        if node.kind is Kind.INPUT:
            return state[node.index]
        found = self._leaves[number]
        return found.copy() if node.kind in _DRAWN else found

    def value(self, number: int, results: Sequence[Bits]) -> Bits:
        """Return the output of a computed node after the step that had these `results`."""
        if number in self._states:
            return results[self._states[number]]
        start, node = self._plan.offsets[number], self._program.nodes[number]
        found: Bits = self._whole_arena()[start : start + 4 * node.numel].view(np.uint32)
        return found.reshape(node.shape)

    def place_trace(self, state: Sequence[Bits], step: int) -> Placement:
        """Give every computed node an array of its own."""
        check_state(self._program, state)
        self._set_step(step)
        kept = [_plain(tensor) for tensor in state]
        outputs: list[Bits] = []
        for number, node in enumerate(self._program.nodes):
            if node.kind in COMPUTED:
                outputs.append(np.empty(node.shape, np.uint32))
                self._table[number] = address(outputs[number])
            elif node.kind is Kind.OUTPUT:
                outputs.append(outputs[node.index])
            else:
                outputs.append(self.leaf(number, state))
        return Placement(self._pointers(kept), outputs, [])

    def place_step(self, state: Sequence[Bits], step: int, out: Sequence[Bits] | None) -> Placement:
        """Give new state tensors new arrays, or those in `out`; intermediates lie in the arena."""
        pointers = self._remembered([*state, *out]) if out is not None else None
        kept = list(state)
        if pointers is None:
            check_state(self._program, state)
            kept = [_plain(tensor) for tensor in state]
            if out is not None:
                check_destination(self._program, kept, out, list(self._leaves.values()))
        self._set_step(step)
        results, copies = self._results(state, out, pointers is None)
        if pointers is None:
            arena = address(self._whole_arena())
            for number, offset in self._plan.offsets.items():
                self._table[number] = arena + offset
            pointers = self._pointers(kept)
            if out is not None and all(is_plain(tensor) for tensor in state):
                refs = [weakref.ref(array) for array in (*state, *out)]
                self._known = [(refs, pointers), *self._known][:REMEMBERED]
        return Placement(pointers, results, copies)

    def _results(
        self, state: Sequence[Bits], out: Sequence[Bits] | None, point: bool
    ) -> tuple[list[Bits], list[tuple[Bits, Bits]]]:
        """Return the new state's arrays and what to copy; with `point`, enter their addresses."""
        nodes = self._program.nodes
        results: list[Bits] = []
        copies: list[tuple[Bits, Bits]] = []
        for index, number in enumerate(self._plan.results):
            first = self._states[number]
            if nodes[number].kind not in COMPUTED:
                value = self.leaf(number, state)
                if nodes[number].kind is Kind.INPUT and out is not None:
                    elsewhere = value is not out[index]
                    if elsewhere and value is out[nodes[number].index]:
                        value = value.copy()  # the step writes over it
            elif first < index:
                value = results[first]
            elif out is not None and out[index] is state[index] and number not in self._direct:
                if number not in self._temporary:
                    self._temporary[number] = np.empty(nodes[number].shape, np.uint32)
                value = self._temporary[number]
            else:
                value = np.empty(nodes[number].shape, np.uint32) if out is None else out[index]
            if point and first == index and nodes[number].kind in COMPUTED:
                self._table[number] = address(value)
            if out is not None and value is not out[index]:
                copies.append((out[index], value))
            results.append(value if out is None else out[index])
        return results, copies

    def _pointers(self, state: Sequence[Bits]) -> Addresses:
        for number in self._inputs:
            self._table[number] = address(state[self._program.nodes[number].index])
        return self._table[self._script.places] + self._script.offsets

    def _remembered(self, arrays: Sequence[Bits]) -> Addresses | None:
        """Return the pointers of an earlier step with these very arrays, which were checked."""
        for refs, pointers in self._known:
            if len(refs) == len(arrays) and all(
                ref() is array for ref, array in zip(refs, arrays, strict=True)
            ):
                return pointers
        return None

    def _whole_arena(self) -> npt.NDArray[np.uint8]:
        if self._arena is None:
            self._arena = aligned(self._plan.size)
        return self._arena


def _plain(tensor: Bits) -> Bits:
    return np.require(tensor, requirements=["C", "A"])
