# SPDX-License-Identifier: GPL-3.0-or-later
"""A stage for one task: a chain, contracts, funded accounts, and a loop that lets agents act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bitcourt.lab.agents import Keeper
from bitcourt.lab.ledger import Ledger
from protocol.agent import Agent
from protocol.bundle import Bundle
from protocol.chain.client import Account, Chain, new_account
from protocol.chain.deployment import Deployment, deploy
from protocol.errors import BitcourtError
from protocol.market import Market
from protocol.store import Store
from protocol.task import Status, TaskSpec, TaskState

ETHER = 10**18


@dataclass
class Stage:
    """Everything that the parties of a task share."""

    chain: Chain
    faucet: Account
    deployment: Deployment
    store: Store
    ledger: Ledger
    directory: Path

    @classmethod
    def build(cls, chain: Chain, faucet: Account, directory: Path, store: str = "") -> Stage:
        """Deploys the contracts; artifacts go to `directory/store` unless a store URL is given."""
        deployment = deploy(chain, faucet)
        url = store or str((directory / "store").resolve())
        return cls(chain, faucet, deployment, Store(url), Ledger(), directory)

    def party(self, role: str, ether: int = 100) -> Market:
        """A new funded account, as a client of the market."""
        account = new_account()
        self.chain.transfer(self.faucet, account.address, ether * ETHER)
        self.ledger.roles[account.address] = role
        return Market(self.chain, self.deployment, account, self.ledger.record)

    def post(self, submitter: Market, bundle: Bundle, spec: TaskSpec) -> int:
        """Publishes the bundle and posts the task."""
        bundle.publish(self.store)
        return submitter.post(spec, self.store.url)

    def play(
        self,
        task: int,
        market: Market,
        agents: Sequence[Agent],
        keeper: Market,
        limit: int = 2000,
    ) -> TaskState:
        """Lets the agents act in turn until the task has ended.

        Whenever none of them has anything to do, chain time passes: a block first, then half of the
        time to the deadline that the task or one of its disputes is waiting for, then all of it.
        """
        idle = 0
        cleaner = Keeper(keeper)
        spec = market.posted(task).spec
        for _ in range(limit):
            state = market.state(task)
            if state.status.final and not state.open and not cleaner.poll(task):
                return state
            if sum(agent.poll() for agent in agents):
                idle = 0
                continue
            idle += 1
            if cleaner.poll(task):
                continue
            if idle == 1:
                self.chain.wait(1)
            elif state.open:
                self.chain.wait(min(spec.dispute_clock, spec.audit_window))
            else:
                left = _next_deadline(state, spec, self.chain.now) - self.chain.now + 1
                self.chain.wait(-(-left // 2) if idle == 2 else left)
        raise BitcourtError(f"task {task} did not end: it is {market.state(task)}")


def _next_deadline(state: TaskState, spec: TaskSpec, now: int) -> int:
    """When the next time that the task waits for is over; `now` if there is none."""
    ends = [state.deadline]
    if state.status == Status.BIDDING:
        ends.append(state.deadline + spec.bid_window)
    if state.status in (Status.SEALING, Status.CONVICTED):
        ends.append(state.deadline + spec.audit_window)
    return next((end for end in ends if end >= now), now)
