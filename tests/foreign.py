# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a program's kernels for AArch64 under user-mode emulation (QEMU), without a C library.

LLVM compiles for that machine too; GNU binutils link the kernels, the driver's single-threaded loop
and an image of all tensors to a static program, which writes the tensors back when it is done.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import llvmlite.binding as llvm
import numpy as np

from protocol.execution import Bits, Inputs
from protocol.executor.driver import CALLS, CONTROL, COUNT, POINTERS, driver_text
from protocol.executor.module import build_module
from protocol.executor.order import make_order, resolve
from protocol.executor.plan import ALIGNMENT
from protocol.executor.target import Target
from protocol.float32 import WORD
from protocol.program import Kind, Program
from protocol.reference import element

TOOLS: Final = ("qemu-aarch64-static", "aarch64-linux-gnu-as", "aarch64-linux-gnu-ld")
MACHINE: Final = Target("cortex-a72", "+neon,+fp-armv8")

# The C library's two functions that LLVM may call on its own, and a start.
START: Final = """
.text
.global _start, memset, memcpy
_start:
  ldr x0, =control
  ldr x1, =scratch
  bl alone
  cbnz w0, 1f
  mov x0, #1
  ldr x1, =memory
  ldr x2, =SIZE
0: mov x8, #64
  svc #0
  cmp x0, #0
  b.le 1f
  add x1, x1, x0
  subs x2, x2, x0
  mov x0, #1
  b.ne 0b
  mov x0, #0
1: mov x8, #93
  svc #0
memset:
  mov x3, x0
0: cbz x2, 1f
  strb w1, [x3], #1
  sub x2, x2, #1
  b 0b
1: ret
memcpy:
  mov x3, x0
0: cbz x2, 1f
  ldrb w4, [x1], #1
  strb w4, [x3], #1
  sub x2, x2, #1
  b 0b
1: ret
.section .note.GNU-stack,"",%progbits
"""


def missing_tools() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def _object(text: str) -> bytes:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple("aarch64-linux-gnu").create_target_machine(
        cpu=MACHINE.cpu, features=MACHINE.features, opt=2, reloc="static", codemodel="small"
    )
    module = llvm.parse_assembly(text)
    module.verify()
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return bytes(machine.emit_object(module))


def _leaf(program: Program, number: int, state: Sequence[Bits], inputs: Inputs, step: int) -> Bits:
    """The output of a node, or zeros where a kernel computes it."""
    node = program.nodes[number]
    given = {Kind.INPUT: state, Kind.CONST: inputs.constants, Kind.DATA: inputs.data}
    if node.kind in given:
        return np.ascontiguousarray(given[node.kind][node.index])
    if node.kind in (Kind.STEP, Kind.SAMPLE):
        values = [element(node, e, lambda *_: 0, inputs.seed, step) for e in range(node.numel)]
        return np.array(values, np.uint32).reshape(node.shape)
    return np.zeros(node.shape, np.uint32)


def trace(
    program: Program, state: Sequence[Bits], inputs: Inputs, step: int, folder: Path
) -> list[Bits]:
    """The trace of a step as a Cortex-A72 computes it, by way of files in `folder`."""
    module = build_module(program, MACHINE)
    order = make_order(program, {})
    words = np.array([step & WORD, *np.frombuffer(inputs.seed[:8], ">u4")], np.uint32)
    tensors = [_leaf(program, n, state, inputs, step) for n in range(len(program.nodes))]
    offsets, image = [], bytearray()
    for tensor in (*tensors, words):
        offsets.append(len(image))
        image += tensor.tobytes() + bytes(-tensor.nbytes % ALIGNMENT)
    pointers, calls = [], []
    for number in order.numbers:
        call = module.calls[number]
        calls += [call.kernel, str(8 * len(pointers)), str(call.shape.units)]
        places = [(number, 0), *call.sources, *([(len(tensors), 0)] if call.random else [])]
        pointers += [f"memory+({offsets[place] + 4 * shift})" for place, shift in places]
    control = ["0"] * CONTROL
    control[COUNT], control[CALLS], control[POINTERS] = str(len(order.numbers)), "calls", "pointers"
    (folder / "memory").write_bytes(image)
    lines = [START.replace("SIZE", str(len(image))), ".data", ".balign 64"]
    lines += [f'memory: .incbin "{folder / "memory"}"', ".balign 64"]
    for name, values in (("control", control), ("calls", calls), ("pointers", pointers)):
        lines += [f"{name}:", *(f".quad {value}" for value in values)]
    lines += [".bss", ".balign 64", f"scratch: .skip {module.scratch + ALIGNMENT}"]
    (folder / "start.s").write_text("\n".join(lines) + "\n")
    objects = [str(folder / "start.o")]
    subprocess.run([TOOLS[1], str(folder / "start.s"), "-o", objects[0]], check=True)
    for number, text in enumerate([*module.parts, driver_text(MACHINE, "")]):
        path = folder / f"part{number}.o"
        path.write_bytes(_object(text))
        objects.append(str(path))
    program_path = str(folder / "step")
    subprocess.run([TOOLS[2], "-o", program_path, *objects], check=True)
    found = subprocess.run([TOOLS[0], program_path], check=True, stdout=subprocess.PIPE).stdout
    memory = np.frombuffer(found, np.uint32)
    outputs = []
    for number, node in enumerate(program.nodes):
        start = offsets[resolve(program, number)] // 4
        outputs.append(memory[start : start + node.numel].reshape(node.shape))
    return outputs


def digest(outputs: Sequence[Bits]) -> str:
    hasher = sha256()
    for output in outputs:
        hasher.update(output.astype("<u4").tobytes())
    return hasher.hexdigest()
