# SPDX-License-Identifier: GPL-3.0-or-later
"""Voiding tasks whose program is none: nobody is slashed, and nobody is saved by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from protocol.merkle import Tree, leaf_hash
from protocol.task import Status
from tests.evm import EvmReverted
from tests.faulty import FAULTS, PROGRAM, counts, encodings
from tests.market_chain import Deployed, Refused
from tests.market_driver import (
    BUDGET,
    FUNDS,
    RIVAL,
    SOLVER,
    SPEC,
    STRANGER,
    SUBMITTER,
    VERIFIERS,
    WHISTLEBLOWER,
    Task,
    World,
    fresh_world,
)
from tests.market_world import MIN_WINDOW, NATIVE

FAULT = "reads itself"


def program_terms(nodes: list[bytes]) -> dict[str, Any]:
    """The fields of a task's terms that say which program it is."""
    names = ("n_nodes", "n_state", "n_const", "n_data")
    terms: dict[str, Any] = dict(zip(names, counts(PROGRAM), strict=True))
    return terms | {"program_root": Tree([leaf_hash(node) for node in nodes]).root}


def broken(name: str = FAULT) -> tuple[int, list[bytes]]:
    """A program with a fault: the number of that node, and all nodes."""
    index, node = FAULTS[name]
    nodes = encodings()
    nodes[index] = node
    return index, nodes


def posted(nodes: list[bytes], status: Status = Status.BIDDING, **changes: Any) -> Task:
    task = fresh_world().post(**program_terms(nodes), **changes)
    return task.reach(status)


def void(task: Task, index: int, nodes: list[bytes], sender: bytes = STRANGER) -> Any:
    proof = Tree([leaf_hash(node) for node in nodes]).inclusion_proof(index)
    return task.call("voidProgram", index, nodes[index], proof, sender=sender)


def assert_nobody_lost(world: World, paid: int = 0, capacity: int = 0) -> None:
    assert world.burned() == 0
    assert world.free(SOLVER) == FUNDS + paid
    assert [world.slots(v) for v in VERIFIERS] == [2] * len(VERIFIERS)
    assert world.market.view("recordOf", SOLVER)[:4] == (0, 0, 0, capacity)
    world.assert_solvent()


@pytest.mark.parametrize("name", FAULTS)
def test_any_broken_node_voids_the_task(name: str) -> None:
    index, nodes = broken(name)
    task = posted(nodes, Status.COMMITTED)
    done = void(task, index, nodes)
    assert done.event("TaskEnded")["reason"].rstrip(b"\0") == b"program fault"
    assert task.state.status == Status.EXPIRED
    assert task.world.free(SUBMITTER) == FUNDS + task.spec.escrow
    assert_nobody_lost(task.world)


@pytest.mark.parametrize("status", [Status(s) for s in range(Status.BIDDING, Status.CONVICTED)])
def test_malicious_program_a_fault_voids_the_task_at_any_time_and_slashes_nobody(
    status: Status,
) -> None:
    index, nodes = broken()
    task = posted(nodes, status)
    free = task.world.free(SUBMITTER)
    void(task, index, nodes)
    assert task.world.free(SUBMITTER) == free + task.spec.escrow
    assert_nobody_lost(task.world)
    with task.world.refuses("WrongStatus", task.id, Status.EXPIRED):
        void(task, index, nodes)


def test_what_was_paid_before_a_fault_was_found_stays_paid() -> None:
    index, nodes = broken()
    task = posted(nodes, Status.WINDOW, window_segments=3)
    world = task.world
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    task.reach(Status.SEALING)
    paid, free = task.state.paid, world.free(SUBMITTER)
    void(task, index, nodes)
    assert world.free(SUBMITTER) == free + task.spec.escrow - paid
    assert_nobody_lost(world, BUDGET * 3 // 8)


def test_a_fault_in_the_bidding_gives_the_sealed_bids_their_bonds_and_the_leader_its_stake() -> (
    None
):
    index, nodes = broken()
    task = posted(nodes)
    world = task.world
    world.send("setAsk", 1, 1, SPEC.memory_mib, 2**48 - 1, sender=SOLVER)
    task.call("enterAsk", SOLVER)
    task.seal_bid(RIVAL, 5)
    world.wait_beyond(task.state.deadline)
    void(task, index, nodes)
    task.call("forfeitBid", RIVAL)
    assert world.free(RIVAL) == FUNDS
    assert_nobody_lost(world, capacity=1)  # the ask may win another task


def test_a_task_won_by_a_bid_leaves_the_winners_ask_as_it_is() -> None:
    index, nodes = broken()
    task = posted(nodes)
    task.world.send("setAsk", 1, 1, SPEC.memory_mib, 2**48 - 1, sender=SOLVER)
    void(task.reach(Status.TRAINING), index, nodes)
    assert_nobody_lost(task.world, capacity=1)


def test_a_fault_found_after_the_bidding_saves_no_bond_of_a_bid_that_was_not_revealed() -> None:
    index, nodes = broken()
    task = posted(nodes)
    world = task.world
    task.seal_bid(RIVAL, 5)
    task.reach(Status.TRAINING)
    void(task, index, nodes)
    task.call("forfeitBid", RIVAL)
    assert world.free(RIVAL) == FUNDS - SPEC.bond
    assert world.burned() == SPEC.bond
    assert world.free(SOLVER) == FUNDS
    world.assert_solvent()


# What proves nothing.


@pytest.mark.parametrize("index", range(4))
def test_no_node_of_an_honest_program_voids_the_task(index: int) -> None:
    task = posted(encodings(), Status.TRAINING)
    with task.world.refuses("NoFault", task.id, index):
        void(task, index, encodings())


def test_copied_calldata_a_fault_of_another_program_or_place_voids_nothing() -> None:
    index, nodes = broken()
    task = posted(encodings(), Status.TRAINING)
    with task.world.refuses("BadProof", task.id, "node"):
        void(task, index, nodes)
    # A node in a place that is not its own would read what is not before it.
    honest = encodings()
    proof = Tree([leaf_hash(node) for node in honest]).inclusion_proof(2)
    for place in (0, 1, 3, 4, 2**32 - 1):
        with task.world.refuses("BadProof", task.id, "node"):
            task.call("voidProgram", place, honest[2], proof)
    for wrong in (proof[:-1], [*proof, bytes(32)], proof[::-1]):
        with task.world.refuses("BadProof", task.id, "node"):
            task.call("voidProgram", 2, honest[2], wrong)


def test_the_terms_decide_what_counts_not_the_caller() -> None:
    # The same program is faulty under terms that count one data tensor less.
    fields = program_terms(encodings()) | {"n_data": 0}
    task = fresh_world().post(**fields)
    void(task, 1, encodings())
    assert task.state.status == Status.EXPIRED


@pytest.mark.parametrize("name", [None, FAULT])
def test_starving_the_referee_of_gas_proves_no_fault(name: str | None) -> None:
    index, nodes = (2, encodings()) if name is None else broken(name)
    task = posted(nodes, Status.TRAINING)
    world = task.world
    proof = Tree([leaf_hash(node) for node in nodes]).inclusion_proof(index)
    arguments = [task.id, task.spec.as_abi(), index, nodes[index], proof]
    data, before = world.market.calldata("voidProgram", *arguments), task.state
    mark = world.evm.mark()
    limits, ended = range(20_000, 160_000, 2_000), []
    for gas in limits:
        world.evm.back(mark)
        try:
            world.evm.call(world.market.address, data, sender=STRANGER, gas=gas)
        except EvmReverted:
            assert task.state == before
        else:
            ended.append(gas)
    # With enough gas, and only then, a fault is a fault.
    assert ended == [gas for gas in limits if ended and gas >= ended[0]]
    assert bool(ended) == (name is not None)


def test_a_referee_that_runs_out_of_gas_or_says_nothing_proves_no_fault() -> None:
    world = fresh_world()
    silent = Deployed(world.evm, "HostileRecipient")  # reverts without a word
    game = Deployed(world.evm, "MockGame", silent.address)
    terms = (game.address, NATIVE, SPEC.bond)
    codes = [Deployed(world.evm, name, *terms).address for name in ("Remedies", "Registry")]
    market = Deployed(world.evm, "Market", *terms, *codes, MIN_WINDOW)
    index, nodes = broken()
    spec = replace(SPEC, **program_terms(nodes))
    market.send("post", spec.as_abi(), "", sender=SUBMITTER, value=spec.escrow)
    proof = Tree([leaf_hash(node) for node in nodes]).inclusion_proof(index)
    with pytest.raises(Refused) as caught:
        market.send("voidProgram", 1, spec.as_abi(), index, nodes[index], proof, sender=STRANGER)
    assert (caught.value.error, caught.value.arguments) == ("NoFault", (1, index))
    assert market.view("getTask", 1)[1] == Status.BIDDING


# Disputes.


def test_a_convicted_solver_cannot_be_saved_by_a_fault() -> None:
    index, nodes = broken()
    task = posted(nodes, Status.WINDOW)
    world = task.world
    first, second = task.whistle(WHISTLEBLOWER, 1), task.whistle(RIVAL, 2)
    world.decide(first, convicted=True)
    with world.refuses("WrongStatus", task.id, Status.CONVICTED):
        void(task, index, nodes)
    world.decide(second, convicted=False)
    task.punish()
    with world.refuses("WrongStatus", task.id, Status.SLASHED):
        void(task, index, nodes)
    assert world.free(SOLVER) == FUNDS - SPEC.solver_stake
    world.assert_solvent()


@pytest.mark.parametrize("convicted", [True, False])
def test_bonds_of_disputes_that_a_fault_overtakes_go_back(convicted: bool) -> None:
    index, nodes = broken()
    task = posted(nodes, Status.WINDOW)
    world = task.world
    against_solver = task.whistle(WHISTLEBLOWER, 1)
    run = task.runs[0]
    against_attestor = task.whistle(RIVAL, run.first, run.count, attestor=0)
    task.seal_challenge(STRANGER, 3)
    leaf_proof = Tree([leaf_hash(node) for node in nodes]).inclusion_proof(3)
    asked = task.call("demand", 0, 4, 0, 0, nodes[3], leaf_proof, sender=SUBMITTER)
    void(task, index, nodes)
    world.assert_solvent()
    for dispute in (against_solver, against_attestor):
        world.decide(dispute, convicted=convicted)
    task.call("dropChallenge", STRANGER)
    number = asked.event("Demanded")["demandId"]
    world.send("unanswered", number, task.spec.as_abi(), sender=STRANGER)
    assert [world.free(p) for p in (WHISTLEBLOWER, RIVAL, STRANGER)] == [FUNDS] * 3
    assert world.free(SUBMITTER) == FUNDS + task.spec.escrow
    assert (task.state.status, task.state.open) == (Status.EXPIRED, 0)
    assert_nobody_lost(world)


def test_bonds_lost_before_a_fault_was_found_are_the_solvers() -> None:
    index, nodes = broken()
    task = posted(nodes, Status.WINDOW)
    task.world.decide(task.whistle(WHISTLEBLOWER, 1), convicted=False)
    void(task, index, nodes)
    assert task.world.free(SOLVER) == FUNDS + SPEC.bond // 2
    assert task.world.burned() == SPEC.bond - SPEC.bond // 2
    task.world.assert_solvent()
