# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns a program into one LLVM module: its kernels, each distinct one once, and what calls them.

Kernels are called by *segments*, `i32 (ptr table, i64 begin, i64 end)`. The table holds a pointer
to the output of every node, then scratch memory, then the words that RAND kernels read. A segment
returns 0 unless the thread's floating-point environment is not that of IEEE 754.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.executor.access import Affine, Body, body_of
from protocol.executor.emitter import Emitter
from protocol.executor.gemm.kernel import emit_product
from protocol.executor.gemm.plan import find_product
from protocol.executor.kernel import Context, Shape
from protocol.executor.lane_kernel import emit_lanes, is_lane_fold
from protocol.executor.map_kernel import emit_map
from protocol.executor.philox_kernel import emit_philox
from protocol.executor.plan import COMPUTED
from protocol.executor.scatter_kernel import emit_scatter, find_scatter
from protocol.executor.target import Target
from protocol.executor.tile_kernel import emit_tile
from protocol.program import Kind, Node, Program

PARALLEL_WORK: Final = 1 << 20
"""Primitives below which starting threads costs more than it saves."""

# Multiplies the smallest normal number by a half (flush to zero), doubles the smallest subnormal
# (denormals are zero), and adds to one what rounds up, and down, only when rounding to nearest.
ENVIRONMENT: Final = """
@probe = private global [4 x i32] [i32 8388608, i32 1, i32 868220928, i32 855638016]
define private i32 @environment() #0 {
  %normal = load volatile float, ptr @probe
  %tinyp = getelementptr i32, ptr @probe, i64 1
  %tiny = load volatile float, ptr %tinyp
  %upp = getelementptr i32, ptr @probe, i64 2
  %up = load volatile float, ptr %upp
  %downp = getelementptr i32, ptr @probe, i64 3
  %down = load volatile float, ptr %downp
  %half = fmul float %normal, 0.5
  %twice = fadd float %tiny, %tiny
  %above = fadd float %up, 1.0
  %below = fadd float %down, 1.0
  %halfb = bitcast float %half to i32
  %twiceb = bitcast float %twice to i32
  %aboveb = bitcast float %above to i32
  %belowb = bitcast float %below to i32
  %x0 = xor i32 %halfb, 4194304
  %x1 = xor i32 %twiceb, 2
  %x2 = xor i32 %aboveb, 1065353217
  %x3 = xor i32 %belowb, 1065353216
  %o0 = or i32 %x0, %x1
  %o1 = or i32 %x2, %x3
  %bad = or i32 %o0, %o1
  ret i32 %bad
}
"""


@dataclass(frozen=True)
class Call:
    """One kernel as one node calls it."""

    node: int
    kernel: str
    sources: tuple[int, ...]
    shape: Shape
    work: int


@dataclass(frozen=True)
class Segment:
    """A function of the module. `units` > 1: its range may be shared out among threads."""

    name: str
    units: int


@dataclass(frozen=True)
class Module:
    """LLVM IR text, the functions to call in order, and the bytes of scratch memory they need."""

    text: str
    segments: tuple[Segment, ...]
    scratch: int


def _normalized(node: Node, body: Body) -> tuple[object, ...]:
    """Return what determines the code of a kernel."""
    if node.kind is Kind.RAND:
        return (node.kind, node.numel, node.stream)
    expression = node.body
    shape = (node.kind, node.dtype, node.fold, node.lanes, node.terms, body.extents, body.rank)
    code = (expression.immediates, expression.instructions, expression.results)
    return (*shape, body.out, body.accesses, body.ranges, *code)


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
        key = _normalized(node, body)
        if key not in self.kernels:
            self.kernels[key] = self._generate(f"kernel{len(self.kernels)}", node, body)
        name, shape = self.kernels[key]
        code = 1 if node.expression is None else 1 + len(node.body.instructions)
        return Call(number, name, body.sources, shape, node.numel * node.terms * code)

    def _generate(self, name: str, node: Node, body: Body) -> tuple[str, Shape]:
        em = Emitter(self.declarations, functions=self.functions)
        if node.kind is Kind.RAND:
            shape = emit_philox(em, node)
        else:
            shape = emit_node(Context(em, node, body, self.target))
        pointers = [f"ptr noalias readonly %s{i}" for i in range(len(body.sources))]
        scratch = "ptr noalias %scratch"
        parameters = ["ptr noalias %out", *pointers, scratch, "i64 %begin", "i64 %end"]
        self.texts.append(em.text(name, ", ".join(parameters)))
        return name, shape

    def segment(self, name: str, calls: list[Call], whole: bool) -> str:
        """Return the text of a segment: all units of its calls, or the range it is given."""
        em = Emitter(self.declarations)
        scratch = len(self.program.nodes)
        for call in calls:
            parameters = scratch + (self.program.nodes[call.node].kind is Kind.RAND)
            places = (call.node, *call.sources, parameters)
            pointers = [self._pointer(em, place) for place in places]
            limits = ("0", str(call.shape.units)) if whole else ("%begin", "%end")
            arguments = [*(f"ptr {p}" for p in pointers), *(f"i64 {limit}" for limit in limits)]
            em.do(f"call void @{call.kernel}({', '.join(arguments)})")
        body = "\n".join(em.lines)
        return (
            f"define i32 @{name}(ptr %table, i64 %begin, i64 %end) #0 {{\n"
            f"%bad = call i32 @environment()\n{body}\nret i32 %bad\n}}\n"
        )

    @staticmethod
    def _pointer(em: Emitter, place: int) -> str:
        slot = em.op(f"getelementptr ptr, ptr %table, i64 {place}")
        return em.op(f"load ptr, ptr {slot}")


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


def build_module(
    program: Program, target: Target, parallel: bool, separate: bool = False
) -> Module:
    """Generate the module of a valid program.

    With `parallel`, nodes with much work become segments of their own; the others are run together.
    With `separate`, every node is a segment of one unit, so that it can be timed.
    """
    builder = _Builder(program, target)
    calls = [builder.call(n) for n, node in enumerate(program.nodes) if node.kind in COMPUTED]
    groups: list[tuple[list[Call], int]] = []
    for call in calls:
        if separate:
            groups.append(([call], 1))
            continue
        alone = parallel and call.shape.units > 1 and call.work >= PARALLEL_WORK
        if alone:
            groups.append(([call], call.shape.units))
        elif groups and groups[-1][1] == 1:
            groups[-1][0].append(call)
        else:
            groups.append(([call], 1))
    segments = [Segment(f"segment{i}", units) for i, (_, units) in enumerate(groups)]
    texts = [
        builder.segment(segment.name, group, whole=units == 1)
        for segment, (group, units) in zip(segments, groups, strict=True)
    ]
    attributes = f"attributes #0 = {{ {target.attributes} }}\n"
    functions = builder.functions.values()
    parts = [*sorted(builder.declarations), ENVIRONMENT, *functions, *builder.texts, *texts]
    parts.append(attributes)
    scratch = max((call.shape.scratch for call in calls), default=0)
    return Module("\n".join(parts), tuple(segments), scratch)
