# SPDX-License-Identifier: GPL-3.0-or-later
"""What the commands have in common: options, accounts, and how results are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from protocol.feasibility import Limits

Rpc = Annotated[
    str, typer.Option("--rpc", envvar="BITCOURT_RPC", help="JSON-RPC URL of the chain.")
]
DeploymentFile = Annotated[
    Path,
    typer.Option("--deployment", envvar="BITCOURT_DEPLOYMENT", help="File with the addresses."),
]
Keystore = Annotated[Path | None, typer.Option("--keystore", help="Ethereum keystore file.")]
Dev = Annotated[
    int | None, typer.Option("--dev", help="Development account of `bitcourt chain`, by number.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Confirmations = Annotated[
    int | None,
    typer.Option(
        "--confirmations",
        min=0,
        help="Blocks above an event before it is believed. Else 2, and 0 on a local chain.",
    ),
]
MaxStake = Annotated[
    float, typer.Option("--max-stake", min=0, help="Ether that a task may lock at most.")
]
MemoryMib = Annotated[
    int | None,
    typer.Option(
        "--memory-mib", min=1, help="MiB that tasks may take together; else 3/4 of the machine's."
    ),
]
MaxLockDays = Annotated[
    float,
    typer.Option(
        "--max-lock-days", min=0, help="Days for which an audit or the bidding may lock money."
    ),
]
DEFAULT_RPC = "http://127.0.0.1:8545"
DEFAULT_DEPLOYMENT = Path("bitcourt.json")

console = Console()


def show(values: dict[str, Any], as_json: bool) -> None:
    """Prints a result as lines for people or as JSON."""
    if as_json:
        typer.echo(json.dumps(values, indent=2))
        return
    width = max(len(name) for name in values)
    for name, value in values.items():
        typer.echo(f"{name:<{width}}  {value}")


def wei(ether: float) -> int:
    """Wei of an amount in ether."""
    return round(ether * 10**9) * 10**9


def limits(memory_mib: int | None, max_lock_days: float, max_stake: float | None = None) -> Limits:
    """What an agent's owner admits; None stands for the default."""
    from protocol.feasibility import DAY, Limits

    given: dict[str, int] = {"max_lock": round(max_lock_days * DAY)}
    if memory_mib is not None:
        given["memory_mib"] = memory_mib
    if max_stake is not None:
        given["max_stake"] = wei(max_stake)
    return Limits(**given)


def connect(
    rpc: str, deployment: Path, keystore: Path | None, dev: int | None, confirmations: int | None
) -> Any:
    """The market as the chosen account. No confirmations are those that are usual on the chain."""
    from bitcourt.keys import load_account
    from protocol.chain.client import Chain
    from protocol.chain.deployment import Deployment
    from protocol.market import Market

    found = Deployment.load(deployment)
    account = load_account(keystore, dev)
    chain = Chain.connect(rpc)
    chain.confirmations = chain.usual_confirmations if confirmations is None else confirmations
    return Market(chain, found, account)


def observe(rpc: str, deployment: Path) -> Any:
    """The market as somebody who only looks."""
    from protocol.chain.client import Chain, new_account
    from protocol.chain.deployment import Deployment
    from protocol.market import Market

    found = Deployment.load(deployment)
    return Market(Chain.connect(rpc), found, new_account())
