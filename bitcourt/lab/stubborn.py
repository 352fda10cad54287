# SPDX-License-Identifier: GPL-3.0-or-later
"""A liar that stands by its lie to the last move.

An honest replay of a tampered trace contradicts itself where the lie is: its accumulators do not
end in the claimed value, and the game would not even take them. This witness bends the last of
them, and the last posted value, so that all it says fits the claim and one operation is left wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain as chain_of

from protocol import fold as folds
from protocol.float32 import apply
from protocol.ops import Op
from protocol.program import Fold, Kind, Node
from protocol.witness import ReplayWitness
from solver.agent import Solver

_REACH = 4096
"""Units in the last place within which a partial result is looked for."""


class StubbornWitness(ReplayWitness):
    """A replay that claims whatever its trace shows, honest or not."""

    def lanes(self, step: int, node: int, element: int) -> list[int]:
        """Sixteen lane results that combine to the claimed value."""
        lanes = super().lanes(step, node, element)
        fold = self.program.nodes[node].fold
        claimed = self._claimed(step, node, element)

        def fits(bent: list[int]) -> bool:
            return folds.finish(fold, folds.combine_lanes(fold, bent)) == claimed

        if fits(lanes):
            return lanes
        for lane in range(len(lanes)):
            for value in _near(lanes[lane]):
                bent = [*lanes[:lane], value, *lanes[lane + 1 :]]
                if fits(bent):
                    return bent
        return lanes

    def accumulators(
        self, step: int, node: int, element: int, lane: int, level: int, chain: int
    ) -> list[int]:
        """Accumulators of a chain, the last of which is what was claimed for it."""
        honest = super().accumulators(step, node, element, lane, level, chain)
        return [*honest[:-1], self._result(step, node, element, lane, level, chain)]

    def values(self, step: int, node: int, element: int, term: int | None) -> list[int]:
        """Posted values; those of a MAP end in the claimed value."""
        values = super().values(step, node, element, term)
        body = self.program.nodes[node].body
        register = body.results[0]
        if self.program.nodes[node].kind is not Kind.MAP or register < len(body.operands):
            return values
        place = register - len(body.immediates)
        return [*values[:place], self._claimed(step, node, element), *values[place + 1 :]]

    def _claimed(self, step: int, node: int, element: int) -> int:
        return int(self._trace(step)[node].reshape(-1)[element])

    def _result(self, step: int, node: int, element: int, lane: int, level: int, chain: int) -> int:
        """What this liar claims for one chain: it must fit what it claimed above it."""
        spec: Node = self.program.nodes[node]
        honest = super().accumulators(step, node, element, lane, level, chain)[-1]
        n = folds.lane_terms(spec.terms, spec.lanes, lane)
        if level == len(folds.levels(n)) - 1:
            if spec.lanes > 1:
                return self.lanes(step, node, element)[lane]
            claimed = self._claimed(step, node, element)
            return honest if folds.finish(spec.fold, honest) == claimed else claimed
        block, item = divmod(chain, folds.BLOCK)
        above = self.accumulators(step, node, element, lane, level + 1, block)
        before = above[item - 1] if item else folds.identity(spec.fold)

        def fits(value: int) -> bool:
            return folds.combine(spec.fold, before, value) == above[item]

        # A small result may have to move far to move a large sum by one unit: begin at the gap.
        gap = apply(Op.SUB, above[item], before) if spec.fold in (Fold.DOT, Fold.SUM) else honest
        candidates = chain_of((honest, above[item], gap), _near(gap), _near(honest))
        return next((v for v in candidates if fits(v)), honest)


def _near(value: int) -> Iterator[int]:
    """Patterns around a value, the nearest first."""
    for distance in range(1, _REACH):
        yield (value + distance) & 0xFFFFFFFF
        yield (value - distance) & 0xFFFFFFFF


class StubbornSolver(Solver):
    """A solver that defends whatever its executor computed."""

    witness_type = StubbornWitness
