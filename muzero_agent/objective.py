"""What a batch of the replay costs a policy: the observations that are compared, and the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from muzero_agent.batch import Batch
from muzero_agent.losses import Losses, Targets, muzero_loss
from muzero_agent.networks import MuZeroNetwork
from muzero_agent.policies import MuZeroPolicy


@cache
def _compiled_loss() -> Callable[..., Losses]:
    """One for all models: it is compiled anew for other networks, coefficients and shapes, as often
    as torch's `recompile_limit` (8) allows in a process; others are not compiled."""
    return torch.compile(muzero_loss)


@dataclass(frozen=True)
class Objective:
    """The weights of the losses, and what is drawn at random for each batch; see `MuZero`."""

    value_coef: float
    consistency_coef: float
    reconstruction_coef: float
    latent_coef: float
    compared_steps: int | None
    random_shift: int | Sequence[int] | None
    gradient_scale: float
    compiled: bool

    def loss(self, policy: MuZeroPolicy, batch: Batch, rng: np.random.Generator) -> Losses:
        """The losses of a policy's network on a batch."""
        unrolled = batch.actions.shape[1]
        compared = unrolled > 0 and (
            max(self.consistency_coef, self.reconstruction_coef, self.latent_coef) > 0
        )
        steps = None
        if self.compared_steps is not None and self.compared_steps < unrolled:
            drawn = rng.choice(unrolled, self.compared_steps, replace=False)
            steps = torch.as_tensor(np.sort(drawn), device=policy.device)
        first, following = batch.split_observations(steps)
        network = policy.network
        seen = network.seen(policy.preprocess(first))
        next_seen = network.seen(policy.preprocess(following)) if compared else None
        if (
            isinstance(next_seen, torch.Tensor)
            and max(self.consistency_coef, self.latent_coef) == 0
        ):
            next_seen = network.decoded_part(next_seen)
        if self.random_shift:
            seen, next_seen = shifted(network, seen, next_seen, self.random_shift, rng)
        loss = _compiled_loss() if self.compiled else muzero_loss
        return loss(
            network,
            seen,
            next_seen,
            Targets(*(getattr(batch, name) for name in Targets._fields)),
            value_coef=self.value_coef,
            consistency_coef=self.consistency_coef,
            reconstruction_coef=self.reconstruction_coef,
            latent_coef=self.latent_coef,
            compared_steps=steps,
            gradient_scale=self.gradient_scale,
        )


def shifted(
    network: MuZeroNetwork,
    seen: Any,
    next_seen: Any,
    most: int | Sequence[int],
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Pictures [B, C, H, W], as they are seen, and those that follow [M * B, D, H, W] step by step:
    a window's are moved alike, by at most so many pixels up or down and to a side, or by as many up
    or down as the first number says and by as many to a side as the second."""
    bounds = np.broadcast_to(most, 2)
    drawn = rng.integers(-bounds, bounds + 1, size=(len(seen), 2))
    offsets = torch.as_tensor(drawn, device=seen.device)
    first = network.shifted(seen, offsets)
    if next_seen is None:
        return first, None
    return first, network.shifted(next_seen, offsets.repeat(len(next_seen) // len(seen), 1))
