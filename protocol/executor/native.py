# SPDX-License-Identifier: GPL-3.0-or-later
"""Machine code in this process: loads what `compiler` makes of LLVM IR.

No compiler is needed on the machine: LLVM comes with llvmlite. Symbols that the code may want from
outside are all of the C library: `fmaf`, on a CPU (or target) without fused multiply-add, and what
`driver` declares.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final

import llvmlite.binding as llvm

from protocol.errors import NumericsError
from protocol.executor.compiler import compile_text, initialize
from protocol.executor.target import Target

ENTRY: Final = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)


class Library:
    """Machine code of one or more modules; it lives as long as this object."""

    def __init__(self, parts: Sequence[str], target: Target, speed: int = 3) -> None:
        """Compile IR texts. Raises NumericsError where LLVM cannot compile for the target."""
        initialize()
        try:
            objects = [compile_text(t, target.cpu, target.features, speed) for t in parts]
        except RuntimeError as error:
            raise NumericsError(f"LLVM refuses a generated kernel: {error}") from error
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=target.cpu, features=target.features, codemodel="jitdefault", jit=True
        )
        self._engine: Any = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        for one in objects:
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(one))
        self._engine.finalize_object()

    def address(self, name: str) -> int:
        """Return where a function begins."""
        return int(self._engine.get_function_address(name))

    def function(self, name: str) -> Callable[[int, int], int]:
        """Return a function `i32 (ptr, ptr)`; a call of it lets other Python threads run."""
        return ENTRY(self.address(name))
