# SPDX-License-Identifier: GPL-3.0-or-later
"""`isFaulty`: every broken node is found, and no node of a valid program ever is."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import faults
from protocol.encoding import encode_nodes
from protocol.errors import ProgramError
from protocol.node_encoding import decode_node, encode_node
from protocol.ops import Op
from protocol.program import Dim, Expression, Flat, Instruction, Program, Term, View
from protocol.validate import validate
from tests.disputed import OnChain
from tests.evm import EvmReverted
from tests.faulty import FAULTS, MAP_NODE, PROGRAM, counts
from tests.hand_built import HAND_BUILT
from tests.programs import programs


@functools.cache
def referee() -> OnChain:
    """Made when a test asks for it: the mutation test switches a mutant on after all imports."""
    return OnChain()


def is_faulty(node: bytes, index: int, program: Program) -> bool:
    """As the market reads it: an error with a name is a fault too."""
    try:
        (answer,) = referee().call("isFaulty", node, index, *counts(program))
    except EvmReverted as error:
        return len(error.output) >= 4
    return bool(answer)


def agree(node: bytes, index: int, program: Program) -> bool:
    """Whether a node is faulty, as the contract and the agents say alike."""
    answer = is_faulty(node, index, program)
    assert faults.is_faulty(node, index, faults.Counts(*counts(program))) == answer
    return answer


def is_refused(node: bytes, index: int, program: Program) -> bool:
    """Whether honest parties refuse the program with this node in that place."""
    nodes = [*program.nodes]
    try:
        nodes[index] = decode_node(node)
        validate(replace(program, nodes=tuple(nodes), names={}))
    except ProgramError:
        return True
    return False


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_node_is_a_fault_and_honest_parties_refuse_it(name: str) -> None:
    index, node = FAULTS[name]
    assert agree(node, index, PROGRAM)
    assert is_refused(node, index, PROGRAM)


@pytest.mark.parametrize("name", HAND_BUILT)
def test_no_node_of_a_hand_built_program_is_faulty(name: str) -> None:
    program = HAND_BUILT[name]()
    for index, node in enumerate(encode_nodes(program)):
        assert not agree(node, index, program)


def test_a_node_of_exactly_1024_bytes_is_no_fault() -> None:
    terms = tuple(Term(0, 1) for _ in range(16))
    views = [
        View(0, tuple(Dim(3, terms[:n]) for n in counted))
        for counted in ((16, 16, 16, 16, 11), (16, 16, 16))
    ]
    body = Expression(
        (*views, *[Flat(0)] * 6), (0,) * 31, (Instruction(Op.ADD, (0, 1)),) * 13, (0,)
    )
    node = encode_node(replace(MAP_NODE, expression=body))
    assert len(node) == 1024
    assert not agree(node, 2, PROGRAM)
    with pytest.raises(ProgramError, match="1028"):
        encode_node(replace(MAP_NODE, expression=replace(body, immediates=(0,) * 32)))


@given(program=programs())
def test_no_node_of_a_valid_program_is_faulty(program: Program) -> None:
    for index, node in enumerate(encode_nodes(program)):
        assert not agree(node, index, program)


@given(program=programs(), data=st.data())
def test_a_node_that_is_faulty_is_refused_by_honest_parties(
    program: Program, data: st.DataObject
) -> None:
    nodes = encode_nodes(program)
    index = data.draw(st.integers(0, len(nodes) - 1), "index")
    node = bytearray(nodes[index])
    for _ in range(data.draw(st.integers(1, 2), "changes")):
        place = data.draw(st.integers(0, len(node) - 1), "place")
        small = st.integers(0, 40)  # of which more stay encodings
        node[place] = data.draw(st.one_of(small, st.integers(0, 255)), "byte")
    if agree(bytes(node), index, program):
        assert is_refused(bytes(node), index, program)


@given(program=programs(), data=st.data())
def test_what_is_no_encoding_is_faulty(program: Program, data: st.DataObject) -> None:
    nodes = encode_nodes(program)
    index = data.draw(st.integers(0, len(nodes) - 1), "index")
    node = nodes[index]
    cut = data.draw(st.integers(0, len(node) - 1), "cut")
    more = data.draw(st.binary(min_size=1, max_size=8), "more")
    for wrong in (node[:cut], node + more):
        assert agree(wrong, index, program)


@given(program=programs(), data=st.data())
def test_a_node_in_another_nodes_place_is_faulty_or_reads_only_what_is_before_it(
    program: Program, data: st.DataObject
) -> None:
    nodes = encode_nodes(program)
    index = data.draw(st.integers(0, len(nodes) - 1), "index")
    place = data.draw(st.integers(0, len(nodes) - 1), "place")
    is_output = index >= len(nodes) - program.n_state
    must_be = place >= len(nodes) - program.n_state
    if is_output != must_be:
        assert agree(nodes[index], place, program)
    elif place >= index:
        assert not agree(nodes[index], place, program)  # it reads nothing later than before
