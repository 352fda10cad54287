# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes docs/operators.md from the tracer's own tables: `python -m scripts.operators`."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from protocol import mathfn
from protocol.ops import SIGNATURES
from protocol.tracing import api
from protocol.tracing.lowering import LOWERINGS

PAGE = Path(__file__).parent.parent / "docs" / "operators.md"

HEAD = """\
# What can be traced, and what the referee computes

This page is written by `python -m scripts.operators` from the tracer's and the referee's own
tables.

## ATen operations

A training step is captured after PyTorch's core ATen decompositions, so a layer works if the
operations it decomposes into are below. Any other is refused by name, with the module
it comes from and the line of its forward, before anything is posted.
"""

MODULES = """
## Modules

These are compared with PyTorch by tests, unmodified: loss and every updated parameter over several
steps.

| family | modules and functions |
|---|---|
| linear | `Linear`, `Embedding` (`padding_idx`, tied), matrix products, `einsum` |
| convolution | `Conv1d/2d/3d` and `ConvTranspose2d` (stride, padding, dilation, groups, \
padding modes) |
| normalization | `LayerNorm`, `RMSNorm`, `BatchNorm1d/2d` (statistics are state; \
`momentum=None` too), `GroupNorm`, `InstanceNorm2d` |
| pooling | `MaxPool1d/2d`, `AvgPool1d/2d`, `AdaptiveAvgPool1d/2d`, `AdaptiveMaxPool1d/2d` |
| recurrence | `LSTM`, `GRU`, `RNN` (layers, both directions, projections, initial states), \
`LSTMCell`, `GRUCell`, `RNNCell`: unrolled, weight gradients as one product |
| attention | `MultiheadAttention`, `scaled_dot_product_attention`, `TransformerEncoderLayer` |
| random | `Dropout`, `Dropout1d`, `AlphaDropout`: seeded by the task and the step |
| selection | `argmax`, `argmin`, `max` and `min` of an axis, `topk` up to 32, `cumsum`, \
`cumprod`; the first of equal elements is chosen |
| `transformers` | GPT-2, Llama (grouped queries), BERT from a config, as they are: the loss \
receives the model's output object |

The data set is `(*inputs, target)`: inputs are passed to the module in order, so that a model which
takes more than tokens needs a wrapper that names them: `forward(self, tokens, mask)` returning
`self.model(input_ids=tokens, attention_mask=mask)`. `sort`, shapes and branches that depend on
data,
half precision and complex numbers are refused. A shape or branch may depend on constants.
"""

FUNCTIONS = """
## Functions

Transcendental functions are compositions of primitives inside the program. The largest error is in
units in the last place, measured against mpmath by `tests/test_mathfn.py`.

| function | at most (ulp) | primitives |
|---|---|---|
"""
_STATED = re.compile(r"At most ([0-9.]+) ulp; (\d+) instructions")

PRIMITIVES = """
## Primitives

The contract executes exactly one of these in a one-step proof. `f` is binary32, `i` a 32-bit
integer.

| primitive | code | operands | result |
|---|---|---|---|
"""


def page() -> str:
    """Text of the page."""
    families: dict[str, list[str]] = defaultdict(list)
    for name, function in LOWERINGS.items():
        families[function.__module__.rsplit(".", 1)[-1]].append(name)
    known = {family.__name__.rsplit(".", 1)[-1] for family in api.FAMILIES}
    lines = [HEAD]
    for family in sorted(known & families.keys()):
        names = ", ".join(f"`{name}`" for name in sorted(families[family]))
        lines.append(f"\n**{family.capitalize()}**: {names}\n")
    rows = [
        f"| {op.name} | 0x{op:02x} | {' '.join(signature.operands)} | {signature.result} |\n"
        for op, signature in sorted(SIGNATURES.items())
    ]
    return "".join([*lines, MODULES, FUNCTIONS, *functions(), PRIMITIVES, *rows])


def functions() -> list[str]:
    """A row for each function, with what its docstring states."""
    stated = [(name, _STATED.search(f.__doc__ or "")) for name, f in vars(mathfn).items()]
    return [f"| {name} | {m.group(1)} | {m.group(2)} |\n" for name, m in stated if m is not None]


if __name__ == "__main__":
    PAGE.write_text(page())
