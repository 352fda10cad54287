# SPDX-License-Identifier: GPL-3.0-or-later
"""Each root is the RFC 9162 root of the leaves that the specification names."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from protocol.commitments import (
    ZERO_ROOT,
    checkpoint_leaf,
    checkpoint_leaf_hash,
    checkpoint_log,
    inputs_root,
    program_tree,
    state_root,
    state_tree,
    step_log_tree,
    tensor_roots,
    trace_tree,
)
from protocol.encoding import encode_node, program_root
from protocol.errors import CommitmentError
from protocol.merkle import verify_inclusion
from protocol.reference import ReferenceExecutor
from tests.hand_built import HAND_BUILT, case_of, sgd_regression


def rfc_root(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + rfc_root(leaves[:k]) + rfc_root(leaves[k:])).digest()


def tensor(numel: int) -> np.ndarray:
    return np.arange(7, 7 + numel, dtype=np.uint32)


def rfc_tensor_root(array: np.ndarray) -> bytes:
    data = array.astype("<u4").tobytes()
    return rfc_root([data[at : at + 1024] for at in range(0, len(data), 1024)])


@pytest.mark.parametrize("numel", [1, 2, 255, 256, 257, 1000])
def test_tensor_root_covers_chunks_of_1024_little_endian_bytes(numel: int) -> None:
    assert tensor_roots([tensor(numel)]) == [rfc_tensor_root(tensor(numel))]


def test_state_inputs_and_trace_roots_cover_tensor_roots_in_order() -> None:
    tensors = [tensor(3), tensor(300).reshape(3, 100), tensor(1).reshape(())]
    expected = rfc_root([rfc_tensor_root(t) for t in tensors])
    assert state_root(tensors) == state_tree(tensors).root == expected
    assert inputs_root(tensors) == trace_tree(tensors).root == expected
    assert state_root(tensors[::-1]) != expected


def test_root_without_constants_or_data_is_zero_and_a_state_has_tensors() -> None:
    assert inputs_root([]) == ZERO_ROOT == bytes(32)
    with pytest.raises(CommitmentError):
        state_root([])


@pytest.mark.parametrize("build", HAND_BUILT.values(), ids=HAND_BUILT)
def test_program_tree_has_the_program_root(build: object) -> None:
    program = build()  # type: ignore[operator]
    tree = program_tree(program)
    assert tree.root == program_root(program)
    last = len(program.nodes) - 1
    leaf = sha256(b"\x00" + encode_node(program.nodes[last])).digest()
    assert verify_inclusion(tree.root, last + 1, last, leaf, tree.inclusion_proof(last))


def test_outputs_in_a_trace_are_the_leaves_of_the_state_after_it() -> None:
    program = sgd_regression()
    case = case_of(program)
    executor = ReferenceExecutor(program, case.inputs)
    trace = trace_tree(executor.trace(case.state, case.step))
    after = state_tree(executor.step(case.state, case.step))
    for s in range(program.n_state):
        assert trace.leaf(program.output(s)) == after.leaf(s)


def test_step_log_covers_state_roots() -> None:
    roots = [bytes([i]) * 32 for i in range(5)]
    assert step_log_tree(roots).root == rfc_root(roots)
    with pytest.raises(CommitmentError, match="31"):
        step_log_tree([*roots, bytes(31)])


def test_checkpoint_leaf_seals_the_state_root_under_its_salt() -> None:
    salt, root = bytes([1]) * 32, bytes([2]) * 32
    assert checkpoint_leaf(salt, root) == salt + root
    assert checkpoint_leaf_hash(salt, root) == sha256(b"\x00" + salt + root).digest()
    leaves = [checkpoint_leaf(ZERO_ROOT, root), checkpoint_leaf(salt, root)]
    assert checkpoint_log(leaves).root == rfc_root(leaves)
    for bad in [(salt[:31], root), (salt, root + b"\x00")]:
        with pytest.raises(CommitmentError):
            checkpoint_leaf(*bad)
    with pytest.raises(CommitmentError, match="checkpoint 1 has 63 bytes"):
        checkpoint_log([leaves[0], leaves[1][:63]])
