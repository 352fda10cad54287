# SPDX-License-Identifier: GPL-3.0-or-later
"""The market as one account sees and uses it. Nothing is remembered that the chain can tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from protocol.chain.client import Account, Chain, Log, Receipt, event_topic
from protocol.chain.deployment import Contracts, Deployment
from protocol.errors import ChainError, NotConfirmed
from protocol.task import Demand, Record, Run, Seat, SeatState, TaskSpec, TaskState

OnReceipt = Callable[[str, Receipt], None]


@dataclass(frozen=True)
class Posted:
    """A task as it was posted."""

    id: int
    spec: TaskSpec
    artifacts: str
    block: int


@dataclass(frozen=True)
class OpenDispute:
    """A dispute over some segments of a task. `context` has Solidity's field names."""

    id: int
    task: int
    challenger: str
    defendant: str
    first: int
    count: int
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

    @property
    def label(self) -> str:
        """Names chain, market and account: what several keep in one place does not mix."""
        return f"{self.chain.chain_id}-{self.deployment.market}-{self.address}"

    def send(self, function: str, *args: Any, value: int = 0) -> Receipt:
        """A transaction to the market."""
        return self._send(self.contracts.market, function, *args, value=value)

    def send_for(self, function: str, task: int, *args: Any) -> Receipt:
        """A transaction to the market that names a task and its terms."""
        return self.send(function, task, self.posted(task).spec.as_abi(), *args)

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

    def shows(self, block: int) -> bool:
        """True if events of a block are confirmed: what this account did there can be seen."""
        chain = self.chain
        return chain.confirmations == 0 or block <= chain.block - chain.confirmations

    # Money ----------------------------------------------------------------------------------------

    def free_balance(self, address: str | None = None) -> int:
        """What an account may lock or withdraw, in the smallest unit of the currency."""
        return int(self.view("balanceOf", address or self.address))

    def ensure_balance(self, needed: int) -> None:
        """Deposits what is missing to have `needed` free."""
        missing = needed - self.free_balance()
        if missing > 0:
            self.deposit(missing)

    def deposit(self, amount: int) -> None:
        """Deposits an amount of the currency that the market takes."""
        token = self.contracts.token
        if token is None:
            self.send("deposit", value=amount)
        else:
            self._send(token, "approve", self.deployment.market, amount)
            self.send("depositToken", amount)

    # Tasks ----------------------------------------------------------------------------------------

    def post(self, spec: TaskSpec, artifacts: str) -> int:
        """Posts a task, escrows `spec.escrow`, and returns the task's id."""
        value = spec.escrow
        if self.contracts.token is not None:
            self.ensure_balance(value)
            value = 0
        receipt = self.send("post", spec.as_abi(), artifacts, value=value)
        task = int(receipt.event("TaskPosted")["id"])
        self._posted.pop(task, None)  # a reorganization may have given it another's number
        return task

    def record(self, solver: str) -> Record:
        """What is known of a solver, and its standing ask."""
        return Record(*self.view("recordOf", solver))

    def task_count(self) -> int:
        """Number of tasks ever posted; their ids start at 1."""
        return int(self.view("taskCount"))

    def posted(self, task: int) -> Posted:
        """A task's terms, from its event; NotConfirmed if that is too young to be believed."""
        if task not in self._posted:
            if not 1 <= task <= self.task_count():
                raise ChainError(f"there is no task {task} at the market {self.deployment.market}")
            self._posted[task] = self._read(task)
        return self._posted[task]

    def state(self, task: int) -> TaskState:
        """The task's state now."""
        state = TaskState.from_abi(self.view("getTask", task))
        posted = self._posted.get(task)
        if posted is not None and posted.spec.hash != state.spec_hash:
            # The chain was reorganized: the number is another task's now.
            del self._posted[task]
        return state

    def _read(self, task: int) -> Posted:
        events = self.events("TaskPosted", task)
        spec_hash = self.state(task).spec_hash
        for block, _, values, _ in events:
            spec = TaskSpec.from_abi(values["spec"])
            if spec.hash == spec_hash:
                return Posted(task, spec, values["artifacts"], block)
        raise NotConfirmed(f"the terms of task {task} are not confirmed yet")

    def runs(self, task: int, audit_round: int | None = None) -> list[Run]:
        """The runs drawn in the current progress window; of one round if it is given."""
        found = [Run(*values) for values in self.view("getRuns", task)]
        return [run for run in found if audit_round in (None, run.round)]

    def seats(self, task: int) -> list[Seat]:
        """The verifiers drawn in the current progress window, in all its rounds."""
        return [Seat(v, SeatState(state), r) for v, state, r in self.view("getSeats", task)]

    def disputes(self, task: int) -> list[OpenDispute]:
        """All disputes ever opened over a task, oldest first."""
        return [
            OpenDispute(
                v["disputeId"], task, v["challenger"], v["defendant"],
                v["first"], v["count"], dict(v["context"]), block,
            )
            for block, _, v, _ in self.events("DisputeOpened", task)
        ]  # fmt: skip

    def pending(self, dispute: int) -> bool:
        """True if the dispute has no verdict yet."""
        return bool(self.view("disputes", dispute)[0] != 0)

    def demands(self, task: int) -> list[Demand]:
        """The chunks of a task that the solver has still to post."""
        events = self.events("Demanded", task)
        found = [(v["demandId"], self.view("demands", v["demandId"])) for _, _, v, _ in events]
        return [Demand(number, *values) for number, values in found if values[0] != 0]

    def game_events(self, dispute: OpenDispute) -> list[tuple[str, dict[str, Any]]]:
        """All events of one dispute in the game, oldest first; the first is its creation."""
        topics = [None, "0x" + dispute.id.to_bytes(32).hex()]
        found = self.chain.logs(self.contracts.game, dispute.block, topics)
        return [(log.name, log.values) for log in found]

    def events(self, name: str, task: int | None = None) -> list[Log]:
        """Events of one name, of one task if it is given, oldest first."""
        item = next(i for i in self.contracts.market.abi if i.get("name") == name)
        topics = ["0x" + event_topic(item).hex()]
        if task is not None:
            topics.append("0x" + task.to_bytes(32).hex())
        return self.chain.logs(self.contracts.market, self.deployment.block, topics)
