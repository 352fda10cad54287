# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `bitcourt recommend`: terms for a task at which nobody gains by cheating."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from protocol.errors import UsageError
from protocol.rules import MAX_WINDOW

if TYPE_CHECKING:
    from protocol.economics import Terms

GWEI = 10**9
ETHER = 10**18
AMOUNTS = ("cost", "budget", "verifier_fee", "solver_stake", "verifier_stake", "bond", "bid_bond")
WINDOWS = ("train_window", "audit_window", "dispute_clock")
OTHERS = ("segments", "window_segments", "samples", "committee", "second_audit")


def recommend(
    target: Annotated[Path, typer.Argument(help="A job file, or a program that `trace` wrote.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    segment_steps: Annotated[int | None, typer.Option(min=1, help="Steps per checkpoint.")] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, help="Ether for the solver at most; else the cost's.")
    ] = None,
    price: Annotated[float, typer.Option(min=0, help="Gwei that 10^12 FLOPs cost.")] = 100.0,
    gas_price: Annotated[float, typer.Option(min=0, help="Gwei for one gas, at its worst.")] = 20.0,
    profit: Annotated[int, typer.Option(min=0, help="Per cent above costs.")] = 25,
    interest: Annotated[int, typer.Option(min=0, help="Per cent that locking a stake costs.")] = 1,
    gain: Annotated[
        float, typer.Option(min=0, help="Ether that a false result is worth to a cheater.")
    ] = 0.0,
    colluding: Annotated[
        int, typer.Option(min=0, max=100, help="Per cent of verifiers' stake that may collude.")
    ] = 25,
    submitter_colludes: Annotated[
        bool, typer.Option(help="Others rely on the result, and you may be an accomplice.")
    ] = False,
    sure_of_committee: Annotated[
        bool, typer.Option(help="Rely on second audits alone: the first may always collude.")
    ] = False,
    samples: Annotated[int | None, typer.Option(help="Segments drawn; else the cheapest.")] = None,
    committee: Annotated[
        int | None, typer.Option(help="Verifiers drawn; else the cheapest.")
    ] = None,
    second_audit: Annotated[
        int | None, typer.Option(help="256ths of windows audited twice; else the cheapest.")
    ] = None,
    noticed: Annotated[
        int, typer.Option(min=1, max=100, help="Per cent of chance that an audit notices ...")
    ] = 75,
    faked: Annotated[
        int, typer.Option(min=1, max=100, help="... that so many per cent of segments are faked.")
    ] = 50,
    window_segments: Annotated[
        int | None, typer.Option(help="Segments audited and paid at a time; else all.")
    ] = None,
    market_stake: Annotated[
        float, typer.Option(min=0, help="Ether that one draw locks at the market: bounds terms.")
    ] = 1.0,
    gflops: Annotated[
        float,
        typer.Option(min=0.001, help="10^9 FLOPs a second of the slowest machine to take part."),
    ] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Recommend stakes, fees and audits for a task, and say why: cheating must not pay."""
    from bitcourt.job import load_job
    from bitcourt.local import program_of
    from protocol.economics import Assumptions, Demands, Prices
    from protocol.economics import recommend as recommend_terms

    if target.suffix == ".py":
        job = load_job(target)
        program = job.bundle().program
        steps = steps or job.steps
        segment_steps = segment_steps or min(job.segment_steps, steps)
    elif steps is None or segment_steps is None:
        raise UsageError(f"{target} is no job file: give --steps and --segment-steps")
    else:
        program = program_of(target)
    terms = recommend_terms(
        program,
        steps,
        segment_steps,
        Prices(_wei(price, GWEI), _wei(gas_price, GWEI), profit=profit, interest=interest),
        Assumptions(
            _wei(gain, ETHER),
            Fraction(colluding, 100),
            submitter_colludes,
            sure_of_committee,
            slowest_machine=_wei(gflops, GWEI),
        ),
        Demands(
            # `submit` takes whole gwei.
            None if budget is None else _wei(budget, GWEI) * GWEI,
            samples,
            committee,
            second_audit,
            window_segments,
            Fraction(noticed, 100),
            Fraction(faked, 100),
            _wei(market_stake, ETHER),
        ),
    )
    for name in WINDOWS:
        if getattr(terms, name) > MAX_WINDOW:
            raise UsageError(
                f"the {_title(name)} would have to be {getattr(terms, name):,} s, and no market "
                f"admits more than {MAX_WINDOW:,}: give smaller --segment-steps, or "
                "--window-segments"
            )
    if as_json:
        typer.echo(json.dumps(_report(terms), indent=2))
        return
    _print(terms)
    if target.suffix == ".py":
        typer.echo(_submit_command(target, terms, steps, segment_steps))


def _wei(amount: float, unit: int) -> int:
    if not math.isfinite(amount):
        raise UsageError(f"{amount} is no amount of money")
    # The digits that were typed, not the binary fraction next to them.
    return math.ceil(Fraction(repr(amount)) * unit)


def _report(terms: Terms) -> dict[str, Any]:
    """The terms with their units in the names, as other commands print them."""
    values = asdict(terms)
    report = {name: values[name] for name in OTHERS}
    report |= {f"{name}_wei": values[name] for name in AMOUNTS}
    report |= {f"{name}_seconds": values[name] for name in WINDOWS}
    return report | {"window_stakes_wei": list(terms.window_stakes), "why": terms.why}


def _print(terms: Terms) -> None:
    table = Table("term", "recommended")
    for name in OTHERS:
        table.add_row(_title(name), f"{getattr(terms, name)}{' / 256' * (name == 'second_audit')}")
    for name in AMOUNTS:
        table.add_row(_title(name), f"{_ether(getattr(terms, name))} ether")
    for name in WINDOWS:
        table.add_row(_title(name), f"{getattr(terms, name):,} s")
    if len(set(terms.window_stakes)) > 1:
        first, last = terms.window_stakes[0], terms.window_stakes[-1]
        table.add_row("stake, last window", f"{_ether(last)} ether")
        table.add_row("stake, other windows", f"{_ether(first)} ether")
    Console().print(table)
    for name, reason in terms.why.items():
        typer.echo(f"{_title(name)}: {reason}.")


def _title(name: str) -> str:
    return name.replace("_", " ")


def _ether(wei: int) -> str:
    """Ether with nine digits after the point, rounded up, so that no stake gets too small."""
    gwei = -(-wei // GWEI)
    text = f"{gwei // GWEI}.{gwei % GWEI:09}"
    return text.rstrip("0").rstrip(".")


def _submit_command(job: Path, terms: Terms, steps: int, segment_steps: int) -> str:
    """What posts the task with these terms."""
    options = {
        "steps": steps,
        "segment_steps": segment_steps,
        "window_segments": terms.window_segments,
        "second_audit": terms.second_audit,
        "samples": terms.samples,
        "committee": terms.committee,
        "budget": _ether(terms.budget),
        "verifier_fee": _ether(terms.verifier_fee),
        "solver_stake": _ether(terms.solver_stake),
        # The same bond is asked for with a sealed bid.
        "bond": _ether(max(terms.bond, terms.bid_bond)),
        **{name: getattr(terms, name) for name in WINDOWS},
    }
    words = [
        word
        for name, value in options.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    return shlex.join(["bitcourt", "submit", str(job), *words])
