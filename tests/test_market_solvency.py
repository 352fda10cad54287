# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever anybody does in whatever order: the contract holds exactly what it owes.

After each move the contract's balance equals the sum of free balances, slots, stakes, escrows,
bonds and lost bonds, no wei has appeared or vanished but by burning, and nobody honest has lost
any. At the end of each story calls that anybody may make bring every task to its end, and everybody
takes all money out of the market.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from protocol.task import Status
from tests.market_drain import drain, everybody_out
from tests.market_moves import accounts, nonsense, post, sensible
from tests.market_story import WINDOW, Story

STORIES, LENGTH = 12, 80
CHECKED = 4
"""Moves after which a long story is looked at: what is lost once stays lost."""
ENDINGS = {
    *("settled", "convicted", "default", "no bid", "cancelled"),
    *("no attestation", "nobody to draw", "program fault"),
}


def end(story: Story) -> None:
    """Everybody has left; strangers bring all tasks to their ends."""
    for task in story.tasks:
        drain(task, story.verdict)
        story.world.assert_solvent()
    assert story.money() == story.supply
    everybody_out(story.world)
    assert story.money() == story.supply


class MarketMachine(RuleBasedStateMachine):
    """Up to three tasks at once; Hypothesis has the choice of all that happens."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story()

    @initialize(choice=st.randoms(use_true_random=False), lazy=st.booleans())
    def begin(self, choice: random.Random, lazy: bool) -> None:
        self.story.lazy = lazy
        post(self.story, choice)

    @rule(choice=st.randoms(use_true_random=False))
    def add(self, choice: random.Random) -> None:
        if len(self.story.live) < 3:
            post(self.story, choice)

    @rule(choice=st.randoms(use_true_random=False), moves=st.integers(1, 12))
    def play(self, choice: random.Random, moves: int) -> None:
        for _ in range(moves):
            if self.story.live:
                sensible(self.story, choice.choice(self.story.live), choice)

    @rule(choice=st.randoms(use_true_random=False))
    def trade(self, choice: random.Random) -> None:
        accounts(self.story, choice)

    @rule(choice=st.randoms(use_true_random=False))
    def talk_nonsense(self, choice: random.Random) -> None:
        nonsense(self.story, choice.choice(self.story.tasks), choice)

    @rule(strides=st.integers(1, 4), blocks=st.sampled_from([1, 2, 100]))
    def wait(self, strides: int, blocks: int) -> None:
        self.story.pass_time(strides * WINDOW, blocks)

    @invariant()
    def holds(self) -> None:
        self.story.check()

    def teardown(self) -> None:
        end(self.story)


TestMarket = MarketMachine.TestCase
TestMarket.settings = settings(
    max_examples=max(16, settings().max_examples // 5),  # each is a long story
    stateful_step_count=12,
)


@pytest.mark.slow
def test_random_stories_conserve_money_and_reach_every_ending() -> None:
    reasons: Counter[str] = Counter()
    statuses: Counter[Status] = Counter()
    calls: Counter[tuple[str, bool]] = Counter()
    for seed in range(STORIES):
        choice = random.Random(seed)
        story = Story(lazy=seed % 3 == 0)
        post(story, choice)
        for step in range(LENGTH):
            if len(story.live) < 2:
                post(story, choice)
            dice = choice.random()
            if dice < 0.08:
                accounts(story, choice)
            elif dice < 0.16:
                nonsense(story, choice.choice(story.tasks), choice)
            else:
                sensible(story, choice.choice(story.live), choice)
            if step % CHECKED == 0:
                story.check()
        end(story)
        reasons += story.reasons
        statuses += story.statuses
        calls += story.calls
    assert set(reasons) == ENDINGS
    assert set(statuses) == set(Status) - {Status.NONE}
    done = sum(count for (_, effective), count in calls.items() if effective)
    ratio = done / sum(calls.values())
    assert ratio >= 0.75, calls
