# SPDX-License-Identifier: GPL-3.0-or-later
"""What the commands do, apart from their options."""

from __future__ import annotations

import logging
import secrets
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from bitcourt.job import load_job
from protocol import audit, tensor_file, upkeep
from protocol.agent import Agent
from protocol.bundle import state_layout
from protocol.economics.windows import doubts
from protocol.errors import ChainError, TransactionReverted, UsageError
from protocol.execution import Bits
from protocol.files import write_whole
from protocol.market import Market
from protocol.program import Program
from protocol.store import Store, typed
from protocol.task import Status

SUBMITTER_PATIENCE = 128
"""Blocks, of the 256 whose hashes the chain knows, that solver and verifiers have for the draw."""

log = logging.getLogger("bitcourt")


def submit_job(
    market: Market,
    path: Path,
    store_url: str,
    steps: int | None,
    segment_steps: int | None,
    terms: dict[str, Any],
    enter_asks: bool,
    wait: bool,
) -> dict[str, Any]:
    """Traces, publishes and posts; `terms` are fields of the task's `TaskSpec`."""
    job = load_job(path)
    bundle = job.bundle()
    spec = bundle.spec(
        submitter=market.address,
        seed=secrets.token_bytes(32),
        steps=steps or job.steps,
        segment_steps=segment_steps or min(job.segment_steps, steps or job.steps),
        **terms,
    )
    for doubt in doubts(spec, bundle.program):
        log.warning("agents may refuse these terms: %s", doubt)
    # A directory becomes absolute: solvers run elsewhere.
    url = store_url if "://" in store_url else str(Path(store_url).resolve())
    bundle.publish(Store(url))
    task = market.post(spec, url)
    result: dict[str, Any] = {
        "task": task,
        "program": spec.program_root.hex(),
        "nodes": spec.n_nodes,
        "steps": spec.steps,
        "segments": spec.segments,
        "store": url,
        "work": spec.work,
        "memory_mib": spec.memory_mib,
        "budget_wei": spec.budget,
        "escrow_wei": spec.escrow,
    }
    if enter_asks:
        result["asks"] = enter_all_asks(market, task)
    if not wait:
        return result
    while not (state := market.state(task)).status.final:
        time.sleep(1)
        try:
            # Nobody else may care: the escrow is locked until the task ends.
            upkeep.move_on(market, task, state, SUBMITTER_PATIENCE)
        except TransactionReverted as error:
            log.info("%s", error)  # somebody else was faster
    result["status"] = state.status.name.capitalize()
    if state.status == Status.SETTLED and job.metric is not None:
        _, trained = final_state(market, task)
        result["metric"] = job.metric(job.load_state(bundle.program.state_names, trained))
    return result


def enter_all_asks(market: Market, task: int) -> list[str]:
    """Enters every standing ask that fits a task; returns whose."""
    spec, entered = market.posted(task).spec, []
    for solver in {event.values["solver"]: None for event in market.events("AskSet")}:
        if not market.record(solver).asks(spec):
            continue
        try:
            market.send_for("enterAsk", task, solver)
            entered.append(str(solver))
        except TransactionReverted as error:  # it has too little for the stake, or may not bid
            log.warning("the ask of %s: %s", solver, error)
    return entered


def run_agent(agent: Agent, poll: float, until: set[int] | None, console: Console) -> None:
    """Polls until interrupted, or until all of the given tasks have ended.

    An endpoint that stops answering is tried again: the agent's stake is at risk while it is away.
    """
    seen: dict[int, Status] = {}
    while True:
        try:
            moved = agent.poll()
            for task, status in agent.statuses.items():
                if seen.get(task) != status:
                    seen[task] = status
                    console.print(f"task {task}: {status.name.capitalize()}")
        except ChainError as error:
            log.warning("%s; trying again", error)
            moved = False
        if until and all(seen.get(task, Status.NONE).final for task in until):
            return
        if not moved:
            time.sleep(poll)


def describe(market: Market, task: int) -> dict[str, Any]:
    """A task's terms and state, for people and programs."""
    posted, state = market.posted(task), market.state(task)
    spec, root = posted.spec, audit.final_root(market, task)
    return {
        "task": task,
        "status": state.status.name.capitalize(),
        "submitter": spec.submitter,
        "solver": state.solver if int(state.solver, 16) else None,
        "price_wei": state.price,
        "deadline": state.deadline,
        "seconds_left": max(0, state.deadline - market.chain.now),
        "checkpoints": f"{state.log_size} of {spec.segments + 1}",
        "segments_paid": f"{state.settled} of {spec.segments}",
        "paid_wei": state.paid,
        "program": spec.program_root.hex(),
        "latest_state": root.hex() if root else None,
        "round": state.round,
        "runs": [[run.first, run.count] for run in market.runs(task)],
        "verifiers": {s.verifier: s.state.name.lower() for s in market.seats(task)},
        "open": state.open,
        # A stranger's bytes, which could move a terminal's cursor.
        "store": posted.artifacts.encode("unicode_escape").decode("ascii"),
    }


def final_state(market: Market, task: int) -> tuple[Program, list[Bits]]:
    """Program and delivered state of a settled task, both from its store and checked by root."""
    posted, state = market.posted(task), market.state(task)
    if state.status != Status.SETTLED:
        raise UsageError(f"task {task} is {state.status.name.capitalize()}, it has no final state")
    root = audit.final_root(market, task)
    if root is None:
        raise ChainError(f"the chain does not show the final state of task {task} yet")
    store = Store(posted.artifacts)
    program = store.get_program(posted.spec.program_root)
    return program, store.get_tensors(root, state_layout(program))


def fetch_final(market: Market, task: int, out: Path) -> int:
    """Writes the final state under its PyTorch names; returns the number of tensors."""
    program, tensors = final_state(market, task)
    named = typed(program.state_names, tensors, state_layout(program))
    write_whole(out, tensor_file.parts(named))
    return len(named)
