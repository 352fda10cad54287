# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `bitcourt`. Every failure that a user can cause is one sentence and exit code 1."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bitcourt import local
from bitcourt.recommend import recommend
from protocol.errors import BitcourtError, UsageError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Buy and sell machine-learning training between strangers, and trust the result.",
)
account_app = typer.Typer(no_args_is_help=True, help="Keystore files for accounts.")
app.add_typer(account_app, name="account")

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
    int, typer.Option("--confirmations", min=0, help="Blocks to wait before an event is believed.")
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


app.command("trace")(local.trace)
app.command("inspect")(local.inspect)
app.command("train")(local.train)
app.command("recommend")(recommend)


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
    as_json: Json = False,
) -> None:
    """Deploy referee, dispute game and market, and write their addresses to a file."""
    from bitcourt.keys import load_account
    from protocol.chain.client import Chain
    from protocol.chain.deployment import deploy as deploy_contracts

    made = deploy_contracts(
        Chain.connect(rpc), load_account(keystore, dev), verifier_stake=wei(verifier_stake)
    )
    made.save(deployment)
    show({**vars(made), "file": str(deployment)}, as_json)


@app.command()
def submit(
    job: Annotated[Path, typer.Argument(help="Python file that defines job() -> bitcourt.Job.")],
    store: Annotated[str, typer.Option(help="Store that all can reach (directory or URL).")],
    rpc: Rpc = DEFAULT_RPC,
    deployment: DeploymentFile = DEFAULT_DEPLOYMENT,
    keystore: Keystore = None,
    dev: Dev = None,
    budget: Annotated[float, typer.Option(help="Ether for the solver at most.")] = 1.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    segment_steps: Annotated[int | None, typer.Option(min=1, help="Steps per checkpoint.")] = None,
    committee: Annotated[int, typer.Option(min=1, max=4, help="Verifiers drawn.")] = 2,
    samples: Annotated[int, typer.Option(min=1, max=16, help="Segments drawn.")] = 2,
    solver_stake: Annotated[float, typer.Option(help="Ether that the solver locks.")] = 0.5,
    verifier_fee: Annotated[float, typer.Option(help="Ether for each verifier drawn.")] = 0.01,
    bond: Annotated[float, typer.Option(help="Ether that a challenger locks.")] = 0.1,
    bid_window: Annotated[int, typer.Option(min=1, help="Seconds for bids.")] = 600,
    train_window: Annotated[int, typer.Option(min=1, help="Seconds for training.")] = 86_400,
    audit_window: Annotated[int, typer.Option(min=1, help="Seconds for each audit phase.")] = 3_600,
    challenge_window: Annotated[int, typer.Option(min=1, help="Seconds for disputes.")] = 3_600,
    dispute_clock: Annotated[int, typer.Option(min=1, help="Seconds of each chess clock.")] = 7_200,
    wait: Annotated[bool, typer.Option(help="Wait for the end and fetch the model.")] = False,
    as_json: Json = False,
) -> None:
    """Trace a training job, publish it and post it with its budget."""
    from bitcourt.commands import submit_job

    terms = {
        "committee": committee,
        "samples": samples,
        "solver_stake": wei(solver_stake),
        "verifier_fee": wei(verifier_fee),
        "bond": wei(bond),
        "bid_window": bid_window,
        "train_window": train_window,
        "audit_window": audit_window,
        "challenge_window": challenge_window,
        "dispute_clock": dispute_clock,
    }
    market = connect(rpc, deployment, keystore, dev, 0)
    result = submit_job(market, job, store, wei(budget), steps, segment_steps, terms, wait)
    show(result, as_json)


@app.command()
def solver(
    rpc: Rpc = DEFAULT_RPC,
    deployment: DeploymentFile = DEFAULT_DEPLOYMENT,
    keystore: Keystore = None,
    dev: Dev = None,
    directory: Annotated[Path, typer.Option(help="Where checkpoints are kept.")] = Path(
        "solver-data"
    ),
    price: Annotated[float | None, typer.Option(help="Ether asked; else the budget.")] = None,
    tasks: Annotated[list[int] | None, typer.Option("--task", help="Only this task.")] = None,
    until_ended: Annotated[bool, typer.Option(help="Stop when each --task has ended.")] = False,
    poll: Annotated[float, typer.Option(min=0.05, help="Seconds between polls.")] = 1.0,
    confirmations: Confirmations = 0,
) -> None:
    """Bid for tasks, train them, answer audits and disputes. Ctrl-C stops; a restart goes on."""
    from bitcourt.commands import run_agent
    from protocol.executor import CompiledExecutor
    from solver.agent import Settings, Solver

    settings = Settings(directory, tasks=set(tasks or ()))
    if price is not None:
        settings.price = lambda posted: min(wei(price), posted.budget)
    market = connect(rpc, deployment, keystore, dev, confirmations)
    agent = Solver(market, CompiledExecutor, settings)
    run_agent(agent, poll, set(tasks or ()) if until_ended else None, console)


@app.command()
def verifier(
    rpc: Rpc = DEFAULT_RPC,
    deployment: DeploymentFile = DEFAULT_DEPLOYMENT,
    keystore: Keystore = None,
    dev: Dev = None,
    slots: Annotated[int, typer.Option(min=1, max=64, help="Tasks at a time.")] = 1,
    tasks: Annotated[list[int] | None, typer.Option("--task", help="With --until-ended.")] = None,
    until_ended: Annotated[bool, typer.Option(help="Stop when each --task has ended.")] = False,
    poll: Annotated[float, typer.Option(min=0.05, help="Seconds between polls.")] = 1.0,
    confirmations: Confirmations = 0,
) -> None:
    """Register, replay what is drawn, attest or dispute. Ctrl-C stops; a restart goes on."""
    from bitcourt.commands import run_agent
    from protocol.executor import CompiledExecutor
    from verifier.agent import Settings, Verifier

    market = connect(rpc, deployment, keystore, dev, confirmations)
    agent = Verifier(market, CompiledExecutor, Settings(slots))
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


def wei(ether: float) -> int:
    """Wei of an amount in ether."""
    return round(ether * 10**9) * 10**9


def connect(
    rpc: str, deployment: Path, keystore: Path | None, dev: int | None, confirmations: int
) -> Any:
    """The market as the chosen account."""
    from bitcourt.keys import load_account
    from protocol.chain.client import Chain
    from protocol.chain.deployment import Deployment
    from protocol.market import Market

    found = Deployment.load(deployment)
    account = load_account(keystore, dev)
    return Market(Chain.connect(rpc, confirmations=confirmations), found, account)


def observe(rpc: str, deployment: Path) -> Any:
    """The market as somebody who only looks."""
    from protocol.chain.client import Chain, new_account
    from protocol.chain.deployment import Deployment
    from protocol.market import Market

    found = Deployment.load(deployment)
    return Market(Chain.connect(rpc), found, new_account())


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
