"""Training data seen in the mirror: where turning a board changes nothing, one game is several."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from muzero_agent.types import MASK_KEY, Symmetries

_T = TypeVar("_T", bound=np.generic)


def draw(symmetries: Symmetries, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A symmetry, by its number, for each of `size` windows, all with the same chance."""
    return rng.integers(len(symmetries.action), size=size)


def turn_observations(symmetries: Symmetries, which: NDArray[np.int64], obs: Any) -> Any:
    """Observations [B, T, ...] under the symmetries `which` [B]; of a Dict the parts `observation`
    and `action_mask`."""
    if isinstance(obs, dict):
        turned = dict(obs)
        turned["observation"] = turn_observations(symmetries, which, obs["observation"])
        if MASK_KEY in obs:
            turned[MASK_KEY] = turn_policies(symmetries, which, obs[MASK_KEY])
        return turned
    flat = obs.reshape(*obs.shape[:2], -1)
    sources = symmetries.observation[which][:, None, :]
    return np.take_along_axis(flat, sources, axis=-1).reshape(obs.shape)


def turn_actions(
    symmetries: Symmetries, which: NDArray[np.int64], actions: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Actions [B, K] under the symmetries `which` [B]."""
    turned: NDArray[np.int64] = symmetries.action[which[:, None], actions]
    return turned


def turn_policies(
    symmetries: Symmetries, which: NDArray[np.int64], policies: NDArray[_T]
) -> NDArray[_T]:
    """What belongs to actions, [B, T, A], under the symmetries `which` [B]."""
    turned = np.empty_like(policies)
    targets = np.broadcast_to(symmetries.action[which][:, None, :], policies.shape)
    np.put_along_axis(turned, targets, policies, axis=-1)
    return turned
