# SPDX-License-Identifier: GPL-3.0-or-later
"""What an agent thinks of tasks before it stakes on them: `protocol.feasibility`, from the chain.

The cheap comes first: the terms, then the program without the tensors, then the fastest that any
machine could be. Only what passes is compiled, and one step of it measured.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

from protocol.bundle import Bundle
from protocol.errors import BitcourtError, InfeasibleError, ProgramError
from protocol.execution import Executor
from protocol.feasibility import (
    Limits,
    Speed,
    check_audit,
    check_clock,
    check_crowd,
    check_disk,
    check_encoding,
    check_memory,
    check_program,
    check_proportion,
    check_terms,
    check_training,
    state_bytes,
    train_seconds,
)
from protocol.market import Market
from protocol.mirror import Mirror
from protocol.program import Program
from protocol.slices import Slice
from protocol.task import WORK_UNIT, Run, TaskSpec
from protocol.transfers import Underway
from protocol.trial import measure
from protocol.work import program_flops

Measure = Callable[[Bundle, Executor], Speed]


class Assessment:
    """One agent's opinion of tasks. Each step is measured once, and no task judged twice."""

    def __init__(
        self,
        market: Market,
        limits: Limits,
        store: Callable[[int], Mirror],
        bundle: Callable[[int], Bundle],
        executor: Callable[[int], Executor],
        seconds: float,
        free: Callable[[], int],
    ) -> None:
        """`free` are the bytes that are free on disk.

        A poll judges tasks for about so many `seconds`, and one at least. For all others Underway
        is raised, and the next poll begins with them.
        """
        self.limits = limits
        self.measure: Measure = measure
        """How the speed is measured: nothing else here looks at a clock."""
        self._market = market
        self._store, self._bundle, self._executor = store, bundle, executor
        self._slice, self._free = Slice(seconds), free
        self._speeds: dict[TaskSpec, Speed] = {}
        self._sizes: dict[TaskSpec, int] = {}
        self._passed: set[Hashable] = set()
        self._refused: dict[Hashable, BitcourtError] = {}
        self._tried: set[Hashable] = set()
        self._first: set[Hashable] = set()
        """What had to wait in the last poll: it comes before what was tried already."""
        self._waiting: set[Hashable] = set()

    def begin(self) -> None:
        """A new poll begins."""
        self._slice.begin()
        self._first, self._waiting = self._waiting, set()

    def of_solver(self, task: int) -> None:
        """Raises unless this machine holds a task's bytes, and can train and defend it in time.

        ArtifactError if bytes are missing; ProgramError if it is no program, or more work than the
        terms say; InfeasibleError for all that waiting does not change; and whatever goes wrong
        when a step is compiled and run.
        """
        spec = self._market.posted(task).spec

        def check() -> None:
            check_terms(spec, self.limits, max(spec.solver_stake, spec.bond))
            program = self.program(task)
            flops = program_flops(program)
            needed = -(-flops * spec.steps // WORK_UNIT)
            if needed > spec.work:
                raise ProgramError(
                    f"the terms state {spec.work} units of work, the program takes {needed}"
                )
            check_proportion(program, flops)
            for speed in self._speeds_at(task, program):
                check_training(spec, speed)
                check_clock(spec, speed)

        self._once(("solver", spec), check)

    def of_verifier(self, task: int, runs: Sequence[Run]) -> None:
        """Raises unless this machine can replay drawn runs in time, and defend the longest.

        What is raised is as in `of_solver`.
        """
        spec, counts = self._market.posted(task).spec, [run.count for run in runs]

        def check() -> None:
            check_terms(spec, self.limits)
            program = self.program(task)
            for speed in self._speeds_at(task, program):
                check_audit(spec, speed, counts)
                check_clock(spec, speed, max(counts, default=0))

        self._once(("verifier", spec, *counts), check)

    def beside(self, task: int, others: Sequence[int]) -> None:
        """Raises InfeasibleError unless a task can be trained in time beside others, and all
        checkpoints kept.

        Of the others none is left out: whatever keeps one from being measured is raised.
        """
        loads, needed = [], 0
        for number in (task, *others):
            spec = self._market.posted(number).spec
            loads.append((train_seconds(spec, self.speed(number)), spec.train_window))
            left = spec.segments + 1 - self._market.state(number).log_size
            needed += left * self._checkpoint(number)
        check_crowd(loads)
        check_disk(needed, self._free())

    def room(self, task: int, others: Sequence[int]) -> None:
        """Raises InfeasibleError unless there is memory for a task beside others, by their terms.

        Nothing is read of them, so that this can be asked before anything is loaded.
        """
        check_memory([self._market.posted(n).spec.memory_mib for n in (task, *others)], self.limits)

    def of_challenger(self, task: int, segments: int, bond: int) -> None:
        """Raises InfeasibleError unless this machine can dispute a run in time, for this bond."""
        spec = self._market.posted(task).spec
        check_terms(spec, self.limits, bond)
        check_clock(spec, self.speed(task), segments)

    def speed(self, task: int) -> Speed:
        """How fast this machine is at a task."""
        spec = self._market.posted(task).spec
        if spec not in self._speeds:
            self._speeds[spec] = self.measure(self._bundle(task), self._executor(task))
        return self._speeds[spec]

    def _checkpoint(self, task: int) -> int:
        """Bytes of a checkpoint."""
        spec = self._market.posted(task).spec
        if spec not in self._sizes:
            self._sizes[spec] = state_bytes(self._bundle(task).program)
        return self._sizes[spec]

    def _speeds_at(self, task: int, program: Program) -> Iterator[Speed]:
        """The fastest that there may be, then the own one: the second is dear to know."""
        yield Speed.fastest(program)
        yield self.speed(task)

    def program(self, task: int) -> Program:
        """The program, before any tensor is read: that alone might take all the memory.

        Raises as in `of_solver`, but nothing is compiled.
        """
        spec = self._market.posted(task).spec
        check_encoding(self._store(task).get_encodings(spec.program_root))
        program = self._store(task).get_program(spec.program_root)
        check_program(program, spec, self.limits)
        return program

    def _once(self, key: Hashable, check: Callable[[], None]) -> None:
        """Checks, unless the answer is known and would not change."""
        if key in self._refused:
            known = self._refused[key]
            raise type(known)(str(known))
        if key in self._passed:
            return
        others_first = self._first and key in self._tried and key not in self._first
        if others_first or not self._slice.take():
            self._waiting.add(key)
            raise Underway("other tasks are judged first")
        self._tried.add(key)
        try:
            check()
        except (InfeasibleError, ProgramError) as error:
            self._refused[key] = error
            raise
        self._passed.add(key)
