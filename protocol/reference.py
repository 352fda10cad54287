# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference interpreter: what a program computes, in Python integers, one element at a time.

With `protocol/float32.py` this is the living definition of the specification: compiled executors
and contracts must agree with it bit for bit. It follows the text of section 2 and caches nothing
but the decoded expression, so it is slow (about 10**5 primitives a second) and easy to check.

Elements are read through a `Fetch`, so that the same code computes a whole step here and a single
disputed element from a stored trace in `protocol/one_step.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from protocol import fold as folds
from protocol.errors import UsageError
from protocol.execution import Bits, Executor, Inputs
from protocol.float32 import TABLE, WORD, Float32, canonical
from protocol.program import DType, Flat, Iota, Kind, Node, Program, Shape
from protocol.randomness import check_seed, philox, sample
from protocol.validate import validate
from protocol.views import axes, element_index, iota_value, register_dtypes

Fetch = Callable[[int, int], int]
"""Raw bits of element `index` of the output of node `source`: `fetch(source, index)`."""


class Evaluator:
    """Evaluates elements of one MAP or FOLD node of a valid program."""

    def __init__(self, node: Node) -> None:
        expression = node.body
        self.node = node
        self._floats = [dtype is DType.F32 for dtype in register_dtypes(node)]
        self._code = [(TABLE[code.op], code.args) for code in expression.instructions]

    def registers(self, e: int, k: int | None, fetch: Fetch) -> list[int]:
        """Return all registers at element `e`, and at term `k` of a FOLD; f32 operands canonical.

        The fold index of a MAP is None.
        """
        expression = self.node.body
        x = axes(self.node, e, k)
        values: list[int] = []
        for position, operand in enumerate(expression.operands):
            if isinstance(operand, Iota):
                values.append(iota_value(operand, x, values))
                continue
            place = e if isinstance(operand, Flat) else element_index(operand, x, values)
            if place is not None:
                value = fetch(operand.source, place)
            else:
                value = 0 if isinstance(operand, Flat) else operand.fill
            values.append(canonical(Float32(value)) if self._floats[position] else value)
        values += expression.immediates
        for function, args in self._code:
            values.append(function(*[values[register] for register in args]))
        return values

    def terms(self, e: int, fetch: Fetch) -> folds.Terms:
        """Return the terms of element `e` of a FOLD by k: the patterns of its result registers."""
        results = self.node.body.results

        def term(k: int) -> Sequence[int]:
            registers = self.registers(e, k, fetch)
            return [registers[result] for result in results]

        return term

    def element(self, e: int, fetch: Fetch) -> int:
        """Return the pattern of element `e`."""
        node = self.node
        if node.kind is Kind.FOLD:
            return folds.fold_element(node.fold, node.terms, node.lanes, self.terms(e, fetch))
        value = self.registers(e, None, fetch)[node.body.results[0]]
        return canonical(Float32(value)) if node.dtype is DType.F32 else value


def element_values(node: Node, e: int, k: int | None, fetch: Fetch) -> tuple[list[int], list[int]]:
    """Return `(operand values, instruction results)` at element `e` (and term `k` of a FOLD).

    Posted one after the other these are the values of a one-step proof; f32 is canonical.
    """
    registers = Evaluator(node).registers(e, k, fetch)
    return registers[: len(node.body.operands)], registers[node.body.first_result :]


def element(node: Node, e: int, fetch: Fetch, seed: bytes, step: int) -> int:
    """Return the pattern of element `e` of a node.

    Raises UsageError for INPUT, CONST, DATA and OUTPUT, whose elements are those of other tensors.
    """
    if node.kind in (Kind.MAP, Kind.FOLD):
        return Evaluator(node).element(e, fetch)
    if node.kind is Kind.STEP:
        return step & WORD
    if node.kind is Kind.SAMPLE:
        return sample(seed, node.stream, step, e, node.bound)
    if node.kind is Kind.RAND:
        return philox(seed, node.stream, step, e)
    raise UsageError(f"the elements of a {node.kind.name} node are those of another tensor")


class ReferenceExecutor(Executor):
    """Executes whole steps of a program; implements `protocol.execution.Executor`."""

    def __init__(self, program: Program, inputs: Inputs) -> None:
        """Validate the program and check the inputs.

        Raises ProgramError for an invalid program, UsageError for inputs that do not fit it.
        """
        validate(program)
        check_inputs(program, inputs)
        self.program = program
        self.inputs = inputs
        self._evaluators = [
            Evaluator(node) if node.kind in (Kind.MAP, Kind.FOLD) else None
            for node in program.nodes
        ]

    def step(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """Return the state after step number `step`, as new arrays."""
        program = self.program
        outputs = self.trace(state, step)
        return [outputs[program.output(s)].copy() for s in range(program.n_state)]

    def trace(self, state: Sequence[Bits], step: int) -> list[Bits]:
        """Return the output of every node of step number `step` in program order."""
        check_state(self.program, state)
        outputs: list[Bits] = []
        patterns: list[list[int]] = []  # of each output, as Python integers

        def fetch(source: int, index: int) -> int:
            return patterns[source][index]

        for node, evaluator in zip(self.program.nodes, self._evaluators, strict=True):
            alias = self._alias(node, state, outputs)
            if alias is not None:
                output = alias
            elif evaluator is not None:
                output = _tensor((evaluator.element(e, fetch) for e in range(node.numel)), node)
            else:
                seed = self.inputs.seed
                output = _tensor(
                    (element(node, e, fetch, seed, step) for e in range(node.numel)), node
                )
            outputs.append(output)
            patterns.append(output.reshape(-1).tolist())
        return outputs

    def _alias(self, node: Node, state: Sequence[Bits], outputs: list[Bits]) -> Bits | None:
        """Return the existing tensor that INPUT, CONST, DATA and OUTPUT stand for, else None."""
        tensors: dict[Kind, Sequence[Bits]] = {
            Kind.INPUT: state,
            Kind.CONST: self.inputs.constants,
            Kind.DATA: self.inputs.data,
            Kind.OUTPUT: outputs,
        }
        return tensors[node.kind][node.index] if node.kind in tensors else None


def _tensor(patterns: Iterable[int], node: Node) -> Bits:
    return np.fromiter(patterns, np.uint32, node.numel).reshape(node.shape)


def check_inputs(program: Program, inputs: Inputs) -> None:
    """Raise UsageError unless constants, data and seed are those that the program reads."""
    check_seed(inputs.seed)
    _check_count("constants", inputs.constants, program.n_const)
    _check_count("data tensors", inputs.data, program.n_data)
    for node in program.nodes:
        if node.kind is Kind.CONST:
            _check_tensor("constant", node.index, inputs.constants[node.index], node.shape)
        elif node.kind is Kind.DATA:
            _check_tensor("data tensor", node.index, inputs.data[node.index], node.shape)


def check_state(program: Program, state: Sequence[Bits]) -> None:
    """Raise UsageError unless `state` has the program's state tensors, as uint32 arrays."""
    _check_count("state tensors", state, program.n_state)
    for index, tensor in enumerate(state):
        _check_tensor("state tensor", index, tensor, program.state_node(index).shape)


def _check_count(what: str, tensors: Sequence[Bits], expected: int) -> None:
    if len(tensors) != expected:
        raise UsageError(f"{len(tensors)} {what} were given, the program has {expected}")


def _check_tensor(what: str, index: int, tensor: Bits, shape: Shape) -> None:
    if tensor.dtype != np.uint32 or tensor.shape != shape:
        raise UsageError(
            f"{what} {index} is {tensor.dtype} of shape {tensor.shape}, not uint32 of {shape}"
        )
