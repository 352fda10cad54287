# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiled kernels on disk, so that a program that has run here before starts at once.

`BITCOURT_KERNEL_CACHE` names the folder, or is `off`; by default it is `bitcourt/kernels` in the
user's cache folder (XDG base directory specification). A file's name is the hash of everything that
determines it: the text, the target, and the versions of LLVM. Machine code is worth as much as the
right to run as this user, so a folder or file that others own or could write to is not used, and
a file that is damaged, or belongs to another name, is removed and made again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Final

import llvmlite
import llvmlite.binding as llvm

from protocol.executor.target import Target

VARIABLE: Final = "BITCOURT_KERNEL_CACHE"
MAGIC: Final = b"BITCOURT kernel 1\n"
CAPACITY: Final = 1 << 28
"""Bytes that the folder may hold; the files that were used longest ago go first."""
TURNS: Final = 64
_DIGEST: Final = 32


def key(text: str, target: Target, speed: int) -> str:
    """Return the name of what this text compiles to."""
    versions = (llvmlite.__version__, *llvm.llvm_version_info, llvm.get_default_triple())
    head = repr((versions, target.cpu, target.features, speed))
    return sha256(head.encode() + b"\0" + text.encode()).hexdigest()


def folder() -> Path | None:
    """Return the folder, made if need be; None where there is to be none or it is not safe."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen == "off":
        return None
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        path = Path(chosen) if chosen else Path(base) / "bitcourt" / "kernels"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except (OSError, RuntimeError):
        return None
    return path if stat.S_ISDIR(found.st_mode) and _is_ours(found) else None


def _is_ours(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def load(place: Path, name: str) -> bytes | None:
    """Return what was saved under a name, None unless it is there and whole."""
    path = place / name
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:
        _remove(path)
        return None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        usable = stat.S_ISREG(found.st_mode) and _is_ours(found) and found.st_size <= CAPACITY
        content = file.read() if usable else b""
    payload = content[len(MAGIC) + _DIGEST :]
    if content[: len(MAGIC) + _DIGEST] != _header(name, payload):
        _remove(path)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # it was used just now
    return payload


def save(place: Path, name: str, payload: bytes) -> None:
    """Save under a name, all of it or nothing; a full or read-only disk is no error."""
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=place, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_header(name, payload) + payload)
            Path(temporary).replace(place / name)
        except OSError:
            _remove(Path(temporary))
            raise


_turns = itertools.count()


def trim_sometimes(place: Path) -> None:
    """Trim at the first of every `TURNS` calls: looking at all files takes time."""
    if next(_turns) % TURNS == 0:
        trim(place)


def trim(place: Path, capacity: int = CAPACITY) -> None:
    """Remove the files that were used longest ago until all fit."""
    with contextlib.suppress(OSError):
        files = [(entry.stat(), entry.path) for entry in os.scandir(place) if entry.is_file()]
        total = sum(found.st_size for found, _ in files)
        for found, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
            if total <= capacity:
                break
            _remove(Path(path))
            total -= found.st_size


def _header(name: str, payload: bytes) -> bytes:
    return MAGIC + sha256(name.encode() + b"\0" + payload).digest()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
