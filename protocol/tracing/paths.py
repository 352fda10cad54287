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
from torch import fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.overrides import TorchFunctionMode

_TORCH: Final = str(Path(torch.__file__).parent)
_TRACING: Final = str(Path(__file__).parent)
_CAPTURE: Final = str(Path(__file__).with_name("capture.py"))


class _Marks:
    """What holds for the nodes from some position on."""

    def __init__(self) -> None:
        self._positions: list[int] = []
        self._names: list[str] = []

    def mark(self, name: str) -> None:
        """Say that the nodes made from now on come from `name`."""
        mode = get_proxy_mode()
        if mode is not None and (not self._names or self._names[-1] != name):
            self._positions.append(len(mode.tracer.graph.nodes))
            self._names.append(name)

    def at(self, position: int) -> str:
        """Return the name that holds for a node, or nothing."""
        place = bisect_right(self._positions, position) - 1
        return self._names[place] if place >= 0 else ""


@dataclass
class Paths:
    """Where in the module, and on which line, each node of a graph is made."""

    modules: _Marks = field(default_factory=_Marks)
    lines: _Marks = field(default_factory=_Marks)
    open: list[str] = field(default_factory=list)
    _order: dict[fx.Node, int] = field(default_factory=dict)

    def freeze(self, nodes: Sequence[fx.Node]) -> None:
        """Remember the order in which the nodes were made."""
        self._order = {node: position for position, node in enumerate(nodes)}

    def of(self, node: fx.Node) -> str:
        """Return the module and line of a node; of a backward node, of what it differentiates."""
        seen, layer = {node}, [node]
        while layer:
            for each in layer:
                module, line = self._direct(each, self.modules), self._direct(each, self.lines)
                if module or line:
                    where = ", ".join(part for part in (module or "the loss", line) if part)
                    return where if each is node else f"{where} (backward)"
            layer = [n for each in layer for n in each.all_input_nodes if n not in seen]
            seen.update(layer)
        return "the training step outside the module"

    def _direct(self, node: fx.Node, marks: _Marks) -> str:
        position = self._order.get(node, -1)
        return marks.at(position) if node.op == "call_function" and position >= 0 else ""

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


class _Lines(TorchFunctionMode):
    """Notes the line of each call of torch."""

    def __init__(self, marks: _Marks) -> None:
        super().__init__()
        self._marks = marks

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`; the nodes that it makes come from here."""
        del types
        self._marks.mark(_line_of_stack())
        result = func(*args, **(kwargs or {}))
        self._marks.mark("")
        return result


@contextmanager
def marking(module: torch.nn.Module, paths: Paths) -> Iterator[None]:
    """Note, while tracing, where in the graph each submodule's forward begins and ends."""
    paths.open.clear()

    def note() -> None:
        paths.modules.mark(paths.open[-1] if paths.open else "")

    def entering(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            paths.open.append(name)
            note()

        return hook

    def leaving(*_: object) -> None:
        paths.open.pop()
        note()

    handles = []
    for name, child in module.named_modules(remove_duplicate=False):
        label = f"{name or 'the module'} ({type(child).__name__})"
        handles.append(child.register_forward_pre_hook(entering(label)))
        handles.append(child.register_forward_hook(leaving))
    try:
        with _Lines(paths.lines):
            yield
    finally:
        for handle in handles:
            handle.remove()
