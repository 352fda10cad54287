# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs: the nodes of one training step, as data (specification, section 2).

These classes only hold what the encoding holds. `protocol.encoding` turns them into bytes and
back, `protocol.validate` decides which are legal, `protocol.reference` says what they compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum

from protocol.ops import Op

Shape = tuple[int, ...]
INDIRECT = 0x80
"""Axis number of the value of operand 0; operand p is INDIRECT + p."""


class DType(IntEnum):
    """Element type of a tensor: a 32-bit pattern either way."""

    F32 = 0
    I32 = 1


class Kind(IntEnum):
    """What a node computes."""

    INPUT = 0x01
    CONST = 0x02
    DATA = 0x03
    STEP = 0x04
    SAMPLE = 0x05
    RAND = 0x06
    MAP = 0x10
    FOLD = 0x11
    OUTPUT = 0x20


class Fold(IntEnum):
    """How a FOLD node combines its terms."""

    DOT = 0
    SUM = 1
    MAX = 2
    ISUM = 3
    IMAX = 4


@dataclass(frozen=True, slots=True)
class Term:
    """One summand `coef * x[axis]` of an affine coordinate."""

    axis: int
    coef: int


@dataclass(frozen=True, slots=True)
class Dim:
    """One source coordinate of a view: `(offset + sum of terms) / dilation`, inside `[lo, hi)`."""

    size: int
    terms: tuple[Term, ...] = ()
    offset: int = 0
    lo: int = 0
    hi: int = -1
    """Exclusive upper bound; -1 stands for `size` and is replaced by it."""
    dilation: int = 1

    def __post_init__(self) -> None:
        if self.hi == -1:
            object.__setattr__(self, "hi", self.size)


@dataclass(frozen=True, slots=True)
class Flat:
    """Operand: the element of `source` with the same flat index as the output element."""

    source: int


@dataclass(frozen=True, slots=True)
class View:
    """Operand: the element of `source` at affine coordinates, or `fill` (a bit pattern) outside."""

    source: int
    dims: tuple[Dim, ...]
    fill: int = 0


@dataclass(frozen=True, slots=True)
class Iota:
    """Operand: the affine i32 value itself, modulo 2^32."""

    terms: tuple[Term, ...]
    offset: int = 0


Operand = Flat | View | Iota


@dataclass(frozen=True, slots=True)
class Instruction:
    """One primitive applied to registers; `args` has exactly the op's arity."""

    op: Op
    args: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Expression:
    """Straight-line code. Registers: operands, then immediates, then instruction results."""

    operands: tuple[Operand, ...]
    immediates: tuple[int, ...] = ()
    instructions: tuple[Instruction, ...] = ()
    results: tuple[int, ...] = (0,)

    @property
    def first_result(self) -> int:
        """Register of the first instruction's result."""
        return len(self.operands) + len(self.immediates)


@dataclass(frozen=True, slots=True)
class Node:
    """One tensor-valued node. Fields that its kind does not use keep their defaults."""

    kind: Kind
    dtype: DType
    shape: Shape
    index: int = 0
    """INPUT, CONST, DATA: which tensor. OUTPUT: the aliased node."""
    bound: int = 0
    """SAMPLE: indices are below this."""
    stream: int = 0
    """SAMPLE, RAND: which random stream."""
    fold: Fold = Fold.DOT
    lanes: int = 1
    reduce: Shape = ()
    """FOLD: the dims that k runs over."""
    expression: Expression | None = None

    @property
    def numel(self) -> int:
        """Number of output elements."""
        return math.prod(self.shape)

    @property
    def terms(self) -> int:
        """Number of terms K of a FOLD (1 for an empty product, never 0)."""
        return math.prod(self.reduce)

    @property
    def body(self) -> Expression:
        """The expression of a MAP or FOLD; raises TypeError on a leaf."""
        if self.expression is None:
            raise TypeError(f"a {self.kind.name} node has no expression")
        return self.expression


@dataclass(frozen=True, slots=True)
class Program:
    """One whole training step `(state, constants, data, seed, step) -> state`."""

    nodes: tuple[Node, ...]
    n_state: int
    n_const: int = 0
    n_data: int = 0
    names: dict[str, int] = field(default_factory=dict, hash=False, compare=False)
    """Names of nodes for people (such as `loss`); not part of the program root."""
    state_names: tuple[str, ...] = field(default=(), hash=False, compare=False)
    """PyTorch names of the state tensors (`model.0.weight`, `momentum.0.weight`), same order."""

    def output(self, state: int) -> int:
        """Node number of the OUTPUT of state tensor `state`."""
        return len(self.nodes) - self.n_state + state

    def state_node(self, state: int) -> Node:
        """The OUTPUT node of state tensor `state`; it has that tensor's shape and dtype."""
        return self.nodes[self.output(state)]
