# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays scenarios, checks what came of them, and tells their story."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bitcourt.lab.cheats import lying
from bitcourt.lab.market_agents import BribedVerifier
from bitcourt.lab.money import check_money
from bitcourt.lab.scenario import Bidding, Scenario
from bitcourt.lab.scenarios import SCENARIOS
from bitcourt.lab.stage import ETHER, Stage
from bitcourt.lab.story import find_dispute
from bitcourt.lab.stubborn import StubbornSolver
from protocol.agent import silent
from protocol.bundle import Bundle, ExecutorFactory
from protocol.chain.client import Chain
from protocol.errors import BitcourtError, UsageError
from protocol.litigation import Progress
from protocol.market import Market
from protocol.rules import MAX_COMMITTEE
from protocol.task import ASK_STAKE_UNIT, Status
from solver.agent import Settings as SolverSettings
from solver.agent import Solver
from verifier.agent import Settings as VerifierSettings
from verifier.agent import Verifier
from verifier.whistleblower import Whistleblower

_ASK_MEMORY = 1 << 20
"""MiB that a standing ask of the lab offers: more than any of its jobs needs."""


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
    own = Bidding(_standing(scenario), scenario.price)
    liar = make_executor
    if scenario.cheat is not None:
        liar = lying(make_executor, scenario.cheat(bundle.program))
    solver = _solver("solver", own, stage, liar, progress)
    rivals = [
        _solver(f"rival {number}", rival, stage, make_executor, progress)
        for number, rival in enumerate(scenario.rivals, 1)
    ]
    verifiers = _verifiers(
        scenario, stage, liar if scenario.accomplices else make_executor, progress, solver
    )
    watchers = []
    if scenario.whistleblower:
        watchers.append(Whistleblower(stage.party("whistleblower"), make_executor))
    chosen = {"solver": solver.market.address} if scenario.direct else {}
    task = stage.post(
        submitter,
        bundle,
        bundle.spec(
            **{
                "submitter": submitter.address,
                "committee": min(MAX_COMMITTEE, len(scenario.verifiers)),
                **terms,
                **scenario.terms,
                **chosen,
            }
        ),
    )
    agents = [solver, *rivals, *verifiers, *watchers]
    state = stage.play(task, submitter, agents, stage.party("keeper"))
    outcome = Outcome(task, state.status, stage, bundle, submitter, solver, verifiers)
    for dispute in submitter.disputes(task):
        challenger = next(a for a in agents if a.market.address == dispute.challenger)
        report = find_dispute(submitter, dispute, bundle.program, challenger)
        report["defendant"] = stage.ledger.role(dispute.defendant)
        outcome.disputes.append(report)
    _check(scenario, outcome)
    return outcome


def _standing(scenario: Scenario) -> type[Solver]:
    """A cheater that is to defend itself must stand by its lie."""
    cheats = scenario.cheat is not None and scenario.solver is Solver
    return StubbornSolver if cheats else scenario.solver


def _solver(
    role: str, bidding: Bidding, stage: Stage, make_executor: ExecutorFactory, progress: Progress
) -> Solver:
    market = stage.party(role)
    price = round(bidding.price * ETHER)
    settings = SolverSettings(
        stage.directory / role.replace(" ", "-"), price=lambda _: price, by_ask=bidding.ask
    )
    if bidding.ask:
        market.send("setAsk", price, 1, _ASK_MEMORY, ETHER // ASK_STAKE_UNIT)
    return bidding.kind(market, make_executor, settings, progress)


def _verifiers(
    scenario: Scenario,
    stage: Stage,
    make_executor: ExecutorFactory,
    progress: Progress,
    solver: Solver,
) -> list[Verifier]:
    verifiers = []
    for number, kind in enumerate(scenario.verifiers, 1):
        market = stage.party(f"verifier {number}")
        verifier = kind(market, make_executor, VerifierSettings(), progress)
        if isinstance(verifier, BribedVerifier):
            verifier.briber = solver
        verifier.register()
        verifiers.append(verifier)
    return verifiers


def _check(scenario: Scenario, outcome: Outcome) -> None:
    spared = _spared(scenario, outcome)
    ended, expected = outcome.status, Status.SETTLED if spared else scenario.expect
    if ended != expected:
        raise BitcourtError(
            f"the scenario ended {ended.name}, not {expected.name}: {scenario.what}"
        )
    if bool(outcome.disputes) != (scenario.dispute and not spared):
        raise BitcourtError(f"there were {len(outcome.disputes)} disputes: {scenario.what}")
    losers = scenario.losers(outcome) if scenario.losers is not None else scenario.liars
    lose = scenario.liars_lose and not spared
    check_money(outcome.stage, outcome.submitter, losers, liars_lose=lose)
    if scenario.holds is not None and not spared and not scenario.holds(outcome):
        raise BitcourtError(f"it did not come about as it should: {scenario.what}")


def _spared(scenario: Scenario, outcome: Outcome) -> bool:
    """True if the chain drew no second audit, which happens in one of 256 cases at least."""
    seats = outcome.submitter.seats(outcome.task)
    return "second_audit" in scenario.terms and len(seats) <= scenario.terms["committee"]


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
        console.print(f"       {dispute['defendant'].capitalize()} is {verdict}.")
    for role, reasons in result["paid_wei"].items():
        parts = ", ".join(f"{wei / ETHER:g} ({why})" for why, wei in reasons.items())
        console.print(f"  {role} gets {parts} ether", highlight=False)
    console.print(f"  burned: {result['burned_wei'] / ETHER:g} ether", highlight=False)
    console.print(f"  Task [bold]{result['status'].lower()}[/].")
