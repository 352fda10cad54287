# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks whose window is open, and whoever challenges in them, move by move."""

from __future__ import annotations

from collections.abc import Sequence

from bitcourt.lab.stage import Stage
from protocol.agent import Agent
from protocol.audit import CheckpointLog
from protocol.game_view import GameView
from protocol.market import Market, OpenDispute
from protocol.store import Store
from protocol.task import NO_SEAT, Status, challenge_digest
from solver.agent import Solver
from tests.staged import end_bidding, make_executor
from verifier.agent import Verifier


def registered(stage: Stage, count: int = 2) -> list[Verifier]:
    """Verifiers that have joined the list."""
    found = [Verifier(stage.party(f"verifier {i}"), make_executor) for i in range(1, count + 1)]
    for verifier in found:
        verifier.register()
    return found


def play_until(stage: Stage, task: int, agents: Sequence[Agent], status: Status) -> None:
    """Lets agents act until a task is in a status; whenever all are idle, two minutes pass."""
    market = agents[0].market
    for _ in range(400):
        if market.state(task).status == status:
            return
        if not sum(agent.poll() for agent in agents):
            stage.chain.wait(120)
    raise AssertionError(market.state(task))


def open_window(stage: Stage, task: int, solver: Solver, verifiers: Sequence[Verifier]) -> None:
    """Trades until the challenge window is open and the solver has shown its log."""
    solver.poll()
    end_bidding(stage, solver)
    market = solver.market
    for _ in range(400):
        if market.state(task).status == Status.WINDOW:
            break
        if not sum(agent.poll() for agent in (solver, *verifiers)):
            stage.chain.wait(1)
    solver.poll()
    assert Store(market.posted(task).artifacts).has_log(market.state(task).log_root)


def seal(stage: Stage, market: Market, task: int, first: int) -> bytes:
    """Seals a challenge of one segment; returns its nonce."""
    nonce = first.to_bytes(32)
    place = (stage.chain.chain_id, stage.deployment.market, task, market.address)
    market.ensure_balance(market.posted(task).spec.bond)
    market.send_for(
        "sealChallenge", task, challenge_digest(*place, first, 1, NO_SEAT, nonce), False
    )
    return nonce


def tell(market: Market, task: int, first: int, nonce: bytes) -> OpenDispute:
    """Tells a challenge that was sealed; returns the dispute."""
    log = CheckpointLog.fetch(Store(market.posted(task).artifacts), market.state(task))
    shown = [log.opening(leaf).as_abi() for leaf in (first, first + 1)]
    market.send_for("challenge", task, (first, 1, NO_SEAT, NO_SEAT, *shown), nonce)
    return market.disputes(task)[-1]


def view_of(market: Market, dispute: OpenDispute) -> GameView:
    """A dispute as the chain shows it."""
    return GameView.after(market.game_events(dispute))
