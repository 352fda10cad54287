# SPDX-License-Identifier: GPL-3.0-or-later
"""The toolchain script prefers what is there, repairs what is broken and says what is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts import toolchain


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on PATH but what a test puts into `bin`, and no network."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("SOLCX_BINARY_PATH", str(tmp_path / "solcx"))
    monkeypatch.setattr(toolchain, "TOOLCHAIN", tmp_path / "toolchain")
    monkeypatch.setattr(toolchain, "_download_native_solc", lambda: None)
    real_which = toolchain.shutil.which
    monkeypatch.setattr(
        toolchain.shutil, "which", lambda name: real_which(name, path=str(tmp_path / "bin"))
    )
    return tmp_path


def fake_solc(path: Path, version: str = toolchain.SOLC_VERSION) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'Version: {version}+commit.0'\n")
    path.chmod(0o755)
    return path


def test_without_node_the_error_says_what_to_install(machine: Path) -> None:
    with pytest.raises(toolchain.ToolchainError, match=r"Node\.js is not installed"):
        toolchain.ensure_solc()
    with pytest.raises(toolchain.ToolchainError, match=r"anvil.*Node\.js is not installed"):
        toolchain.ensure_anvil()


def test_the_pinned_compiler_on_path_is_used_and_brownie_finds_it(machine: Path) -> None:
    native = fake_solc(machine / "bin" / "solc")
    assert toolchain.ensure_solc() == native
    shim = machine / "solcx" / toolchain.SOLCX_NAME
    done = subprocess.run([shim, "--version"], capture_output=True, text=True, check=True)
    assert toolchain.SOLC_VERSION in done.stdout


def test_another_version_on_path_is_not_used(machine: Path) -> None:
    fake_solc(machine / "bin" / "solc", version="0.8.29")
    with pytest.raises(toolchain.ToolchainError):
        toolchain.ensure_solc()


def test_a_native_compiler_of_py_solc_x_is_left_alone(machine: Path) -> None:
    native = fake_solc(machine / "solcx" / toolchain.SOLCX_NAME)
    before = native.read_text()
    assert toolchain.ensure_solc() == native
    assert native.read_text() == before


def test_a_shim_of_a_checkout_that_is_gone_is_replaced(machine: Path) -> None:
    fake_solc(machine / "bin" / "solc")
    shim = machine / "solcx" / toolchain.SOLCX_NAME
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\n{toolchain.SHIM_MARK}\nexec "{machine}/gone/solc" "$@"\n')
    shim.chmod(0o755)
    toolchain.ensure_solc()
    subprocess.run([shim, "--version"], capture_output=True, check=True)


def test_asking_twice_writes_nothing_the_second_time(machine: Path) -> None:
    fake_solc(machine / "bin" / "solc")
    toolchain.ensure_solc()
    shim = machine / "solcx" / toolchain.SOLCX_NAME
    before = shim.stat()
    toolchain.ensure_solc()
    assert (shim.stat().st_ino, shim.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
