"""Outlines of networks: the shapes of their tensors, without memory, numbers or delay.

A network is outlined by building it on torch's device "meta". To compute there, torch imports its
compiler, which takes longer than all else of loading a model; so nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _Unfilled(TorchFunctionMode):
    """Leaves out the initialisation of weights."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


@contextmanager
def outlining() -> Generator[None]:
    """Networks that are built in here are outlines."""
    with torch.device("meta"), _Unfilled():
        yield


def constant(shape: tuple[int, ...], values: Callable[[], Tensor]) -> Tensor:
    """What a network computes when it is built and does not learn.

    :param shape: of the values
    :param values: computes them; not called in an outline
    """
    outline = torch.empty(shape)
    return outline if outline.is_meta else values()
