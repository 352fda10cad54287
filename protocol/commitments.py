# SPDX-License-Identifier: GPL-3.0-or-later
"""The roots of everything that is committed to (specification, section 4).

Each function says which leaves its tree has; the tree itself is always that of `protocol.merkle`.
Tensors are arrays of bit patterns (`protocol.execution.Bits`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from protocol import merkle
from protocol.encoding import encode_nodes
from protocol.errors import CommitmentError
from protocol.execution import Bits
from protocol.merkle import Tree, leaf_hash
from protocol.program import Program
from protocol.tensor_tree import chunk, chunk_count, tensor_roots

__all__ = [
    "ZERO_ROOT",
    "checkpoint_leaf",
    "checkpoint_leaf_hash",
    "checkpoint_log",
    "inputs_root",
    "program_tree",
    "roots_tree",
    "state_root",
    "state_tree",
    "step_log_tree",
    "tensor_roots",
    "trace_tree",
]

ZERO_ROOT: Final = bytes(32)
"""Root of no constants or no data, and salt of the checkpoint log's leaf 0."""


def roots_tree(roots: Iterable[bytes]) -> Tree:
    """Return the tree whose leaf data are 32-byte roots; CommitmentError if there is none."""
    return Tree([leaf_hash(_hash32("root", root)) for root in roots])


def state_tree(state: Sequence[Bits]) -> Tree:
    """Return the tree over the tensor roots of at least one state tensor."""
    return roots_tree(tensor_roots(state))


def state_root(state: Sequence[Bits], threads: int | None = None) -> bytes:
    """Return the root of `state_tree`, hashed on `threads` threads (by default on all CPUs)."""
    return roots_tree(tensor_roots(state, threads)).root


def inputs_root(tensors: Sequence[Bits]) -> bytes:
    """Return the root of the constants or of the data: 32 zero bytes if there are none."""
    return roots_tree(tensor_roots(tensors)).root if tensors else ZERO_ROOT


def trace_tree(outputs: Sequence[Bits]) -> Tree:
    """Return the tree of one step's trace: the tensor root of each node's output in order."""
    return roots_tree(tensor_roots(outputs))


def program_tree(program: Program) -> Tree:
    """Return the tree over the encodings of the nodes; its root is `encoding.program_root`."""
    return Tree([leaf_hash(encoding) for encoding in encode_nodes(program)])


def step_log_tree(state_roots: Sequence[bytes]) -> Tree:
    """Return the step log of a segment: the state root after each of its steps."""
    return roots_tree(state_roots)


def checkpoint_leaf(salt: bytes, root: bytes) -> bytes:
    """Return the 64 bytes of leaf data that seal a state root in the checkpoint log.

    `salt` has 32 bytes: unguessable ones, zero only for leaf 0, the initial state that all know.
    """
    return _hash32("salt", salt) + _hash32("state root", root)


def checkpoint_leaf_hash(salt: bytes, root: bytes) -> bytes:
    """Return the leaf hash of a checkpoint."""
    return leaf_hash(checkpoint_leaf(salt, root))


def receipt_root(state: Sequence[Bits], salt: bytes) -> bytes:
    """Return a verifier's receipt: the root over all chunks of the final state, each behind `salt`.

    The leaf data are `salt ‖ chunk`, tensor by tensor in program order. `salt` is what
    `protocol.task.receipt_salt` gives, another one for each verifier, so that only who has every
    byte can compute the root, and nobody can copy another's. At least one tensor.
    """
    _hash32("salt", salt)
    return Tree(
        leaf_hash(salt + chunk(tensor, index))
        for tensor in state
        for index in range(chunk_count(tensor.size))
    ).root


def checkpoint_log(leaves: Sequence[bytes]) -> Tree:
    """Return the checkpoint log over leaf data as `checkpoint_leaf` returns it."""
    for index, leaf in enumerate(leaves):
        if len(leaf) != 2 * merkle.HASH_BYTES:
            raise CommitmentError(f"checkpoint {index} has {len(leaf)} bytes, not 64")
    return Tree([leaf_hash(leaf) for leaf in leaves])


def _hash32(what: str, value: bytes) -> bytes:
    if len(value) != merkle.HASH_BYTES:
        raise CommitmentError(f"a {what} has {merkle.HASH_BYTES} bytes, not {len(value)}")
    return value
