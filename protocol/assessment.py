# SPDX-License-Identifier: GPL-3.0-or-later
"""What an agent thinks of tasks before it stakes on them: `protocol.feasibility`, from the chain.

The cheap comes first: the terms, then the program without the tensors, then the fastest that any
machine could be. Only what passes is compiled, and one step of it measured.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

from protocol.bundle import Bundle
from protocol.errors import InfeasibleError, ProgramError
from protocol.execution import Executor
from protocol.feasibility import (
    Limits,
    Speed,
    check_audit,
    check_clock,
    check_crowd,
    check_encoding,
    check_program,
    check_proportion,
    check_terms,
    check_training,
    train_seconds,
)
from protocol.market import Market
from protocol.mirror import Mirror
from protocol.program import Program
from protocol.task import WORK_UNIT, Run, TaskSpec
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
    ) -> None:
        self.limits = limits
        self.measure: Measure = measure
        """How the speed is measured: nothing else here looks at a clock."""
        self._market = market
        self._store, self._bundle, self._executor = store, bundle, executor
        self._speeds: dict[TaskSpec, Speed] = {}
        self._passed: set[Hashable] = set()
        self._refused: dict[Hashable, str] = {}

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
        """Raises InfeasibleError unless a task can be trained in time beside others.

        Of the others none is left out: whatever keeps one from being measured is raised.
        """
        loads = []
        for number in (task, *others):
            spec = self._market.posted(number).spec
            loads.append((train_seconds(spec, self.speed(number)), spec.train_window))
        check_crowd(loads)

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
            raise InfeasibleError(self._refused[key])
        if key in self._passed:
            return
        try:
            check()
        except InfeasibleError as error:
            self._refused[key] = str(error)
            raise
        self._passed.add(key)
