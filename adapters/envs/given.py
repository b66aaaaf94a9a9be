"""Whatever is given to `MuZero` for an environment, as Stable-Baselines3 takes it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from muzero_agent.adapters.envs.atari import is_atari, register_atari
from muzero_agent.adapters.envs.gymnasium import as_vec_env
from muzero_agent.adapters.envs.minatar import register_minatar
from muzero_agent.adapters.envs.names import GAMES
from muzero_agent.adapters.envs.pettingzoo import as_turn_based


def as_env(env: Any) -> Any:
    """A VecEnv of a turn-based game or of a vector environment; all else as it is.

    :param env: see `MuZero`. An id may be one of `GAMES`, and MinAtar's and Atari's are in
        Gymnasium's registry from then on
    :raises ImportError: naming what an id needs and is not installed
    :raises ValueError: if a game or a vector environment is refused
    """
    if isinstance(env, str):
        register_minatar(env)
        if env not in gym.registry and is_atari(env):
            register_atari()
        env = GAMES.get(env, env)
    return as_vec_env(as_turn_based(env))
