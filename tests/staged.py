# SPDX-License-Identifier: GPL-3.0-or-later
"""Small tasks on an embedded chain, for tests of agents."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitcourt.lab.small import small_job
from bitcourt.lab.stage import ETHER, Stage
from protocol.agent import Agent
from protocol.bundle import Bundle, ExecutorFactory
from protocol.chain.embedded import embedded_chain
from protocol.execution import Executor, Inputs
from protocol.executor import CompiledExecutor
from protocol.market import Market, OpenDispute
from protocol.program import Program
from protocol.task import TaskSpec, TaskState
from protocol.witness import Witness
from solver.agent import Settings, Solver

SEED = bytes(range(32))


@functools.cache
def bundle() -> Bundle:
    return small_job().bundle()


@functools.cache
def honest_executor() -> Executor:
    return CompiledExecutor(bundle().program, bundle().inputs(SEED))


def make_executor(program: Program, inputs: Inputs) -> Executor:
    # Compiled once: a new agent gets the same arithmetic, and nothing else of the old one.
    return honest_executor()


def terms(submitter: Market, **changes: Any) -> TaskSpec:
    spec = bundle().spec(seed=SEED, steps=20, segment_steps=5, submitter=submitter.address)
    return replace(spec, **changes)


def a_stage(directory: Path) -> Stage:
    embedded = embedded_chain()
    return Stage.build(embedded.chain, embedded.faucet, directory)


def a_solver(market: Market, directory: Path) -> Solver:
    return Solver(market, make_executor, Settings(directory / "solver"))


def asking(stage: Stage, market: Market, executor: ExecutorFactory = make_executor) -> Solver:
    """A solver with a standing ask that anybody may enter anywhere."""
    market.deposit(ETHER)
    market.send("setAsk", 1, 5, 1 << 20, 10**9)
    return Solver(market, executor, Settings(stage.directory / "solver", by_ask=True))


def post(stage: Stage, **changes: Any) -> tuple[Market, int]:
    submitter = stage.party("submitter")
    return submitter, stage.post(submitter, bundle(), terms(submitter, **changes))


def end_bidding(stage: Stage, solver: Agent) -> None:
    """Lets a solver reveal its bid, and waits until the bidding is over."""
    stage.chain.wait(601)
    assert solver.poll()
    stage.chain.wait(601)


class Reborn(Agent):
    """Throws its agent away after every poll, as if it had been killed there."""

    def __init__(self, make: Callable[[], Agent]) -> None:
        self.make = make
        self.market = make().market

    def poll(self) -> bool:
        return self.make().poll()

    def act(self, task: int, state: TaskState) -> bool:
        raise NotImplementedError

    def witness(self, dispute: OpenDispute) -> Witness:
        raise NotImplementedError
