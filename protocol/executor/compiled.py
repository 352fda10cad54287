# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiled executor: whole steps of a program as native code, bit for bit as specified."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from protocol.errors import NumericsError, UsageError
from protocol.execution import Bits, Inputs
from protocol.executor.module import Segment, build_module
from protocol.executor.native import Library
from protocol.executor.plan import ALIGNMENT, COMPUTED, make_plan, resolve
from protocol.executor.target import Target, host_target
from protocol.float32 import WORD
from protocol.program import Kind, Node, Program
from protocol.randomness import sample_array
from protocol.reference import check_inputs, check_state
from protocol.validate import validate

_EMPTY = np.empty(0, np.uint32)


def _bytes(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return aligned uninitialized memory."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    skip = -raw.ctypes.data % ALIGNMENT
    return raw[skip : skip + size]


def _address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _watched_nodes(program: Program, names: Sequence[str]) -> dict[str, int]:
    """Return the node that holds the value of each name."""
    for name in names:
        if name not in program.names:
            known = ", ".join(program.names) or "none"
            raise UsageError(f"the program has no node named {name!r}; its names: {known}")
    return {name: resolve(program, program.names[name]) for name in names}


class NativeExecutor:
    """Executes whole steps of a program; implements `protocol.execution.Executor`.

    Intermediates live in one arena that steps reuse, so a step allocates only the state it returns.
    An OUTPUT that names an INPUT, CONST or DATA node returns that very array, without a copy. Calls
    from several threads are serialized.
    """

    def __init__(
        self,
        program: Program,
        inputs: Inputs,
        threads: int = 1,
        target: Target | None = None,
        watch: Sequence[str] = (),
    ) -> None:
        """Validate and compile the program, for this machine unless `target` says otherwise.

        The number of threads never changes a bit. `watch` lists names of nodes (keys of
        `program.names`, such as `loss`) that `watched` is to return after each step. Raises
        ProgramError for an invalid program, UsageError for inputs that do not fit it or a name that
        it does not have.
        """
        validate(program)
        check_inputs(program, inputs)
        if threads < 1:
            raise UsageError(f"an executor needs at least one thread, not {threads}")
        self.program = program
        self.inputs = inputs
        self.threads = threads
        self._constants = [np.require(t, requirements=["C", "A"]) for t in inputs.constants]
        self._data = [np.require(t, requirements=["C", "A"]) for t in inputs.data]
        self._watch = _watched_nodes(program, watch)
        self._watched: dict[str, Bits] = {}
        self._plan = make_plan(program, frozenset(self._watch.values()))
        module = build_module(program, target or host_target(), parallel=threads > 1)
        self._library = Library(module.text, target or host_target())
        self._segments = [(s, self._library.segment(s.name)) for s in module.segments]
        self._scratch = [_bytes(module.scratch) for _ in range(threads)]
        self._arena: np.ndarray[Any, Any] | None = None
        self._words = np.zeros(3, np.uint32)
        self._words[1:] = np.frombuffer(inputs.seed[:8], ">u4")
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._lock = threading.Lock()

    def step(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """Return the state after step number `step`."""
        with self._lock:
            if self._arena is None:
                self._arena = _bytes(self._plan.size)
            start = _address(self._arena)
            places = {n: start + offset for n, offset in self._plan.offsets.items()}
            outputs = self._run(state, step, places)
            self._watched = {
                name: (self._in_arena(number) if number in places else outputs[number]).copy()
                for name, number in self._watch.items()
            }
        return [outputs[number] for number in self._plan.results]

    def watched(self, name: str) -> Bits:
        """Return the output that a node named in `watch` had in the last finished `step`.

        The array is the caller's own. Raises UsageError for a name that is not in `watch`, or
        before the first step.
        """
        if name not in self._watched:
            known = ", ".join(self._watch) or "nothing"
            raise UsageError(f"no step has left a value of {name!r}; this executor watches {known}")
        return self._watched[name].copy()

    def _in_arena(self, number: int) -> Bits:
        """Return a node's output where the arena holds it."""
        node, start = self.program.nodes[number], self._plan.offsets[number]
        if self._arena is None:
            raise UsageError("no step has run yet")
        found: Bits = self._arena[start : start + 4 * node.numel].view(np.uint32)
        return found.reshape(node.shape)

    def trace(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """Return the output of every node of step number `step` in program order."""
        with self._lock:
            return self._run(state, step, {})

    def _run(self, state: Sequence[Bits], step: int, places: dict[int, int]) -> list[Bits]:
        """Run a step; nodes in `places` are written to these addresses, others to new arrays."""
        check_state(self.program, state)
        if not 0 <= step < 1 << 64:
            raise UsageError(f"step number {step} is not a u64")
        self._words[0] = step & WORD
        kept = [np.require(tensor, requirements=["C", "A"]) for tensor in state]
        outputs: list[Bits] = []
        table = np.zeros(len(self.program.nodes) + 2, np.uint64)
        for number, node in enumerate(self.program.nodes):
            if number in places:
                outputs.append(_EMPTY)
                table[number] = places[number]
                continue
            output = self._leaf(node, kept, outputs, step)
            outputs.append(output)
            table[number] = _address(output)
        table[-1] = _address(self._words)
        self._call(table)
        return outputs

    def _leaf(self, node: Node, state: list[Bits], outputs: list[Bits], step: int) -> Bits:
        """Return the tensor of a leaf or OUTPUT, or a new array for a kernel to fill."""
        if node.kind in COMPUTED:
            return np.empty(node.shape, np.uint32)
        if node.kind is Kind.INPUT:
            return state[node.index]
        if node.kind is Kind.CONST:
            return self._constants[node.index]
        if node.kind is Kind.DATA:
            return self._data[node.index]
        if node.kind is Kind.STEP:
            return np.full(node.shape, step & WORD, np.uint32)
        if node.kind is Kind.SAMPLE:
            drawn = sample_array(self.inputs.seed, node.stream, step, node.numel, node.bound)
            return drawn.reshape(node.shape)
        return outputs[resolve(self.program, node.index)]

    def _call(self, table: np.ndarray[Any, np.dtype[np.uint64]]) -> None:
        tables = [table.copy() for _ in range(self.threads)]
        for own, scratch in zip(tables, self._scratch, strict=True):
            own[-2] = _address(scratch)
        bad = 0
        for segment, function in self._segments:
            if self._pool is None or segment.units == 1:
                bad |= function(_address(tables[0]), 0, segment.units)
            else:
                bad |= self._shared(segment, function, tables)
        if bad:
            raise NumericsError(
                "a thread flushes subnormal numbers to zero or does not round to nearest "
                "(torch.set_flush_denormal, or a library built with fast-math)"
            )

    def _shared(self, segment: Segment, function: Any, tables: list[Any]) -> int:
        """Run a segment's units in all threads; returns nonzero if one has a wrong environment."""
        if self._pool is None:
            return 0
        count = self.threads
        cuts = [segment.units * i // count for i in range(count + 1)]
        tasks = [
            self._pool.submit(function, _address(table), cuts[i], cuts[i + 1])
            for i, table in enumerate(tables)
        ]
        return max(int(task.result() != 0) for task in tasks)
