# SPDX-License-Identifier: GPL-3.0-or-later
"""One node as bytes: the leaf of the program tree (specification, section 2).

`encode_node` and `decode_node` are exact inverses on everything that either accepts: a node has one
encoding. Both check all that the layout itself fixes (codes, counts, field widths, the 1,024-byte
limit); what the fields mean together is the business of `protocol.validate`. Integers are
big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, TypeVar

from protocol.errors import ProgramError
from protocol.ops import SIGNATURES, Op
from protocol.program import (
    Dim,
    DType,
    Expression,
    Flat,
    Fold,
    Instruction,
    Iota,
    Kind,
    Node,
    Operand,
    Term,
    View,
)

MAX_NODE_BYTES: Final = 1024
MAX_RANK: Final = 8
MAX_OPERANDS: Final = 8
MAX_IMMEDIATES: Final = 32
MAX_INSTRUCTIONS: Final = 64
MAX_DIMS: Final = 8
MAX_TERMS: Final = 16

_MODES: Final = ("FLAT", "VIEW", "IOTA")
_TENSOR_KINDS: Final = (Kind.INPUT, Kind.CONST, Kind.DATA, Kind.OUTPUT)
_FIELD_KINDS: Final[dict[str, tuple[Kind, ...]]] = {
    "index": _TENSOR_KINDS,
    "bound": (Kind.SAMPLE,),
    "stream": (Kind.SAMPLE, Kind.RAND),
    "fold": (Kind.FOLD,),
    "lanes": (Kind.FOLD,),
    "reduce": (Kind.FOLD,),
    "expression": (Kind.MAP, Kind.FOLD),
}
_UNUSED: Final[dict[str, object]] = {
    "index": 0,
    "bound": 0,
    "stream": 0,
    "fold": Fold.DOT,
    "lanes": 1,
    "reduce": (),
    "expression": None,
}
_Code = TypeVar("_Code", Kind, DType, Fold, Op)
_Item = TypeVar("_Item")


# Nodes to bytes ----------------------------------------------------------------------------------


class _Writer:
    """Collects fields and refuses a value that its field cannot hold."""

    def __init__(self) -> None:
        self.data = bytearray()

    def integer(self, code: str, what: str, value: int) -> None:
        try:
            self.data += struct.pack(">" + code, value)
        except struct.error:
            raise ProgramError(f"{what} {value!r} does not fit its field") from None

    def u8(self, what: str, value: int) -> None:
        self.integer("B", what, value)

    def u32(self, what: str, value: int) -> None:
        self.integer("I", what, value)

    def i32(self, what: str, value: int) -> None:
        self.integer("i", what, value)

    def count(self, what: str, items: tuple[Any, ...], limit: int) -> None:
        if len(items) > limit:
            raise ProgramError(f"{len(items)} {what}, at most {limit} are allowed")
        self.u8(what, len(items))


def encode_node(node: Node) -> bytes:
    """Return the one encoding of `node`.

    Raises ProgramError if a value does not fit its field, a count is over its limit, an instruction
    has the wrong number of arguments, a field that the kind does not use is set, or the result
    has more than 1,024 bytes.
    """
    for field, kinds in _FIELD_KINDS.items():
        if node.kind not in kinds and getattr(node, field) != _UNUSED[field]:
            raise ProgramError(f"a {node.kind.name} node has no {field}")
    out = _Writer()
    out.u8("kind", node.kind)
    out.u8("dtype", node.dtype)
    out.count("dims of the shape", node.shape, MAX_RANK)
    for size in node.shape:
        out.u32("dim", size)
    if node.kind in _TENSOR_KINDS:
        out.u32("index", node.index)
    elif node.kind is Kind.SAMPLE:
        out.u32("bound", node.bound)
        out.u32("stream", node.stream)
    elif node.kind is Kind.RAND:
        out.u32("stream", node.stream)
    elif node.kind is Kind.FOLD:
        out.u8("fold", node.fold)
        out.u8("lanes", node.lanes)
        out.count("reduce dims", node.reduce, MAX_RANK)
        for size in node.reduce:
            out.u32("reduce dim", size)
    if node.kind in (Kind.MAP, Kind.FOLD):
        if node.expression is None:
            raise ProgramError(f"a {node.kind.name} node needs an expression")
        _write_expression(out, node.expression, _result_count(node.kind, node.fold))
    if len(out.data) > MAX_NODE_BYTES:
        raise ProgramError(
            f"the encoding of a {node.kind.name} node has {len(out.data)} bytes, "
            f"at most {MAX_NODE_BYTES} are allowed"
        )
    return bytes(out.data)


def _result_count(kind: Kind, fold: Fold) -> int:
    return 2 if kind is Kind.FOLD and fold is Fold.DOT else 1


def _write_expression(out: _Writer, expression: Expression, results: int) -> None:
    out.count("operands", expression.operands, MAX_OPERANDS)
    for operand in expression.operands:
        _write_operand(out, operand)
    out.count("immediates", expression.immediates, MAX_IMMEDIATES)
    for pattern in expression.immediates:
        out.u32("immediate", pattern)
    out.count("instructions", expression.instructions, MAX_INSTRUCTIONS)
    for instruction in expression.instructions:
        arity = len(SIGNATURES[instruction.op].operands)
        if len(instruction.args) != arity:
            raise ProgramError(
                f"{instruction.op.name} reads {arity} registers, not {len(instruction.args)}"
            )
        out.u8("op", instruction.op)
        for register in (*instruction.args, 0, 0, 0)[:3]:
            out.u8("register", register)
    if len(expression.results) != results:
        raise ProgramError(f"{len(expression.results)} result registers instead of {results}")
    for register in expression.results:
        out.u8("result register", register)


def _write_operand(out: _Writer, operand: Operand) -> None:
    if isinstance(operand, Flat):
        out.u8("mode", _MODES.index("FLAT"))
        out.u32("source", operand.source)
    elif isinstance(operand, View):
        out.u8("mode", _MODES.index("VIEW"))
        out.u32("source", operand.source)
        out.u32("fill", operand.fill)
        out.count("view dims", operand.dims, MAX_DIMS)
        for dim in operand.dims:
            for what in ("size", "lo", "hi", "dilation"):
                out.u32(what, getattr(dim, what))
            _write_affine(out, dim.offset, dim.terms)
    else:
        out.u8("mode", _MODES.index("IOTA"))
        _write_affine(out, operand.offset, operand.terms)


def _write_affine(out: _Writer, offset: int, terms: tuple[Term, ...]) -> None:
    out.i32("offset", offset)
    out.count("terms", terms, MAX_TERMS)
    for term in terms:
        out.u8("axis", term.axis)
        out.i32("coef", term.coef)


# Bytes to nodes ----------------------------------------------------------------------------------


class _Reader:
    """Reads fields from untrusted bytes; every error names the offset of the field at fault."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def fail(self, message: str, width: int = 0) -> ProgramError:
        return ProgramError(f"node byte {self.at - width}: {message}")

    def integer(self, code: str, what: str) -> int:
        width = struct.calcsize(">" + code)
        if self.at + width > len(self.data):
            raise self.fail(f"{what} is missing, the encoding ends at byte {len(self.data)}")
        (value,) = struct.unpack_from(">" + code, self.data, self.at)
        self.at += width
        return int(value)

    def u8(self, what: str) -> int:
        return self.integer("B", what)

    def u32(self, what: str) -> int:
        return self.integer("I", what)

    def i32(self, what: str) -> int:
        return self.integer("i", what)

    def code(self, codes: type[_Code], what: str) -> _Code:
        value = self.u8(what)
        try:
            return codes(value)
        except ValueError:
            raise self.fail(f"0x{value:02x} is not a {what}", 1) from None

    def items(self, what: str, limit: int, read: Callable[[], _Item]) -> tuple[_Item, ...]:
        count = self.u8(f"number of {what}")
        if count > limit:
            raise self.fail(f"{count} {what}, at most {limit} are allowed", 1)
        return tuple(read() for _ in range(count))


def decode_node(data: bytes) -> Node:
    """Return the node that `data` encodes; `encode_node` of it is `data` again.

    Raises ProgramError, naming the byte offset, for anything that is not exactly an encoding:
    unknown codes, counts over their limits, a non-zero unused byte, missing or trailing bytes.
    """
    if len(data) > MAX_NODE_BYTES:
        raise ProgramError(f"{len(data)} bytes for a node, at most {MAX_NODE_BYTES} are allowed")
    reader = _Reader(bytes(data))
    node = _read_node(reader)
    if reader.at != len(data):
        raise reader.fail(f"{len(data) - reader.at} bytes follow the end of the node")
    return node


def _read_node(reader: _Reader) -> Node:
    kind = reader.code(Kind, "kind")
    dtype = reader.code(DType, "dtype")
    shape = reader.items("dims of the shape", MAX_RANK, lambda: reader.u32("dim"))
    if kind in _TENSOR_KINDS:
        return Node(kind, dtype, shape, index=reader.u32("index"))
    if kind is Kind.SAMPLE:
        bound = reader.u32("bound")
        return Node(kind, dtype, shape, bound=bound, stream=reader.u32("stream"))
    if kind is Kind.RAND:
        return Node(kind, dtype, shape, stream=reader.u32("stream"))
    if kind is Kind.MAP:
        return Node(kind, dtype, shape, expression=_read_expression(reader, 1))
    if kind is Kind.FOLD:
        fold = reader.code(Fold, "fold")
        lanes = reader.u8("lanes")
        reduce = reader.items("reduce dims", MAX_RANK, lambda: reader.u32("reduce dim"))
        expression = _read_expression(reader, _result_count(kind, fold))
        return Node(
            kind, dtype, shape, fold=fold, lanes=lanes, reduce=reduce, expression=expression
        )
    return Node(kind, dtype, shape)


def _read_expression(reader: _Reader, results: int) -> Expression:
    return Expression(
        operands=reader.items("operands", MAX_OPERANDS, lambda: _read_operand(reader)),
        immediates=reader.items("immediates", MAX_IMMEDIATES, lambda: reader.u32("immediate")),
        instructions=reader.items(
            "instructions", MAX_INSTRUCTIONS, lambda: _read_instruction(reader)
        ),
        results=tuple(reader.u8("result register") for _ in range(results)),
    )


def _read_instruction(reader: _Reader) -> Instruction:
    op = reader.code(Op, "op")
    arity = len(SIGNATURES[op].operands)
    args = tuple(reader.u8("register") for _ in range(3))
    if any(args[arity:]):
        raise reader.fail(f"an unused register byte of {op.name} is not zero", 3 - arity)
    return Instruction(op, args[:arity])


def _read_operand(reader: _Reader) -> Operand:
    mode = reader.u8("mode")
    if mode >= len(_MODES):
        raise reader.fail(f"0x{mode:02x} is not a mode", 1)
    if _MODES[mode] == "FLAT":
        return Flat(reader.u32("source"))
    if _MODES[mode] == "VIEW":
        source, fill = reader.u32("source"), reader.u32("fill")
        return View(source, reader.items("view dims", MAX_DIMS, lambda: _read_dim(reader)), fill)
    offset = reader.i32("offset")
    return Iota(_read_terms(reader), offset)


def _read_dim(reader: _Reader) -> Dim:
    size, lo, hi, dilation = (reader.u32(what) for what in ("size", "lo", "hi", "dilation"))
    offset = reader.i32("offset")
    return Dim(size, _read_terms(reader), offset, lo, hi, dilation)


def _read_terms(reader: _Reader) -> tuple[Term, ...]:
    return reader.items("terms", MAX_TERMS, lambda: Term(reader.u8("axis"), reader.i32("coef")))
