# SPDX-License-Identifier: GPL-3.0-or-later
"""Size and gas of contracts/Referee.sol, also when there is too little of it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from eth_utils.crypto import keccak

from protocol.encoding import encode_node
from protocol.merkle import leaf_hash, node_hash, verify_inclusion
from protocol.one_step import Context, Proof, ProofKind, Question
from protocol.ops import Op
from protocol.program import DType, Flat, Kind, Node
from scripts.solc import CONTRACTS, compile_contracts
from tests.disputed import (
    OnChain,
    pack,
    type_of,
)
from tests.evm import EvmReverted
from tests.hand_built import along, expression

EIP_170_LIMIT = 24_576
I32 = DType.I32
ZERO = bytes(32)


@pytest.fixture(scope="module")
def referee() -> OnChain:
    return OnChain()


def deep_proof(rng: random.Random) -> tuple[Context, Question, Proof]:
    """A lie about a MAP of 2^16 chunks in a trace of 4,096 nodes, at the costliest places."""
    numel, n_nodes = 256 << 16, 1 << 12
    values = pack([0x40490FDB, 0x3F800000, 0x40849BA6])
    body = expression([Flat(1234), Flat(1235)], (Op.ADD, (0, 1)))
    node = Node(Kind.MAP, DType.F32, (256, 256, 256), expression=body)
    element = 0xABCDEF
    chunk = rng.randbytes(1024)

    def climb(leaf: bytes, index: int, depth: int) -> tuple[bytes, tuple[bytes, ...]]:
        siblings = tuple(rng.randbytes(32) for _ in range(depth))
        for level, sibling in enumerate(siblings):
            right = index >> level & 1
            leaf = node_hash(sibling, leaf) if right else node_hash(leaf, sibling)
        return leaf, siblings

    root, chunk_proof = climb(leaf_hash(chunk), element // 256, 16)
    trace, root_proof = climb(leaf_hash(root), 1234, 12)
    assert verify_inclusion(trace, n_nodes, 1234, leaf_hash(root), root_proof)
    assert node.numel == numel
    context = Context(*[rng.randbytes(32) for _ in range(6)], 10**6, 64, n_nodes, 200, 8, 4)
    question = Question(
        rng.randbytes(32), trace, rng.randbytes(32), keccak(values), 10**6 + 5, element, 0, 2222,
        0x40849BA6, 0, 0,
    )  # fmt: skip
    proof = Proof(
        ProofKind.OPERAND, 0, encode_node(node), values, chunk, root, chunk_proof, root_proof
    )
    return context, question, proof


def transaction_gas(calldata: bytes, execution: int) -> int:
    """EIP-7623: calldata is paid at 4 and 16 gas a byte, or at the floor of 10 and 40."""
    tokens = sum(1 if byte == 0 else 4 for byte in calldata)
    return 21_000 + max(4 * tokens + execution, 10 * tokens)


@pytest.mark.gas
def test_a_deep_one_step_proof_costs_less_than_130k_gas(
    referee: OnChain, gas_snapshot: Callable[[str, int], None]
) -> None:
    context, question, proof = deep_proof(random.Random(10))
    harness = compile_contracts([CONTRACTS / "mocks" / "RefereeHarness.sol"])["RefereeHarness"]
    address = referee.evm.deploy(
        bytes.fromhex(harness["bytecode"][2:]), ZERO[:12] + referee.address
    )
    item = next(i for i in harness["abi"] if i.get("name") == "prove")
    arguments = (context.as_abi(), question.as_abi(), proof.as_abi())
    data = referee.encode("convicts", *arguments)
    signature = ",".join(type_of(part) for part in item["inputs"])
    selector = keccak(f"prove({signature})".encode())[:4]
    result = referee.evm.call(address, selector + data[4:], keep=False)
    assert int.from_bytes(result.output, "big") == 1
    direct = referee.send("convicts", *arguments).gas_used
    # The game's `prove` has the id and the digest of the position in the place of the question.
    from_game = data[:4] + data[4 : 4 + 12 * 32] + data[4 + 21 * 32 :]
    total = transaction_gas(from_game, result.gas_used)
    gas_snapshot("Referee: convicts, one chunk at depth 16, trace depth 12", direct)
    assert result.gas_used < 40_000
    assert total < 130_000, (result.gas_used, total)


@pytest.mark.gas
def test_facts_and_lanes_are_cheap(
    referee: OnChain, gas_snapshot: Callable[[str, int], None]
) -> None:
    body = expression(
        [along(0, (64, 64, 3, 3), (1, 2, 3, 4)) for _ in range(3)],
        *[(Op.FMA, (0, 1, 2))] * 20,
        immediates=[0] * 5,
    )
    node = Node(Kind.MAP, DType.F32, (8, 64, 64, 3, 3), expression=body)
    facts = referee.send("facts", encode_node(node)).gas_used
    gas_snapshot("Referee: facts, 3 views and 20 primitives", facts)
    lanes = pack([0x3F800000 + 977 * i for i in range(16)])
    gas_snapshot("Referee: combineLanes", referee.send("combineLanes", 1, 99, lanes).gas_used)


def test_code_fits_into_a_contract(referee: OnChain) -> None:
    assert len(referee.code) < EIP_170_LIMIT


def test_starving_the_referee_of_gas_never_changes_a_verdict(referee: OnChain) -> None:
    """Attack 14: at every gas limit the call runs out or says what it says with plenty."""
    context, question, proof = deep_proof(random.Random(11))
    arguments = (context.as_abi(), question.as_abi(), proof.as_abi())
    enough = referee.send("convicts", *arguments).gas_used
    completed = 0
    for gas in [*range(0, enough, 997), *range(enough - 300, enough + 300, 23)]:
        try:
            output = referee.send("convicts", *arguments, gas=gas).output
        except EvmReverted:
            continue
        assert int.from_bytes(output, "big") == 1
        completed += 1
    assert completed
