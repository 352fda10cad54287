# SPDX-License-Identifier: GPL-3.0-or-later
"""A draw that finds too few verifiers with a free stake is not made again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.task import Status
from tests.staged import a_solver, a_stage, bundle, end_bidding, make_executor, post, terms
from verifier.agent import Verifier


@pytest.mark.slow
def test_a_solver_pays_for_one_draw_while_all_verifiers_are_busy(tmp_path: Path) -> None:
    stage = a_stage(tmp_path)
    submitter, first = post(stage)
    second = stage.post(submitter, bundle(), terms(submitter, audit_window=86_400))
    solver = a_solver(stage.party("solver"), stage.directory)
    verifiers = [Verifier(stage.party(f"verifier {i}"), make_executor) for i in (1, 2)]
    for verifier in verifiers:
        verifier.register()
    while solver.poll():
        pass
    end_bidding(stage, solver)
    for _ in range(60):
        solver.poll()
        stage.chain.wait(1)
    market = solver.market
    seeds = [market.view("drawSeeds", task) for task in (first, second)]
    assert sorted(seed != 0 for seed in seeds) == [False, True]  # one has both verifiers
    waits = (first, second)[seeds.index(max(seeds))]
    state = market.state(waits)
    assert state.status == Status.COMMITTED

    def sent() -> int:
        return int(market.chain.w3.eth.get_transaction_count(market.address))

    before = sent()
    for _ in range(20):
        solver.poll()
        for verifier in verifiers:
            verifier.move_on(waits, market.state(waits))
        stage.chain.wait(1)
    assert sent() == before
    assert market.state(waits) == state
    agents = [solver, *verifiers]
    for task in (first, second):
        assert stage.play(task, submitter, agents, stage.party("keeper")).status == Status.SETTLED
