# SPDX-License-Identifier: GPL-3.0-or-later
"""No honest agent loses its stake because the chain was reorganized under it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bitcourt.lab.money import check_money
from bitcourt.lab.stage import ETHER, Stage
from protocol.chain.client import new_account
from protocol.chain.embedded import Embedded, embedded_chain
from protocol.dispute import doubt_end
from protocol.endings import KEPT_BLOCKS, Endings
from protocol.market import Posted
from protocol.secrets import Secrets
from protocol.task import Run, Status
from tests.challenging import play_until, reach_window, registered, seal, tell, view_of
from tests.staged import a_solver, asking, bundle, end_bidding, make_executor, post, terms
from verifier.agent import Settings as Own
from verifier.agent import Verifier
from verifier.replay import subject


class Fork:
    """A chain that can be taken back to where it was."""

    def __init__(self, directory: Path) -> None:
        self.embedded: Embedded = embedded_chain()
        self.stage = Stage.build(self.embedded.chain, self.embedded.faucet, directory)
        self.snapshot = 0

    def here(self) -> None:
        """The block after which there are two chains."""
        self.snapshot = self.embedded.tester.take_snapshot()

    def orphan(self) -> None:
        """Orphans all blocks since then. The next ones are others."""
        self.embedded.tester.revert_to_snapshot(self.snapshot)
        self.here()


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_draw_that_a_reorganization_changed_is_replayed_anew(fork: Fork, restarts: bool) -> None:
    stage = fork.stage
    submitter, task = post(stage, samples=1)
    solver = a_solver(stage.party("solver"), stage.directory)
    markets = [stage.party(f"verifier {i}") for i in (1, 2)]

    def verifiers() -> list[Verifier]:
        place = Own(directory=stage.directory / "kept")
        return [Verifier(market, make_executor, place) for market in markets]

    own = verifiers()
    for verifier in own:
        verifier.register()
    solver.poll()
    end_bidding(stage, solver)
    play_until(stage, task, [solver], Status.COMMITTED)
    fork.here()
    stage.chain.wait(1)
    stage.chain.wait(1)
    solver.poll()
    orphaned = submitter.runs(task)
    for verifier in own:
        while verifier.poll():  # replays, and seals
            pass
    for seconds in range(2, 40):
        fork.orphan()
        stage.chain.wait(seconds)
        stage.chain.wait(1)
        solver.poll()
        if submitter.runs(task) != orphaned:
            break
    assert submitter.runs(task) != orphaned
    assert submitter.runs(task)[0].round == orphaned[0].round
    own = verifiers() if restarts else own
    state = stage.play(task, submitter, [solver, *own], stage.party("keeper"))
    assert state.status == Status.SETTLED
    assert not stage.ledger.events("VerifierSlashed")
    assert all(m.view("verifierOf", m.address)[1] == 1 for m in markets)  # free again


def test_a_task_that_gets_the_number_of_an_orphan_is_trained_by_its_own_terms(fork: Fork) -> None:
    stage = fork.stage
    submitter = stage.party("submitter")
    bundle().publish(stage.store)
    market = stage.party("solver")
    solver = asking(stage, market)
    verifiers = registered(stage)
    fork.here()
    orphan = submitter.post(terms(submitter), stage.store.url)
    solver.poll()
    old = solver.folder(orphan)
    fork.orphan()
    stage.chain.wait(5)
    task = submitter.post(terms(submitter, train_window=86_399), stage.store.url)
    assert task == orphan
    submitter.send_for("enterAsk", task, market.address)
    state = stage.play(task, submitter, [solver, *verifiers], stage.party("keeper"))
    assert state.status == Status.SETTLED
    spec = submitter.posted(task).spec
    assert spec.train_window == 86_399
    assert market.free_balance() == ETHER + spec.budget
    assert solver.folder(task) != old


def test_a_dispute_that_gets_the_number_of_an_orphan_is_defended_by_its_own_replay(
    fork: Fork,
) -> None:
    stage = fork.stage
    submitter, task = post(stage)
    solver = a_solver(stage.party("solver"), stage.directory)
    reach_window(stage, task, solver, registered(stage))
    one, two = stage.party("one"), stage.party("two")
    nonces = [seal(one, task, 1), seal(two, task, 2)]
    stage.chain.wait(1)
    fork.here()
    orphan = tell(one, task, 1, nonces[0])
    solver.poll()  # commits the steps of segment 1
    fork.orphan()
    stage.chain.wait(3)
    dispute = tell(two, task, 2, nonces[1])
    assert (dispute.id, dispute.first, orphan.first) == (orphan.id, 2, 1)
    solver.poll()
    # The wrong segment would end elsewhere than the checkpoint says, and lose here.
    move = doubt_end(view_of(two, dispute))
    two.send_move(move.function, *move.args())
    state = stage.play(task, submitter, [solver], stage.party("keeper"))
    assert state.status == Status.SETTLED
    assert not stage.ledger.events("SolverConvicted")
    check_money(stage, submitter, {"one", "two"})


def test_an_end_that_a_reorganization_takes_back_is_no_end(fork: Fork) -> None:
    stage = fork.stage
    submitter, task = post(stage)
    solver = a_solver(stage.party("solver"), stage.directory)
    solver.poll()
    verifiers = registered(stage)
    fork.here()
    submitter.send_for("cancel", task)
    while solver.poll():  # takes its bond back, and rests
        pass
    for verifier in verifiers:
        verifier.poll()
    fork.orphan()
    state = stage.play(task, submitter, [solver, *verifiers], stage.party("keeper"))
    assert state.status == Status.SETTLED
    check_money(stage, submitter, set())


def test_an_end_stands_when_it_was_seen_for_long_enough(fork: Fork) -> None:
    submitter, task = post(fork.stage)
    state = submitter.state(task)
    other = replace(state, status=Status.SLASHED)
    endings = Endings()
    assert not endings.note(task, state, 100)
    assert not endings.note(task, state, 100 + KEPT_BLOCKS - 1)
    assert endings.seen(task, state)
    assert not endings.seen(task, other)
    assert not endings.note(task, other, 100 + KEPT_BLOCKS)  # ended in another way: from now on
    assert not endings.stand(task)
    assert endings.note(task, other, 100 + 2 * KEPT_BLOCKS)
    assert endings.stand(task)


def test_what_hides_one_task_hides_no_other_with_its_number(fork: Fork) -> None:
    submitter, task = post(fork.stage)
    posted = submitter.posted(task)
    other = Posted(task, replace(posted.spec, budget=1), posted.artifacts, posted.block)
    secrets = Secrets(new_account(), 1, fork.stage.deployment.market)
    for hidden in (
        lambda at: secrets.salt(at, 1),
        lambda at: secrets.nonce(at, 1),
        secrets.bid_nonce,
        lambda at: secrets.challenge_nonce(at, 1, 1, 0),
    ):
        assert hidden(posted) == hidden(posted)
        assert hidden(posted) != hidden(other)
    assert secrets.salt(posted, 0) == bytes(32)


def test_a_replay_is_named_by_its_runs_and_where_they_start() -> None:
    names = {
        subject(runs, starts)
        for runs, starts in (
            ([Run(1, 2, 1)], [b"a" * 32]),
            ([Run(2, 1, 1)], [b"a" * 32]),
            ([Run(1, 2, 1)], [b"b" * 32]),
            ([Run(1, 2, 1), Run(4, 1, 1)], [b"a" * 32] * 2),
        )
    }
    assert len(names) == 4
