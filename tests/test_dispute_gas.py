# SPDX-License-Identifier: GPL-3.0-or-later
"""What each kind of move costs in the largest dispute that the design names, floor included.

Openings and pointers that also prove an inclusion twelve levels deep, and bring the context, cannot
meet the plain moves' target: their calldata alone is dearer (EIP-7623).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol.game_view import Role
from protocol.program import Kind
from tests.big_game import BigWitness
from tests.game_driver import Court, Outcome, honest
from tests.toy import Lie, ToyLiar, ToyNode, ToyWitness, World

PLAIN, REVEAL, LINK, PROOF, WHOLE = 60_000, 75_000, 90_000, 120_000, 2_200_000
LIMITS = {
    "point": PLAIN, "open": PLAIN, "revealNode": PLAIN, "postValues": PLAIN,
    "openLanes": PLAIN, "pointLane": PLAIN,
    "revealChunk": REVEAL, "pointElement": REVEAL, "openFold": REVEAL, "pointFold": REVEAL,
    "commitSteps": LINK, "revealStep": LINK, "revealTensor": LINK, "pointNode": LINK,
    "prove": PROOF,
}  # fmt: skip


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    liar, own = BigWitness(lies=True), BigWitness(lies=False)
    game = Court("Referee").open(liar.context(), arbitrated=False)
    return game.play(honest(liar, Role.DEFENDANT), honest(own, Role.CHALLENGER))


@pytest.mark.gas
def test_the_largest_dispute_keeps_to_its_gas(
    outcome: Outcome, gas_snapshot: Callable[[str, int], None]
) -> None:
    assert outcome.convicted
    assert not outcome.timed_out
    dearest: dict[str, int] = {}
    for function, gas in outcome.gas:
        dearest[function] = max(gas, dearest.get(function, 0))
    for function, gas in dearest.items():
        if function in LIMITS:
            assert gas <= LIMITS[function], (function, gas)
    for function, gas in dearest.items():
        gas_snapshot(f"DisputeGame: {function}", gas)
    opens = {"open", "openFold", "openLanes", "commitSteps"}
    gas_snapshot(
        "move_open_max",
        max(gas for name, gas in dearest.items() if name in opens or name.startswith("reveal")),
    )
    gas_snapshot(
        "move_point_max", max(gas for name, gas in dearest.items() if name.startswith("point"))
    )
    gas_snapshot("one_step_proof_max", dearest["prove"])
    total = sum(gas for _, gas in outcome.gas)
    assert total <= WHOLE
    gas_snapshot(f"DisputeGame: all {len(outcome.gas)} moves of the largest dispute", total)
    gas_snapshot("dispute_total_large", total)


@pytest.mark.gas
def test_lanes_keep_to_their_gas(gas_snapshot: Callable[[str, int], None]) -> None:
    nodes = (
        ToyNode(Kind.INPUT, 1), ToyNode(Kind.FOLD, 1, 4096, 16), ToyNode(Kind.OUTPUT, 1, index=1)
    )  # fmt: skip
    world = World(nodes, 1, 1, 0, bytes(range(32)))
    liar = ToyLiar(world, Lie(0, 1, 0, 12345, term=9))
    game = Court().open(world.context(liar))
    played = game.play(honest(liar, Role.DEFENDANT), honest(ToyWitness(world), Role.CHALLENGER))
    costs = dict(played.gas)
    for function in ("openLanes", "pointLane"):
        assert costs[function] <= LIMITS[function]
        gas_snapshot(f"DisputeGame: {function} (toy referee)", costs[function])


def test_attacking_costs_more_than_defending(outcome: Outcome) -> None:
    """The attack "resource exhaustion": opening a dispute is dearer than its first answers."""
    costs = dict(outcome.gas)
    assert costs["create"] > costs["commitSteps"] + costs["open"]
