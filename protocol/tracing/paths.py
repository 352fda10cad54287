# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the nodes of a captured graph come from: the module's path and the line of its forward.

While tracing, each node is annotated with the call of torch that makes it. A node of the backward
pass is known by the autograd node that runs, whose sequence number says which call it
differentiates.
"""

from __future__ import annotations

import contextlib
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor, fx, overrides
from torch._C._autograd import _get_sequence_nr
from torch._functorch._aot_autograd.logging_utils import setup_stacktrace_preservation_hooks
from torch.fx import traceback as fx_traceback
from torch.fx.experimental import proxy_tensor
from torch.utils._pytree import tree_leaves

_TORCH: Final = str(Path(torch.__file__).parent)
_LAYERS: Final = str(Path(torch.nn.__file__).parent)
_TRACING: Final = str(Path(__file__).parent)
_CAPTURE: Final = str(Path(__file__).with_name("capture.py"))
_PASSING: Final = {__file__, overrides.__file__, proxy_tensor.__file__}
"""Files through which a call of torch comes here."""
_NOT_COMPARED: Final = {
    *("__get__", "to", "cpu", "bool", "byte", "char", "short", "int", "long"),
    *("half", "bfloat16", "float", "double"),
}
"""Calls that are not noted: attributes, and conversions, which look different while tracing."""
_COMPARED: Final = (bool, int, float, str, torch.dtype)


@dataclass(frozen=True)
class Call:
    """A call of torch that a user's line makes: the function, and numbers among its arguments."""

    line: str
    function: str
    numbers: tuple[str, ...]


@dataclass(frozen=True)
class _Place:
    """What a node is annotated with: `run` tells calls apart, `draw` which random state it uses."""

    module: str = ""
    line: str = ""
    run: int = 0
    draw: int = 0

    def __str__(self) -> str:
        return ", ".join(part for part in (self.module, self.line) if part)


@dataclass
class Paths:
    """Where in the module, and on which line, each node of a graph is made.

    `calls` are the calls of torch that the user's lines made, in order.
    """

    open: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    _labels: dict[int, str] = field(default_factory=dict)
    _differentiated: list[tuple[int, _Place]] = field(default_factory=list)
    _runs: int = 0
    _draws: int = 0

    def label(self, name: str, module: torch.nn.Module) -> str:
        """Return what a submodule is called in refusals."""
        label = f"{name or 'the module'} ({type(module).__name__})"
        self._labels.setdefault(id(module), label)
        return label

    def enter(self, line: str) -> None:
        """Say that the nodes made from now on come from this line of the module that is open."""
        self._runs += 1
        self._draws += 1
        self.mark(line)

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Say that nodes come from `name`, which is no module; what it raises comes from it too."""
        self.open.append(name)
        self.mark()
        yield
        self.open.pop()
        self.mark()

    def mark(self, line: str = "") -> None:
        """Say that the nodes made from now on come from a line, or from what calls the module."""
        place = _Place(self.open[-1] if self.open else "", line, self._runs, self._draws)
        fx_traceback.get_current_meta()["custom"] = {"place": place}
        self._differentiated.append((_get_sequence_nr(), place))

    def differentiating(self, loss: Tensor) -> None:
        """Let the nodes of the backward pass know what they differentiate."""
        if loss.grad_fn is not None:
            setup_stacktrace_preservation_hooks([loss.grad_fn])

    def of(self, node: fx.Node) -> str:
        """Return the module and line of a node; of a backward node, of what it differentiates."""
        seen, layer = {node}, [node]
        while layer:
            for each in layer:
                place, backward = _place(each), " (backward)" if each is not node else ""
                if each.meta.get("autograd_backward"):
                    made, backward = self._made_by(each.meta["seq_nr"]), " (backward)"
                    place = replace(made, line=place.line or made.line)
                if place.module or place.line:
                    return f"{place}{backward}"
            layer = [n for each in layer for n in each.all_input_nodes if n not in seen]
            seen.update(layer)
        return "the training step outside the module"

    def _made_by(self, number: int) -> _Place:
        """Return where an autograd node was made: the last mark when it got its number."""
        at = bisect_right(self._differentiated, number, key=lambda mark: mark[0]) - 1
        return self._differentiated[at][1] if at >= 0 else _Place()

    def of_error(self, error: BaseException) -> str:
        """Return where an exception left the module, or the loss, that was being traced."""
        module = line = ""
        trace: TracebackType | None = error.__traceback__
        while trace is not None:
            frame = trace.tb_frame
            if frame.f_code.co_name == "_call_impl":
                module = self._labels.get(id(frame.f_locals.get("self")), module)
            if not _is_ours(frame.f_code):
                line = f"{frame.f_code.co_filename}:{trace.tb_lineno}"
            trace = trace.tb_next
        module = module or (self.open[-1] if self.open else "")
        return ", ".join(part for part in (module, line) if part) or "this step"

    # Random states -------------------------------------------------------------------------------

    def _random_state(self) -> int:
        return self._draws

    def _set_random_state(self, draws: int) -> None:
        self._draws = draws

    @contextmanager
    def random_states(self) -> Iterator[None]:
        """Let a checkpoint that computes a part again draw what the forward pass has drawn.

        It keeps the random state and sets it again; calls are counted from there as before.
        """
        with (
            mock.patch("torch.get_rng_state", self._random_state),
            mock.patch("torch.set_rng_state", self._set_random_state),
        ):
            yield


def _place(node: fx.Node) -> _Place:
    found = node.meta.get("custom", {}).get("place", _Place())
    return found if isinstance(found, _Place) else _Place()


def draws_of(nodes: Sequence[fx.Node]) -> dict[fx.Node, tuple[int, int]]:
    """Return what tells the random numbers of nodes apart: those of equal keys are the same."""
    counts: Counter[int] = Counter()
    found = {}
    for node in nodes:
        place = _place(node)
        found[node] = (place.draw, counts[place.run])
        counts[place.run] += 1
    return found


def _is_ours(code: CodeType) -> bool:
    """Whether code belongs to torch or to the tracer: not what a user wrote."""
    name = code.co_filename
    return name.startswith((_TORCH, _TRACING, "<")) or name == contextlib.__file__


def _line_of_stack() -> str:
    """Return the innermost line of the user's that is being traced, or nothing."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not _is_ours(code):
            return f"{code.co_filename}:{frame.f_lineno}"
        if code.co_filename == _CAPTURE:
            return ""  # what calls this is not part of the step
        frame = frame.f_back
    return ""


def _is_called(func: Any) -> bool:
    """Whether a user's code or a layer of torch calls an operation; not what torch does itself."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename in _PASSING:
        frame = frame.f_back
    direct = frame is not None and (
        not _is_ours(frame.f_code) or frame.f_code.co_filename.startswith(_LAYERS)
    )
    return direct and getattr(func, "__name__", "__get__") not in _NOT_COMPARED


class _Lines(overrides.TorchFunctionMode):
    """Notes each call of torch."""

    def __init__(self, paths: Paths) -> None:
        super().__init__()
        self._paths = paths

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`; the nodes that it makes come from here."""
        del types
        kwargs = kwargs or {}
        line = _line_of_stack()
        if line and _is_called(func):
            leaves = tree_leaves((args, kwargs))
            numbers = tuple(repr(leaf) for leaf in leaves if isinstance(leaf, _COMPARED))
            self._paths.calls.append(Call(line, func.__name__, numbers))
        self._paths.enter(line)
        try:
            return func(*args, **kwargs)
        finally:
            self._paths.mark()


@contextmanager
def marking(module: torch.nn.Module, paths: Paths) -> Iterator[None]:
    """Note, while tracing, where each submodule's forward begins and ends, and every call."""
    paths.open.clear()

    def entering(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            paths.open.append(name)
            paths.mark()

        return hook

    def leaving(*_: object) -> None:
        paths.open.pop()
        paths.mark()

    handles = []
    for name, child in module.named_modules(remove_duplicate=False):
        label = paths.label(name, child)
        handles.append(child.register_forward_pre_hook(entering(label)))
        handles.append(child.register_forward_hook(leaving, always_call=True))
    try:
        with fx_traceback.preserve_node_meta(), paths.random_states(), _Lines(paths):
            yield
    finally:
        for handle in handles:
            handle.remove()
