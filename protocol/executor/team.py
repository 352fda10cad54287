# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a step's tasks in native code, on the caller's thread and on helpers that wait for steps.

A helper is a Python thread that stays inside one native call, which holds no lock, from its start
until the team ends. It sets its own floating-point environment to the default (fesetenv, C17 7.6)
when it starts, and tests it at every step like everybody else.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.executor import driver
from protocol.executor.module import Module
from protocol.executor.native import Library
from protocol.executor.order import Order
from protocol.executor.plan import ALIGNMENT
from protocol.executor.schedule import Task

Words = npt.NDArray[np.int64]
Addresses = npt.NDArray[np.uint64]


def aligned(size: int) -> npt.NDArray[np.uint8]:
    """Return uninitialized memory that begins at a cache line."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    skip = -raw.ctypes.data % ALIGNMENT
    return raw[skip : skip + size]


def address(array: npt.NDArray[Any]) -> int:
    """Return where an array begins."""
    return int(array.__array_interface__["data"][0])


@dataclass(frozen=True)
class Script:
    """What is to be run: calls in order, and tasks over them if they are shared among threads."""

    calls: Words
    tasks: Words
    after: Words
    places: npt.NDArray[np.intp]
    """Per pointer of each call: the node it belongs to, or the number of nodes for RAND's words."""
    offsets: Addresses
    """Per pointer of each call: its distance from where that begins, in bytes mod 2**64."""


def make_script(
    order: Order, module: Module, kernels: Mapping[str, int], tasks: Sequence[Task], nodes: int
) -> Script:
    """Lay out a step; `kernels` are addresses by name."""
    calls: list[tuple[int, int, int]] = []
    places: list[tuple[int, int]] = []
    for number in order.numbers:
        call = module.calls[number]
        calls.append((kernels[call.kernel], 8 * len(places), call.shape.units))
        places += [
            (number, 0),
            *((source.node, 4 * source.offset % (1 << 64)) for source in call.sources),
        ]
        if call.random:
            places.append((nodes, 0))
    rows: list[tuple[int, ...]] = []
    after: list[int] = []
    for task in tasks:
        rows.append((task.chunks, task.first, task.stop, len(after), len(after) + len(task.after)))
        after += task.after
    return Script(
        np.array(calls, np.int64).reshape(-1, driver.CALL),
        np.array(rows, np.int64).reshape(-1, driver.TASK),
        np.array(after, np.int64),
        np.array([place for place, _ in places], np.intp),
        np.array([offset for _, offset in places], np.uint64),
    )


class Team:
    """The threads that run one script."""

    def __init__(self, library: Library, script: Script, scratch: int, threads: int) -> None:
        """Prepare; helpers are started by the first `run`. `scratch` is bytes per thread."""
        self._library = library
        self.script = script
        self.scratch = [aligned(scratch) for _ in range(threads)]
        self._counters = aligned(driver.LINE * len(script.tasks))
        self._alone = library.function("alone")
        self._entry = library.function("run") if threads > 1 else self._alone
        self._process = 0

    def _start(self) -> None:
        """Begin with a new control block; after a fork the child has no helpers of its own."""
        script = self.script
        self._control = aligned(8 * driver.CONTROL).view(np.int64)
        self._control[:] = 0
        shared = len(self.scratch) > 1
        self._control[driver.COUNT] = len(script.tasks) if shared else len(script.calls)
        for place, table in (
            (driver.CALLS, script.calls),
            (driver.TASKS, script.tasks),
            (driver.AFTER, script.after),
            (driver.COUNTERS, self._counters),
        ):
            self._control[place] = address(table)
        self._arguments = address(self._control), address(self.scratch[0])
        helpers = [
            threading.Thread(
                target=_help,
                args=(self._library, self._control, scratch, script, self._counters),
                name="bitcourt-helper",
                daemon=True,
            )
            for scratch in self.scratch[1:]
        ]
        for helper in helpers:
            helper.start()
        if helpers:
            weakref.finalize(self, _end, self._library, self._control, helpers)
        self._process = os.getpid()

    def run(self, pointers: Addresses) -> int:
        """Run a step on what `pointers` (one per place of the script) point to.

        Returns nonzero if a thread has a wrong floating-point environment. If it is the caller's,
        nothing has been written.
        """
        if self._process != os.getpid():
            self._start()
        self._control[driver.POINTERS] = address(pointers)
        return int(self._entry(*self._arguments))

    def run_part(self, pointers: Addresses, first: int, stop: int, chunks: int) -> int:
        """Run calls `first` .. `stop`-1 only, in `chunks` parts that the threads share.

        Returns what `run` does.
        """
        if self._process != os.getpid():
            self._start()
        control = self._control
        whole = control[[driver.COUNT, driver.CALLS, driver.TASKS]]
        control[driver.POINTERS] = address(pointers)
        if chunks > 1 and len(self.scratch) > 1:
            task = np.array([chunks, first, stop, 0, 0], np.int64)
            control[driver.COUNT], control[driver.TASKS] = 1, address(task)
            found = self._entry(*self._arguments)
        else:
            control[driver.COUNT] = stop - first
            control[driver.CALLS] += self.script.calls.strides[0] * first
            found = self._alone(*self._arguments)
        control[[driver.COUNT, driver.CALLS, driver.TASKS]] = whole
        return int(found)


def _help(library: Library, control: Words, scratch: npt.NDArray[np.uint8], *kept: Any) -> None:
    """Serve until the end. The arguments keep alive what native code uses."""
    library.function("work")(address(control), address(scratch))


def _end(library: Library, control: Words, helpers: Sequence[threading.Thread]) -> None:
    library.function("stop")(address(control), 0)
    for helper in helpers:
        if helper is not threading.current_thread():
            helper.join()
