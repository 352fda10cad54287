# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole disputes before the real referee over views, gathers, scatters and every primitive."""

from __future__ import annotations

import pytest

from protocol.game_view import Role
from protocol.program import Kind, Node, Program
from tests.game_driver import Court, honest
from tests.hand_built import (
    case_of,
    every_primitive,
    every_view,
    scatter_gather,
    sgd_regression,
)
from tests.liars import Story, changes_the_end

PROGRAMS: dict[str, Program] = {
    "every view": every_view(),
    "every primitive": every_primitive(),
    "scatter gather": scatter_gather(),
    "sgd regression": sgd_regression(),
}


@pytest.fixture(scope="module")
def court() -> Court:
    return Court("Referee")


def computed(name: str) -> list[tuple[str, int]]:
    nodes = PROGRAMS[name].nodes
    return [(name, i) for i, node in enumerate(nodes) if node.kind in (Kind.MAP, Kind.FOLD)]


def showing(program: Program, node: int) -> Program:
    """The program with one state tensor more: that node's result, so that no lie in it is lost."""
    shown = program.nodes[node]
    output = Node(Kind.OUTPUT, shown.dtype, shown.shape, index=node)
    return Program((*program.nodes, output), program.n_state + 1, program.n_const, program.n_data)


@pytest.mark.parametrize(("name", "node"), [pair for name in PROGRAMS for pair in computed(name)])
def test_a_lie_in_any_computed_node_is_convicted(court: Court, name: str, node: int) -> None:
    program = showing(PROGRAMS[name], node)
    story = Story(case_of(program, seed=5, wild=False), steps=1, first_step=3)
    liar = story.flipped(node, program.nodes[node].numel // 2, mask=1)
    assert changes_the_end(story, liar)
    game = court.open(story.context(liar))
    game.pace = 0
    outcome = game.play(honest(liar, Role.DEFENDANT), honest(story.honest, Role.CHALLENGER))
    assert outcome.convicted
    assert not outcome.timed_out, outcome.refusals
