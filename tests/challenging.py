# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks whose window is open, and whoever challenges in them, move by move."""

from __future__ import annotations

from collections.abc import Sequence

from bitcourt.lab.cheats import Lazy, lying
from bitcourt.lab.market_agents import Accomplice
from bitcourt.lab.stage import Stage
from protocol.agent import Agent
from protocol.audit import CheckpointLog
from protocol.executor import CompiledExecutor
from protocol.game_view import GameView
from protocol.market import Market, OpenDispute
from protocol.store import Store
from protocol.task import NO_SEAT, Status, challenge_digest
from solver.agent import Solver
from tests.staged import end_bidding, make_executor, post
from verifier.agent import Settings, Verifier


def registered(stage: Stage, count: int = 2, slots: int = 1) -> list[Verifier]:
    """Verifiers that have joined the list."""
    own = Settings(slots=slots)
    found = [
        Verifier(stage.party(f"verifier {i}"), make_executor, own) for i in range(1, count + 1)
    ]
    for verifier in found:
        verifier.register()
    return found


def play_until(
    stage: Stage, task: int, agents: Sequence[Agent], status: Status, pause: int = 120
) -> None:
    """Lets agents act until a task is in a status; whenever all are idle, `pause` seconds pass."""
    market = agents[0].market
    for _ in range(400):
        if market.state(task).status == status:
            return
        if not sum(agent.poll() for agent in agents):
            stage.chain.wait(pause)
    raise AssertionError(market.state(task))


def reach(
    stage: Stage, task: int, status: Status, solver: Solver, verifiers: Sequence[Agent]
) -> None:
    """From the bidding to a status of the audit, in as little time as that takes."""
    assert solver.poll()
    end_bidding(stage, solver)
    play_until(stage, task, [solver, *verifiers], status, pause=1)


def reach_window(stage: Stage, task: int, solver: Solver, verifiers: Sequence[Agent]) -> None:
    """From the bidding to a challenge window, with a log that is published."""
    reach(stage, task, Status.WINDOW, solver, verifiers)
    solver.poll()
    market = solver.market
    assert Store(market.posted(task).artifacts).has_log(market.state(task).log_root)


def a_lie_that_all_attest(stage: Stage, solver: Solver) -> int:
    """A task with a lazy solver whose accomplices have attested; its window is open."""
    _, task = post(stage)
    liar = lying(CompiledExecutor, Lazy())
    verifiers = [Accomplice(stage.party(f"verifier {i}"), liar) for i in (1, 2)]
    for verifier in verifiers:
        verifier.register()
    reach(stage, task, Status.WINDOW, solver, verifiers)
    return task


def seal(market: Market, task: int, first: int) -> bytes:
    """Seals a challenge of one segment; returns its nonce."""
    nonce = (first + 1).to_bytes(32)
    place = (market.chain.chain_id, market.deployment.market, task, market.address)
    market.ensure_balance(market.posted(task).spec.bond << (market.state(task).challenges // 4))
    digest = challenge_digest(*place, first, 1, NO_SEAT, nonce)
    market.send_for("sealChallenge", task, digest, False)
    return nonce


def tell(market: Market, task: int, first: int, nonce: bytes) -> OpenDispute:
    """Tells a challenge that was sealed; returns the dispute."""
    log = CheckpointLog.fetch(Store(market.posted(task).artifacts), market.state(task))
    shown = [log.opening(leaf).as_abi() for leaf in (first, first + 1)]
    market.send_for("challenge", task, (first, 1, NO_SEAT, NO_SEAT, *shown), nonce)
    return next(d for d in market.disputes(task) if d.challenger == market.address)


def view_of(market: Market, dispute: OpenDispute) -> GameView:
    """A dispute as the chain shows it."""
    return GameView.after(market.game_events(dispute))
