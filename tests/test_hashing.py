# SPDX-License-Identifier: GPL-3.0-or-later
"""Native tensor hashing against hashlib, and against pymerkle's independent trees."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from protocol import hashing
from protocol.errors import NumericsError
from protocol.hashing import bulk, compression, native, portable, trees
from protocol.hashing.native import NativeTrees
from protocol.tensor_tree import tensor_roots

LEAF = portable.LEAF_BYTES
BOUNDARIES = sorted(
    {LEAF * leaves + rest for leaves in (0, 1, 2, 3, 63, 64, 65, 128, 129) for rest in (0, 4, 1020)}
    - {0}
)


@pytest.fixture(scope="module")
def ours() -> NativeTrees:
    try:
        return NativeTrees()
    except NumericsError as error:
        pytest.skip(str(error))


def data_of(size: int, seed: int = 0, offset: int = 0) -> memoryview:
    """Bytes that begin `offset` bytes after an aligned place, nothing readable being promised."""
    return memoryview(np.random.default_rng(seed).bytes(size + offset))[offset:]


def oracle(data: memoryview) -> bytes:
    tree = InmemoryTree(algorithm="sha256")
    for at in range(0, len(data), LEAF):
        tree.append_entry(bytes(data[at : at + LEAF]))
    return bytes(tree.get_root())


def test_the_constants_are_those_of_the_standard() -> None:
    assert compression.INITIAL[0] == 0x6A09E667
    assert compression.INITIAL[7] == 0x5BE0CD19
    assert compression.ROUND_CONSTANTS[0] == 0x428A2F98
    assert compression.ROUND_CONSTANTS[63] == 0xC67178F2


@pytest.mark.parametrize("leaves", [*range(1, 41), 64, 65])
def test_roots_are_those_of_pymerkle(ours: NativeTrees, leaves: int) -> None:
    data = data_of(LEAF * leaves - 4 * (leaves % 3), leaves)
    assert ours.roots([data], 1) == [portable.levels(data)[-1]] == [oracle(data)]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_trees_around_every_boundary_are_those_of_hashlib(ours: NativeTrees, threads: int) -> None:
    views = [data_of(size, size, size % 3) for size in BOUNDARIES]
    wanted = [portable.levels(view) for view in views]
    assert ours.roots(views, threads) == [levels[-1] for levels in wanted]
    assert [ours.levels(view, threads) for view in views] == wanted


def test_every_length_of_the_last_leaf_is_hashed_right(ours: NativeTrees) -> None:
    views = [data_of(size, size) for size in range(4, LEAF + 1, 4)]
    assert ours.roots(views, 1) == [portable.levels(view)[-1] for view in views]


@given(st.lists(st.integers(1, 70_000), min_size=1, max_size=6), st.integers(1, 4))
def test_a_list_of_tensors_is_hashed_like_each(
    ours: NativeTrees, sizes: list[int], threads: int
) -> None:
    views = [data_of(4 * size, size) for size in sizes]
    assert ours.roots(views, threads) == [portable.levels(view)[-1] for view in views]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_large_tensors_are_shared_among_threads(ours: NativeTrees, threads: int) -> None:
    data = data_of((1 << 23) + 12)
    wanted = portable.levels(data)
    assert ours.levels(data, threads) == wanted
    assert ours.roots([data, data[: 1 << 22], data[4:]], threads) == [
        wanted[-1], portable.levels(data[: 1 << 22])[-1], portable.levels(data[4:])[-1],
    ]  # fmt: skip


def test_calls_from_several_threads_do_not_meet(ours: NativeTrees) -> None:
    views = [data_of(300_000, seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda view: ours.roots([view], 2)[0], views))
    assert found == [portable.levels(view)[-1] for view in views]


def test_hashing_lets_other_threads_run(ours: NativeTrees) -> None:
    data, during = data_of(1 << 25), threading.Event()
    worker = threading.Thread(target=lambda: (ours.roots([data], 1), during.set()))
    worker.start()
    turns = 0
    while not during.is_set():
        turns += 1
    worker.join()
    assert turns > 1


def test_without_native_code_the_bytes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    views = [data_of(size, size) for size in BOUNDARIES]
    meter = bulk._Meter()
    meter.choose(bulk.PATIENCE)
    monkeypatch.setattr(bulk, "_METER", meter)
    loaded = hashing.roots(views), hashing.levels(views[-1])
    monkeypatch.setattr(native, "load", lambda: None)
    assert (hashing.roots(views), hashing.levels(views[-1])) == loaded


def test_little_data_never_loads_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_METER", bulk._Meter())
    monkeypatch.setattr(native, "load", lambda: pytest.fail("loaded"))
    assert hashing.roots([data_of(4096)]) == [portable.levels(data_of(4096))[-1]]


def test_native_code_that_hashes_wrongly_is_not_used(
    ours: NativeTrees, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = trees.trees_text

    def wrong(attributes: str) -> str:
        return text(attributes).replace(str(compression.ROUND_CONSTANTS[37]), "1")

    monkeypatch.setattr(trees, "trees_text", wrong)
    with pytest.raises(NumericsError, match="differs from hashlib"):
        native.self_check(NativeTrees())
    assert native.load.__wrapped__() is None


def test_a_tensor_that_occurs_twice_has_one_root() -> None:
    tensor = np.arange(600, dtype=np.uint32)
    first, second, third = tensor_roots([tensor, tensor[:300].copy(), tensor], threads=2)
    assert first == third == portable.levels(memoryview(tensor).cast("B"))[-1]
    assert second == portable.levels(memoryview(tensor[:300].copy()).cast("B"))[-1]
    assert tensor_roots([]) == []
