# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs compiled to native code through LLVM, bit-exact with `protocol.reference`.

`access` reduces views to addresses and the tests that can fail; `evaluation` emits an expression on
scalars or vectors; `map_kernel`, `tile_kernel`, `lane_kernel`, `scatter_kernel` and `philox_kernel`
are the loops around it, `gemm` those of products of matrices, `chain_kernel` and `chains` what a
dispute shows inside one element; `module` puts a program's kernels
together, `compiler` and `native` make machine code of them. `order`, `plan`, `schedule` and
`memory` say when and where each node is computed; `driver` is the native loop over a step, `team`
the threads in it, `compiled` the whole. `canary` and `check` make sure of the machine.
"""

from protocol.executor.check import CompiledExecutor, self_check
from protocol.executor.compiled import NativeExecutor
from protocol.executor.target import Target, host_target

__all__ = ["CompiledExecutor", "NativeExecutor", "Target", "host_target", "self_check"]
