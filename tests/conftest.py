# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests share: one thread each, a Hypothesis profile, kernels, and the gas snapshot."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings

from protocol import transfers

# Before anything imports torch: tests run side by side, and idle OpenMP workers must not spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Time decides nothing here: a busy machine is no failure. `make test` is repeatable; `make fuzz`
# looks for new examples.
_SLOW_IS_FINE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("test", max_examples=50, derandomize=True, **_SLOW_IS_FINE)
settings.register_profile("fuzz", max_examples=2_000, print_blob=True, **_SLOW_IS_FINE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))

SNAPSHOT = Path(__file__).parent / "snapshots" / "gas.json"


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled kernels for this run only, as workers do; wait for stores however slow."""
    transfers.SECONDS = 3600.0
    if not hasattr(config, "workerinput"):
        folder = TemporaryDirectory(prefix="bitcourt-kernels-")
        config.add_cleanup(folder.cleanup)
        os.environ["BITCOURT_KERNEL_CACHE"] = folder.name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-snapshots",
        action="store_true",
        help="write the measured gas into tests/snapshots/gas.json instead of comparing",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: a worker that gets one last would work alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def gas_snapshot(request: pytest.FixtureRequest) -> Callable[[str, int], None]:
    """Return `check(name, gas)`: exactly the committed figure, or the new one when updating.

    Mark tests that use it with `pytest.mark.gas`, so that `make snapshot` runs them.
    """
    updating = request.config.getoption("--update-snapshots")

    def check(name: str, gas: int) -> None:
        if updating:
            _record(name, gas)
            return
        known = json.loads(SNAPSHOT.read_text()) if SNAPSHOT.is_file() else {}
        assert known.get(name) == gas, f"gas of {name!r} changed: run `make snapshot` if meant"

    return check


def _record(name: str, gas: int) -> None:
    """Merge one figure into the snapshot; other test processes may be doing the same."""
    SNAPSHOT.parent.mkdir(exist_ok=True)
    with SNAPSHOT.open("a+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.seek(0)
        figures = json.loads(handle.read() or "{}")
        figures[name] = gas
        handle.truncate(0)
        handle.write(json.dumps(figures, indent=2, sort_keys=True) + "\n")
