# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the static analyser Slither over the contracts: `python -m scripts.analyse`.

It lives in an environment of its own under `.toolchain/`, since its requirements do not fit
brownie's pins. Every finding has to be answered by a row of docs/static-analysis.md, every row has
to answer a finding.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from scripts import toolchain
from scripts.solc import CONTRACTS, SETTINGS

SLITHER_VERSION = "0.11.6"
ANSWERS = toolchain.ROOT / "docs" / "static-analysis.md"
_ROW = re.compile(r"^\| `([a-z0-9-]+)` \| `([^`]+)` \| (.+) \|$", re.MULTILINE)

# Runs inside Slither's environment; prints one JSON object with the findings.
CHILD = """\
import inspect, json, logging, sys
logging.disable(logging.CRITICAL)
from crytic_compile import CryticCompile
from crytic_compile.platform.solc_standard_json import SolcStandardJson
from slither import Slither
from slither.detectors import all_detectors
from slither.detectors.abstract_detector import AbstractDetector
request = json.load(sys.stdin)
slither = Slither(CryticCompile(SolcStandardJson(request["input"]), solc=request["solc"]))
for name in dir(all_detectors):
    found = getattr(all_detectors, name)
    if inspect.isclass(found) and issubclass(found, AbstractDetector):
        slither.register_detector(found)
print(json.dumps([finding for each in slither.run_detectors() for finding in each]))
"""


@dataclass(frozen=True)
class Finding:
    """What Slither says: its detector, how bad it thinks that is, the element, and a sentence."""

    check: str
    impact: str
    element: str
    text: str


@dataclass(frozen=True)
class Answer:
    """A row of the table: the detector, a pattern for whole element names, and the reason."""

    check: str
    element: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        """Whether this row answers a finding."""
        named = re.fullmatch(self.element, finding.element)
        return self.check == finding.check and named is not None


def read_answers(text: str) -> list[Answer]:
    """Return the rows of the table in a page. A bar inside a cell has a backslash before it."""
    return [Answer(c, element.replace("\\|", "|"), why) for c, element, why in _ROW.findall(text)]


def unanswered(
    findings: Iterable[Finding], answers: Iterable[Answer]
) -> tuple[list[Finding], list[Answer]]:
    """Return the findings that no row answers, and the rows that answer no finding."""
    findings, answers = list(findings), list(answers)
    left = [f for f in findings if not any(a.covers(f) for a in answers)]
    idle = [a for a in answers if not any(a.covers(f) for f in findings)]
    return left, idle


def findings() -> list[Finding]:
    """Analyse all contracts but the mocks. Raises CalledProcessError where Slither fails."""
    files = [p for p in sorted(CONTRACTS.rglob("*.sol")) if "mocks" not in p.parts]
    names = {p.relative_to(toolchain.ROOT).as_posix(): p.read_text() for p in files}
    wanted = ["abi", "metadata", "devdoc", "userdoc", "evm.bytecode", "evm.deployedBytecode"]
    selection = {"*": {"*": wanted, "": ["ast"]}}
    # Unoptimized: what is analysed is the source.
    settings = SETTINGS | {"optimizer": {"enabled": False}, "outputSelection": selection}
    sources = {name: {"content": text} for name, text in names.items()}
    request = {
        "solc": str(toolchain.ensure_solc()),
        "input": {"language": "Solidity", "sources": sources, "settings": settings},
    }
    python = toolchain.ensure_environment("slither", "slither-analyzer", SLITHER_VERSION)
    done = subprocess.run(
        [str(python), "-c", CHILD],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=toolchain.ROOT,
    )
    return [_finding(row) for row in json.loads(done.stdout.splitlines()[-1])]


def _finding(row: dict[str, object]) -> Finding:
    elements = row["elements"]
    if not isinstance(elements, list):
        raise TypeError("a finding has a list of elements")
    text = str(row["description"]).strip()
    return Finding(str(row["check"]), str(row["impact"]), _name(elements), text)


def _name(elements: list[dict[str, object]]) -> str:
    """Return `Contract.function` of what a finding is about."""
    if not elements:
        return "-"
    parts, place = [], elements[0]
    while isinstance(place, dict) and place.get("name"):
        if place.get("type") in ("function", "contract", "variable", "struct", "event"):
            parts.append(str(place["name"]))
        fields = place.get("type_specific_fields")
        place = fields.get("parent", {}) if isinstance(fields, dict) else {}
    return ".".join(reversed(parts)) or "-"


def main() -> int:
    """Print what is not answered; 1 if there is anything."""
    try:
        found = findings()
    except (subprocess.CalledProcessError, toolchain.ToolchainError) as error:
        print(f"analyse: {error}", file=sys.stderr)
        return 1
    left, idle = unanswered(found, read_answers(ANSWERS.read_text()))
    for finding in left:
        print(f"{finding.impact} {finding.check} {finding.element}: {finding.text}\n")
    for answer in idle:
        print(f"{ANSWERS.name} answers what is not found: {answer.check} {answer.element}")
    print(f"{len(found)} findings, {len(left)} not answered, {len(idle)} rows without a finding")
    return 1 if left or idle else 0


if __name__ == "__main__":
    sys.exit(main())
