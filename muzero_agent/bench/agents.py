"""The algorithms of a benchmark: their settings, models and environments."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from gymnasium.error import DependencyNotInstalled
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from muzero_agent import hyperparams
from muzero_agent.hyperparams import Hyperparams, from_section, make_env, read_sections
from muzero_agent.turns import DEFAULTS, RECONSTRUCTION, SUPPORT

OWN_FILE = Path(hyperparams.__file__).with_name("baselines.yml")
MUZERO = "MuZero"
MODULES = {
    MUZERO: "muzero_agent.muzero",
    "PPO": "stable_baselines3",
    "DQN": "stable_baselines3",
    "A2C": "stable_baselines3",
    "QRDQN": "sb3_contrib",
}
NORMALIZE = {"norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon"}
COMMANDS_OWN = {"seed", "device"}  # the benchmark sets them
WITHOUT_EFFECT = {"stats_window_size", "tensorboard_log", "verbose", "_init_setup_model"}
WITHOUT_EFFECT |= {"env_has_masks"}  # the model tells it
# By default: results from before they were there stay what they are.
WITHOUT_EFFECT |= {"overlap", "gradient_scale"}
EVALUATION_ENVS = 20


class Settings(NamedTuple):
    """What it takes to build an algorithm."""

    params: Hyperparams
    normalize: dict[str, Any] | None  # arguments of VecNormalize; None for none of it


def algorithm(name: str) -> type[BaseAlgorithm]:
    """The class of that name."""
    try:
        found: type[BaseAlgorithm] = getattr(import_module(MODULES[name]), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{error.name} is not installed: pip install 'muzero-agent[baselines]'"
        ) from error
    return found


def read_baseline(
    name: str, env_id: str, path: str | os.PathLike[str] = OWN_FILE
) -> tuple[dict[str, Any], str]:
    """The lines of an algorithm and an environment, as they stand in the file.

    :return: them, and what to call them in complaints
    """
    sections = read_sections(path).get(name)
    if not isinstance(sections, dict) or env_id not in sections:
        raise ValueError(
            f"{path} has no settings of {name} for {env_id}: leave {name} out by --algos, or give "
            f"a file by --baselines that has them (`{name}:`, and below it `{env_id}:`)"
        )
    section, where = sections[env_id], f"{path}, {name}, {env_id}"
    if not isinstance(section, dict):
        raise ValueError(f"{where}: expected `key: value` lines")
    return section, where


def settings_from(section: Mapping[str, Any], where: str, name: str) -> Settings:
    """A section's lines, as the constructors want them.

    :param where: what to call the section in complaints
    :param name: of the algorithm
    """
    lines = deepcopy(dict(section))  # QRDQN writes into its policy_kwargs
    normalize = lines.pop("normalize", False)
    if COMMANDS_OWN & lines.keys():
        raise ValueError(f"{where}: seed and device are not settings; seeds are given by --seeds")
    params = from_section(lines, where, algorithm(name))
    if normalize is True:
        normalize = {}
    elif normalize is False:
        return Settings(params, None)
    if not isinstance(normalize, dict) or normalize.keys() - NORMALIZE:
        raise ValueError(
            f"{where}, normalize: write true, false or a mapping of {', '.join(sorted(NORMALIZE))}"
        )
    if "gamma" in params.kwargs:  # as rl_zoo3 does
        normalize = normalize | {"gamma": params.kwargs["gamma"]}
    return Settings(params, normalize)


def left_out(section: Mapping[str, Any], name: str) -> dict[str, str]:
    """Arguments that a section leaves to the algorithm and its policy, with their defaults."""
    cls = algorithm(name)
    defaults = {
        argument: str(parameter.default)
        for callable_ in (cls.policy_aliases[section["policy"]], cls)
        for argument, parameter in inspect.signature(callable_).parameters.items()
        if parameter.default not in (parameter.empty, None)
        and argument not in {*section, *WITHOUT_EFFECT, *COMMANDS_OWN}
    }
    if name == MUZERO:  # which resolves None by itself, and has defaults of its own for its policy
        of_policy = section.get("policy_kwargs") or {}
        own = {**DEFAULTS[1], "reconstruction_coef": RECONSTRUCTION[1]}
        for resolved, given in ((own, section), (SUPPORT[1], of_policy)):
            defaults |= {key: str(x) for key, x in resolved.items() if given.get(key) is None}
    return defaults


def build(name: str, env_id: str, settings: Settings, seed: int) -> BaseAlgorithm:
    """A model as it is before learning."""
    params = settings.params
    envs = _envs(env_id, params, params.n_envs, seed)
    if settings.normalize is not None:
        envs = VecNormalize(envs, **settings.normalize)
    return algorithm(name)(params.policy, envs, seed=seed, device="cpu", **params.kwargs)


def evaluation_envs(env_id: str, settings: Settings, seed: int, episodes: int) -> VecEnv:
    """Where a model is looked at: seeded apart from where it learns, and from other seeds' envs."""
    count = min(episodes, EVALUATION_ENVS)
    envs = _envs(env_id, settings.params, count, 1_000_000 + 1_000 * seed)
    if settings.normalize is not None:
        envs = VecNormalize(envs, **settings.normalize | {"norm_reward": False, "training": False})
    return envs


def _envs(env_id: str, params: Hyperparams, count: int, seed: int) -> VecEnv:
    try:
        return make_env(
            env_id,
            count,
            seed,
            params.frame_stack,
            params.atari,
            params.env_kwargs,
            params.show_actions,
        )
    except DependencyNotInstalled as error:
        extra = "box2d" if "box2d" in str(error).lower() else "all"
        raise ImportError(
            f"{env_id} needs more than is installed: pip install 'muzero-agent[{extra}]' ({error})"
        ) from error
