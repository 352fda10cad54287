# SPDX-License-Identifier: GPL-3.0-or-later
"""One traced step: the root of each node's output, and any output that is asked for.

A trace is many times as large as what a step holds in memory at once. If it is small it is kept;
else every output is hashed while it is there and forgotten, and the step is executed again up to
the node whose output is wanted. A player of the dispute game wants those of one node and of those
that it reads, so a dispute needs about the memory that training does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from protocol.execution import Bits, Executor, Inputs
from protocol.program import Flat, Kind, Program, View
from protocol.tensor_tree import tensor_roots

KEEP: Final = 1 << 26
"""Bytes of a trace up to which it is kept as a whole."""
_LASTING: Final = frozenset({Kind.INPUT, Kind.CONST, Kind.DATA})
"""Kinds whose outputs are arrays that a trace is given, and which no step overwrites."""


class Outputs(Protocol):
    """Outputs of nodes, by number."""

    def __getitem__(self, node: int, /) -> Bits:
        """Return the output of a node."""
        ...


class Trace:
    """The outputs of all nodes of one step, kept or computed again as they are asked for."""

    def __init__(
        self,
        program: Program,
        executor: Executor,
        state: Sequence[Bits],
        step: int,
        keep: int = KEEP,
        inputs: Inputs | None = None,
    ) -> None:
        """Take the state before the step and its number in the task; nothing is executed yet.

        A trace of at most `keep` bytes is held as a whole from the first question on. With the
        executor's `inputs`, they are hashed once instead of in every trace.
        """
        self._program, self._executor = program, executor
        self._state, self._step = state, step
        self._inputs = inputs
        self._small = trace_bytes(program) <= keep
        self._kept: dict[int, Bits] = {}
        self._roots: list[bytes] = []

    @property
    def roots(self) -> list[bytes]:
        """The tensor root of each node's output."""
        if not self._roots:
            self._roots = self._hash_kept() if self._small else self._hash_passing()
        return self._roots

    def __getitem__(self, node: int, /) -> Bits:
        """Return the output of a node.

        It comes with those of the nodes that it reads; those of other nodes are then forgotten,
        unless the whole trace is kept.
        """
        if self._small:
            return self._whole()[node]
        if node not in self._kept:
            kept: dict[int, Bits] = {}
            self._kept = kept  # what was kept before goes first

            def keep(outputs: Sequence[tuple[int, Bits]]) -> None:
                for number, output in outputs:
                    lasting = self._program.nodes[number].kind in _LASTING
                    kept[number] = output if lasting else output.copy()

            self._executor.visit(self._state, self._step, keep, {node, *self._read_by(node)})
        return self._kept[node]

    def _read_by(self, node: int) -> list[int]:
        spec = self._program.nodes[node]
        if spec.expression is None:
            return []
        return [o.source for o in spec.expression.operands if isinstance(o, (Flat, View))]

    def _whole(self) -> dict[int, Bits]:
        if not self._kept:
            self._kept = dict(enumerate(self._executor.trace(self._state, self._step)))
        return self._kept

    def _hash_kept(self) -> list[bytes]:
        outputs = list(self._whole().values())
        known = _known(self._inputs)
        fresh = [output for output in outputs if id(output) not in known]
        known.update(zip(map(id, fresh), tensor_roots(fresh), strict=True))
        return [known[id(output)] for output in outputs]

    def _hash_passing(self) -> list[bytes]:
        program, executor, inputs = self._program, self._executor, self._inputs
        return trace_roots(program, executor, self._state, self._step, inputs=inputs)


def trace_bytes(program: Program) -> int:
    """Return the size of all outputs that a step computes."""
    computed = (Kind.SAMPLE, Kind.RAND, Kind.MAP, Kind.FOLD)
    return sum(4 * node.numel for node in program.nodes if node.kind in computed)


def trace_roots(
    program: Program,
    executor: Executor,
    state: Sequence[Bits],
    step: int,
    threads: int | None = None,
    inputs: Inputs | None = None,
) -> list[bytes]:
    """Execute a step and return the tensor root of each node's output, in program order.

    Each output is hashed, on `threads` threads (by default on all CPUs), while it is in memory;
    those that are the executor's `inputs` only the first time.
    """
    roots: list[bytes] = [b""] * len(program.nodes)
    # New state, constants and data are shown more than once. Holding an array keeps its id its own.
    known, held = _known(inputs), []

    def take(outputs: Sequence[tuple[int, Bits]]) -> None:
        fresh = [output for _, output in outputs if id(output) not in known]
        held.extend(fresh)
        known.update(zip(map(id, fresh), tensor_roots(fresh, threads), strict=True))
        for number, output in outputs:
            roots[number] = known[id(output)]

    executor.visit(state, step, take)
    return roots


def _known(inputs: Inputs | None) -> dict[int, bytes]:
    """Return the roots that are known before a step, by the id of the array."""
    return {} if inputs is None else dict(inputs.roots)
