# SPDX-License-Identifier: GPL-3.0-or-later
"""All mutants of a Solidity file in one: each mutated place asks whether its mutant is switched on.

A mutant is one comparison or connective replaced by its neighbour, one guard (`if (..) revert`)
dropped, or one other branch always or never taken: if no test takes a branch, never taking it
survives. Compiling hundreds of contracts would take hours, so the file is compiled once, with
`Mutant.on(k) ? mutated : original` at every place. The number of the mutant that is on is the
address of a library, which solc leaves open: linking switches one on (none at address 0).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scripts import solc

SWITCH: Final = "contracts/lib/Mutant.sol"
SWITCH_SOURCE: Final = """\
// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity ^0.8.30;

library MutantNumber {
    function nothing() external pure {}
}

library Mutant {
    function on(uint160 number) internal pure returns (bool) {
        return uint160(address(MutantNumber)) == number;
    }
}
"""
PLACEHOLDER: Final = re.compile(r"__\$[0-9a-f]{34}\$__")
"""What solc writes for the address of a library that is not linked."""

NEIGHBOURS: Final = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "&&": "||", "||": "&&",
}  # fmt: skip
CONDITIONS: Final = {
    "guard": ("without the guard", b"!Mutant.on(%d) && (%s)"),
    "always": ("always taken", b"Mutant.on(%d) || (%s)"),
    "never": ("never taken", b"!Mutant.on(%d) && (%s)"),
}
"""What is done to the condition of a branch, in words and in Solidity."""


@dataclass(frozen=True)
class Mutant:
    """One change: its number (from 1), its line, and what it does."""

    number: int
    line: int
    what: str

    @property
    def is_side(self) -> bool:
        """True if it takes away one side of a branch: if that survives, no test needs the side."""
        return self.what.startswith(tuple(words for words, _ in CONDITIONS.values()))


@dataclass(frozen=True)
class _Site:
    """A place in the source, in bytes: an expression that one mutant replaces."""

    start: int
    end: int
    operator: str
    """An operator between `left_end` and `right_start`, or one of `CONDITIONS`."""
    left_end: int = 0
    right_start: int = 0


def _range(node: dict[str, Any]) -> tuple[int, int]:
    start, length, _ = map(int, node["src"].split(":"))
    return start, start + length


def _walk(node: object) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "nodeType" in node:
            yield node
        for value in node.values():
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)


def _reverts(node: dict[str, Any]) -> bool:
    """Whether a statement does nothing but revert."""
    if node["nodeType"] == "Block":
        statements = node["statements"]
        return len(statements) == 1 and _reverts(statements[0])
    return bool(node["nodeType"] == "RevertStatement")


def _conditions(branch: dict[str, Any]) -> tuple[str, ...]:
    """Return what is done to the condition of an `if` or `?:`."""
    plain = branch["nodeType"] == "IfStatement" and not branch.get("falseBody")
    return ("guard",) if plain and _reverts(branch["trueBody"]) else ("always", "never")


def _sites(tree: dict[str, Any]) -> list[_Site]:
    found = []
    for function in _walk(tree):
        if function["nodeType"] not in ("FunctionDefinition", "ModifierDefinition"):
            continue
        for node in _walk(function.get("body") or {}):
            if node["nodeType"] == "BinaryOperation" and node["operator"] in NEIGHBOURS:
                left, right = _range(node["leftExpression"]), _range(node["rightExpression"])
                found.append(_Site(*_range(node), node["operator"], left[1], right[0]))
            elif node["nodeType"] in ("IfStatement", "Conditional"):
                whole = _range(node["condition"])
                found += [_Site(*whole, kind) for kind in _conditions(node)]
    order = {kind: place for place, kind in enumerate(CONDITIONS)}
    return sorted(set(found), key=lambda s: (s.start, -s.end, order.get(s.operator, len(order))))


def _tree(file: str, sources: dict[str, str]) -> dict[str, Any]:
    """Return solc's syntax tree of one file."""
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources.items()},
        "settings": {"outputSelection": {"*": {"": ["ast"]}}},
    }
    tree: dict[str, Any] = solc.run(request)["sources"][file]["ast"]
    return tree


class _Rewriter:
    """Rewrites one file from its innermost sites outwards."""

    def __init__(self, text: bytes, sites: list[_Site]) -> None:
        self.text = text
        self.sites = sites
        self.mutants: list[Mutant] = []

    def rewrite(self, start: int, end: int, sites: list[_Site]) -> bytes:
        """Return the source between two places with all its sites made switchable."""
        result, at = b"", start
        while sites:
            site, *rest = sites
            inner = [s for s in rest if s.end <= site.end]
            sites = [s for s in rest if s.end > site.end]
            result += self.text[at : site.start] + self._switched(site, inner)
            at = site.end
        return result + self.text[at:end]

    def _switched(self, site: _Site, inner: list[_Site]) -> bytes:
        number = len(self.mutants) + 1
        line = self.text.count(b"\n", 0, site.start) + 1
        shown = " ".join(self.text[site.start : site.end].decode().split())
        if site.operator in CONDITIONS:
            what, form = CONDITIONS[site.operator]
            self.mutants.append(Mutant(number, line, f"{what}: {shown}"))
            return b"(" + form % (number, self.rewrite(site.start, site.end, inner)) + b")"
        other = NEIGHBOURS[site.operator]
        self.mutants.append(Mutant(number, line, f"{site.operator} becomes {other}: {shown}"))
        left = self.rewrite(site.start, site.left_end, [s for s in inner if s.end <= site.left_end])
        right = self.rewrite(
            site.right_start, site.end, [s for s in inner if s.start >= site.right_start]
        )
        one, two = site.operator.encode(), other.encode()
        return b"(Mutant.on(%d) ? (%s) %s (%s) : (%s) %s (%s))" % (
            number, left, two, right, left, one, right,
        )  # fmt: skip


def instrument(root: Path, file: str) -> tuple[str, list[Mutant]]:
    """Return the source of `file` (relative to the checkout `root`) with all its mutants in it."""
    sources = {
        path.relative_to(root).as_posix(): path.read_text()
        for path in sorted((root / "contracts").rglob("*.sol"))
    }
    text = sources[file].encode()
    sites = _sites(_tree(file, sources))
    rewriter = _Rewriter(text, sites)
    body = rewriter.rewrite(0, len(text), sites).decode()
    if not rewriter.mutants:
        return sources[file], []
    up = "../" * (file.count("/") - 1)
    place = f"{up}{SWITCH.removeprefix('contracts/')}"
    switch = f'import {{Mutant}} from "{place if up else "./" + place}";'
    return re.sub(r"(pragma solidity [^;]+;)", rf"\1\n{switch}", body, count=1), rewriter.mutants
