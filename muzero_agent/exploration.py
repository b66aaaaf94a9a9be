"""Random actions that are repeated (Dabney et al. 2021, "Temporally-extended epsilon-greedy
exploration", ICLR, arXiv 2006.01782).

A policy that has become sure visits a narrow band of states, outside of which values and policies
are guesses: then a start that is a little different leads astray. Single random actions, which the
policy corrects at once, widen that band little; the same one several times in a row leads out of
it, and shows the way back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EXPONENT = 2.0  # of the durations' zeta distribution, as in the paper


class Exploration:
    """The random actions of `n_envs` environments, and for how many more steps each is repeated."""

    def __init__(self, n_envs: int) -> None:
        self.action = np.zeros(n_envs, np.int32)
        self.left = np.zeros(n_envs, np.int64)  # steps

    def replace(
        self,
        actions: NDArray[np.int32],
        legal: NDArray[np.bool_],
        rate: float,
        longest: int,
        rng: np.random.Generator,
    ) -> NDArray[np.int32]:
        """What is played in place of some of the search's actions.

        :param actions: [n_envs], of the search
        :param legal: [n_envs, A]
        :param rate: chance that a random action takes over where none is being repeated
        :param longest: steps that one lasts at most; 1 is epsilon-greedy
        :param rng: draws all of it
        :return: [n_envs], legal: an action that is no longer legal is not repeated
        """
        everyone = np.arange(len(actions))
        self.left[~legal[everyone, self.action]] = 0
        self.left = np.minimum(self.left, longest - 1 if rate > 0 else 0)  # they may have changed
        begins = (self.left == 0) & (rng.random(len(actions)) < rate)
        for i in np.flatnonzero(begins):
            self.action[i] = rng.choice(np.flatnonzero(legal[i]))
            self.left[i] = min(int(rng.zipf(EXPONENT)), longest)
        explores = self.left > 0
        self.left[explores] -= 1
        return np.where(explores, self.action, actions)

    def end_episodes(self, ended: NDArray[np.bool_]) -> None:
        """Nothing is repeated beyond the end of an episode; `ended` is [n_envs]."""
        self.left[ended] = 0
