# SPDX-License-Identifier: GPL-3.0-or-later
"""From a captured graph to values: which lowering handles which ATen operation, and when to store.

A lowering is a function `(ctx, *arguments) -> Value` registered under the names of the operations
it handles; tensors among its arguments are Values. Families of them are in `elementwise`,
`reductions`, `matmul`, `convolution`, `pooling`, `dropout`, `indexing`, `movement` and `creation`;
widening the set of operations that can be traced means adding one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, fx

from protocol.errors import TraceError
from protocol.ops import Op
from protocol.program import DType, Shape
from protocol.tracing.bits import DTYPES, dtype_of, to_bits
from protocol.tracing.capture import SAME, Capture
from protocol.tracing.emit import cost
from protocol.tracing.graph import Graph, Value
from protocol.tracing.moves import substitute
from protocol.tracing.scalars import Affine, Imm, Index, Load, Scalar, Scalars, walk
from protocol.tracing.schedule import OnStep

Lowering = Callable[..., Any]

LOWERINGS: Final[dict[str, Lowering]] = {}
MOVES: Final[set[str]] = set()
"""Operations that only look at their argument from elsewhere."""
DOTS: Final[set[str]] = set()
"""Operations that read their operands as plain matrices."""

LARGEST_CONSTANT: Final = 1 << 26
"""Elements of a constant that is computed while tracing."""


def lowering(*names: str, move: bool = False, dot: bool = False) -> Callable[[Lowering], Lowering]:
    """Register a lowering for ATen operations, such as `add.Tensor`."""

    def register(function: Lowering) -> Lowering:
        for name in names:
            LOWERINGS[name] = function
            if move:
                MOVES.add(name)
            if dot:
                DOTS.add(name)
        return function

    return register


def name_of(node: fx.Node) -> str:
    """Return the operation of a call, such as `add.Tensor`; those of torch's prims as ATen's."""
    name = str(node.target)
    if name.startswith("prims.") and name not in LOWERINGS:
        stem = name.split(".")[1]
        return next((n for n in (f"{stem}.Tensor", f"{stem}.default") if n in LOWERINGS), name)
    return name.removeprefix("aten.")


class Context:
    """What a lowering sees: the graph, and the shape and dtype that torch says it must return."""

    def __init__(self, graph: Graph, node: fx.Node, stream: int = 0) -> None:
        self.graph = graph
        self.node = node
        self.stream = stream
        self.s: Scalars = graph.scalars

    @property
    def meta(self) -> Tensor:
        """The fake tensor (or the first of several) that torch returned."""
        found = self.node.meta["val"]
        return found if isinstance(found, Tensor) else next(v for v in found if v is not None)

    @property
    def shape(self) -> Shape:
        """Shape of the (first) result."""
        return tuple(self.meta.shape)

    def result(self, scalar: Scalar, shape: Shape | None = None) -> Value:
        """Return a value with torch's result dtype."""
        dtype_of(self.meta.dtype, "its result")
        return Value(self.shape if shape is None else shape, scalar, self.meta.dtype)

    def from_node(self, number: int) -> Value:
        """Return the output of a node of the program as the result."""
        return self.result(self.graph.read(number), self.graph.nodes[number].shape)

    def cast(self, scalar: Scalar, source: torch.dtype, target: torch.dtype) -> Scalar:
        """Convert as torch does."""
        if source == target:
            return scalar
        s = self.s
        a, b = dtype_of(source, "its operand"), dtype_of(target, "its result")
        if target == torch.bool:
            if a is DType.F32:
                return s.op(Op.IEQ, s.op(Op.EQ, scalar, s.f32(0.0)), s.i32(0))
            return s.op(Op.IEQ, s.op(Op.IEQ, scalar, s.i32(0)), s.i32(0))
        if a is b:
            narrow = target in (torch.int8, torch.uint8, torch.int16)
            if narrow and source != torch.bool:
                raise TraceError(f"a conversion from {source} to {target} would wrap")
            return scalar
        return s.op(Op.I2F if b is DType.F32 else Op.F2I, scalar)

    def scalar(self, argument: Value | float, target: torch.dtype, shape: Shape) -> Scalar:
        """Return an argument as a scalar of dtype `target` over the axes of `shape`."""
        if not isinstance(argument, Value):
            if dtype_of(target, "its operand") is DType.F32:
                return self.s.number(float(argument))
            return self.s.i32(int(argument))
        cast = self.cast(argument.scalar, argument.torch_dtype, target)
        return self.broadcast(cast, argument.shape, shape)

    def broadcast(self, scalar: Scalar, source: Shape, target: Shape) -> Scalar:
        """Align shapes at the right, as torch does; axes of size 1 are repeated."""
        shift = len(target) - len(source)
        if shift == 0 and source == target:
            return scalar
        mapping = [
            Affine.of(axis + shift) if size > 1 else Affine() for axis, size in enumerate(source)
        ]
        return substitute(self.s, scalar, mapping)

    def moved(self, value: Value, shape: Shape, mapping: list[Affine]) -> Value:
        """Return `value` with its axis i replaced by `mapping[i]` over the axes of `shape`."""
        single = {axis for axis, size in enumerate(shape) if size == 1}
        kept = [
            Affine(tuple(t for t in at.terms if t[0] not in single), at.offset) for at in mapping
        ]
        return Value(shape, substitute(self.s, value.scalar, kept), value.torch_dtype)

    def plain(self, value: Value) -> Load:
        """Return the element of a value as a load that is never outside, storing it if need be."""
        scalar = value.scalar
        if not isinstance(scalar, Load) or not all(place.plain for place in scalar.places):
            self.graph.store(value)
        if not isinstance(value.scalar, Load):
            raise TypeError("a stored element is a load")
        return value.scalar

    def index(self, value: Value) -> Affine:
        """Return an i32 value as something to index with, storing it if it has to be computed."""
        if value.dtype is not DType.I32 or value.torch_dtype == torch.bool:
            raise TraceError(f"an index has dtype {value.torch_dtype}")
        if isinstance(value.scalar, Index):
            return value.scalar.at
        if isinstance(value.scalar, Imm):
            return Affine((), int(value.scalar.exact))
        if not isinstance(value.scalar, Load):
            self.graph.keep(value)
        if not isinstance(value.scalar, Load):
            raise TypeError("a stored element is a load")
        return Affine.of(value.scalar)


class Lowerer:
    """Walks through a captured graph and lowers each node."""

    def __init__(self, graph: Graph, capture: Capture, inputs: dict[fx.Node, Value]) -> None:
        self.graph = graph
        self._capture = capture
        self._values: dict[fx.Node, Any] = dict(inputs)
        self._constants: dict[fx.Node, Any] = {}
        self._alive = self._find_alive()

    def _find_alive(self) -> set[fx.Node]:
        alive: set[fx.Node] = set()
        stack = [node for group in self._capture.outputs.values() for node in group]
        while stack:
            node = stack.pop()
            if node not in alive:
                alive.add(node)
                stack.extend(node.all_input_nodes)
        return alive

    def run(self) -> None:
        """Lower every node that the outputs need.

        Raises TraceError, naming the operation and the module it comes from, at one that can't be.
        """
        for node in self._capture.graph.nodes:
            if node not in self._alive:
                continue
            try:
                if node.op == "get_attr":
                    self._constants[node] = getattr(self._capture.module, str(node.target))
                elif node.op == "call_function" and not self._folded(node):
                    self._values[node] = self._lowered(node)
                if node in self._values:
                    self._maybe_store(node)
            except Exception as error:  # a lowering may meet arguments that it was not made for
                where = self._capture.paths.of(node)
                expected = isinstance(error, TraceError | NotImplementedError)
                what = str(error) if expected else f"{type(error).__name__}: {error}"
                raise TraceError(f"{node.target} in {where}: {what}") from error

    def value(self, node: fx.Node) -> Value:
        """Return the value of a node."""
        if node not in self._values:
            self._values[node] = constant_value(self.graph, self._constants[node])
        value = self._values[node]
        if not isinstance(value, Value):
            raise TraceError("it is used as one tensor, but there are several")
        return value

    def _lowered(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            return self._values[node.args[0]][node.args[1]]  # type: ignore[index]
        if node.target in SAME:
            return self.value(node.all_input_nodes[0])
        function = LOWERINGS.get(name_of(node))
        if function is None:
            raise TraceError("this operation has no lowering to Bitcourt primitives")
        value: Callable[[fx.Node], Any] = self.value
        args, kwargs = fx.node.map_arg(node.args, value), fx.node.map_arg(node.kwargs, value)
        return function(
            Context(self.graph, node, self._capture.streams.get(node, 0)), *args, **kwargs
        )

    # Constants -----------------------------------------------------------------------------------

    def _folded(self, node: fx.Node) -> bool:
        """Compute a node whose inputs are all constants, with torch itself."""
        random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if random or any(n not in self._constants for n in node.all_input_nodes):
            return False
        found = node.meta.get("val")
        if isinstance(found, Tensor) and found.numel() > LARGEST_CONSTANT:
            return False
        args = fx.node.map_arg(node.args, self._constants.__getitem__)
        kwargs = fx.node.map_arg(node.kwargs, self._constants.__getitem__)
        constant = node.target(*args, **kwargs)  # type: ignore[operator]
        self._constants[node] = constant
        if isinstance(constant, Tensor) and constant.dtype in DTYPES and name_of(node) in LOWERINGS:
            # An intermediate that no program could hold may still lead to one that it can.
            with suppress(TraceError):
                self._prefer_formula(node, constant)
        return True

    def _prefer_formula(self, node: fx.Node, constant: Tensor) -> None:
        """Keep a constant as a formula of its indices where that is short (a causal mask)."""
        simple = constant_value(self.graph, constant)
        if isinstance(simple.scalar, Load):
            lowered = self._lowered(node)
            if isinstance(lowered, Value):
                formula = not any(isinstance(s, Load) for s in walk(lowered.scalar))
                if formula and cost(lowered.scalar).instructions <= 4:
                    simple = lowered
        self._values[node] = simple

    # Storing -------------------------------------------------------------------------------------

    def _consumers(self, node: fx.Node) -> Iterable[fx.Node]:
        for user in node.users:
            if user not in self._alive and user.op != "output":
                continue
            if user.op == "call_function" and (user.target in SAME or name_of(user) in MOVES):
                yield from self._consumers(user)
            else:
                yield user

    def _maybe_store(self, node: fx.Node) -> None:
        """Store a value now if several operations read it, or one that wants plain matrices."""
        value = self._values[node]
        if node.op == "call_function" and (name_of(node) in MOVES or node.target in SAME):
            return
        if not isinstance(value, Value) or isinstance(value.scalar, Imm | OnStep | Index):
            return
        price = cost(value.scalar)
        if not price.fits:
            self.graph.keep(value)
        elif isinstance(value.scalar, Load) and not price.indirect:
            return
        else:
            consumers = list(self._consumers(node))
            if any(c.op == "call_function" and name_of(c) in DOTS for c in consumers):
                self.graph.store(value)
            elif len(set(consumers)) > 1 and not price.cheap:
                self.graph.keep(value)


def constant_value(graph: Graph, tensor: Tensor) -> Value:
    """Return a constant tensor as a value: a number, an affine formula, or a CONST node."""
    shape = tuple(tensor.shape)
    if tensor.numel() and bool((tensor == tensor.reshape(-1)[0]).all()):
        number = tensor.reshape(-1)[0].item()
        float_like = tensor.dtype.is_floating_point
        if not (float_like and number == 0):  # the sign of a zero counts
            scalar = graph.scalars.number(number) if float_like else graph.scalars.i32(int(number))
            dtype = torch.float32 if tensor.dtype == torch.float64 else tensor.dtype
            return Value(shape, scalar, dtype)
        if not bool(torch.signbit(tensor).any()):
            return Value(shape, graph.scalars.f32(0.0), torch.float32)
    bits = to_bits(tensor, "a constant")
    if DTYPES[tensor.dtype] is DType.I32:
        affine = _affine(bits.astype(np.int32).astype(np.int64))
        if affine is not None:
            return Value(shape, graph.scalars.index(affine), tensor.dtype)
    number = graph.constant(bits, DTYPES[tensor.dtype])
    return Value(shape, graph.read(number), tensor.dtype)


def _affine(array: np.ndarray[Any, np.dtype[np.int64]]) -> Affine | None:
    """Return the affine formula of an array of integers, if it has one."""
    offset = int(array[(0,) * array.ndim])
    at, expected = Affine((), offset), np.full(array.shape, offset, np.int64)
    for axis, size in enumerate(array.shape):
        if size > 1:
            place = tuple(1 if a == axis else 0 for a in range(array.ndim))
            coef = int(array[place]) - offset
            if not -(1 << 31) <= coef < 1 << 31:
                return None
            at = at.plus(Affine.of(axis, coef)) if coef else at
            expected = expected + coef * np.arange(size).reshape(
                [-1 if a == axis else 1 for a in range(array.ndim)]
            )
    return at if bool((expected == array).all()) else None
