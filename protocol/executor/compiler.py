# SPDX-License-Identifier: GPL-3.0-or-later
"""LLVM IR text to machine code, as a process of its own: `python compiler.py` serves its parent.

LLVM can end its process on input that it does not like, and programs come from strangers; that must
not take a solver down (`compiling` talks to this process). It imports nothing but llvmlite, so that
it starts quickly.

A request is a line of JSON, `{"cpu", "features", "speed", "size"}`, then `size` bytes of text; the
answer is `ok SIZE` or `no SIZE` on a line, then an object file or a message. It ends with its input
or when it has been idle for a while.
"""

from __future__ import annotations

import json
import os
import resource
import select
import sys
from functools import lru_cache
from typing import BinaryIO, Final

import llvmlite.binding as llvm

IDLE_SECONDS: Final = 60.0
"""How long a compiler waits for work before it gives its memory back."""


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


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more, or none for `IDLE_SECONDS`."""
    while select.select([requests], [], [], IDLE_SECONDS)[0]:
        line = requests.readline()
        if not line:
            return
        request = json.loads(line)
        text = requests.read(request["size"]).decode()
        try:
            word, found = (
                b"ok",
                compile_text(text, request["cpu"], request["features"], request["speed"]),
            )
        except RuntimeError as error:
            word, found = b"no", str(error).encode()
        answers.write(word + b" %d\n" % len(found) + found)
        answers.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no core file for a program that is refused
    # What LLVM or a library prints must not end up among the answers.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, channel)
