# SPDX-License-Identifier: GPL-3.0-or-later
"""Posted words are committed and shown alike in Python and in Solidity, and nothing else is."""

from __future__ import annotations

from typing import Any

import eth_abi
import pytest
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from protocol.word_tree import Excerpt, WordTree, packed
from scripts.solc import CONTRACTS, compile_contracts
from tests.game_driver import LoggingEvm, abi_type

PATTERN = st.integers(0, 2**32 - 1)
WORDS = st.lists(PATTERN, min_size=1, max_size=256)
JUNK = b"\x99" * 32


class Harness:
    def __init__(self) -> None:
        compiled = compile_contracts([CONTRACTS / "mocks" / "WordTreeHarness.sol"])
        self.abi = {item["name"]: item for item in compiled["WordTreeHarness"]["abi"]}
        self.evm = LoggingEvm()
        code = bytes.fromhex(compiled["WordTreeHarness"]["bytecode"][2:])
        self.address = self.evm.deploy(code)

    def call(self, name: str, *args: Any) -> tuple[Any, ...]:
        item = self.abi[name]
        types = [abi_type(part) for part in item["inputs"]]
        selector = keccak(text=f"{name}({','.join(types)})")[:4]
        output, _ = self.evm.call(
            self.address, selector + eth_abi.encode(types, list(args)), keep=False
        )
        return eth_abi.decode([abi_type(part) for part in item["outputs"]], output)

    def show(self, tree: WordTree, count: int, index: int, shown: Excerpt) -> tuple[Any, ...]:
        return self.call(
            "show", tree.root, count, index, shown.before, shown.eight, list(shown.path)
        )


@pytest.fixture(scope="module")
def harness() -> Harness:
    return Harness()


@given(WORDS, PATTERN)
def test_roots_are_pythons_whatever_lies_in_memory(
    harness: Harness, values: list[int], before: int
) -> None:
    data = packed(values)
    assert harness.call("root", data, before) == (WordTree(data, before).root, bytes(32))


@given(WORDS, PATTERN, st.integers(0, 255))
def test_any_word_is_shown_with_the_one_before_it(
    harness: Harness, values: list[int], before: int, index: int
) -> None:
    index %= len(values)
    tree = WordTree(packed(values), before)
    previous = values[index - 1] if index else before
    shown = tree.show(index)
    assert harness.show(tree, len(values), index, shown) == (True, previous, values[index])


@pytest.mark.parametrize("count", [1, 2, 8, 9, 16, 17, 100, 255, 256])
def test_nothing_but_the_posted_words_can_be_shown(harness: Harness, count: int) -> None:
    tree = WordTree(packed([7919 * i for i in range(count)]), 5)
    refused = (False, 0, 0)
    places = {0, 1, 7, 8, count // 2, count - 9, count - 1}
    for index in places & set(range(count)):
        shown = tree.show(index)
        forged = [
            Excerpt(shown.before ^ 1, shown.eight, shown.path),
            Excerpt(shown.before, bytes([shown.eight[0] ^ 1]) + shown.eight[1:], shown.path),
            Excerpt(shown.before, shown.eight[:-1] + bytes([shown.eight[-1] ^ 1]), shown.path),
            Excerpt(shown.before, shown.eight, (*shown.path, JUNK)),
            *(
                Excerpt(shown.before, shown.eight, (*shown.path[:h], JUNK, *shown.path[h + 1 :]))
                for h in range(len(shown.path))
            ),
        ]
        if shown.path:
            forged.append(Excerpt(shown.before, shown.eight, shown.path[:-1]))
        for excerpt in forged:
            assert not harness.show(tree, count, index, excerpt)[0]
        # The words are at their place and at no other.
        other = (index + 8) % count
        if other // 8 != index // 8:
            assert not harness.show(tree, count, other, shown)[0]
    for index in (count, count + 8, 2**256 - 1):
        assert harness.show(tree, count, index, tree.show(count - 1)) == refused
