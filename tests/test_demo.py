# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo trains a real model through the protocol and reports what it says it reports."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from bitcourt.demo import run_demo


@pytest.mark.slow
def test_the_demo_pays_the_honest_solver_and_convicts_the_cheater(tmp_path: Path) -> None:
    printed = io.StringIO()
    run_demo(tmp_path / "demo", Console(file=printed, width=200))
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    honest, cheater = report["runs"]

    assert (honest["name"], honest["status"]) == ("honest", "Settled")
    assert honest["test_accuracy"] >= 0.9
    assert honest["paid"]["solver"] > 10**18
    assert honest["gas"]["total"] > 0
    assert "dispute" not in honest

    assert (cheater["name"], cheater["status"]) == ("cheater", "Slashed")
    assert cheater["slashed_wei"] == 5 * 10**17
    assert "solver" not in cheater["paid"]
    dispute = cheater["dispute"]
    assert dispute["moves"] == len(dispute["path"]) - 1
    assert set(dispute["gas"]) >= {"open_max", "point_max", "one_step_proof", "total"}
    assert all(gas > 0 for gas in dispute["gas"].values())
    assert dispute["op"] == "FMA"
    assert "sum of products (64, 64), 64 terms, for model.0.weight" in dispute["source"]
    assert isinstance(dispute["step"], int)
    assert isinstance(dispute["element"], int)
    for name in ("claimed_bits", "recomputed_bits"):
        assert re.fullmatch(r"0x[0-9a-f]{8}", dispute[name])
    assert dispute["claimed_bits"] != dispute["recomputed_bits"]

    story = printed.getvalue()
    assert f"verifier points at step {dispute['step']}" in story
    assert dispute["recomputed_bits"] in story
    assert "test accuracy" in story
