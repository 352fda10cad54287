# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiles LLVM IR in child processes, several texts at a time.

A child that LLVM takes down costs one error, not the solver. Children stay for the next texts until
they have been idle for a minute; they end with this process.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final

from protocol.errors import NumericsError
from protocol.executor import compiler
from protocol.executor.target import Target

MOST_CHILDREN: Final = 8
_MESSAGE: Final = 2000
"""Characters of a dead child's last words that are passed on."""


class _Gone(Exception):
    """A child ended without an answer, for no reason of the text's."""


class _Child:
    """A process that compiles one text at a time."""

    def __init__(self) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child
        # -P: modules beside the script must not hide those of the standard library.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(compiler.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
        )

    def compile(self, text: str, target: Target, speed: int) -> bytes:
        """Return the object file. Raises NumericsError, or _Gone where another child may do it."""
        encoded = text.encode()
        request = {
            "cpu": target.cpu, "features": target.features, "speed": speed, "size": len(encoded),
        }  # fmt: skip
        requests, answers = self._pipes()
        with contextlib.suppress(BrokenPipeError):  # its end is seen below
            requests.write(json.dumps(request).encode() + b"\n" + encoded)
            requests.flush()
        word, _, size = answers.readline().partition(b" ")
        found = answers.read(int(size)) if size.endswith(b"\n") else b""
        if not size.endswith(b"\n") or len(found) != int(size):
            raise self._failure()
        if word != b"ok":
            message = found.decode(errors="replace")
            raise NumericsError(f"LLVM refuses a generated kernel: {message}")
        return found

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise TypeError("a compiler has pipes")
        return self._process.stdin, self._process.stdout

    def _failure(self) -> Exception:
        """End it, and return what its end means."""
        status = self._end()
        self._words.seek(0)
        words = self._words.read()[-_MESSAGE:].decode(errors="replace").strip()
        if status == 0:
            return _Gone()  # it had been idle for too long
        return NumericsError(
            f"the compiler ended with status {status} on a generated kernel, so this program "
            f"cannot be run here: {words or 'it said nothing'}"
        )

    def _end(self) -> int:
        for pipe in self._pipes():
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return self._process.wait()

    def stop(self) -> None:
        """End it, and give back what it held."""
        self._end()
        self._words.close()


class _Pool:
    """Children that are free, and threads that wait for those that are not."""

    def __init__(self) -> None:
        self.size = max(1, min(MOST_CHILDREN, len(os.sched_getaffinity(0))))
        self._lock = threading.Lock()
        self._free: list[_Child] = []

    def compile(self, text: str, target: Target, speed: int) -> bytes:
        """Compile with a free child, or a new one where it had ended."""
        while True:
            with self._lock:
                child = self._free.pop() if self._free else None
            new = child is None
            child = child or _Child()
            try:
                found = child.compile(text, target, speed)
            except _Gone as gone:
                child.stop()
                if new:
                    raise NumericsError("the compiler ends as soon as it starts") from gone
                continue
            except NumericsError:
                child.stop()
                raise
            with self._lock:
                self._free.append(child)
            return found

    def stop(self) -> None:
        """End all children that are free."""
        with self._lock:
            children, self._free = self._free, []
        for child in children:
            child.stop()


_pool = _Pool()
_inherited: list[_Pool] = []


def _after_fork() -> None:
    """Leave the parent's children to the parent."""
    global _pool
    _inherited.append(_pool)  # dropping it would close what the parent uses
    _pool = _Pool()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _pool.stop())


def compile_all(texts: Sequence[str], target: Target, speed: int) -> list[bytes]:
    """Return the object file of each text, compiled side by side.

    Raises NumericsError where LLVM refuses a text or dies of it.
    """
    if len(texts) < 2:
        return [_pool.compile(text, target, speed) for text in texts]
    with ThreadPoolExecutor(min(_pool.size, len(texts))) as threads:
        return list(threads.map(lambda text: _pool.compile(text, target, speed), texts))
