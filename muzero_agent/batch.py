"""What the replay hands out: names of rows, and batches of windows for training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Tensors = torch.Tensor | dict[str, torch.Tensor]


class Rows(NamedTuple):
    """Rows of the replay: environment and absolute row number."""

    env: NDArray[np.int64]  # [B]
    row: NDArray[np.int64]  # [B]


class Batch(NamedTuple):
    """B windows of K + 1 states and K transitions; masks are float32, 1 where a loss applies."""

    observations: Tensors  # [B, K + 1, ...]
    actions: torch.Tensor  # int64 [B, K]; random past the end of an episode
    rewards: torch.Tensor  # float32 [B, K]; 0 past the end
    values: torch.Tensor  # float32 [B, K + 1], value targets; 0 past a termination
    policies: torch.Tensor  # float32 [B, K + 1, A], policy targets
    reward_mask: torch.Tensor  # [B, K]; 1 but behind a truncation: a terminal state absorbs
    value_mask: torch.Tensor  # [B, K + 1]; 1 but at and behind a truncation
    policy_mask: torch.Tensor  # [B, K + 1]; 1 where a search was stored
    consistency_mask: torch.Tensor  # [B, K]; 1 where the next observation exists
    weights: torch.Tensor  # float32 [B], importance weights, at most 1
    rows: Rows

    def split_observations(self, steps: torch.Tensor | None = None) -> tuple[Tensors, Tensors]:
        """The first observations [B, ...], and the next ones [M * B, ...] step by step.

        :param steps: int64 [M], which of the next ones, counted from 0; None: all K
        """

        def following(x: torch.Tensor) -> torch.Tensor:
            following = x[:, 1:] if steps is None else x[:, steps + 1]
            return following.transpose(0, 1).flatten(0, 1)

        obs = self.observations
        if isinstance(obs, dict):
            return (
                {key: part[:, 0] for key, part in obs.items()},
                {key: following(part) for key, part in obs.items()},
            )
        return obs[:, 0], following(obs)
