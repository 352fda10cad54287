# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents in the rest of the market: tokens, asks, what is published when, and whistleblowers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bitcourt.lab.ledger import Ledger
from bitcourt.lab.money import check_money
from bitcourt.lab.stage import ETHER, Stage
from protocol import upkeep
from protocol.agent import Agent
from protocol.audit import CheckpointLog
from protocol.bundle import Bundle
from protocol.chain.deployment import deploy
from protocol.chain.embedded import embedded_chain
from protocol.encoding import program_root
from protocol.endings import KEPT_BLOCKS
from protocol.market import Market, OpenDispute
from protocol.program import Kind
from protocol.store import Store
from protocol.task import NO_SEAT, Status, TaskState, challenge_digest
from protocol.witness import Witness
from solver.agent import Settings, Solver
from tests.staged import a_solver, a_stage, asking, bundle, end_bidding, make_executor, post, terms
from verifier.agent import Duty, Verifier
from verifier.agent import Settings as Own


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return a_stage(tmp_path)


class Watcher(Agent):
    """Notes whether the log that is on chain can be read in the store."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.party("watcher"), make_executor, lambda *_: None)
        self.seen: set[tuple[Status, int, bool]] = set()

    def act(self, task: int, state: TaskState) -> bool:
        if state.status >= Status.COMMITTED:
            shown = self.store(task).has_log(state.log_root)
            self.seen.add((state.status, state.agreed, shown))
        return False

    def witness(self, dispute: OpenDispute) -> Witness:
        raise NotImplementedError


def test_nothing_is_published_while_a_verifier_may_still_be_drawn(stage: Stage) -> None:
    submitter, task = post(stage, window_segments=2, samples=1, second_audit=255)
    watcher = Watcher(stage)
    verifiers = [Verifier(stage.party(f"verifier {i}"), make_executor) for i in range(1, 5)]
    for verifier in verifiers:
        verifier.register()
    solver = a_solver(stage.party("solver"), stage.directory)
    agents = [watcher, solver, watcher, *verifiers]
    state = stage.play(task, submitter, agents, stage.party("keeper"))
    assert state.status == Status.SETTLED
    check_money(stage, submitter, set())
    early = {shown for status, _, shown in watcher.seen if status < Status.WINDOW}
    assert early == {False}
    assert any(status == Status.WINDOW and shown for status, _, shown in watcher.seen)
    # Both progress windows were paid, and the whole log is shown in the end.
    assert len(stage.ledger.events("WindowOpened")) == 2
    assert len(stage.store.get_log(state.log_root, state.log_size)) == 5


class Objector(Verifier):
    """Seals noise in the first seat, and stands by it."""

    def digests(self, duty: Duty) -> list[bytes] | None:
        if duty.index > 0:
            return super().digests(duty)
        return [self.secrets.derive("noise", i) for i in range(len(duty.runs))]


def test_nothing_is_published_while_a_second_audit_may_follow_an_objection(stage: Stage) -> None:
    submitter, task = post(stage, samples=1, second_audit=255, committee=3)
    watcher = Watcher(stage)
    verifiers = [Objector(stage.party(f"verifier {i}"), make_executor) for i in range(1, 8)]
    for verifier in verifiers:
        verifier.register()
    solver = a_solver(stage.party("solver"), stage.directory)
    agents = [watcher, solver, watcher, *verifiers]
    state = stage.play(task, submitter, agents, stage.party("keeper"))
    assert state.status == Status.SETTLED
    windows = {(agreed > 0, shown) for status, agreed, shown in watcher.seen
               if status == Status.WINDOW}  # fmt: skip
    assert (False, False) in windows
    assert (False, True) not in windows
    assert (True, True) in windows


def test_a_market_in_tokens_is_traded_in_tokens(tmp_path: Path) -> None:
    embedded = embedded_chain()
    chain, faucet = embedded.chain, embedded.faucet
    token, _ = chain.deploy(faucet, "PlainToken")
    deployment = deploy(chain, faucet, token=str(token.address))
    store = Store(str((tmp_path / "store").resolve()))
    stage = Stage(chain, faucet, deployment, store, Ledger(), tmp_path)
    submitter, solver, *verifiers = (
        stage.party(role) for role in ("submitter", "solver", "verifier 1", "verifier 2")
    )
    for market in (submitter, solver, *verifiers):
        chain.send(faucet, token, "mint", market.address, 10 * ETHER)
    agents = [a_solver(solver, tmp_path), *(Verifier(m, make_executor) for m in verifiers)]
    for verifier in agents[1:]:
        assert isinstance(verifier, Verifier)
        verifier.register()
    task = stage.post(submitter, bundle(), terms(submitter))
    state = stage.play(task, submitter, agents, stage.party("keeper"))
    assert state.status == Status.SETTLED
    assert chain.balance(deployment.market) == 0
    spec = submitter.posted(task).spec
    assert solver.free_balance() == spec.budget + spec.solver_stake
    solver.send("withdraw")
    assert chain.call(token, "balanceOf", solver.address) == 11 * ETHER
    submitter.send("withdraw")
    spent = spec.budget + 2 * spec.verifier_fee
    assert chain.call(token, "balanceOf", submitter.address) == 10 * ETHER - spent


def test_a_solver_declines_a_task_that_its_ask_won_and_nobody_can_train(stage: Stage) -> None:
    # The terms count other nodes than the program has; somebody enters the ask all the same.
    submitter, task = post(stage, n_nodes=40)
    market = stage.party("solver")
    solver = asking(stage, market)
    assert not solver.poll()
    submitter.send_for("enterAsk", task, market.address)
    spec = submitter.posted(task).spec
    stage.chain.wait(2 * spec.bid_window + 1)
    assert solver.poll()  # assigns
    assert not solver.poll()  # the bytes may still come
    stage.chain.wait(spec.train_window // 4 + 1)
    assert solver.poll()
    state = market.state(task)
    assert (state.status, int(state.solver, 16)) == (Status.EXPIRED, 0)
    assert market.record(market.address).capacity == 0
    assert ETHER - spec.bond <= market.free_balance() < ETHER


def test_a_solver_leaves_for_nothing_what_states_less_work_than_it_is(stage: Stage) -> None:
    submitter, task = post(stage, work=0)
    market = stage.party("solver")
    solver = asking(stage, market)
    assert not solver.poll()  # enters no ask for it
    submitter.send_for("enterAsk", task, market.address)
    assert not solver.poll()
    stage.chain.wait(submitter.posted(task).spec.bid_window // 2 + 1)
    assert solver.poll()
    state = market.state(task)
    assert (state.status, int(state.solver, 16)) == (Status.BIDDING, 0)
    assert (market.free_balance(), market.record(market.address).capacity) == (ETHER, 0)


def test_an_ask_is_entered_again_when_the_lower_one_has_left(stage: Stage) -> None:
    submitter, task = post(stage)
    dear, cheap = stage.party("dear"), stage.party("cheap")
    for market, price in ((dear, 5), (cheap, 1)):
        market.deposit(ETHER)
        market.send("setAsk", price, 5, 1 << 20, 10**9)
    submitter.send_for("enterAsk", task, cheap.address)
    solver = Solver(dear, make_executor, Settings(stage.directory / "solver", by_ask=True))
    assert solver.poll()
    assert not solver.poll()  # it does not lead
    assert submitter.state(task).solver == cheap.address
    cheap.send_for("decline", task)
    assert solver.poll()
    assert submitter.state(task).solver == dear.address


@pytest.mark.parametrize("restarted", [False, True])
def test_a_sealed_bid_is_revealed_although_the_bidders_own_ask_leads(
    stage: Stage, restarted: bool
) -> None:
    submitter, task = post(stage)
    market = stage.party("solver")
    market.deposit(ETHER)
    market.send("setAsk", 1, 5, 1 << 20, 10**9)
    directory = stage.directory / "solver"
    solver = Solver(market, make_executor, Settings(directory))
    assert solver.poll()  # seals a bid
    if restarted:
        # Its owner trusts the ask from now on: a bid was sealed, and no ask is entered beside it.
        solver = Solver(market, make_executor, Settings(directory, by_ask=True))
        assert not solver.poll()
    submitter.send_for("enterAsk", task, market.address)
    spec = submitter.posted(task).spec
    stage.chain.wait(spec.bid_window + 1)
    assert market.state(task).by_ask
    assert solver.poll()
    assert not any(market.view("sealedBids", task, market.address))
    assert market.free_balance() == ETHER - spec.solver_stake  # the bond is back
    assert market.state(task).by_ask  # the bid was not lower


def faulty_bundle() -> Bundle:
    """The small job, but one node of its program reads itself."""
    program = bundle().program
    index, node = next((i, n) for i, n in enumerate(program.nodes) if n.kind is Kind.MAP)
    assert node.expression is not None
    operands = (replace(node.expression.operands[0], source=index), *node.expression.operands[1:])
    changed = replace(node, expression=replace(node.expression, operands=operands))
    nodes = (*program.nodes[:index], changed, *program.nodes[index + 1 :])
    return replace(bundle(), program=replace(program, nodes=nodes))


def post_faulty(stage: Stage) -> tuple[Market, int]:
    submitter, posted = stage.party("submitter"), faulty_bundle()
    spec = terms(submitter, program_root=program_root(posted.program))
    return submitter, stage.post(submitter, posted, spec)


def test_a_solver_voids_a_task_that_its_ask_won_and_whose_program_is_none(stage: Stage) -> None:
    submitter, task = post_faulty(stage)
    market = stage.party("solver")
    solver = asking(stage, market)
    assert not solver.poll()  # enters no ask for what it cannot check
    submitter.send_for("enterAsk", task, market.address)
    stage.chain.wait(2 * submitter.posted(task).spec.bid_window + 1)
    assert solver.poll()
    (ended,) = stage.ledger.events("TaskEnded")
    assert ended["reason"].rstrip(b"\0") == b"program fault"
    assert market.state(task).status == Status.EXPIRED
    record = market.record(market.address)
    assert (market.free_balance(), record.capacity, record.defaulted) == (ETHER, 5, 0)
    assert not solver.poll()


class Unchecked(Solver):
    """Takes any program for the small job."""

    def bundle(self, task: int) -> Bundle:
        return bundle()

    def check(self, task: int) -> None:
        return


def test_verifiers_void_a_task_whose_program_is_none_and_lose_nothing(stage: Stage) -> None:
    submitter, task = post_faulty(stage)
    settings = Settings(stage.directory / "solver")
    verifiers = [Verifier(stage.party(f"verifier {i}"), make_executor) for i in (1, 2)]
    for verifier in verifiers:
        verifier.register()
    solver = Unchecked(stage.party("solver"), make_executor, settings)
    state = stage.play(task, submitter, [solver, *verifiers], stage.party("keeper"))
    assert state.status == Status.EXPIRED
    (ended,) = stage.ledger.events("TaskEnded")
    assert ended["reason"].rstrip(b"\0") == b"program fault"
    assert not stage.ledger.events("Unavailable")
    check_money(stage, submitter, set())


def test_no_honest_program_is_taken_for_a_faulty_one(stage: Stage) -> None:
    submitter, task = post(stage)
    solver = a_solver(stage.party("solver"), stage.directory)
    assert not solver.void(task)
    assert submitter.state(task).status == Status.BIDDING


@pytest.mark.parametrize("restarts", [False, True])
def test_data_withholding_an_attestor_defends_itself_though_the_store_has_forgotten_all(
    stage: Stage, restarts: bool
) -> None:
    submitter, task = post(stage)
    solver = a_solver(stage.party("solver"), stage.directory)
    markets = [stage.party(f"verifier {i}") for i in (1, 2)]
    place = stage.directory / "kept"  # by both, as by default on one machine

    def verifiers() -> list[Verifier]:
        return [Verifier(market, make_executor, Own(directory=place)) for market in markets]

    own = verifiers()
    for verifier in own:
        verifier.register()
    solver.poll()
    end_bidding(stage, solver)
    while submitter.state(task).status != Status.WINDOW:
        if not sum(agent.poll() for agent in (solver, *own)):
            stage.chain.wait(1)
    assert solver.poll()  # publishes its log
    log = CheckpointLog.fetch(solver.store(task), submitter.state(task))
    run = submitter.runs(task)[0]
    liar = stage.party("liar")
    liar.ensure_balance(submitter.posted(task).spec.bond)
    bound = (stage.chain.chain_id, stage.deployment.market, task, liar.address)
    digest = challenge_digest(*bound, run.first, run.count, 0, bytes(32))
    liar.send_for("sealChallenge", task, digest, True)
    stage.chain.wait(1)
    shutil.rmtree(stage.store.url)
    shown = (log.opening(run.first).as_abi(), log.opening(run.first + run.count).as_abi())
    target = (run.first, run.count, NO_SEAT, 0, *shown)
    liar.send_for("challenge", task, target, bytes(32))
    own = verifiers() if restarts else own
    state = stage.play(task, submitter, [solver, *own], stage.party("keeper"))
    assert state.status == Status.SETTLED
    assert not stage.ledger.events("VerifierSlashed")
    for verifier in own:
        verifier.poll()
    assert list(place.rglob("*.safetensors"))  # a reorganization could take the end back
    for _ in range(KEPT_BLOCKS):
        stage.chain.wait(1)
    for verifier in own:
        verifier.poll()
    assert not list(place.rglob("*.safetensors"))


def test_a_submitter_ends_a_task_whose_solver_vanished(stage: Stage) -> None:
    submitter, task = post(stage)
    solver = a_solver(stage.party("solver"), stage.directory)
    solver.poll()
    end_bidding(stage, solver)
    assert upkeep.move_on(submitter, task, submitter.state(task))
    assert submitter.state(task).status == Status.TRAINING
    assert not upkeep.move_on(submitter, task, submitter.state(task))
    stage.chain.wait(submitter.posted(task).spec.train_window + 1)
    assert upkeep.move_on(submitter, task, submitter.state(task))
    assert submitter.state(task).status == Status.SLASHED
    assert submitter.free_balance() == submitter.posted(task).spec.escrow
    check_money(stage, submitter, {"solver"})
