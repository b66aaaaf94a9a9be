"""Targets from searches by the rules, for recorded games: Reanalyse (MuZero, appendix H) of chess.

The rules of the game are at hand where its positions are, so searches need not trust the dynamics,
which may not even be learned yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from muzero_agent.adapters.envs.chess_rules import ChessState
from muzero_agent.batch import Batch, Rows
from muzero_agent.datasets.chess_games import ChessGames, states
from muzero_agent.planner import Plan

SEARCH = "search"


class GameSearches:
    """Searches positions of batches, and mixes what it finds with what is told of them.

    :param games: from which the batches come
    :param plan: searches from B states with the newest weights
    :param policies: weights of policy targets: of "search", and of what the batches hold
    :param values: weights of value targets; see `ChessGames.values`
    :param windows: of each batch at most, of K + 1 positions, that are searched
    """

    def __init__(
        self,
        games: ChessGames,
        plan: Callable[[Sequence[ChessState]], Plan],
        policies: Mapping[str, float],
        values: Mapping[str, float],
        windows: int,
    ) -> None:
        self.games = games
        self.windows = windows
        self._plan = plan
        self._values = dict(values)
        self._searched = float(policies.get(SEARCH, 0.0))
        self._told = float(sum(policies.values())) - self._searched

    def renew(self, batch: Batch, last: NDArray[np.int64]) -> None:
        """Give all positions of the first windows of a batch, in place, targets from searches.

        :param last: [B], of each window the number of the last position to search, 0 .. K
        """
        steps = np.arange(batch.values.shape[1])
        first = Rows(batch.rows.env[: self.windows], batch.rows.row[: self.windows])
        row = first.row[:, None] + steps
        # Where a game ends nothing is left to search.
        wanted = (row < self.games.last_rows(first)[:, None]) & (
            steps <= last[: self.windows, None]
        )
        window, step = np.nonzero(wanted)
        rows = Rows(first.env[window], row[window, step])
        plan = self._plan(states(self.games, rows))
        # Of what a search says of its root this is nearest to the labels of held-out games: means
        # of all visits count every move that was tried and found bad.
        values = self.games.values(rows, self._values, plan.improved_value)
        if self._searched > 0:
            told = batch.policies[window, step] * batch.policy_mask[window, step, None] * self._told
            found = self._tensor(plan.policy, batch) * self._searched
            mixed = told + found
            batch.policies[window, step] = mixed / mixed.sum(-1, keepdim=True)
            batch.policy_mask[window, step] = 1.0
        if self._values.get(SEARCH, 0.0) > 0:
            batch.values[window, step] = self._tensor(values, batch)
            batch.value_mask[window, step] = 1.0

    @staticmethod
    def _tensor(array: NDArray[np.float32], batch: Batch) -> torch.Tensor:
        return torch.as_tensor(array, dtype=batch.values.dtype, device=batch.values.device)
