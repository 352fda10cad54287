# SPDX-License-Identifier: GPL-3.0-or-later
"""A task over a real program and real states, whose chunks can be demanded and posted.

task = at(Status.WINDOW, **TERMS)
demand(task, WHISTLEBLOWER, leaf=3, tensor=0, chunk=2)
answer(task, 1)
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from protocol.commitments import inputs_root, program_tree, state_tree
from protocol.encoding import encode_nodes
from protocol.execution import Bits
from protocol.merkle import Tree, leaf_hash
from protocol.ops import Op
from protocol.program import Flat, Kind, Program
from protocol.rules import DEMAND_SHARE
from protocol.task import Status
from protocol.tensor_tree import chunk, chunk_count, tensor_tree
from protocol.validate import validate
from tests.hand_built import Builder, expression
from tests.market_chain import Done
from tests.market_driver import SPEC, STRANGER, Task, at

SHAPES: Final = ((7, 100), (3, 5), (2, 128))  # chunks: three, the last shorter; a part; exactly one
SEGMENTS: Final = 8


def _program() -> Program:
    """Adds data to two tensors of state."""
    b = Builder()
    state = [b.leaf(Kind.INPUT, shape, index=i) for i, shape in enumerate(SHAPES)]
    data = [b.leaf(Kind.DATA, shape, index=i) for i, shape in enumerate(SHAPES)]
    sums = [
        b.map(shape, expression([Flat(s), Flat(d)], (Op.ADD, (0, 1))))
        for shape, s, d in zip(SHAPES, state, data, strict=True)
    ]
    return b.finish(sums)


def _random(seed: int) -> list[Bits]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 1 << 30, shape, dtype=np.uint32) for shape in SHAPES]


PROGRAM: Final = _program()
validate(PROGRAM)
NODES: Final = encode_nodes(PROGRAM)
STATES: Final = [_random(seed) for seed in range(SEGMENTS + 1)]
CLAIMED: Final = tuple(state_tree(state).root for state in STATES)
TERMS: Final[dict[str, Any]] = {
    "claimed": CLAIMED,
    "program_root": program_tree(PROGRAM).root,
    "data_root": inputs_root(_random(100)),
    "initial_root": CLAIMED[0],
    "n_nodes": len(NODES),
    "n_state": PROGRAM.n_state,
    "n_const": PROGRAM.n_const,
    "n_data": PROGRAM.n_data,
}
"""Changes of SPEC."""

# A program that is none: in the place of its first node there is something else.
GARBAGE: Final = b"\xff"
FAULTY_TREE: Final = Tree([leaf_hash(node) for node in (GARBAGE, *NODES[1:])])
FAULTY: Final[dict[str, Any]] = {**TERMS, "program_root": FAULTY_TREE.root}


PRICE: Final = SPEC.bond // DEMAND_SHARE  # of the first demands of a phase


def in_window(**changes: Any) -> Task:
    """A task whose states can be demanded, in its challenge window."""
    return at(Status.WINDOW, **{**TERMS, **changes})


def nodes_of(task: Task) -> Tree:
    """The tree over the nodes of a task's program."""
    tree = program_tree(PROGRAM)
    return tree if tree.root == task.spec.program_root else FAULTY_TREE


def output(task: Task, tensor: int) -> tuple[bytes, list[bytes]]:
    """The OUTPUT node of a state tensor, and its proof."""
    index = len(NODES) - PROGRAM.n_state + tensor
    return NODES[index], nodes_of(task).inclusion_proof(index)


def demand(
    task: Task, asker: bytes, leaf: int, tensor: int = 0, chunk: int = 0, seat: int = 0
) -> Done:
    """Somebody demands a chunk of a checkpoint."""
    node, proof = output(task, tensor)
    return task.call("demand", seat, leaf, tensor, chunk, node, proof, sender=asker)


def reply(task: Task, leaf: int, tensor: int = 0, index: int = 0) -> list[Any]:
    """What answers such a demand, after the terms."""
    state = STATES[leaf]
    roots, tree = state_tree(state), tensor_tree(state[tensor])
    return [
        *(task.opening(leaf), tree.root, roots.inclusion_proof(tensor)),
        *(chunk(state[tensor], index), tree.inclusion_proof(index)),
    ]


def answer(task: Task, number: int, sender: bytes = STRANGER, **changes: Any) -> Done:
    """Answers a demand with what is asked for, or with other parts of a reply."""
    asked = task.world.market.view("demands", number)
    parts = reply(task, *asked[2:5])
    for place, name in enumerate(("opening", "root", "proof", "chunk", "chunk_proof")):
        parts[place] = changes.get(name, parts[place])
    done = task.world.send("answer", number, task.spec.as_abi(), *parts, sender=sender)
    task.gas["answer"] = max(done.gas, task.gas.get("answer", 0))
    return done


def unanswered(task: Task, number: int) -> Done:
    """Somebody says that a demand's time is over."""
    done = task.world.send("unanswered", number, task.spec.as_abi(), sender=STRANGER)
    task.gas["unanswered"] = done.gas
    return done


def void(task: Task) -> Done:
    """Somebody proves that a program is none."""
    node = GARBAGE if nodes_of(task) is FAULTY_TREE else NODES[0]
    proof = nodes_of(task).inclusion_proof(0)
    return task.call("voidProgram", 0, node, proof)


def chunks(tensor: int) -> int:
    """Chunks of a state tensor."""
    return chunk_count(int(np.prod(SHAPES[tensor])))
