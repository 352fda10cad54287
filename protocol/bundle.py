# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that a task's roots stand for: program, initial state, constants, data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from protocol import commitments
from protocol.encoding import program_root
from protocol.errors import ArtifactError
from protocol.execution import Bits, Executor, Inputs
from protocol.program import Kind, Program
from protocol.store import Layout, Store
from protocol.task import WORK_UNIT, TaskSpec
from protocol.validate import validate
from protocol.work import work

MIB = 1 << 20

ExecutorFactory = Callable[[Program, Inputs], Executor]


def state_layout(program: Program) -> Layout:
    """Dtype and shape of each state tensor."""
    nodes = (program.state_node(s) for s in range(program.n_state))
    return [(node.dtype, node.shape) for node in nodes]


def _leaf_layout(program: Program, kind: Kind, count: int) -> Layout:
    """Dtype and shape of constants or data, from the nodes that read them."""
    found = {n.index: (n.dtype, n.shape) for n in program.nodes if n.kind == kind}
    missing = [i for i in range(count) if i not in found]
    if missing:
        raise ArtifactError(f"no node reads {kind.name} tensor {missing[0]}: its shape is unknown")
    return [found[i] for i in range(count)]


@dataclass(frozen=True)
class Bundle:
    """A checked program with all tensors that its first step needs."""

    program: Program
    state: list[Bits]
    constants: list[Bits]
    data: list[Bits]

    def inputs(self, seed: bytes) -> Inputs:
        """What the steps read beside the state."""
        return Inputs(self.constants, self.data, seed)

    def spec(self, *, seed: bytes, steps: int, segment_steps: int, **terms: Any) -> TaskSpec:
        """The task spec with this bundle's roots and the given terms.

        Unless the terms say otherwise the whole training is one progress window.
        """
        cost = work(self.program)
        # The state before and after the step, what lies between them, and what all steps read.
        memory = 2 * cost.state_bytes + cost.live_bytes
        memory += sum(tensor.nbytes for tensor in (*self.constants, *self.data))
        terms = {"window_segments": -(-steps // segment_steps), **terms}
        return TaskSpec(
            work=-(-cost.flops * steps // WORK_UNIT),
            memory_mib=-(-memory // MIB),
            program_root=program_root(self.program),
            const_root=commitments.inputs_root(self.constants),
            data_root=commitments.inputs_root(self.data),
            seed=seed,
            initial_root=commitments.state_root(self.state),
            n_nodes=len(self.program.nodes),
            n_state=self.program.n_state,
            n_const=len(self.constants),
            n_data=len(self.data),
            steps=steps,
            segment_steps=segment_steps,
            **terms,
        )

    def publish(self, store: Store) -> None:
        """Puts all of it into the store."""
        program = self.program
        store.put_program(program)
        store.put_tensors(self.state, state_layout(program), program.state_names)
        for kind, tensors in ((Kind.CONST, self.constants), (Kind.DATA, self.data)):
            if tensors:
                store.put_tensors(tensors, _leaf_layout(program, kind, len(tensors)), ())

    @classmethod
    def fetch(cls, store: Store, spec: TaskSpec) -> Bundle:
        """Loads and checks every byte that the spec's roots stand for.

        Raises ArtifactError or ProgramError: whoever gets one must not stake on the task.
        """
        program = store.get_program(spec.program_root)
        validate(program)
        counts = (len(program.nodes), program.n_state, program.n_const, program.n_data)
        if counts != (spec.n_nodes, spec.n_state, spec.n_const, spec.n_data):
            raise ArtifactError(f"the program counts {counts}, the task says otherwise: {spec}")
        leaves = []
        for kind, root, count in (
            (Kind.CONST, spec.const_root, spec.n_const),
            (Kind.DATA, spec.data_root, spec.n_data),
        ):
            layout = _leaf_layout(program, kind, count)
            leaves.append(store.get_tensors(root, layout) if count else [])
        state = store.get_tensors(spec.initial_root, state_layout(program))
        return cls(program, state, *leaves)
