# SPDX-License-Identifier: GPL-3.0-or-later
"""The market as one account sees and uses it. Nothing is remembered that the chain can tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from protocol.chain.client import Account, Chain, Receipt, event_topic
from protocol.chain.deployment import Contracts, Deployment
from protocol.errors import ChainError
from protocol.task import Run, Seat, SeatState, TaskSpec, TaskState

OnReceipt = Callable[[str, Receipt], None]


@dataclass(frozen=True)
class Posted:
    """A task as it was posted."""

    id: int
    spec: TaskSpec
    submitter: str
    budget: int
    artifacts: str
    block: int


@dataclass(frozen=True)
class OpenDispute:
    """A dispute over a run of a task. `context` has Solidity's field names."""

    id: int
    task: int
    challenger: str
    run: int
    context: dict[str, Any]
    block: int


class Market:
    """Calls and transactions of one account. `on_receipt` sees every mined transaction."""

    def __init__(
        self,
        chain: Chain,
        deployment: Deployment,
        account: Account,
        on_receipt: OnReceipt | None = None,
    ) -> None:
        self.chain = chain
        self.deployment = deployment
        self.contracts: Contracts = deployment.contracts(chain)
        self.account = account
        self._on_receipt = on_receipt
        self._posted: dict[int, Posted] = {}

    @property
    def address(self) -> str:
        """Address of the account."""
        return str(self.account.address)

    def send(self, function: str, *args: Any, value: int = 0) -> Receipt:
        """A transaction to the market."""
        return self._send(self.contracts.market, function, *args, value=value)

    def send_move(self, function: str, *args: Any) -> Receipt:
        """A transaction to the dispute game."""
        return self._send(self.contracts.game, function, *args)

    def _send(self, contract: Any, function: str, *args: Any, value: int = 0) -> Receipt:
        receipt = self.chain.send(self.account, contract, function, *args, value=value)
        if self._on_receipt is not None:
            self._on_receipt(self.address, receipt)
        return receipt

    def view(self, function: str, *args: Any) -> Any:
        """A call of a view function of the market."""
        return self.chain.call(self.contracts.market, function, *args)

    def post(self, spec: TaskSpec, artifacts: str, budget: int) -> int:
        """Posts a task and returns its id; the verifiers' fees come on top of the budget (wei)."""
        value = budget + spec.committee * spec.verifier_fee
        receipt = self.send("post", spec.as_abi(), artifacts, value=value)
        return int(receipt.event("TaskPosted")["id"])

    def free_balance(self, address: str | None = None) -> int:
        """Wei in the market that an account may lock or withdraw."""
        return int(self.view("balanceOf", address or self.address))

    def ensure_balance(self, needed: int) -> None:
        """Deposits what is missing to have `needed` wei free."""
        missing = needed - self.free_balance()
        if missing > 0:
            self.send("deposit", value=missing)

    def task_count(self) -> int:
        """Number of tasks ever posted; their ids start at 1."""
        return int(self.view("taskCount"))

    def posted(self, task: int) -> Posted:
        """A task's terms, from its event."""
        if task not in self._posted:
            known = 1 <= task <= self.task_count()
            events = self._events("TaskPosted", task) if known else []
            if not events:
                raise ChainError(f"there is no task {task} at the market {self.deployment.market}")
            block, values = events[0]
            self._posted[task] = Posted(
                task,
                TaskSpec.from_abi(values["spec"]),
                values["submitter"],
                values["budget"],
                values["artifacts"],
                block,
            )
        return self._posted[task]

    def state(self, task: int) -> TaskState:
        """The task's state now."""
        return TaskState.from_abi(self.view("getTask", task))

    def runs(self, task: int) -> list[Run]:
        """The drawn runs of the current round."""
        return [Run(*values) for values in self.view("getRuns", task)]

    def seats(self, task: int) -> list[Seat]:
        """The drawn verifiers of the current round."""
        return [Seat(v, SeatState(state)) for v, state, _ in self.view("getSeats", task)]

    def disputes(self, task: int) -> list[OpenDispute]:
        """All disputes ever opened over a task, oldest first."""
        return [
            OpenDispute(v["disputeId"], task, v["challenger"], v["run"], dict(v["context"]), block)
            for block, v in self._events("DisputeOpened", task)
        ]

    def pending(self, dispute: int) -> bool:
        """True if the dispute has no verdict yet."""
        return bool(self.view("disputes", dispute)[0] != 0)

    def game_events(self, dispute: OpenDispute) -> list[tuple[str, dict[str, Any]]]:
        """All events of one dispute in the game, oldest first; the first is its creation."""
        topics = [None, "0x" + dispute.id.to_bytes(32).hex()]
        found = self.chain.logs(self.contracts.game, dispute.block, topics)
        return [(name, values) for _, name, values in found]

    def _events(self, name: str, task: int) -> list[tuple[int, dict[str, Any]]]:
        item = next(i for i in self.contracts.market.abi if i.get("name") == name)
        topics = ["0x" + event_topic(item).hex(), "0x" + task.to_bytes(32).hex()]
        found = self.chain.logs(self.contracts.market, self.deployment.block, topics)
        return [(block, values) for block, _, values in found]
