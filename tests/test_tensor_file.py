# SPDX-License-Identifier: GPL-3.0-or-later
"""Tensors are written and read one by one, in the very bytes of the safetensors library."""

from __future__ import annotations

import tracemalloc
import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from protocol import tensor_file
from protocol.errors import ArtifactError
from protocol.files import write_whole
from protocol.program import DType
from protocol.store import Store

NUMEL = 1 << 22
LARGE = [np.zeros(NUMEL, np.uint32), np.ones((4, NUMEL // 4), np.uint32)]
LAYOUT = [(DType.F32, (NUMEL,)), (DType.I32, (4, NUMEL // 4))]
LITTLE = 4 * NUMEL // 2
"""Bytes: less than a half of either tensor."""

arrays = st.dictionaries(
    st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=8),
    st.builds(
        lambda dtype, shape: np.arange(np.prod(shape), dtype=np.int64).astype(dtype).reshape(shape),
        st.sampled_from(list(tensor_file.DTYPES)),
        st.lists(st.integers(1, 3), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=6,
)


@given(arrays)
def test_the_file_is_byte_for_byte_the_librarys(found: dict[str, np.ndarray]) -> None:
    written = b"".join(tensor_file.parts(found))
    assert written == save(found)
    assert set(load(written)) == set(found)


def test_a_dtype_that_no_program_has_is_refused() -> None:
    with pytest.raises(KeyError):
        list(tensor_file.parts({"half": np.zeros(1, np.float16)}))


@pytest.mark.parametrize("url", ["{}/store", "memory://{}"])
def test_a_store_holds_what_the_library_would_have_written(url: str, tmp_path: Path) -> None:
    store = Store(url.format(tmp_path if "/" in url[:4] else uuid.uuid4().hex))
    tensors = [np.array([1, 2], np.uint32), np.array(7, np.uint32), np.ones((2, 2), np.uint32)]
    layout = [(DType.I32, (2,)), (DType.F32, ()), (DType.F32, (2, 2))]
    root = store.put_tensors(tensors, layout, ("a", "b/ü"))
    written = store._fs.cat_file(store._path(f"tensors/{root.hex()}.safetensors"))
    assert written == save(
        {
            "00000.a": tensors[0].view(np.int32),
            "00001.b/ü": tensors[1].view(np.float32),
            "00002": tensors[2].view(np.float32),
        }
    )


def test_no_second_copy_is_made_to_write_or_to_read(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    root = store.put_tensors(LARGE, LAYOUT, ())
    store.discard_tensors(root)
    tracemalloc.start()
    try:
        store.put_tensors(LARGE, LAYOUT, ())
        draft = store.draft_tensors(LARGE, LAYOUT, ())
        write_whole(tmp_path / "all", tensor_file.parts({"a": LARGE[0].view(np.float32)}))
        assert tracemalloc.get_traced_memory()[1] < LITTLE
        assert store.name_tensors(draft, LAYOUT) == root
        assert tracemalloc.get_traced_memory()[1] < LARGE[0].nbytes + LITTLE
        found = store.get_tensors(root, LAYOUT)
        assert tracemalloc.get_traced_memory()[1] < sum(t.nbytes for t in found) + LITTLE
    finally:
        tracemalloc.stop()
    assert all(np.array_equal(mine, one) for mine, one in zip(LARGE, found, strict=True))


def test_a_draft_gets_the_name_of_what_is_in_it_and_replaces_what_was_damaged(
    tmp_path: Path,
) -> None:
    store, tensors, layout = Store(str(tmp_path)), [np.ones(3, np.uint32)], [(DType.F32, (3,))]
    root = store.put_tensors(tensors, layout, ("a",))
    file = tmp_path / "tensors" / f"{root.hex()}.safetensors"
    whole = file.read_bytes()
    file.write_bytes(b"damaged")
    store.put_tensors(tensors, layout, ())
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        store.get_tensors(root, layout)
    draft = store.draft_tensors(tensors, layout, ("a",))
    tensors[0] += np.uint32(1)  # the caller's again
    assert store.name_tensors(draft, layout) == root
    assert file.read_bytes() == whole
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_a_draft_that_is_damaged_before_it_has_a_name_is_gone(tmp_path: Path) -> None:
    store, tensors, layout = Store(str(tmp_path)), [np.ones(3, np.uint32)], [(DType.F32, (3,))]
    draft = store.draft_tensors(tensors, layout, ())
    (tmp_path / draft).write_bytes((tmp_path / draft).read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        store.name_tensors(draft, layout)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
