"""Optimizers that torch does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_EPSILON = 1e-8


def orthogonalized(matrices: Tensor) -> Tensor:
    """Matrices [..., M, N] with their singular values brought near 1.

    To 0.68 .. 1.2, but for those below a 500th of the matrix's norm, which stay smaller: five steps
    of a Newton-Schulz iteration with Jordan's polynomial
    (https://kellerjordan.github.io/posts/muon, 2024).
    """
    a, b, c = _QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for the kernels of convolutions, AdamW for all else.

    An update of a kernel, as a matrix [planes out, all that each of them sums], is the momentum's
    nearest orthogonal matrix: all directions are learned alike, not those first in which gradients
    are large. 1 x 1 kernels count to all else, for those of heads are output layers.

    :param params: parameters, or groups of them
    :param lr: of both
    :param momentum: of Muon, Nesterov's
    :param update_rms: of an entry's change by Muon, in learning rates: AdamW's is about 0.2 (Liu et
        al. 2025, arXiv 2502.16982, section 2.2)
    :param weight_decay: of both, decoupled
    :param betas: of AdamW
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        update_rms: float = 0.2,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        if not (min(lr, update_rms, weight_decay) >= 0 and 0 <= momentum < 1):
            raise ValueError(
                f"lr={lr}, update_rms={update_rms}, weight_decay={weight_decay}, "
                f"momentum={momentum}: give numbers of at least 0, and a momentum below 1"
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "update_rms": update_rms,
            "weight_decay": weight_decay,
            "betas": betas,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            told = [p for p in group["params"] if p.grad is not None]
            self._step_kernels([p for p in told if _is_kernel(p)], group)
            for parameter in told:
                if not _is_kernel(parameter):
                    self._step_other(parameter, group)
        return loss

    def _step_kernels(self, kernels: list[Tensor], group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for kernel in kernels:
            state = self.state[kernel]
            if not state:
                state["momentum"] = torch.zeros_like(kernel)
            assert kernel.grad is not None
            state["momentum"].lerp_(kernel.grad, 1 - group["momentum"])
            ahead = kernel.grad.lerp(state["momentum"], group["momentum"])
            by_shape.setdefault(kernel.shape, []).append((kernel, ahead.flatten(1)))
        for shape, pairs in by_shape.items():  # those of one shape at once: they are small
            updates = orthogonalized(torch.stack([update for _, update in pairs]))
            size = group["lr"] * group["update_rms"] * max(shape[0], shape[1:].numel()) ** 0.5
            for (kernel, _), update in zip(pairs, updates, strict=True):
                kernel.mul_(1 - group["lr"] * group["weight_decay"])
                kernel.sub_(update.view(shape), alpha=size)

    def _step_other(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (state["square"] / (1 - beta2 ** state["step"])).sqrt_().add_(_EPSILON)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        size = group["lr"] / (1 - beta1 ** state["step"])
        parameter.addcdiv_(state["mean"], root, value=-size)


def _is_kernel(parameter: Tensor) -> bool:
    return parameter.ndim == 4 and parameter.shape[2:].numel() > 1
