# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs in which one node breaks the rules: `FAULTS` has each with the number of that node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from protocol.encoding import encode_nodes
from protocol.node_encoding import encode_node
from protocol.ops import Op
from protocol.program import Dim, DType, Flat, Fold, Instruction, Kind, Node, Program, Term, View
from tests.hand_built import Builder, adder, along, expression

PROGRAM = adder()  # 0: INPUT, 1: DATA, 2: MAP, 3: OUTPUT
MAP_NODE = PROGRAM.nodes[2]


def encodings() -> list[bytes]:
    return encode_nodes(PROGRAM)


def _changed_map(**changes: object) -> bytes:
    assert MAP_NODE.expression is not None
    return encode_node(replace(MAP_NODE, expression=replace(MAP_NODE.expression, **changes)))


def _code(*instructions: tuple[Op, tuple[int, ...]], results: tuple[int, ...]) -> bytes:
    code = tuple(Instruction(op, args) for op, args in instructions)
    return _changed_map(instructions=code, results=results)


def _dot(first: int, second: int) -> bytes:
    """A fold at place 2 whose two results are these registers."""
    b = Builder()
    operands = [along(0, (3, 5), (0, 2)), along(1, (3, 5), (0, 1))]
    b.fold(Fold.DOT, (3, 5), (5,), expression(operands, results=(first, second)))
    return encode_node(b.nodes[0])


def _leaf(kind: Kind, index: int, shape: tuple[int, ...] = (3, 5)) -> bytes:
    return encode_node(Node(kind, MAP_NODE.dtype, shape, index=index))


def _view(source: int) -> View:
    return View(source, (Dim(3, (Term(0, 1),)), Dim(5, (Term(1, 1),))))


def _fold(fold: Fold, lanes: int = 1, reduce: tuple[int, ...] = (5,)) -> bytes:
    body = expression([Flat(0)], results=(0,))
    node = Node(Kind.FOLD, MAP_NODE.dtype, (3, 5), fold=fold, lanes=lanes, reduce=reduce)
    return encode_node(replace(node, expression=body))


def _operands(*operands: bytes) -> bytes:
    """The MAP with other operands, given as bytes."""
    node = encode_node(MAP_NODE)
    at = 3 + 4 * len(MAP_NODE.shape)
    return node[:at] + bytes([len(operands)]) + b"".join(operands) + node[at + 1 + 2 * FLAT_BYTES :]


FLAT_BYTES = 5
FLAT_OPERAND = bytes(FLAT_BYTES)  # of node 0
VIEW_OPERAND = encode_node(replace(MAP_NODE, expression=expression([_view(0)], results=(0,))))[
    12:-3
]  # between the count of operands, and no immediates, no instructions and a result
SUM_FOLD = _fold(Fold.SUM)
FOLD_AT = 3 + 4 * 2  # in its encoding: the kind of fold, then lanes, then the reduce dims


def _bytes(change: Callable[[bytes], bytes]) -> bytes:
    return change(encode_node(MAP_NODE))


FAULTS: dict[str, tuple[int, bytes]] = {
    "no bytes": (2, b""),
    "unknown kind": (2, _bytes(lambda node: b"\x7f" + node[1:])),
    "unknown dtype": (2, _bytes(lambda node: node[:1] + b"\x02" + node[2:])),
    "rank nine": (2, _bytes(lambda node: node[:2] + b"\x09" + node[3:])),
    "empty dim": (2, _bytes(lambda node: node[:3] + bytes(4) + node[7:])),
    "missing byte": (2, _bytes(lambda node: node[:-1])),
    "trailing byte": (2, _bytes(lambda node: node + b"\x00")),
    "too long": (2, _bytes(lambda node: node + bytes(1024))),
    "unknown primitive": (2, _bytes(lambda node: node[:-5] + b"\xff" + node[-4:])),
    "unused register byte": (2, _bytes(lambda node: node[:-2] + b"\x01" + node[-1:])),
    "nine operands": (2, _operands(*[FLAT_OPERAND] * 9)),
    "fourth mode of operands": (2, _operands(b"\x03" + VIEW_OPERAND[1:], FLAT_OPERAND)),
    "sixth fold": (2, SUM_FOLD[:FOLD_AT] + b"\x05" + SUM_FOLD[FOLD_AT + 1 :]),
    "three lanes": (2, _fold(Fold.SUM, lanes=3)),
    "lanes of a maximum": (2, _fold(Fold.MAX, lanes=16)),
    "fold over nothing": (2, _fold(Fold.SUM, reduce=())),
    "fold over 2^31 terms": (2, _fold(Fold.SUM, reduce=(2**16, 2**15))),
    "2^31 elements": (1, _leaf(Kind.DATA, 0, (2**16, 2**15))),
    "sample without a bound": (1, encode_node(Node(Kind.SAMPLE, DType.I32, (3, 5)))),
    "reads itself": (2, _changed_map(operands=(Flat(0), Flat(2)))),
    "reads a later node": (2, _changed_map(operands=(Flat(3), Flat(1)))),
    "views itself": (2, _changed_map(operands=(Flat(0), _view(2)))),
    "reads beyond the program": (2, _changed_map(operands=(Flat(2**32 - 1), Flat(1)))),
    "register of itself": (2, _code((Op.ADD, (0, 2)), results=(2,))),
    "first register of later code": (
        2,
        _code((Op.ADD, (3, 1)), (Op.ADD, (0, 1)), results=(2,)),
    ),
    "third register of later code": (
        2,
        _code((Op.FMA, (0, 1, 3)), (Op.ADD, (0, 1)), results=(2,)),
    ),
    "result that is no register": (2, _code((Op.ADD, (0, 1)), results=(3,))),
    "result beyond all registers": (2, _code((Op.ADD, (0, 1)), results=(255,))),
    "second result that is no register": (2, _dot(0, 2)),
    "first result that is no register": (2, _dot(2, 0)),
    "state that is not there": (0, _leaf(Kind.INPUT, 1)),
    "data that is not there": (1, _leaf(Kind.DATA, 1)),
    "constant that is not there": (1, _leaf(Kind.CONST, 0)),
    "OUTPUT before the end": (2, _leaf(Kind.OUTPUT, 0)),
    "no OUTPUT at the end": (3, _leaf(Kind.DATA, 0)),
    "OUTPUT of itself": (3, _leaf(Kind.OUTPUT, 3)),
    "OUTPUT of what is not there": (3, _leaf(Kind.OUTPUT, 2**32 - 1)),
}


def counts(program: Program) -> tuple[int, int, int, int]:
    """What the terms of a task say of a program: n_nodes, n_state, n_const, n_data."""
    return len(program.nodes), program.n_state, program.n_const, program.n_data
