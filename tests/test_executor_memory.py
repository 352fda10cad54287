# SPDX-License-Identifier: GPL-3.0-or-later
"""Order, memory and tasks of a step: nobody reads what is not there yet, or not there any more."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.executor import plan as planning
from protocol.executor import schedule
from protocol.executor.order import COMPUTED
from protocol.ops import Op
from protocol.program import Flat, Kind, Program
from tests.executing import Prepared, chain_of_maps, prepared, tasks_of
from tests.hand_built import Builder, along, expression
from tests.programs import programs


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets threads share out even the smallest kernel."""
    monkeypatch.setattr(schedule, "CHUNK_WORK", 1)
    monkeypatch.setattr(schedule, "GROUP_WORK", 1)


def written(program: Program, found: Prepared, number: int) -> set[object]:
    """Pieces of memory that a node's output lies in, where the step runs in place."""
    if number in found.plan.offsets:
        start = found.plan.offsets[number]
        stop = start + 4 * program.nodes[number].numel
        return set(range(start // planning.ALIGNMENT, -(-stop // planning.ALIGNMENT)))
    if number in found.order.direct:
        return {f"state {found.order.direct[number]}"}
    node = program.nodes[number]
    return {f"state {node.index}"} if node.kind is Kind.INPUT else {f"node {number}"}


def read(program: Program, found: Prepared, number: int) -> set[object]:
    return {p for s in found.order.reads[number] for p in written(program, found, s)}


@pytest.mark.usefixtures("small_chunks")
@settings(max_examples=40)
@given(program=programs(max_computed=12))
def test_what_touches_the_same_memory_is_ordered_among_tasks(program: Program) -> None:
    found = prepared(program)
    tasks = tasks_of(program, threads=3)
    earlier: list[set[int]] = []
    for number, task in enumerate(tasks):
        assert all(one < number for one in task.after)
        earlier.append(set(task.after).union(*(earlier[one] for one in task.after)))
    numbers = found.order.numbers
    assert [c for t in tasks for c in range(t.first, t.stop)] == list(range(len(numbers)))
    place = {numbers[c]: t for t, task in enumerate(tasks) for c in range(task.first, task.stop)}
    uses = {n: (read(program, found, n), written(program, found, n)) for n in numbers}
    for a, b in combinations(numbers, 2):
        conflict = uses[a][1] & (uses[b][0] | uses[b][1]) or uses[a][0] & uses[b][1]
        if conflict and place[a] != place[b]:
            assert place[a] in earlier[place[b]], (a, b)


@settings(max_examples=40)
@given(program=programs(max_computed=12))
def test_every_read_finds_what_was_written_for_it(program: Program) -> None:
    """Played through: memory holds the value of the node that wrote there last."""
    found = prepared(program)
    holds: dict[object, int] = {}
    for node in program.nodes:
        if node.kind is Kind.INPUT:
            holds[f"state {node.index}"] = -1 - node.index
    for number in found.order.numbers:
        for source in found.order.reads[number]:
            node = program.nodes[source]
            if node.kind is Kind.INPUT:
                assert holds[f"state {node.index}"] == -1 - node.index
            elif node.kind in COMPUTED:
                assert {holds[piece] for piece in written(program, found, source)} == {source}
        for piece in written(program, found, number):
            holds[piece] = number
    for state, number in enumerate(found.plan.results):
        if found.order.direct.get(number) == state:
            assert holds[f"state {state}"] == number


@settings(max_examples=60)
@given(
    lives=st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=24
    )
)
def test_both_packings_keep_apart_what_lives_at_once(lives: list[tuple[int, int, int]]) -> None:
    lives.sort(key=lambda life: life[1])
    buffers = [planning._Buffer(64 * size, start, start + more) for size, start, more in lives]
    alive = max(sum(b.size for b in buffers if b.start <= time <= b.stop) for time in range(20))
    for pack in (planning._as_they_come, planning._by_size):
        offsets, size = pack(buffers)
        assert alive <= size == max(o + b.size for o, b in zip(offsets, buffers, strict=True))
        for (o, b), (p, c) in combinations(zip(offsets, buffers, strict=True), 2):
            if b.start <= c.stop and c.start <= b.stop:
                assert o + b.size <= p or p + c.size <= o
    assert planning._packed(buffers, 20)[2] == alive


def test_a_chain_of_maps_of_whole_vectors_needs_one_buffer() -> None:
    plan = prepared(chain_of_maps(50, numel=1024)).plan
    assert len(plan.offsets) == 49  # all but the result
    assert len(plan.replaces) == 48
    assert plan.size == 4096


def test_a_chain_of_maps_whose_windows_overlap_needs_two() -> None:
    plan = prepared(chain_of_maps(50, numel=1001)).plan
    assert not plan.replaces
    assert plan.size == 2 * 4032
    assert all(a != b for a, b in pairwise(plan.offsets.values()))


def test_kept_nodes_live_to_the_end() -> None:
    plan = prepared(chain_of_maps(50, numel=1024), frozenset({10})).plan
    later = [offset for number, offset in plan.offsets.items() if number > 10]
    assert plan.offsets[10] not in later


def updates(count: int = 8, numel: int = 4096) -> Program:
    """Gradients one after the other, then an update of each parameter, as a tracer writes them."""
    b = Builder()
    data = b.leaf(Kind.DATA, (numel,))
    inputs = [b.leaf(Kind.INPUT, (numel,), index=i) for i in range(count)]
    gradient, gradients = data, []
    for parameter in inputs:
        body = expression([Flat(gradient), Flat(parameter)], (Op.MUL, (0, 1)))
        gradient = b.map((numel,), body)
        gradients.append(gradient)
    for parameter, one in zip(inputs, gradients, strict=True):
        body = expression([Flat(parameter), Flat(one)], (Op.SUB, (0, 1)))
        b.map((numel,), body)
    return b.finish(range(len(b.nodes) - count, len(b.nodes)))


def test_updates_follow_their_gradients_so_that_gradients_die_early() -> None:
    found = prepared(updates())
    assert found.plan.live <= 2 * 4 * 4096
    assert len(found.order.direct) == 8


def test_two_updates_that_read_each_others_old_value_are_not_both_in_place() -> None:
    b = Builder()
    p, q = b.leaf(Kind.INPUT, (64,)), b.leaf(Kind.INPUT, (64,), index=1)
    turned = [along(n, (64,), (0,)) for n in (p, q)]
    one = b.map((64,), expression([Flat(p), turned[1]], (Op.ADD, (0, 1))))
    two = b.map((64,), expression([turned[0], Flat(q)], (Op.SUB, (0, 1))))
    assert not prepared(b.finish([one, two])).order.direct
