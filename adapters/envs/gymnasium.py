"""Gymnasium's vector environments as Stable-Baselines3's."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar, overload

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.wrappers.vector import DictInfoToList
from numpy.typing import NDArray
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from muzero_agent.types import Observation

Other = TypeVar("Other")

SAME_STEP = "SameStep"
"""Value of `gymnasium.vector.AutoresetMode.SAME_STEP`."""

MOST_SEED = 2**30
"""Vector environments in C++ take seeds of 31 bits, and count them up."""


@overload
def as_vec_env(env: VectorEnv[Any, Any, Any]) -> VecEnv: ...
@overload
def as_vec_env(env: Other) -> Other: ...
def as_vec_env(env: Any) -> Any:
    """A monitored VecEnv of one of Gymnasium's vector environments; all else as it is.

    MuZero calls this by itself; `evaluate_policy` and `EvalCallback` want its result.

    :raises ValueError: if it cannot be one; see `GymnasiumVecEnv`
    """
    if not isinstance(env, VectorEnv):
        return env
    adapted = GymnasiumVecEnv(env)
    return adapted if all(adapted.env_is_wrapped(Monitor)) else VecMonitor(adapted)


class GymnasiumVecEnv(VecEnv):
    """A VecEnv of one of Gymnasium's vector environments, such as ale-py's `AtariVectorEnv`.

    Single environments are asked for attributes where the vector environment can ask them: those of
    `SyncVectorEnv` and `AsyncVectorEnv` can be, those in C++ have none.

    :param env: it has to reset environments in the step in which they end, as a VecEnv does
    :raises ValueError: if it does not, with how to make one that does
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        _check(env)
        self.env = env
        self._listed = DictInfoToList(env)  # infos as a list
        self._actions: NDArray[Any] = np.zeros(0)
        # Where in the count of frames each environment's game began; of `AtariVectorEnv` alone
        self._games: list[int] | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    # -- stepping --------------------------------------------------------------------------------

    def reset(self) -> Any:
        """Reset all environments, with the seed and the options that were set for it."""
        options = self._options[0]
        if any(other != options for other in self._options):
            raise ValueError(
                "a vector environment takes the same options for all its environments: give "
                "`set_options` one dict"
            )
        seed = self._seeds[0]  # of the others it makes seed + 1, seed + 2, ..., as SB3 does
        obs, infos = self._listed.reset(
            seed=None if seed is None else seed % MOST_SEED, options=options or None
        )
        self.reset_infos = list(infos)
        if hasattr(self.env.unwrapped, "ale"):
            self._games = [_start_of_game(info) for info in self.reset_infos]
        self._reset_seeds()
        self._reset_options()
        return copy.deepcopy(obs)  # some write the next ones into the same memory

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = np.asarray(actions, self.action_space.dtype)

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step; where an episode ended, `terminal_observation` is its last observation."""
        obs, rewards, terminated, truncated, listed = self._listed.step(self._actions)
        infos = list(listed)
        dones = np.logical_or(terminated, truncated)
        for i, info in enumerate(infos):
            final = info.pop("final_obs", None)  # where no episode ended, it may hold anything
            if dones[i]:
                if not self._was_reset(i, info):
                    final = _row(obs, i)
                if final is None:
                    raise ValueError(
                        f"environment {i} ended, and {self.env} gave no `final_obs` in its infos: "
                        "without it the end of an episode is lost; see Gymnasium's AutoresetMode"
                    )
                infos[i] = info.pop("final_info", None) or dict(info)
                self.reset_infos[i] = info
                infos[i]["terminal_observation"] = copy.deepcopy(final)
            infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return copy.deepcopy(obs), np.asarray(rewards, np.float32), dones, infos

    def _was_reset(self, i: int, info: dict[str, Any]) -> bool:
        """Whether an environment whose episode ended began anew.

        `AtariVectorEnv(life_loss_info=True)` ends episodes in the midst of a game, which goes on.
        There the newest observation is also the last of its episode, and what ale-py (0.12.1)
        gives for it is unset memory.
        """
        if self._games is None:
            return True
        before, self._games[i] = self._games[i], _start_of_game(info)
        return before != self._games[i]

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Frames of all environments, where they were made to render them."""
        frames = self.env.render() if self.render_mode == "rgb_array" else None
        return [None] * self.num_envs if frames is None else list(frames)  # type: ignore[arg-type]

    # -- asking single environments --------------------------------------------------------------

    def has_attr(self, attr_name: str) -> bool:
        """Whether the single environments have an attribute and can be asked for it."""
        ask = getattr(self.env.unwrapped, "call", None)
        # an attribute that is missing would end the processes of an AsyncVectorEnv
        return ask is not None and all(ask("has_wrapper_attr", attr_name))

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the single environments."""
        if attr_name == "render_mode":
            values: Sequence[Any] = [self.env.render_mode] * self.num_envs
        elif self.has_attr(attr_name):
            values = self._ask("get_wrapper_attr", attr_name)
        else:
            raise AttributeError(f"the environments of {self.env} do not tell any {attr_name!r}")
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of all single environments."""
        self._check_all(indices, "set_attr")
        if not hasattr(self.env.unwrapped, "set_attr"):
            raise AttributeError(f"the environments of {self.env} cannot be given {attr_name!r}")
        self.env.unwrapped.set_attr(attr_name, [value] * self.num_envs)

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of all single environments."""
        self._check_all(indices, "env_method")
        if not self.has_attr(method_name):
            raise AttributeError(f"the environments of {self.env} have no method {method_name!r}")
        return list(self._ask(method_name, *args, **kwargs))

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether single environments have a wrapper; False where they are out of reach."""
        envs = getattr(self.env.unwrapped, "envs", None)  # of a SyncVectorEnv
        indices = self._get_indices(indices)
        return [envs is not None and is_wrapped(envs[i], wrapper_class) for i in indices]

    def _ask(self, name: str, *args: Any, **kwargs: Any) -> Sequence[Any]:
        return self.env.unwrapped.call(name, *args, **kwargs)  # type: ignore[attr-defined, no-any-return]

    def _check_all(self, indices: VecEnvIndices, method: str) -> None:
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise NotImplementedError(
                f"{method}(indices={indices}): a vector environment can ask all of its "
                "environments only; leave out `indices`"
            )


def _check(env: VectorEnv[Any, Any, Any]) -> None:
    mode = env.metadata.get("autoreset_mode")
    if getattr(mode, "value", mode) != SAME_STEP:
        raise ValueError(
            f"{env} has the autoreset mode {getattr(mode, 'value', mode)}, and Stable-Baselines3's "
            "environments reset in the step in which an episode ends: make it with "
            'autoreset_mode="SameStep", as in AtariVectorEnv("pong", 8, autoreset_mode="SameStep") '
            'or gymnasium.make_vec("CartPole-v1", 8, vectorization_mode="sync", '
            'vector_kwargs=dict(autoreset_mode="SameStep"))'
        )
    batch_size = getattr(env.unwrapped, "batch_size", env.num_envs)
    if batch_size != env.num_envs:
        raise ValueError(
            f"{env} steps {batch_size} of its {env.num_envs} environments at a time, and MuZero "
            "searches them all as one batch: leave out `batch_size`"
        )


def _row(obs: Observation, i: int) -> Any:
    return {key: part[i] for key, part in obs.items()} if isinstance(obs, dict) else obs[i]


def _start_of_game(info: dict[str, Any]) -> int:
    return int(info["frame_number"]) - int(info["episode_frame_number"])
