# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes sure that this machine computes the protocol's bits before it stakes money on them.

The canary program is compiled and run once per process, and its digest must be that of the
reference interpreter. Beside that, every compiled segment tests the floating-point environment of
the thread that runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from protocol.errors import NumericsError
from protocol.execution import Inputs
from protocol.executor.canary import CANARY_DIGEST, canary, digest
from protocol.executor.compiled import NativeExecutor
from protocol.executor.target import Target
from protocol.program import Program


def self_check(target: Target | None = None) -> None:
    """Compile and run the canary, for this machine unless `target` says otherwise.

    Raises NumericsError if a bit is not what the specification says, or if this thread flushes
    subnormal numbers to zero or does not round to nearest.
    """
    program, state, inputs = canary()
    found = digest(NativeExecutor(program, inputs, target=target), state)
    if found != CANARY_DIGEST:
        raise NumericsError(
            f"the canary program's digest is {found}, not {CANARY_DIGEST}: this machine does not "
            "compute the protocol's bits"
        )


@lru_cache(maxsize=1)
def self_check_once() -> None:
    """Run the self-check unless it has already passed in this process."""
    self_check()


class CompiledExecutor(NativeExecutor):
    """A `NativeExecutor` on a machine that has passed the self-check: the one to stake money on."""

    def __init__(
        self,
        program: Program,
        inputs: Inputs,
        threads: int = 1,
        target: Target | None = None,
        watch: Sequence[str] = (),
    ) -> None:
        """Check this machine once per process, then validate and compile the program.

        Raises NumericsError if the machine fails, ProgramError for an invalid program, UsageError
        for inputs that do not fit it.
        """
        self_check_once()
        super().__init__(program, inputs, threads, target, watch)
