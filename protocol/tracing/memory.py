# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tensors share memory: what changes one of them then changes the other unseen."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from protocol.errors import TraceError


def span(tensor: Tensor) -> range:
    """Return the addresses from a tensor's first byte to its last; parts between may be others'."""
    if not tensor.numel():
        return range(0)
    size = tensor.element_size()
    start = tensor.untyped_storage().data_ptr() + tensor.storage_offset() * size
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return range(start, start + (last + 1) * size)


def overlap(a: range, b: range) -> bool:
    """Whether two spans have a byte in common."""
    return a.start < b.stop and b.start < a.stop


def refuse_shared(tensors: Mapping[str, Tensor], changing: Collection[str]) -> None:
    """Raise TraceError if two of these tensors share memory and one of them is to change."""
    spans = sorted(((span(tensor), name) for name, tensor in tensors.items()), key=_start)
    (widest, before), *rest = spans or [(range(0), "")]
    for found, name in rest:
        if overlap(widest, found) and (name in changing or before in changing):
            raise TraceError(
                f"the tensors {before} and {name} share their memory, so that training one changes "
                "the other: make them one (b.weight = a.weight, not b.weight.data = a.weight.data)"
            )
        if found.stop > widest.stop:
            widest, before = found, name


def _start(found: tuple[range, str]) -> int:
    return found[0].start
