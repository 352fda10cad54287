# SPDX-License-Identifier: GPL-3.0-or-later
"""Separate processes trade a training run over JSON-RPC, as the README shows: nothing is shared but
the chain and a store.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from bitcourt.keys import development_account
from protocol.chain.client import Chain, new_account
from protocol.chain.deployment import Deployment
from protocol.market import Market
from protocol.task import Status
from scripts.toolchain import TOOLCHAIN

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
ANVIL = TOOLCHAIN / "bin" / "anvil"
ANVIL_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
"""Of the first account of every anvil: it is in its documentation."""
PATIENCE = 120  # seconds for anything; nothing here depends on being fast
JOB = """
import torch
from bitcourt import Job

def job():
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    inputs = torch.randn(16, 3)
    def score(trained):
        return float(trained.weight.detach().sum())
    return Job(module, torch.nn.functional.mse_loss, torch.optim.SGD(module.parameters(), lr=0.1),
               (inputs, inputs.sum(1, keepdim=True)), batch_size=4, steps=6, segment_steps=2,
               metric=score)
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


class Shell:
    """A directory in which the command line is used."""

    def __init__(self, directory: Path, rpc: str) -> None:
        self.directory = directory
        self.rpc = rpc

    def argv(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "bitcourt.cli", *map(str, arguments), "--rpc", self.rpc]

    def run(self, *arguments: object) -> str:
        done = subprocess.run(
            self.argv(*arguments),
            cwd=self.directory,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def running(self, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        with started(self.argv(*arguments), self.directory) as process:
            yield process


@contextmanager
def started(argv: list[str], directory: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        argv,
        cwd=directory,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def line_with(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            watchdog.cancel()
            return line
    raise AssertionError("".join(lines))


@contextmanager
def own_chain(directory: Path) -> Iterator[str]:
    argv = [sys.executable, "-m", "bitcourt.cli", "chain", "--port", "0", "--block-time", "0.5"]
    with started(argv, directory) as process:
        yield line_with(process, "listens on").split()[-1]


@contextmanager
def anvil_chain(directory: Path) -> Iterator[str]:
    argv = [str(ANVIL), "--port", "0", "--block-time", "1", "--hardfork", "cancun"]
    with started(argv, directory) as process:
        url = "http://" + line_with(process, "Listening on").split()[-1]
        chain, rich = Chain.connect(url), new_account(ANVIL_KEY)
        for index in range(5):
            chain.transfer(rich, development_account(index).address, 100 * 10**18)
        yield url


def wait_for_task(shell: Shell) -> None:
    chain = Chain.connect(shell.rpc)
    market = Market(chain, Deployment.load(shell.directory / "bitcourt.json"), new_account())
    deadline = time.monotonic() + PATIENCE
    while market.task_count() == 0:
        assert time.monotonic() < deadline
        time.sleep(0.3)


def let_time_pass(shell: Shell) -> None:
    """Travels over the windows that the parties can only wait for, until the task settles.

    So the windows can be long: no process is ever too slow for them.
    """
    chain = Chain.connect_test(shell.rpc)
    market = Market(chain, Deployment.load(shell.directory / "bitcourt.json"), new_account())
    deadline = time.monotonic() + PATIENCE
    travelled: set[str] = set()
    while (state := market.state(1)).status != Status.SETTLED:
        assert time.monotonic() < deadline, state
        waits = {
            "sealed": state.status == Status.BIDDING and bool(market.events("BidSealed", 1)),
            "revealed": state.status == Status.BIDDING and int(state.solver, 16) > 0,
            "challenged": state.status == Status.WINDOW,
        }
        for what, due in waits.items():
            if due and what not in travelled:
                travelled.add(what)
                chain.wait(601 if state.status == Status.BIDDING else 3601)
                break
        time.sleep(0.3)


CHAINS = [
    "own",
    pytest.param(
        "anvil", marks=pytest.mark.skipif(not ANVIL.exists(), reason="`make test` installs anvil")
    ),
]


@pytest.mark.parametrize("kind", CHAINS)
def test_the_readmes_commands_trade_a_training_run(kind: str, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    with ExitStack() as stack:
        served = own_chain if kind == "own" else anvil_chain
        shell = Shell(tmp_path, stack.enter_context(served(tmp_path)))
        shell.run("deploy", "--dev", 0, "--verifier-stake", 1)
        agents = [
            ("verifier", "--dev", 2, "--poll", 0.5),
            ("verifier", "--dev", 3, "--poll", 0.5),
            ("solver", "--dev", 1, "--poll", 0.5, "--task", 1, "--until-ended"),
        ]
        running = [stack.enter_context(shell.running(*agent)) for agent in agents]
        for verifier in running[:2]:
            line_with(verifier, "registered as verifier")
        submit = ("submit", "job.py", "--store", "store", "--dev", 4, "--wait", "--json")
        with shell.running(*submit) as process:
            wait_for_task(shell)
            let_time_pass(shell)
            answer, _ = process.communicate(timeout=PATIENCE)
        submitted = json.loads(answer)
        assert submitted["status"] == "Settled"

        status = json.loads(shell.run("status", 1, "--json"))
        assert status["status"] == "Settled"
        assert status["solver"] == development_account(1).address
        assert set(status["verifiers"].values()) == {"attested"}

        assert "tensors" in shell.run("fetch", 1, "--out", "model.safetensors")
        model = load_file(tmp_path / "model.safetensors")
        assert model["model.weight"].shape == (1, 3)
        assert float(model["model.weight"].sum()) == pytest.approx(submitted["metric"])

        assert running[2].wait(timeout=PATIENCE) == 0
        assert f"withdrew 1.5 ether to {status['solver']}" in shell.run("withdraw", "--dev", 1)
        assert all(process.poll() is None for process in running[:2])


def test_a_solver_that_was_killed_goes_on_in_a_new_process(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    with ExitStack() as stack:
        shell = Shell(tmp_path, stack.enter_context(own_chain(tmp_path)))
        shell.run("deploy", "--dev", 0)
        for account in (2, 3):
            verifier = stack.enter_context(
                shell.running("verifier", "--dev", account, "--poll", 0.5)
            )
            line_with(verifier, "registered as verifier")
        shell.run("submit", "job.py", "--store", "store", "--dev", 4)
        solver = ("solver", "--dev", 1, "--poll", 0.5)
        with shell.running(*solver) as process:
            line_with(process, "Bidding")
            process.kill()
        with shell.running(*solver) as process:
            let_time_pass(shell)
            line_with(process, "Settled")


def test_the_script_stages_a_scenario_on_a_served_chain(tmp_path: Path) -> None:
    with own_chain(tmp_path) as url:
        done = subprocess.run(
            [
                sys.executable,
                ROOT / "scripts" / "simulate.py",
                "withholder",
                "--rpc",
                url,
                "--json",
            ],
            cwd=tmp_path,
            env={**ENVIRONMENT, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "Slashed"
    assert set(result["paid_wei"]) == {"submitter"}
