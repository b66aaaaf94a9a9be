"""Random actions: at the beginning of episodes, and repeated ones in their midst (Dabney et al.
2021, "Temporally-extended epsilon-greedy exploration", ICLR, arXiv 2006.01782).

A policy that has become sure visits a narrow band of states, outside of which values and policies
are guesses: then a start that is a little different leads astray. Single random actions, which the
policy corrects at once, widen that band little; the same one several times in a row leads out of
it, and shows the way back. Random beginnings lead elsewhere for good, and what follows is played as
well as can be: in games, where an opponent may do anything, results then tell what a position is
worth.
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
        self.opening = np.zeros(n_envs, np.int64)  # steps of the beginning that are left

    def begin_episodes(
        self, begun: NDArray[np.bool_], longest: int, rng: np.random.Generator
    ) -> None:
        """Draw how many random actions episodes begin with, 0 to `longest`; `begun` is [n_envs]."""
        self.left[begun] = 0
        if longest > 0:
            self.opening[begun] = rng.integers(longest + 1, size=int(begun.sum()))
        else:
            self.opening[begun] = 0

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
        opens = self.opening > 0
        self.opening[opens] -= 1
        begins = (self.left == 0) & (rng.random(len(actions)) < rate)
        for i in np.flatnonzero(begins | opens):
            self.action[i] = rng.choice(np.flatnonzero(legal[i]))
            self.left[i] = 1 if opens[i] else min(int(rng.zipf(EXPONENT)), longest)
        explores = self.left > 0
        self.left[explores] -= 1
        return np.where(explores, self.action, actions)
