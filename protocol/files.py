# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from protocol.errors import ArtifactError


def write_whole(path: Path, data: bytes | Iterable[memoryview]) -> None:
    """Write a file so that readers, and whoever comes after a crash, see all of it or the old one.

    `data` are all bytes, or pieces of them that follow one another.

    Raises ArtifactError where it cannot be written (a full disk); the old file then stays.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.writelines([data] if isinstance(data, bytes) else data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error}") from None
