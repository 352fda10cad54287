# SPDX-License-Identifier: GPL-3.0-or-later
"""Named scenarios: who cheats how, and what must come of it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bitcourt.job import Job
from bitcourt.lab.agents import ForgetfulSolver, LazyVerifier, StallingSolver
from bitcourt.lab.cheats import (
    Cheat,
    Flip,
    Lazy,
    LowPrecision,
    WrongData,
    WrongRate,
    find_node,
    lying,
)
from bitcourt.lab.stage import ETHER, Stage
from bitcourt.lab.story import find_dispute
from bitcourt.lab.stubborn import StubbornSolver
from protocol.agent import Agent, Progress, silent
from protocol.bundle import Bundle, ExecutorFactory
from protocol.chain.client import Chain
from protocol.errors import BitcourtError, UsageError
from protocol.market import Market
from protocol.ops import Op
from protocol.program import Fold, Kind, Program
from protocol.task import Status
from solver.agent import Settings as SolverSettings
from solver.agent import Solver
from verifier.agent import Settings as VerifierSettings
from verifier.agent import Verifier

MakeCheat = Callable[[Program], Cheat]


@dataclass(frozen=True)
class Scenario:
    """One staged task: what happens, who takes part, and the status it must end in."""

    what: str
    expect: Status
    cheat: MakeCheat | None = None
    solver: type[Solver] = Solver
    verifiers: tuple[type[Verifier], ...] = (Verifier, Verifier)
    dispute: bool = True


def _once_a_segment(program: Program, node: int, element: int = 0) -> Cheat:
    return Flip(node, element, when=lambda step: step % 5 == 3)


def _bits(value: float) -> int:
    return int.from_bytes(struct.pack(">f", value))


SCENARIOS: dict[str, Scenario] = {
    "honest": Scenario("everybody does what they should", Status.SETTLED, dispute=False),
    "forward": Scenario(
        "one ulp in one element of the first matrix product of the forward pass",
        Status.SLASHED,
        lambda p: _once_a_segment(p, find_node(p, Kind.FOLD, fold=Fold.DOT), 17),
    ),
    "expression": Scenario(
        "one ulp in the first elementwise node",
        Status.SLASHED,
        lambda p: _once_a_segment(p, find_node(p, Kind.MAP, op=Op.ADD), 5),
    ),
    "backward": Scenario(
        "one ulp in one element of the last matrix product of the backward pass",
        Status.SLASHED,
        lambda p: _once_a_segment(p, _last(p, Kind.FOLD), 3),
    ),
    "optimizer": Scenario(
        "one ulp in one element of the last optimizer update",
        Status.SLASHED,
        lambda p: _once_a_segment(p, _last(p, Kind.MAP), 0),
    ),
    "lazy": Scenario("the solver skips every step", Status.SLASHED, lambda _: Lazy()),
    "low-precision": Scenario(
        "the solver trains in bfloat16", Status.SLASHED, lambda _: LowPrecision()
    ),
    "wrong-rate": Scenario(
        "the solver trains with twice the learning rate",
        Status.SLASHED,
        lambda _: WrongRate(_bits(0.1), _bits(0.2)),
    ),
    "wrong-data": Scenario(
        "the solver trains on other data", Status.SLASHED, lambda _: WrongData()
    ),
    "staller": Scenario(
        "the solver cheats and stops answering in the dispute",
        Status.SLASHED,
        lambda p: _once_a_segment(p, find_node(p, Kind.FOLD, fold=Fold.DOT)),
        solver=StallingSolver,
    ),
    "withholder": Scenario(
        "the solver commits and never opens its checkpoints",
        Status.SLASHED,
        solver=ForgetfulSolver,
        dispute=False,
    ),
    "false-challenger": Scenario(
        "a verifier that did not replay seals noise, and disputes the honest solver",
        Status.SETTLED,
        verifiers=(Verifier, LazyVerifier),
    ),
}


def _last(program: Program, kind: Kind) -> int:
    return max(i for i, node in enumerate(program.nodes) if node.kind == kind)


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
    budget: int = ETHER,
    progress: Progress = silent,
) -> Outcome:
    """Plays a scenario on a stage. Raises BitcourtError if it does not end as it must."""
    submitter = stage.party("submitter")
    spec = bundle.spec(committee=len(scenario.verifiers), **terms)
    cheat = scenario.cheat(bundle.program) if scenario.cheat is not None else None
    solver_executor = make_executor if cheat is None else lying(make_executor, cheat)
    solver_type = scenario.solver
    if cheat is not None and solver_type is Solver:
        solver_type = StubbornSolver
    settings = SolverSettings(stage.directory / "solver")
    solver = solver_type(stage.party("solver"), solver_executor, settings, progress)
    verifiers = []
    for number, kind in enumerate(scenario.verifiers, 1):
        market = stage.party(f"verifier {number}")
        verifiers.append(kind(market, make_executor, VerifierSettings(), progress))
        verifiers[-1].register()
    task = stage.post(submitter, bundle, spec, budget)
    keeper = stage.party("keeper")
    agents: list[Agent] = [solver, *verifiers]
    state = stage.play(task, submitter, agents, keeper)
    if state.status != scenario.expect:
        raise BitcourtError(
            f"the scenario ended {state.status.name}, not {scenario.expect.name}: {scenario.what}"
        )
    outcome = Outcome(task, state.status, stage, bundle, submitter, solver, verifiers)
    for dispute in submitter.disputes(task):
        challenger = next(v for v in verifiers if v.market.address == dispute.challenger)
        outcome.disputes.append(find_dispute(submitter, dispute, bundle.program, challenger))
    return outcome


def simulate_scenario(name: str, out: Path, rpc: str, console: Console) -> dict[str, Any]:
    """Stages one named scenario on a small model and prints its story."""
    from bitcourt.lab.small import small_job
    from protocol.chain.embedded import embedded_chain
    from protocol.executor import CompiledExecutor

    if name not in SCENARIOS:
        raise UsageError(f"there is no scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    scenario = SCENARIOS[name]
    if rpc:
        from bitcourt.keys import development_account

        chain, faucet = Chain.connect_test(rpc), development_account(0)
    else:
        embedded = embedded_chain()
        chain, faucet = embedded.chain, embedded.faucet
    job: Job = small_job()
    console.print(f"[bold]{name}[/]: {scenario.what}")
    stage = Stage.build(chain, faucet, fresh(out / name))
    bundle = job.bundle()
    terms = {"seed": bytes(range(32)), "steps": job.steps, "segment_steps": job.segment_steps}
    outcome = run_scenario(scenario, stage, bundle, CompiledExecutor, {**terms, "samples": 2})
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
    import shutil

    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def tell(result: dict[str, Any], console: Console) -> None:
    """Prints a result for people."""
    for dispute in result["disputes"]:
        console.print(f"  dispute {dispute['id']}: {dispute['moves']} moves", end="")
        if "op" in dispute:
            console.print(
                f", down to step {dispute['step']}, node {dispute['node']} ({dispute['source']}), "
                f"element {dispute['element']}, {dispute['op']}: claimed {dispute['claimed_bits']},"
                f" is {dispute['recomputed_bits']}",
                end="",
            )
        verdict = "convicted" if dispute["convicted"] else "acquitted"
        console.print(f": solver {verdict}{' by time' if dispute['timed_out'] else ''}")
    for role, reasons in result["paid_wei"].items():
        parts = ", ".join(f"{why} {wei / ETHER:g}" for why, wei in reasons.items())
        console.print(f"  {role} is credited (ether): {parts}")
    console.print(f"  burned: {result['burned_wei'] / ETHER:g} ether")
    console.print(f"  [bold]{result['status']}[/]")
