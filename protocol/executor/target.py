# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machine the kernels are compiled for, and the shape of their inner loops there.

Nothing here changes a bit of any result: it only decides how many elements are computed at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import llvmlite.binding as llvm


@dataclass(frozen=True)
class Target:
    """A CPU as LLVM names it; `features` is a comma-separated list such as `+avx2,-fma`."""

    cpu: str = ""
    features: str = ""

    def has(self, feature: str) -> bool:
        """Whether a feature is switched on."""
        return f"+{feature}" in self.features.split(",")

    @property
    def width(self) -> int:
        """Number of 32-bit elements in a vector register."""
        if self.has("avx512f") and self.has("avx512vl"):
            return 16
        return 8 if self.has("avx2") else 4

    @property
    def registers(self) -> int:
        """Number of vector registers."""
        return 32 if self.width == 16 else 16

    @property
    def tallest(self) -> int:
        """Rows of a tile of a matrix product, each of which wants an address register."""
        return 8 if self.width == 16 else 6

    @property
    def attributes(self) -> str:
        """LLVM attribute group 0, that of all kernels."""
        return (
            f'nounwind "target-cpu"="{self.cpu}" "target-features"="{self.features}" '
            f'"prefer-vector-width"="{32 * self.width}" "min-legal-vector-width"="0" '
            '"denormal-fp-math"="ieee,ieee" "no-trapping-math"="true"'
        )


@lru_cache(maxsize=1)
def host_target() -> Target:
    """Return this machine."""
    return Target(llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())


@lru_cache(maxsize=1)
def machine() -> str:
    """Return this machine's architecture as LLVM names it, such as `x86_64`; Linux only."""
    triple = llvm.get_default_triple()
    return triple.split("-")[0] if "linux" in triple else "unknown"
