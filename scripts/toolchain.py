# SPDX-License-Identifier: GPL-3.0-or-later
"""Find or install the two tools that pip cannot bring: the Solidity compiler and anvil.

Everything installed goes into `.toolchain/` in the checkout (ignored by git); nothing is downloaded
again once it is there. The compiler is looked for in this order:

1. `solc` on PATH, if it is exactly the pinned version;
2. the install folder of py-solc-x (`~/.solcx`), if what lies there is not our own shim;
3. the WebAssembly build already in `.toolchain/`;
4. a native download through py-solc-x, given up after a few seconds;
5. the WebAssembly build from npm, behind a small shell script.

The four give identical bytecode; the native ones are faster. Brownie only looks in `~/.solcx`, so a
shim is written there unless a working compiler of that name exists.

Run `python -m scripts.toolchain` to install both and print where they are.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOLC_VERSION = "0.8.30"
ANVIL_VERSION = "1.7.1"

ROOT = Path(__file__).resolve().parent.parent
TOOLCHAIN = ROOT / ".toolchain"
SOLCX_NAME = f"solc-v{SOLC_VERSION}"
SHIM_MARK = "# Written by scripts/toolchain.py."

# Speaks the two parts of solc's command line that brownie and scripts/solc.py use. The package's
# own solcjs is not enough: it prints other lines around the JSON.
DRIVER = """\
const solc = require("solc");
if (process.argv.includes("--version")) {
  console.log("solc, the solidity compiler commandline interface");
  console.log("Version: " + solc.version());
} else if (process.argv.includes("--standard-json")) {
  const fs = require("fs");
  // brownie sends only files that define contracts; like the native solc, read others from disk.
  const read = (path) => {
    try {
      return { contents: fs.readFileSync(path, "utf8") };
    } catch (error) {
      return { error: error.message };
    }
  };
  process.stdout.write(solc.compile(fs.readFileSync(0, "utf8"), { import: read }));
} else {
  console.error("this build of solc answers only --version and --standard-json");
  process.exitCode = 1;
}
"""


class ToolchainError(Exception):
    """A tool is missing and could not be installed. The message says what to do."""


@contextmanager
def _lock() -> Iterator[None]:
    """Let one process at a time install, so that parallel tests do not trip over each other."""
    TOOLCHAIN.mkdir(exist_ok=True)
    with (TOOLCHAIN / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _is_pinned_solc(executable: Path) -> bool:
    """Tell whether `executable` runs and is solc of exactly the pinned version."""
    try:
        done = subprocess.run(
            [str(executable), "--version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return f"Version: {SOLC_VERSION}+" in done.stdout


def _solcx_executable() -> Path:
    folder = os.environ.get("SOLCX_BINARY_PATH")
    return (Path(folder) if folder else Path.home() / ".solcx") / SOLCX_NAME


def _is_shim(executable: Path) -> bool:
    with executable.open("rb") as handle:
        return SHIM_MARK.encode() in handle.read(200)


def _native_solc() -> Path | None:
    """Return a native compiler that is already installed, if there is one."""
    on_path = shutil.which("solc")
    if on_path and not _is_shim(Path(on_path)) and _is_pinned_solc(Path(on_path)):
        return Path(on_path)
    solcx = _solcx_executable()
    if solcx.is_file() and not _is_shim(solcx) and _is_pinned_solc(solcx):
        return solcx
    return None


def _download_native_solc() -> Path | None:
    """Let py-solc-x download the native compiler; None where it or the network is absent."""
    # Two calls, so that a network that answers nothing costs seconds and a slow one is waited for.
    for code, seconds in (
        ("import solcx; solcx.get_installable_solc_versions()", 10),
        (f"import solcx; solcx.install_solc('{SOLC_VERSION}', show_progress=False)", 180),
    ):
        try:
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, timeout=seconds, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
    found = _solcx_executable()
    return found if found.is_file() and _is_pinned_solc(found) else None


def _npm_install(folder: Path, package: str) -> None:
    """Install one npm package, without running its install scripts, into `folder`."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise ToolchainError(
            f"{package} is needed and comes from npm, but Node.js is not installed. Install Node.js"
            " 18 or newer (it brings npm), or put the tool itself on PATH, and run this again."
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Its own package.json keeps npm from walking up to some other project's.
    (folder / "package.json").write_text('{"private": true}\n')
    quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    command = [npm, "install", *quiet, "--ignore-scripts", "--prefix", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolchainError(f"npm could not install {package}:\n{done.stderr.strip()}")


def _wasm_solc(install: bool) -> Path | None:
    """Return the shell script that runs the WebAssembly build; install it first if `install`."""
    folder = TOOLCHAIN / f"solc-{SOLC_VERSION}"
    script = folder / "solc"
    driver = folder / "driver.js"
    if not script.is_file() and install:
        _npm_install(folder, f"solc@{SOLC_VERSION}")
        # Relative, so that a copied or moved checkout keeps working.
        _write_script(script, 'exec node "$(dirname "$0")/driver.js" "$@"')
    if not script.is_file():
        return None
    if not driver.is_file() or driver.read_text() != DRIVER:
        driver.write_text(DRIVER)
    return script


def _write_script(path: Path, command: str) -> None:
    """Write an executable shell script in one step, so that nobody runs half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(f"#!/bin/sh\n{SHIM_MARK}\n{command}\n")
    fresh.chmod(0o755)
    fresh.replace(path)


def ensure_solc() -> Path:
    """Return an executable `solc` of the pinned version, installing one if there is none.

    It understands `--version` and `--standard-json`. Raises ToolchainError with the remedy.
    """
    with _lock():
        found = _native_solc() or _wasm_solc(install=False) or _download_native_solc()
        found = found or _wasm_solc(install=True)
        if found is None or not _is_pinned_solc(found):
            raise ToolchainError(f"solc {SOLC_VERSION} was installed but does not run")
        solcx = _solcx_executable()
        # A shim of another checkout is replaced: that checkout may be gone tomorrow.
        if found != solcx and (not solcx.is_file() or _is_shim(solcx)):
            command = f'exec "{found}" "$@"'
            if not solcx.is_file() or command not in solcx.read_text():
                _write_script(solcx, command)
        return found


def ensure_anvil() -> Path:
    """Return an executable anvil of the pinned version, installing it if there is none.

    Raises ToolchainError where the platform has no build or Node.js is missing.
    """
    with _lock():
        folder = TOOLCHAIN / f"anvil-{ANVIL_VERSION}"
        found = _anvil_in(folder)
        if found is None:
            _npm_install(folder, f"@foundry-rs/anvil@{ANVIL_VERSION}")
            found = _anvil_in(folder)
        if found is None:
            raise ToolchainError(f"npm has no anvil {ANVIL_VERSION} for this platform")
        return found


def _anvil_in(folder: Path) -> Path | None:
    # The platform's own package holds the binary; the `anvil` package is only a launcher.
    return next(iter(sorted(folder.glob("node_modules/@foundry-rs/anvil-*/bin/anvil"))), None)


def ensure_environment(name: str, package: str, version: str) -> Path:
    """Return the Python of a tool's own environment, installing the package if it is not there."""
    folder = TOOLCHAIN / f"{name}-{version}"
    python, done = folder / "bin" / "python", folder / "complete"
    if not done.exists():
        print(f"installing {name} {version}")
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*command, f"{package}=={version}"], check=True)
        done.touch()
    return python


def link_tools() -> dict[str, Path]:
    """Put both tools, installed where missing, into `.toolchain/bin` and return them by name."""
    tools = {"solc": ensure_solc(), "anvil": ensure_anvil()}
    folder = TOOLCHAIN / "bin"
    folder.mkdir(exist_ok=True)
    for name, tool in tools.items():
        _write_script(folder / name, f'exec "{tool}" "$@"')
    return tools


def main() -> int:
    """Install what is missing and print where the tools are."""
    try:
        for name, tool in link_tools().items():
            print(f"{name}: {tool}")
    except ToolchainError as error:
        print(f"toolchain: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
