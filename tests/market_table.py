# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of docs/protocol.md, and a market that sees whether what happens is in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from protocol.task import Status
from tests.market_chain import Done
from tests.market_world import World

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/protocol.md").read_text()
Transition = tuple[Status, str, Status]
OPEN_ENDED = range(Status.COMMITTED, Status.CONVICTED + 1)
MARKET_CALLS = re.compile(r"`(\w+)`")


def cells(heading: str) -> list[list[str]]:
    """The rows of the table whose first column has this heading."""
    (table,) = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()]


def status(name: str) -> Status:
    return Status[name.strip().upper()]


def transitions() -> set[Transition]:
    """What the table of statuses allows: status, call, next status."""
    return {
        (status(before), call.strip("`"), status(after))
        for before, call, _, _, following in cells("status")
        for after in following.split(",")
    }


def enders() -> dict[str, list[str]]:
    """Calls that end what is open, and what they may lead to."""
    return {row[0].strip("`"): [n.strip() for n in row[3].split(",")] for row in cells("call")}


def is_allowed(before: Status, call: str, after: Status) -> bool:
    if (before, call, after) in transitions():
        return True
    following = enders().get(call, [])
    return (before == after and "unchanged" in following) or after.name.capitalize() in following


@contextmanager
def watched() -> Iterator[set[Transition]]:
    """Collects what happens to every task of every world, and refuses what is in no table."""
    seen: set[Transition] = set()
    send, decide = World.send, World.decide

    def statuses(world: World) -> dict[int, Status]:
        return {task.id: task.state.status for task in world.tasks}

    def note(call: str, before: dict[int, Status], after: dict[int, Status], about: int) -> None:
        for task, now in after.items():
            then = before.get(task, Status.NONE)
            if task == about:
                assert is_allowed(then, call, now), (then.name, call, now.name)
                seen.add((then, call, now))
            else:
                assert then == now, f"{call} of task {about} changed task {task}"

    def watching_send(world: World, function: str, *args: Any, **kwargs: Any) -> Done:
        before = statuses(world)
        demand = function in ("answer", "unanswered")
        about = world.market.view("demands", args[0])[0] if demand else args[0] if args else 0
        done = send(world, function, *args, **kwargs)
        if function in {call for _, call, _ in transitions()} | set(enders()) and about in before:
            note(function, before, statuses(world), about)
        return done

    def watching_decide(world: World, dispute: int, *, convicted: bool) -> Done:
        before, about = statuses(world), world.market.view("disputes", dispute)[0]
        done = decide(world, dispute, convicted=convicted)
        note("onVerdict", before, statuses(world), about)
        return done

    with mock.patch.multiple(World, send=watching_send, decide=watching_decide):
        yield seen
