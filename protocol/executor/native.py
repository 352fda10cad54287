# SPDX-License-Identifier: GPL-3.0-or-later
"""Machine code in this process: loads what `compiler` makes of LLVM IR, now or earlier.

No compiler is needed on the machine: LLVM comes with llvmlite. Symbols that the code may want from
outside are all of the C library: `fmaf`, on a CPU (or target) without fused multiply-add, and what
`driver` declares.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import llvmlite.binding as llvm

from protocol.executor import cache
from protocol.executor.compiler import initialize
from protocol.executor.compiling import compile_all
from protocol.executor.target import Target

ENTRY: Final = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)


def objects(texts: Sequence[str], target: Target, speed: int) -> list[bytes]:
    """Return the object file of each text, from the cache where it is there."""
    place = cache.folder()
    names = [cache.key(text, target, speed) for text in texts]
    found = [None if place is None else cache.load(place, name) for name in names]
    missing = [index for index, one in enumerate(found) if one is None]
    made = compile_all([texts[index] for index in missing], target, speed)
    if place is not None and missing:
        for index, one in zip(missing, made, strict=True):
            cache.save(place, names[index], one)
        cache.trim_sometimes(place)
    fresh = iter(made)
    return [next(fresh) if one is None else one for one in found]


class Library:
    """Machine code of one or more modules; it lives as long as this object."""

    def __init__(self, parts: Sequence[str], target: Target, speed: int = 2) -> None:
        """Compile IR texts. Raises NumericsError where LLVM cannot compile for the target."""
        initialize()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=target.cpu, features=target.features, codemodel="jitdefault", jit=True
        )
        self._engine: Any = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        for one in objects(parts, target, speed):
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(one))
        self._engine.finalize_object()

    def address(self, name: str) -> int:
        """Return where a function begins."""
        return int(self._engine.get_function_address(name))

    def function(self, name: str) -> Callable[[int, int], int]:
        """Return a function `i32 (ptr, ptr)`; a call of it lets other Python threads run."""
        found: Any = ENTRY(self.address(name))
        found.library = self  # the code must stay as long as somebody can call it
        return cast("Callable[[int, int], int]", found)
