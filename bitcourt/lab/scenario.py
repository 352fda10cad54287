# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scenario is: who takes part, who lies, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bitcourt.lab.cheats import Cheat
from protocol.program import Program
from protocol.task import Status
from solver.agent import Solver
from verifier.agent import Verifier

if TYPE_CHECKING:
    from bitcourt.lab.simulation import Outcome

MakeCheat = Callable[[Program], Cheat]


@dataclass(frozen=True)
class Bidding:
    """How a solver comes by the task."""

    kind: type[Solver] = Solver
    price: float = 1.0
    """Its bid, in ether; with `ask`, what it asks for each unit of work."""
    ask: bool = False
    """Whether it has a standing ask instead of bids."""


@dataclass(frozen=True)
class Scenario:
    """One staged task: what happens, who takes part, and the status it must end in."""

    what: str
    expect: Status
    cheat: MakeCheat | None = None
    """Arithmetic of the solver; honest without."""
    solver: type[Solver] = Solver
    verifiers: tuple[type[Verifier], ...] = (Verifier,) * 2
    dispute: bool = True
    """Whether a dispute must be opened."""
    wide: bool = False
    """Whether it needs the job with long sums."""
    liars_lose: bool = True
    """Whether lying costs stake: withheld bytes cannot be proven, they only earn nothing."""
    price: float = 1.0
    """Bid of the solver, in ether."""
    rivals: tuple[Bidding, ...] = ()
    """Further solvers: `rival 1` and so on."""
    direct: bool = False
    """Whether the terms name the solver, so that there is no auction."""
    accomplices: bool = False
    """Whether the verifiers compute as the solver does."""
    whistleblower: bool = False
    """Whether somebody watches who was not drawn."""
    terms: dict[str, Any] = field(default_factory=dict)
    """Terms of the task that are not the usual ones."""
    losers: Callable[[Outcome], set[str]] | None = None
    """Roles that must lose money, where it is not whoever does not follow the protocol."""
    holds: Callable[[Outcome], bool] | None = None
    """What else must hold in the end."""

    @property
    def liars(self) -> set[str]:
        """Roles of those who do not follow the protocol."""
        lying = {
            f"verifier {i}" for i, kind in enumerate(self.verifiers, 1) if kind is not Verifier
        }
        lying |= {f"rival {i}" for i, bid in enumerate(self.rivals, 1) if bid.kind is not Solver}
        honest = self.cheat is None and self.solver is Solver
        return lying if honest else {*lying, "solver"}
