# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotes the figures of bench/results.json in docs/performance.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

PAGE: Final = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN: Final = "<!-- written by python -m bench -->\n"
END: Final = "<!-- end -->\n"
BY_SHAPE: Final = ("gemm_ratio", "conv_ratio")
"""Families whose many shapes share a row."""
_TARGET: Final = re.compile(r"(<=|>=) ([\d.]+)")


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the figures as a Markdown table that says which targets are missed."""
    lines = ["| figure | value | against | target |\n", "|---|---|---|---|\n"]
    shapes: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        family = row["name"].split("/")[0]
        if family.startswith(BY_SHAPE) and "/" in row["name"]:
            shapes.setdefault(family, []).append(row)
            continue
        unit = "" if row["unit"] == "ratio" else f" {row['unit']}"
        target = f"{row['target']}{', missed' if missed(row) else ''}" if row["target"] else "-"
        value = f"{row['value']:.3g}{unit}"
        lines.append(f"| `{row['name']}` | {value} | {row['baseline']} | {target} |\n")
    for family, members in shapes.items():
        low, high = (pick(members, key=lambda row: row["value"]) for pick in (min, max))
        worst = high["name"].removeprefix(f"{family}/")
        over = sum(missed(row) for row in members)
        lines.append(
            f"| `{family}/..` | {low['value']:.2f} to {high['value']:.2f} (`{worst}`) "
            f"| {len(members)} shapes | {high['target']}, missed by {over} |\n"
        )
    return "".join(lines)


def missed(row: Mapping[str, Any]) -> bool:
    """Whether a figure is on the wrong side of its target."""
    found = _TARGET.fullmatch(row["target"])
    if found is None:
        return False
    limit = float(found[2])
    return bool(row["value"] > limit if found[1] == "<=" else row["value"] < limit)


def with_table(page: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the page with its table replaced."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{table(rows)}{END}{after}"
