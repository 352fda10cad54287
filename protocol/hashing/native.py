# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads the native code once per process and runs it, on several threads if that pays."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from protocol.errors import NumericsError
from protocol.hashing import portable, trees
from protocol.hashing.portable import HASH_BYTES, LEAF_BYTES

THREAD_BYTES: Final = 1 << 20
"""Bytes that a further thread must have to hash, or starting it costs more than it saves."""

Entry = Callable[[int, int], int]
Hashes = npt.NDArray[np.uint8]

log = logging.getLogger("bitcourt")


def cores() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


class NativeTrees:
    """Tensor trees with the SHA instructions of this CPU. Calls let other Python threads run."""

    def __init__(self) -> None:
        """Compile, or load from the cache. Raises NumericsError where that cannot be done."""
        # Here, because programs are hashed by modules that the executor itself needs.
        from protocol.executor.native import Library
        from protocol.executor.target import host_target, machine

        target = host_target()
        if machine() != "x86_64" or not (target.has("sha") and target.has("ssse3")):
            raise NumericsError("this CPU has no SHA instructions that Bitcourt knows")
        library = Library([trees.trees_text(target.attributes)], target)
        self._units: Entry = library.function("units")
        self._finish: Entry = library.function("finish")

    def roots(self, views: Sequence[memoryview], threads: int) -> list[bytes]:
        """Return the root of the tree over each buffer (none is empty)."""
        counts = [_leaves(view) for view in views]
        units = [-(-count // trees.UNIT) for count in counts]
        out = np.empty((sum(units), HASH_BYTES), np.uint8)
        places = [0, *np.cumsum(units).tolist()][:-1]
        self._run(views, counts, out, places, False, threads)
        return [out[place].tobytes() for place in places]

    def levels(self, view: memoryview, threads: int) -> list[bytes]:
        """Return all levels of one tree, packed hashes, from the leaves up."""
        widths = [_leaves(view)]
        while widths[-1] > 1:
            widths.append((widths[-1] + 1) // 2)
        out = np.empty((sum(widths), HASH_BYTES), np.uint8)
        self._run([view], widths[:1], out, [0], True, threads)
        ends = np.cumsum(widths).tolist()
        return [out[end - width : end].tobytes() for width, end in zip(widths, ends, strict=True)]

    def _run(
        self,
        views: Sequence[memoryview],
        counts: Sequence[int],
        out: Hashes,
        places: Sequence[int],
        keep: bool,
        threads: int,
    ) -> None:
        """Hash all buffers; the hashes of buffer i begin at `out[places[i]]`."""
        arrays = [np.frombuffer(view, np.uint8) for view in views]
        begin = _address(out)
        jobs = np.empty((len(views), trees.JOB), np.int64)
        first = 0
        for number, (array, count, place) in enumerate(zip(arrays, counts, places, strict=True)):
            where = begin + HASH_BYTES * place
            jobs[number] = (_address(array), array.size, count, where, keep, first)
            first += -(-count // trees.UNIT)
        control = np.array([_address(jobs), len(views), first, 0], np.int64)
        total = sum(array.size for array in arrays)
        helpers = [
            threading.Thread(target=self._units, args=(_address(control), 0))
            for _ in range(min(threads, total // THREAD_BYTES, first) - 1)
        ]
        for helper in helpers:
            helper.start()
        self._units(_address(control), 0)
        for helper in helpers:
            helper.join()
        self._finish(_address(control), 0)


def _leaves(view: memoryview) -> int:
    return -(-len(view) // LEAF_BYTES)


def _address(array: npt.NDArray[np.uint8] | npt.NDArray[np.int64]) -> int:
    return int(array.__array_interface__["data"][0])


def self_check(native: NativeTrees) -> None:
    """Compare with hashlib. Raises NumericsError if a hash differs."""
    sizes = (4, 52, 56, 64, 1020, 1024, 2048, 3 * LEAF_BYTES + 8, 131 * LEAF_BYTES + 60)
    data = memoryview(np.random.default_rng(1).bytes(sizes[-1]))
    wanted = [portable.levels(data[-size:]) for size in sizes]
    if native.roots([data[-size:] for size in sizes], 2) != [level[-1] for level in wanted]:
        raise NumericsError("native hashing differs from hashlib")
    if native.levels(data, 2) != wanted[-1]:
        raise NumericsError("native trees differ from hashlib's")


@lru_cache(maxsize=1)
def load() -> NativeTrees | None:
    """Return the native code, tested, or None where this machine has to do without."""
    try:
        native = NativeTrees()
        self_check(native)
    except (NumericsError, OSError) as error:
        log.info("hashing without native code: %s", error)
        return None
    return native
