# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs as bytes: the encoding that is hashed, and the artifact file that carries it.

`encode_node` and `decode_node` are exact inverses on everything that either accepts (specification,
section 2): one node has one encoding, so the program root names one program. Both check all that
the layout itself fixes (codes, counts, field widths, the 1,024-byte limit); what the fields mean
together is the business of `protocol.validate`. Integers are big-endian.

Artifact file: `"BITCOURT" ‖ u16 version ‖ u32 n_nodes, n_state, n_const, n_data, name_bytes`, then
per node `u16 length ‖ encoding`, then `name_bytes` of JSON with names for people. The names are not
part of the program root, and whoever trusts the root trusts nothing about them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any, Final, TypeVar

from protocol import merkle
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
    Program,
    Term,
    View,
)

MAX_NODE_BYTES: Final = 1024
MAX_NODES: Final = 65_536
MAX_TENSORS: Final = 4096
"""Limit of each of n_state, n_const and n_data."""
MAX_RANK: Final = 8
MAX_OPERANDS: Final = 8
MAX_IMMEDIATES: Final = 32
MAX_INSTRUCTIONS: Final = 64
MAX_DIMS: Final = 8
MAX_TERMS: Final = 16
MAX_NAME_BYTES: Final = 1 << 24
MAX_NAME_LENGTH: Final = 512

MAGIC: Final = b"BITCOURT"
VERSION: Final = 1

_HEADER: Final = struct.Struct(">8sHIIIII")
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


# Whole programs ----------------------------------------------------------------------------------


def encode_nodes(program: Program) -> list[bytes]:
    """Return the encodings of all nodes: the leaves of the program tree.

    Raises ProgramError naming the node that cannot be encoded.
    """
    encodings = []
    for number, node in enumerate(program.nodes):
        try:
            encodings.append(encode_node(node))
        except ProgramError as error:
            raise ProgramError(f"node {number}: {error}") from error
    return encodings


def program_root(program: Program) -> bytes:
    """Return the 32-byte root of the program tree.

    Raises ProgramError for a program without nodes or with one that cannot be encoded.
    """
    if not program.nodes:
        raise ProgramError("a program has at least one node")
    return merkle.root([merkle.leaf_hash(encoding) for encoding in encode_nodes(program)])


def dump(program: Program) -> bytes:
    """Return the artifact file of `program`; `load` is its inverse, names included.

    Raises ProgramError for a program that `load` would refuse.
    """
    _check_counts(len(program.nodes), program.n_state, program.n_const, program.n_data)
    _check_names(program)
    names = {"nodes": program.names, "state": list(program.state_names)}
    blob = json.dumps(names, sort_keys=True, separators=(",", ":")).encode()
    if len(blob) > MAX_NAME_BYTES:
        raise ProgramError(f"{len(blob)} bytes of names, at most {MAX_NAME_BYTES} are allowed")
    header = _HEADER.pack(
        MAGIC, VERSION, len(program.nodes), program.n_state, program.n_const, program.n_data,
        len(blob),
    )
    parts = [header]
    for encoding in encode_nodes(program):
        parts += (len(encoding).to_bytes(2, "big"), encoding)
    return b"".join([*parts, blob])


def load(data: bytes) -> Program:
    """Return the program in the artifact file `data`, which may come from anybody.

    All counts are checked before anything is allocated for them, and names are plain printable
    text. The program is well-formed but not validated. Raises ProgramError.
    """
    if len(data) < _HEADER.size:
        raise ProgramError(f"{len(data)} bytes are too few for a program file")
    magic, version, n_nodes, n_state, n_const, n_data, name_bytes = _HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise ProgramError(f"not a program file of version {VERSION}")
    _check_counts(n_nodes, n_state, n_const, n_data)
    end = len(data) - name_bytes
    if name_bytes > MAX_NAME_BYTES or end < _HEADER.size:
        raise ProgramError(f"{name_bytes} bytes of names in a file of {len(data)} bytes")
    nodes, at = [], _HEADER.size
    for number in range(n_nodes):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if max(start, at) > end:
            raise ProgramError(f"node {number}: the program file is truncated")
        try:
            nodes.append(decode_node(data[start:at]))
        except ProgramError as error:
            raise ProgramError(f"node {number}: {error}") from error
    if at != end:
        raise ProgramError(f"{end - at} bytes follow the last node of the program file")
    names, state_names = _read_names(data[end:])
    program = Program(tuple(nodes), n_state, n_const, n_data, names, state_names)
    _check_names(program)
    return program


def _check_counts(n_nodes: int, n_state: int, n_const: int, n_data: int) -> None:
    if not 1 <= n_nodes <= MAX_NODES:
        raise ProgramError(f"{n_nodes} nodes, a program has 1 to {MAX_NODES}")
    if not 1 <= n_state <= min(n_nodes, MAX_TENSORS):
        raise ProgramError(f"n_state {n_state} is not in 1..{min(n_nodes, MAX_TENSORS)}")
    for what, count in (("n_const", n_const), ("n_data", n_data)):
        if not 0 <= count <= MAX_TENSORS:
            raise ProgramError(f"{what} {count} is not in 0..{MAX_TENSORS}")


def _read_names(blob: bytes) -> tuple[dict[str, int], tuple[str, ...]]:
    try:
        value = json.loads(blob.decode("ascii"))
    except (ValueError, RecursionError):
        raise ProgramError("the names of the program file are not ASCII JSON") from None
    if not isinstance(value, dict) or value.keys() != {"nodes", "state"}:
        raise ProgramError('the names of the program file are not {"nodes": .., "state": ..}')
    if not isinstance(value["nodes"], dict) or not isinstance(value["state"], list):
        raise ProgramError("the names of the program file are not an object and an array")
    return value["nodes"], tuple(value["state"])


def _check_names(program: Program) -> None:
    for name in (*program.names, *program.state_names):
        if not isinstance(name, str) or len(name) > MAX_NAME_LENGTH or not name.isprintable():
            raise ProgramError(
                f"a name is not printable text of at most {MAX_NAME_LENGTH} characters"
            )
    for name, number in program.names.items():
        if type(number) is not int or not 0 <= number < len(program.nodes):
            raise ProgramError(f"name {name!r} does not stand for a node of the program")
    if program.state_names and len(program.state_names) != program.n_state:
        raise ProgramError(
            f"{len(program.state_names)} state names for {program.n_state} state tensors"
        )
