# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes of checkpoints: from the store, and the few that it lacks from the chain, on demand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from protocol.bundle import Bundle, state_layout
from protocol.commitments import program_tree, state_root
from protocol.encoding import encode_nodes
from protocol.errors import ArtifactError
from protocol.execution import Bits
from protocol.market import Market
from protocol.mirror import Mirror
from protocol.rules import DEMAND_SHARE, MAX_DEMANDS, PRICE_DOUBLES
from protocol.store import Hole
from protocol.task import TaskState
from protocol.tensor_tree import CHUNK_ELEMENTS


class Demander:
    """Gets states for one account."""

    def __init__(
        self, market: Market, store: Callable[[int], Mirror], bundle: Callable[[int], Bundle]
    ) -> None:
        self.market = market
        self._store = store
        self._bundle = bundle
        self._demanded = market.chain.block
        """Block of the last demand; of an earlier process there may be one until now."""
        self._open: set[int] = set()
        """Tasks in which a demand was open when last looked at."""
        self._closed = self._demanded
        """Block in which the last demand was found to be closed."""

    def state(self, task: int, root: bytes) -> list[Bits]:
        """The state with a root, checked; ArtifactError if bytes are missing or wrong."""
        layout = state_layout(self._bundle(task).program)
        try:
            return self._store(task).get_tensors(root, layout)
        except ArtifactError:
            answered = self._answered(task, root)
            if not answered:
                raise
        tensors, _ = self._store(task).get_partial(root, layout)
        for (tensor, number), data in answered.items():
            flat = tensors[tensor].reshape(-1)
            flat[CHUNK_ELEMENTS * number :][: len(data) // 4] = np.frombuffer(data, "<u4")
        if state_root(tensors) != root:
            raise ArtifactError(f"bytes of the state {root.hex()} are still missing or wrong")
        self._store(task).keep(tensors, layout)
        return tensors

    def waits(self, task: int, state: TaskState) -> bool:
        """True while a demand of this account may still be answered, or its answer be confirmed."""
        own = (d.asker == self.market.address for d in self.market.demands(task) if state.open)
        if any(own):
            self._open.add(task)
            return True
        if task in self._open:
            self._open.remove(task)
            self._closed = self.market.chain.block
        return not self.market.shows(self._closed)

    def demand(self, task: int, state: TaskState, seat: int, leaf: int, root: bytes) -> bool:
        """Demands the next chunk of a state that the store lacks; True if it did.

        What anybody has demanded need not be demanded again: it was answered, or still must be.
        Where so many are missing that they would cost more than the fee for verifying, none is.
        Nothing is demanded before the chain shows the demand before it: it would be paid for twice.
        """
        if not self.market.shows(self._demanded):
            return False
        try:
            layout = state_layout(self._bundle(task).program)
            _, holes = self._store(task).get_partial(root, layout)
        except ArtifactError:
            return False
        demanded = (e.values for e in self.market.events("Demanded", task))
        known = {(v["tensor"], v["chunk"]) for v in demanded if v["leaf"] == leaf}
        missing = [hole for hole in holes if hole not in known]
        spec, program = self.market.posted(task).spec, self._bundle(task).program
        price = -(-spec.bond // DEMAND_SHARE) << (state.demands // PRICE_DOUBLES)
        too_dear = (self._asked(task) + len(missing)) * price > spec.verifier_fee
        if not missing or too_dear or state.demands >= MAX_DEMANDS:
            return False
        tensor, number = missing[0]
        node = spec.n_nodes - spec.n_state + tensor
        self.market.ensure_balance(price)
        receipt = self.market.send_for(
            "demand", task, seat, leaf, tensor, number,
            encode_nodes(program)[node], program_tree(program).inclusion_proof(node),
        )  # fmt: skip
        self._demanded = receipt.block
        return True

    def _asked(self, task: int) -> int:
        """Demands of this account in a task so far."""
        own = self.market.address
        return sum(e.values["asker"] == own for e in self.market.events("Demanded", task))

    def _answered(self, task: int, root: bytes) -> dict[Hole, bytes]:
        """Chunks of a state that the solver has posted on chain."""
        places = {
            e.values["demandId"]: (e.values["tensor"], e.values["chunk"])
            for e in self.market.events("Demanded", task)
        }
        return {
            places[e.values["demandId"]]: bytes(e.values["chunk"])
            for e in self.market.events("Answered", task)
            if bytes(e.values["stateRoot"]) == root
        }
