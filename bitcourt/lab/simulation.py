# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays scenarios, checks what came of them, and tells their story."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bitcourt.lab.cheats import lying
from bitcourt.lab.money import check_money
from bitcourt.lab.scenarios import SCENARIOS, Scenario
from bitcourt.lab.stage import ETHER, Stage
from bitcourt.lab.story import find_dispute
from bitcourt.lab.stubborn import StubbornSolver
from protocol.agent import Progress, silent
from protocol.bundle import Bundle, ExecutorFactory
from protocol.chain.client import Chain
from protocol.errors import BitcourtError, UsageError
from protocol.market import Market
from protocol.task import MAX_COMMITTEE, Status
from solver.agent import Settings as SolverSettings
from solver.agent import Solver
from verifier.agent import Settings as VerifierSettings
from verifier.agent import Verifier


@dataclass
class Outcome:
    """What a scenario ended in."""

    task: int
    status: Status
    stage: Stage
    bundle: Bundle
    submitter: Market
    solver: Solver
    verifiers: list[Verifier]
    disputes: list[dict[str, Any]] = field(default_factory=list)


def run_scenario(
    scenario: Scenario,
    stage: Stage,
    bundle: Bundle,
    make_executor: ExecutorFactory,
    terms: dict[str, Any],
    progress: Progress = silent,
) -> Outcome:
    """Plays a scenario on a stage.

    Raises BitcourtError if it does not end as it must, if a wei is missing, if an honest party lost
    money, or if a liar did not.
    """
    submitter = stage.party("submitter")
    committee = min(MAX_COMMITTEE, len(scenario.verifiers))
    spec = bundle.spec(**{"submitter": submitter.address, "committee": committee, **terms})
    solver = _solver(scenario, stage, bundle, make_executor, progress)
    verifiers = []
    for number, kind in enumerate(scenario.verifiers, 1):
        market = stage.party(f"verifier {number}")
        verifiers.append(kind(market, make_executor, VerifierSettings(), progress))
        verifiers[-1].register()
    task = stage.post(submitter, bundle, spec)
    state = stage.play(task, submitter, [solver, *verifiers], stage.party("keeper"))
    outcome = Outcome(task, state.status, stage, bundle, submitter, solver, verifiers)
    for dispute in submitter.disputes(task):
        challenger = next(v for v in verifiers if v.market.address == dispute.challenger)
        outcome.disputes.append(find_dispute(submitter, dispute, bundle.program, challenger))
    _check(scenario, outcome)
    return outcome


def _solver(
    scenario: Scenario,
    stage: Stage,
    bundle: Bundle,
    make_executor: ExecutorFactory,
    progress: Progress,
) -> Solver:
    kind = scenario.solver
    if scenario.cheat is not None:
        make_executor = lying(make_executor, scenario.cheat(bundle.program))
        # A cheater that is to defend itself must stand by its lie.
        kind = StubbornSolver if kind is Solver else kind
    settings = SolverSettings(stage.directory / "solver")
    return kind(stage.party("solver"), make_executor, settings, progress)


def _check(scenario: Scenario, outcome: Outcome) -> None:
    ended, expected = outcome.status.name, scenario.expect.name
    if ended != expected:
        raise BitcourtError(f"the scenario ended {ended}, not {expected}: {scenario.what}")
    if bool(outcome.disputes) != scenario.dispute:
        raise BitcourtError(f"there were {len(outcome.disputes)} disputes: {scenario.what}")
    lose = scenario.liars_lose
    check_money(outcome.stage, outcome.submitter, scenario.liars, liars_lose=lose)


def simulate_scenario(name: str, out: Path, rpc: str, console: Console) -> dict[str, Any]:
    """Stages one named scenario on a small model, prints its story and returns it."""
    if name not in SCENARIOS:
        raise UsageError(f"there is no scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    from bitcourt.lab.small import small_job, wide_job
    from protocol.chain.embedded import embedded_chain
    from protocol.executor import CompiledExecutor

    scenario = SCENARIOS[name]
    if rpc:
        from bitcourt.keys import development_account

        chain, faucet = Chain.connect_test(rpc), development_account(0)
    else:
        embedded = embedded_chain()
        chain, faucet = embedded.chain, embedded.faucet
    console.print(f"[bold]{name}[/]: {scenario.what}")
    job = wide_job() if scenario.wide else small_job()
    stage = Stage.build(chain, faucet, fresh(out / name))
    terms = {
        "seed": bytes(range(32)),
        "steps": job.steps,
        "segment_steps": job.segment_steps,
        "samples": 2,
    }
    outcome = run_scenario(scenario, stage, job.bundle(), CompiledExecutor, terms)
    ledger = stage.ledger
    result = {
        "scenario": name,
        "status": outcome.status.name.capitalize(),
        "disputes": outcome.disputes,
        "paid_wei": ledger.credits(),
        "burned_wei": ledger.burned(),
        "gas": ledger.gas(),
    }
    tell(result, console)
    return result


def fresh(directory: Path) -> Path:
    """An empty directory: what an earlier run left there is removed."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def tell(result: dict[str, Any], console: Console) -> None:
    """Prints a result for people: each dispute move by move, then the money."""
    for dispute in result["disputes"]:
        console.print(f"  Dispute {dispute['id']}, {dispute['moves']} moves:")
        for number, line in enumerate(dispute["path"], 1):
            console.print(f"  {number:3}. {line}", highlight=False, soft_wrap=True)
        verdict = "convicted" if dispute["convicted"] else "acquitted"
        console.print(f"       The solver is {verdict}.")
    for role, reasons in result["paid_wei"].items():
        parts = ", ".join(f"{wei / ETHER:g} ({why})" for why, wei in reasons.items())
        console.print(f"  {role} gets {parts} ether", highlight=False)
    console.print(f"  burned: {result['burned_wei'] / ETHER:g} ether", highlight=False)
    console.print(f"  Task [bold]{result['status'].lower()}[/].")
