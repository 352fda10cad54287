# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs as bytes: the root that names a program, and the artifact file that carries it.

Artifact file: `"BITCOURT" ‖ u16 version ‖ u32 n_nodes, n_state, n_const, n_data, name_bytes`, then
per node `u16 length ‖ encoding`, then `name_bytes` of JSON with names for people. The names are not
part of the program root, and whoever trusts the root trusts nothing about them.
"""

from __future__ import annotations

import json
import re
import struct
from typing import Final

from protocol import merkle
from protocol.errors import ProgramError
from protocol.node_encoding import MAX_NODE_BYTES, decode_node, encode_node
from protocol.program import Program

__all__ = [
    "MAX_NODES",
    "MAX_NODE_BYTES",
    "MAX_TENSORS",
    "decode_node",
    "dump",
    "encode_node",
    "encode_nodes",
    "load",
    "load_encodings",
    "program_root",
]

MAX_NODES: Final = 65_536
MAX_TENSORS: Final = 4096
"""Limit of each of n_state, n_const and n_data."""
MAX_NAME_BYTES: Final = 1 << 24
MAX_NAME_LENGTH: Final = 512

MAGIC: Final = b"BITCOURT"
VERSION: Final = 1

_HEADER: Final = struct.Struct(">8sHIIIII")


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
        MAGIC,
        VERSION,
        len(program.nodes),
        program.n_state,
        program.n_const,
        program.n_data,
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
    encodings, (n_state, n_const, n_data), blob = _split(data)
    nodes = []
    for number, encoding in enumerate(encodings):
        try:
            nodes.append(decode_node(encoding))
        except ProgramError as error:
            raise ProgramError(f"node {number}: {error}") from error
    names, state_names = _read_names(blob)
    program = Program(tuple(nodes), n_state, n_const, n_data, names, state_names)
    _check_names(program)
    return program


def load_encodings(data: bytes) -> list[bytes]:
    """Return what stands for the nodes in the artifact file `data`, right or wrong.

    Raises ProgramError if `data` is no such file.
    """
    return _split(data)[0]


def _split(data: bytes) -> tuple[list[bytes], tuple[int, int, int], bytes]:
    """Encodings of the nodes, then n_state, n_const and n_data, then names; none of them read."""
    if len(data) < _HEADER.size:
        raise ProgramError(f"{len(data)} bytes are too few for a program file")
    magic, version, n_nodes, n_state, n_const, n_data, name_bytes = _HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise ProgramError(f"not a program file of version {VERSION}")
    _check_counts(n_nodes, n_state, n_const, n_data)
    end = len(data) - name_bytes
    if name_bytes > MAX_NAME_BYTES or end < _HEADER.size:
        raise ProgramError(f"{name_bytes} bytes of names in a file of {len(data)} bytes")
    encodings, at = [], _HEADER.size
    for number in range(n_nodes):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if max(start, at) > end:
            raise ProgramError(f"node {number}: the program file is truncated")
        encodings.append(data[start:at])
    if at != end:
        raise ProgramError(f"{end - at} bytes follow the last node of the program file")
    return encodings, (n_state, n_const, n_data), data[end:]


def _check_counts(n_nodes: int, n_state: int, n_const: int, n_data: int) -> None:
    if not 1 <= n_nodes <= MAX_NODES:
        raise ProgramError(f"{n_nodes} nodes, a program has 1 to {MAX_NODES}")
    if not 1 <= n_state <= min(n_nodes, MAX_TENSORS):
        raise ProgramError(f"n_state {n_state} is not in 1..{min(n_nodes, MAX_TENSORS)}")
    for what, count in (("n_const", n_const), ("n_data", n_data)):
        if not 0 <= count <= MAX_TENSORS:
            raise ProgramError(f"{what} {count} is not in 0..{MAX_TENSORS}")


JSON_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')


def _read_names(blob: bytes) -> tuple[dict[str, int], tuple[str, ...]]:
    # Deep nesting overflows the C stack of the JSON parser where a library has raised Python's
    # recursion limit, as py-evm does. What is looked for nests two deep, with three openings.
    if len(re.findall(rb"[\[{]", JSON_STRING.sub(b"", blob))) > 3:
        raise ProgramError('the names of the program file are not {"nodes": .., "state": ..}')
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
