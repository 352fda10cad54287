# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the nodes of a captured graph come from: the module's path and the line of its forward."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.overrides import TorchFunctionMode

_TORCH: Final = str(Path(torch.__file__).parent)
_TRACING: Final = str(Path(__file__).parent)
_CAPTURE: Final = str(Path(__file__).with_name("capture.py"))
_OUTSIDE: Final = "the training step outside the module"


@dataclass
class Paths:
    """Where in the module, and on which line, each node of a graph is made.

    A place holds for the nodes made from then on, until the next. Nodes of the backward pass have
    the place of what they differentiate, which autograd's own numbers tell.
    """

    open: list[str] = field(default_factory=list)
    _now: str = ""
    _line: str = ""
    _places: dict[fx.Node, str] = field(default_factory=dict)
    _numbers: list[int] = field(default_factory=list)
    _numbered: list[str] = field(default_factory=list)

    def _move(self, place: str) -> None:
        """Say where the nodes are from that are made from now on; those made last are settled."""
        mode = get_proxy_mode()
        for node in reversed(mode.tracer.graph.nodes) if mode is not None else ():
            if node in self._places:
                break
            self._places[node] = self._now
        self._now = place

    def _look(self) -> None:
        """Move to the innermost module and line; autograd nodes made from now on are from there."""
        self._move(", ".join(part for part in (*self.open[-1:], self._line) if part))
        self._numbers.append(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]
        self._numbered.append(self._now)

    def enter(self, name: str) -> None:
        """Begin a part of the step."""
        self.open.append(name)
        self._look()

    def leave(self) -> None:
        """End the innermost part of the step. After an error it stays open, for `of_error`."""
        self.open.pop()
        self._look()

    def at_line(self, line: str) -> None:
        """Say which line of the user's runs, if any."""
        self._line = line
        self._look()

    def follow(self, loss: Tensor) -> None:
        """Have the backward pass from `loss` move to the place of what it differentiates."""
        seen, stack = {loss.grad_fn}, [loss.grad_fn]
        while stack:
            step = stack.pop()
            if step is not None:
                at = bisect_right(self._numbers, step._sequence_nr()) - 1
                place = (self._numbered[at] if at >= 0 else "") or _OUTSIDE
                step.register_prehook(lambda _, place=place: self._move(f"{place} (backward)"))
                found = {before for before, _ in step.next_functions} - seen
                seen |= found
                stack.extend(found)

    def of(self, node: fx.Node) -> str:
        """Return the module and line of a node; of a backward node, of what it differentiates."""
        while node not in self._places and node.all_input_nodes:
            node = node.all_input_nodes[0]  # it was put into the graph for others
        return self._places.get(node) or _OUTSIDE

    def of_error(self, error: BaseException) -> str:
        """Return where an exception left the module, or the loss, that was being traced."""
        line = _line_of_traceback(error.__traceback__)
        parts = [self.open[-1]] if self.open else []
        return ", ".join([*parts, line] if line else parts) or "this step"


def _is_ours(code: CodeType) -> bool:
    """Whether code belongs to torch or to the tracer: not what a user wrote."""
    name = code.co_filename
    return name.startswith((_TORCH, _TRACING, "<"))


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


def _line_of_traceback(trace: TracebackType | None) -> str:
    found = ""
    while trace is not None:
        if not _is_ours(trace.tb_frame.f_code):
            found = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _in_backward() -> bool:
    """Whether autograd is running, where checkpointing runs parts of the forward pass again.

    It leaves them by an exception as soon as it has what it needs, so there nothing is marked.
    """
    return torch._C._current_graph_task_id() != -1


class _Lines(TorchFunctionMode):
    """Notes the line of each call of torch."""

    def __init__(self, paths: Paths) -> None:
        super().__init__()
        self._paths = paths

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`; the nodes that it makes come from here."""
        del types
        if _in_backward():
            return func(*args, **(kwargs or {}))
        self._paths.at_line(_line_of_stack())
        result = func(*args, **(kwargs or {}))
        self._paths.at_line("")
        return result


@contextmanager
def marking(module: torch.nn.Module, paths: Paths) -> Iterator[None]:
    """Note, while tracing, where in the graph each submodule's forward begins and ends."""

    def entering(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            if not _in_backward():
                paths.enter(name)

        return hook

    def leaving(*_: object) -> None:
        if not _in_backward():
            paths.leave()

    handles = []
    for name, child in module.named_modules(remove_duplicate=False):
        label = f"{name or 'the module'} ({type(child).__name__})"
        handles.append(child.register_forward_pre_hook(entering(label)))
        handles.append(child.register_forward_hook(leaving))
    try:
        with _Lines(paths):
            yield
    finally:
        for handle in handles:
            handle.remove()
