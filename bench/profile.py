# SPDX-License-Identifier: GPL-3.0-or-later
"""Time of each node of a training step, and of torch's own operators: `python -m bench.profile M`.

Kernels run on one thread in the order and on the memory of a step, but each as a call of its own,
so that it can be timed.
"""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from bench.models import NAMES, missing, model
from protocol.bundle import Bundle
from protocol.executor import NativeExecutor
from protocol.executor.access import body_of
from protocol.executor.emitter import Emitter
from protocol.executor.gemm.plan import find_product
from protocol.executor.kernel import Context
from protocol.executor.lane_kernel import is_lane_fold
from protocol.executor.memory import Placement
from protocol.executor.order import sources
from protocol.executor.scatter_kernel import find_scatter
from protocol.executor.target import host_target
from protocol.executor.team import address
from protocol.program import Fold, Kind, Node, Program

KERNEL: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
)
ROUNDS: Final = 7
LISTED: Final = 25
"""Nodes that are printed one by one, the slowest first."""


@dataclass(frozen=True)
class Timed:
    """One computed node: its number, its kernel's family, and the median seconds of a call."""

    number: int
    node: Node
    family: str
    seconds: float
    amount: float
    """Floating-point operations of a DOT, else bytes of result and operands."""

    @property
    def rate(self) -> str:
        """GFLOP/s of a DOT, GB/s of anything else."""
        unit = "GFLOP/s" if self.node.fold is Fold.DOT else "GB/s"
        return f"{self.amount / self.seconds / 1e9:7.1f} {unit}"


def family(program: Program, node: Node) -> str:
    """Return which generator makes the kernel of a computed node, and its fold."""
    if node.kind is not Kind.FOLD:
        return node.kind.name
    context = Context(Emitter(), node, body_of(program, node), host_target())
    if find_scatter(context) is not None:
        return f"scatter {node.fold.name}"
    if is_lane_fold(context):
        return f"lane {node.fold.name}"
    return f"{'tile' if find_product(context) is None else 'product'} {node.fold.name}"


class _Separate(NativeExecutor):
    """An executor that calls each kernel on its own and keeps how long each call took."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.program, bundle.inputs(bytes(32)))
        self.times: dict[int, list[float]] = {n: [] for n in self.order.numbers}

    def _run(self, place: Placement) -> None:
        scratch = address(self.team.scratch[0])
        for number, (entry, offset, units) in zip(
            self.order.numbers, self.team.script.calls.tolist(), strict=True
        ):
            kernel, pointers = KERNEL(entry), address(place.pointers) + offset
            began = time.perf_counter()
            kernel(pointers, scratch, 0, units)
            self.times[number].append(time.perf_counter() - began)


def profile(bundle: Bundle) -> list[Timed]:
    """Return every computed node of a step with its time, in program order."""
    program = bundle.program
    executor = _Separate(bundle)
    state = [tensor.copy() for tensor in bundle.state]
    for round_ in range(ROUNDS + 1):
        if round_ == 1:  # the first touches new memory
            executor.times = {n: [] for n in executor.times}
        executor.step(state, round_, out=state)  # in place, as training does
    result = []
    for number in sorted(executor.times):
        node = program.nodes[number]
        if node.fold is Fold.DOT:
            amount = 2.0 * node.numel * node.terms
        else:
            read = sum(program.nodes[s].numel for s in set(sources(node)))
            amount = 4.0 * (node.numel + read)
        seconds = statistics.median(executor.times[number])
        result.append(Timed(number, node, family(program, node), seconds, amount))
    return result


def _print(timed: list[Timed]) -> None:
    total = sum(t.seconds for t in timed)
    families: dict[str, list[Timed]] = {}
    for one in timed:
        families.setdefault(one.family, []).append(one)
    print(f"{len(timed)} kernels, {1e3 * total:.2f} ms")
    for name, members in sorted(families.items(), key=lambda f: -sum(t.seconds for t in f[1])):
        part = sum(t.seconds for t in members)
        amount = sum(t.amount for t in members) / part / 1e9
        unit = "GFLOP/s" if name.endswith("DOT") else "GB/s"
        print(
            f"  {name:14} {len(members):5} x {1e3 * part:9.2f} ms {100 * part / total:5.1f} %"
            f" {amount:7.1f} {unit}"
        )
    for one in sorted(timed, key=lambda t: -t.seconds)[:LISTED]:
        node = one.node
        code = len(node.expression.instructions) if node.expression else 0
        reduce = f" over {node.reduce}" if node.reduce else ""
        print(
            f"  {one.number:5} {one.family:14} {1e3 * one.seconds:8.3f} ms"
            f" {100 * one.seconds / total:5.1f} % {one.rate:16} {node.shape}{reduce}, {code} ops"
        )


def _torch(step: Callable[[], None]) -> None:
    step()
    with torch.profiler.profile() as found:
        for _ in range(ROUNDS):
            step()
    print(f"torch eager, {ROUNDS} steps:")
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=15))


def main() -> None:
    """Profile the models that are named on the command line, on one thread."""
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        reason = missing(name) if name in NAMES else f"choose from {', '.join(NAMES)}"
        if reason:
            print(f"{name}: {reason}")
            continue
        chosen = model(name)
        print(f"{name}, {chosen.parameters} parameters")
        _print(profile(chosen.bundle()))
        _torch(chosen.eager())


if __name__ == "__main__":
    main()
