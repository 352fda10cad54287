# SPDX-License-Identifier: GPL-3.0-or-later
"""Every rule refuses a program that breaks it, by node and op, and valid programs pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from protocol.encoding import MAX_NODES
from protocol.errors import ProgramError
from protocol.ops import Op
from protocol.program import (
    INDIRECT,
    Dim,
    DType,
    Expression,
    Flat,
    Fold,
    Iota,
    Kind,
    Node,
    Operand,
    Program,
    Term,
    View,
)
from protocol.resources import Caps, resources
from protocol.validate import INSTRUCTION_RULES, NODE_RULES, OPERAND_RULES, Rule, validate
from tests.hand_built import HAND_BUILT, Builder, along, expression
from tests.programs import programs

F32, I32 = DType.F32, DType.I32
X, N = 0, 1  # the leaves of `around`: f32 (2, 3) and i32 (6,)


def around(*nodes: Node, **counts: int) -> Program:
    """A program of an f32 and an i32 state tensor with `nodes` between inputs and outputs."""
    return Program(
        (
            Node(Kind.INPUT, F32, (2, 3), index=0),
            Node(Kind.INPUT, I32, (6,), index=1),
            *nodes,
            Node(Kind.OUTPUT, F32, (2, 3), index=0),
            Node(Kind.OUTPUT, I32, (6,), index=1),
        ),
        n_state=2,
        **counts,
    )


def a_map(body: Expression, shape: tuple[int, ...] = (2, 3), dtype: DType = F32) -> Node:
    return Node(Kind.MAP, dtype, shape, expression=body)


def a_fold(fold: Fold = Fold.SUM, body: Expression | None = None, **fields: Any) -> Node:
    body = body or Expression((along(X, (2, 3), (0, 1)),))
    fields = {"reduce": (3,), "dtype": F32, "shape": (2,), **fields}
    return Node(kind=Kind.FOLD, fold=fold, expression=body, **fields)


def reading(operand: Operand, *before: Operand) -> Node:
    operands = (*before, operand)
    return a_map(Expression(operands, results=(len(operands) - 1,)))


def dim(**fields: Any) -> Node:
    return reading(View(X, (replace(Dim(6, (Term(0, 1),)), **fields),)))


INDEX = View(N, (Dim(6, (Term(0, 1),)),))

BROKEN: dict[str, tuple[Program, str]] = {
    "dim of 0": (around(a_map(Expression((), (1,)), (0,))), "node 2 (MAP): every dim"),
    "too many elements": (
        around(a_map(Expression((), (1,)), (1 << 16, 1 << 15))),
        "node 2 (MAP): a tensor has less than 2^31 elements",
    ),
    "OUTPUT too early": (
        around(Node(Kind.OUTPUT, F32, (2, 3), index=0)),
        "node 2 (OUTPUT): exactly the last 2 nodes",
    ),
    "OUTPUT missing": (
        Program(
            (
                Node(Kind.INPUT, F32, ()),
                Node(Kind.INPUT, F32, (), index=1),
                Node(Kind.OUTPUT, F32, ()),
            ),
            n_state=2,
        ),
        "node 1 (INPUT): exactly the last 2 nodes",
    ),
    "INPUT of no tensor": (around(Node(Kind.INPUT, F32, (), index=2)), "reads tensor 2 of 2"),
    "CONST of no tensor": (around(Node(Kind.CONST, F32, ())), "(CONST): reads tensor 0 of 0"),
    "DATA of no tensor": (
        around(Node(Kind.DATA, F32, (), index=1), n_data=1),
        "(DATA): reads tensor 1 of 1",
    ),
    "OUTPUT of itself": (
        Program((Node(Kind.INPUT, F32, ()), Node(Kind.OUTPUT, F32, (), index=1)), 1),
        "node 1 (OUTPUT): is the alias of node 1, which is not an earlier node",
    ),
    "OUTPUT of another shape": (
        Program((Node(Kind.INPUT, F32, (2,)), Node(Kind.OUTPUT, F32, (1, 2), index=0)), 1),
        "node 0 (INPUT): is F32 (2,), but the tensor it stands for is F32 (1, 2)",
    ),
    "OUTPUT of another dtype": (
        Program((Node(Kind.STEP, I32, ()), Node(Kind.OUTPUT, F32, (), index=0)), 1),
        "node 1 (OUTPUT): is F32 (), but the tensor it stands for is I32 ()",
    ),
    "INPUT of another dtype": (
        around(Node(Kind.INPUT, I32, (2, 3), index=0)),
        "node 2 (INPUT): is I32 (2, 3), but",
    ),
    "one CONST in two shapes": (
        around(Node(Kind.CONST, F32, (6,)), Node(Kind.CONST, F32, (3, 2)), n_const=1),
        "node 3 (CONST): is F32 (3, 2), but the tensor it stands for is F32 (6,)",
    ),
    "one DATA in two dtypes": (
        around(Node(Kind.DATA, F32, (6,)), Node(Kind.DATA, I32, (6,)), n_data=1),
        "node 3 (DATA): is I32 (6,), but",
    ),
    "f32 STEP": (around(Node(Kind.STEP, F32, ())), "node 2 (STEP): its dtype is I32"),
    "f32 SAMPLE": (around(Node(Kind.SAMPLE, F32, (), bound=1)), "(SAMPLE): its dtype is I32"),
    "f32 RAND": (around(Node(Kind.RAND, F32, ())), "(RAND): its dtype is I32"),
    "STEP of rank 1": (around(Node(Kind.STEP, I32, (1,))), "(STEP): its rank is 0"),
    "SAMPLE below 0": (around(Node(Kind.SAMPLE, I32, ())), "its bound 0 is not in"),
    "SAMPLE beyond i32": (
        around(Node(Kind.SAMPLE, I32, (), bound=1 << 31)),
        "its bound 2147483648 is not in",
    ),
    "FOLD over nothing": (around(a_fold(reduce=())), "(FOLD SUM): has 1 to 8 reduce dims"),
    "FOLD of 0 terms": (around(a_fold(reduce=(3, 0))), "has 1 to 8 reduce dims"),
    "FOLD of 2^31 terms": (
        around(a_fold(reduce=(1 << 16, 1 << 15))),
        "node 2 (FOLD SUM): folds less than 2^31 terms",
    ),
    "8 lanes": (around(a_fold(lanes=8)), "cannot have 8 lanes"),
    "0 lanes": (around(a_fold(lanes=0)), "cannot have 0 lanes"),
    "MAX in 16 lanes": (around(a_fold(Fold.MAX, lanes=16)), "(FOLD MAX): cannot have 16 lanes"),
    "i32 SUM": (around(a_fold(dtype=I32)), "not I32"),
    "f32 ISUM": (around(a_fold(Fold.ISUM)), "(FOLD ISUM): its dtype is I32 for ISUM"),
    "forward reference": (
        around(reading(Flat(2))),
        "node 2 (MAP) operand 0 (FLAT): reads node 2, which is not an earlier node",
    ),
    "reference beyond the end": (around(reading(View(99, ()))), "(VIEW): reads node 99"),
    "FLAT in a FOLD": (
        around(a_fold(body=Expression((Flat(X),)))),
        "node 2 (FOLD SUM) operand 0 (FLAT): FLAT is for MAP only",
    ),
    "FLAT of another size": (
        around(a_map(Expression((Flat(X),)), (2, 2))),
        "the source has 6 elements, the node 4",
    ),
    "sizes that do not multiply": (
        around(reading(along(X, (2, 2), (0, 1)))),
        "the view sizes (2, 2) are no factorization of the source's 6 elements",
    ),
    "no dims for six elements": (around(reading(View(X, ()))), "the view sizes () are no"),
    "lo = hi": (around(dim(lo=2, hi=2)), "every view dim has lo < hi <= size"),
    "hi beyond size": (around(dim(hi=7)), "every view dim has lo < hi <= size"),
    "dilation 0": (around(dim(dilation=0)), "a dilation of at least 1"),
    "axis beyond rank": (around(dim(terms=(Term(2, 1),))), "there are 2 axes"),
    "axis between": (around(dim(terms=(Term(0x7F, 1),))), "there are 2 axes"),
    "axis beyond rank and q": (
        around(a_fold(body=Expression((View(X, (Dim(6, (Term(2, 1),)),)),)))),
        "there are 2 axes",
    ),
    "IOTA axis": (around(a_map(Expression((Iota((Term(2, 1),)),)), dtype=I32)), "there are 2 axes"),
    "index by itself": (
        around(dim(terms=(Term(INDIRECT, 1),))),
        "node 2 (MAP) operand 0 (VIEW): an index is the value of an earlier operand",
    ),
    "index by a later operand": (
        around(reading(INDEX, View(X, (Dim(6, (Term(INDIRECT + 1, 1),)),)))),
        "operand 0 (VIEW): an index is the value of an earlier operand, not of operands [1]",
    ),
    "f32 index": (
        around(reading(View(X, (Dim(6, (Term(INDIRECT, 1),)),)), Flat(X))),
        "node 2 (MAP) operand 1 (VIEW): an index is I32, operands [0] are not",
    ),
    "register without a value": (
        around(a_map(expression([Flat(X)], (Op.NEG, (1,))))),
        "node 2 (MAP) instruction 0 (NEG): reads registers (1,), but only lower",
    ),
    "i32 operand of ADD": (
        around(a_map(expression([Flat(X), Flat(N)], (Op.ADD, (0, 1))))),
        "node 2 (MAP) instruction 0 (ADD): registers (0, 1) are not of its operand types 'ff'",
    ),
    "f32 result of an instruction as i32": (
        around(a_map(expression([Flat(X)], (Op.NEG, (0,)), (Op.IADD, (1, 1))), dtype=I32)),
        "instruction 1 (IADD): registers (1, 1) are not of its operand types 'ii'",
    ),
    "f32 condition": (
        around(a_map(expression([Flat(X)], (Op.WHERE, (0, 0, 0))))),
        "instruction 0 (WHERE): registers (0, 0, 0) are not of its operand types 'iff'",
    ),
    "result without a register": (
        around(a_map(Expression((Flat(X),), results=(1,)))),
        "node 2 (MAP): its result is register 1 of 1",
    ),
    "no register at all": (around(a_map(Expression(()))), "its result is register 0 of 0"),
    "i32 result of an f32 MAP": (around(a_map(Expression((Flat(N),)))), "is not F32"),
    "f32 result of an i32 MAP": (around(a_map(Expression((Flat(X),)), dtype=I32)), "is not I32"),
    "f32 term of ISUM": (around(a_fold(Fold.ISUM, dtype=I32)), "result register 0 is not I32"),
    "i32 factor of DOT": (
        around(a_fold(Fold.DOT, Expression((along(X, (2, 3), (0, 1)), INDEX), results=(0, 1)))),
        "node 2 (FOLD DOT): its result register 1 is not F32",
    ),
    "unused operand": (
        around(a_map(Expression((Flat(X), Flat(N)), results=(0,)))),
        "node 2 (MAP): nothing uses its operand 1",
    ),
    "unencodable": (around(replace(a_fold(), bound=1)), "node 2 (FOLD SUM): a FOLD node has no"),
    "no nodes": (Program((), 1), "0 nodes, a program has 1 to 65536"),
    "no state": (replace(around(), n_state=0), "n_state is 0"),
    "more state than nodes": (replace(around(), n_state=5), "n_state is 5"),
    "too many constants": (around(n_const=4097), "n_const is 4097"),
    "negative data": (around(n_data=-1), "n_data is -1"),
}


@pytest.mark.parametrize(("program", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_rule_is_named_with_node_and_op(program: Program, message: str) -> None:
    with pytest.raises(ProgramError) as caught:
        validate(program)
    assert message in str(caught.value)


def test_every_rule_of_the_tables_is_broken_by_one_of_these_programs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = set()
    original = Rule.check

    def check(rule: Any, scope: Any) -> None:
        if not rule.holds(scope):
            broken.add(rule.requirement)
        original(rule, scope)

    monkeypatch.setattr(Rule, "check", check)
    for program, _ in BROKEN.values():
        with pytest.raises(ProgramError):
            validate(program)
    tables = (*NODE_RULES, *OPERAND_RULES, *INSTRUCTION_RULES)
    assert broken == {rule.requirement for rule in tables}


@settings(max_examples=60, deadline=None)
@given(programs())
def test_drawn_programs_are_valid(program: Program) -> None:
    validate(program)


@pytest.mark.parametrize("build", HAND_BUILT.values(), ids=HAND_BUILT)
def test_hand_built_programs_are_valid(build: Callable[[], Program]) -> None:
    validate(build())


def test_immediate_takes_either_type() -> None:
    both = expression([], (Op.ADD, (0, 0)), (Op.IADD, (0, 0)), (Op.I2F, (2,)), immediates=[1])
    validate(around(a_map(both)))


def test_unencodable_long_expression_is_refused() -> None:
    body = expression([Flat(X)], *[(Op.NEG, (0,))] * 65)
    with pytest.raises(ProgramError, match=r"node 2 \(MAP\): 65 instructions, at most 64"):
        validate(around(a_map(body)))


def test_resources_count_bytes_primitives_and_reads() -> None:
    cost = resources(HAND_BUILT["matmul"]())  # (3, 7) @ (7, 5)
    assert cost.trace_bytes == 4 * (21 + 35 + 15)
    assert cost.largest_bytes == 4 * 35
    assert cost.state_bytes == 4 * 15
    assert cost.primitives == 3 * 5 * 7
    assert cost.reads == 2 * 3 * 5 * 7


@pytest.mark.parametrize(
    ("caps", "what"),
    [
        (Caps(trace_bytes=283), "trace_bytes = 284"),
        (Caps(largest_bytes=139), "largest_bytes = 140"),
        (Caps(primitives=104), "primitives = 105"),
    ],
)
def test_step_over_a_cap_is_refused(caps: Caps, what: str) -> None:
    validate(HAND_BUILT["matmul"](), Caps(284, 140, 105))
    with pytest.raises(ProgramError, match=rf"{what}, the cap is .* node \d \((FOLD DOT|DATA)\)"):
        validate(HAND_BUILT["matmul"](), caps)


def test_malicious_program_that_needs_absurd_memory_is_refused_by_default() -> None:
    b = Builder()
    state = b.leaf(Kind.INPUT, ())
    for _ in range(200):
        b.map(((1 << 31) - 1,), expression([], immediates=[0]))
    with pytest.raises(ProgramError, match="trace_bytes"):
        validate(b.finish([state]))


def test_malicious_program_that_needs_absurd_time_is_refused_by_default() -> None:
    b = Builder()
    state = b.leaf(Kind.INPUT, ())
    body = expression([along(state, (), ())])
    b.fold(Fold.SUM, ((1 << 31) - 1,), ((1 << 31) - 1,), body)
    with pytest.raises(ProgramError, match=r"primitives = .*FOLD SUM"):
        validate(b.finish([state]))


def test_validation_of_the_largest_program_is_linear() -> None:
    leaves = [Node(Kind.CONST, F32, (), index=4095)] * (MAX_NODES // 8)
    leaves += [Node(Kind.CONST, F32, (), index=i) for i in range(4096)]
    program = around(*leaves, n_const=4096)
    started = time.perf_counter()
    validate(program)
    assert time.perf_counter() - started < 10
    with pytest.raises(ProgramError, match="65537 nodes"):
        validate(around(*[leaves[0]] * (MAX_NODES - 3), n_const=4096))
