# SPDX-License-Identifier: GPL-3.0-or-later
"""What each kind of move costs in the largest dispute that the design names, floor included."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol.game_view import Role
from protocol.program import Kind
from tests.big_game import BigWitness, FalseEnd, FalseInput, FalseState
from tests.game_driver import Court, Outcome, honest
from tests.toy import Lie, ToyLiar, ToyNode, ToyWitness, World

PLAIN, REVEAL, PROOF, WHOLE, ROUNDS = 60_000, 75_000, 120_000, 1_500_000, 16
LIMITS = {
    "point": PLAIN, "open": PLAIN, "reveal": PLAIN, "commitSteps": PLAIN, "commitTrace": PLAIN,
    "pointNode": PLAIN, "pointElement": PLAIN, "pointFold": PLAIN, "postValues": PLAIN,
    "openLanes": PLAIN, "pointLane": PLAIN, "revealChunk": REVEAL, "openFold": REVEAL,
    "prove": PROOF, "proveLeaf": PROOF, "doubtState": PLAIN, "doubtEnd": PLAIN,
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
    assert len(outcome.gas) - 1 <= 2 * ROUNDS  # without `create`
    for function, gas in dearest.items():
        assert gas <= LIMITS.get(function, WHOLE), (function, gas)
    for function, gas in dearest.items():
        gas_snapshot(f"DisputeGame: {function}", gas)
    opens = {"open", "reveal", "commitSteps", "commitTrace", "postValues"}
    chunks = {"revealChunk", "openFold"}
    gas_snapshot("move_open_max", max(dearest[name] for name in opens))
    gas_snapshot("move_chunk_max", max(dearest[name] for name in chunks))
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


@pytest.mark.gas
def test_a_root_proof_keeps_to_its_gas(gas_snapshot: Callable[[str, int], None]) -> None:
    """About an input, which is the dearest: it needs the state before the step."""
    liar, own = FalseInput(), BigWitness(lies=False)
    game = Court("Referee").open(liar.context(), arbitrated=False)
    outcome = game.play(honest(liar, Role.DEFENDANT), honest(own, Role.CHALLENGER))
    assert outcome.convicted
    assert not outcome.timed_out
    costs = dict(outcome.gas)
    assert costs["proveLeaf"] <= LIMITS["proveLeaf"]
    gas_snapshot("DisputeGame: proveLeaf", costs["proveLeaf"])


@pytest.mark.gas
def test_doubts_keep_to_their_gas(gas_snapshot: Callable[[str, int], None]) -> None:
    """All is claimed by the book but a state, which then can be shown nowhere."""
    own = BigWitness(lies=False)
    for doubt, liar in (("doubtEnd", FalseEnd()), ("doubtState", FalseState())):
        game = Court("Referee").open(liar.context(), arbitrated=False)
        outcome = game.play(honest(liar, Role.DEFENDANT), honest(own, Role.CHALLENGER))
        assert outcome.convicted
        assert outcome.refusals == ["WrongInclusion"]
        costs = dict(outcome.gas)
        assert costs[doubt] <= LIMITS[doubt]
        gas_snapshot(f"DisputeGame: {doubt}", costs[doubt])


def test_attacking_costs_more_than_defending(outcome: Outcome) -> None:
    """The attack "resource exhaustion": opening a dispute is dearer than its first answer."""
    costs = dict(outcome.gas)
    assert costs["create"] > costs["commitSteps"]
