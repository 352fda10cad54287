# SPDX-License-Identifier: GPL-3.0-or-later
"""`Float32.sol` and `Primitives.sol` against the machine and the Python definition."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from eth_utils.crypto import keccak

from protocol.ops import Op
from tests import float_vectors as vectors
from tests.evm import EvmReverted
from tests.float_anvil import FloatsOnAnvil, floats_on_anvil
from tests.float_harness import Harness, in_python

ARITHMETIC = (Op.ADD, Op.SUB, Op.MUL, Op.FMA, Op.DIV, Op.SQRT)
UNKNOWN_PRIMITIVE = keccak(b"UnknownPrimitive(uint8)")[:4]
RAGGED_OPERANDS = keccak(b"RaggedOperands(uint256,uint256)")[:4]


@pytest.fixture(scope="module")
def harness() -> Harness:
    return Harness()


@pytest.fixture(scope="module")
def anvil() -> Iterator[FloatsOnAnvil]:
    with floats_on_anvil() as contract:
        yield contract


@pytest.mark.parametrize("op", Op, ids=lambda op: op.name)
def test_every_tuple_of_special_operands_agrees_with_the_machine(
    anvil: FloatsOnAnvil, op: Op
) -> None:
    columns = vectors.grid(vectors.arity(op), wide=False)
    results = anvil.batch(op, columns)
    assert not vectors.mismatch(op, columns, results, vectors.expected(op, columns))


@pytest.mark.parametrize("op", Op, ids=lambda op: op.name)
def test_random_operands_agree_with_the_definition(anvil: FloatsOnAnvil, op: Op) -> None:
    columns = vectors.random_columns(op, 10_000, seed=11)
    results = anvil.batch(op, columns)
    assert not vectors.mismatch(op, columns, results, in_python(op, columns))


@pytest.mark.parametrize("op", [Op.ADD, Op.SUB, Op.FMA], ids=lambda op: op.name)
def test_cancelling_operands_agree_with_the_definition(anvil: FloatsOnAnvil, op: Op) -> None:
    columns = vectors.cancelling_columns(op, 10_000, seed=17)
    results = anvil.batch(op, columns)
    assert not vectors.mismatch(op, columns, results, in_python(op, columns))


def test_quotients_just_above_a_tie_agree_with_the_definition(anvil: FloatsOnAnvil) -> None:
    rows = np.array(vectors.HARD_QUOTIENTS, dtype=np.uint32)
    columns = [np.ascontiguousarray(rows[:, position]) for position in range(2)]
    results = anvil.batch(Op.DIV, columns)
    assert not vectors.mismatch(Op.DIV, columns, results, in_python(Op.DIV, columns))


def test_terms_at_every_distance_agree_with_the_definition(anvil: FloatsOnAnvil) -> None:
    columns = vectors.meeting_columns()
    results = anvil.batch(Op.FMA, columns)
    assert not vectors.mismatch(Op.FMA, columns, results, in_python(Op.FMA, columns))


def test_arity_agrees_for_every_byte(harness: Harness) -> None:
    known = {int(op) for op in Op}
    for byte in range(256):
        if byte in known:
            assert harness.arity(byte) == vectors.arity(Op(byte))
            continue
        with pytest.raises(EvmReverted) as refusal:
            harness.arity(byte)
        assert refusal.value.output == UNKNOWN_PRIMITIVE + byte.to_bytes(32, "big")


def test_execute_unknown_byte_reverts(harness: Harness) -> None:
    for byte in set(range(256)) - {int(op) for op in Op}:
        with pytest.raises(EvmReverted) as refusal:
            harness.call("execute(uint8,uint32,uint32,uint32)", byte, 1, 2, 3)
        assert refusal.value.output == UNKNOWN_PRIMITIVE + byte.to_bytes(32, "big")


def test_batch_ragged_operands_reverts(harness: Harness) -> None:
    with pytest.raises(EvmReverted) as refusal:
        harness.batch(Op.ADD, [np.array([1], dtype=np.uint32)])
    assert refusal.value.selector == RAGGED_OPERANDS


@pytest.mark.gas
@pytest.mark.parametrize("op", ARITHMETIC, ids=lambda op: op.name)
def test_gas_of_a_primitive(
    harness: Harness, op: Op, gas_snapshot: Callable[[str, int], None]
) -> None:
    columns = vectors.random_columns(op, 40, seed=13)
    used = [harness.measure(op, *map(int, row))[1] for row in zip(*columns, strict=True)]
    gas_snapshot(f"primitive {op.name}, the dearest of 40", max(used))


@pytest.mark.gas
@pytest.mark.parametrize("op", [Op.ADD, Op.SUB, Op.FMA], ids=lambda op: op.name)
def test_gas_of_cancelling_operands(
    harness: Harness, op: Op, gas_snapshot: Callable[[str, int], None]
) -> None:
    """What no shortcut helps; zeros, subnormals, NaNs and infinities are among the operands."""
    columns = vectors.cancelling_columns(op, 40, seed=13)
    used = [harness.measure(op, *map(int, row))[1] for row in zip(*columns, strict=True)]
    gas_snapshot(f"primitive {op.name}, the dearest of 40 that cancel", max(used))


@pytest.mark.gas
@pytest.mark.parametrize(
    "operands",
    [
        (0x3F800001, 0x3F9ABCDE, 0x40490FDB),
        (0x3D000001, 0xBF9ABCDE, 0x40490FDB),  # unlike signs
        (0x3D123456, 0x3C7ABCDE, 0x44490FDB),  # the accumulator is far the larger
    ],
)
def test_a_chain_of_fma_costs_at_most_700_gas_a_term(
    harness: Harness,
    operands: tuple[int, int, int],
    gas_snapshot: Callable[[str, int], None],
) -> None:
    signature = "chain(uint32,uint32,uint32,uint256)"
    short, long = (harness.call(signature, *operands, count).gas_used for count in (10, 110))
    each = -(-(long - short) // 100)
    assert 0 < each <= 700
    if operands[2] == 0x40490FDB and operands[0] == 0x3F800001:
        gas_snapshot("fma", each)
