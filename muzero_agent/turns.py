"""Whose turn it is, and what one constructor means for one player and for two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage, is_vecenv_wrapped

from muzero_agent.actions import num_actions
from muzero_agent.categorical import squashed
from muzero_agent.types import Symmetries

DEFAULTS: Mapping[int, Mapping[str, Any]] = {
    1: {
        "gamma": 0.997,
        "td_steps": 100,
        "td_lambda": 0.98,
        "exploration_rate": 0.05,
        "exploration_length": 16,
        "terminal_rewards": False,
    },
    # A game counts by its result: Monte-Carlo targets, undiscounted. In a game the same move again
    # leads nowhere in particular.
    2: {
        "gamma": 1.0,
        "td_steps": 1000,
        "td_lambda": 1.0,
        "exploration_rate": 0.1,
        "exploration_length": 1,
        "terminal_rewards": True,
    },
}
"""What None resolves to among `MuZero`'s arguments, by the number of players."""

RECONSTRUCTION: Mapping[int, float] = {1: 0.0, 2: 10.0}
"""What `reconstruction_coef=None` resolves to, likewise, where the network decodes latents."""

SUPPORT: Mapping[int, Mapping[str, Any]] = {
    1: {"support_mean": "scalars"},
    2: {"support_mean": "scalars", "support_bound": squashed(1.0), "support_size": 21},
}
"""What is added to `policy_kwargs` if not given, by the number of players.

Predictions are means of scalars; a policy that was saved before it could say so has others, so that
this is no default of policies. Results of games are -1, 0 and 1, and the atoms of a support made
for returns of any size lie far apart beside them: even a sure result would be told as a mixture of
two.
"""


def resolved(num_players: int, name: str, given: Any) -> Any:
    """The argument as given, or its default for this number of players."""
    if num_players not in DEFAULTS:
        raise ValueError(f"num_players={num_players!r}: give 1 or 2")
    return DEFAULTS[num_players][name] if given is None else given


def players_of(env: Any) -> int:
    """How many players take turns in an environment: 2 if its `num_players` says so, else 1.

    Another number than 1 or 2 is taken to mean something else.
    """
    name = "num_players"
    if isinstance(env, VecEnv):
        told = env.get_attr(name) if env.has_attr(name) else [1]
    elif isinstance(env, gym.Env):
        told = [env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else 1]
    else:
        told = [1]
    games = [number == 2 for number in told]
    if any(games) and not all(games):
        raise ValueError(
            f"num_players={told}: some of the environments are games of two and some are not; "
            "MuZero learns one kind at a time"
        )
    return 2 if any(games) else 1


def check_players(num_players: int, env: VecEnv) -> None:
    """Refuse an environment of one player for a model of games.

    The contrary may be meant: a game whose other player belongs to the environment.
    """
    if num_players == 2 and env.has_attr("num_players") and players_of(env) != 2:
        raise ValueError(
            "the model has num_players=2 and the environment 1: values mean something else; make a "
            "new model for it"
        )


def symmetries_of(env: VecEnv) -> Symmetries | None:
    """Those that the environments declare, if they do."""
    if not env.has_attr("symmetries"):
        return None
    symmetries: Symmetries | None = env.get_attr("symmetries", 0)[0]
    if symmetries is None:
        return None
    space = env.observation_space
    board = space["observation"] if isinstance(space, spaces.Dict) else space
    sizes = {
        "observation": int(np.prod(board.shape or ())),
        "action": num_actions(env.action_space),
    }
    for name, size in sizes.items():
        rows = np.asarray(getattr(symmetries, name))
        permuted = rows.ndim == 2 and np.array_equal(
            np.sort(rows, axis=1), np.broadcast_to(np.arange(size), (len(rows), size))
        )
        if not permuted or len(rows) != len(symmetries.action):
            raise ValueError(
                f"the environment's symmetries.{name}, of the shape {rows.shape}, are no "
                f"permutations of {size} entries, as many for both: mend them, or give "
                "augment=False"
            )
    if is_vecenv_wrapped(env, VecTransposeImage):
        raise ValueError(
            "the environment's symmetries number its observations channels last, and "
            "VecTransposeImage turned them: give MuZero augment=False, or let the game show planes "
            "that are not uint8"
        )
    return symmetries


class Turns:
    """Who is to move in each of `n_envs` environments, and how many moves were made there."""

    def __init__(self, n_envs: int, num_players: int) -> None:
        self.num_players = num_players
        self.to_play = np.zeros(n_envs, np.int8)
        self.move = np.zeros(n_envs, np.int64)  # of the episode, from 0

    def begin(self, infos: Sequence[Mapping[str, Any]], begun: NDArray[np.bool_]) -> None:
        """Episodes began.

        :param infos: of the resets, one for each environment
        :param begun: bool [n_envs], where
        """
        for i in np.flatnonzero(begun).tolist():
            self.move[i] = 0
            self._read(i, infos[i])

    def moved(self, infos: Sequence[Mapping[str, Any]], ended: NDArray[np.bool_]) -> None:
        """A step was taken everywhere; where an episode ended, whose turn it would be counts.

        :param infos: of the step
        :param ended: bool [n_envs]
        """
        self.move += 1
        before = self.to_play.copy()
        for i in range(len(self.move)):
            self._read(i, infos[i])
        again = (self.to_play == before) & ~ended
        if self.num_players == 2 and again.any():
            i = int(np.flatnonzero(again)[0])
            raise ValueError(
                f"environment {i}: player {before[i]} is to move twice in a row, and the search "
                "takes it that players alternate: let the other one pass in between"
            )

    def _read(self, i: int, info: Mapping[str, Any]) -> None:
        if self.num_players == 1:
            return
        if info.get("to_play") not in range(self.num_players):
            raise ValueError(
                f'environment {i} gave info["to_play"]={info.get("to_play")!r}: with '
                f"num_players={self.num_players}, its `reset` and `step` have to tell who is to "
                "move next, 0 or 1; or give MuZero(num_players=1), if one player acts in it"
            )
        self.to_play[i] = info["to_play"]
