# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a machine can do its part of a task in time, and whether its owner wants to.

Whoever stakes on a task promises to be done when its windows and clocks say so; the contract knows
nothing of how long a step takes. `Limits` are the owner's; the other bounds compare the terms with
a `Speed`: first with the fastest that any machine could have, which costs nothing to know and
refuses the absurd, then with the measured one. Each check raises InfeasibleError with the figure,
the bound, and what could be done.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from protocol.errors import InfeasibleError
from protocol.program import Kind, Program
from protocol.resources import resources
from protocol.rules import MAX_DEMANDS, MAX_ROUNDS, MAX_SAMPLES
from protocol.task import TaskSpec
from protocol.validate import validate
from protocol.work import done_primitives, work

MIB: Final = 1 << 20
DAY: Final = 86_400

TRAIN_MARGIN: Final = 2.0
"""A machine may have to do two things at a time, or be half as fast as when it was measured."""
AUDIT_MARGIN: Final = 2.0
"""The same for a replay; and the bytes of the starts have to be fetched."""
CLOCK_MARGIN: Final = 2.0
"""The same for a dispute, which may come while a step of another task is computed."""
REPLAYS: Final = 2
"""How often a defence computes the steps of a run: for their roots, and up to the disputed one."""
TRACES: Final = 4
"""How often it computes and hashes all outputs of that step, or of parts of it."""
MOVES: Final = 16
"""Moves of one party in the longest dispute, rounded up (28 of both, docs/performance.md)."""
MOVE_SECONDS: Final = 24
"""Until a move is noticed, sent and mined: two blocks of Ethereum's main chain."""

FASTEST: Final = 4e11
"""Primitives a second that no core exceeds: 16 lanes, two operations in a cycle, twice 6 GHz."""
SLOWEST: Final = 1e9
"""Primitives a second that compiled code is expected to reach: a tenth of a real program's."""
TRIAL_SECONDS: Final = 600
"""Longest that one step may take at the slowest rate: nothing else is done meanwhile."""
HASH_RATE: Final = 1e8
"""Bytes of a trace hashed in a second: a tenth of what one core does."""
MAX_CODE: Final = 100_000
"""Nodes and instructions of a program that are compiled: a minute of an idle core. A GPT of four
layers has 2,560.
"""
MAX_ENCODED: Final = 32 * MAX_CODE
"""Bytes of a program that are parsed: real ones take 23 for each node and instruction."""
PRIMITIVES_PER_FLOP: Final = 4
"""Primitives that a FLOP of the stated work may bring along. Real programs (MLP, CNN, LSTM, GPT,
Llama) take 0.5 to 0.7, because a step of a matrix product is one primitive and two FLOPs.
"""
MEMORY_SHARE: Final = 0.75
"""Of the machine's memory that a task may take by default."""


def machine_memory() -> int:
    """Return the bytes of memory of this machine, or of the container that this process is in."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(found, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such bound
        return found


@dataclass(frozen=True)
class Limits:
    """What an agent's owner is ready to give and to risk for one task."""

    max_stake: int = 10**18
    """Stake or bond, in the smallest unit of the market's currency."""
    memory_mib: int = field(default_factory=lambda: int(MEMORY_SHARE * machine_memory() / MIB))
    """Memory that a task, or all together, may take, in MiB."""
    max_lock: int = 30 * DAY
    """Seconds for which an audit, with all demands and a dispute, or the bidding may lock money."""


class Cut(NamedTuple):
    """How a training is cut and audited: the part of a `TaskSpec` that all times depend on."""

    steps: int
    segment_steps: int
    segments: int
    window_segments: int
    samples: int


Schedule = TaskSpec | Cut


@dataclass(frozen=True)
class Speed:
    """How long a program takes on a machine, in seconds."""

    step: float
    """One step."""
    hashing: float
    """The root of one state."""
    trace: float
    """All outputs of a step: computed and hashed."""

    @classmethod
    def fastest(cls, program: Program) -> Speed:
        """What no machine can beat."""
        return cls(done_primitives(program) / FASTEST, 0.0, 0.0)

    @classmethod
    def measured(cls, program: Program, step: float, hashing: float) -> Speed:
        """From the seconds of a step and of a state's root."""
        return cls(step, hashing, step + resources(program).trace_bytes / HASH_RATE)

    def training(self, spec: Schedule, segments: int) -> float:
        """Training some segments, with a checkpoint after each."""
        return self._steps(spec, segments) * self.step + segments * self.hashing

    def replay(self, spec: Schedule, runs: Iterable[int]) -> float:
        """Replaying runs of so many segments, each of whose states is kept or hashed."""
        return sum(self.training(spec, count) for count in runs)

    def defence(self, spec: Schedule, segments: int) -> float:
        """Defending a run in a dispute: its steps, the root after each, and traces of one."""
        steps = self._steps(spec, segments)
        return steps * (REPLAYS * self.step + self.hashing) + TRACES * self.trace

    @staticmethod
    def _steps(spec: Schedule, segments: int) -> int:
        return min(spec.steps, segments * spec.segment_steps)


def check_terms(spec: TaskSpec, limits: Limits, stake: int = 0) -> None:
    """Check what the terms alone say; `stake` is what they would lock of this account."""
    if stake > limits.max_stake:
        raise InfeasibleError(
            f"the terms lock {stake} of the currency's smallest unit, at most {limits.max_stake} "
            "may be risked: raise --max-stake to take such tasks"
        )
    if spec.memory_mib > limits.memory_mib:
        raise InfeasibleError(
            f"the terms state {spec.memory_mib} MiB of memory, the limit is {limits.memory_mib}: "
            "raise --memory-mib if this machine has more"
        )
    locked = longest_lock(spec)
    if locked > limits.max_lock:
        raise InfeasibleError(
            f"the terms may lock money for {locked / DAY:.3g} days, at most "
            f"{limits.max_lock / DAY:.3g} are admitted: raise --max-lock-days to take such tasks"
        )


def longest_lock(spec: TaskSpec) -> int:
    """Return for how many seconds the bidding, or one audit, may lock money at the most.

    An audit has a draw and three phases, is prolonged by a window for each demand, and ends with
    the challenge window and a dispute in which both use up their clocks. What has to be drawn again
    takes as long again. Training is not counted: how long it takes is in the solver's hand.
    """
    audit = (4 + MAX_DEMANDS) * spec.audit_window + spec.challenge_window + 2 * spec.dispute_clock
    return max(audit, 2 * spec.bid_window)


def check_encoding(nodes: Sequence[bytes]) -> None:
    """Check the size of a program before it is parsed."""
    size = sum(map(len, nodes))
    if size > MAX_ENCODED:
        raise InfeasibleError(f"the program has {size:,} bytes, at most {MAX_ENCODED:,} are parsed")


def check_program(program: Program, spec: TaskSpec, limits: Limits) -> None:
    """Check what the program alone says, before anything is compiled or allocated for it.

    Raises ProgramError if it is not valid.
    """
    code = len(program.nodes) + sum(
        len(node.expression.instructions) for node in program.nodes if node.expression is not None
    )
    if code > MAX_CODE:
        raise InfeasibleError(
            f"the program has {code:,} nodes and instructions, at most {MAX_CODE:,} are compiled"
        )
    validate(program)
    needed = needed_mib(program)
    if needed > min(limits.memory_mib, spec.memory_mib):
        raise InfeasibleError(
            f"the program takes {needed} MiB of memory, the terms state {spec.memory_mib}, the "
            f"limit (--memory-mib) is {limits.memory_mib}"
        )
    seconds = done_primitives(program) / SLOWEST
    if seconds > TRIAL_SECONDS:
        raise InfeasibleError(
            f"a single step may take {seconds:,.0f} s, in which this machine would answer nothing "
            f"else; at most {TRIAL_SECONDS} s are admitted: the submitter should make batches "
            "smaller"
        )


def check_proportion(program: Program, flops: int) -> None:
    """Check that the work that is paid for is most of what a step takes."""
    taken = done_primitives(program)
    if taken > PRIMITIVES_PER_FLOP * flops:
        raise InfeasibleError(
            f"a step takes {taken:,} primitives for {flops:,} FLOPs of work; more than "
            f"{PRIMITIVES_PER_FLOP} for each are out of proportion, and a price per unit of work "
            "does not pay for them"
        )


def needed_mib(program: Program) -> int:
    """Return the MiB that steps take: as much as `Bundle.spec` states for the same program."""
    cost, leaves = work(program), {}
    for node in program.nodes:
        if node.kind in (Kind.CONST, Kind.DATA):
            leaves[node.kind, node.index] = 4 * node.numel
    return -(-(2 * cost.state_bytes + cost.live_bytes + sum(leaves.values())) // MIB)


def train_seconds(spec: Schedule, speed: Speed) -> float:
    """Return how long the train window of the longest progress window must be."""
    return TRAIN_MARGIN * speed.training(spec, min(spec.window_segments, spec.segments))


def audit_seconds(spec: Schedule, speed: Speed, runs: Sequence[int] | None = None) -> float:
    """Return how long the audit window must be to replay runs of so many segments.

    By default as many segments as a draw may have: each that had to be made again adds one.
    """
    if runs is None:
        most = min(spec.window_segments, spec.segments, MAX_SAMPLES)
        runs = [1] * min(most, spec.samples + MAX_ROUNDS - 1)
    return AUDIT_MARGIN * speed.replay(spec, runs)


def clock_seconds(spec: Schedule, speed: Speed, segments: int | None = None) -> float:
    """Return how long the dispute clock must be to defend a run of so many segments.

    By default the longest: anybody may challenge MAX_SAMPLES adjacent segments of a solver at once.
    """
    if segments is None:
        segments = min(MAX_SAMPLES, spec.segments)
    return CLOCK_MARGIN * speed.defence(spec, segments) + MOVES * MOVE_SECONDS


def check_training(spec: TaskSpec, speed: Speed) -> None:
    """Check the time to train each progress window, and that others can audit the result."""
    needed = train_seconds(spec, speed)
    _fits("train window", spec.train_window, needed, "training a progress window")
    check_audit(spec, speed)


def check_crowd(loads: Sequence[tuple[float, int]]) -> None:
    """Check that one machine can train all tasks of these needed and given seconds by turns.

    While one task is trained, each other takes as much time as it, or all that it needs if that is
    less.
    """
    for needed, given in loads:
        total = sum(min(needed, other) for other, _ in loads)
        if total > given:
            raise InfeasibleError(
                f"training {len(loads)} tasks by turns takes {total:,.0f} s until one of them is "
                f"done, margin included, and its train window is {given:,} s: this machine has "
                "promised too much already"
            )


def check_memory(stated: Sequence[int], limits: Limits) -> None:
    """Check that there is memory for all tasks whose terms state these MiB."""
    if len(stated) > 1 and sum(stated) > limits.memory_mib:
        raise InfeasibleError(
            f"{len(stated)} tasks state {sum(stated)} MiB of memory together, the limit "
            f"(--memory-mib) is {limits.memory_mib}: this machine has promised too much already"
        )


def state_bytes(program: Program) -> int:
    """Return the bytes of one checkpoint."""
    return work(program).state_bytes


def check_disk(needed: int, free: int) -> None:
    """Check that there is room for checkpoints of so many bytes."""
    if needed > free:
        raise InfeasibleError(
            f"the checkpoints of all that is promised take {needed:,} bytes more, and {free:,} are "
            "free: make room on the disk, or choose another --directory"
        )


def check_audit(spec: TaskSpec, speed: Speed, runs: Sequence[int] | None = None) -> None:
    """Check the time to replay drawn runs; see `audit_seconds`."""
    needed = audit_seconds(spec, speed, runs)
    _fits("audit window", spec.audit_window, needed, "replaying the drawn segments")


def check_clock(spec: TaskSpec, speed: Speed, segments: int | None = None) -> None:
    """Check the time to defend a run of so many segments; see `clock_seconds`."""
    needed = clock_seconds(spec, speed, segments)
    count = min(MAX_SAMPLES, spec.segments) if segments is None else segments
    _fits("dispute clock", spec.dispute_clock, needed, f"defending {count} segments")


def _fits(what: str, given: int, needed: float, why: str) -> None:
    if needed > given:
        raise InfeasibleError(
            f"the {what} is {given:,} s, and {why} takes {needed:,.0f} s here, margin included: "
            "use a faster machine; the submitter should make segments shorter or allow more time"
        )
