# SPDX-License-Identifier: GPL-3.0-or-later
"""contracts/lib/Merkle.sol against protocol/merkle.py, its refusals and its gas."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from protocol import merkle
from protocol.merkle import Tree
from scripts.solc import CONTRACTS, compile_contracts
from tests.evm import DEFAULT_GAS, Evm, EvmReverted

LEAVES = [merkle.leaf_hash(i.to_bytes(4, "big")) for i in range(70_000)]
HUGE = 2**256 - 1


@cache
def tree(size: int) -> Tree:
    return Tree(LEAVES[:size])


class Harness:
    """MerkleHarness on a bare EVM, called by function name."""

    def __init__(self) -> None:
        contract = compile_contracts([CONTRACTS / "mocks" / "MerkleHarness.sol"])["MerkleHarness"]
        self.evm = Evm()
        self.address = self.evm.deploy(bytes.fromhex(contract["bytecode"][2:]))
        self.functions = {item["name"]: item for item in contract["abi"] if "name" in item}

    def encode(self, name: str, *arguments: object) -> bytes:
        types = [item["type"] for item in self.functions[name]["inputs"]]
        return keccak(f"{name}({','.join(types)})".encode())[:4] + encode(types, arguments)

    def call(self, name: str, *arguments: object, gas: int = DEFAULT_GAS) -> tuple[Any, ...]:
        data = self.encode(name, *arguments)
        output = self.evm.call(self.address, data, keep=False, gas=gas).output
        return decode([item["type"] for item in self.functions[name]["outputs"]], output)

    def includes(self, *arguments: object, gas: int = DEFAULT_GAS) -> bool:
        return bool(self.call("verifyInclusion", *arguments, gas=gas)[0])

    def extends(self, *arguments: object) -> bool:
        return bool(self.call("verifyConsistency", *arguments)[0])


@pytest.fixture(scope="module")
def harness() -> Harness:
    return Harness()


def selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


def error(signature: str, *arguments: int) -> bytes:
    return selector(signature) + b"".join(value.to_bytes(32, "big") for value in arguments)


def test_leaf_and_node_hashes_are_those_of_python(harness: Harness) -> None:
    for length in (0, 1, 3, 31, 32, 33, 63, 64, 65, 1020, 1024, 5000):
        data = random.Random(length).randbytes(length)
        assert harness.call("leafHash", data) == (merkle.leaf_hash(data),)
    a, b = b"\xff" * 32, sha256(b"b").digest()
    assert harness.call("leafHash32", b) == (merkle.leaf_hash(b),)
    assert harness.call("leafHash64", a, b) == (merkle.leaf_hash(a + b),)
    assert harness.call("nodeHash", a, b) == (merkle.node_hash(a, b),)


def test_every_inclusion_proof_up_to_20_leaves_verifies(harness: Harness) -> None:
    for size in range(1, 21):
        for index in range(size):
            proof = tree(size).inclusion_proof(index)
            assert harness.includes(tree(size).root, size, index, LEAVES[index], proof)


def test_every_consistency_proof_up_to_20_leaves_verifies(harness: Harness) -> None:
    for new in range(1, 21):
        for old in range(1, new + 1):
            proof = tree(new).consistency_proof(old)
            assert harness.extends(tree(old).root, old, tree(new).root, new, proof)


@given(st.integers(1, 3000), st.data())
def test_large_trees_verify_and_forks_do_not(
    harness: Harness, size: int, data: st.DataObject
) -> None:
    whole = Tree(LEAVES[:size])
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    proof = whole.inclusion_proof(index)
    assert harness.includes(whole.root, size, index, LEAVES[index], proof)
    proof, old_root = whole.consistency_proof(old), whole.subtree_root(0, old)
    assert harness.extends(old_root, old, whole.root, size, proof)
    forked = Tree([merkle.leaf_hash(b"fork"), *LEAVES[1:size]])
    assert not harness.extends(old_root, old, forked.root, size, forked.consistency_proof(old))


def corrupt(hashes: list[bytes], data: st.DataObject) -> list[bytes]:
    """Change a list of hashes in one of the ways a cheater would."""
    kind = data.draw(st.sampled_from(["flip", "drop", "add", "swap", "keep"]))
    if kind == "add":
        place = data.draw(st.integers(0, len(hashes)))
        return [*hashes[:place], data.draw(st.sampled_from(LEAVES[:4])), *hashes[place:]]
    if not hashes or kind == "keep":
        return hashes
    place = data.draw(st.integers(0, len(hashes) - 1))
    if kind == "drop":
        return [*hashes[:place], *hashes[place + 1 :]]
    if kind == "swap":
        return [*hashes[place:], *hashes[:place]]
    bit = data.draw(st.integers(0, 255))
    changed = (int.from_bytes(hashes[place], "big") ^ (1 << bit)).to_bytes(32, "big")
    return [*hashes[:place], changed, *hashes[place + 1 :]]


@given(st.integers(1, 300), st.data())
def test_corrupted_inclusion_proof_never_verifies(
    harness: Harness, size: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, size - 1))
    root, leaf, proof = tree(size).root, LEAVES[index], tree(size).inclusion_proof(index)
    for _ in range(4):
        changed = corrupt(proof, data)
        assert harness.includes(root, size, index, leaf, changed) == (changed == proof)
    (flipped,) = corrupt_one(root, data)
    assert not harness.includes(flipped, size, index, leaf, proof)
    (flipped,) = corrupt_one(leaf, data)
    assert not harness.includes(root, size, index, flipped, proof)
    other = data.draw(st.integers(0, size + 1).filter(lambda value: value != index))
    for place in (other, index + (1 << data.draw(st.integers(9, 255)))):
        assert not harness.includes(root, size, place, leaf, proof)
    for claimed in (0, index, HUGE, data.draw(st.integers(1, 2**256 - 1))):
        expected = merkle.verify_inclusion(root, claimed, index, leaf, proof)
        assert harness.includes(root, claimed, index, leaf, proof) == expected


def corrupt_one(value: bytes, data: st.DataObject) -> list[bytes]:
    bit = data.draw(st.integers(0, 255))
    return [(int.from_bytes(value, "big") ^ (1 << bit)).to_bytes(32, "big")]


@given(st.integers(2, 300), st.data())
def test_corrupted_consistency_proof_never_verifies(
    harness: Harness, new: int, data: st.DataObject
) -> None:
    old = data.draw(st.integers(1, new - 1))
    old_root, new_root, proof = tree(old).root, tree(new).root, tree(new).consistency_proof(old)
    for _ in range(4):
        changed = corrupt(proof, data)
        assert harness.extends(old_root, old, new_root, new, changed) == (changed == proof)
    assert not harness.extends(*corrupt_one(old_root, data), old, new_root, new, proof)
    assert not harness.extends(old_root, old, *corrupt_one(new_root, data), new, proof)
    assert not harness.extends(old_root, 0, new_root, new, proof)
    assert not harness.extends(new_root, 0, new_root, new, [])
    assert not harness.extends(new_root, new, old_root, old, proof)
    assert not harness.extends(old_root, new, new_root, new, [])
    assert not harness.extends(new_root, new, new_root, new, proof)
    sizes = st.one_of(st.integers(0, 320), st.integers(0, HUGE))
    for _ in range(4):
        claim = (old_root, data.draw(sizes), new_root, data.draw(sizes), proof)
        assert harness.extends(*claim) == merkle.verify_consistency(*claim)


def test_proof_with_a_false_length_never_verifies(harness: Harness) -> None:
    """The missing sibling may well lie in calldata behind the proof's end: it must not be read."""
    for size in (2, 3, 8, 21, 300):
        for index in (0, 1, size // 2, size - 1):
            proof = tree(size).inclusion_proof(index)
            claim = (tree(size).root, size, index, LEAVES[index], proof)
            for data in false_lengths(harness, "verifyInclusion", claim):
                assert harness.evm.call(harness.address, data).output[:32] == bytes(32)
        for old in {1, size // 2, size - 1}:
            proof = tree(size).consistency_proof(old)
            appended = (tree(old).root, old, tree(size).root, size, proof)
            for data in false_lengths(harness, "verifyConsistency", appended):
                assert harness.evm.call(harness.address, data).output[:32] == bytes(32)


def false_lengths(harness: Harness, name: str, claim: tuple[Any, ...]) -> list[bytes]:
    """Encode a valid claim with one more hash, and with only its length word made smaller."""
    *fixed, proof = claim
    extended = harness.encode(name, *fixed, [*proof, LEAVES[0]])
    head = 4 + 32 * 5
    assert int.from_bytes(extended[head : head + 32], "big") == len(proof) + 1
    short = (len(proof) - 1).to_bytes(32, "big")
    return [extended, extended[:head] + short + extended[head + 32 :]]


def test_inclusion_verdict_for_all_small_indices_and_sizes_is_pythons(harness: Harness) -> None:
    for size in (1, 2, 3, 5, 8, 11):
        for index in range(size):
            root, leaf, proof = tree(size).root, LEAVES[index], tree(size).inclusion_proof(index)
            for claimed in range(14):
                for place in range(claimed + 1):
                    expected = merkle.verify_inclusion(root, claimed, place, leaf, proof)
                    assert harness.includes(root, claimed, place, leaf, proof) == expected


def test_huge_sizes_cost_bounded_gas_and_fail(harness: Harness) -> None:
    for index in (0, 1, HUGE - 1):
        valid, used = harness.call("verifyInclusion", LEAVES[0], HUGE, index, LEAVES[1], LEAVES[:3])
        assert not valid
        assert used < 120_000
    for old, new in ((1, HUGE), (HUGE - 1, HUGE), (2**255, HUGE)):
        arguments = (LEAVES[0], old, LEAVES[1], new, LEAVES[:3])
        valid, used = harness.call("verifyConsistency", *arguments)
        assert not valid
        assert used < 240_000


def test_a_full_height_path_verifies_at_the_largest_index(harness: Harness) -> None:
    """All 256 bits of index and size count: a leaf whose siblings are all made up on the spot."""
    for index in (0, HUGE - 1, 2**255, 2**255 - 1, 0x5555 << 240):
        last, position, node, proof = HUGE - 1, index, LEAVES[7], []
        while last:
            if position & 1 or position != last:
                sibling = sha256(node).digest()
                proof.append(sibling)
                pair = (sibling, node) if position & 1 else (node, sibling)
                node = merkle.node_hash(*pair)
            position, last = position >> 1, last >> 1
        assert merkle.verify_inclusion(node, HUGE, index, LEAVES[7], proof)
        assert harness.includes(node, HUGE, index, LEAVES[7], proof)
        assert not harness.includes(node, HUGE, index ^ (1 << 254), LEAVES[7], proof)


def test_combine_hashes_1_to_16_children_like_python(harness: Harness) -> None:
    for count in range(1, 17):
        children = LEAVES[count : 2 * count]
        expected = merkle.combine(children)
        assert harness.call("combine", children)[0] == expected
        beside = b"\xee" * 32
        result = harness.call("combineMemory", children, beside)
        assert result == (expected, tuple(children), (bytes(32), beside))


def test_memory_survives_a_mix_of_all_calls(harness: Harness) -> None:
    data, word, children = b"x" * 1001, LEAVES[5], LEAVES[:13]
    parts = [merkle.leaf_hash(data), merkle.leaf_hash(word), merkle.combine(children)]
    expected = (merkle.combine(parts), (bytes(32),) * 3)
    assert harness.call("mixed", data, word, children) == expected


@pytest.mark.parametrize("count", [0, 17, 40])
def test_combine_of_a_wrong_number_of_children_reverts(harness: Harness, count: int) -> None:
    for name, arguments in (("combine", ()), ("combineMemory", (bytes(32),))):
        with pytest.raises(EvmReverted) as caught:
            harness.call(name, LEAVES[:count], *arguments)
        assert caught.value.output == error("InvalidChildCount(uint256)", count)


@given(st.one_of(st.integers(2, 70_000), st.integers(2, HUGE)), st.integers(0, 15))
def test_opening_geometry_is_pythons(harness: Harness, leaves: int, index: int) -> None:
    block, count, _ = harness.call("opening", leaves)
    assert (block, count) == (merkle.block_size(leaves), merkle.child_count(leaves))
    for child in (index % count, count - 1):
        covered = merkle.child_leaf_count(leaves, child)
        assert harness.call("child", leaves, child) == (count, child * block, covered)


def test_opening_geometry_is_right_around_every_power_of_16(harness: Harness) -> None:
    for exponent in range(1, 64):
        for leaves in (16**exponent - 1, 16**exponent, 16**exponent + 1):
            block, count, _ = harness.call("opening", leaves)
            assert (block, count) == (merkle.block_size(leaves), merkle.child_count(leaves))
            last = (count - 1) * block
            assert harness.call("child", leaves, count - 1) == (count, last, leaves - last)


def test_opening_of_less_than_two_leaves_reverts(harness: Harness) -> None:
    for leaves in (0, 1):
        for name, arguments in (("opening", ()), ("child", (0,))):
            with pytest.raises(EvmReverted) as caught:
                harness.call(name, leaves, *arguments)
            assert caught.value.output == error("NothingToOpen(uint256)", leaves)


def test_starving_the_hash_of_gas_never_changes_a_result(harness: Harness) -> None:
    """Attack 14: at every gas limit the call reverts or answers as with plenty of gas."""
    root, leaf, proof = tree(100).root, LEAVES[37], tree(100).inclusion_proof(37)
    arguments = (root, 100, 37, leaf, proof)
    calls: list[tuple[str, tuple[object, ...]]] = [
        ("verifyInclusion", arguments),
        ("verifyInclusion", (leaf, *arguments[1:])),
        ("combine", (LEAVES[:5],)),
        ("leafHash", (b"d" * 40_000,)),
        ("nodeHash", (root, leaf)),
        ("leafHash32", (root,)),
    ]
    for name, values in calls:
        data = harness.encode(name, *values)
        enough = harness.evm.call(harness.address, data, keep=False).gas_used
        expected = harness.call(name, *values)[0]
        reverted = 0
        for gas in range(max(0, enough - 900), enough + 301, 7):
            try:
                assert harness.call(name, *values, gas=gas)[0] == expected
            except EvmReverted:
                reverted += 1
                assert gas < enough + 300  # a call of the precompile leaves a 64th behind
        assert reverted > 0


def test_hash_of_a_large_leaf_reports_that_it_ran_out_of_gas(harness: Harness) -> None:
    """Where the precompile is dear, the 64th that the caller keeps would suffice to go on."""
    data = b"d" * 200_000
    enough = harness.evm.call(harness.address, harness.encode("leafHash", data)).gas_used
    with pytest.raises(EvmReverted) as caught:
        harness.call("leafHash", data, gas=enough - 500)
    assert caught.value.output == selector("Sha256OutOfGas()")


@pytest.mark.gas
def test_gas_of_the_moves(harness: Harness, gas_snapshot: Callable[[str, int], None]) -> None:
    deep = tree(65_536)
    inclusion = (deep.root, 65_536, 0xAAAA, LEAVES[0xAAAA], deep.inclusion_proof(0xAAAA))
    appended = (deep.subtree_root(0, 1000), 1000, deep.root, 65_536, deep.consistency_proof(1000))
    figures = {
        "combine, 16 children": harness.call("combine", LEAVES[:16])[-1],
        "inclusion, depth 16": harness.call("verifyInclusion", *inclusion)[-1],
        "consistency, 1,000 to 65,536": harness.call("verifyConsistency", *appended)[-1],
        "geometry of a child": harness.call("opening", 65_536)[-1],
    }
    assert figures["combine, 16 children"] < 15 * 360
    assert figures["inclusion, depth 16"] < 16 * 340
    for name, gas in figures.items():
        gas_snapshot(f"Merkle: {name}", gas)
