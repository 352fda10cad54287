# SPDX-License-Identifier: GPL-3.0-or-later
"""Which programs are legal, as tables of rules, and what a step of one costs.

Every honest party validates a program before any stake moves; so the executors, the game and the
one-step proofs may assume what stands here. The first rule that a program breaks is raised as a
ProgramError that names node, kind (or fold) and, inside an expression, operand or instruction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from protocol.encoding import MAX_NODES, MAX_TENSORS, encode_node
from protocol.errors import ProgramError
from protocol.ops import SIGNATURES
from protocol.program import (
    INDIRECT,
    DType,
    Expression,
    Flat,
    Fold,
    Instruction,
    Iota,
    Kind,
    Node,
    Operand,
    Program,
    Shape,
    View,
)
from protocol.resources import DEFAULT_CAPS, Caps, Resources, check_resources, label
from protocol.views import register_dtypes, result_dtype, terms_of

MAX_NUMEL: Final = (1 << 31) - 1
"""Largest number of elements of a tensor, of terms of a fold, and bound of a SAMPLE."""

_LETTERS: Final = {"f": DType.F32, "i": DType.I32}


# Scopes: what a rule looks at ------------------------------------------------------------------


class NodeScope(NamedTuple):
    """One node of a program."""

    program: Program
    number: int
    node: Node
    first_readers: dict[tuple[Kind, int], Node]
    """The first node that reads each constant and data tensor, filled while checking."""

    @property
    def label(self) -> str:
        """How messages name it."""
        return label(self.program, self.number)

    @property
    def tensors(self) -> int:
        """How many tensors there are of the kind that an INPUT, CONST or DATA node reads."""
        counts = (self.program.n_state, self.program.n_const, self.program.n_data)
        return dict(zip(_READERS, counts, strict=True))[self.node.kind]

    @property
    def twin(self) -> Node:
        """The node that fixes shape and dtype: of an OUTPUT the node it aliases, of an INPUT its
        OUTPUT, of a CONST or DATA the first node that reads the same tensor.
        """
        if self.node.kind is Kind.OUTPUT:
            return self.program.nodes[self.node.index]
        if self.node.kind is Kind.INPUT:
            return self.program.state_node(self.node.index)
        return self.first_readers.setdefault((self.node.kind, self.node.index), self.node)


class OperandScope(NamedTuple):
    """One operand of a MAP or FOLD."""

    outer: NodeScope
    position: int
    operand: Operand

    @property
    def label(self) -> str:
        """How messages name it."""
        mode = type(self.operand).__name__.upper()
        return f"{self.outer.label} operand {self.position} ({mode})"

    @property
    def source(self) -> int:
        """The node it reads, -1 for IOTA."""
        return -1 if isinstance(self.operand, Iota) else self.operand.source

    @property
    def source_node(self) -> Node:
        """The node it reads."""
        return self.outer.program.nodes[self.source]

    @property
    def sizes(self) -> Shape:
        """Sizes of the dims of a view."""
        return tuple(d.size for d in self.operand.dims) if isinstance(self.operand, View) else ()

    @property
    def axes(self) -> int:
        """Number of direct axes: those of e, then those of k."""
        return len(self.outer.node.shape) + len(self.outer.node.reduce)

    @property
    def indirect(self) -> list[int]:
        """The operands whose values this one uses as indices."""
        return [t.axis - INDIRECT for t in terms_of(self.operand) if t.axis >= INDIRECT]


class InstructionScope(NamedTuple):
    """One instruction; `types` are the dtypes of the registers before it."""

    outer: NodeScope
    position: int
    instruction: Instruction
    types: list[DType | None]

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.outer.label} instruction {self.position} ({self.instruction.op.name})"

    @property
    def signature(self) -> str:
        """Its operand types as letters."""
        return SIGNATURES[self.instruction.op].operands


# The tables --------------------------------------------------------------------------------------

_Scope = TypeVar("_Scope", NodeScope, OperandScope, InstructionScope)


@dataclass(frozen=True)
class Rule(Generic[_Scope]):
    """`requirement` is what `holds`; its braces are filled with the attributes of the scope `s`."""

    holds: Callable[[_Scope], bool]
    requirement: str

    def check(self, s: _Scope) -> None:
        """Raise ProgramError if the rule does not hold in scope `s`."""
        if not self.holds(s):
            raise ProgramError(f"{s.label}: {self.requirement.format(s=s)}")


_READERS: Final = (Kind.INPUT, Kind.CONST, Kind.DATA)
_ALIASES: Final = (*_READERS, Kind.OUTPUT)
_INTEGER_LEAVES: Final = (Kind.STEP, Kind.SAMPLE, Kind.RAND)


def _if(kinds: tuple[Kind, ...], holds: Callable[[NodeScope], bool]) -> Callable[[NodeScope], bool]:
    return lambda s: s.node.kind not in kinds or holds(s)


def _all_positive(shape: Shape) -> bool:
    return all(size >= 1 for size in shape)


NODE_RULES: Final[tuple[Rule[NodeScope], ...]] = (
    Rule(
        lambda s: _all_positive(s.node.shape),
        "every dim is at least 1, the shape is {s.node.shape}",
    ),
    Rule(
        lambda s: s.node.numel <= MAX_NUMEL,
        "a tensor has less than 2^31 elements, shape {s.node.shape} has {s.node.numel}",
    ),
    Rule(
        lambda s: (s.node.kind is Kind.OUTPUT) == (s.number >= s.program.output(0)),
        "exactly the last {s.program.n_state} nodes, one per state tensor, are OUTPUT nodes",
    ),
    Rule(
        _if(_READERS, lambda s: s.node.index < s.tensors),
        "reads tensor {s.node.index} of {s.tensors}",
    ),
    Rule(
        _if((Kind.OUTPUT,), lambda s: s.node.index < s.number),
        "is the alias of node {s.node.index}, which is not an earlier node",
    ),
    Rule(
        _if(_ALIASES, lambda s: s.node.shape == s.twin.shape and s.node.dtype is s.twin.dtype),
        "is {s.node.dtype.name} {s.node.shape}, but the tensor it stands for is "
        "{s.twin.dtype.name} {s.twin.shape}",
    ),
    Rule(_if(_INTEGER_LEAVES, lambda s: s.node.dtype is DType.I32), "its dtype is I32"),
    Rule(_if((Kind.STEP,), lambda s: not s.node.shape), "its rank is 0"),
    Rule(
        _if((Kind.SAMPLE,), lambda s: 1 <= s.node.bound <= MAX_NUMEL),
        "its bound {s.node.bound} is not in 1 .. 2^31 - 1",
    ),
    Rule(
        _if((Kind.FOLD,), lambda s: len(s.node.reduce) >= 1 and _all_positive(s.node.reduce)),
        "has 1 to 8 reduce dims of at least 1, not {s.node.reduce}",
    ),
    Rule(
        _if((Kind.FOLD,), lambda s: s.node.terms <= MAX_NUMEL),
        "folds less than 2^31 terms, reduce dims {s.node.reduce} have {s.node.terms}",
    ),
    Rule(
        _if((Kind.FOLD,), lambda s: s.node.lanes in ((1, 16) if s.node.fold is Fold.SUM else (1,))),
        "cannot have {s.node.lanes} lanes (SUM has 1 or 16, the other folds 1)",
    ),
    Rule(
        _if((Kind.FOLD,), lambda s: s.node.dtype is result_dtype(s.node)),
        "its dtype is I32 for ISUM and IMAX and F32 for the other folds, not {s.node.dtype.name}",
    ),
)

OPERAND_RULES: Final[tuple[Rule[OperandScope], ...]] = (
    Rule(
        lambda s: s.source < s.outer.number,
        "reads node {s.source}, which is not an earlier node",
    ),
    Rule(
        lambda s: not isinstance(s.operand, Flat) or s.outer.node.kind is Kind.MAP,
        "FLAT is for MAP only",
    ),
    Rule(
        lambda s: not isinstance(s.operand, Flat) or s.source_node.numel == s.outer.node.numel,
        "the source has {s.source_node.numel} elements, the node {s.outer.node.numel}",
    ),
    Rule(
        lambda s: not isinstance(s.operand, View) or math.prod(s.sizes) == s.source_node.numel,
        "the view sizes {s.sizes} are no factorization of the source's {s.source_node.numel} "
        "elements",
    ),
    Rule(
        lambda s: (
            not isinstance(s.operand, View)
            or all(0 <= dim.lo < dim.hi <= dim.size for dim in s.operand.dims)
        ),
        "every view dim has lo < hi <= size: {s.operand}",
    ),
    Rule(
        lambda s: not isinstance(s.operand, View) or all(d.dilation >= 1 for d in s.operand.dims),
        "every view dim has a dilation of at least 1: {s.operand}",
    ),
    Rule(
        lambda s: all(t.axis < s.axes or t.axis >= INDIRECT for t in terms_of(s.operand)),
        "there are {s.axes} axes: {s.operand}",
    ),
    Rule(
        lambda s: all(p < s.position for p in s.indirect),
        "an index is the value of an earlier operand, not of operands {s.indirect}",
    ),
    Rule(
        lambda s: all(_operand_dtype(s.outer, p) is DType.I32 for p in s.indirect),
        "an index is I32, operands {s.indirect} are not",
    ),
)

INSTRUCTION_RULES: Final[tuple[Rule[InstructionScope], ...]] = (
    Rule(
        lambda s: all(register < len(s.types) for register in s.instruction.args),
        "reads registers {s.instruction.args}, but only lower registers have a value",
    ),
    Rule(
        lambda s: all(
            s.types[register] in (None, _LETTERS[letter])
            for register, letter in zip(s.instruction.args, s.signature, strict=True)
        ),
        "registers {s.instruction.args} are not of its operand types {s.signature!r}",
    ),
)


# Checking ----------------------------------------------------------------------------------------


def validate(program: Program, caps: Caps = DEFAULT_CAPS) -> Resources:
    """Check every rule of sections 2 and 3 of the specification and return the cost of a step.

    Raises ProgramError, naming the node and the rule, for the first rule that is broken, or if a
    step would cost more than `caps` allow. Beyond the specification's letter every operand must be
    used, so that its dtype follows from the node's encoding alone.
    """
    if not 1 <= len(program.nodes) <= MAX_NODES:
        raise ProgramError(f"{len(program.nodes)} nodes, a program has 1 to {MAX_NODES}")
    if not 1 <= program.n_state <= min(MAX_TENSORS, len(program.nodes)):
        raise ProgramError(
            f"n_state is {program.n_state}: it is 1 to {MAX_TENSORS}, with an OUTPUT for each"
        )
    for what, count in (("n_const", program.n_const), ("n_data", program.n_data)):
        if not 0 <= count <= MAX_TENSORS:
            raise ProgramError(f"{what} is {count}: it is 0 to {MAX_TENSORS}")
    first_readers: dict[tuple[Kind, int], Node] = {}
    for number, node in enumerate(program.nodes):
        scope = NodeScope(program, number, node, first_readers)
        try:
            encode_node(node)
        except ProgramError as error:
            raise ProgramError(f"{scope.label}: {error}") from error
        for rule in NODE_RULES:
            rule.check(scope)
        if node.expression is not None:
            _check_expression(scope, node.expression)
    return check_resources(program, caps)


def _operand_dtype(scope: NodeScope, position: int) -> DType:
    operand = scope.node.body.operands[position]
    return DType.I32 if isinstance(operand, Iota) else scope.program.nodes[operand.source].dtype


def _check_expression(scope: NodeScope, expression: Expression) -> None:
    for position, operand in enumerate(expression.operands):
        for operand_rule in OPERAND_RULES:
            operand_rule.check(OperandScope(scope, position, operand))
    types: list[DType | None] = [
        _operand_dtype(scope, position) for position in range(len(expression.operands))
    ]
    types += [None] * len(expression.immediates)
    for position, instruction in enumerate(expression.instructions):
        for rule in INSTRUCTION_RULES:
            rule.check(InstructionScope(scope, position, instruction, types))
        types.append(_LETTERS[SIGNATURES[instruction.op].result])
    for problem in _result_problems(scope, expression, types):
        raise ProgramError(f"{scope.label}: {problem}")


def _result_problems(
    scope: NodeScope, expression: Expression, types: list[DType | None]
) -> Iterator[str]:
    wanted = result_dtype(scope.node)
    for register in expression.results:
        if register >= len(types):
            yield f"its result is register {register} of {len(types)}"
        elif types[register] not in (None, wanted):
            yield f"its result register {register} is not {wanted.name}"
    for position, dtype in enumerate(register_dtypes(scope.node)[: len(expression.operands)]):
        used = isinstance(expression.operands[position], Iota) or dtype is not None
        if not used:
            yield f"nothing uses its operand {position}"
