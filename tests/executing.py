# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the compiled executor in tests: targets, comparison, and an oracle for large folds.

Small programs are compared with the reference interpreter. Large folds are compared with numpy: its
additions are binary32, and `fma_by_doubles` is a fused multiply-add without fused hardware.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from protocol.execution import Bits
from protocol.executor import CompiledExecutor, Target, host_target
from protocol.executor.module import Call, build_module
from protocol.executor.order import Order, make_order
from protocol.executor.plan import Plan, make_plan
from protocol.executor.schedule import Task, make_tasks, waits
from protocol.ops import Op
from protocol.program import Flat, Kind, Program
from protocol.reference import ReferenceExecutor
from tests import float_vectors
from tests.hand_built import Builder, Case, case_of, expression

TARGETS = {
    "this machine": host_target(),
    "avx2 with fma": Target("haswell", "+avx,+avx2,+fma,+sse4.2"),
    "avx2 without fma": Target("haswell", "+avx,+avx2,-fma,+sse4.2"),
    "plain x86-64": Target("x86-64", ""),
}


def on_this_cpu(target: Target) -> bool:
    """Whether the code may run here: all features asked for are there."""
    asked = {f for f in target.features.split(",") if f.startswith("+")}
    return asked <= set(host_target().features.split(","))


USABLE = {name: target for name, target in TARGETS.items() if on_this_cpu(target)}
targets = pytest.mark.parametrize("target", USABLE.values(), ids=USABLE)
two_targets = pytest.mark.parametrize(
    "target", [host_target(), TARGETS["plain x86-64"]], ids=["this machine", "plain x86-64"]
)


def assert_equal(found: Bits, wanted: Bits, what: object) -> None:
    assert found.dtype == np.uint32
    assert found.shape == wanted.shape, what
    wrong = np.flatnonzero(found.reshape(-1) != wanted.reshape(-1))
    if wrong.size:
        e = wrong[0]
        pair = f"{found.reshape(-1)[e]:08x}, not {wanted.reshape(-1)[e]:08x}"
        pytest.fail(f"{wrong.size} elements differ, the first at {e}: {pair}, in {what}")


def assert_like_reference(case: Case, target: Target | None = None) -> None:
    """Trace and step are those of the reference."""
    wanted = ReferenceExecutor(case.program, case.inputs).trace(case.state, case.step)
    executor = CompiledExecutor(case.program, case.inputs, target=target)
    found = executor.trace(case.state, case.step)
    assert len(found) == len(wanted)
    for node, mine, reference in zip(case.program.nodes, found, wanted, strict=True):
        assert_equal(mine, reference, node)
    for s, tensor in enumerate(executor.step(case.state, case.step)):
        assert_equal(tensor, wanted[case.program.output(s)], f"state {s}")


def result(program: Program, *data: Bits, target: Target | None = None, threads: int = 1) -> Bits:
    """The first state tensor after a step of a program that reads only data."""
    case = case_of(program)
    inputs = replace(case.inputs, data=data)
    executor = CompiledExecutor(program, inputs, threads=threads, target=target)
    return executor.step(case.state, 0)[0]


@dataclass(frozen=True)
class Prepared:
    """What an executor makes of a program before it compiles."""

    calls: dict[int, Call]
    order: Order
    plan: Plan
    waits: dict[int, set[int]]


def prepared(program: Program, kept: frozenset[int] = frozenset()) -> Prepared:
    calls = build_module(program, host_target()).calls
    overwritable = {n: call.overwritable for n, call in calls.items()}
    order = make_order(program, overwritable)
    plan = make_plan(program, order, overwritable, kept)
    sizes = {n: 4 * node.numel for n, node in enumerate(program.nodes)}
    return Prepared(calls, order, plan, waits(order, plan, sizes))


def tasks_of(program: Program, threads: int) -> list[Task]:
    found = prepared(program)
    return make_tasks(found.order, found.calls, found.waits, threads)


def chain_of_maps(length: int, numel: int = 1000) -> Program:
    """Doublings of the state, one after the other."""
    b = Builder()
    number = b.leaf(Kind.INPUT, (numel,))
    for _ in range(length):
        number = b.map((numel,), expression([Flat(number), Flat(number)], (Op.ADD, (0, 1))))
    return b.finish([number])


def numbers(seed: int, *shape: int) -> Bits:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).view(np.uint32)


def combined(blocks: list[Bits]) -> Bits:
    """The blocked fold of block results by ADD (specification, "Folds")."""
    while len(blocks) > 1:
        groups = [blocks[i : i + 256] for i in range(0, len(blocks), 256)]
        blocks = []
        for group in groups:
            acc = np.zeros(group[0].shape, np.float32)
            for block in group:
                acc = acc + block.view(np.float32)
            blocks.append(acc.view(np.uint32))
    return blocks[0]


def product(left: Bits, right: Bits) -> Bits:
    """left[.., m, k] @ right[.., k, n] in the specified order, by numpy."""
    blocks = []
    for start in range(0, left.shape[-1], 256):
        acc = np.zeros(np.broadcast_shapes(left[..., :1].shape, right[..., :1, :].shape), np.uint32)
        for k in range(start, min(start + 256, left.shape[-1])):
            pair = np.broadcast_arrays(left[..., k, None], right[..., k, None, :], acc)
            acc = float_vectors.fma_by_doubles(*pair)
        blocks.append(acc)
    total = combined(blocks).view(np.float32) + np.float32(0)
    return float_vectors.canonical(total.view(np.uint32))
