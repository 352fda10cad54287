# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing that lies in a store is believed before it hashes to its root."""

from __future__ import annotations

import io
import os
import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from protocol import encoding, merkle
from protocol.commitments import state_root
from protocol.encoding import program_root
from protocol.errors import ArtifactError
from protocol.execution import Bits
from protocol.ops import Op
from protocol.program import DType, Expression, Flat, Instruction, Kind, Node, Program
from protocol.store import MAX_PROGRAM_BYTES, Store
from protocol.tensor_tree import CHUNK_ELEMENTS, chunk

LAYOUT = [(DType.F32, (2, 3)), (DType.I32, (4,)), (DType.F32, ())]
NAMES = ("model.weight", "count", "rate")


def tensors() -> list[Bits]:
    return [
        np.arange(6, dtype=np.uint32).reshape(2, 3),
        np.array([0, 1, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32),
        np.array(0x3F800000, np.uint32),
    ]


def a_program() -> Program:
    double = Expression((Flat(0),), (), (Instruction(Op.ADD, (0, 0)),), (1,))
    nodes = (
        Node(Kind.INPUT, DType.F32, (2, 3), index=0),
        Node(Kind.MAP, DType.F32, (2, 3), expression=double),
        Node(Kind.OUTPUT, DType.F32, (2, 3), index=1),
    )
    return Program(nodes, 1, state_names=("model.weight",))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def file_of(tmp_path: Path, root: bytes) -> Path:
    return tmp_path / "store" / "tensors" / f"{root.hex()}.safetensors"


@given(st.lists(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=300))
def test_every_bit_pattern_comes_back(patterns: list[int]) -> None:
    tensor = np.array([*patterns, 0x7FC00001, 0xFFFFFFFF, 0x80000000, 1], np.uint32)
    memory = Store(f"memory://{uuid.uuid4().hex}")
    layout = [(DType.F32, (tensor.size,)), (DType.I32, (tensor.size,))]
    root = memory.put_tensors([tensor, tensor], layout, ("a", "b"))
    for found in memory.get_tensors(root, layout):
        assert np.array_equal(found, tensor)


@pytest.mark.parametrize("url", ["file://{}/store", "{}/store", "memory://{}"])
def test_a_store_is_a_directory_or_a_url(url: str, tmp_path: Path) -> None:
    one, other = Store(url.format(tmp_path)), Store(url.format(tmp_path))
    root = one.put_tensors(tensors(), LAYOUT, NAMES)
    assert root == state_root(tensors())
    assert other.has_tensors(root)
    assert not other.has_tensors(bytes(32))
    for found, put in zip(other.get_tensors(root, LAYOUT), tensors(), strict=True):
        assert found.shape == put.shape
        assert np.array_equal(found, put)
    program = a_program()
    found_program = other.get_program(one.put_program(program))
    assert found_program == program
    assert found_program.state_names == program.state_names


def test_names_from_a_program_never_reach_the_file_system(store: Store, tmp_path: Path) -> None:
    hostile = ("../../escape", "/etc/passwd", "a\x00b\nc")
    root = store.put_tensors(tensors(), LAYOUT, hostile)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [file_of(tmp_path, root)]
    assert len(store.get_tensors(root, LAYOUT)) == 3


def test_what_is_missing_is_named(store: Store) -> None:
    with pytest.raises(ArtifactError, match=r"tensors/0000.* is not in the store"):
        store.get_tensors(bytes(32), LAYOUT)
    with pytest.raises(ArtifactError, match=r"programs/0000.* is not in the store"):
        store.get_program(bytes(32))


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_truncated_file_is_refused(store: Store, tmp_path: Path, length: int) -> None:
    root = store.put_tensors(tensors(), LAYOUT, NAMES)
    path = file_of(tmp_path, root)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        store.get_tensors(root, LAYOUT)


@given(st.integers(0, 2**16), st.integers(1, 255))
def test_any_changed_byte_is_refused_or_means_the_same(place: int, change: int) -> None:
    memory = Store(f"memory://{uuid.uuid4().hex}")
    root = memory.put_tensors(tensors(), LAYOUT, NAMES)
    path = memory._path(f"tensors/{root.hex()}.safetensors")
    data = bytearray(memory._fs.cat_file(path))
    data[place % len(data)] ^= change
    memory._fs.pipe_file(path, bytes(data))
    try:
        found = memory.get_tensors(root, LAYOUT)
    except ArtifactError:
        return
    assert state_root(found) == root  # only a name was changed


def test_tensors_under_another_root_are_refused(store: Store, tmp_path: Path) -> None:
    root = store.put_tensors(tensors(), LAYOUT, NAMES)
    other = store.put_tensors([t ^ np.uint32(1) for t in tensors()], LAYOUT, NAMES)
    file_of(tmp_path, other).replace(file_of(tmp_path, root))
    with pytest.raises(ArtifactError, match=other.hex()):
        store.get_tensors(root, LAYOUT)


@pytest.mark.parametrize(
    "layout",
    [
        LAYOUT[:2],
        [*LAYOUT, (DType.F32, (1,))],
        [(DType.F32, (3, 2)), *LAYOUT[1:]],
        [(DType.I32, (2, 3)), *LAYOUT[1:]],
        [LAYOUT[1], LAYOUT[0], LAYOUT[2]],
    ],
)
def test_another_layout_than_the_programs_is_refused(
    store: Store, layout: list[tuple[DType, tuple[int, ...]]]
) -> None:
    root = store.put_tensors(tensors(), LAYOUT, NAMES)
    with pytest.raises(ArtifactError, match=r"the program demands|tensors, not"):
        store.get_tensors(root, layout)


def test_an_oversized_file_is_refused_before_it_is_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = store.put_tensors(tensors(), LAYOUT, NAMES)
    program = store.put_program(a_program())

    def read(*_: object, **__: object) -> bytes:
        raise AssertionError("it was read")

    monkeypatch.setattr(store._fs, "open", read)
    os.truncate(file_of(tmp_path, root), 1 << 40)  # sparse: it takes no space
    with pytest.raises(ArtifactError, match="more than the"):
        store.get_tensors(root, LAYOUT)
    os.truncate(tmp_path / "store" / "programs" / program.hex(), MAX_PROGRAM_BYTES + 1)
    with pytest.raises(ArtifactError, match="more than the"):
        store.get_program(program)


def test_a_damaged_or_exchanged_program_is_refused(store: Store, tmp_path: Path) -> None:
    root = store.put_program(a_program())
    path = tmp_path / "store" / "programs" / root.hex()
    good = path.read_bytes()
    for damaged in (b"", good[:-1], good[:40], good + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="damaged"):
            store.get_program(root)
    nodes = a_program().nodes
    other = Program((nodes[0], Node(Kind.OUTPUT, DType.F32, (2, 3), index=0)), 1)
    path.write_bytes(encoding.dump(other))
    with pytest.raises(ArtifactError, match=program_root(other).hex()):
        store.get_program(root)


def test_encodings_are_read_right_or_wrong_but_never_those_of_another_program(
    store: Store, tmp_path: Path
) -> None:
    root = store.put_program(a_program())
    right = encoding.encode_nodes(a_program())
    assert store.get_encodings(root) == right
    wrong = [right[0], b"\x7f", *right[2:]]
    path = tmp_path / "store" / "programs" / root.hex()
    data = path.read_bytes()
    at = data.index(right[1])
    broken = data[: at - 2] + b"\0\1\x7f" + data[at + len(right[1]) :]
    path.write_bytes(broken)
    with pytest.raises(ArtifactError, match="holds program"):
        store.get_encodings(root)
    broken_root = merkle.root([merkle.leaf_hash(node) for node in wrong])
    path.with_name(broken_root.hex()).write_bytes(broken)
    assert store.get_encodings(broken_root) == wrong
    with pytest.raises(ArtifactError, match="node 1"):
        store.get_program(broken_root)
    path.write_bytes(data[:-1])
    with pytest.raises(ArtifactError, match="damaged"):
        store.get_encodings(root)
    with pytest.raises(ArtifactError, match="is not in the store"):
        store.get_encodings(bytes(32))


def test_pickles_are_never_loaded(store: Store, tmp_path: Path) -> None:
    import pickle

    root = store.put_tensors(tensors(), LAYOUT, NAMES)
    file_of(tmp_path, root).write_bytes(pickle.dumps(tensors()))
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        store.get_tensors(root, LAYOUT)


def test_more_tensors_than_demanded_are_refused(store: Store, tmp_path: Path) -> None:
    root = store.put_tensors(tensors(), LAYOUT, NAMES)
    extra = {f"{i:05d}": np.zeros(1, np.float32) for i in range(50)}
    file_of(tmp_path, root).write_bytes(save(extra))
    with pytest.raises(ArtifactError, match="holds 50 tensors, not 3"):
        store.get_tensors(root, LAYOUT)


def test_a_write_that_fails_leaves_nothing_that_a_reader_could_see(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = state_root(tensors())
    opened = store._fs.open

    class Full(io.BytesIO):
        """A file on a disk that has room for the header only."""

        def write(self, data: object) -> int:
            if self.tell():
                raise OSError("no space left on device")
            return super().write(data)  # type: ignore[arg-type]

    def full(path: str, mode: str) -> Full:
        opened(path, mode).close()
        return Full()

    with monkeypatch.context() as patch:
        patch.setattr(store._fs, "open", full)
        with pytest.raises(ArtifactError, match="no space left"):
            store.put_tensors(tensors(), LAYOUT, NAMES)
    assert not store.has_tensors(root)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]  # nor is rubbish left
    store.put_tensors(tensors(), LAYOUT, NAMES)
    assert len(store.get_tensors(root, LAYOUT)) == 3


@pytest.mark.parametrize("url", ["nosuchscheme://x", "http+odd://"])
def test_a_url_of_an_unknown_kind_is_refused(url: str) -> None:
    with pytest.raises(ArtifactError, match="as a store"):
        Store(url)


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot write"):
        Store(str(tmp_path / "file")).put_tensors(tensors(), LAYOUT, NAMES)


@given(st.integers(1, 1200), st.integers(0, 10_000))
def test_a_file_that_was_cut_short_is_whole_again_with_the_chunks_that_it_lacks(
    numel: int, cut: int
) -> None:
    whole = [*tensors(), np.arange(numel, dtype=np.uint32)]
    layout = [*LAYOUT, (DType.F32, (numel,))]
    memory = Store(f"memory://{uuid.uuid4().hex}")
    root = memory.put_tensors(whole, layout, NAMES)
    name = memory._path(f"tensors/{root.hex()}.safetensors")
    data = memory._fs.cat_file(name)
    header = 8 + int.from_bytes(data[:8], "little")
    memory._fs.pipe_file(name, data[: len(data) - min(cut, len(data) - header)])
    found, holes = memory.get_partial(root, layout)
    assert len(set(holes)) == len(holes)
    assert bool(holes) is (cut > 0)
    for tensor, number in holes:
        data = chunk(whole[tensor], number)
        place = slice(CHUNK_ELEMENTS * number, CHUNK_ELEMENTS * number + len(data) // 4)
        found[tensor].reshape(-1)[place] = np.frombuffer(data, "<u4")
    assert state_root(found) == root


@pytest.mark.parametrize(
    "header",
    [
        b"{}x",
        b"[]",
        b'{"x": 1}',
        b'{"00000": {}}',
        b'{"00000": {"data_offsets": [1]}}',
        b'{"00000": {"data_offsets": [-8, 4]}}',
        b'{"00000": {"data_offsets": ["a", 4]}}',
        b'{"00000": {"data_offsets": [0, Infinity]}}',
        b"[" * 100_000,
    ],
    ids=range(9),
)
def test_a_partial_file_that_is_none_is_refused(
    store: Store, tmp_path: Path, header: bytes
) -> None:
    root = store.put_tensors(tensors(), LAYOUT, NAMES)
    file_of(tmp_path, root).write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ArtifactError, match=r"not a safetensors file|lies nowhere"):
        store.get_partial(root, LAYOUT)


@given(st.lists(st.binary(min_size=64, max_size=64), min_size=1, max_size=40), st.data())
def test_a_log_comes_back_and_no_other_does(leaves: list[bytes], data: st.DataObject) -> None:
    memory = Store(f"memory://{uuid.uuid4().hex}")
    root = memory.put_log(leaves)
    assert memory.has_log(root)
    assert memory.get_log(root, len(leaves)) == leaves
    with pytest.raises(ArtifactError):
        memory.get_log(root, len(leaves) + 1)
    place = data.draw(st.integers(0, 64 * len(leaves) - 1))
    changed = bytearray(b"".join(leaves))
    changed[place] ^= data.draw(st.integers(1, 255))
    memory._fs.pipe_file(memory._path(f"logs/{root.hex()}"), bytes(changed))
    with pytest.raises(ArtifactError, match="not the log"):
        memory.get_log(root, len(leaves))
