# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of the repository: who may import whom, and what a committed file may hold."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("protocol", "solver", "verifier", "bitcourt")
# The left may import the right; contracts and protocol know nobody.
MAY_IMPORT = {
    "protocol": {"protocol"},
    "solver": {"protocol", "solver"},
    "verifier": {"protocol", "verifier"},
    "bitcourt": {"protocol", "solver", "verifier", "bitcourt"},
}
DEVELOPERS_ONLY = {"scripts", "tests", "bench", "brownie", "solcx", "pytest", "hypothesis"}
MAX_LINES = 400
SPDX = "SPDX-License-Identifier: GPL-3.0-or-later"


def tracked_files() -> list[Path]:
    """Every file that is committed, or that would be: what git ignores is left out."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def source_files(suffix: str) -> list[Path]:
    files = [path for path in tracked_files() if path.suffix == suffix]
    assert files, f"no {suffix} files found: the test looks in the wrong place"
    return files


def imports(source: str, package: str) -> set[str]:
    """The dotted names that a module of `package` imports, relative ones resolved."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            # `from package import x` may import the module package.x.
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def top_level_imports(file: Path) -> set[str]:
    package = ".".join(file.relative_to(ROOT).parent.parts)
    return {name.split(".")[0] for name in imports(file.read_text(), package)}


def test_imports_finds_plain_from_relative_and_nested_ones() -> None:
    source = "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\ndef h():\n import i"
    found = imports(source, "top.sub")
    assert {"a.b", "c.d", "top.sub.e", "top.f.g", "i"} <= found


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_what_lies_below_it(package: str) -> None:
    forbidden = set(PACKAGES) - MAY_IMPORT[package] | DEVELOPERS_ONLY
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {
        file.relative_to(ROOT).as_posix(): bad
        for file in files
        if (bad := top_level_imports(file) & forbidden)
    }
    assert not wrong


def test_only_protocol_chain_imports_web3() -> None:
    importers = {
        file.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        if "web3" in top_level_imports(file)
    }
    strangers = {name for name in importers if not name.startswith("protocol/chain")}
    assert not strangers


def test_every_folder_of_modules_is_a_package() -> None:
    """Without `__init__.py` a folder would be left out of the built package."""
    folders = {file.parent for package in PACKAGES for file in (ROOT / package).rglob("*.py")}
    strays = {f.relative_to(ROOT).as_posix() for f in folders if not (f / "__init__.py").is_file()}
    assert strays == set()


@pytest.mark.parametrize("suffix", [".py", ".sol"])
def test_no_source_file_is_longer_than_the_limit(suffix: str) -> None:
    lengths = {
        file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines())
        for file in source_files(suffix)
    }
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


@pytest.mark.parametrize("suffix", [".py", ".sol", ".sh", "Makefile", "run"])
def test_source_files_name_the_licence_at_the_top(suffix: str) -> None:
    files = [
        file
        for file in tracked_files()
        if (file.suffix == suffix if suffix.startswith(".") else file.name == suffix)
    ]
    missing = [
        file.relative_to(ROOT).as_posix()
        for file in files
        if file.stat().st_size and SPDX not in "".join(file.read_text().splitlines(True)[:3])
    ]
    assert missing == []


def test_no_committed_file_names_a_machine_path_or_a_registry_host() -> None:
    # Spelt in parts, so that this file does not convict itself.
    forbidden = re.compile(
        "|".join(
            [
                r"(?<![\w.~}$-])/(?:home|Users|root)/" + r"[\w.]+",
                r"(?<![\w.~}$-])/tmp" + r"/[\w.]+",
                r"registry\.npm" + r"js\.org",
                r"(?:files\.python" + r"hosted|pypi)\.org",
                r"(?:binaries\.solidity" + r"lang)\.org",
            ]
        )
    )
    wrong: dict[str, list[str]] = {}
    for file in tracked_files():
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        if found := forbidden.findall(text):
            wrong[file.relative_to(ROOT).as_posix()] = found
    assert wrong == {}
