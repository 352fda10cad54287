# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers that a module's Python reads of tensors while it is traced.

Tensors have no data while tracing, yet some code looks at them: `if mask.all(): ...`. Where such a
tensor depends on no input (masks and positions made inside of the forward), it is computed for real
beside the trace. What depends on parameters, buffers or data stays unknown: reading it is refused.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten

LARGEST: Final = 1 << 20
"""Elements of a tensor that is computed beside the trace."""
_UNDEFINED: Final = ("aten.empty", "aten.new_empty", "aten.rand", "aten.bernoulli")


class KnownTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes tensors that depend on no input, and answers for those that Python reads."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known: MutableMapping[Tensor, Tensor] = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Trace `func`, or answer it where the answer is a number or decides on a shape."""
        del types
        kwargs = kwargs or {}
        if any(not isinstance(t, FakeTensor) for t in _written(func, args)):
            raise RuntimeError("it writes into a tensor that is no buffer of the module")
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        known = self._is_defined(func) and all(self._real(t) is not None for t in given)
        reads = torch.Tag.data_dependent_output in func.tags
        reads = reads or torch.Tag.dynamic_output_shape in func.tags
        if known and reads:
            real = self._computed(func, args, kwargs)
            if not isinstance(real, Tensor):
                return real
            made = aten.lift_fresh_copy.default(real)
            self._known[made] = real
            return made
        made = func(*args, **kwargs)
        results = [t for t in tree_leaves(made) if isinstance(t, Tensor)]
        if known and results and all(t.numel() <= LARGEST for t in results):
            reals = tree_leaves(self._computed(func, args, kwargs))
            for result, real in zip(results, reals, strict=False):
                self._known[result] = real
        elif func._schema.is_mutable:
            self._forget(given[:1])
        return made

    def _is_defined(self, func: Any) -> bool:
        random = torch.Tag.nondeterministic_seeded in func.tags
        return not random and not str(func).startswith(_UNDEFINED)

    def _real(self, tensor: Tensor) -> Tensor | None:
        if not isinstance(tensor, FakeTensor | FunctionalTensor | nn.Parameter):
            return tensor if tensor.numel() <= LARGEST else None
        return self._known.get(tensor)

    def _computed(self, func: Any, args: Any, kwargs: Any) -> Any:
        reals = tree_map_only(Tensor, self._real, (args, kwargs))
        with _disable_current_modes(), torch.no_grad():
            return func(*reals[0], **reals[1])

    def _forget(self, changed: Sequence[Tensor]) -> None:
        """Something unknown was written into these: so was it into all that share their memory."""
        for tensor in changed:
            real = self._known.get(tensor)
            if real is not None:
                memory = real.untyped_storage().data_ptr()
                for other, value in list(self._known.items()):
                    if value.untyped_storage().data_ptr() == memory:
                        del self._known[other]


def _written(func: Any, args: Sequence[Any]) -> list[Any]:
    """Return the arguments that an operation writes into."""
    return [
        value
        for argument, value in zip(func._schema.arguments, args, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def reads_its_counter(module: nn.Module) -> bool:
    """Whether a normalization averages over all steps, by a number that it reads of a tensor."""
    return (
        isinstance(module, _BatchNorm)
        and module.training
        and module.momentum is None
        and module.num_batches_tracked is not None
    )


def averaging(module: Any, x: Tensor) -> Tensor:
    """Normalize a batch as `module` does; its statistics become means over all steps so far.

    This is what torch does for `momentum=None`, with the weight of the batch as a tensor.
    """
    module._check_input_dim(x)
    mean, var = module.running_mean, module.running_var
    count = module.num_batches_tracked
    if mean is None or var is None or count is None:
        raise TypeError("a normalization without statistics has nothing to average")
    with torch.no_grad():
        count.add_(1)
        weight = 1.0 / count.to(x.dtype)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        found = torch.var_mean(x.detach(), axes, correction=1)
        for running, new in zip((var, mean), found, strict=True):
            running.copy_((1 - weight) * running + weight * new)
    none, eps = None, module.eps
    return nn.functional.batch_norm(x, none, none, module.weight, module.bias, True, 0.0, eps)
