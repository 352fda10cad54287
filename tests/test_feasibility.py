# SPDX-License-Identifier: GPL-3.0-or-later
"""Terms and programs are compared with what a machine can do. No test here looks at a clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import models
from bitcourt.options import limits
from protocol.bundle import Bundle
from protocol.errors import InfeasibleError
from protocol.execution import Inputs
from protocol.executor import CompiledExecutor
from protocol.feasibility import (
    CLOCK_MARGIN,
    DAY,
    FASTEST,
    MAX_CODE,
    MAX_ENCODED,
    MOVE_SECONDS,
    MOVES,
    PRIMITIVES_PER_FLOP,
    REPLAYS,
    TRACES,
    TRAIN_MARGIN,
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
    longest_lock,
    machine_memory,
    needed_mib,
)
from protocol.ops import Op
from protocol.program import DType, Expression, Flat, Fold, Instruction, Iota, Kind, Program, Term
from protocol.rules import MAX_DEMANDS, MAX_SAMPLES
from protocol.task import TaskSpec
from protocol.trial import measure
from protocol.work import done_primitives, program_flops
from tests.hand_built import Builder, along, expression
from tests.staged import bundle

LIMITS = Limits(memory_mib=1024)
SECOND = Speed(step=1.0, hashing=0.0, trace=0.0)


def a_spec(**changes: object) -> TaskSpec:
    spec = bundle().spec(seed=bytes(32), steps=100, segment_steps=5, submitter="0x" + 40 * "1")
    return replace(spec, **changes)  # type: ignore[arg-type]


def integer_program(terms: int) -> Program:
    """Sixteen sums of hashed coordinates: no FLOP, and as many primitives as one likes."""
    build = Builder()
    x = build.leaf(Kind.INPUT, (16,), DType.I32)
    mix = [(Op.IMUL if i % 2 else Op.XOR, (1 + i, 0)) for i in range(60)]
    body = expression([along(x, (16,), (0,)), Iota((Term(1, 1),), 0)], *mix)
    mixed = build.fold(Fold.ISUM, (16,), (terms,), body)
    both = expression([Flat(x), Flat(mixed)], (Op.IADD, (0, 1)))
    return build.finish([build.map((16,), both, DType.I32)])


def test_the_windows_must_hold_the_work_with_a_margin() -> None:
    need = round(TRAIN_MARGIN * 100)
    check_training(a_spec(train_window=need), SECOND)
    with pytest.raises(InfeasibleError, match=f"train window is {need - 1} s.* takes 200 s"):
        check_training(a_spec(train_window=need - 1), SECOND)
    # Each progress window has a time of its own.
    check_training(a_spec(window_segments=10, train_window=need // 2), SECOND)
    # Two drawn segments, and two more after two draws that failed, have to be audited.
    with pytest.raises(InfeasibleError, match=r"audit window is 39 s.* takes 40 s"):
        check_training(a_spec(audit_window=39), SECOND)
    check_audit(a_spec(audit_window=40), SECOND, [3, 1])


def test_the_clock_must_hold_the_longest_defence_and_its_moves() -> None:
    speed = Speed(step=1.0, hashing=0.5, trace=3.0)
    steps = 5 * MAX_SAMPLES
    need = CLOCK_MARGIN * (steps * (REPLAYS + 0.5) + TRACES * 3.0) + MOVES * MOVE_SECONDS
    assert need == int(need)
    check_clock(a_spec(dispute_clock=int(need)), speed)
    with pytest.raises(InfeasibleError, match=rf"dispute clock .* {MAX_SAMPLES} segments"):
        check_clock(a_spec(dispute_clock=int(need) - 1), speed)
    check_clock(a_spec(dispute_clock=int(need) - 1), speed, MAX_SAMPLES - 1)
    # There are no more steps in a run than in the task.
    short = a_spec(steps=5, dispute_clock=MOVES * MOVE_SECONDS + 50)
    check_clock(short, replace(speed, trace=0.0), MAX_SAMPLES)


def test_tasks_are_trained_by_turns() -> None:
    check_crowd([(100, 100)])
    check_crowd([(100, 200), (100, 200)])
    check_crowd([(10, 20), (1000, 1010)])  # the short one is done after a turn of each
    for loads in ([(101, 100)], [(100, 200), (100, 199)], [(10, 29), (1000, 2000), (20, 50)]):
        with pytest.raises(InfeasibleError, match="promised too much"):
            check_crowd(loads)


def test_an_owners_limits_bound_stake_memory_and_time() -> None:
    check_terms(a_spec(), LIMITS, LIMITS.max_stake)
    with pytest.raises(InfeasibleError, match="--max-stake"):
        check_terms(a_spec(), LIMITS, LIMITS.max_stake + 1)
    with pytest.raises(InfeasibleError, match=r"1025 MiB .* limit is 1024.* --memory-mib"):
        check_terms(a_spec(memory_mib=1025), LIMITS)
    weeks = a_spec(audit_window=28 * DAY)
    assert longest_lock(weeks) > MAX_DEMANDS * 28 * DAY
    with pytest.raises(InfeasibleError, match=r"560 days, at most 30 .* --max-lock-days"):
        check_terms(weeks, LIMITS)
    check_terms(weeks, replace(LIMITS, max_lock=longest_lock(weeks)))
    with pytest.raises(InfeasibleError, match="56 days"):
        check_terms(a_spec(bid_window=28 * DAY), LIMITS)
    assert 0 < Limits().memory_mib << 20 < machine_memory()
    # What the commands call them, and their defaults.
    assert limits(None, 30.0, 1.0) == Limits()
    assert limits(512, 0.5) == Limits(memory_mib=512, max_lock=DAY // 2)


def test_a_program_states_the_memory_that_it_takes() -> None:
    program, spec = bundle().program, a_spec()
    assert needed_mib(program) == spec.memory_mib > 0
    check_program(program, spec, LIMITS)
    with pytest.raises(InfeasibleError, match=r"takes 1 MiB of memory, the terms state 0"):
        check_program(program, replace(spec, memory_mib=0), LIMITS)
    build = Builder()
    x = build.leaf(Kind.INPUT, (1 << 20,), DType.F32)
    wide = build.map((1 << 10, 1 << 20), expression([Iota((Term(0, 1),), 0)]), DType.I32)
    assert needed_mib(build.finish([x, wide])) > 4096


def test_a_program_of_more_code_than_is_compiled_in_time_is_refused() -> None:
    code = tuple(Instruction(Op.ADD, (0, 0)) for _ in range(64))
    body = Expression((Flat(0),), (), code, (64,))
    program = bundle().program
    node = next(n for n in program.nodes if n.kind is Kind.MAP)
    many = (replace(node, expression=body),) * (MAX_CODE // 65 + 1)
    # It is not even valid: nothing has looked.
    with pytest.raises(InfeasibleError, match="nodes and instructions"):
        check_program(replace(program, nodes=(*program.nodes, *many)), a_spec(), LIMITS)


def test_a_program_that_takes_minutes_to_parse_is_not_parsed() -> None:
    check_encoding([bytes(100)] * (MAX_ENCODED // 100))
    with pytest.raises(InfeasibleError, match="bytes, at most"):
        check_encoding([bytes(1024)] * 65_536)


def test_integer_arithmetic_is_out_of_proportion_to_no_work() -> None:
    program = integer_program(1 << 14)
    assert program_flops(program) == 0
    with pytest.raises(InfeasibleError, match="out of proportion"):
        check_proportion(program, 0)
    with pytest.raises(InfeasibleError, match=r"single step may take .* smaller"):
        check_program(integer_program((1 << 31) - 1), a_spec(), LIMITS)


@pytest.mark.parametrize("name", ["mlp", "cnn-digits", "lstm", "chargpt-0.8M"])
def test_real_programs_pass_by_a_wide_margin(name: str) -> None:
    found = models.model(name).bundle()
    flops, taken = program_flops(found.program), done_primitives(found.program)
    assert 4 * taken < PRIMITIVES_PER_FLOP * flops
    check_proportion(found.program, flops)
    spec = found.spec(seed=bytes(32), steps=1000, segment_steps=10, submitter="0x" + 40 * "1")
    check_program(found.program, spec, LIMITS)
    code = sum(len(n.body.instructions) + 1 for n in found.program.nodes if n.expression)
    assert 10 * code < MAX_CODE
    check_training(spec, Speed.fastest(found.program))
    check_clock(spec, Speed.fastest(found.program))


def test_no_machine_is_faster_than_the_estimate_that_refuses_the_absurd() -> None:
    program = bundle().program
    assert Speed.fastest(program).step == done_primitives(program) / FASTEST
    slow = Speed.measured(program, 2.0, 0.5)
    assert (slow.step, slow.hashing) == (2.0, 0.5)
    assert slow.trace > slow.step


def test_measuring_changes_nothing_of_the_bundle() -> None:
    made: Bundle = bundle()
    before = [tensor.copy() for tensor in made.state]
    executor = CompiledExecutor(made.program, Inputs(made.constants, made.data, bytes(32)))
    speed = measure(made, executor)
    assert min(speed.step, speed.hashing) > 0
    assert all((a == b).all() for a, b in zip(before, made.state, strict=True))
