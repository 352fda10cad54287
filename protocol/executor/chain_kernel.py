# SPDX-License-Identifier: GPL-3.0-or-later
"""The inside of one element of a FOLD: results of its chains, which a step does not store.

`chains` folds blocks of 256 terms of each lane, the chains of level 0, of the element it is told;
`combine` folds 256 results of one level each into those of the next. They are entered through
`i32 (ptr pointers, ptr numbers)` and return what is wrong with the floating-point environment, 0
if nothing.

In sixteen lanes those that run out of terms go on with +0, which changes no bit of a lane's result
(`lane_kernel`), so all of them are as long as the first.
"""

from __future__ import annotations

from typing import Final

from protocol.executor.access import body_of
from protocol.executor.driver import ENVIRONMENT
from protocol.executor.emitter import Emitter
from protocol.executor.evaluation import Evaluation
from protocol.executor.kernel import (
    Context,
    accumulator,
    counted,
    current,
    fold_type,
    result_letter,
)
from protocol.executor.lane_kernel import LaneKernel, suits
from protocol.executor.primitives import Value, bits_of, combine, step
from protocol.executor.target import Target
from protocol.fold import BLOCK, LANES
from protocol.program import Fold, Node, Program

CHAINS, COMBINE = "chains", "combine"
"""Names of the two entries."""
_CHAINS_NUMBERS: Final = ("element", "begin", "end")
_COMBINE_NUMBERS: Final = ("items",)


def chain_text(program: Program, node: Node, target: Target) -> str:
    """Return LLVM IR with both entries for a FOLD node of a valid program.

    `chains` takes the pointers of its result, i32[end - begin][lanes], and of each of the body's
    sources, and the numbers (element, begin, end): it computes chains begin .. end-1 of each lane.
    `combine` takes the pointers of its result and of i32[items][lanes], and the number of items.
    """
    chains = Emitter()
    context = Context(chains, node, body_of(program, node), target)
    _emit_chains(context)
    combining = Emitter(chains.declarations, functions=chains.functions)
    _emit_combine(combining, node.fold, node.lanes)
    return "\n".join(
        [
            *sorted(chains.declarations),
            ENVIRONMENT,
            *chains.functions.values(),
            _function(chains, CHAINS, len(context.body.sources), _CHAINS_NUMBERS),
            _function(combining, COMBINE, 1, _COMBINE_NUMBERS),
            f"attributes #0 = {{ {target.attributes} }}\n",
        ]
    )


def _emit_chains(context: Context) -> None:
    em, node, fold = context.em, context.node, context.node.fold
    sizes = context.extents[: context.rank]
    output = em.unravel("%element", sizes) if sizes else []
    vectors = node.lanes == LANES or suits(context)
    kernel = LaneKernel(context) if vectors else None
    # An order-free chain of one lane goes sixteen terms at a time.
    length = BLOCK // LANES if vectors and node.lanes == 1 else BLOCK
    items = -(-node.terms // LANES) if vectors else node.terms
    with em.loop("%begin", "%end") as block:
        start = em.mul(block, length)
        stop = em.least(em.add(start, length), items)
        width = LANES if vectors else 1
        variable = accumulator(em, fold, width)
        if kernel is not None:
            kernel.steps([output], start, stop, [variable])
        else:
            with counted(em, start, stop, context.reduce) as (_, k):
                at = Evaluation(em, context.body, node.body, output + k)
                term = [at.value(r, result_letter(fold)) for r in node.body.results]
                variable.set(step(em, fold, current(fold, variable, 1), term).name)
        value = current(fold, variable, width)
        if kernel is not None and node.lanes == 1:
            value = kernel.halved(value)
        _store(em, value, em.op(f"sub i64 {block}, %begin"))


def _emit_combine(em: Emitter, fold: Fold, lanes: int) -> None:
    kind = fold_type(fold, lanes)
    blocks = em.op(f"udiv i64 {em.add('%items', BLOCK - 1)}, {BLOCK}")
    with em.loop(0, blocks) as block:
        start = em.mul(block, BLOCK)
        stop = em.least(em.add(start, BLOCK), "%items")
        variable = accumulator(em, fold, lanes)
        with em.loop(start, stop) as item:
            name = em.load(kind, em.element("%s0", em.mul(item, lanes)))
            below = Value(name, result_letter(fold), lanes)
            variable.set(combine(em, fold, current(fold, variable, lanes), below).name)
        _store(em, current(fold, variable, lanes), block)


def _store(em: Emitter, value: Value, row: str) -> None:
    """Store the canonical patterns of one result per lane as row number `row`."""
    bits = bits_of(em, value)
    em.store(bits.type, bits.name, em.element("%out", em.mul(row, bits.width)))


def _function(body: Emitter, name: str, sources: int, numbers: tuple[str, ...]) -> str:
    """Return a function and its entry, which tests the environment and unpacks the arguments."""
    pointers = [f"ptr noalias readonly %s{number}" for number in range(sources)]
    parameters = ["ptr noalias %out", *pointers, *(f"i64 %{number}" for number in numbers)]
    text = body.text(f"{name}_body", ", ".join(parameters))
    em = Emitter()
    bad = em.op("call i32 @environment()")
    with em.when(em.op(f"icmp eq i32 {bad}, 0")):
        arguments = []
        for table, kind, count in (
            ("%pointers", "ptr", 1 + sources),
            ("%numbers", "i64", len(numbers)),
        ):
            for place in range(count):
                slot = em.op(f"getelementptr i64, ptr {table}, i64 {place}")
                arguments.append(f"{kind} {em.op(f'load {kind}, ptr {slot}')}")
        em.do(f"call void @{name}_body({', '.join(arguments)})")
    lines = "\n".join([*em.lines, f"ret i32 {bad}"])
    return f"{text}\ndefine i32 @{name}(ptr %pointers, ptr %numbers) #0 {{\n{lines}\n}}\n"
