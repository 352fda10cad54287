# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation says what the code says."""

import re
from pathlib import Path

from protocol.task import Status
from scripts.operators import PAGE, page

ROOT = Path(__file__).parent.parent


def test_the_operators_page_is_what_the_tables_say() -> None:
    assert PAGE.read_text() == page(), "run `python -m scripts.operators`"


def test_statuses_are_those_of_the_contract_in_order() -> None:
    source = (ROOT / "contracts/market/MarketTypes.sol").read_text()
    body = re.search(r"enum Status \{(.*?)\}", source, re.DOTALL)
    assert body is not None
    members = [line.split("//")[0].strip().rstrip(",") for line in body.group(1).splitlines()]
    assert [m for m in members if m] == [status.name.capitalize() for status in Status]


def test_every_status_has_its_row_in_the_protocol_page() -> None:
    table = (ROOT / "docs/protocol.md").read_text()
    rows = " ".join(re.findall(r"^\| ([A-Z][A-Za-z, ]+) \|", table, re.MULTILINE))
    for status in Status:
        if status is not Status.NONE:
            assert status.name.capitalize() in rows


def test_links_between_the_pages_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
