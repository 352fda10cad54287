# SPDX-License-Identifier: GPL-3.0-or-later
"""One node has one encoding, and bytes from anybody either are one or are refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.encoding import MAX_NODE_BYTES, decode_node, dump, encode_node, load, program_root
from protocol.errors import ProgramError
from protocol.ops import Op
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
    Program,
    Term,
    View,
)
from tests.hand_built import HAND_BUILT, adder, every_view, matmul
from tests.programs import programs

FMA_BODY = Expression(
    operands=(
        Flat(7),
        View(258, (Dim(5, (Term(1, -1),), 4, 1, 3, 2),), 0x7FC00000),
        Iota((Term(0x80, 3),), -1),
    ),
    immediates=(0x3F800000,),
    instructions=(Instruction(Op.I2F, (2,)), Instruction(Op.FMA, (0, 1, 4))),
    results=(5,),
)
FMA_NODE = Node(Kind.MAP, DType.F32, (3, 5), expression=FMA_BODY)
FMA_BYTES = bytes.fromhex(
    "10 00 02 00000003 00000005"  # MAP f32, shape (3, 5)
    "03"
    "00 00000007"  # FLAT
    "01 00000102 7fc00000 01  00000005 00000001 00000003 00000002 00000004 01 01 ffffffff"  # VIEW
    "02 ffffffff 01 80 00000003"  # IOTA
    "01 3f800000"
    "02 10020000 04000104"  # I2F r2; FMA r0 r1 r4
    "05"
)
DOT_BODY = Expression((Flat(1),), results=(0, 0))


def with_body(**changes: Any) -> Node:
    return replace(FMA_NODE, expression=replace(FMA_BODY, **changes))


ALL_NODES = [node for build in HAND_BUILT.values() for node in build().nodes]


@pytest.mark.parametrize(
    ("node", "encoding"),
    [
        (Node(Kind.INPUT, DType.F32, (2,), index=3), "01 00 01 00000002 00000003"),
        (Node(Kind.CONST, DType.I32, (), index=0xFFFFFFFF), "02 01 00 ffffffff"),
        (Node(Kind.DATA, DType.F32, (1,), index=1), "03 00 01 00000001 00000001"),
        (Node(Kind.STEP, DType.I32, ()), "04 01 00"),
        (
            Node(Kind.SAMPLE, DType.I32, (4,), bound=9, stream=2),
            "05 01 01 00000004 00000009 00000002",
        ),
        (Node(Kind.RAND, DType.I32, (4,), stream=2), "06 01 01 00000004 00000002"),
        (Node(Kind.OUTPUT, DType.F32, (), index=6), "20 00 00 00000006"),
        (
            Node(
                Kind.FOLD, DType.F32, (2,), fold=Fold.DOT, lanes=1, reduce=(3, 4),
                expression=DOT_BODY,
            ),
            "11 00 01 00000002 00 01 02 00000003 00000004 01 00 00000001 00 00 00 00",
        ),
        (FMA_NODE, FMA_BYTES.hex()),
    ],
    ids=lambda value: value.kind.name if isinstance(value, Node) else "",
)  # fmt: skip
def test_encoding_is_byte_for_byte_that_of_the_specification(node: Node, encoding: str) -> None:
    assert encode_node(node).hex() == bytes.fromhex(encoding).hex()
    assert decode_node(bytes.fromhex(encoding)) == node


@settings(max_examples=60, deadline=None)
@given(programs())
def test_decoding_inverts_encoding(program: Program) -> None:
    for node in program.nodes:
        assert decode_node(encode_node(node)) == node


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ALL_NODES), st.data())
def test_mutated_bytes_are_refused_or_are_another_canonical_encoding(
    node: Node, data: st.DataObject
) -> None:
    encoding = bytearray(encode_node(node))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(encoding) - 1))
        encoding[at] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_node(bytes(encoding))
    except ProgramError as error:
        assert "node byte" in str(error)  # noqa: PT017
    else:
        assert encode_node(decoded) == bytes(encoding)


@given(st.binary(max_size=80))
def test_random_bytes_never_crash_the_decoder(data: bytes) -> None:
    try:
        node = decode_node(data)
    except ProgramError:
        return
    assert encode_node(node) == data


@pytest.mark.parametrize("node", [*every_view().nodes, FMA_NODE], ids=lambda n: n.kind.name)
def test_every_truncation_and_every_extension_is_refused(node: Node) -> None:
    encoding = encode_node(node)
    for length in range(len(encoding)):
        with pytest.raises(ProgramError, match=rf"the encoding ends at byte {length}"):
            decode_node(encoding[:length])
    with pytest.raises(ProgramError, match=f"node byte {len(encoding)}: 1 bytes follow"):
        decode_node(encoding + b"\x00")


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 0x07, "node byte 0: 0x07 is not a kind"),
        (1, 2, "node byte 1: 0x02 is not a dtype"),
        (2, 9, "node byte 2: 9 dims of the shape, at most 8"),
        (11, 9, "node byte 11: 9 operands, at most 8"),
        (12, 3, "node byte 12: 0x03 is not a mode"),
        (26, 9, "node byte 26: 9 view dims, at most 8"),
        (47, 17, "node byte 47: 17 terms, at most 16"),
        (58, 17, "node byte 58: 17 terms, at most 16"),
        (64, 33, "node byte 64: 33 immediates, at most 32"),
        (69, 65, "node byte 69: 65 instructions, at most 64"),
        (70, 0x13, "node byte 70: 0x13 is not a op"),
        (72, 1, "node byte 72: an unused register byte of I2F is not zero"),
        (73, 1, "node byte 72: an unused register byte of I2F is not zero"),
    ],
)
def test_bad_byte_is_named_with_its_offset(at: int, value: int, message: str) -> None:
    encoding = bytearray(FMA_BYTES)
    encoding[at] = value
    with pytest.raises(ProgramError) as caught:
        decode_node(bytes(encoding))
    assert message in str(caught.value)


def test_unknown_fold_is_named_with_its_offset() -> None:
    node = Node(
        Kind.FOLD, DType.F32, (), fold=Fold.SUM, reduce=(2,), expression=Expression((), (1,))
    )
    encoding = bytearray(encode_node(node))
    encoding[3] = 5
    with pytest.raises(ProgramError, match="node byte 3: 0x05 is not a fold"):
        decode_node(bytes(encoding))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (Node(Kind.STEP, DType.I32, (), index=1), "a STEP node has no index"),
        (Node(Kind.INPUT, DType.F32, (), stream=1), "a INPUT node has no stream"),
        (replace(FMA_NODE, lanes=16), "a MAP node has no lanes"),
        (replace(FMA_NODE, reduce=(2,)), "a MAP node has no reduce"),
        (replace(FMA_NODE, expression=None), "a MAP node needs an expression"),
        (Node(Kind.INPUT, DType.F32, (2,) * 9), "9 dims of the shape, at most 8"),
        (Node(Kind.INPUT, DType.F32, (1 << 32,)), "dim 4294967296 does not fit"),
        (Node(Kind.INPUT, DType.F32, (), index=-1), "index -1 does not fit"),
        (
            with_body(results=(1, 2)),
            "2 result registers instead of 1",
        ),
        (
            with_body(instructions=(Instruction(Op.ADD, (1,)),)),
            "ADD reads 2 registers, not 1",
        ),
        (
            with_body(operands=(Iota((), 1 << 31),)),
            "offset 2147483648 does not fit",
        ),
        (
            with_body(operands=(Flat(0),) * 9),
            "9 operands, at most 8",
        ),
        (
            with_body(operands=(View(0, (Dim(1, (Term(0, 1),) * 8),) * 8),) * 4),
            "has 2019 bytes, at most 1024",
        ),
    ],
)  # fmt: skip
def test_node_without_an_encoding_is_refused(node: Node, message: str) -> None:
    with pytest.raises(ProgramError) as caught:
        encode_node(node)
    assert message in str(caught.value)


def test_encoding_of_1024_bytes_is_accepted_and_of_1025_refused() -> None:
    def node(immediates: int, terms: int) -> Node:
        dims = (Dim(1, (Term(0, 1),) * 16),) * 8
        views = (View(0, dims), View(0, (Dim(1, (Term(0, 1),) * terms),)))
        body = Expression(views, (0,) * immediates, results=(0,))
        return Node(Kind.MAP, DType.F32, (1,), expression=body)

    sizes = {len_of(node(i, t)): node(i, t) for i in range(33) for t in range(17)}
    assert MAX_NODE_BYTES in sizes
    assert decode_node(encode_node(sizes[MAX_NODE_BYTES])) == sizes[MAX_NODE_BYTES]
    with pytest.raises(ProgramError, match="1025 bytes, at most 1024"):
        encode_node(sizes[MAX_NODE_BYTES + 1])
    with pytest.raises(ProgramError, match="1025 bytes for a node"):
        decode_node(bytes(1025))


def len_of(node: Node) -> int:
    body = node.expression
    assert body is not None
    dims = [dim for view in body.operands if isinstance(view, View) for dim in view.dims]
    terms = sum(len(dim.terms) for dim in dims)
    return (
        7 + 1 + 10 * len(body.operands) + 21 * len(dims) + 5 * terms + 3 + 4 * len(body.immediates)
    )


# Whole programs


def test_program_root_is_the_rfc_9162_root_of_the_encodings() -> None:
    def root(leaves: list[bytes]) -> bytes:
        if len(leaves) == 1:
            return sha256(b"\x00" + leaves[0]).digest()
        k = 1 << (len(leaves) - 1).bit_length() - 1
        return sha256(b"\x01" + root(leaves[:k]) + root(leaves[k:])).digest()

    for build in HAND_BUILT.values():
        program = build()
        assert program_root(program) == root([encode_node(node) for node in program.nodes])


def test_program_root_ignores_names() -> None:
    program = adder()
    assert program_root(replace(program, names={}, state_names=())) == program_root(program)


@pytest.mark.parametrize("build", HAND_BUILT.values(), ids=HAND_BUILT)
def test_program_file_round_trips_with_names(build: object) -> None:
    program = build()  # type: ignore[operator]
    loaded = load(dump(program))
    assert loaded == program
    assert (loaded.names, loaded.state_names) == (program.names, program.state_names)
    assert dump(loaded) == dump(program)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_hostile_program_file_raises_nothing_but_program_error(data: st.DataObject) -> None:
    artifact = bytearray(dump(matmul()))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, 29), st.integers(0, len(artifact) - 1)))
        artifact[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(artifact)), st.integers(0, len(artifact))))
    try:
        program = load(bytes(artifact[:cut]))
    except ProgramError:
        return
    assert load(dump(program)) == program


def test_every_truncation_of_a_program_file_is_refused() -> None:
    artifact = dump(adder())
    for length in range(len(artifact)):
        with pytest.raises(ProgramError):
            load(artifact[:length])
    with pytest.raises(ProgramError):
        load(artifact + b" ")


def with_names(program: Program, blob: bytes) -> bytes:
    artifact = dump(replace(program, names={}, state_names=()))
    nodes = artifact[30 : -len(b'{"nodes":{},"state":[]}')]
    return artifact[:26] + len(blob).to_bytes(4, "big") + nodes + blob


def test_helper_rebuilds_a_program_file_with_other_names() -> None:
    blob = json.dumps({"nodes": {"x": 1}, "state": ["w"]}).encode()
    program = load(with_names(adder(), blob))
    assert (program.names, program.state_names) == ({"x": 1}, ("w",))


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"[]",
        b'{"nodes":{}}',
        b'{"nodes":{},"state":[],"more":1}',
        b'{"nodes":[],"state":[]}',
        b'{"nodes":{"x":99},"state":[]}',
        b'{"nodes":{"x":-1},"state":[]}',
        b'{"nodes":{"x":true},"state":[]}',
        b'{"nodes":{"x":1.0},"state":[]}',
        b'{"nodes":{},"state":["a","b"]}',
        b'{"nodes":{},"state":[1]}',
        b'{"nodes":{},"state":[["a"]]}',
        b'{"nodes":{},"state":["\\u001b[31m"]}',
        b'{"nodes":{},"state":["\\ud800"]}',
        b'{"nodes":{},"state":["' + b"a" * 513 + b'"]}',
        b"[" * 100_000,
        b'{"nodes":{"x":' + b"9" * 5000 + b'},"state":[]}',
        b"\xff",
    ],
)
def test_hostile_names_are_refused(blob: bytes) -> None:
    with pytest.raises(ProgramError, match="name"):
        load(with_names(adder(), blob))


@pytest.mark.parametrize(
    ("at", "count", "message"),
    [
        (10, 0, "0 nodes"),
        (10, 65_537, "65537 nodes"),
        (10, 65_536, "truncated|not a"),
        (14, 0, "n_state 0"),
        (14, 9, "n_state 9"),
        (18, 4097, "n_const 4097"),
        (22, 0xFFFFFFFF, "n_data 4294967295"),
        (26, 0xFFFFFFFF, "4294967295 bytes of names"),
        (8, 0x00020000, "not a program file of version 1"),
    ],
)
def test_program_file_with_impossible_counts_is_refused(at: int, count: int, message: str) -> None:
    artifact = bytearray(dump(adder()))
    artifact[at : at + 4] = count.to_bytes(4, "big")
    with pytest.raises(ProgramError, match=message):
        load(bytes(artifact))


def test_dump_refuses_what_load_would_refuse() -> None:
    for bad in (
        replace(adder(), names={"x": 99}),
        replace(adder(), state_names=("a", "b")),
        replace(adder(), state_names=("\n",)),
        replace(adder(), n_state=0),
        replace(adder(), n_data=5000),
        Program((), 1),
    ):
        with pytest.raises(ProgramError):
            dump(bad)
