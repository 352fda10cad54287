# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that need no chain: `bitcourt trace`, `bitcourt inspect`, `bitcourt train`."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from protocol.errors import ArtifactError, ProgramError, UsageError
from protocol.program import Program

JobFile = Annotated[Path, typer.Argument(help="Python file that defines job() -> bitcourt.Job.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
LARGEST = 10
"""Nodes that `inspect` lists by themselves."""


def trace(
    job: JobFile,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory for program and tensors, or a file.bin for the program."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Trace one training step of a job, and write it by its roots as `submit` would publish it."""
    from bitcourt.job import load_job
    from protocol import commitments, encoding
    from protocol.files import write_whole
    from protocol.store import Store

    bundle = load_job(job).bundle()
    program = bundle.program
    out = Path("out") / job.stem if out is None else out
    if out.suffix:
        write_whole(out, encoding.dump(program))
    else:
        bundle.publish(Store(str(out)))
    _show(
        {
            "program": encoding.program_root(program).hex(),
            "state": commitments.state_root(bundle.state).hex(),
            "constants": commitments.inputs_root(bundle.constants).hex(),
            "data": commitments.inputs_root(bundle.data).hex(),
            "nodes": len(program.nodes),
            "state_tensors": program.n_state,
            "constant_tensors": program.n_const,
            "data_tensors": program.n_data,
            "out": str(out),
        },
        as_json,
    )


def inspect(
    target: Annotated[Path, typer.Argument(help="A job file, or a program that `trace` wrote.")],
    as_json: Json = False,
) -> None:
    """Show what one training step takes: FLOPs, memory, operations by family, largest nodes."""
    from protocol.encoding import program_root
    from protocol.resources import label
    from protocol.work import family, flops, work

    program = program_of(target)
    found = work(program)
    order = sorted(range(len(program.nodes)), key=lambda n: flops(program.nodes[n]), reverse=True)
    largest = [
        {
            "node": label(program, number),
            "family": family(program.nodes[number]),
            "shape": list(program.nodes[number].shape),
            "reduce": list(program.nodes[number].reduce),
            "flops": flops(program.nodes[number]),
        }
        for number in order[:LARGEST]
        if flops(program.nodes[number])
    ]
    report = {"program": program_root(program).hex(), "nodes": len(program.nodes), **asdict(found)}
    if as_json:
        typer.echo(json.dumps({**report, "largest": largest}, indent=2))
        return
    sizes = {name: _bytes(size) for name, size in report.items() if name.endswith("_bytes")}
    plain = {name: report[name] for name in ("program", "nodes")}
    _show({**plain, "flops": f"{found.flops:,}", **sizes}, as_json=False)
    console = Console()
    table = Table("family", "nodes", "FLOPs", "share", title="by family")
    for name, count in found.nodes_by_family.items():
        part = found.flops_by_family.get(name, 0)
        table.add_row(name, str(count), f"{part:,}", f"{part / max(1, found.flops):.1%}")
    console.print(table)
    table = Table("node", "family", "shape", "reduced", "FLOPs", title="largest")
    for row in largest:
        table.add_row(*(str(row[key]) for key in ("node", "family", "shape", "reduce", "flops")))
    console.print(table)


def train(
    job: JobFile,
    steps: Annotated[int | None, typer.Option(min=0, help="Steps to do; else the job's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run.")] = None,
    seed: Annotated[int, typer.Option(help="Decides all batches and dropout masks.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Else one per core.")] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 100,
    resume: Annotated[bool, typer.Option(help="Go on from --out's last checkpoint.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Train a job on this machine. Ctrl-C stops with a checkpoint; --resume goes on from there."""
    from bitcourt.trainer import Trainer

    console = Console(stderr=True)
    out = Path("out") / f"{job.stem}-run" if out is None else out
    with nullcontext() if as_json else console.status("tracing and compiling"):
        trainer = Trainer(
            job, out, seed=seed, threads=threads, checkpoint_every=checkpoint_every, resume=resume
        )
    wanted = trainer.job.steps - trainer.step if steps is None else steps
    interrupted = False
    try:
        _run(trainer, max(0, wanted), as_json, console)
    except KeyboardInterrupt:
        interrupted = True
    model = out / "model.safetensors"
    trainer.export(model)
    result: dict[str, Any] = {
        "steps": trainer.step,
        "loss": trainer.losses[-1] if trainer.losses else None,
        "root": trainer.root.hex(),
        "checkpoints": len(trainer.checkpoints),
        "model": str(model),
    }
    if trainer.job.metric is not None:
        result["metric"] = float(trainer.job.metric(trainer.module))
    typer.echo(_line(result)) if as_json else _show(result, as_json=False)
    if interrupted:
        raise typer.Exit(130)


def _run(trainer: Any, steps: int, as_json: bool, console: Console) -> None:
    """Train with a progress bar, or with one JSON line a step."""
    if as_json:
        trainer.run(steps, lambda step, loss: typer.echo(_line({"step": step, "loss": loss})))
        return
    began, first = time.monotonic(), trainer.step
    columns = (
        TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=first + steps, completed=first, note="")

        def show(step: int, loss: float) -> None:
            speed = (step - first) / max(1e-9, time.monotonic() - began)
            progress.update(bar, completed=step, note=f"loss {loss:.4f}  {speed:.1f} steps/s")

        trainer.run(steps, show)


def program_of(target: Path) -> Program:
    """Return the program of a job file, of a program's file, or of a directory with one program."""
    from bitcourt.job import load_job
    from protocol import encoding
    from protocol.validate import validate

    if target.suffix == ".py":
        return load_job(target).bundle().program
    if target.is_dir():
        stored = [path for path in (target / "programs").glob("*") if not path.suffix]
        if len(stored) != 1:
            raise UsageError(f"{target} holds {len(stored)} programs: name a file")
        (target,) = stored
    if not target.is_file():
        raise UsageError(f"{target} is neither a job file nor a program that `trace` wrote")
    try:
        program = encoding.load(target.read_bytes())
        validate(program)
    except ProgramError as error:
        raise ArtifactError(f"{target} is not a valid program: {error}") from None
    return program


def _line(values: dict[str, Any]) -> str:
    """Values as JSON, which has no NaN and no infinity: null stands for them."""
    numbers = {k: v if not isinstance(v, float) or isfinite(v) else None for k, v in values.items()}
    return json.dumps(numbers, allow_nan=False)


def _bytes(size: int) -> str:
    return f"{size:,} ({size / 2**20:.1f} MiB)"


def _show(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(values, indent=2))
        return
    width = max(map(len, values))
    for name, value in values.items():
        typer.echo(f"{name:<{width}}  {value}")
