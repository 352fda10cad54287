# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `bitcourt`. Every failure that a user can cause is one sentence and exit code 1."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bitcourt import local, trading
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
    MemoryMib,
    Rpc,
    connect,
    console,
    limits,
    observe,
    show,
    wei,
)
from bitcourt.recommend import recommend
from protocol.errors import BitcourtError, UsageError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Buy and sell machine-learning training between strangers, and trust the result.",
)
account_app = typer.Typer(no_args_is_help=True, help="Keystore files for accounts.")
app.add_typer(account_app, name="account")

app.command("trace")(local.trace)
app.command("inspect")(local.inspect)
app.command("train")(local.train)
app.command("recommend")(recommend)
app.command("submit")(trading.submit)
app.command("cancel")(trading.cancel)
app.command("ask")(trading.ask)
app.command("whistleblow")(trading.whistleblow)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where report and artifacts go.")] = Path("out/demo"),
    as_json: Json = False,
) -> None:
    """Train a digits classifier through the protocol: once honestly, once with a cheater."""
    from bitcourt.demo import run_demo

    report = run_demo(out, Console(quiet=as_json))
    if as_json:
        typer.echo(json.dumps(report, indent=2))


@app.command()
def simulate(
    name: Annotated[str, typer.Argument(help="Scenario; `list` names them all.")],
    rpc: Annotated[str, typer.Option(help="RPC URL of a local chain; embedded if empty.")] = "",
    out: Annotated[Path, typer.Option(help="Where artifacts go.")] = Path("out/simulate"),
    as_json: Json = False,
) -> None:
    """Stage one cheating scenario and print its story."""
    from bitcourt.lab.scenarios import SCENARIOS
    from bitcourt.lab.simulation import simulate_scenario

    if name == "list":
        show({key: scenario.what for key, scenario in SCENARIOS.items()}, as_json)
        return
    result = simulate_scenario(name, out, rpc, Console(quiet=as_json))
    if as_json:
        typer.echo(json.dumps(result, indent=2))


@app.command()
def chain(
    port: Annotated[int, typer.Option(help="Port on loopback; 0 picks a free one.")] = 8545,
    block_time: Annotated[float, typer.Option(min=0.1, help="Seconds between empty blocks.")] = 1.0,
) -> None:
    """Serve the embedded chain on loopback, with development accounts that hold ether."""
    from bitcourt.keys import DEVELOPMENT_ACCOUNTS, development_account
    from bitcourt.rpc_server import RpcServer
    from protocol.chain.embedded import embedded_chain

    embedded = embedded_chain()
    for index in range(DEVELOPMENT_ACCOUNTS):
        address = development_account(index).address
        embedded.chain.transfer(embedded.faucet, address, 10_000 * 10**18)
        typer.echo(f"--dev {index}  {address}  10000 ether")
    server = RpcServer(embedded, port, block_time)
    typer.echo(f"chain {embedded.chain.chain_id} listens on {server.url}")
    sys.stdout.flush()
    server.serve()


@app.command()
def deploy(
    rpc: Rpc = DEFAULT_RPC,
    deployment: DeploymentFile = DEFAULT_DEPLOYMENT,
    keystore: Keystore = None,
    dev: Dev = None,
    verifier_stake: Annotated[float, typer.Option(help="Ether that one draw locks.")] = 1.0,
    min_window: Annotated[
        int, typer.Option(min=1, help="Seconds of the shortest window that terms may have.")
    ] = 600,
    token: Annotated[str, typer.Option(help="ERC-20 token to trade in; ether if empty.")] = "",
    as_json: Json = False,
) -> None:
    """Deploy referee, dispute game and market, and write their addresses to a file."""
    from bitcourt.keys import load_account
    from protocol.chain.client import Chain
    from protocol.chain.deployment import NATIVE
    from protocol.chain.deployment import deploy as deploy_contracts

    made = deploy_contracts(
        Chain.connect(rpc),
        load_account(keystore, dev),
        verifier_stake=wei(verifier_stake),
        min_window=min_window,
        token=token or NATIVE,
    )
    made.save(deployment)
    show({**vars(made), "file": str(deployment)}, as_json)


@app.command()
def solver(
    rpc: Rpc = DEFAULT_RPC,
    deployment: DeploymentFile = DEFAULT_DEPLOYMENT,
    keystore: Keystore = None,
    dev: Dev = None,
    directory: Annotated[
        Path, typer.Option(help="Where checkpoints are kept until their task has ended.")
    ] = Path("solver-data"),
    price: Annotated[
        float | None,
        typer.Option(help="Ether bid for a task: what it costs you. Else its budget."),
    ] = None,
    by_ask: Annotated[bool, typer.Option(help="Enter your standing ask instead of bids.")] = False,
    commits: Annotated[int, typer.Option(min=1, help="Commitments in each progress window.")] = 1,
    max_stake: MaxStake = 1.0,
    memory_mib: MemoryMib = None,
    max_lock_days: MaxLockDays = 30.0,
    tasks: Annotated[
        list[int] | None, typer.Option("--task", help="Bid for this task only.")
    ] = None,
    until_ended: Annotated[bool, typer.Option(help="Stop when each --task has ended.")] = False,
    poll: Annotated[float, typer.Option(min=0.05, help="Seconds between polls.")] = 1.0,
    confirmations: Confirmations = None,
) -> None:
    """Bid for tasks, train them, answer audits and disputes. Ctrl-C stops; a restart goes on."""
    from bitcourt.commands import run_agent
    from protocol.executor import CompiledExecutor
    from solver.agent import Settings, Solver

    settings = Settings(
        directory,
        by_ask=by_ask,
        commits=commits,
        tasks=set(tasks or ()),
        limits=limits(memory_mib, max_lock_days, max_stake),
    )
    if price is not None:
        settings.price = lambda _posted: wei(price)
    market = connect(rpc, deployment, keystore, dev, confirmations)
    agent = Solver(market, CompiledExecutor, settings)
    run_agent(agent, poll, set(tasks or ()) if until_ended else None, console)


@app.command()
def verifier(
    rpc: Rpc = DEFAULT_RPC,
    deployment: DeploymentFile = DEFAULT_DEPLOYMENT,
    keystore: Keystore = None,
    dev: Dev = None,
    directory: Annotated[
        Path, typer.Option(help="Where all is kept that a defence would need.")
    ] = Path("verifier-data"),
    slots: Annotated[int, typer.Option(min=1, max=64, help="Tasks at a time.")] = 1,
    memory_mib: MemoryMib = None,
    max_lock_days: MaxLockDays = 30.0,
    tasks: Annotated[list[int] | None, typer.Option("--task", help="With --until-ended.")] = None,
    until_ended: Annotated[bool, typer.Option(help="Stop when each --task has ended.")] = False,
    poll: Annotated[float, typer.Option(min=0.05, help="Seconds between polls.")] = 1.0,
    confirmations: Confirmations = None,
) -> None:
    """Register, replay what is drawn, attest or dispute. Ctrl-C stops; a restart goes on."""
    from bitcourt.commands import run_agent
    from protocol.executor import CompiledExecutor
    from verifier.agent import Settings, Verifier

    market = connect(rpc, deployment, keystore, dev, confirmations)
    settings = Settings(slots, directory, limits=limits(memory_mib, max_lock_days))
    agent = Verifier(market, CompiledExecutor, settings)
    if agent.register():
        console.print(f"registered as verifier {market.address}")
    run_agent(agent, poll, set(tasks or ()) if until_ended else None, console)


@app.command()
def status(
    task: Annotated[int, typer.Argument(help="Number of the task.")],
    rpc: Rpc = DEFAULT_RPC,
    deployment: DeploymentFile = DEFAULT_DEPLOYMENT,
    as_json: Json = False,
) -> None:
    """Show where a task stands."""
    from bitcourt.commands import describe

    show(describe(observe(rpc, deployment), task), as_json)


@app.command()
def fetch(
    task: Annotated[int, typer.Argument(help="Number of a task that has settled.")],
    out: Annotated[Path, typer.Option(help="Safetensors file to write.")],
    rpc: Rpc = DEFAULT_RPC,
    deployment: DeploymentFile = DEFAULT_DEPLOYMENT,
) -> None:
    """Download the trained state, check it against the chain, and write it as safetensors."""
    from bitcourt.commands import fetch_final

    typer.echo(f"wrote {fetch_final(observe(rpc, deployment), task, out)} tensors to {out}")


@app.command()
def withdraw(
    rpc: Rpc = DEFAULT_RPC,
    deployment: DeploymentFile = DEFAULT_DEPLOYMENT,
    keystore: Keystore = None,
    dev: Dev = None,
) -> None:
    """Take the account's free balance out of the market."""
    market = connect(rpc, deployment, keystore, dev, 0)
    amount = market.free_balance()
    if amount == 0:
        raise UsageError(f"{market.address} has nothing to withdraw")
    market.send("withdraw")
    typer.echo(f"withdrew {amount / 10**18} ether to {market.address}")


@account_app.command("new")
def account_new(path: Annotated[Path, typer.Argument(help="Keystore file to write.")]) -> None:
    """Make an account. The password is asked for, or taken from BITCOURT_PASSWORD."""
    from bitcourt.keys import create_keystore

    typer.echo(create_keystore(path).address)


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except BitcourtError as error:
        typer.echo(f"bitcourt: {error}", err=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except OSError as error:
        typer.echo(f"bitcourt: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
