# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the arrays that a caller wants a step's new state written to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from protocol.errors import UsageError
from protocol.execution import Bits
from protocol.executor.team import address
from protocol.program import Program


def is_plain(tensor: Bits) -> bool:
    """Whether native code can use an array where it is."""
    return tensor.flags.c_contiguous and tensor.flags.aligned


def check_destination(
    program: Program, state: Sequence[Bits], out: Sequence[Bits], read: Sequence[Bits]
) -> None:
    """Raise UsageError unless `out` can take the new state of a step.

    One writable array per state tensor, each `state[s]` itself or apart from all others, from the
    state and from `read`.
    """
    if len(out) != program.n_state:
        raise UsageError(f"{len(out)} arrays for the new state, not {program.n_state}")
    for index, tensor in enumerate(out):
        shape = program.state_node(index).shape
        if tensor.dtype != np.uint32 or tensor.shape != shape:
            raise UsageError(
                f"out[{index}] is {tensor.dtype} of shape {tensor.shape}, not uint32 of {shape}"
            )
        if not is_plain(tensor) or not tensor.flags.writeable:
            raise UsageError(f"out[{index}] is not a writable C-contiguous array")
    apart = [*read, *(s for s, o in zip(state, out, strict=True) if s is not o)]
    spans = [(address(o), o.nbytes, f"out[{index}]") for index, o in enumerate(out)]
    spans += [(address(r), r.nbytes, "") for r in apart]
    end_written = end = 0
    for start, size, name in sorted(spans):
        if start < (end if name else end_written):
            raise UsageError(
                f"{name or 'what the step reads'} shares memory with an array of `out`, or with "
                "what the step reads; out[s] may only be state[s] itself"
            )
        end = max(end, start + size)
        end_written = max(end_written, start + size if name else 0)
