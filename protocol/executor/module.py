# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns a program into LLVM modules: its kernels, each distinct one once, and how they are called.

A kernel is entered through `void (ptr pointers, ptr scratch, i64 begin, i64 end)`, where `pointers`
are those of its result and its operands, so that all kernels look alike to the loop that runs a
step (`driver`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.executor.access import Affine, Body, Source, body_of
from protocol.executor.emitter import Emitter
from protocol.executor.gemm.kernel import emit_product
from protocol.executor.gemm.plan import find_product
from protocol.executor.kernel import Context, Shape
from protocol.executor.lane_kernel import emit_lanes, is_lane_fold
from protocol.executor.map_kernel import emit_map, overwritable
from protocol.executor.order import COMPUTED
from protocol.executor.phases import split_phases
from protocol.executor.philox_kernel import emit_philox
from protocol.executor.scatter_kernel import emit_scatter, find_scatter
from protocol.executor.target import Target
from protocol.executor.tile_kernel import emit_tile
from protocol.program import Fold, Kind, Node, Program

PART: Final = 1 << 17
"""Characters of LLVM IR beyond which a new part begins: parts are compiled at the same time."""


@dataclass(frozen=True)
class Call:
    """One kernel as one node calls it."""

    node: int
    kernel: str
    """Name of the function by which the kernel is entered."""
    sources: tuple[Source, ...]
    """What the pointers after that of the result point to."""
    shape: Shape
    work: int
    """Primitives, roughly."""
    overwritable: frozenset[int]
    """Nodes among `sources` whose memory may be that of the result."""
    random: bool
    """Whether the step's number and key follow as the last pointer."""


@dataclass(frozen=True)
class Module:
    """What is compiled of a program, and how its nodes call it."""

    parts: tuple[str, ...]
    """LLVM IR texts that can be compiled apart from each other."""
    calls: dict[int, Call]
    """Per computed node."""
    scratch: int
    """Bytes of scratch memory that a thread needs."""

    @property
    def text(self) -> str:
        """All parts, one after the other."""
        return "\n".join(self.parts)


def _normalized(node: Node, body: Body) -> tuple[object, ...]:
    """Return what determines the code of a kernel."""
    if node.kind is Kind.RAND:
        return (node.kind, node.numel, node.stream)
    expression = node.body
    shape = (node.kind, node.dtype, node.fold, node.lanes, node.terms, body.extents, body.rank)
    code = (expression.immediates, expression.instructions, expression.results)
    return (*shape, body.out, body.accesses, body.ranges, *code)


ENTRY: Final = "ptr %pointers, ptr %scratch, i64 %begin, i64 %end"
_NOTHING: Final = Body((), 0, Affine(), (), (), ())


class _Builder:
    def __init__(self, program: Program, target: Target) -> None:
        self.program = program
        self.target = target
        self.declarations: set[str] = set()
        self.functions: dict[str, str] = {}
        self.texts: list[str] = []
        self.kernels: dict[tuple[object, ...], tuple[str, Shape]] = {}

    def call(self, number: int) -> Call:
        """Return how node `number` is computed, generating its kernel unless there is one."""
        node = self.program.nodes[number]
        body = _NOTHING if node.kind is Kind.RAND else body_of(self.program, node)
        if node.kind is Kind.FOLD and node.fold is not Fold.DOT:
            body = split_phases(body)
        shared: frozenset[int] = frozenset()
        if node.kind is Kind.MAP:
            shared = overwritable(body, node.body, self.target)
        # Where a result may lie on an operand, the code must not assume that nothing overlaps.
        key = (*_normalized(node, body), shared)
        if key not in self.kernels:
            self.kernels[key] = self._generate(len(self.kernels), node, body, shared)
        name, shape = self.kernels[key]
        work = node.numel * node.terms
        if node.expression is not None:
            work *= 1 + len(node.body.instructions)
        places = frozenset(body.sources[parameter].node for parameter in shared)
        return Call(number, name, body.sources, shape, work, places, node.kind is Kind.RAND)

    def _generate(
        self, number: int, node: Node, body: Body, shared: frozenset[int]
    ) -> tuple[str, Shape]:
        """Emit a kernel and its entry; `shared` parameters may point to where the result goes."""
        em = Emitter(self.declarations, functions=self.functions)
        if node.kind is Kind.RAND:
            shape = emit_philox(em, node)
        else:
            shape = emit_node(Context(em, node, body, self.target))
        pointers = [
            f"ptr {'' if i in shared else 'noalias '}readonly %s{i}"
            for i in range(len(body.sources))
        ]
        out = f"ptr {'' if shared else 'noalias '}%out"
        parameters = [out, *pointers, "ptr noalias %scratch", "i64 %begin", "i64 %end"]
        kernel, entry = f"kernel{number}", f"entry{number}"
        text = em.text(kernel, ", ".join(parameters))
        self.texts.append(text + _entry(entry, kernel, len(body.sources), node.kind is Kind.RAND))
        return entry, shape


def _entry(name: str, kernel: str, sources: int, random: bool) -> str:
    """Return the function that unpacks the pointers; a RAND kernel reads its words, no scratch."""
    em = Emitter()
    loaded = []
    for place in range(1 + sources + random):
        slot = em.op(f"getelementptr ptr, ptr %pointers, i64 {place}")
        loaded.append(em.op(f"load ptr, ptr {slot}"))
    arguments = [f"ptr {pointer}" for pointer in loaded]
    arguments += (
        ["i64 %begin", "i64 %end"] if random else ["ptr %scratch", "i64 %begin", "i64 %end"]
    )
    body = "\n".join([*em.lines, f"call void @{kernel}({', '.join(arguments)})", "ret void"])
    return f"define void @{name}({ENTRY}) #0 {{\n{body}\n}}\n"


def emit_node(context: Context) -> Shape:
    """Emit the kernel of a MAP or FOLD with the generator that suits it."""
    if context.node.kind is Kind.MAP:
        return emit_map(context)
    scatter = find_scatter(context)
    if scatter is not None:
        return emit_scatter(context, scatter)
    if is_lane_fold(context):
        return emit_lanes(context)
    plan = find_product(context)
    return emit_tile(context) if plan is None else emit_product(context, plan)


def build_module(program: Program, target: Target) -> Module:
    """Generate the kernels of a valid program."""
    builder = _Builder(program, target)
    calls = {n: builder.call(n) for n, node in enumerate(program.nodes) if node.kind in COMPUTED}
    head = [*sorted(builder.declarations), f"attributes #0 = {{ {target.attributes} }}"]
    # The functions that kernels share are a part of their own, which the others refer to.
    shared = [text[: text.index(" noinline")] for text in builder.functions.values()]
    begun = [*head, *(text.replace("define", "declare", 1) for text in shared)]
    parts = [[*head, *builder.functions.values()]] if builder.functions else []
    size = PART
    for text in builder.texts:
        if size >= PART:
            parts.append(list(begun))
            size = 0
        parts[-1].append(text)
        size += len(text)
    scratch = max((call.shape.scratch for call in calls.values()), default=0)
    return Module(tuple("\n".join(part) + "\n" for part in parts), calls, scratch)
