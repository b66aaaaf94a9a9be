"""Batches of recorded games of chess, for `learn_offline`."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces

from muzero_agent.batch import Batch
from muzero_agent.masks import network_space
from muzero_agent.offline_common import (
    VALUE_TARGETS,
    OfflineSettings,
    draws_seed,
    search_noise,
)
from muzero_agent.rules_planner import RulesPlanner

if TYPE_CHECKING:
    from muzero_agent.adapters.envs.chess_rules import ChessState
    from muzero_agent.datasets.chess_games import ChessGames
    from muzero_agent.muzero import MuZero
    from muzero_agent.planner import Plan

CHESS_POLICY_TARGETS = ("search", "candidates", "actions")
TOLD = {"evaluation": 1.0, "result": 1e-6}  # the latter where there is no other
AHEAD = 2  # batches that are drawn while another is learned


def chess_games(dataset: Any, progress_bar: bool) -> ChessGames | None:
    """The games of chess that a dataset is or names; None if it is something else.

    :param progress_bar: for files that are read for the first time
    """
    many = dataset if isinstance(dataset, list | tuple) else [dataset]
    paths = [str(item) for item in many if isinstance(item, str | os.PathLike)]
    named = [path for path in paths if path.lower().endswith((".pgn", ".pgn.zst"))]
    if type(dataset).__name__ != "ChessGames" and not named:
        return None
    from muzero_agent.datasets.chess_games import ChessGames

    if isinstance(dataset, ChessGames):
        return dataset
    if len(named) < len(many):
        raise ValueError(f"dataset={dataset!r}: some are files of games of chess and some are not")
    return ChessGames.open(named, progress_bar=progress_bar)


class ChessSource:
    """Positions on the disk; batches are drawn by a thread while another is learned."""

    def __init__(self, model: MuZero, games: ChessGames, settings: OfflineSettings) -> None:
        from muzero_agent.adapters.envs.chess_rules import ChessRules
        from muzero_agent.datasets.chess_games import ChessBatches
        from muzero_agent.datasets.excursions import Excursions
        from muzero_agent.datasets.game_searches import GameSearches

        _check_chess(model)
        self.model = model
        policies = settings.policy_weights({"candidates": 1.0}, CHESS_POLICY_TARGETS)
        recorded = [name for name in policies if name != "search"]
        if len(recorded) > 1:
            raise ValueError(
                f"policy_targets={settings.policy_targets!r}: of 'candidates' and 'actions' give "
                "one: where no moves were scored, candidates are what was played"
            )
        weights = settings.value_weights(TOLD, VALUE_TARGETS)
        # By them values are judged: their distance from what searches make of them tells little.
        self._told = {name: weights[name] for name in weights if name != "search"} or TOLD
        asked = settings.value_targets != "auto" and "search" not in weights
        if asked and not games.tells(*weights):
            raise ValueError(
                f"value_targets={settings.value_targets!r}: nothing of the kind is told of any of "
                "these positions (evaluations are comments such as [%eval 0.35]): choose among "
                f"{list(VALUE_TARGETS)}"
            )
        compares = (
            max(model.consistency_coef, model.reconstruction_coef or 0.0, settings.latent_coef) > 0
        )
        self.batches = ChessBatches(
            games,
            unroll_steps=settings.unroll_steps,
            policy=recorded[0] if recorded else "actions",
            values=weights,
            temperature=settings.softness,
            max_drop=settings.max_drop,
            following=settings.unroll_steps > 0 and (compares or settings.excursions > 0),
            device=model.device,
            seed=draws_seed(model),
        )
        self._planner = RulesPlanner(ChessRules())
        self._searches: GameSearches | None = None
        if "search" in {*policies, *weights}:
            windows = _searched_windows(
                settings, alone={*policies} == {"search"} or {*weights} == {"search"}
            )
            self._searches = GameSearches(games, self._plan, policies, weights, windows)
        self._excursions = Excursions(
            games, model.policy.evaluate, settings.excursions, seed=draws_seed(model) + 1
        )
        self._ahead = Prefetched(lambda: self.batches.sample(settings.batch_size), AHEAD)

    def sample(self, batch_size: int) -> Batch:
        batch = self._ahead.next()
        # Not ahead of time, since the network is asked.
        last = np.full(batch_size, batch.actions.shape[1])
        if self._excursions.rate > 0:
            last = self._excursions.leave(batch)
        if self._searches is not None:
            self._searches.renew(batch, last)
        return batch

    def _plan(self, states: Sequence[ChessState]) -> Plan:
        return self.model._configured_policy().plan_by_rules(
            states,
            self._planner,
            noise=search_noise(self.model),
            temperature=1.0,
            rng=self.model._rng,
        )

    def learned(self, batch: Batch, values: torch.Tensor) -> None:
        told = self.batches.games.values(batch.rows, self._told)
        errors = np.abs(values.cpu().numpy() - told)
        if np.isnan(errors).all():
            return
        mean, policy = float(np.nanmean(errors)), self.model.policy
        before = float(policy.value_error)
        policy.value_error.fill_(before + 0.02 * (mean - before) if before > 0 else mean)

    def close(self) -> None:
        self._ahead.close()


def _searched_windows(settings: OfflineSettings, *, alone: bool) -> int:
    """Of each batch.

    :param alone: whether there are no other policies, or values, to learn
    :raises ValueError: if there would be none to learn in some windows
    """
    size, positions = settings.batch_size, settings.unroll_steps + 1
    if settings.reanalyse_ratio is None:
        return size
    windows = min(settings.reanalyse_ratio // positions, size)
    least = size if alone else 1
    if windows < least:
        raise ValueError(
            f"reanalyse_ratio={settings.reanalyse_ratio}: {'all' if alone else 'some'} windows of "
            f"a batch, of {positions} positions, are searched for these targets: give at least "
            f"{least * positions}, or None"
        )
    return windows


def _check_chess(model: MuZero) -> None:
    from muzero_agent.adapters.envs.chess import NUM_ACTIONS

    space = network_space(model.observation_space)
    fits = isinstance(space, spaces.Box) and space.shape == (8, 8, 111)
    if not fits or model._num_actions != NUM_ACTIONS or model.num_players != 2:
        raise ValueError(
            "the dataset holds games of chess, and the model is of something else: make it with "
            'MuZero("CnnPolicy", ChessEnv), of muzero_agent.adapters.envs.chess'
        )


class Prefetched:
    """Results of a function, which a thread calls ahead of time, in order.

    :param function: called again and again
    :param ahead: results that may wait
    """

    def __init__(self, function: Callable[[], Batch], ahead: int) -> None:
        self._function = function
        self._pool = ThreadPoolExecutor(1)
        self._waiting = deque(self._pool.submit(function) for _ in range(ahead))

    def next(self) -> Batch:
        """The next result, or the error that the function raised."""
        self._waiting.append(self._pool.submit(self._function))
        return self._waiting.popleft().result()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(cancel_futures=True)
