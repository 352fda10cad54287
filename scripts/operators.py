# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes docs/operators.md from the tracer's own tables: `python -m scripts.operators`."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from protocol import mathfn
from protocol.ops import SIGNATURES
from protocol.tracing import api
from protocol.tracing.lowering import LOWERINGS

PAGE = Path(__file__).parent.parent / "docs" / "operators.md"

HEAD = """\
# What can be traced, and what the referee computes

This page is written by `python -m scripts.operators` from the tracer's and the referee's own
tables.

## ATen operations

A training step is captured after PyTorch's core ATen decompositions, so a layer works if the
operations it decomposes into are below. Any other is refused by name, with the module
it comes from, before anything is posted.
"""

FUNCTIONS = """
## Functions

Transcendental functions are compositions of primitives inside the program. The largest error is in
units in the last place, measured against mpmath by `tests/test_mathfn.py`.

| function | at most (ulp) | primitives |
|---|---|---|
"""
_STATED = re.compile(r"At most ([0-9.]+) ulp; (\d+) instructions")

PRIMITIVES = """
## Primitives

The contract executes exactly one of these in a one-step proof. `f` is binary32, `i` a 32-bit
integer.

| primitive | code | operands | result |
|---|---|---|---|
"""


def page() -> str:
    """Text of the page."""
    families: dict[str, list[str]] = defaultdict(list)
    for name, function in LOWERINGS.items():
        families[function.__module__.rsplit(".", 1)[-1]].append(name)
    known = {family.__name__.rsplit(".", 1)[-1] for family in api.FAMILIES}
    lines = [HEAD]
    for family in sorted(known & families.keys()):
        names = ", ".join(f"`{name}`" for name in sorted(families[family]))
        lines.append(f"\n**{family.capitalize()}**: {names}\n")
    rows = [
        f"| {op.name} | 0x{op:02x} | {' '.join(signature.operands)} | {signature.result} |\n"
        for op, signature in sorted(SIGNATURES.items())
    ]
    return "".join([*lines, FUNCTIONS, *functions(), PRIMITIVES, *rows])


def functions() -> list[str]:
    """A row for each function, with what its docstring states."""
    stated = [(name, _STATED.search(f.__doc__ or "")) for name, f in vars(mathfn).items()]
    return [f"| {name} | {m.group(1)} | {m.group(2)} |\n" for name, m in stated if m is not None]


if __name__ == "__main__":
    PAGE.write_text(page())
