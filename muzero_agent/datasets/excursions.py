"""Windows that leave the recorded game: what follows from moves that nobody played.

Those who know a game do not blunder on record. Dynamics that are learned from their play alone take
every move for a good one, and a search in them cannot tell what is wrong with a bad one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from muzero_agent.adapters.envs.chess_rules import ChessRules
from muzero_agent.batch import Batch, Rows
from muzero_agent.datasets.chess_games import ChessGames, states
from muzero_agent.rules_planner import Evaluate, RulesModel
from muzero_agent.types import RecurrentOutput


class Excursions:
    """Lets windows of batches leave their games of chess.

    One of a window's moves, each as likely as the others, is replaced by a random legal one, and
    those behind it are drawn from the network's policy. What follows is told by the rules; what it
    is worth, and what to play there, by the network, and by the rules where a move mates.

    :param games: from which the windows come
    :param evaluate: the network's policy logits and values of observations
    :param rate: share of the windows that leave, 0 .. 1
    :param seed: of what is drawn
    """

    def __init__(
        self, games: ChessGames, evaluate: Evaluate, rate: float, seed: int | None = None
    ) -> None:
        self.games = games
        self.rate = rate
        self.rng = np.random.default_rng(seed)
        self._evaluate = evaluate

    def leave(self, batch: Batch) -> NDArray[np.int64]:
        """Write some windows of a batch anew, in place, behind the position that they leave.

        :return: [B], of each window the number of its last position that is on record, 0 .. K
        """
        size, steps = batch.actions.shape
        windows = np.flatnonzero(self.rng.random(size) < self.rate)
        rows = Rows(batch.rows.env[windows], batch.rows.row[windows])
        moves = self.games.last_rows(rows) - rows.row  # that follow in the game, at least one
        leaving = self.rng.integers(np.minimum(steps, moves))
        rules = ChessRules()
        model = RulesModel(rules, self._evaluate)
        model.states = states(self.games, Rows(rows.env, rows.row + leaving))
        at = np.arange(len(windows))  # number of the state in which a window is
        logits = np.full((len(windows), rules.num_actions), -np.inf, np.float32)
        for window, state in enumerate(model.states):
            logits[window, rules.legal(state)] = 0.0
        over = np.zeros(len(windows), np.bool_)
        for step in range(steps):
            self._absorb(batch, windows[over], step)
            out = np.flatnonzero((leaving <= step) & ~over)
            if len(out) == 0:
                continue
            drawn = logits[out] + self.rng.gumbel(size=(len(out), logits.shape[1]))
            actions = drawn.argmax(-1)
            first = len(model.states)
            found = model.step(at[out].tolist(), actions.tolist())
            seen = np.stack([rules.observe(state) for state in model.states[first:]])
            at[out] = np.arange(first, len(model.states))
            logits[out], over[out] = found.prior_logits, found.terminal
            self._write(batch, windows[out], step, actions, seen, found)
        last = np.full(size, steps, np.int64)
        last[windows] = leaving
        return last

    @staticmethod
    def _write(
        batch: Batch,
        windows: NDArray[np.int64],
        step: int,
        actions: NDArray[np.int64],
        seen: NDArray[np.bool_],
        found: RecurrentOutput,
    ) -> None:
        """A move of windows, and the states behind it."""

        def put(part: Any, number: int, rows: NDArray[Any]) -> None:
            part[windows, number] = torch.as_tensor(rows, dtype=part.dtype, device=part.device)

        assert found.terminal is not None
        policies = np.exp(found.prior_logits - found.prior_logits.max(-1, keepdims=True))
        put(batch.actions, step, actions)
        put(batch.rewards, step, found.reward)
        put(batch.values, step + 1, found.value)
        put(batch.policies, step + 1, policies / policies.sum(-1, keepdims=True))
        put(batch.observations, step + 1, seen)
        put(batch.policy_mask, step + 1, ~found.terminal)
        batch.value_mask[windows, step + 1] = 1.0
        for mask in (batch.reward_mask, batch.consistency_mask):
            mask[windows, step] = 1.0

    @staticmethod
    def _absorb(batch: Batch, windows: NDArray[np.int64], step: int) -> None:
        """A move behind the end of the game, which changes nothing."""
        batch.rewards[windows, step] = 0.0
        batch.values[windows, step + 1] = 0.0
        batch.reward_mask[windows, step] = 1.0
        batch.value_mask[windows, step + 1] = 1.0
        batch.policy_mask[windows, step + 1] = 0.0
        batch.consistency_mask[windows, step] = 0.0
