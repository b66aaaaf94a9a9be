"""Which visit count sequential halving looks at in each simulation.

Almost Optimal Exploration in Multi-Armed Bandits (Karnin et al. 2013), as Gumbel MuZero uses it
(Danihelka et al. 2022, section 3.2): the considered actions are visited in rounds, and after each
phase the worse half of them is dropped. All considered actions of a phase have equally many visits,
so the rule is told by one number per simulation: choose among the actions with that many visits.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def considered_visits(num_considered: int, num_simulations: int) -> list[int]:
    """The visit count that an action must have to be chosen, for each simulation.

    :param num_considered: actions of the first phase; 0 and 1 mean a single action
    :param num_simulations: the budget
    :return: `num_simulations` numbers
    """
    if num_considered <= 1:
        return list(range(num_simulations))
    num_phases = (num_considered - 1).bit_length()  # ceil(log2)
    sequence: list[int] = []
    visits = 0
    while len(sequence) < num_simulations:
        rounds = max(1, num_simulations // (num_phases * num_considered))
        for _ in range(rounds):
            sequence.extend([visits] * num_considered)
            visits += 1
        num_considered = max(2, num_considered // 2)
    return sequence[:num_simulations]


@lru_cache(maxsize=64)
def considered_visits_table(max_considered: int, num_simulations: int) -> NDArray[np.int32]:
    """int32 [max_considered + 1, num_simulations]: row m serves roots with m considered actions."""
    return np.array(
        [considered_visits(m, num_simulations) for m in range(max_considered + 1)], np.int32
    )
