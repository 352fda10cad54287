# SPDX-License-Identifier: GPL-3.0-or-later
"""LLVM IR text to machine code. It imports nothing but llvmlite, so that a child starts quickly."""

from __future__ import annotations

from functools import lru_cache

import llvmlite.binding as llvm


@lru_cache(maxsize=1)
def initialize() -> None:
    """Make LLVM able to generate code for this machine."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def compile_text(text: str, cpu: str, features: str, speed: int) -> bytes:
    """Return the object file of LLVM IR text, optimized at level `speed` (0 to 3).

    Raises RuntimeError where LLVM refuses the text.
    """
    initialize()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=speed, codemodel="jitdefault", jit=True
    )
    module = llvm.parse_assembly(text)
    module.verify()
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    tuning = llvm.create_pipeline_tuning_options(speed_level=speed)
    # Kernels are written in vectors; looking for more of them only costs compile time.
    tuning.loop_vectorization = tuning.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return bytes(machine.emit_object(module))
