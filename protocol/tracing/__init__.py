# SPDX-License-Identifier: GPL-3.0-or-later
"""Tracing: from an ordinary torch module, loss and optimizer to a program of one training step.

capture     torch -> core ATen graph (with `optimizers`: the real torch.optim inside)
scalars     what one element is computed from; `moves` is the algebra of views on it
graph       values, and when they become nodes; `emit` writes expressions
lowering    which ATen operation becomes what: `elementwise`, `reductions`, `matmul`, `indexing`,
            `movement`, `creation`, `convolution`, `pooling`, `dropout`
schedule    numbers that depend on the step alone
api         `trace`
"""

from protocol.tracing.api import Traced, trace

__all__ = ["Traced", "trace"]
