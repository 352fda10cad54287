# SPDX-License-Identifier: GPL-3.0-or-later
"""Named scenarios: who cheats how, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable

from bitcourt.lab.agents import (
    CopyingVerifier,
    ForgetfulSolver,
    LateVerifier,
    LazyVerifier,
    RansomingSolver,
    StallingSolver,
    WithholdingSolver,
)
from bitcourt.lab.cheats import (
    Cheat,
    Flip,
    Lazy,
    LowPrecision,
    When,
    WrongData,
    WrongRate,
    find_nodes,
    is_deep,
    is_dot,
    is_gather,
    is_laned,
    is_map,
)
from bitcourt.lab.scenario import MakeCheat, Scenario
from bitcourt.lab.trades import TRADES
from protocol.program import Node, Program
from protocol.task import Status
from verifier.agent import Verifier

SEGMENT_STEPS = 5
"""Steps between two checkpoints of the jobs in `bitcourt.lab.small`."""


def flip(
    what: str, wanted: Callable[[Node], bool], *, last: bool = False, step: int = 3, mask: int = 1
) -> MakeCheat:
    """Flips one bit in one step of each segment, in the first or last node of a kind."""

    def cheat(program: Program) -> Cheat:
        node = find_nodes(program, what, wanted)[-1 if last else 0]
        return Flip(node, element=3, when=in_step(step), mask=mask)

    return cheat


def in_step(step: int) -> When:
    """True for one step of each segment."""
    return lambda number: number % SEGMENT_STEPS == step


def _lie(what: str, cheat: MakeCheat, *, wide: bool = False) -> Scenario:
    return Scenario(what, Status.SLASHED, cheat, wide=wide)


_FORWARD = flip("matrix product", is_dot)

SCENARIOS: dict[str, Scenario] = {
    "honest": Scenario("everybody does what they should", Status.SETTLED, dispute=False),
    "forward": _lie("one bit of the first matrix product of the forward pass", _FORWARD),
    "backward": _lie(
        "one bit of the last matrix product of the backward pass",
        flip("matrix product", is_dot, last=True),
    ),
    "expression": _lie("one bit of the first elementwise node", flip("elementwise node", is_map)),
    "optimizer": _lie(
        "one bit of the last optimizer update", flip("elementwise node", is_map, last=True)
    ),
    "gather": _lie("one bit of the batch that the step reads", flip("gather", is_gather)),
    "lanes": _lie(
        "one bit of a softmax's sum, in sixteen lanes", flip("sum in lanes", is_laned), wide=True
    ),
    "long-sum": _lie(
        "one bit of a sum of 300 products, in two blocks",
        # Smaller errors of these logits vanish in the softmax behind them, in some segments.
        flip("long sum", is_deep, mask=1 << 8),
        wide=True,
    ),
    "first-step": _lie(
        "one bit in the first step of each segment", flip("matrix product", is_dot, step=0)
    ),
    "last-step": _lie(
        "one bit in the last step of each segment",
        flip("matrix product", is_dot, step=SEGMENT_STEPS - 1),
    ),
    "lazy": _lie("the solver skips every step", lambda _: Lazy()),
    "skips-one": _lie("the solver skips one step of each segment", lambda _: Lazy(in_step(2))),
    "low-precision": _lie("the solver trains in bfloat16", lambda _: LowPrecision()),
    "wrong-rate": _lie("the solver trains with twice the learning rate", lambda _: WrongRate(0.1)),
    "wrong-data": _lie("the solver trains on other data", lambda _: WrongData()),
    "two-disputes": Scenario(
        "two verifiers convict one cheater at the same time",
        Status.SLASHED,
        _FORWARD,
    ),
    "staller": Scenario(
        "the solver cheats and stops answering in the dispute",
        Status.SLASHED,
        _FORWARD,
        solver=StallingSolver,
    ),
    "withholder": Scenario(
        "the solver commits and never opens its checkpoints",
        Status.SLASHED,
        solver=ForgetfulSolver,
        dispute=False,
    ),
    "unserved": Scenario(
        "the solver opens its checkpoints and serves their bytes to nobody",
        Status.EXPIRED,
        solver=WithholdingSolver,
        dispute=False,
        liars_lose=False,
    ),
    "ransom": Scenario(
        "the solver passes the audit and keeps the final state to itself",
        Status.EXPIRED,
        solver=RansomingSolver,
        dispute=False,
        liars_lose=False,
    ),
    "false-challenger": Scenario(
        "a verifier that did not replay seals noise, and disputes the honest solver",
        Status.SETTLED,
        verifiers=(Verifier, Verifier, LazyVerifier),
    ),
    "copier": Scenario(
        "a verifier that did not replay copies the other's seal",
        Status.SETTLED,
        verifiers=(Verifier, Verifier, CopyingVerifier),
        dispute=False,
    ),
    "late-verifier": Scenario(
        "a drawn verifier never seals",
        Status.SETTLED,
        verifiers=(Verifier, Verifier, LateVerifier),
        dispute=False,
    ),
    **TRADES,
}
