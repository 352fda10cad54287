# SPDX-License-Identifier: GPL-3.0-or-later
"""SHA-256 over tensors in bulk: native code where the CPU has the instructions, else hashlib.

`compression` and `trees` write LLVM IR for the CPU's SHA extensions, `native` loads it once and
tests it against hashlib, `portable` is the same in Python; `bulk` chooses between the two.
"""

from protocol.hashing.bulk import levels, roots

__all__ = ["levels", "roots"]
