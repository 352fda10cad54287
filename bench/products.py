# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of matrix products and convolutions, and what torch calls to compute the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from protocol.execution import Bits
from protocol.program import Dim, DType, Expression, Fold, Kind, Node, Program, Shape, Term, View

AMOUNT = 1 << 24
"""Multiplications that one call of a case should do at least, so that its fixed costs vanish."""
MOST = 64


@dataclass(frozen=True)
class Case:
    """A program of one state tensor that becomes a product, and the same by torch.

    A small product is done several times, by one node with one more axis on our side, by as many
    calls on torch's.
    """

    name: str
    program: Program
    data: list[Bits]
    theirs: Callable[[], object]
    repeats: int

    @property
    def state(self) -> list[Bits]:
        """A state to start from; it is not read."""
        return [np.zeros(self.program.nodes[0].shape, np.uint32)]

    @property
    def operations(self) -> int:
        """Floating-point operations of one call."""
        return sum(2 * node.numel * node.terms for node in self.program.nodes if node.reduce)


Function = Callable[[Tensor, Tensor], object]


def _case(
    name: str, shape: Shape, reduce: Shape, shapes: tuple[Shape, Shape],
    views: tuple[View, View], theirs: Function,
) -> Case:  # fmt: skip
    """Return a case of `views` of nodes 1 and 2."""
    generator = np.random.default_rng(1)
    repeats = min(MOST, max(1, AMOUNT // math.prod(shape + reduce)))
    data = [generator.standard_normal((repeats, *s), np.float32) for s in shapes]
    axes, whole = ((), shape) if repeats == 1 else ((repeats,), (repeats, *shape))
    if repeats > 1:
        views = _repeated(views[0], repeats), _repeated(views[1], repeats)
    leaves = [
        Node(Kind.DATA, DType.F32, (*axes, *s), index=index) for index, s in enumerate(shapes)
    ]
    body = Expression(views, results=(0, 1))
    nodes = (
        Node(Kind.INPUT, DType.F32, whole),
        *leaves,
        Node(Kind.FOLD, DType.F32, whole, fold=Fold.DOT, reduce=reduce, expression=body),
        Node(Kind.OUTPUT, DType.F32, whole, index=3),
    )
    tensors = [torch.from_numpy(d) for d in data]
    return Case(
        name,
        Program(nodes, 1, n_data=2),
        [d.reshape(leaf.shape).view(np.uint32) for d, leaf in zip(data, leaves, strict=True)],
        lambda: [theirs(tensors[0][i], tensors[1][i]) for i in range(repeats)],
        repeats,
    )


def _repeated(view: View, repeats: int) -> View:
    """Return the view with one more axis before all others."""
    dims = [
        replace(dim, terms=tuple(Term(t.axis + 1, t.coef) for t in dim.terms)) for dim in view.dims
    ]
    return View(view.source, (Dim(repeats, (Term(0, 1),)), *dims), view.fill)


def _view(source: int, sizes: Shape, axes: tuple[int, ...]) -> View:
    return View(source, tuple(Dim(s, (Term(a, 1),)) for s, a in zip(sizes, axes, strict=True)))


def matrices(batch: int, m: int, k: int, n: int, left: bool, right: bool) -> Case:
    """A product `[batch, m, k] @ [batch, k, n]` (batch 0: none), factors stored turned or not."""
    first: Shape = (batch,) if batch else ()
    rank = len(first)
    row, column, term = rank, rank + 1, rank + 2
    shapes = (*first, *((k, m) if left else (m, k))), (*first, *((n, k) if right else (k, n)))
    axes = (
        (*range(rank), *((term, row) if left else (row, term))),
        (*range(rank), *((column, term) if right else (term, column))),
    )
    name = f"{batch}x{m}x{k}x{n}" if batch else f"{m}x{k}x{n}"
    name += f"/{'t' if left else 'n'}{'t' if right else 'n'}"

    def theirs(a: Tensor, b: Tensor) -> Tensor:
        return (a.mT if left else a) @ (b.mT if right else b)

    return _case(
        name, (*first, m, n), (k,), shapes,
        (_view(1, shapes[0], axes[0]), _view(2, shapes[1], axes[1])), theirs,
    )  # fmt: skip


@dataclass(frozen=True)
class Convolution:
    """A convolution of square images with square kernels, padded so that stride 1 keeps sizes."""

    images: int
    channels: int
    size: int
    filters: int
    taps: int = 3
    stride: int = 1

    @property
    def name(self) -> str:
        """Sizes in the order of torch."""
        sizes = f"{self.images}x{self.channels}x{self.size}x{self.size}"
        return f"{sizes}-{self.filters}x{self.taps}x{self.taps}-s{self.stride}"

    @property
    def padding(self) -> int:
        """Zeros on each side."""
        return self.taps // 2

    @property
    def out(self) -> int:
        """Size of the result."""
        return (self.size + 2 * self.padding - self.taps) // self.stride + 1

    @property
    def shapes(self) -> tuple[Shape, Shape, Shape]:
        """Shapes of images, kernels and results."""
        return (
            (self.images, self.channels, self.size, self.size),
            (self.filters, self.channels, self.taps, self.taps),
            (self.images, self.filters, self.out, self.out),
        )

    def _window(self, out: int, tap: int) -> Dim:
        return Dim(self.size, (Term(out, self.stride), Term(tap, 1)), -self.padding)

    def forward(self) -> Case:
        """The convolution itself."""
        image, kernel, result = self.shapes

        dims = Dim(image[0], (Term(0, 1),)), Dim(image[1], (Term(4, 1),))
        images = View(1, (*dims, self._window(2, 5), self._window(3, 6)))
        views = images, _view(2, kernel, (1, 4, 5, 6))

        def theirs(a: Tensor, b: Tensor) -> Tensor:
            return torch.nn.functional.conv2d(a, b, None, self.stride, self.padding)

        return _case(f"{self.name}/forward", result, kernel[1:], (image, kernel), views, theirs)

    def input_gradient(self) -> Case:
        """The gradient of the images."""
        image, kernel, result = self.shapes

        def spread(position: int, tap: int) -> Dim:
            terms = (Term(position, 1), Term(tap, -1))
            return Dim(self.out, terms, self.padding, dilation=self.stride)

        dims = Dim(result[0], (Term(0, 1),)), Dim(result[1], (Term(4, 1),))
        responses = View(1, (*dims, spread(2, 5), spread(3, 6)))
        views = responses, _view(2, kernel, (4, 1, 5, 6))
        blank = torch.zeros(image)

        def theirs(a: Tensor, b: Tensor) -> object:
            return self._backward(a, blank, b, [True, False, False])

        reduce = (self.filters, self.taps, self.taps)
        return _case(f"{self.name}/input", image, reduce, (result, kernel), views, theirs)

    def weight_gradient(self) -> Case:
        """The gradient of the kernels."""
        image, kernel, result = self.shapes

        dims = Dim(image[0], (Term(4, 1),)), Dim(image[1], (Term(1, 1),))
        images = View(2, (*dims, self._window(5, 2), self._window(6, 3)))
        views = _view(1, result, (4, 0, 5, 6)), images
        blank = torch.zeros(kernel)

        def theirs(a: Tensor, b: Tensor) -> object:
            return self._backward(a, b, blank, [False, True, False])

        reduce = (self.images, self.out, self.out)
        return _case(f"{self.name}/weight", kernel, reduce, (result, image), views, theirs)

    def _backward(
        self, response: Tensor, image: Tensor, kernel: Tensor, wanted: list[bool]
    ) -> object:
        pair = [self.padding] * 2
        return torch.ops.aten.convolution_backward(
            response, image, kernel, None, [self.stride] * 2, pair, [1, 1], False, [0, 0], 1, wanted
        )
