# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of docs/protocol.md are what the contracts do."""

from __future__ import annotations

import re

from protocol import rules
from protocol.task import NO_SEAT, Status
from tests.market_table import ROOT, cells, transitions

SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "contracts/market").glob("*.sol")))


def test_every_constant_of_the_market_is_in_the_table_with_its_value() -> None:
    declared = dict(re.findall(r"constant ([A-Z_]+) = ([^;]+);", SOURCES))
    # Neither a rule nor a deadline: bytes of a chunk, an address, numbers that stand for nothing.
    for name in ("CHUNK_BYTES", "BURN_ADDRESS", "NO_SEAT", "AFTER_DRAWN"):
        del declared[name]
    assert declared == {row[0].strip("`"): row[1] for row in cells("constant")}


def test_the_clients_constants_are_the_contracts() -> None:
    declared = dict(re.findall(r"constant ([A-Z_]+) = ([^;]+);", SOURCES))
    assert int(declared["NO_SEAT"]) == NO_SEAT
    numbers = {name: value for name, value in vars(rules).items() if isinstance(value, int)}
    assert len(numbers) >= 11
    seconds = {name: text.replace("days", "* 86400") for name, text in declared.items()}
    assert numbers == {name: eval(seconds[name]) for name in numbers}


def test_every_status_but_the_final_ones_has_a_call_that_anybody_may_make() -> None:
    anybody = {row[0] for row in cells("status") if row[2] == "anybody"}
    names = [s.name.capitalize() for s in Status if s is not Status.NONE and not s.final]
    assert set(names) == anybody


def test_every_status_is_in_the_table() -> None:
    assert {s for before, _, after in transitions() for s in (before, after)} == set(Status)


def test_no_final_status_is_ever_left() -> None:
    assert not any(before.final for before, _, _ in transitions())
