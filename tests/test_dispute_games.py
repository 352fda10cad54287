# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole games on the toy referee: an honest defendant never loses, a liar is always convicted."""

from __future__ import annotations

import random

import pytest

from protocol.game_view import Role
from protocol.program import Kind
from tests.game_driver import Court, Game, honest, stops_after
from tests.players import garbage, wandering
from tests.toy import Lie, ToyLiar, ToyNode, ToyWitness, World, random_liar, random_world

LIARS = 120
WORLDS, ATTACKS = 14, 15
LONG = 256 * 256 + 300


@pytest.fixture(scope="module")
def court() -> Court:
    return Court()


def start(court: Court, world: World, witness: ToyWitness, strict: bool) -> Game:
    game = court.open(world.context(witness))
    game.strict, game.pace = strict, 0
    return game


@pytest.mark.parametrize("batch", range(4))
def test_a_random_liar_is_convicted_by_a_proof(court: Court, batch: int) -> None:
    for seed in range(batch, LIARS, 4):
        rng = random.Random(seed)
        world = random_world(rng)
        liar, own = random_liar(world, rng), ToyWitness(world)
        game = start(court, world, liar, strict=seed % 3 == 0)
        outcome = game.play(honest(liar, Role.DEFENDANT), honest(own, Role.CHALLENGER))
        assert outcome.convicted, (seed, liar.lie)
        assert not outcome.timed_out, (seed, liar.lie)
        assert not outcome.refusals


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("posts_truth", [False, True])
def test_a_lie_deep_in_a_long_fold_is_convicted(
    court: Court, lanes: int, posts_truth: bool
) -> None:
    nodes = (
        ToyNode(Kind.INPUT, 1), ToyNode(Kind.FOLD, 1, LONG, lanes), ToyNode(Kind.OUTPUT, 1, index=1)
    )  # fmt: skip
    world = World(nodes, 1, 1, 0, bytes(range(32)))
    liar = ToyLiar(world, Lie(0, 1, 0, 12345, term=LONG - 7, posts_truth=posts_truth))
    outcome = start(court, world, liar, strict=True).play(
        honest(liar, Role.DEFENDANT), honest(ToyWitness(world), Role.CHALLENGER)
    )
    assert outcome.convicted
    assert not outcome.timed_out
    assert outcome.functions.count("openFold") == (3 if lanes == 1 else 2)
    assert ("openLanes" in outcome.functions) == (lanes == 16)


@pytest.mark.parametrize("world_seed", range(WORLDS))
def test_an_honest_defendant_never_loses(court: Court, world_seed: int) -> None:
    world = random_world(random.Random(1000 + world_seed))
    witness = ToyWitness(world)
    attackers = {"wandering": 0, "garbage": 0, "staller": 0}
    for seed in range(ATTACKS):
        rng = random.Random(seed)
        attack = ["wandering", "wandering", "staller", "garbage"][seed % 4]
        attackers[attack] += 1
        challenger = garbage(rng) if attack == "garbage" else wandering(witness, rng)
        if attack == "staller":
            challenger = stops_after(challenger, rng.randrange(12))
        game = start(court, world, witness, strict=False)
        outcome = game.play(honest(witness, Role.DEFENDANT), challenger)
        assert not outcome.convicted, (seed, attack, outcome.functions)
        assert outcome.timed_out or outcome.functions[-1] == "show"
        assert court.arbiter.view("verdicts", game.view.dispute) == 1
        assert not court.arbiter.view("convicted", game.view.dispute)
    assert all(attackers.values())


def test_a_defendant_that_falls_silent_is_convicted(court: Court) -> None:
    world = random_world(random.Random(5))
    liar, own = random_liar(world, random.Random(5)), ToyWitness(world)
    for moves in (0, 1, 2, 5):
        game = start(court, world, liar, strict=True)
        defendant = stops_after(honest(liar, Role.DEFENDANT), moves)
        outcome = game.play(defendant, honest(own, Role.CHALLENGER))
        assert outcome.convicted
        assert outcome.timed_out or outcome.functions[-1] == "show"
