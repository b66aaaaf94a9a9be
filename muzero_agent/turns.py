"""Whose turn it is, and what one constructor means for one player and for two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from muzero_agent.types import Symmetries

DEFAULTS: Mapping[int, Mapping[str, Any]] = {
    1: {
        "gamma": 0.997,
        "td_steps": 100,
        "td_lambda": 0.98,
        "exploration_rate": 0.05,
        "exploration_length": 16,
    },
    # A game counts by its result: Monte-Carlo targets, undiscounted. In a game the same move again
    # leads nowhere in particular.
    2: {
        "gamma": 1.0,
        "td_steps": 1000,
        "td_lambda": 1.0,
        "exploration_rate": 0.1,
        "exploration_length": 1,
    },
}
"""What None resolves to among `MuZero`'s arguments, by the number of players."""


def resolved(num_players: int, name: str, given: Any) -> Any:
    """The argument as given, or its default for this number of players."""
    if num_players not in DEFAULTS:
        raise ValueError(f"num_players={num_players!r}: give 1 or 2")
    return DEFAULTS[num_players][name] if given is None else given


def players_of(env: Any) -> int:
    """How many players take turns in an environment: what its `num_players` says, else 1."""
    if isinstance(env, VecEnv):
        told = env.get_attr("num_players") if env.has_attr("num_players") else []
    else:
        told = [getattr(getattr(env, "unwrapped", None), "num_players", 1)]
    numbers = set(map(int, told)) or {1}
    if len(numbers) > 1 or not numbers <= DEFAULTS.keys():
        raise ValueError(
            f"num_players={sorted(numbers)}: MuZero learns environments of one player, or "
            "zero-sum games of two, and one kind at a time"
        )
    return numbers.pop()


def check_players(num_players: int, env: VecEnv) -> None:
    """Refuse an environment for a model that was made for another number of players."""
    found = players_of(env) if env.has_attr("num_players") else num_players
    if found != num_players:
        raise ValueError(
            f"the model has num_players={num_players} and the environment {found}: values mean "
            "something else; make a new model for it"
        )


def symmetries_of(env: VecEnv) -> Symmetries | None:
    """Those that the environments declare, if they do."""
    if not env.has_attr("symmetries"):
        return None
    symmetries: Symmetries | None = env.get_attr("symmetries", 0)[0]
    return symmetries


class Turns:
    """Who is to move in each of `n_envs` environments, and how many moves were made there."""

    def __init__(self, n_envs: int, num_players: int) -> None:
        self.num_players = num_players
        self.to_play = np.zeros(n_envs, np.int8)
        self.move = np.zeros(n_envs, np.int64)  # of the episode, from 0

    def begin(
        self, infos: Sequence[Mapping[str, Any]], begun: NDArray[np.bool_] | None = None
    ) -> None:
        """Episodes began.

        :param infos: of the resets, one for each environment
        :param begun: bool [n_envs], where; None: everywhere
        """
        for i in range(len(self.move)) if begun is None else np.flatnonzero(begun).tolist():
            self.move[i] = 0
            self._read(i, infos[i])

    def moved(self, infos: Sequence[Mapping[str, Any]]) -> None:
        """A step was taken everywhere; `infos` are those of the step."""
        self.move += 1
        for i in range(len(self.move)):
            self._read(i, infos[i])

    def _read(self, i: int, info: Mapping[str, Any]) -> None:
        if self.num_players == 1:
            return
        if info.get("to_play") not in range(self.num_players):
            raise ValueError(
                f'environment {i} gave info["to_play"]={info.get("to_play")!r}: with '
                f"num_players={self.num_players}, its `reset` and `step` have to tell who is to "
                "move next, 0 or 1"
            )
        self.to_play[i] = info["to_play"]
