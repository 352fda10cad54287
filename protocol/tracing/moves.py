# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves as algebra on scalars: substituting axes, and merging several axes into one.

Every view operation of torch is a substitution `old axis -> affine expression of new axes`, but for
reshapes that merge axes: those work only where every leaf is affine in the merged axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace as replace_fields

from protocol.program import Shape
from protocol.tracing.scalars import (
    Affine,
    Imm,
    Index,
    Load,
    Place,
    Prim,
    Scalar,
    Scalars,
)
from protocol.tracing.schedule import OnStep


def rewrite(scalars: Scalars, root: Scalar, change: Callable[[Affine], Affine]) -> Scalar:
    """Return `root` with `change` applied to every affine expression, indices included."""
    return Rewriter(scalars, change).scalar(root)


class Rewriter:
    """Applies a change to the affine expressions below a scalar, visiting each scalar once."""

    def __init__(self, scalars: Scalars, change: Callable[[Affine], Affine]) -> None:
        self._scalars = scalars
        self._change = change
        self.done: dict[int, Scalar] = {}

    def scalar(self, root: Scalar) -> Scalar:
        """Return the rewritten scalar."""
        done = self.done.get(id(root))
        if done is None:
            done = self.done[id(root)] = self._fresh(root)
        return done

    def _fresh(self, root: Scalar) -> Scalar:
        if isinstance(root, Imm | OnStep):
            return root
        if isinstance(root, Index):
            return self._scalars.index(self._change(root.at))
        if isinstance(root, Prim):
            return self._scalars.op(root.code, *map(self.scalar, root.args))
        return self.load(root)

    def load(self, root: Load) -> Load:
        """Return the rewritten load."""
        places = tuple(map(self._place, root.places))
        return self._scalars.load(root.buffer, places, root.fill, root.dtype)

    def _place(self, place: Place) -> Place:
        inner = Affine()
        direct = Affine((), place.at.offset)
        for axis, coef in place.at.terms:
            if isinstance(axis, Load):
                inner = inner.plus(Affine.of(self.load(axis), coef))
            else:
                direct = direct.plus(Affine.of(axis, coef))
        at = self._change(direct).plus(inner)
        return replace_fields(place, at=at)


def substitute(scalars: Scalars, root: Scalar, mapping: Sequence[Affine]) -> Scalar:
    """Return `root` with axis i replaced by `mapping[i]`."""

    def change(at: Affine) -> Affine:
        result = Affine((), at.offset)
        for axis, coef in at.terms:
            result = result.plus(mapping[axis] if isinstance(axis, int) else Affine.of(axis), coef)
        return result

    return rewrite(scalars, root, change)


def replace(scalars: Scalars, root: Scalar, found: Scalar, by: Scalar) -> Scalar:
    """Return `root` with the scalar `found` replaced wherever it is an argument."""
    rewriter = Rewriter(scalars, lambda at: at)
    rewriter.done[id(found)] = by
    return rewriter.scalar(root)


class NotAffine(Exception):
    """A merge of axes that a view cannot express: the tensor has to be copied."""


def merge(scalars: Scalars, root: Scalar, first: int, sizes: Shape) -> Scalar:
    """Merge axes `first .. first + len(sizes) - 1` of these sizes, row-major, into axis `first`.

    Later axes move up. Raises NotAffine where some leaf is not affine in the merged axis.
    """
    count = len(sizes)
    strides = [1] * count
    for i in reversed(range(count - 1)):
        strides[i] = strides[i + 1] * sizes[i + 1]

    def merged(at: Affine) -> Affine:
        result = Affine((), at.offset)
        coefs = [0] * count
        for axis, coef in at.terms:
            if isinstance(axis, int) and first <= axis < first + count:
                coefs[axis - first] = coef
            else:
                moved = axis - count + 1 if isinstance(axis, int) and axis >= first else axis
                result = result.plus(Affine.of(moved, coef))
        unit = {c // s for c, s, n in zip(coefs, strides, sizes, strict=True) if n > 1}
        exact = all(
            c == next(iter(unit)) * s
            for c, s, n in zip(coefs, strides, sizes, strict=True)
            if n > 1
        )
        if len(unit) > 1 or not exact:
            raise NotAffine
        return result.plus(Affine.of(first), unit.pop()) if unit else result

    def joined(load: Load) -> Load:
        """Join the source dims that the merged axes touch, where one axis alone is not affine."""
        touched = [
            d
            for d, place in enumerate(load.places)
            if any(isinstance(a, int) and first <= a < first + count for a, _ in place.at.terms)
        ]
        if len(touched) < 2:
            return load
        low, high = touched[0], touched[-1] + 1
        span = load.places[low:high]
        if not all(place.plain for place in span):
            raise NotAffine
        size, at = 1, Affine()
        for place in span:
            at = Affine().plus(at, place.size).plus(place.at)
            size *= place.size
        places = (*load.places[:low], Place(size, at, 0, size), *load.places[high:])
        return scalars.load(load.buffer, places, load.fill, load.dtype)

    return _Merger(scalars, merged, joined).scalar(root)


class _Merger(Rewriter):
    def __init__(
        self,
        scalars: Scalars,
        change: Callable[[Affine], Affine],
        join: Callable[[Load], Load],
    ) -> None:
        super().__init__(scalars, change)
        self._join = join

    def load(self, root: Load) -> Load:
        return super().load(self._join(root))


def row_major(shape: Shape) -> tuple[int, ...]:
    """Return the strides of a C-contiguous tensor, in elements."""
    strides, stride = [], 1
    for size in reversed(shape):
        strides.append(stride)
        stride *= size
    return tuple(reversed(strides))
