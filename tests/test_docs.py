# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation says what the code says."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.page import PAGE as PERFORMANCE
from bench.page import with_table
from bitcourt import Job
from protocol.task import Status
from protocol.tracing.optimizers import STATE_KEYS
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


def test_links_between_the_pages_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_training_pages_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/training.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(source, names)
    assert names["trainer"].step == 50
    assert names["losses"][-1] < names["losses"][0]
    assert (tmp_path / "run/model.safetensors").is_file()


def test_the_readmes_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    inputs = torch.randn(256, 64)
    names: dict[str, Any] = {"inputs": inputs, "labels": inputs[:, :10].argmax(1)}
    exec(source, names)
    assert names["trainer"].step == 1000
    assert names["trainer"].losses[-1] < 0.5 * names["trainer"].losses[0]
    assert (tmp_path / "out/run").is_dir()


def test_the_training_page_lists_the_fields_of_a_job_and_the_optimizers() -> None:
    page = (ROOT / "docs/training.md").read_text()
    table = "".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE))
    assert {f.name for f in fields(Job)} == set(re.findall(r"`(\w+)`", table))
    for kind in STATE_KEYS:
        assert kind.__name__ in page


def test_every_test_that_the_threat_model_names_exists() -> None:
    page = (ROOT / "docs/threat-model.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    missing = {name for name in named if f"def {name}(" not in sources}
    assert len(named) > 40
    assert not missing
    for row in page.splitlines():
        if row.startswith("| ") and not row.startswith(("| attack", "|---")):
            assert "`test_" in row.split("|")[3], row


def test_the_performance_page_quotes_the_measured_figures() -> None:
    rows = json.loads((ROOT / "bench/results.json").read_text())
    assert with_table(PERFORMANCE.read_text(), rows) == PERFORMANCE.read_text()
    names = {row["name"] for row in rows}
    assert {"gemm_ratio_geomean", "step_ratio_geomean", "hash_fraction_of_openssl"} < names
    assert {"commit_overhead_percent", "jit_cold_seconds", "jit_warm_seconds"} < names
    assert "trace_ratio" in names
    memory = ("peak_memory_ratio", "trainer_memory_ratio")
    for family in ("step_ratio", "step_vs_compile", *memory):
        assert any(name.startswith(f"{family}/") for name in names)
