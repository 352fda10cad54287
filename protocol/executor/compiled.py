# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiled executor: whole steps of a program as native code, bit for bit as specified."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial

import numpy as np

from protocol.errors import NumericsError, UsageError
from protocol.execution import Bits, Executor, Inputs, Visitor
from protocol.executor.chains import Chains, is_few
from protocol.executor.driver import can_share, driver_text
from protocol.executor.memory import Memory, Placement
from protocol.executor.module import build_module
from protocol.executor.native import Library
from protocol.executor.order import COMPUTED, make_order, resolve
from protocol.executor.plan import make_plan
from protocol.executor.schedule import Task, make_tasks, waits, worth_sharing
from protocol.executor.segments import make_segments
from protocol.executor.target import Target, host_target, machine
from protocol.executor.team import Team, make_script
from protocol.program import Kind, Program
from protocol.reference import check_inputs
from protocol.validate import validate


@lru_cache(maxsize=8)
def _driver(target: Target) -> Library:
    return Library([driver_text(target, machine())], target)


def _compiled_chains(program: Program, number: int, target: Target) -> Chains | None:
    """Return the chains of a FOLD, None where LLVM has no code for them: Python is only slower."""
    try:
        return Chains(program, number, target)
    except NumericsError:
        return None


def _watched_nodes(program: Program, names: Sequence[str]) -> dict[str, int]:
    """Return the node that holds the value of each name."""
    for name in names:
        if name not in program.names:
            known = ", ".join(program.names) or "none"
            raise UsageError(f"the program has no node named {name!r}; its names: {known}")
    return {name: resolve(program, program.names[name]) for name in names}


class NativeExecutor(Executor):
    """Executes whole steps of a program; implements `protocol.execution.Executor`.

    Intermediates live in one arena that steps reuse, so a step allocates only the state it returns,
    and not even that where it is told where to put it (`out`). Calls from several threads are
    serialized.
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
        self._watch = _watched_nodes(program, watch)
        self._watched: dict[str, Bits] = {}
        target = target or host_target()
        self._chains = lru_cache(maxsize=4)(partial(_compiled_chains, program, target=target))
        module = build_module(program, target)
        overwritable = {n: call.overwritable for n, call in module.calls.items()}
        self.order = make_order(program, overwritable)
        self.plan = make_plan(program, self.order, overwritable, frozenset(self._watch.values()))
        sizes = {n: 4 * node.numel for n, node in enumerate(program.nodes)}
        tasks: list[Task] = []
        if threads > 1 and can_share(machine()):
            before = waits(self.order, self.plan, sizes)
            tasks = make_tasks(self.order, module.calls, before, threads)
            if not worth_sharing(tasks, sum(call.work for call in module.calls.values())):
                tasks = []
        self._segments = make_segments(
            self.order, self.plan, module.calls, sizes, threads if tasks else 1
        )
        self._kernels = Library(module.parts, target)
        names = {call.kernel for call in module.calls.values()}
        addresses = {name: self._kernels.address(name) for name in names}
        script = make_script(self.order, module, addresses, tasks, len(program.nodes))
        self.team = Team(_driver(target), script, module.scratch, threads if tasks else 1)
        self._memory = Memory(program, inputs, self.order, self.plan, script)
        self._lock = threading.Lock()

    def step(
        self, state: Sequence[Bits], step: int, out: Sequence[Bits] | None = None
    ) -> list[Bits]:
        """Return the state after step number `step`.

        Without `out` that is new arrays, but an OUTPUT that names an INPUT, CONST or DATA node is
        that very array, without a copy. With `out`, one C-contiguous array per state tensor, the
        new state is written there and nothing is allocated. `out[s]` may be `state[s]` itself, to
        step in place; otherwise it must not share memory with anything that the step reads
        or writes. After a NumericsError the contents of `out` are undefined.
        """
        with self._lock:
            memory, nodes = self._memory, self.program.nodes
            place = memory.place_step(state, step, out)
            seen = {
                name: memory.leaf(number, state).copy()
                for name, number in self._watch.items()
                if nodes[number].kind not in COMPUTED
            }
            self._run(place)
            for new, computed in place.copies:
                np.copyto(new, computed)
            for name, number in self._watch.items():
                if name not in seen:
                    seen[name] = memory.value(number, place.results).copy()
            self._watched = seen
            return place.results

    def update(self, state: list[Bits], step: int) -> None:
        """Do a step in place: nothing is allocated. See `protocol.execution.Executor.update`."""
        self.step(state, step, out=state)

    def watched(self, name: str) -> Bits:
        """Return the output that a node named in `watch` had in the last finished `step`.

        The array is the caller's own. Raises UsageError for a name that is not in `watch`, or
        before the first step.
        """
        if name not in self._watched:
            known = ", ".join(self._watch) or "nothing"
            raise UsageError(f"no step has left a value of {name!r}; this executor watches {known}")
        return self._watched[name].copy()

    def trace(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """Return the output of every node of step number `step` in program order."""
        with self._lock:
            place = self._memory.place_trace(state, step)
            self._run(place)
            return place.results

    def visit(
        self,
        state: Sequence[Bits],
        step: int,
        visitor: Visitor,
        nodes: Collection[int] | None = None,
    ) -> None:
        """Show `visitor` the outputs of a step while they are in memory, in no more than it takes.

        See `protocol.execution.Executor.visit`. The visitor must not use this executor.
        """
        with self._lock:
            memory, program = self._memory, self.program
            place = memory.place_step(state, step, None)
            numbers = range(len(program.nodes))
            wanted = set(numbers if nodes is None else nodes)
            leaves = [n for n in numbers if program.nodes[n].kind not in (*COMPUTED, Kind.OUTPUT)]
            _show(visitor, [(n, memory.leaf(n, state)) for n in leaves if n in wanted])
            # An OUTPUT shows what the node that it names has left behind.
            needed = {resolve(program, n) for n in wanted} & set(self.order.numbers)
            for segment in self._segments:
                if not needed:
                    break
                run = self.order.numbers[segment.first : segment.stop]
                self._check(
                    self.team.run_part(place.pointers, segment.first, segment.stop, segment.chunks)
                )
                _show(visitor, [(n, memory.value(n, place.results)) for n in run if n in wanted])
                needed -= set(run)
            outputs = enumerate(place.results, program.output(0))
            _show(visitor, [(n, output) for n, output in outputs if n in wanted])

    def chain_results(
        self, node: int, element: int, outputs: Callable[[int], Bits], level: int, chains: range
    ) -> Bits | None:
        """Return results of chains; see `protocol.execution.Executor.chain_results`.

        The kernels are compiled when a node is first asked for. None for what takes Python no time.
        """
        if is_few(self.program.nodes[node], level, chains):
            return None
        found = self._chains(node)
        return None if found is None else found.results(element, outputs, level, chains)

    def _run(self, place: Placement) -> None:
        self._check(self.team.run(place.pointers))

    def _check(self, bad: int) -> None:
        if bad:
            raise NumericsError(
                "a thread flushes subnormal numbers to zero or does not round to nearest "
                "(torch.set_flush_denormal, or a library built with fast-math)"
            )


def _show(visitor: Visitor, outputs: list[tuple[int, Bits]]) -> None:
    if outputs:
        visitor(outputs)
