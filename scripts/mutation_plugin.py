# SPDX-License-Identifier: GPL-3.0-or-later
"""pytest plugin of `scripts.mutate`: collects once, then runs the tests once for each mutant.

Every run is a fork that stops at its first failure; contracts are linked to the mutant's number as
they are compiled. A test that has killed a mutant comes first in the next run: neighbours often die
of the same. One line of JSON a mutant goes to the file that BITCOURT_MUTATION_LOG names.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from scripts import solc
from scripts.mutants import PLACEHOLDER

LIMIT = int(os.environ.get("BITCOURT_MUTATION_SECONDS", "1800"))
"""Seconds after which a run counts as failed: a mutant may loop for ever."""


def _link(number: int) -> None:
    """Make every contract compiled from now on run mutant `number`."""
    address = f"{number:040x}"
    compile_unit = solc._compile_unit

    def linked(unit: tuple[str, dict[str, str]]) -> dict[str, solc.Contract]:
        contracts = compile_unit(unit)
        for contract in contracts.values():
            contract["bytecode"] = PLACEHOLDER.sub(address, contract["bytecode"])
            code = PLACEHOLDER.sub(address, contract["deployed_bytecode"])
            contract["deployed_bytecode"] = code
        return contracts

    solc._compile_unit = linked


def _without_size_limit() -> None:
    """Let compiler and py-evm take contracts that the switches have made too large for a chain."""
    from eth.vm.forks.shanghai import computation as shanghai
    from eth.vm.forks.spurious_dragon import computation as spurious_dragon

    solc.ACCEPTED |= {"5574", "3860"}  # sizes of runtime and creation code
    spurious_dragon.EIP170_CODE_SIZE_LIMIT = 1 << 24  # type: ignore[attr-defined]
    shanghai.MAX_INITCODE_SIZE = 1 << 25  # type: ignore[attr-defined]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Run all collected tests once for each mutant that BITCOURT_MUTANTS lists."""
    _without_size_limit()
    session.config.option.maxfail = 1
    with Path(os.environ["BITCOURT_MUTATION_LOG"]).open("a") as log:
        for number in json.loads(os.environ["BITCOURT_MUTANTS"]):
            began = time.monotonic()
            failed, killer = _run(session, number)
            row: dict[str, object] = {"mutant": number, "killed": failed, "by": None}
            if killer is not None:
                row["by"] = session.items[killer].nodeid
                session.items.insert(0, session.items.pop(killer))
            row["seconds"] = time.monotonic() - began
            print(json.dumps(row), file=log, flush=True)
    session.testscollected = max(session.testscollected, 1)
    return True


def _run(session: pytest.Session, number: int) -> tuple[bool, int | None]:
    """Whether any test fails with one mutant on, and the place of that test if it is known."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        signal.alarm(LIMIT)
        _link(number)
        failed = True
        try:
            for place, item in enumerate(session.items):
                after = session.items[place + 1] if place + 1 < len(session.items) else None
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
                if session.testsfailed:
                    os.write(writing, place.to_bytes(4, "big"))
                    break
            failed = bool(session.testsfailed)
        finally:
            sys.stdout.flush()
            os._exit(failed)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    return status != 0, int.from_bytes(told, "big") if told else None
