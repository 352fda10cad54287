# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo: real training on real data through the whole protocol, honestly and with a cheater."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bitcourt.job import Job, load_job
from bitcourt.lab.cheats import Flip, find_nodes, is_dot
from bitcourt.lab.origin import source_of
from bitcourt.lab.scenario import Scenario
from bitcourt.lab.simulation import Outcome, fresh, run_scenario, tell
from bitcourt.lab.stage import Stage
from protocol.bundle import Bundle
from protocol.chain.embedded import embedded_chain
from protocol.errors import UsageError
from protocol.executor import CompiledExecutor
from protocol.task import Status

EXAMPLE = Path(__file__).parent / "jobs" / "digits.py"
SEED = bytes.fromhex("b17c0c27") * 8
LIE_ELEMENT = 525
OPENS = ("commitSteps", "commitTrace", "open", "reveal", "openLanes", "openFold", "show")
POINTS = (
    "point", "pointNode", "pointElement", "pointLane", "pointFold", "doubtEnd", "doubtState",
)  # fmt: skip
_LABELS = {"train": "training", "replay": "replaying the drawn segments"}
CHUNKS = ("revealChunk",)
PROOFS = ("prove", "proveLeaf")


def run_demo(out: Path, console: Console) -> dict[str, Any]:
    """Runs both stories, writes `out/report.json` and returns the report."""
    began = time.monotonic()
    fresh(out)
    job = load_job(EXAMPLE)
    console.print("Tracing one training step of a digits classifier (forward, backward, SGD) ...")
    bundle = job.bundle()
    program = bundle.program
    console.print(
        f"  {len(program.nodes)} nodes, {program.n_state} state tensors, "
        f"{job.steps} steps of {job.batch_size} images, a checkpoint every {job.segment_steps}"
    )
    # The last matrix product of the step: a weight's gradient in the backward pass.
    node = find_nodes(program, "matrix product", is_dot)[-1]
    lie = Flip(node, LIE_ELEMENT)
    scenarios = {
        "honest": Scenario(
            "a solver trains, two drawn verifiers replay what the chain picks",
            Status.SETTLED,
            dispute=False,
        ),
        "cheater": Scenario(
            "the solver flips the last bit of one element of one node in every step: "
            + source_of(program, node),
            Status.SLASHED,
            lambda _: lie,
        ),
    }
    runs = []
    for name, scenario in scenarios.items():
        console.print(f"\n[bold]{name}[/]: {scenario.what}")
        runs.append(_run(name, scenario, job, bundle, out, console))
    report = {"runs": runs, "seconds": round(time.monotonic() - began, 1)}
    path = out / "report.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"\nReport: {path} ({report['seconds']} s)")
    return report


def _run(
    name: str, scenario: Scenario, job: Job, bundle: Bundle, out: Path, console: Console
) -> dict[str, Any]:
    embedded = embedded_chain()
    stage = Stage.build(embedded.chain, embedded.faucet, fresh(out / name))
    terms = {
        "seed": SEED,
        "steps": job.steps,
        "segment_steps": job.segment_steps,
        "samples": 3,
    }
    columns = (TextColumn("  {task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        lines: dict[str, Any] = {}

        def progress(phase: str, done: int, total: int) -> None:
            label = _LABELS.get(phase, "dispute")
            if label not in lines:
                lines[label] = bar.add_task(label, total=total or None)
            bar.update(lines[label], completed=done, total=total or None)

        outcome = run_scenario(scenario, stage, bundle, CompiledExecutor, terms, progress)
    result = _report(name, outcome)
    if outcome.status == Status.SETTLED:
        result["test_accuracy"] = _accuracy(job, outcome)
        console.print(f"  test accuracy of the delivered model: {result['test_accuracy']:.1%}")
    # The second verifier's dispute goes the same way: one story is enough.
    tell({**result, "disputes": outcome.disputes[:1]}, console)
    console.print(f"  {result['gas']['total']:,} gas in {result['transactions']} transactions")
    return result


def _accuracy(job: Job, outcome: Outcome) -> float:
    """Test accuracy of the final state as a stranger gets it: from the store, by its root."""
    from bitcourt.commands import final_state

    if job.metric is None:
        raise UsageError("the job has no metric")
    _, state = final_state(outcome.submitter, outcome.task)
    return job.metric(job.load_state(outcome.bundle.program.state_names, state))


def _report(name: str, outcome: Outcome) -> dict[str, Any]:
    ledger = outcome.stage.ledger
    paid = ledger.credits()
    gas = ledger.gas()
    deployed = outcome.stage.deployment.gas
    result: dict[str, Any] = {
        "name": name,
        "status": outcome.status.name.capitalize(),
        "paid": {role: sum(reasons.values()) for role, reasons in paid.items()},
        "paid_wei": paid,
        "burned_wei": ledger.burned(),
        "transactions": len(ledger.receipts),
        "gas": {"total": ledger.total_gas(), "deploy": deployed, "by_kind": gas},
    }
    slashed = ledger.events("SolverSlashed")
    if slashed:
        result["slashed_wei"] = slashed[0]["amount"]
    convicted = [d for d in outcome.disputes if d["convicted"]]
    if convicted:
        result["dispute"] = {**convicted[0], "gas": _dispute_gas(outcome)}
    return result


def _dispute_gas(outcome: Outcome) -> dict[str, int]:
    """The dearest move of each kind, and all moves together."""
    kinds = outcome.stage.ledger.gas()

    def dearest(names: tuple[str, ...]) -> int:
        return max((kinds[n]["max"] for n in names if n in kinds), default=0)

    moves = (*OPENS, *POINTS, *CHUNKS, *PROOFS, "postValues", "timeout")
    return {
        "open_max": dearest((*OPENS, "postValues")),
        "point_max": dearest(POINTS),
        "chunk_max": dearest(CHUNKS),
        "one_step_proof": dearest(PROOFS),
        "total": sum(kinds[n]["total"] for n in moves if n in kinds),
    }
