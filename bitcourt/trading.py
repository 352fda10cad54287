# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of the market's two sides: `submit` and `cancel`, `ask`; and `whistleblow`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitcourt.options import (
    DEFAULT_DEPLOYMENT,
    DEFAULT_RPC,
    Confirmations,
    DeploymentFile,
    Dev,
    Json,
    Keystore,
    MaxLockDays,
    MaxStake,
    Rpc,
    connect,
    console,
    limits,
    show,
    wei,
)


def submit(
    job: Annotated[Path, typer.Argument(help="Python file that defines job() -> bitcourt.Job.")],
    store: Annotated[str, typer.Option(help="Store that all can reach (directory or URL).")],
    rpc: Rpc = DEFAULT_RPC,
    deployment: DeploymentFile = DEFAULT_DEPLOYMENT,
    keystore: Keystore = None,
    dev: Dev = None,
    budget: Annotated[float, typer.Option(help="Ether for the solver at most.")] = 1.0,
    solver: Annotated[str, typer.Option(help="Who trains, for the whole budget; no auction.")] = "",
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    segment_steps: Annotated[int | None, typer.Option(min=1, help="Steps per checkpoint.")] = None,
    window_segments: Annotated[
        int | None, typer.Option(min=1, help="Segments audited and paid at a time; else all.")
    ] = None,
    committee: Annotated[int, typer.Option(min=2, max=4, help="Verifiers drawn.")] = 2,
    samples: Annotated[int, typer.Option(min=1, max=16, help="Segments drawn.")] = 2,
    second_audit: Annotated[
        int, typer.Option(min=0, max=255, help="Chance of a second audit, in 256ths.")
    ] = 0,
    solver_stake: Annotated[float, typer.Option(help="Ether that the solver locks.")] = 0.5,
    verifier_fee: Annotated[float, typer.Option(help="Ether for each who attests.")] = 0.01,
    bond: Annotated[float, typer.Option(help="Ether locked by bids and disputes.")] = 0.1,
    late_cost: Annotated[
        float, typer.Option(help="Ether that a default costs you: weighs risk against price.")
    ] = 0.0,
    bid_window: Annotated[int, typer.Option(min=1, help="Seconds for bids, twice.")] = 600,
    train_window: Annotated[int, typer.Option(min=1, help="Seconds for training.")] = 86_400,
    audit_window: Annotated[int, typer.Option(min=1, help="Seconds for each audit phase.")] = 3_600,
    challenge_window: Annotated[int, typer.Option(min=1, help="Seconds for disputes.")] = 3_600,
    dispute_clock: Annotated[int, typer.Option(min=1, help="Seconds of each chess clock.")] = 7_200,
    enter_asks: Annotated[bool, typer.Option(help="Enter the standing asks that fit.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the end and fetch the model.")] = False,
    as_json: Json = False,
) -> None:
    """Trace a training job, publish it and post it with its budget."""
    from bitcourt.commands import submit_job
    from protocol.task import NOBODY

    terms = {
        "budget": wei(budget),
        "solver": solver or NOBODY,
        "committee": committee,
        "samples": samples,
        "second_audit": second_audit,
        "solver_stake": wei(solver_stake),
        "verifier_fee": wei(verifier_fee),
        "bond": wei(bond),
        "late_cost": wei(late_cost),
        "bid_window": bid_window,
        "train_window": train_window,
        "audit_window": audit_window,
        "challenge_window": challenge_window,
        "dispute_clock": dispute_clock,
    }
    if window_segments is not None:
        terms["window_segments"] = window_segments
    market = connect(rpc, deployment, keystore, dev, 0)
    show(submit_job(market, job, store, steps, segment_steps, terms, enter_asks, wait), as_json)


def cancel(
    task: Annotated[int, typer.Argument(help="Number of a task of yours in its bidding.")],
    rpc: Rpc = DEFAULT_RPC,
    deployment: DeploymentFile = DEFAULT_DEPLOYMENT,
    keystore: Keystore = None,
    dev: Dev = None,
) -> None:
    """Take back a task before bids may be revealed, and with it the escrow."""
    market = connect(rpc, deployment, keystore, dev, 0)
    market.send_for("cancel", task)
    typer.echo(f"cancelled task {task}")


def ask(
    price: Annotated[float, typer.Argument(help="Ether for each 10^9 FLOPs.")],
    capacity: Annotated[int, typer.Option(min=0, help="Tasks that it may still win.")],
    memory_mib: Annotated[int, typer.Option(min=1, help="MiB that a task may need.")],
    max_stake: Annotated[float, typer.Option(help="Ether that a task may lock at most.")] = 1.0,
    deposit: Annotated[float, typer.Option(help="Ether to deposit, for the tasks' stakes.")] = 0.0,
    rpc: Rpc = DEFAULT_RPC,
    deployment: DeploymentFile = DEFAULT_DEPLOYMENT,
    keystore: Keystore = None,
    dev: Dev = None,
) -> None:
    """Set a standing ask, which anybody may enter in an auction. Capacity 0 withdraws it."""
    from protocol.task import ASK_STAKE_UNIT

    market = connect(rpc, deployment, keystore, dev, 0)
    if deposit:
        market.deposit(wei(deposit))
    stake = wei(max_stake) // ASK_STAKE_UNIT if capacity else 0  # zero withdraws the ask
    market.send("setAsk", round(price * 10**18), capacity, memory_mib, stake)
    typer.echo(f"{market.address} asks {price} ether for each 10^9 FLOPs, {capacity} tasks")


def whistleblow(
    rpc: Rpc = DEFAULT_RPC,
    deployment: DeploymentFile = DEFAULT_DEPLOYMENT,
    keystore: Keystore = None,
    dev: Dev = None,
    directory: Annotated[Path, typer.Option(help="Where all is kept that a dispute needs.")] = Path(
        "whistleblower-data"
    ),
    segments: Annotated[
        int | None, typer.Option(min=1, help="Replay so many of each window; else all.")
    ] = None,
    tasks: Annotated[
        list[int] | None, typer.Option("--task", help="Look for lies in this task only.")
    ] = None,
    until_ended: Annotated[bool, typer.Option(help="Stop when each --task has ended.")] = False,
    max_stake: MaxStake = 1.0,
    max_lock_days: MaxLockDays = 30.0,
    poll: Annotated[float, typer.Option(min=0.05, help="Seconds between polls.")] = 1.0,
    confirmations: Confirmations = None,
) -> None:
    """Replay what others have audited already; challenge who lied. Ctrl-C stops."""
    from bitcourt.commands import run_agent
    from protocol.executor import CompiledExecutor
    from verifier.whistleblower import Settings, Whistleblower

    market = connect(rpc, deployment, keystore, dev, confirmations)
    admitted = limits(None, max_lock_days, max_stake)
    settings = Settings(segments, set(tasks or ()), directory, limits=admitted)
    agent = Whistleblower(market, CompiledExecutor, settings)
    run_agent(agent, poll, set(tasks or ()) if until_ended else None, console)
