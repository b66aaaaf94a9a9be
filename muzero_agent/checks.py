"""Bad input is refused here, with an error that names the fix."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecNormalize

from muzero_agent.actions import MOST_ACTIONS, mask_sizes, num_actions
from muzero_agent.batch import Batch
from muzero_agent.categorical import Support, squashed
from muzero_agent.planner import SEARCHES
from muzero_agent.turns import DEFAULTS
from muzero_agent.types import HOTTEST, MASK_KEY, Observation

OF_THE_SEARCH = {
    "num_simulations": "num_simulations", "search": "search", "discount": "gamma",
    "terminal_rewards": "terminal_rewards", "dirichlet_alpha": "dirichlet_alpha",
    "max_num_considered_actions": "max_num_considered_actions",
    "dirichlet_fraction": "dirichlet_fraction",
}  # fmt: skip
"""Arguments of policies that are told by `MuZero`'s own, and the names that these have."""


def check_arguments(given: Mapping[str, Any]) -> None:
    """Refuse settings that cannot work, before anything is built.

    :param given: arguments of `MuZero` by name, or its attributes
    :raises ValueError: with the name of the setting, and what it may be
    """
    frequency = given["train_freq"]
    integers: dict[str, tuple[Any, int]] = {
        name: (given[name], least)
        for least, names in (
            (2 * given.get("n_envs", 1), "buffer_size"),  # a transition takes two states
            (1, "num_simulations unroll_steps td_steps batch_size"),
            (1, "max_num_considered_actions exploration_length"),
            (0, "reanalyse_ratio learning_starts opening_actions"),
            (-1, "gradient_steps"),
        )
        for name in names.split()
    }
    if isinstance(frequency, tuple) and len(frequency) != 2:
        raise ValueError(f"train_freq={frequency!r}: give a number of steps, or (n, 'episode')")
    window = "stats_window_size"  # which SB3 keeps under another name
    integers[window] = (given.get(f"_{window}", given.get(window)), 1)
    integers["train_freq"] = (frequency[0] if isinstance(frequency, tuple) else frequency, 1)
    for name, (value, least) in integers.items():
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not (whole and value >= least):
            raise ValueError(f"{name}={value!r}: give a whole number of at least {least}")
    for name in ("gamma", "td_lambda", "target_decay", "dirichlet_fraction", "gradient_scale"):
        if not 0.0 <= _number(given[name]) <= 1.0:
            raise ValueError(f"{name}={given[name]!r}: give a number in [0, 1]")
    for name in ("value_coef", "consistency_coef", "reconstruction_coef", "priority_exponent"):
        if name == "reconstruction_coef" and given[name] is None:
            continue
        if not 0.0 <= _number(given[name]) < np.inf:
            raise ValueError(f"{name}={given[name]!r}: give a number of 0 or more")
    if not _number(given["regret_tolerance"]) >= 0.0:
        raise ValueError(
            f"regret_tolerance={given['regret_tolerance']!r}: give 0 or more, or inf (YAML: .inf)"
        )
    for name, most in (("exploration_rate", 1.0), ("temperature", HOTTEST)):
        if not (callable(given[name]) or 0.0 <= _number(given[name]) <= most):
            raise ValueError(
                f"{name}={given[name]!r}: give a number in [0, {most:g}], or a function of the "
                "remaining progress"
            )
    rate = given["learning_rate"]
    if not (callable(rate) or 0.0 <= _number(rate) < np.inf):
        raise ValueError(
            f"learning_rate={rate!r}: give a number of 0 or more, or a function of the remaining "
            "progress"
        )
    for name in ("max_grad_norm", "dirichlet_alpha"):
        if not _number(given[name]) > 0.0:
            raise ValueError(f"{name}={given[name]!r}: give a number above 0")
    if given["num_players"] not in DEFAULTS:
        raise ValueError(f"num_players={given['num_players']!r}: give 1 or 2")
    for name, least in (("temperature_moves", 0), ("compared_steps", 1)):
        number = given[name]
        if not (number is None or (_is_whole(number) and number >= least)):
            raise ValueError(f"{name}={number!r}: give a whole number of at least {least}, or None")
    for name in ("torch_compile", "augment", "overlap"):
        if not isinstance(given[name], bool):
            raise ValueError(f"{name}={given[name]!r}: give True or False")
    for name in OF_THE_SEARCH.keys() & (given["policy_kwargs"] or {}).keys():
        raise ValueError(
            f"policy_kwargs={given['policy_kwargs']!r}: {name} would have no effect there; give "
            f"MuZero({OF_THE_SEARCH[name]}=...)"
        )
    if given["search"] not in SEARCHES:
        raise ValueError(f"search={given['search']!r}: choose one of {list(SEARCHES)}")


def check_spaces(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """Refuse spaces that are not supported, and say what to do instead."""
    if not isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise ValueError(
            f"action space {action_space}: MuZero needs Discrete, MultiDiscrete or MultiBinary; "
            "wrap the environment so that each of its actions has a number "
            "(gymnasium.wrappers.TransformAction)"
        )
    if len(action_space.shape or ()) > 1:
        raise ValueError(
            f"action space {action_space}: it may have one dimension only; flatten it in a wrapper "
            "(gymnasium.wrappers.TransformAction)"
        )
    if not 1 <= num_actions(action_space) <= MOST_ACTIONS:
        raise ValueError(
            f"action space {action_space}: each of its combinations is an action to the search, "
            f"and {MOST_ACTIONS:,} are the most: leave out or merge some in a wrapper "
            "(gymnasium.wrappers.TransformAction)"
        )
    if np.any(getattr(action_space, "start", 0)):
        raise ValueError(
            f"action space {action_space}: actions must be numbered from 0; subtract `start` in a "
            "wrapper (gymnasium.wrappers.TransformAction)"
        )
    supported = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    parts = {"": observation_space}
    if isinstance(observation_space, spaces.Dict):
        parts = dict(observation_space.spaces)
    for part in parts.values():
        if not isinstance(part, supported):
            raise ValueError(
                f"observation space {part}: supported are Box, Discrete, MultiDiscrete, "
                "MultiBinary and a flat Dict of these; flatten others with "
                "gymnasium.wrappers.FlattenObservation"
            )
        if isinstance(part, spaces.Box) and not part.shape:
            raise ValueError(
                f"observation space {part}: a single number has no dimension; make it an array of "
                "the shape (1,) in a wrapper (gymnasium.wrappers.ReshapeObservation)"
            )
        if np.any(getattr(part, "start", 0)):
            raise ValueError(
                f"observation space {part}: values must count from 0; subtract `start` in a "
                "wrapper (gymnasium.wrappers.TransformObservation)"
            )
        if isinstance(part, spaces.MultiDiscrete) and part.nvec.ndim != 1:
            raise ValueError(
                f"observation space {part}: a MultiDiscrete may have one dimension only; flatten "
                "it in a wrapper (gymnasium.wrappers.FlattenObservation)"
            )
    shapes = [(size,) for size in mask_sizes(action_space)]
    if MASK_KEY in parts and parts[MASK_KEY].shape not in shapes:
        raise ValueError(
            f"observation space: {MASK_KEY!r} is {parts[MASK_KEY]}, of the shape "
            f"{parts[MASK_KEY].shape}; give {' or '.join(map(str, shapes))}, one entry for each "
            "action"
        )


def first_not_finite(data: Observation) -> int | None:
    """The first row of a batch [B, ...] that holds NaN or infinity; None if there is none."""
    for part in data.values() if isinstance(data, dict) else [data]:
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            return int(np.flatnonzero(~np.isfinite(part).reshape(len(part), -1).all(-1))[0])
    return None


def check_terminal_rewards(reward: NDArray[Any], dones: NDArray[Any]) -> None:
    """Raise for rewards that are no results of games, where they are taken for such.

    :param reward: float [n_envs]
    :param dones: bool [n_envs]
    """
    wrong = (np.abs(reward) > 1.0) | (reward != 0) & ~dones.astype(np.bool_)
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"environment {i} gave the reward {float(reward[i]):.6g} "
            + ("at the end of" if dones[i] else "during")
            + " an episode, and with terminal_rewards=True, the default in games, rewards come "
            "with the end alone and are at most 1 in size: give MuZero(terminal_rewards=False)"
        )


def check_shift(
    random_shift: int | Sequence[int] | None, shifts: bool, space: spaces.Space[Any]
) -> None:
    """Refuse to move pictures where there are none, or out of sight.

    :param random_shift: see `MuZero`
    :param shifts: see `MuZeroNetwork.shifts`
    :param space: of what the network sees
    """
    if random_shift is None:
        return
    pair = list(random_shift) if isinstance(random_shift, Sequence) else [random_shift] * 2
    if len(pair) != 2 or not all(_is_whole(most) and most >= 0 for most in pair):
        raise ValueError(
            f"random_shift={random_shift!r}: give a whole number of at least 0, or two of them, up "
            "or down and to a side, or None"
        )
    if any(pair) and not shifts:
        raise ValueError(
            f"random_shift={random_shift}: this network reduces no pixels, as that of CnnPolicy "
            "does where they are more than 32 a side: give None"
        )
    if any(pair) and 2 * max(pair) >= sorted(space.shape or ())[1]:
        raise ValueError(
            f"random_shift={random_shift}: of the pictures, {space.shape}, too little would be "
            "left in sight: give less than half a side"
        )


def check_finite(
    what: str, data: Observation, step: int, env: int | None = None, normalized: bool = False
) -> None:
    """Refuse NaN and infinity before they reach replay or networks.

    :param what: "observation" or "reward"
    :param data: rows [B, ...], one for each environment
    :param step: of learning, for the message
    :param env: whose data it is, where it is of one environment only
    :param normalized: whether a VecNormalize has seen it
    """
    index = first_not_finite(data)
    if index is None:
        return
    advice = ""
    if normalized:
        advice = (
            ". VecNormalize has it in its statistics already: wrap what it wraps into "
            "VecCheckNan(..., raise_exception=True), and start with fresh or saved statistics"
        )
    raise ValueError(
        f"environment {index if env is None else env} gave a {what} that is not finite (NaN or "
        f"infinity) at step {step}. Nothing of that step was stored: mend the environment, or "
        f"clean its output in a wrapper, and call `learn` again{advice}"
    )


def check_last_observations(ends: Mapping[int, Any]) -> None:
    """Refuse an episode whose last observation is not told, which is not that of the reset."""
    for env, obs in ends.items():
        if obs is None:
            raise ValueError(
                f'environment {env} ended an episode without info["terminal_observation"], its '
                "last observation, which SB3's vectorised environments give: a wrapper around them "
                "has to hand it on"
            )


def check_legal(legal: NDArray[np.bool_], step: int) -> None:
    """Refuse masks [n_envs, A] that leave an environment without an action."""
    if not legal.any(-1).all():
        raise ValueError(
            f"environment {int(np.flatnonzero(~legal.any(-1))[0])} has no legal action at step "
            f"{step}: its mask is all zero, though the episode goes on; end the episode there, or "
            "mend the mask"
        )


def check_normalize(
    normalize: VecNormalize, observation_space: spaces.Space[Any], reconstruction_coef: float
) -> None:
    """Refuse a VecNormalize that would hide masks or observations; warn of one of rewards.

    :param observation_space: of the outermost wrapper
    :param reconstruction_coef: see `MuZero`
    """
    if normalize.norm_obs and reconstruction_coef > 0:
        raise ValueError(
            "VecNormalize(norm_obs=True) takes observations out of 0 .. 1, where their "
            "reconstruction is measured: give VecNormalize(norm_obs=False), or "
            "reconstruction_coef=0"
        )
    if normalize.norm_obs and MASK_KEY in (normalize.norm_obs_keys or ()):
        raise ValueError(
            f"VecNormalize would normalise {MASK_KEY!r}, after which illegal actions cannot be "
            "told from legal ones: name the other keys in VecNormalize(norm_obs_keys=[...])"
        )
    if normalize.observation_space != observation_space:
        raise ValueError(
            "VecNormalize lies inside of a wrapper that changes observations, where the replay "
            "cannot get at the original ones: put VecNormalize around that wrapper, as in "
            "VecNormalize(VecFrameStack(env, 4)) and, for images, "
            "VecNormalize(VecTransposeImage(env))"
        )
    if normalize.norm_reward:
        warnings.warn(
            "VecNormalize(norm_reward=True) changes the scale of rewards while values in the "
            "replay keep the old one: prefer norm_reward=False, MuZero's value transform already "
            "handles scales",
            stacklevel=5,
        )


def warn_of_clipping(batch: Batch, support: Support) -> bool:
    """Whether targets lie beyond what the support reaches, which are learned as its bound."""
    largest = max(float(part.abs().max()) for part in (batch.values, batch.rewards) if part.numel())
    if largest <= 1.001 * support.reach:
        return False
    bound = math.ceil(squashed(2 * largest))
    warnings.warn(
        f"values or rewards as large as {largest:.6g} are learned as {support.reach:.6g}: give "
        f"policy_kwargs=dict(support_bound={bound}), the largest |h(x)| that can be told "
        "(see `categorical.Support`), or scale the rewards",
        stacklevel=4,
    )
    return True


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _number(value: object) -> float:
    """NaN, which is in no range, for what is not a number."""
    return float(value) if isinstance(value, int | float | np.number) else np.nan
