# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs that ship learn as they do in torch: same start, same batches, over 120 steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bitcourt import jobs
from bitcourt.job import load_job
from tests.training_support import trains_like_torch

JOBS = Path(jobs.__file__).parent
TINY = {"WIDTH": 16, "LAYERS": 1, "HEADS": 2, "TIME": 12, "BATCH": 4}


@pytest.mark.slow
def test_char_gpt_learns_as_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in TINY.items():
        monkeypatch.setenv(f"CHAR_GPT_{name}", str(size))
    job, width = load_job(JOBS / "char_gpt.py"), TINY["WIDTH"]
    traced = trains_like_torch(
        job.module, job.loss, job.dataset, job.optimizer, batch=job.batch_size, tolerance=2e-3,
        make_scheduler=lambda _: job.scheduler, clip_norm=job.clip_norm,
        # The bias of the keys moves all scores of a query alike, which softmax does not see.
        without_gradient={"blocks.0.qkv.bias": slice(width, 2 * width)},
    )  # fmt: skip
    assert len(traced.data) == 1, "the windows share the text"
    assert "model.token.weight" in traced.program.state_names
    assert "model.head.weight" not in traced.program.state_names, "tied"


def test_digits_learn_as_in_torch() -> None:
    job = load_job(JOBS / "digits.py")
    before = job.metric(job.module) if job.metric else 1.0
    trains_like_torch(
        job.module, job.loss, job.dataset, job.optimizer, batch=job.batch_size, tolerance=1e-4
    )
    assert job.metric is not None
    assert before < 0.3
    assert job.metric(job.module) > 0.9
    assert torch.isfinite(next(job.module.parameters())).all()
