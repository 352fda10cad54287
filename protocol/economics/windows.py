# SPDX-License-Identifier: GPL-3.0-or-later
"""How long windows and clocks must be, so that honest machines take part (protocol.feasibility)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import ceil
from typing import Final, NamedTuple

from protocol.errors import InfeasibleError
from protocol.feasibility import (
    DAY,
    HASH_RATE,
    Cut,
    Limits,
    Speed,
    audit_seconds,
    check_clock,
    check_program,
    check_proportion,
    check_terms,
    check_training,
    clock_seconds,
    train_seconds,
)
from protocol.program import Program
from protocol.resources import resources
from protocol.task import TaskSpec
from protocol.work import Work, program_flops

SLOWEST_MACHINE: Final = 10**10
"""FLOPs a second of a machine that should still take part: a fifth of one core on a GPT's step."""
OVERHEAD: Final = 1e-3
"""Seconds of a step that does nothing, several times what is measured."""
SPARE: Final = 2
"""How many times as long as such a machine asks for, margins included, windows are made."""
HOUR: Final = 3_600
LEAST_TRAIN: Final = DAY
LEAST_AUDIT: Final = HOUR
LEAST_CLOCK: Final = 2 * HOUR


class Windows(NamedTuple):
    """Seconds, in whole hours and at least the defaults of `bitcourt submit`."""

    train: int
    audit: int
    clock: int


def speed_at(step: Program | Work | int, flops_per_second: int) -> Speed:
    """Return the speed of a machine at a program, its work, or just so many FLOPs a step."""
    if isinstance(step, int):
        # Nothing is known of its state: as if reading it took as long as a step.
        seconds = step / flops_per_second + OVERHEAD
        return Speed(seconds, seconds, 2 * seconds)
    if isinstance(step, Work):
        flops, state, trace = step.flops, step.state_bytes, step.trace_bytes
    else:
        cost = resources(step)
        flops, state, trace = program_flops(step), cost.state_bytes, cost.trace_bytes
    seconds = flops / flops_per_second + OVERHEAD
    return Speed(seconds, state / HASH_RATE, seconds + trace / HASH_RATE)


def windows_for(cut: Cut, speed: Speed) -> Windows:
    """Return windows that a machine of this speed accepts with time to spare."""
    return Windows(
        max(LEAST_TRAIN, _hours(train_seconds(cut, speed))),
        max(LEAST_AUDIT, _hours(audit_seconds(cut, speed))),
        max(LEAST_CLOCK, _hours(clock_seconds(cut, speed))),
    )


def doubts(
    spec: TaskSpec, program: Program, flops_per_second: int = SLOWEST_MACHINE
) -> Iterator[str]:
    """Yield why agents with default limits, on such a machine, would refuse a task."""
    speed = speed_at(program, flops_per_second)
    # What others' machines have is not known here.
    limits = Limits(memory_mib=max(spec.memory_mib, 1))
    checks: tuple[Callable[[], None], ...] = (
        partial(check_terms, spec, limits, max(spec.solver_stake, spec.bond)),
        partial(check_program, program, spec, limits),
        partial(check_proportion, program, program_flops(program)),
        partial(check_training, spec, speed),
        partial(check_clock, spec, speed),
    )
    for check in checks:
        try:
            check()
        except InfeasibleError as error:
            yield str(error)


def _hours(seconds: float) -> int:
    return HOUR * ceil(SPARE * seconds / HOUR)
