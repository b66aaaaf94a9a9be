"""Functions of networks without Python: their operations are recorded once.

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
"""A trace takes 20 ms, of large networks more, and nearly 1 MB for good: not for what is hardly
used."""

Function = Callable[..., tuple[Tensor, ...]]


class Traced:
    """A function of a network, which is traced when it has been asked for some times.

    :param make: makes the function, a module that takes and returns tensors, of a network
    """

    def __init__(self, make: Callable[[MuZeroNetwork], nn.Module]) -> None:
        self._make = make
        self._function: Function | None = None
        self._kind: _Kind | None = None
        self._asked = 0  # for this kind

    def __reduce__(self) -> tuple[type[Traced], tuple[object, ...]]:
        return Traced, (self._make,)  # a copied trace would keep the original's weights

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
            self._function = _traced(network, self._make(network), example())
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
    device = like.device
    return device, like.dtype, network.training, torch.is_autocast_enabled(device.type)


def _traced(network: MuZeroNetwork, function: nn.Module, example: tuple[Tensor, ...]) -> Function:
    """The same function without Python. Where that is not safe, or the installed torch cannot
    trace, the function itself."""
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    if not network.traceable or "traceable" not in vars(type(network)) or hooked:
        return function
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
