"""Where the masks of legal actions come from: observations, or the environments' own method."""

from __future__ import annotations

import sys
import warnings
from types import FrameType
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from muzero_agent.types import MASK_KEY


def has_mask(space: spaces.Space[Any]) -> bool:
    """Whether observations of this space carry an action mask."""
    return isinstance(space, spaces.Dict) and MASK_KEY in space.spaces


def tells_masks(env: VecEnv) -> bool:
    """Whether masks come from the environments' method `action_masks`, not with observations."""
    return not has_mask(env.observation_space) and env.has_attr("action_masks")


def masks_of(env: VecEnv) -> NDArray[Any]:
    """What that method says now, [n_envs, A].

    :raises TypeError: if it is no method, but an array, say
    """
    try:
        return np.stack(env.env_method("action_masks"))
    except TypeError as error:
        if all(map(callable, env.get_attr("action_masks"))):  # the fault is within
            raise
        raise TypeError(
            "action_masks of the environment is no method: make it one that takes nothing and "
            f"returns a mask, 1 for each action that is legal now ({error})"
        ) from error


def network_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The part of an observation space that the network sees.

    A Dict of exactly `observation` and `action_mask` counts as its observation.
    """
    if isinstance(space, spaces.Dict) and set(space.spaces) == {"observation", MASK_KEY}:
        return space["observation"]
    return space


def warn_of_missing_masks() -> None:
    """Tell whoever called this package that a model is asked without the masks it learned with."""
    warnings.warn(
        "this model learned with the environment's `action_masks()`, and without masks it "
        'may play illegal actions: give predict(action_masks=...), or put "action_mask" '
        "into a Dict observation, where evaluate_policy and EvalCallback heed it, too",
        stacklevel=_level_outside(),
    )


def _level_outside() -> int:
    """The `stacklevel` of a warning at which whoever called this package stands."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and frame.f_globals.get("__name__", "").startswith("muzero_agent."):
        frame, level = frame.f_back, level + 1
    return level
