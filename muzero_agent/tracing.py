"""Calls of networks whose operations are recorded once, and then made without Python.

Where networks are small, coming back to Python for each operation takes about as long as the
operation. Weights are shared with the network, so that a trace is always up to date.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from muzero_agent.networks import MuZeroNetwork

UNTRACED = 2
"""Calls before the recording, which takes 20 ms and nearly 1 MB for good, of the chess model in the
package 0.3 to 0.5 s and 5 MB: not for what is hardly used."""

Function = Callable[..., tuple[Tensor, ...]]


class Traced:
    """A function of a network, which is traced when it has been asked for some times.

    :param make: makes the function, a module that takes and returns tensors, of a network
    :param flag: attribute by which the class of a network says that this is safe
    """

    def __init__(self, make: Callable[[MuZeroNetwork], nn.Module], flag: str = "traceable") -> None:
        self._make, self._flag = make, flag
        self._function: Function | None = None
        self._kind: _Kind | None = None
        self._asked = 0  # for this kind

    def __reduce__(self) -> tuple[type[Traced], tuple[object, ...]]:
        return Traced, (self._make, self._flag)  # a copied trace would keep the original's weights

    @property
    def is_traced(self) -> bool:
        """Whether the last function that was asked for is a trace."""
        return isinstance(self._function, torch.jit.ScriptModule)

    def of(
        self, network: MuZeroNetwork, like: Tensor, example: Callable[[], tuple[Tensor, ...]]
    ) -> Function:
        """The function of a network, for as long as its parts, mode and device stay as they are.

        :param like: of the device and type of the inputs
        :param example: inputs, with which it is called once when it is traced
        """
        if self._function is None or self._kind is None or not self._kind.holds(network, like):
            self._function, self._asked = self._make(network), 0
            self._kind = _Kind(network, like)
        self._asked += 1
        if self._asked == UNTRACED + 1:
            self._function = self._make(network)
            if _is_safe(network, self._flag):
                self._function = _traced(self._function, example())
        return self._function


class _Kind:
    """What a trace was made for: it knows nothing of modules and parameters that take the place of
    others later, nor of another mode."""

    def __init__(self, network: MuZeroNetwork, like: Tensor) -> None:
        self.network = network
        self.mode = _mode(network, like)
        self.parts: list[tuple[dict[str, Any], str, object]] = [
            (parts, name, part)
            for module in network.modules()
            for parts in (module._parameters, module._buffers, module._modules)
            for name, part in parts.items()
        ]

    def holds(self, network: MuZeroNetwork, like: Tensor) -> bool:
        return (
            network is self.network
            and self.mode == _mode(network, like)
            and all(parts.get(name) is part for parts, name, part in self.parts)
        )


def _mode(network: MuZeroNetwork, like: Tensor) -> tuple[object, ...]:
    kind = like.device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return like.device, like.dtype, network.training, autocast


def _is_safe(network: MuZeroNetwork, flag: str) -> bool:
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    return getattr(network, flag) and flag in vars(type(network)) and not hooked


def _traced(function: Function, example: tuple[Tensor, ...]) -> Function:
    """The same function without Python; where the installed torch cannot trace, or the operations
    depend on data, the function itself."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:  # deprecated, but nothing else does it without a compiler
            traced = torch.jit.trace(function, example, check_trace=False)
        except (AttributeError, RuntimeError):
            return function
    # What depends on data would be frozen, such as an `if` in an activation function; torch's own
    # functions merely check their arguments.
    own = str(Path(torch.__file__).parent)
    risk = torch.jit.TracerWarning  # type: ignore[attr-defined]
    if any(issubclass(w.category, risk) and own not in w.filename for w in said):
        return function
    return cast(Function, traced)
