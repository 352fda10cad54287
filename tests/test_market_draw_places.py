# SPDX-License-Identifier: GPL-3.0-or-later
"""Which verifiers a seed draws, compared with a model of the draw in Python."""

from __future__ import annotations

from collections import Counter

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from tests.market_driver import SOLVER, SPEC, SUBMITTER, VERIFIERS, Task, raw
from tests.test_market_capture import kept_waiting

MONTH = 30 * 86_400
MAX_BUSY = 3


def digest(types: list[str], values: list[object]) -> int:
    return int.from_bytes(keccak(encode(types, values)))


def seeds(count: int) -> list[int]:
    return [digest(["uint256"], [i]) for i in range(count)]


def model(task: Task, seed: int, now: int) -> list[bytes]:
    """The committee that a seed draws; nobody if it has to wait, or there is nobody."""
    world, state = task.world, task.state
    drawn: list[bytes] = []
    for seat in range(SPEC.committee):
        random = digest(["uint256", "string", "uint256"], [seed, "seat", seat])
        busy = place = 0
        for i in range(128):
            if i < 64:
                place = digest(["uint256", "uint256"], [random, i]) % state.pool
            else:
                place = (place + 1) % state.pool
            candidate = raw(world.market.view("verifiers", place))
            places, slots, joined, leaves, lost = world.market.view("verifierOf", candidate)
            eligible = places and joined < state.committed_block and not 0 < leaves <= now
            if not eligible or candidate in (SOLVER, SUBMITTER, *drawn):
                continue
            if slots:
                drawn.append(candidate)
                break
            busy += lost < places
            if busy > MAX_BUSY:
                return []
        else:
            return []
    return drawn


def waiting() -> Task:
    """A task whose draw keeps its seed: four of six verifiers are busy, two are free again."""
    task, holding = kept_waiting()
    world = task.world
    for one in holding:
        verifier = one.drawn[0]
        one.plain("reportUnavailable", one.seat(verifier), sender=verifier)
    assert sum(world.slots(v) for v in VERIFIERS) == SPEC.committee
    return task


def set_seed(task: Task, seed: int) -> None:
    """Writes the seed that a draw has kept."""
    world, old = task.world, task.world.market.view("drawSeeds", task.id)
    place = world.place_of(task.id.to_bytes(32), old)
    world.evm.set_storage(world.market.address, place, seed)
    assert world.market.view("drawSeeds", task.id) == seed


def draw(task: Task, seed: int) -> list[bytes]:
    """The committee that the contract draws from a seed; nothing of it stays."""
    mark = task.world.evm.mark()
    set_seed(task, seed)
    task.call("draw", [])
    drawn = task.drawn
    task.world.evm.back(mark)
    return drawn


def test_a_seed_draws_whom_the_model_says_and_passes_over_three_busy_places() -> None:
    task = waiting()
    task.world.wait(blocks=2)
    outcomes: Counter[int] = Counter()
    for seed in seeds(80):
        found = draw(task, seed)
        assert found == model(task, seed, task.world.evm.timestamp)
        outcomes[len(found)] += 1
    assert min(outcomes[0], outcomes[SPEC.committee]) > 10
    task.world.assert_solvent()


@pytest.mark.parametrize("late", [0, 1])
def test_a_verifier_is_drawn_until_the_second_in_which_it_may_remove_itself(late: int) -> None:
    task = waiting()
    world = task.world
    leaving = next(v for v in VERIFIERS if world.slots(v))
    world.send("leaveVerifiers", sender=leaving)
    world.wait(MONTH - 1 + late, blocks=2)
    found = [draw(task, seed) for seed in seeds(24)]
    assert found == [model(task, seed, world.evm.timestamp) for seed in seeds(24)]
    assert any(leaving in drawn for drawn in found) == (not late)
