"""Tuned settings per environment: `hyperparams.yml`, or another file with rl_zoo3's keys."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import yaml
from stable_baselines3.common import torch_layers
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack
from torch import nn

from muzero_agent.adapters.envs.atari import is_atari, make_atari_env
from muzero_agent.adapters.envs.minatar import register_minatar
from muzero_agent.adapters.envs.names import find_game, own_name
from muzero_agent.adapters.envs.pettingzoo import make_turn_based_env
from muzero_agent.muzero import MuZero

OWN_FILE = Path(__file__).with_name("hyperparams.yml")
NOT_TUNABLE = {"policy", "env", "_init_setup_model"}
GIVEN_TO_POLICIES = {"observation_space", "action_space", "lr_schedule"}  # by the algorithm
CLASSES: Mapping[str, Mapping[str, type[Any]]] = {
    argument: {known.__name__: known for known in classes}
    for argument, classes in {
        "activation_fn": (
            nn.ReLU, nn.Tanh, nn.ELU, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.Mish,
        ),
        "features_extractor_class": (
            torch_layers.FlattenExtractor, torch_layers.CombinedExtractor, torch_layers.NatureCNN,
        ),
        "optimizer_class": (
            torch.optim.AdamW, torch.optim.Adam, torch.optim.RMSprop, torch.optim.SGD,
        ),
    }.items()
}  # fmt: skip
"""Those that files may name in `policy_kwargs`: nothing is imported that a file names."""
SCHEDULES = {  # of all algorithms
    "learning_rate", "exploration_rate", "temperature", "clip_range", "clip_range_vf",
}  # fmt: skip
ATARI_WRAPPER = "stable_baselines3.common.atari_wrappers.AtariWrapper"
SHOW_ACTIONS = "muzero_agent.adapters.envs.atari.ShowActions"
"""What a file may name as `env_wrapper`: the former, or both in this order."""


class Hyperparams(NamedTuple):
    """What it takes to learn an environment.

    params = load_hyperparams(env_id)
    env = params.make_env(env_id, seed=0)
    model = MuZero(params.policy, env, **params.kwargs).learn(params.n_timesteps)
    """

    n_timesteps: int
    n_envs: int
    policy: str
    kwargs: dict[str, Any]  # further keyword arguments of `MuZero`
    frame_stack: int = 1
    atari: bool = False  # whether observations are preprocessed as usual for Atari
    env_kwargs: Mapping[str, bool | int | float] = MappingProxyType({})
    show_actions: bool = False  # whether they show the actions that led to them, too

    def make_env(self, env_id: str, seed: int | None = None) -> VecEnv:
        """The environments, as `make_env` makes them."""
        return make_env(
            env_id,
            self.n_envs,
            seed,
            self.frame_stack,
            self.atari,
            self.env_kwargs,
            self.show_actions,
        )


def make_env(
    env_id: str,
    n_envs: int = 1,
    seed: int | None = None,
    frame_stack: int = 1,
    atari: bool = False,
    env_kwargs: Mapping[str, Any] = MappingProxyType({}),
    show_actions: bool = False,
) -> VecEnv:
    """Environments with the preprocessing that a section of settings names.

    :param env_id: id in Gymnasium's registry, or a game; see `adapters.envs.names.find_game`
    :param n_envs: number of environments
    :param seed: of the first environment; the others count up
    :param frame_stack: observations that are stacked; 1 leaves them alone
    :param atari: see `adapters.envs.atari.make_atari_env`
    :param env_kwargs: further arguments of the environment
    :param show_actions: those of Atari show actions, see `adapters.envs.atari.ShowActions`
    :raises ValueError: if it does not take these
    """
    if show_actions and not atari:
        raise ValueError(f"{env_id}: show_actions is of Atari's preprocessing: give atari=True")
    kwargs = dict(env_kwargs)
    register_minatar(env_id)
    try:
        if (game := find_game(env_id)) is not None:
            env: VecEnv = make_turn_based_env(partial(game, **kwargs), n_envs, seed)
        elif atari:
            env = make_atari_env(env_id, n_envs, seed, env_kwargs=kwargs, show_actions=show_actions)
        else:
            env = make_vec_env(env_id, n_envs, seed, env_kwargs=kwargs)
    except TypeError as error:
        if not kwargs:
            raise
        raise ValueError(f"{env_id} cannot be made with env_kwargs={kwargs}: {error}") from error
    return VecFrameStack(env, frame_stack) if frame_stack > 1 else env


def load_hyperparams(
    env_id: str,
    path: str | os.PathLike[str] = OWN_FILE,
    changes: Mapping[str, Any] | None = None,
) -> Hyperparams:
    """The settings of an environment, or, if it has none, those of the section `atari` for Atari
    games, and of `default` for all else.

    Text is never evaluated: `policy_kwargs` is a YAML mapping, and the only schedule is
    "lin_0.001", which falls from 0.001 to 0 in the course of learning. Nor is anything imported:
    `env_wrapper` may name SB3's AtariWrapper alone, and `policy_kwargs` those of `CLASSES`.

    :param env_id: id in Gymnasium's registry
    :param path: YAML file, a section per environment
    :param changes: values that take the place of those in the file
    :raises ValueError: naming file, section and key of what cannot be used
    """
    section, where = read_section(env_id, path)
    changes = dict(changes or {})
    if changes:
        where += f" with {', '.join(f'{key}={value}' for key, value in changes.items())}"
    return from_section(section | changes, where)


def read_section(
    env_id: str, path: str | os.PathLike[str] = OWN_FILE
) -> tuple[dict[str, Any], str]:
    """The lines of an environment, or of `atari` or `default`, as they stand in the file.

    :return: them, and what to call the section in complaints
    """
    sections = read_sections(path)
    register_minatar(env_id)
    name = env_id if env_id in sections else own_name(env_id)
    if name not in sections:
        name = "atari" if is_atari(env_id) and "atari" in sections else "default"
    if name not in sections:
        raise ValueError(f"{path} has no settings for {env_id}: add a section of that name")
    section, where = sections[name], f"{path}, {name}"
    if not isinstance(section, dict):
        raise ValueError(f"{where}: expected `key: value` lines")
    return section, where


def read_sections(path: str | os.PathLike[str]) -> dict[str, Any]:
    """All of a file."""
    try:
        sections = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(sections, dict):
        raise ValueError(f"{path}: expected a section per environment, such as `CartPole-v1:`")
    return sections


def from_section(
    section: Mapping[str, Any], where: str, algorithm: type[BaseAlgorithm] = MuZero
) -> Hyperparams:
    """A section's lines as an algorithm's constructor wants them.

    :param where: what to call the section in complaints
    """
    kwargs = dict(section)
    missing = {"n_timesteps", "policy"} - kwargs.keys()
    if missing:
        raise ValueError(f"{where}: {' and '.join(sorted(missing))} missing")
    n_timesteps = _positive(kwargs.pop("n_timesteps"), f"{where}, n_timesteps")
    n_envs = _positive(kwargs.pop("n_envs", 1), f"{where}, n_envs")
    frame_stack = _positive(kwargs.pop("frame_stack", 1), f"{where}, frame_stack")
    wrappers = _wrappers(kwargs.pop("env_wrapper", None), f"{where}, env_wrapper")
    env_kwargs = _numbers(kwargs.pop("env_kwargs", {}), f"{where}, env_kwargs")
    policy = kwargs.pop("policy")
    if policy not in [*algorithm.policy_aliases]:
        raise ValueError(f"{where}, policy: {policy!r} is none of {list(algorithm.policy_aliases)}")
    _check_names(kwargs, where, algorithm, NOT_TUNABLE)
    for key in SCHEDULES & kwargs.keys():
        kwargs[key] = _schedule(kwargs[key], f"{where}, {key}")
    if isinstance(kwargs.get("train_freq"), list):  # [1, episode]
        kwargs["train_freq"] = tuple(kwargs["train_freq"])
    if "policy_kwargs" in kwargs:
        kwargs["policy_kwargs"] = _policy_kwargs(
            kwargs["policy_kwargs"], f"{where}, policy_kwargs", algorithm.policy_aliases[policy]
        )
    return Hyperparams(
        n_timesteps,
        n_envs,
        policy,
        kwargs,
        frame_stack,
        atari=ATARI_WRAPPER in wrappers,
        env_kwargs=env_kwargs,
        show_actions=SHOW_ACTIONS in wrappers,
    )


def _check_names(
    kwargs: dict[str, Any], where: str, built: type[BaseAlgorithm | BasePolicy], given: set[str]
) -> None:
    """:param given: arguments of what is built that are not for settings"""
    known = inspect.signature(built).parameters.keys() - given
    for key in kwargs:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f": there are {sorted(known)}"
            raise ValueError(f"{where}: {key} is not an argument of {built.__name__}{hint}")


def _policy_kwargs(value: object, where: str, policy: type[BasePolicy]) -> dict[str, Any]:
    """A policy's arguments, with classes for their names."""
    if not isinstance(value, dict):
        raise ValueError(
            f"{where}: text is not evaluated; write a mapping, as in "
            "`policy_kwargs: {net_arch: [64, 64]}`"
        )
    _check_names(value, where, policy, GIVEN_TO_POLICIES)
    kwargs = dict(value)
    for name in CLASSES.keys() & kwargs:
        if kwargs[name] not in [*CLASSES[name]]:
            raise ValueError(f"{where}, {name}: {kwargs[name]!r} is none of {[*CLASSES[name]]}")
        kwargs[name] = CLASSES[name][kwargs[name]]
    for name in ("normalize_images", "normalize_observations"):
        if not isinstance(kwargs.get(name, True), bool):
            raise ValueError(f"{where}, {name}: {kwargs[name]!r} is neither true nor false")
    return kwargs


def _numbers(value: object, where: str) -> dict[str, bool | int | float]:
    """A mapping to numbers; text might name a file, and nothing is opened that a file names."""
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(number, bool | int | float)
        for name, number in value.items()
    ):
        raise ValueError(f"{where}: {value!r} is no mapping from names to numbers or booleans")
    return value


def _wrappers(value: object, where: str) -> list[str]:
    """The wrappers asked for, as rl_zoo3 does by their names: Atari's preprocessing, and around it
    what shows actions, or none."""
    if value is None:
        return []
    names = value if isinstance(value, list) else [value]
    if names not in ([ATARI_WRAPPER], [ATARI_WRAPPER, SHOW_ACTIONS]):
        raise ValueError(
            f"{where}: {value!r} is not {ATARI_WRAPPER}, nor [{ATARI_WRAPPER}, {SHOW_ACTIONS}], "
            "the only ones that are known, since nothing is imported that a file names: use others "
            "in a script of your own"
        )
    return names


def _positive(value: object, where: str) -> int:
    """A count, also where it is written as `!!float 1e5`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1 or value % 1:
        raise ValueError(f"{where}: {value!r} is not a positive whole number")
    return int(value)


def _schedule(value: object, where: str) -> float | LinearSchedule:
    """A number, or "lin_<number>"."""
    try:
        if isinstance(value, str) and value.startswith("lin_"):
            return LinearSchedule(start=float(value[4:]), end=0.0, end_fraction=1.0)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    except ValueError:
        pass
    raise ValueError(
        f"{where}: {value!r} is neither a number nor lin_<number> (YAML takes 1e-3 for text: "
        "write 0.001 or 1.0e-3)"
    )
