"""What to look at while a model learns: how far it is, and how well it plays games."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback

from muzero_agent.matches import MatchResult, play_match
from muzero_agent.players import ModelPlayer, Player, RandomPlayer
from muzero_agent.types import Rules


class ResumedProgressBar(ProgressBarCallback):
    """SB3's progress bar, which goes on where a run was interrupted."""

    def _on_training_start(self) -> None:
        from tqdm import TqdmExperimentalWarning
        from tqdm.rich import tqdm

        # Not SB3's own with another total: rich has drawn that one already.
        total, done = self.locals["total_timesteps"], self.model.num_timesteps
        with warnings.catch_warnings(action="ignore", category=TqdmExperimentalWarning):
            self.pbar = tqdm(total=total, initial=done)


class MatchCallback(BaseCallback):
    """Play matches while learning, and log their results.

    In self-play the mean reward of an episode tells nothing: one player's win is the other's loss.
    This logs for each opponent, under `match/<its name>/`, the share of points with the first move
    (`first`), with the second (`second`), over all (`score`), and the Elo difference (`elo`).

    :param make_env: makes a game, of PettingZoo or as a `TurnBasedEnv`
    :param opponents: whom the model meets; None: a player of random moves
    :param every: environment steps between matches
    :param pairs: of games, per match
    :param opening_moves: see `play_match`
    :param rules: see `play_match`
    :param seed: of the matches, each of which begins with the same openings
    :param verbose: 1 prints each result

    `results` holds (steps, result) of all matches.
    """

    def __init__(
        self,
        make_env: Callable[[], Any],
        opponents: Sequence[Player] | None = None,
        *,
        every: int = 10_000,
        pairs: int = 25,
        opening_moves: int = 2,
        rules: Rules[Any] | None = None,
        seed: int = 0,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        if every < 1:
            raise ValueError(f"every={every}: give 1 or more steps")
        self.make_env = make_env
        self.opponents = [RandomPlayer()] if opponents is None else list(opponents)
        self.every = every
        self.pairs = pairs
        self.opening_moves = opening_moves
        self.rules = rules
        self.seed = seed
        self.results: list[tuple[int, MatchResult]] = []
        self._next = 0

    def _on_training_start(self) -> None:
        if self.model.get_vec_normalize_env() is not None:
            raise ValueError(
                "MatchCallback shows the game's own observations, and the model learns behind a "
                "VecNormalize: leave that out, boards need none"
            )
        self._next = self.num_timesteps + self.every

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._next:
            self._next = self.num_timesteps + self.every
            self.play()
        return True

    def play(self) -> None:
        """Play all matches now."""
        player = ModelPlayer(self.model)
        for opponent in self.opponents:
            result = play_match(
                player,
                opponent,
                self.make_env,
                pairs=self.pairs,
                opening_moves=self.opening_moves,
                rules=self.rules,
                seed=self.seed,
            )
            self.results.append((self.num_timesteps, result))
            prefix = f"match/{opponent.name}"
            self.logger.record(f"{prefix}/score", result.score)
            self.logger.record(f"{prefix}/first", result.seat_score(0))
            self.logger.record(f"{prefix}/second", result.seat_score(1))
            self.logger.record(f"{prefix}/elo", result.elo()[0])
            if self.verbose:
                print(f"{self.num_timesteps:,} steps: {result}")
