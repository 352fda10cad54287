# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiles LLVM IR to machine code in this process.

No compiler is needed on the machine: LLVM comes with llvmlite. The only symbol that kernels may
want from outside is the C library's `fmaf`, on a CPU (or target) without fused multiply-add.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any, Final

import llvmlite.binding as llvm

from protocol.errors import NumericsError
from protocol.executor.target import Target

SEGMENT: Final = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


@lru_cache(maxsize=1)
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


class Library:
    """Machine code of one module; it lives as long as this object."""

    def __init__(self, text: str, target: Target, speed: int = 3) -> None:
        """Compile IR text. Raises NumericsError where LLVM cannot compile for the target."""
        _initialize()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=target.cpu, features=target.features, opt=speed, codemodel="jitdefault"
        )
        try:
            module = llvm.parse_assembly(text)
            module.verify()
        except RuntimeError as error:
            raise NumericsError(f"LLVM refuses a generated kernel: {error}") from error
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        tuning = llvm.create_pipeline_tuning_options(speed_level=speed)
        # Kernels are written in vectors; looking for more of them only costs compile time.
        tuning.loop_vectorization = tuning.slp_vectorization = False
        builder = llvm.create_pass_builder(machine, tuning)
        builder.getModulePassManager().run(module, builder)
        self._machine: Any = machine
        self._engine: Any = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()

    def segment(self, name: str) -> Any:
        """Return a segment as a ctypes function `(table, begin, end) -> int`."""
        return SEGMENT(self._engine.get_function_address(name))
