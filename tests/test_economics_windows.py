# SPDX-License-Identifier: GPL-3.0-or-later
"""Recommended windows are accepted by honest machines; what they would refuse is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bitcourt.job import load_job
from protocol.economics import Assumptions, Demands, recommend
from protocol.economics.windows import SPARE, doubts, speed_at
from protocol.errors import UsageError
from protocol.feasibility import DAY, Speed, check_clock, check_training
from protocol.task import TaskSpec
from protocol.work import work
from tests.staged import bundle
from tests.test_feasibility import integer_program

JOBS = Path(__file__).parent.parent / "bitcourt" / "jobs"


def a_spec(**changes: object) -> TaskSpec:
    spec = bundle().spec(seed=bytes(32), steps=20, segment_steps=5, submitter="0x" + 40 * "1")
    return replace(spec, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("window_segments", [None, 5])
def test_recommended_windows_are_accepted_by_a_machine_of_half_the_speed(
    window_segments: int | None,
) -> None:
    flops, cut = 10**11, {"steps": 5000, "segment_steps": 50}
    terms = recommend(flops, **cut, demands=Demands(window_segments=window_segments))
    spec = a_spec(
        **cut,
        samples=terms.samples,
        window_segments=terms.window_segments,
        train_window=terms.train_window,
        audit_window=terms.audit_window,
        dispute_clock=terms.dispute_clock,
    )
    usual = speed_at(flops, Assumptions().slowest_machine)
    slow = Speed(*(SPARE * seconds for seconds in (usual.step, usual.hashing, usual.trace)))
    check_training(spec, slow)
    # The moves of a dispute take no longer on a slow machine.
    check_clock(spec, slow)
    assert terms.dispute_clock > 7_200


def test_small_jobs_get_the_windows_that_submit_has_by_default() -> None:
    step, plain = work(bundle().program), a_spec()
    terms = recommend(step, 20, 5)
    assert (terms.train_window, terms.audit_window) == (plain.train_window, plain.audit_window)
    assert terms.dispute_clock == plain.dispute_clock
    slower = recommend(step, 20, 5, assumptions=Assumptions(slowest_machine=1))
    assert slower.train_window > terms.train_window
    with pytest.raises(UsageError, match="at least one FLOP"):
        recommend(step, 20, 5, assumptions=Assumptions(slowest_machine=0))


def test_the_example_of_the_readme_is_accepted_by_a_machine_a_hundred_times_slower() -> None:
    job = load_job(JOBS / "digits.py")
    found = job.bundle()
    spec = found.spec(
        seed=bytes(32), steps=job.steps, segment_steps=job.segment_steps, submitter="0x" + 40 * "1"
    )
    # As README.md posts it, and at a hundredth of the speed that recommendations count on.
    spec = replace(spec, bid_window=30, challenge_window=30)
    assert not list(doubts(spec, found.program, flops_per_second=10**8))


def test_terms_that_agents_would_refuse_are_doubted() -> None:
    program = bundle().program
    assert not list(doubts(a_spec(), program))
    said = list(doubts(a_spec(dispute_clock=60, solver_stake=10**20, memory_mib=0), program))
    assert [any(word in line for line in said) for word in ("clock", "stake", "MiB")] == [True] * 3
    assert len(said) == 3
    (weeks,) = doubts(a_spec(audit_window=28 * DAY), program)
    assert "560 days" in weeks
    integers = integer_program(1 << 14)
    assert any("out of proportion" in line for line in doubts(a_spec(), integers))
