# SPDX-License-Identifier: GPL-3.0-or-later
"""Learning-rate schedules: torch's own, step by step the same binary32 numbers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.optim import lr_scheduler as lrs

from protocol.errors import TraceError
from protocol.execution import Inputs
from protocol.program import Kind
from protocol.reference import ReferenceExecutor
from protocol.tracing import trace
from protocol.tracing.numbers import StepNumbers
from protocol.tracing.schedule import evaluate, table
from protocol.tracing.schedulers import learning_rates
from tests.tracing_support import CLASSES, SEED, small_mlp
from tests.training_support import MakeScheduler, trains_like_torch


def warm_up_then_cosine(optimizer: torch.optim.Optimizer) -> lrs.LRScheduler:
    warm_up = lrs.LinearLR(optimizer, start_factor=0.01, total_iters=20)
    cosine = lrs.CosineAnnealingLR(optimizer, T_max=80)
    return lrs.SequentialLR(optimizer, [warm_up, cosine], milestones=[20])


def spike(step: int) -> float:
    """A rate that is constant but for one step, far into the training."""
    return 3.0 if step == 1500 else 1.0


SCHEDULERS: dict[str, MakeScheduler] = {
    "constant": lambda o: lrs.ConstantLR(o, factor=0.5, total_iters=7),
    "step": lambda o: lrs.StepLR(o, 30, gamma=0.5),
    "multi-step": lambda o: lrs.MultiStepLR(o, [10, 40, 90]),
    "exponential": lambda o: lrs.ExponentialLR(o, 0.97),
    "cosine": lambda o: lrs.CosineAnnealingLR(o, 100, eta_min=1e-4),
    "cosine-restarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 30),
    "linear": lambda o: lrs.LinearLR(o, 0.1, total_iters=50),
    "polynomial": lambda o: lrs.PolynomialLR(o, 100, power=2.0),
    "lambda-from-zero": lambda o: lrs.LambdaLR(o, lambda step: min(1.0, step / 10)),
    "lambda-spike": lambda o: lrs.LambdaLR(o, spike),
    "multiplicative": lambda o: lrs.MultiplicativeLR(o, lambda step: 0.99),
    "one-cycle": lambda o: lrs.OneCycleLR(o, 0.3, total_steps=1600, cycle_momentum=False),
    "cyclic": lambda o: lrs.CyclicLR(o, 0.01, 0.2, step_size_up=13, cycle_momentum=False),
    "chained": lambda o: lrs.ChainedScheduler([lrs.LinearLR(o, 0.1), lrs.ExponentialLR(o, 0.99)]),
    "warm-up-then-cosine": warm_up_then_cosine,
}
STEPS = 1600


def two_groups() -> torch.optim.Optimizer:
    first, *rest = small_mlp().parameters()
    return torch.optim.SGD([{"params": [first], "lr": 0.3}, {"params": rest}], lr=0.1)


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("name", SCHEDULERS)
def test_tables_hold_the_rates_that_torch_sets(name: str) -> None:
    optimizer = two_groups()
    scheduler = SCHEDULERS[name](optimizer)
    before = copy.deepcopy(scheduler.state_dict())
    formulas = learning_rates(optimizer, scheduler, STEPS)
    assert str(scheduler.state_dict()) == str(before), "the scheduler is not stepped"
    found = [table(formula) for formula in formulas]
    wanted: list[list[float]] = []
    for step in range(STEPS):
        if step:
            scheduler.step()
        wanted.append([float(group["lr"]) for group in optimizer.param_groups])
    patterns = np.array(wanted).astype(np.float32).view(np.uint32)
    for group, made in enumerate(found):
        assert made is not None
        entries, last = made
        whole = np.concatenate([entries, np.full(STEPS - len(entries), last, np.uint32)])
        assert (whole == patterns[:, group]).all()


TRAINED: list[tuple[str, type[torch.optim.Optimizer]]] = [
    ("warm-up-then-cosine", torch.optim.AdamW),
    ("lambda-from-zero", torch.optim.Adam),
    ("step", torch.optim.SGD),
    ("cosine", torch.optim.RMSprop),
    ("exponential", torch.optim.Adagrad),
]


@pytest.mark.parametrize(("name", "kind"), TRAINED)
def test_training_on_a_schedule_follows_torch(name: str, kind: type[torch.optim.Optimizer]) -> None:
    module = small_mlp()
    optimizer = kind(module.parameters(), lr=0.01)
    trains_like_torch(
        module, F.cross_entropy, CLASSES, optimizer, tolerance=2e-3,
        make_scheduler=SCHEDULERS[name],
    )  # fmt: skip


def test_the_last_rate_holds_beyond_the_table() -> None:
    module = small_mlp()
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    scheduler = lrs.LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
    traced = trace(
        module, F.cross_entropy, optimizer, dataset=CLASSES, batch_size=4, scheduler=scheduler,
        steps=5,
    )  # fmt: skip
    (rates,) = [bits.view(np.float32) for bits in traced.constants if bits.shape == (4,)]
    assert np.array_equal(-rates, np.float32([1, 1 / 2, 1 / 3, 1 / 4]))
    executor = ReferenceExecutor(traced.program, Inputs(traced.constants, traced.data, SEED))
    (number,) = [n for n, node in enumerate(traced.program.nodes) if _reads_table(node, traced)]
    for step in (4, 5, 10**6):
        rate = executor.trace(traced.state, step)[number].view(np.float32)
        assert float(rate) == -np.float32(1 / 5)


def _reads_table(node: object, traced: object) -> bool:
    nodes = traced.program.nodes  # type: ignore[attr-defined]
    if node.kind is not Kind.MAP or node.shape:  # type: ignore[attr-defined]
        return False
    sources = [o.source for o in node.body.operands if hasattr(o, "source")]  # type: ignore[attr-defined]
    return any(nodes[s].kind is Kind.CONST and nodes[s].shape == (4,) for s in sources)


def test_a_constant_schedule_gives_the_program_of_no_schedule() -> None:
    programs = []
    for scheduled in (False, True):
        module = small_mlp()
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
        scheduler = lrs.LambdaLR(optimizer, lambda step: 1.0) if scheduled else None
        traced = trace(
            module, F.cross_entropy, optimizer, dataset=CLASSES, batch_size=4,
            scheduler=scheduler, steps=50,
        )  # fmt: skip
        programs.append(traced.program.nodes)
    assert programs[0] == programs[1]


def test_numbers_stand_for_what_was_computed_from_them() -> None:
    numbers = StepNumbers()
    step = numbers.after(3)
    value = -0.5 / (1 - 0.9**step) ** 0.5 * 2 + 1
    formula = numbers.formula(float(value))
    assert formula is not None
    for t in (0, 5):
        wanted = -0.5 / (1 - 0.9 ** (t + 4)) ** 0.5 * 2 + 1
        assert evaluate(formula, np.array([float(t)]))[0] == pytest.approx(wanted, rel=1e-15)
    assert numbers.formula(0.25) is None
    assert (0.0**step, 1.0**step, step * 0, 0 / step) == (0.0, 1.0, 0.0, 0.0)
    assert numbers.formula(0.0) is None
    assert numbers.formula(1.0) is None


# Refusals -----------------------------------------------------------------------------------------


def refused(make: MakeScheduler, steps: int | None = 50, **options: float) -> str:
    module = small_mlp()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, **options)
    scheduler = make(optimizer)
    with pytest.raises(TraceError) as caught:
        trace(
            module, F.cross_entropy, optimizer, dataset=CLASSES, batch_size=4,
            scheduler=scheduler, steps=steps,
        )  # fmt: skip
    return str(caught.value)


def test_schedules_that_cannot_be_tabulated_are_refused_by_name() -> None:
    assert "StepLR needs `steps`" in refused(lambda o: lrs.StepLR(o, 3), None)
    assert "not 2000000" in refused(lambda o: lrs.StepLR(o, 3), 2_000_000)
    assert "ReduceLROnPlateau follows the loss" in refused(lrs.ReduceLROnPlateau)
    assert "not float" in refused(lambda o: 0.5)  # type: ignore[arg-type, return-value]
    other = torch.optim.SGD(small_mlp().parameters(), lr=0.1)
    assert "another optimizer" in refused(lambda o: lrs.StepLR(other, 3))
    ends = lambda o: lrs.OneCycleLR(o, 0.1, total_steps=10, cycle_momentum=False)  # noqa: E731
    assert "OneCycleLR gives no rate for step 11" in refused(ends)
    message = refused(lambda o: lrs.OneCycleLR(o, 0.1, total_steps=60))
    assert "OneCycleLR changes betas" in message
    assert "cycle_momentum=False" in message
